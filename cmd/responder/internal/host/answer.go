// SPDX-License-Identifier: GPL-2.0-only

package host

import (
	"errors"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"netsysrq/cmd/responder/internal/hint"
)

// Answerer sends replies from the protocol's port.
type Answerer struct {
	port     uint16
	fd4, fd6 int // fd6 is -1 on a host without IPv6
}

// NewAnswerer takes the sockets that were handed over, or else binds the port,
// for sending only: whatever reaches it past the firewall's rules is dropped
// unread. Below 1024 this needs privileges.
func NewAnswerer(in Inherited, port uint16) (*Answerer, error) {
	a := &Answerer{port: port, fd6: -1}
	if fd4, ok := in.take(Answer4); ok {
		a.fd4 = fd4
		if fd6, ok := in.take(Answer6); ok {
			a.fd6 = fd6
		}
		return a, nil
	}
	var err error
	if a.fd4, a.fd6, err = BindAnswers(port); err != nil {
		return nil, err
	}
	return a, nil
}

// BindAnswers makes an Answerer's sockets. fd6 is -1 on a host without IPv6.
func BindAnswers(port uint16) (fd4, fd6 int, err error) {
	if fd4, err = sendOnly(unix.AF_INET, &unix.SockaddrInet4{Port: int(port)}); err != nil {
		return -1, -1, taken(fmt.Errorf("bind UDP port %d: %w", port, err))
	}
	fd6, err = sendOnly(unix.AF_INET6, &unix.SockaddrInet6{Port: int(port)})
	switch {
	case errors.Is(err, unix.EAFNOSUPPORT):
		return fd4, -1, nil
	case err != nil:
		unix.Close(fd4)
		return -1, -1, taken(fmt.Errorf("bind UDP port %d for IPv6: %w", port, err))
	}
	return fd4, fd6, nil
}

func taken(err error) error {
	if errors.Is(err, unix.EADDRINUSE) {
		return hint.Add(err, "is another netsysrqd running? netsysrqd check")
	}
	return err
}

func sendOnly(family int, addr unix.Sockaddr) (fd int, err error) {
	fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	none, err := bpf.Assemble([]bpf.Instruction{bpf.RetConstant{Val: 0}})
	if err != nil {
		return fd, err
	}
	prog := unix.SockFprog{Len: uint16(len(none)), Filter: (*unix.SockFilter)(unsafe.Pointer(&none[0]))}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
		return fd, err
	}
	if family == unix.AF_INET6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return fd, err
		}
	}
	return fd, unix.Bind(fd, addr)
}

// Send sends one reply to a source, from the address that it wrote to. The
// interface matters for link-local addresses only: elsewhere routing decides.
// It never waits.
func (a *Answerer) Send(to, from netip.AddrPort, dev uint32, packet []byte) error {
	if from.Port() != a.port {
		return fmt.Errorf("asked at port %d, not %d", from.Port(), a.port)
	}
	if to.Addr().Is4() {
		info := unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: from.Addr().As4()})
		return unix.Sendmsg(a.fd4, packet, info, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}, 0)
	}
	if a.fd6 < 0 {
		return errors.New("this host has no IPv6")
	}
	info := unix.Inet6Pktinfo{Addr: from.Addr().As16()}
	sa := unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	if to.Addr().IsLinkLocalUnicast() {
		info.Ifindex, sa.ZoneId = dev, dev
	}
	return unix.Sendmsg(a.fd6, packet, unix.PktInfo6(&info), &sa, 0)
}
