// SPDX-License-Identifier: GPL-2.0-only

package exchange

import (
	"context"
	"errors"
	"io"
	"iter"
	"net"
	"net/netip"
	"syscall"

	"netsysrq/auth"
)

// maxPaths bounds the sockets of one target; a long timeout would otherwise
// open one for every third repeat.
const maxPaths = 32

// DialUDP is the Dial of the real network. Its sockets are connected, so that
// only the host's packets arrive and ICMP errors are told.
func DialUDP(ctx context.Context, to netip.AddrPort) (io.ReadWriteCloser, error) {
	var d net.Dialer
	return d.DialContext(ctx, "udp", to.String())
}

// paths are the sockets of one exchange. All of them are listened to until the
// end, since an answer may come by any of them.
type paths struct {
	ctx      context.Context
	cancel   context.CancelFunc
	dial     Dial
	targets  []*target
	arrivals chan arrival
	size     int // of the longest datagram that is expected
}

// target is one address of the host. The host remembers the socket that first
// brought a request, so most packets use the first.
type target struct {
	addr  netip.AddrPort
	paths []io.ReadWriteCloser
}

// arrival is a datagram, or an ICMP error for an earlier one of ours.
type arrival struct {
	from   netip.AddrPort
	packet []byte
	err    error
}

func newPaths(ctx context.Context, addrs []netip.AddrPort, dial Dial) *paths {
	p := &paths{dial: dial, arrivals: make(chan arrival, 16), size: auth.PacketSize}
	p.ctx, p.cancel = context.WithCancel(ctx)
	for _, a := range addrs {
		p.targets = append(p.targets, &target{addr: a})
	}
	return p
}

// send sends a packet to every target and tells how that went.
func (p *paths) send(packet []byte, newPort bool) iter.Seq2[netip.AddrPort, error] {
	return func(yield func(netip.AddrPort, error) bool) {
		for _, t := range p.targets {
			if !yield(t.addr, p.sendTo(t, packet, newPort)) {
				return
			}
		}
	}
}

func (p *paths) sendTo(t *target, packet []byte, newPort bool) error {
	var path io.ReadWriteCloser
	if newPort || len(t.paths) == 0 {
		var err error
		if path, err = p.open(t); err != nil && len(t.paths) == 0 {
			return err
		}
	}
	if path == nil {
		path = t.paths[0]
	}
	_, err := path.Write(packet)
	if icmp(err) {
		// That was the error of an earlier packet, and this one did not leave.
		_, err = path.Write(packet)
	}
	return err
}

func (p *paths) open(t *target) (io.ReadWriteCloser, error) {
	path, err := p.dial(p.ctx, t.addr)
	if err != nil {
		return nil, err
	}
	if len(t.paths) == maxPaths {
		t.paths[1].Close()
		t.paths = append(t.paths[:1], t.paths[2:]...)
	}
	t.paths = append(t.paths, path)
	go p.listen(t.addr, path)
	return path, nil
}

func (p *paths) listen(from netip.AddrPort, path io.Reader) {
	for {
		// One byte more, so that a longer datagram is seen as one.
		packet := make([]byte, p.size+1)
		n, err := path.Read(packet)
		a := arrival{from: from, packet: packet[:n]}
		if errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) {
			return
		}
		a.err = err
		select {
		case p.arrivals <- a:
		case <-p.ctx.Done():
			return
		}
	}
}

func (p *paths) close() {
	p.cancel()
	for _, t := range p.targets {
		for _, path := range t.paths {
			path.Close()
		}
	}
}

// icmp reports whether err is what the network said of an earlier packet
// (udp(7), ip(7)); the socket is good after that.
func icmp(err error) bool {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return false
	}
	switch errno {
	case syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ENOPROTOOPT, syscall.EACCES, syscall.EHOSTDOWN:
		return true
	}
	return false
}
