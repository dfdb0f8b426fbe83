// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"

	"netsysrq/auth"
	"netsysrq/internal/exchange"
	"netsysrq/internal/vm"
)

// relay carries datagrams between a socket on 127.0.0.1, where netsysrq sends
// them, and the machine's wire, which no socket reaches. It looks at none.
type relay struct {
	conn  *net.UDPConn
	dial  exchange.Dial
	paths map[netip.AddrPort]io.ReadWriteCloser // by the sender's address
}

func newRelay(dial exchange.Dial) (*relay, error) {
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	r := &relay{conn: conn, dial: dial, paths: map[netip.AddrPort]io.ReadWriteCloser{}}
	go r.carry()
	return r, nil
}

// port is where to send to.
func (r *relay) port() uint16 { return r.conn.LocalAddr().(*net.UDPAddr).AddrPort().Port() }

func (r *relay) close() { r.conn.Close() }

// carry carries datagrams to the machine, from a port of its own for each of
// the sender's, until the socket is closed.
func (r *relay) carry() {
	defer func() {
		for _, p := range r.paths {
			p.Close()
		}
	}()
	buf := make([]byte, 65536)
	for {
		n, from, err := r.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		p := r.paths[from]
		if p == nil {
			if p, err = r.dial(context.Background(), vm.GuestUDP4(auth.Port)); err != nil {
				continue // what a network does with a packet that it cannot carry
			}
			r.paths[from] = p
			go r.back(p, from)
		}
		p.Write(buf[:n])
	}
}

// back carries the answers.
func (r *relay) back(p io.Reader, to netip.AddrPort) {
	buf := make([]byte, 65536)
	for {
		n, err := p.Read(buf)
		if err != nil {
			return
		}
		r.conn.WriteToUDPAddrPort(buf[:n], to)
	}
}
