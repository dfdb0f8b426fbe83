// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
)

// Relay carries datagrams between a port of 127.0.0.1, where a program of the host
// sends them, and a port of the guest, which no socket reaches. It looks at none.
type Relay struct {
	dial  func(context.Context, netip.AddrPort) (io.ReadWriteCloser, error)
	to    netip.AddrPort
	conn  *net.UDPConn
	paths map[netip.AddrPort]io.ReadWriteCloser // by the sender's address
}

// Relay begins to carry. It ends with the machine, or by Close.
func (n *Net) Relay(to netip.AddrPort) (*Relay, error) { return newRelay(n.Dial, to) }

func newRelay(dial func(context.Context, netip.AddrPort) (io.ReadWriteCloser, error), to netip.AddrPort) (*Relay, error) {
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	r := &Relay{dial: dial, to: to, conn: conn, paths: map[netip.AddrPort]io.ReadWriteCloser{}}
	go r.carry()
	return r, nil
}

// Port is where to send to, on 127.0.0.1.
func (r *Relay) Port() uint16 { return r.conn.LocalAddr().(*net.UDPAddr).AddrPort().Port() }

// Close ends the relay.
func (r *Relay) Close() error { return r.conn.Close() }

// carry carries datagrams to the guest, from a port of its own for each of the
// sender's.
func (r *Relay) carry() {
	defer r.conn.Close()
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
			if p, err = r.dial(context.Background(), r.to); err != nil {
				continue // what a network does with a packet that it cannot carry
			}
			r.paths[from] = p
			go r.back(p, from)
		}
		if _, err := p.Write(buf[:n]); err != nil {
			return // the machine has ended
		}
	}
}

// back carries the answers.
func (r *Relay) back(p io.Reader, to netip.AddrPort) {
	buf := make([]byte, 65536)
	for {
		n, err := p.Read(buf)
		if err != nil {
			return
		}
		if _, err := r.conn.WriteToUDPAddrPort(buf[:n], to); err != nil {
			return
		}
	}
}
