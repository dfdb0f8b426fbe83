// SPDX-License-Identifier: GPL-2.0-only

package exchange

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/exchange/fakehost"
)

// fleet is many fake hosts behind one fake network, on the clock of a bubble.
type fleet struct {
	network *fakehost.Network
	hosts   []*fakehost.Host
	targets []Host
	shared  *Shared
	clock   Clock
}

func newFleet(n int) *fleet {
	started := time.Now()
	real := func() uint64 { return uint64(time.Now().UnixNano()) }
	boot := func() uint64 { return uint64(time.Since(started) + 24*time.Hour) }
	f := &fleet{
		network: &fakehost.Network{Latency: latency},
		clock:   Clock{Real: real, Boot: boot, Synchronised: func() bool { return true }},
	}
	f.shared = NewShared(func(bool) (Socket, error) { return f.network.Open(), nil })
	var m auth.Master
	for i := range n {
		key, _ := m.HostKey(fmt.Sprint("web", i))
		h := fakehost.New(fakehost.Config{Key: key, Allow: ^auth.KeySet(0), Synchronised: true,
			Clock: func() (uint64, uint64) { return real(), boot() }}, time.Hour)
		addr := netip.AddrPortFrom(fakehost.Address(i), auth.Port)
		f.network.Add(addr, h)
		f.hosts = append(f.hosts, h)
		f.targets = append(f.targets, Host{Name: fmt.Sprint("web", i), Addrs: []netip.AddrPort{addr}, Sealer: auth.NewSealer(&key)})
	}
	return f
}

// each asks every host at once and returns the outcomes.
func (f *fleet) each(t *testing.T, ask func(Host, Options) (*Outcome, error)) []*Outcome {
	t.Helper()
	out := make([]*Outcome, len(f.targets))
	var group sync.WaitGroup
	for i, host := range f.targets {
		group.Go(func() {
			o, err := ask(host, Options{Clock: f.clock, Shared: f.shared})
			if err != nil {
				t.Error(err)
			}
			out[i] = o
		})
	}
	group.Wait()
	return out
}

// Over shared sockets each exchange goes the way that it would go alone.
func TestShared(t *testing.T) {
	in(t, func(t *testing.T) {
		f := newFleet(300)
		defer f.shared.Close()
		f.hosts[7].Mute(true)
		begun := time.Now()
		for i, o := range f.each(t, func(h Host, opt Options) (*Outcome, error) {
			return Run(t.Context(), h, []auth.Step{{Key: 's'}}, 0, opt)
		}) {
			switch {
			case i == 7:
				if o.Kind != Unknown || !o.RunSent || o.Elapsed != DefaultTimeout {
					t.Errorf("a silent host: %+v", o)
				}
			case o.Kind != Accepted || o.Sent != 2 || o.RoundTrip != 2*latency || f.hosts[i].Runs() != 1:
				t.Errorf("host %d: %+v, run %d times", i, o, f.hosts[i].Runs())
			}
		}
		// The beginnings are spaced out, and no more than that.
		if took := time.Since(begun); took > DefaultTimeout+100*time.Millisecond {
			t.Errorf("it took %v", took)
		}
	})
}

// Loss in both directions, and everything is answered in the end, once.
func TestSharedLoss(t *testing.T) {
	in(t, func(t *testing.T) {
		f := newFleet(100)
		defer f.shared.Close()
		lost := func(n int, _ netip.AddrPort, _ []byte) bool { return n%3 != 0 }
		f.network.Up, f.network.Down = lost, lost
		for i, o := range f.each(t, func(h Host, opt Options) (*Outcome, error) {
			return Run(t.Context(), h, []auth.Step{{Key: 's'}}, 0, opt)
		}) {
			if o.Kind != Accepted || f.hosts[i].Runs() != 1 {
				t.Errorf("host %d: %+v, run %d times", i, o, f.hosts[i].Runs())
			}
		}
	})
}

// What has no business here is dropped: from another address, of another key,
// of another length.
func TestSharedStray(t *testing.T) {
	in(t, func(t *testing.T) {
		f := newFleet(2)
		defer f.shared.Close()
		var wires []*fakehost.Wire
		f.shared.open = func(bool) (Socket, error) {
			wires = append(wires, f.network.Open())
			return wires[len(wires)-1], nil
		}
		f.hosts[0].Mute(true)
		f.network.Down = func(_ int, _ netip.AddrPort, packet []byte) bool {
			for _, w := range wires {
				w.Inject(f.targets[0].Addrs[0], packet)      // of another host
				w.Inject(f.targets[1].Addrs[0], packet[:50]) // cut
				w.Inject(netip.MustParseAddrPort("192.0.2.9:9"), packet)
			}
			return true
		}
		for i, o := range f.each(t, func(h Host, opt Options) (*Outcome, error) { return Status(t.Context(), h, opt) }) {
			if want := [...]Kind{Unknown, Answered}[i]; o.Kind != want || o.Ignored != 0 {
				t.Errorf("host %d: %+v", i, o)
			}
		}
	})
}

func TestSharedInterrupted(t *testing.T) {
	in(t, func(t *testing.T) {
		f := newFleet(1)
		defer f.shared.Close()
		f.hosts[0].Mute(true)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		o, err := Status(ctx, f.targets[0], Options{Clock: f.clock, Shared: f.shared})
		if !errors.Is(err, context.DeadlineExceeded) || o.Kind != Unknown || o.Elapsed != 3*time.Second {
			t.Errorf("%+v, %v", o, err)
		}
		// One that has not begun has sent nothing.
		if _, err = Status(ctx, f.targets[0], Options{Clock: f.clock, Shared: f.shared}); !errors.Is(err, ErrNotSent) {
			t.Errorf("%v", err)
		}
		synctest.Wait()
	})
}

func TestSharedNoNetwork(t *testing.T) {
	in(t, func(t *testing.T) {
		f := newFleet(1)
		defer f.shared.Close()
		f.shared.open = func(bool) (Socket, error) { return nil, syscall.EMFILE }
		_, err := Status(t.Context(), f.targets[0], Options{Clock: f.clock, Shared: f.shared})
		if !errors.Is(err, ErrNotSent) || !errors.Is(err, syscall.EMFILE) {
			t.Errorf("%v", err)
		}
	})
}

// The real network says of which host a port is closed, also where others
// answer at the same socket.
func TestSharedRefused(t *testing.T) {
	f := &fleet{shared: NewShared(nil)}
	defer f.shared.Close()
	f.clock = SystemClock
	hosts := map[auth.KeyID]*fakehost.Host{}
	var keys []auth.HostKey
	for i := range 4 {
		key, _ := new(auth.Master).HostKey(fmt.Sprint("web", i))
		keys = append(keys, key)
		if i%2 == 0 {
			hosts[key.ID] = fakehost.New(fakehost.Config{Key: key, Clock: func() (uint64, uint64) { return SystemClock.Real(), SystemClock.Boot() }}, 0)
		}
	}
	many, err := fakehost.ListenMany(hosts)
	if err != nil {
		t.Skipf("SKIP: no UDP on the loopback here: %v", err)
	}
	defer many.Close()
	go many.Serve()
	for i, key := range keys {
		port := many.Port()
		if i%2 == 1 {
			port = 1
		}
		f.targets = append(f.targets, Host{Name: fmt.Sprint("web", i), Sealer: auth.NewSealer(&key),
			Addrs: []netip.AddrPort{netip.AddrPortFrom(fakehost.Address(i), port)}})
	}
	for i, o := range f.each(t, func(h Host, opt Options) (*Outcome, error) {
		opt.Timeout = 2 * time.Second
		return Status(t.Context(), h, opt)
	}) {
		if i%2 == 0 && (o.Kind != Answered || o.Unreachable != nil) ||
			i%2 == 1 && (o.Kind != Unknown || !errors.Is(o.Unreachable, syscall.ECONNREFUSED)) {
			t.Errorf("host %d: %+v", i, o)
		}
	}
}
