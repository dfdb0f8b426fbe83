// SPDX-License-Identifier: GPL-2.0-only

package exchange

import (
	"encoding/binary"
	"iter"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"netsysrq/auth"
)

// complaint is an ICMP error about a packet of ours.
type complaint struct {
	to  netip.AddrPort // where that was sent
	err error
}

// openUDP opens a socket that is not connected but hears ICMP errors all the
// same, with the packet that each is about (IP_RECVERR, ip(7)).
func openUDP(ipv6 bool) (Socket, error) {
	network := "udp4"
	if ipv6 {
		network = "udp6"
	}
	conn, err := net.ListenUDP(network, nil)
	if err != nil {
		return nil, err
	}
	conn.SetReadBuffer(sharedBuffer) // as much as the system allows
	raw, err := conn.SyscallConn()
	if err == nil {
		// Without it ICMP errors are not heard, and only a hint is missing.
		raw.Control(func(fd uintptr) {
			if ipv6 {
				unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1)
			} else {
				unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVERR, 1)
			}
		})
	}
	return conn, nil
}

// complaintsOf empties the error queue of a socket, each with the packet.
func complaintsOf(conn *net.UDPConn) iter.Seq2[[]byte, complaint] {
	return func(yield func([]byte, complaint) bool) {
		raw, err := conn.SyscallConn()
		if err != nil {
			return
		}
		packet, control := make([]byte, auth.PacketSize), make([]byte, 512)
		for {
			var n, length int
			var to unix.Sockaddr
			failed := raw.Control(func(fd uintptr) {
				n, length, _, to, err = unix.Recvmsg(int(fd), packet, control, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
			})
			if failed != nil || err != nil {
				return
			}
			c := complaint{to: addrPort(to), err: extended(control[:length])}
			if n == len(packet) && c.err != nil && !yield(packet, c) {
				return
			}
		}
	}
}

// extended reads the errno of struct sock_extended_err (linux/errqueue.h).
func extended(control []byte) error {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil
	}
	for _, m := range messages {
		v4 := m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_RECVERR
		v6 := m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_RECVERR
		if (v4 || v6) && len(m.Data) >= 4 {
			return syscall.Errno(binary.NativeEndian.Uint32(m.Data))
		}
	}
	return nil
}

func addrPort(a unix.Sockaddr) netip.AddrPort {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	return netip.AddrPort{}
}
