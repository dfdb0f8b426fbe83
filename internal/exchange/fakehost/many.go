// SPDX-License-Identifier: GPL-2.0-only

package fakehost

import (
	"fmt"
	"hash/maphash"
	"net"
	"net/netip"

	"golang.org/x/net/ipv4"

	"netsysrq/auth"
)

// Many are hosts in one process, each with an address of its own.
type Many struct {
	conn  *net.UDPConn
	hosts map[auth.KeyID]*Host
}

// ListenMany opens a socket for all addresses of 127.0.0.0/8, at a port that
// is free.
func ListenMany(hosts map[auth.KeyID]*Host) (*Many, error) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{})
	if err != nil {
		return nil, err
	}
	conn.SetReadBuffer(16 << 20) // as much as the system allows
	if err := ipv4.NewPacketConn(conn).SetControlMessage(ipv4.FlagDst, true); err != nil {
		conn.Close()
		return nil, fmt.Errorf("ask for the address that a packet was sent to: %w", err)
	}
	return &Many{conn, hosts}, nil
}

// Port returns the port.
func (m *Many) Port() uint16 { return m.conn.LocalAddr().(*net.UDPAddr).AddrPort().Port() }

// Serve answers until the socket is closed. It may run several times at once.
func (m *Many) Serve() error {
	packets := ipv4.NewPacketConn(m.conn)
	seed := maphash.MakeSeed()
	messages := make([]ipv4.Message, 64)
	for i := range messages {
		messages[i].Buffers = [][]byte{make([]byte, 2048)}
		messages[i].OOB = ipv4.NewControlMessage(ipv4.FlagDst)
	}
	for {
		n, err := packets.ReadBatch(messages, 0)
		if err != nil {
			return err
		}
		for _, msg := range messages[:n] {
			packet := msg.Buffers[0][:msg.N]
			id, reason := auth.CheckRequest(packet)
			h := m.hosts[id]
			if reason != auth.OK || h == nil {
				continue
			}
			from := msg.Addr.(*net.UDPAddr).AddrPort()
			var to ipv4.ControlMessage
			answers := h.Answer(packet, auth.Source(maphash.Comparable(seed, from)))
			if len(answers) == 0 || to.Parse(msg.OOB[:msg.NN]) != nil {
				continue
			}
			for _, answer := range answers {
				packets.WriteTo(answer, &ipv4.ControlMessage{Src: to.Dst}, msg.Addr)
			}
		}
	}
}

// Close ends Serve.
func (m *Many) Close() error { return m.conn.Close() }

// Address is the i-th address of 127.0.0.0/8 that a host can have.
func Address(i int) netip.Addr {
	n := uint32(127)<<24 + 1<<16 + uint32(i) + 1
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}
