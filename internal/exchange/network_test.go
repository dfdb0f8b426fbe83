// SPDX-License-Identifier: GPL-2.0-only

package exchange

import (
	"context"
	"io"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/exchange/fakehost"
)

const (
	latency = 5 * time.Millisecond // one way
	upFor   = time.Hour            // how long the fake host is up
)

var hostAddr = netip.MustParseAddrPort("192.0.2.7:9")

// world is a fake host behind a fake network, both on the clock of a
// synctest bubble.
type world struct {
	host    *fakehost.Host
	sealer  *auth.Sealer
	opt     Options
	skew    time.Duration // the host's clock minus ours
	started time.Time

	mu      sync.Mutex
	ports   int
	sent    []sentPacket
	replies int
	// up and down say when each copy of a packet arrives: none is a loss. n
	// counts from 1. Nil: once, after latency.
	up, down func(n int, packet []byte) []time.Duration
}

type sentPacket struct {
	at      time.Duration
	port    int
	packet  [auth.PacketSize]byte
	request auth.Request
}

func newWorld(t *testing.T, change func(*world, *fakehost.Config)) *world {
	t.Helper()
	var m auth.Master
	key, err := m.HostKey("web1")
	if err != nil {
		t.Fatal(err)
	}
	allow, _ := auth.ParseKeySet("nsub")
	w := &world{sealer: auth.NewSealer(&key), started: time.Now()}
	cfg := fakehost.Config{Key: key, Allow: allow, Synchronised: true, Clock: func() (uint64, uint64) {
		return uint64(time.Now().Add(w.skew).UnixNano()), uint64(time.Since(w.started) + 24*time.Hour)
	}}
	w.opt = Options{Dial: w.dial, Clock: Clock{
		Real:         func() uint64 { return uint64(time.Now().UnixNano()) },
		Boot:         func() uint64 { return uint64(time.Since(w.started) + 24*time.Hour) },
		Synchronised: func() bool { return true },
	}}
	if change != nil {
		change(w, &cfg)
	}
	w.host = fakehost.New(cfg, upFor)
	return w
}

// hostTime is what the host's clock shows so long after the world began.
func (w *world) hostTime(at time.Duration) uint64 {
	return uint64(w.started.Add(at + w.skew).UnixNano())
}

func (w *world) run(t *testing.T, sequence string) *Outcome {
	t.Helper()
	steps, err := auth.ParseSteps(sequence)
	if err != nil {
		t.Fatal(err)
	}
	o, err := Run(t.Context(), w.target(), steps, 0, w.opt)
	if err != nil {
		t.Fatal(err)
	}
	if n := w.host.RunsOf(o.Request); n > 1 {
		t.Fatalf("the host ran the intent %d times", n)
	} else if o.Kind == Accepted && n != 1 {
		t.Fatalf("accepted, and run %d times", n)
	}
	return o
}

func (w *world) target() Host {
	return Host{Name: "web1", Addrs: []netip.AddrPort{hostAddr}, Sealer: w.sealer}
}

func (w *world) dial(context.Context, netip.AddrPort) (io.ReadWriteCloser, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ports++
	return &fakePath{world: w, port: w.ports, in: make(chan []byte, 1000), closed: make(chan struct{})}, nil
}

// packets returns what was sent in one form.
func (w *world) packets(f Form) (out []sentPacket) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.sent {
		form := ChallengeForm
		switch {
		case p.request.Op == auth.OpStatus:
			form = StatusForm
		case p.request.Op == auth.OpLog:
			form = LogForm
		case p.request.Challenge == auth.Challenge{}:
			form = TimeForm
		}
		if form == f {
			out = append(out, p)
		}
	}
	return out
}

type fakePath struct {
	world  *world
	port   int
	in     chan []byte
	closed chan struct{}
}

func (p *fakePath) Read(b []byte) (int, error) {
	select {
	case packet := <-p.in:
		return copy(b, packet), nil
	case <-p.closed:
		return 0, io.EOF
	}
}

func (p *fakePath) Close() error { close(p.closed); return nil }

func (p *fakePath) Write(packet []byte) (int, error) {
	w := p.world
	sent := sentPacket{at: time.Since(w.started), port: p.port, packet: [auth.PacketSize]byte(packet)}
	w.sealer.OpenRequest(slices.Clone(packet), &sent.request)
	w.mu.Lock()
	w.sent = append(w.sent, sent)
	n := len(w.sent)
	w.mu.Unlock()
	for _, d := range delays(w.up, n, packet) {
		time.AfterFunc(d, func() {
			for _, answer := range w.host.Answer(sent.packet[:], auth.Source(p.port)) {
				p.answer(answer)
			}
		})
	}
	return len(packet), nil
}

func (p *fakePath) answer(reply []byte) {
	w := p.world
	w.mu.Lock()
	w.replies++
	n := w.replies
	w.mu.Unlock()
	for _, d := range delays(w.down, n, reply) {
		time.AfterFunc(d, func() { p.inject(reply) })
	}
}

func (p *fakePath) inject(packet []byte) {
	select {
	case p.in <- slices.Clone(packet):
	default: // a full socket buffer
	}
}

func delays(f func(int, []byte) []time.Duration, n int, packet []byte) []time.Duration {
	if f == nil {
		return []time.Duration{latency}
	}
	return f(n, packet)
}

// lose is a direction of the network that loses the packets for which it is
// told to.
func lose(lost func(n int) bool) func(int, []byte) []time.Duration {
	return func(n int, _ []byte) []time.Duration {
		if lost(n) {
			return nil
		}
		return []time.Duration{latency}
	}
}

func isRun(w *world, packet []byte) bool {
	var r auth.Request
	reason, _ := w.sealer.OpenRequest(slices.Clone(packet), &r)
	return reason == auth.OK && r.Op == auth.OpRun
}
