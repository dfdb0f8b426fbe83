// SPDX-License-Identifier: GPL-2.0-only

//go:build vm

package vm_test

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/exchange"
	"netsysrq/internal/vm"
)

// TestSequence is the long one: e and i end the daemon that let it run, and
// every other process, but not the sequence.
func TestSequence(t *testing.T) {
	disk := filepath.Join(t.TempDir(), "disk")
	if err := vm.MakeDisk(t.Context(), disk, 64); err != nil {
		t.Fatal(err)
	}
	h := newArmedHost(t, newArms(t, "nreisub"), armed{sysrq: 1, disk: disk, daemon: true})
	if err := h.WriteFile(vm.Within(t, 10*time.Second), vm.DiskMount+"/unsynced", 0o644, []byte(unsynced)); err != nil {
		t.Fatal(err)
	}
	late, err := h.control()
	if err != nil {
		t.Fatal(err)
	}
	mark := h.Console.Mark()
	const steps = "n:300ms,r:700ms,e:1s,i:500ms,s,u,b"
	h.run(vm.GuestUDP4(auth.Port), steps, exchange.Options{Dial: h.Net.Dial, Timeout: replyTime}, exchange.Accepted)
	end, err := h.Wait(vm.Within(t, resetTime))
	t.Logf("console since the request:\n%s", h.Console.Text(mark, h.Started))
	if err != nil || end.Fate != vm.Reset {
		t.Fatalf("the machine ended with %+v %v", end, err)
	}
	log, err := readLog(h.Console.Since(mark))
	if err == nil {
		err = log.judge("nreisub", "")
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"sysrq: Terminate All Tasks", "sysrq: Kill All Tasks"} {
		if log.find(text, 0, len(log.lines)) < 0 {
			t.Errorf("the kernel did not say %q", text)
		}
	}
	list, err := auth.ParseSteps(steps)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range list {
		pause := s.Wait().Milliseconds()
		if s.Bounded() || pause == 0 {
			continue
		}
		waited := log.claims[i+1].ms - log.claims[i].ms
		t.Logf("the pause after %c: %d ms, asked for %d (late before it: tick %v, thread %v)", s.Key, waited, pause, late.Tick, late.Thread)
		switch {
		case waited < pause:
			t.Errorf("the pause after %c was too short", s.Key)
		case waited > pause*12/10 && max(late.Tick, late.Thread) > vm.LateLimit:
			t.Logf("SKIP the time: the emulator was late before")
		case waited > pause*12/10:
			t.Errorf("the pause after %c was too long", s.Key)
		}
	}
	if err := checkDisk(t.Context(), disk, true); err != nil {
		t.Error(err)
	}
}

// recording keeps every packet that goes to a guest.
type recording struct {
	mu      sync.Mutex
	packets [][]byte
	replies int
}

func (r *recording) keep(packet []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.packets = append(r.packets, slices.Clone(packet))
}

// tapped is a path whose packets are recorded. If it is lossy, the first, third
// and every second reply after that is lost, so that requests are repeated.
type tapped struct {
	io.ReadWriteCloser
	to    *recording
	lossy bool
}

func (t tapped) Write(b []byte) (int, error) {
	t.to.keep(b)
	return t.ReadWriteCloser.Write(b)
}

func (t tapped) Read(b []byte) (int, error) {
	for {
		n, err := t.ReadWriteCloser.Read(b)
		if err != nil || !t.lossy {
			return n, err
		}
		t.to.mu.Lock()
		t.to.replies++
		lost := t.to.replies%2 == 1
		t.to.mu.Unlock()
		if !lost {
			return n, nil
		}
	}
}

// TestAfterReset replays to a machine what was sent to it before its reset, and
// what was on its way to it then, with clocks that are right, wrong and stepped.
// The first sight of a packet makes it stale for good, so each clock has a
// machine of its own.
func TestAfterReset(t *testing.T) {
	a := newArms(t, "nsub")
	tape := new(recording)
	made := a.record(t, tape)
	t.Logf("recorded: %s", tape.describe(a.sealer))

	const beginning = "1970-01-01 00:01:00"
	now := func() time.Duration { return time.Duration(exchange.SystemClock.Real()) }
	t.Run("right clock", func(t *testing.T) {
		h := newArmedHost(t, a, armed{daemon: true})
		h.setClock(now())
		h.awaitTrust()
		h.replay(tape, "right clock")
		h.works()
	})
	t.Run("clock set back", func(t *testing.T) {
		h := newArmedHost(t, a, armed{daemon: true})
		h.setClock(now())
		h.awaitTrust()
		// The packets' times come into the window once more, but the ledger
		// began when they had been made.
		h.setClock(made - 5*time.Second)
		h.awaitTrust()
		time.Sleep(6 * time.Second)
		h.replay(tape, "clock set back to when they were made")
		h.works()
	})
	t.Run("1970", func(t *testing.T) {
		h := newArmedHost(t, a, armed{daemon: true, clock: beginning})
		h.setClock(time.Hour)
		h.awaitTrust()
		h.replay(tape, "1970")
		h.works()
	})
	t.Run("clock stepped later", func(t *testing.T) {
		h := newArmedHost(t, a, armed{daemon: true, clock: beginning})
		h.setClock(now())
		h.replay(tape, "clock stepped from 1970 just now")
		h.awaitTrust()
		h.replay(tape, "clock stepped from 1970")
		h.works()
	})
}

// record has a machine do what it is asked for in all forms, up to its reset,
// and keeps packets of the same time that never reach it. It returns the time
// at which the last was made.
func (a *arms) record(t *testing.T, tape *recording) (made time.Duration) {
	h := newArmedHost(t, a, armed{daemon: true})
	h.setClock(time.Duration(exchange.SystemClock.Real()))
	h.awaitTrust()
	trusted := time.Now()
	to := vm.GuestUDP4(auth.Port)
	opt := func(ahead time.Duration, onePacket, lossy bool) exchange.Options {
		o := h.options(ahead, onePacket)
		o.Dial = func(ctx context.Context, to netip.AddrPort) (io.ReadWriteCloser, error) {
			c, err := h.Net.Dial(ctx, to)
			return tapped{c, tape, lossy}, err
		}
		return o
	}
	h.run(to, "n", opt(0, false, true), exchange.Accepted)
	// With a time it is fresh once the clock was trusted for W.
	time.Sleep(time.Until(trusted.Add(auth.Window + 2*time.Second)))
	h.run(to, "n", opt(0, true, true), exchange.Accepted)
	h.run(to, "n", opt(auth.Window-time.Second, true, true), exchange.Accepted)

	// These are on their way when the machine resets: with a challenge that
	// nobody has used, and with times.
	status, err := exchange.Status(t.Context(), h.asked(to), opt(0, false, false))
	if err != nil || status.Reply == nil || status.Reply.Challenge == (auth.Challenge{}) {
		t.Fatalf("no challenge: %v %+v", err, status)
	}
	list, err := auth.ParseSteps("n,s,u,b")
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range []auth.Request{
		{Challenge: status.Reply.Challenge, Time: opt(0, false, false).Clock.Real()},
		{Challenge: status.Reply.Challenge},
		{Time: opt(0, false, false).Clock.Real()},
		{Time: opt(auth.Window-time.Second, false, false).Clock.Real()},
	} {
		r.Op, r.ID = auth.OpRun, auth.RequestID{0xff, byte(i)}
		r.SetSteps(list)
		p := a.sealer.SealRequest(&r)
		tape.keep(p[:])
	}
	h.run(to, "n,s,u,b", opt(0, false, false), exchange.Accepted)
	made = time.Duration(exchange.SystemClock.Real())
	if end, err := h.Wait(vm.Within(t, resetTime)); err != nil || end.Fate != vm.Reset {
		t.Fatalf("the machine ended with %+v %v", end, err)
	}
	return made
}

// describe says what a recording holds.
func (r *recording) describe(sealer *auth.Sealer) string {
	count := map[string]int{}
	for _, p := range r.packets {
		var q auth.Request
		if reason, err := sealer.OpenRequest(slices.Clone(p), &q); reason != auth.OK {
			return fmt.Sprintf("a packet that cannot be opened: %v %v", reason, err)
		}
		form := "with a time"
		if q.Challenge != (auth.Challenge{}) {
			form = "with a challenge"
		}
		count[fmt.Sprintf("%v %s %s", q.Op, auth.FormatSteps(q.Sequence()), form)]++
	}
	return fmt.Sprint(count)
}

// setClock sets the guest's clock and calls it synchronised.
func (h *host) setClock(real time.Duration) {
	h.Helper()
	if err := h.SetClock(vm.Within(h, 5*time.Second), real, true); err != nil {
		h.Fatal(err)
	}
}

// awaitTrust waits until the daemon has told the module that the clock is right.
func (h *host) awaitTrust() {
	h.Helper()
	const patience = 30 * time.Second
	for start := time.Now(); ; time.Sleep(250 * time.Millisecond) {
		out, err := exchange.Status(h.Context(), h.asked(vm.GuestUDP4(auth.Port)), exchange.Options{Dial: h.Net.Dial})
		if err != nil || out.Kind != exchange.Answered {
			h.Fatalf("status: %v %+v", err, out)
		}
		if out.Reply.Flags&auth.ClockTrusted != 0 {
			h.Logf("the clock is trusted after %.1f s", time.Since(start).Seconds())
			return
		}
		if time.Since(start) > patience {
			h.Fatalf("the clock is not trusted after %v", patience)
		}
	}
}

// replay sends every packet of a recording, twice, from ports of their own, and
// wants that nothing runs.
func (h *host) replay(tape *recording, when string) {
	h.Helper()
	mark := h.Console.Mark()
	results := map[auth.Result]int{}
	var mu sync.Mutex
	for range 2 {
		for _, p := range tape.packets {
			var q auth.Request
			if reason, _ := h.sealer.OpenRequest(slices.Clone(p), &q); reason != auth.OK {
				h.Fatalf("a recorded packet: %v", reason)
			}
			conn, err := h.Net.Dial(h.Context(), vm.GuestUDP4(auth.Port))
			if err != nil {
				h.Fatal(err)
			}
			defer conn.Close()
			go func() {
				b := make([]byte, 2048)
				for {
					n, err := conn.Read(b)
					if err != nil {
						return
					}
					var r auth.Reply
					reason, _ := h.sealer.OpenReply(b[:n], q.ID, &r)
					mu.Lock()
					if reason != auth.OK {
						h.Errorf("a reply that cannot be opened: %v", reason)
					} else {
						results[r.Result]++
					}
					mu.Unlock()
				}
			}()
			if _, err := conn.Write(p); err != nil {
				h.Fatal(err)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	// What was accepted would run after the deadline at the latest.
	time.Sleep(1500 * time.Millisecond)
	mu.Lock()
	defer mu.Unlock()
	h.Logf("%s: %d packets, twice: replies %v", when, len(tape.packets), results)
	if results[auth.Accepted] > 0 {
		h.Errorf("%s: a recorded packet was accepted", when)
	}
	for _, l := range h.Console.Since(mark) {
		if strings.Contains(l.Text, ": step ") || strings.Contains(l.Text, "sysrq: ") {
			h.Errorf("%s: something ran: %s", when, l.Text)
		}
	}
}

// works wants that what is new still runs: silence alone would pass a replay.
func (h *host) works() {
	h.Helper()
	mark := h.Console.Mark()
	h.run(vm.GuestUDP4(auth.Port), "n", exchange.Options{Dial: h.Net.Dial}, exchange.Accepted)
	if _, err := h.Console.Await(vm.Within(h, 5*time.Second), mark, "sysrq: Nice All RT Tasks"); err != nil {
		h.Error(err)
	}
}
