// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
)

// Relay carries datagrams between a port of 127.0.0.1, where a program of the host
// sends them, and a port of the guest, which no socket reaches. It looks at none.
// Like a network it loses those that it cannot carry.
type Relay struct {
	to   netip.AddrPort
	conn *net.UDPConn

	mu    sync.Mutex
	dial  dialer
	paths map[netip.AddrPort]io.ReadWriteCloser // by the sender's address
}

type dialer func(context.Context, netip.AddrPort) (io.ReadWriteCloser, error)

// Relay begins to carry, until Close.
func (n *Net) Relay(to netip.AddrPort) (*Relay, error) { return newRelay(n.Dial, to) }

func newRelay(dial dialer, to netip.AddrPort) (*Relay, error) {
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	r := &Relay{to: to, conn: conn, dial: dial, paths: map[netip.AddrPort]io.ReadWriteCloser{}}
	go r.carry()
	return r, nil
}

// Port is where to send to, on 127.0.0.1.
func (r *Relay) Port() uint16 { return r.conn.LocalAddr().(*net.UDPAddr).AddrPort().Port() }

// Redirect has the relay lead to another machine from now on, such as the next boot
// of the same one.
func (r *Relay) Redirect(n *Net) { r.redirect(n.Dial) }

func (r *Relay) redirect(dial dialer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dial = dial
	for from, p := range r.paths {
		p.Close()
		delete(r.paths, from)
	}
}

// Close ends the relay.
func (r *Relay) Close() error { return r.conn.Close() }

// carry carries datagrams to the guest, from a port of its own for each of the
// sender's.
func (r *Relay) carry() {
	defer r.redirect(nil)
	buf := make([]byte, 65536)
	for {
		n, from, err := r.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		r.forward(buf[:n], from)
	}
}

func (r *Relay) forward(datagram []byte, from netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.paths[from]
	if p == nil {
		var err error
		if p, err = r.dial(context.Background(), r.to); err != nil {
			return
		}
		r.paths[from] = p
		go r.back(p, from)
	}
	if _, err := p.Write(datagram); err != nil { // the machine has ended
		p.Close()
		delete(r.paths, from)
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
