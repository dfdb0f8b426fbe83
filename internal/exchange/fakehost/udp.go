// SPDX-License-Identifier: GPL-2.0-only

package fakehost

import (
	"hash/maphash"
	"net"
	"net/netip"

	"netsysrq/auth"
)

// Serve answers on conn until it is closed.
func (h *Host) Serve(conn *net.UDPConn) {
	seed := maphash.MakeSeed()
	packet := make([]byte, 2048)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(packet)
		if err != nil {
			return
		}
		for _, answer := range h.Answer(packet[:n], auth.Source(maphash.Comparable(seed, from))) {
			conn.WriteToUDPAddrPort(answer, from)
		}
	}
}

// Loopback opens a UDP socket on 127.0.0.1 or ::1, at a port that is free.
func Loopback(ip string) (*net.UDPConn, error) {
	return net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(ip), 0)))
}
