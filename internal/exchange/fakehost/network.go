// SPDX-License-Identifier: GPL-2.0-only

package fakehost

import (
	"context"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"netsysrq/auth"
)

// Network joins senders to hosts, without sockets: on the clock of a synctest
// bubble, or on the real one.
type Network struct {
	Latency time.Duration // one way
	// Up and Down report whether a packet to or from a host arrives, n
	// counting those of its direction from 1; nil: all do.
	Up, Down func(n int, addr netip.AddrPort, packet []byte) bool

	hosts    sync.Map // netip.AddrPort -> *Host
	up, down atomic.Int64
	sources  atomic.Int64
}

// Add puts a host at an address.
func (n *Network) Add(addr netip.AddrPort, h *Host) { n.hosts.Store(addr, h) }

// Sent counts the packets that were sent to hosts.
func (n *Network) Sent() int { return int(n.up.Load()) }

// Wire is a socket of the network.
type Wire struct {
	network *Network
	source  auth.Source
	to      netip.AddrPort // if connected
	in      chan datagram
	closed  chan struct{}
	once    sync.Once
}

type datagram struct {
	from   netip.AddrPort
	packet []byte
}

// Open returns a socket that is not connected.
func (n *Network) Open() *Wire {
	return &Wire{network: n, source: auth.Source(n.sources.Add(1)), in: make(chan datagram, 1<<15), closed: make(chan struct{})}
}

// Dial returns a connected socket; it is an exchange.Dial.
func (n *Network) Dial(_ context.Context, to netip.AddrPort) (io.ReadWriteCloser, error) {
	w := &Wire{network: n, source: auth.Source(n.sources.Add(1)), in: make(chan datagram, 1000), closed: make(chan struct{})}
	w.to = to
	return w, nil
}

// WriteToUDPAddrPort sends a packet.
func (w *Wire) WriteToUDPAddrPort(p []byte, to netip.AddrPort) (int, error) {
	n := w.network
	packet := slices.Clone(p)
	count := int(n.up.Add(1))
	host, ok := n.hosts.Load(to)
	if !ok || n.Up != nil && !n.Up(count, to, packet) {
		return len(p), nil
	}
	time.AfterFunc(n.Latency, func() {
		reply, ok := host.(*Host).Handle(packet, w.source)
		if !ok || n.Down != nil && !n.Down(int(n.down.Add(1)), to, reply[:]) {
			return
		}
		time.AfterFunc(n.Latency, func() { w.Inject(to, reply[:]) })
	})
	return len(p), nil
}

// Inject has a packet arrive at the socket, unless its buffer is full.
func (w *Wire) Inject(from netip.AddrPort, packet []byte) {
	select {
	case w.in <- datagram{from, slices.Clone(packet)}:
	default:
	}
}

// ReadFromUDPAddrPort receives a packet.
func (w *Wire) ReadFromUDPAddrPort(p []byte) (int, netip.AddrPort, error) {
	select {
	case d := <-w.in:
		return copy(p, d.packet), d.from, nil
	case <-w.closed:
		return 0, netip.AddrPort{}, net.ErrClosed
	}
}

// Write sends a packet from a connected socket.
func (w *Wire) Write(p []byte) (int, error) { return w.WriteToUDPAddrPort(p, w.to) }

// Read receives a packet at a connected socket.
func (w *Wire) Read(p []byte) (int, error) {
	n, _, err := w.ReadFromUDPAddrPort(p)
	return n, err
}

// Close ends a read.
func (w *Wire) Close() error {
	w.once.Do(func() { close(w.closed) })
	return nil
}
