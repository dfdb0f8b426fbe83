// SPDX-License-Identifier: GPL-2.0-only

//go:build integration

package e2e_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"netsysrq/auth"
	"netsysrq/internal/exchange"
	"netsysrq/internal/flood"
	"netsysrq/nfq"
)

// The tests of this file take both processors, so none of them is parallel.

// sources are spoofed ones of a family: strangers' and the operator's own.
func sources(f family) (strangers, own string) {
	if f.name == "IPv4" {
		return "198.18.0.0/15", f.client + "/32"
	}
	return "2001:db8:f000::/36", f.client + "/128"
}

// junkLike is the header of a valid request and nothing valid behind it.
func (h *host) junkLike() []byte {
	r := h.status()
	p := h.alice.SealRequest(&r)
	return p[:]
}

// during runs fn while floods run, and returns what they sent.
func during(t *testing.T, fn func(), floods ...func(ctx context.Context) (flood.Sent, error)) (total flood.Sent) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, f := range floods {
		wg.Go(func() {
			sent, err := f(ctx)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			total.Packets += sent.Packets
			total.Took = max(total.Took, sent.Took)
		})
	}
	time.Sleep(200 * time.Millisecond) // so that the flood stands
	fn()
	cancel()
	wg.Wait()
	return total
}

// undisturbed reports whether both processors are ours at this moment. Where
// others take a part, times say nothing about the program under test.
func undisturbed() bool {
	const spin = 100 * time.Millisecond
	used := func() int64 {
		var r unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
			return 0
		}
		return r.Utime.Nano() + r.Stime.Nano()
	}
	n := min(2, runtime.GOMAXPROCS(0))
	before, begun := used(), time.Now()
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for time.Since(begun) < spin {
			}
		})
	}
	wg.Wait()
	return used()-before > int64(time.Since(begun))*int64(n)*85/100
}

// distribution words sorted times.
func distribution(d []time.Duration) string {
	if len(d) == 0 {
		return "none"
	}
	slices.Sort(d)
	at := func(p float64) time.Duration {
		return d[min(len(d)-1, int(p*float64(len(d))))].Round(10 * time.Microsecond)
	}
	return fmt.Sprintf("n=%d min %v p50 %v p90 %v p99 %v max %v", len(d), at(0), at(.5), at(.9), at(.99), at(1))
}

// TestReplayFlood replays authentic packets as fast as this machine can: old
// ones, and those that the operator sends at the same time. He gets his
// challenge and his answer all the same, and the host does not answer the flood.
func TestReplayFlood(t *testing.T) {
	const tries = 20
	const bar = 2 * time.Second
	for _, f := range families {
		strangers, own := sources(f)
		for name, from := range map[string][]string{"strangers": {strangers}, "the operator's address": {own}, "both": {strangers, own}} {
			t.Run(f.name+" from "+name, func(t *testing.T) {
				h := newHost(t, plain)
				h.routeBack()
				h.start()
				recorder := h.sniff(h.lab.Server)
				// An hour of work, recorded: statuses and runs of both forms.
				p := h.peer(f)
				for range 10 {
					p.do(h.alice, "h", auth.Rehearse)
					dated := h.runOf("h", auth.Rehearse, auth.Challenge{})
					dated.Time = h.now()
					p.ask(h.alice, dated)
				}
				old := payloads(recorder.drain())
				recorder.close()
				if len(old) != 30 {
					t.Fatalf("%d packets were recorded", len(old))
				}
				wire := h.wire(f, from...)
				var mu sync.Mutex
				var current [][]byte // what the operator sends, as a listener has it
				replays := func(ctx context.Context) (total flood.Sent, err error) {
					for ctx.Err() == nil && err == nil {
						mu.Lock()
						list := append(slices.Clone(old), current[max(0, len(current)-30):]...)
						mu.Unlock()
						var sent flood.Sent
						sent, err = flood.Spoofed(ctx, h.in, wire, flood.Load{Payloads: list, For: 100 * time.Millisecond})
						total.Packets += sent.Packets
						total.Took += sent.Took
					}
					return total, err
				}
				to, opt := h.asker(f)
				opt.Timeout = 10 * time.Second
				dial := opt.Dial
				opt.Dial = tap(dial, func(b []byte) {
					mu.Lock()
					defer mu.Unlock()
					current = append(current, b)
				})
				back := h.sniff(h.lab.Client)
				var took []time.Duration
				ours := undisturbed()
				begun := time.Now()
				steps, err := auth.ParseSteps("h")
				if err != nil {
					t.Fatal(err)
				}
				sent := during(t, func() {
					for range tries {
						o, err := exchange.Run(context.Background(), to, steps, auth.Rehearse, opt)
						if err != nil {
							t.Error(err)
							return
						}
						if o.Kind == exchange.Accepted {
							took = append(took, o.Elapsed)
						}
						if time.Since(begun) > 20*time.Second {
							return // something is wrong, and it is known by now
						}
						time.Sleep(100 * time.Millisecond)
					}
				}, replays)
				lasted := time.Since(begun)
				h.settled()
				ours = ours && undisturbed()
				switch slow := slices.Max(append(took, 0)); {
				case len(took) == tries && slow <= bar:
				case ours:
					t.Errorf("%d of %d tries were answered, one of them after %v", len(took), tries, slow)
				default:
					t.Logf("%d of %d tries were answered, one of them after %v, but others use this machine too", len(took), tries, slow)
				}
				var replies int
				for _, b := range back.drain() {
					if d, err := nfq.ParseUDP(b, len(b)); err == nil && d.Src.Port() == auth.Port {
						replies++
					}
				}
				// What proves nothing new is answered from the budget; besides
				// it, each of the requests remembered is answered to the one
				// source that brought it, once in REFILL.
				perSecond := int(time.Second/auth.Refill) * (1 + auth.Answers)
				most := auth.Budget + int(lasted.Seconds()+1)*perSecond + 2*tries*12
				t.Logf("replayed: %v; operator: %s; %d replies in %.1f s, %.0f a second",
					sent, distribution(took), replies, lasted.Seconds(), float64(replies)/lasted.Seconds())
				if replies > most {
					t.Errorf("%d replies were sent, more than %d", replies, most)
				}
				if got := h.triggered(); got != "" {
					t.Errorf("trigger: %q", got)
				}
				h.alive()
				h.stop()
				t.Logf("counted: %v", h.counted())
			})
		}
	}
}

// TestThiefIsFirst has a listener bring the operator's run to the host before
// the operator does, from another port, and drain the answer budget with
// recordings. The host has seen the run from the listener first, and still the
// operator gets his answer.
func TestThiefIsFirst(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			h := newHost(t, plain)
			h.start()
			recorder := h.sniff(h.lab.Server)
			p := h.peer(f)
			for range 5 {
				p.do(h.alice, "h", auth.Rehearse)
			}
			load := flood.Load{Payloads: payloads(recorder.drain()), Rate: 5000, For: time.Minute}
			recorder.close()
			to, opt := h.asker(f)
			opt.Timeout = 4 * time.Second
			dial := opt.Dial
			thief := h.peer(f)
			steps, err := auth.ParseSteps("h")
			if err != nil {
				t.Fatal(err)
			}
			var took []time.Duration
			during(t, func() {
				for try := range 5 {
					writes := 0
					opt.Dial = func(ctx context.Context, to netip.AddrPort) (io.ReadWriteCloser, error) {
						c, err := dial(ctx, to)
						return &robbed{c, func(b []byte) bool {
							writes++ // from the exchange's one goroutine
							if writes == 2 {
								thief.send(b) // the status was the first
							}
							return writes == 2
						}}, err
					}
					o, err := exchange.Run(context.Background(), to, steps, auth.Rehearse, opt)
					if err != nil || o.Kind != exchange.Accepted {
						t.Errorf("try %d: %v: %+v", try, err, o)
						continue
					}
					took = append(took, o.Elapsed)
					if o.Elapsed > 2*time.Second {
						t.Errorf("try %d took %v", try, o.Elapsed)
					}
				}
			}, func(ctx context.Context) (flood.Sent, error) {
				return flood.UDP(ctx, h.in, to.Addrs[0], 2, load)
			})
			t.Logf("operator: %s", distribution(took))
		})
	}
}

// TestQuietLog floods for ten seconds and counts lines, and then packets: each
// one that was sent is in the sum of what the log says.
func TestQuietLog(t *testing.T) {
	for _, c := range []struct {
		name    string
		f       family
		replays bool
	}{{"forged", v4, false}, {"replayed", v6, true}} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t, plain)
			h.routeBack()
			h.start()
			strangers, own := sources(c.f)
			load := flood.Load{Payloads: [][]byte{h.junkLike()}, VaryFrom: 40, VaryTo: 128, For: 10 * time.Second}
			var asked uint64
			if c.replays {
				recorder := h.sniff(h.lab.Server)
				p := h.peer(c.f)
				p.do(h.alice, "h", auth.Rehearse)
				load = flood.Load{Payloads: payloads(recorder.drain()), For: load.For}
				recorder.close()
				asked = uint64(len(load.Payloads))
			}
			before := len(h.allLines())
			sent, err := flood.Spoofed(context.Background(), h.in, h.wire(c.f, strangers, own), load)
			if err != nil {
				t.Fatal(err)
			}
			h.settled()
			time.Sleep(100 * time.Millisecond)
			rules := h.ruleCounters()
			h.stop()
			lines := h.allLines()
			more := len(lines) - before
			counted := h.counted()
			single := uint64(len(h.requestLines()))
			total := counted["packets"] + counted["answered"] + single
			t.Logf("sent %v; rules: %+v; %d lines; counted: %v, and %d lines of their own", sent, rules, more, counted, single)
			if more > 20 {
				t.Errorf("%d log lines for 10 s of flood", more)
				for _, l := range lines[before:] {
					t.Log(l)
				}
			}
			if rules.queued != total {
				t.Errorf("the rules queued %d packets, the log accounts for %d", rules.queued, total)
			}
			if rules.arrived != sent.Packets+asked {
				t.Errorf("%d packets arrived, %d were sent", rules.arrived, sent.Packets+asked)
			}
			if rules.arrived != rules.queued {
				t.Errorf("%d packets arrived, %d were queued", rules.arrived, rules.queued)
			}
			if got := h.triggered(); got != "" {
				t.Errorf("trigger: %q", got)
			}
		})
	}
}

// TestRequestsUnderFlood sends 200 statuses, with the sender's own repeats,
// while others flood. None may be lost; times are printed, not judged. There
// are 50 in a second, since a source with more than 64 counts as busy itself.
func TestRequestsUnderFlood(t *testing.T) {
	const requests, workers = 200, 4
	for _, f := range families {
		h := newHost(t, plain)
		h.routeBack()
		h.start()
		strangers, _ := sources(f)
		few := []string{"198.18.0.1/32", "198.18.0.2/32", "198.18.0.3/32", "198.18.0.4/32"}
		if f.name == "IPv6" {
			few = []string{"2001:db8:f000::1/128", "2001:db8:f001::1/128", "2001:db8:f002::1/128", "2001:db8:f003::1/128"}
		}
		junk := flood.Load{Payloads: [][]byte{h.junkLike()}, VaryFrom: 40, VaryTo: 128, For: 2 * time.Minute}
		long := flood.Load{Payloads: [][]byte{append(h.junkLike(), 0)}, For: 2 * time.Minute}
		for _, c := range []struct {
			name    string
			sources []string
			load    flood.Load
		}{
			{"no flood", nil, junk},
			{"wrong length", []string{strangers}, long},
			{"forged, from a few sources", few, junk},
			{"forged, from spoofed sources", []string{strangers}, junk},
		} {
			t.Run(f.name+" "+strings.ReplaceAll(c.name, ", ", " "), func(t *testing.T) {
				var floods []func(context.Context) (flood.Sent, error)
				if c.sources != nil {
					wire := h.wire(f, c.sources...)
					floods = append(floods, func(ctx context.Context) (flood.Sent, error) {
						return flood.Spoofed(ctx, h.in, wire, c.load)
					})
				}
				to, opt := h.asker(f)
				opt.Timeout = 15 * time.Second
				var mu sync.Mutex
				var took []time.Duration
				var packets int
				sent := during(t, func() {
					var wg sync.WaitGroup
					for range workers {
						wg.Go(func() {
							for range requests / workers {
								o, err := exchange.Status(context.Background(), to, opt)
								mu.Lock()
								if err != nil || o.Kind != exchange.Answered {
									t.Errorf("lost: %v: %+v", err, o)
								} else {
									took = append(took, o.Elapsed)
									packets += o.Sent
								}
								mu.Unlock()
								time.Sleep(time.Duration(70+rand.IntN(20)) * time.Millisecond)
							}
						})
					}
					wg.Wait()
				}, floods...)
				t.Logf("%d of %d answered with %d packets: %s; flood: %v", len(took), requests, packets, distribution(took), sent)
			})
		}
		h.stop()
	}
}
