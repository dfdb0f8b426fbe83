// SPDX-License-Identifier: GPL-2.0-only

//go:build integration

package rules

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Packets that no socket sends by itself.
const (
	plain         = iota
	firstFragment // complete, but says that more follows
	laterFragment // not at offset 0, looks like UDP all the same
	shortUDP      // the UDP header says less than the IP header
	options       // IPv4 options, or an IPv6 extension header
)

// packet makes an IP packet from the client to the server's port.
func packet(f Family, kind int) []byte {
	udp := append(make([]byte, 8), request()...)
	binary.BigEndian.PutUint16(udp[0:], 4000)
	binary.BigEndian.PutUint16(udp[2:], 9)
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	if kind == shortUDP {
		binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)-1))
	}
	client, server := addresses(f)
	src, dst := netip.MustParseAddr(client).AsSlice(), netip.MustParseAddr(server).AsSlice()
	if f == IPv6 {
		var extension []byte
		next := byte(unix.IPPROTO_UDP)
		switch kind {
		case firstFragment:
			extension, next = []byte{unix.IPPROTO_UDP, 0, 0, 1, 1, 2, 3, 4}, unix.IPPROTO_FRAGMENT
		case laterFragment:
			extension, next = []byte{unix.IPPROTO_UDP, 0, 0, 8, 1, 2, 3, 5}, unix.IPPROTO_FRAGMENT
		case options:
			extension, next = []byte{unix.IPPROTO_UDP, 0, 1, 4, 0, 0, 0, 0}, unix.IPPROTO_DSTOPTS
		}
		h := make([]byte, 8, 40)
		h[0], h[6], h[7] = 0x60, next, 64
		binary.BigEndian.PutUint16(h[4:], uint16(len(extension)+len(udp)))
		h = append(append(append(h, src...), dst...), extension...)
		return append(h, udp...)
	}
	h := make([]byte, 12, 24)
	h[0], h[8], h[9] = 0x45, 64, unix.IPPROTO_UDP
	h[5] = byte(1 + kind) // fragments need an id
	switch kind {
	case firstFragment:
		h[6] = 0x20
	case laterFragment:
		h[7] = 1
	case options:
		h[0] = 0x46
	}
	h = append(append(h, src...), dst...)
	if kind == options {
		h = append(h, 1, 1, 1, 0) // three no-operations and the end
	}
	return append(h, udp...)
}

// sendRaw sends a packet from the client, headers and all.
func (l *lab) sendRaw(f Family, p []byte) {
	l.Helper()
	_, server := addresses(f)
	to := netip.MustParseAddr(server)
	err := l.net.Do(l.net.Client, func() error {
		family, addr := unix.AF_INET, unix.Sockaddr(nil)
		if f == IPv6 {
			family, addr = unix.AF_INET6, &unix.SockaddrInet6{Addr: to.As16()}
		} else {
			addr = &unix.SockaddrInet4{Addr: to.As4()}
		}
		// IPPROTO_RAW means that the header is included.
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return fmt.Errorf("raw socket: %w", err)
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, p, 0, addr)
	})
	if err != nil {
		l.Fatal(err)
	}
}
