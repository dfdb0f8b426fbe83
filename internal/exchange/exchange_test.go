// SPDX-License-Identifier: GPL-2.0-only

package exchange

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/exchange/fakehost"
)

// in runs a test on a clock of its own.
func in(t *testing.T, f func(t *testing.T)) { t.Helper(); synctest.Test(t, f) }

func wantKind(t *testing.T, o *Outcome, k Kind) {
	t.Helper()
	if o.Kind != k {
		t.Fatalf("outcome %v, want %v: %+v", o.Kind, k, o)
	}
}

func wantRuns(t *testing.T, w *world, n int) {
	t.Helper()
	if got := w.host.Runs(); got != n {
		t.Fatalf("the host ran %d sequences, want %d", got, n)
	}
}

func TestStatus(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, func(w *world, c *fakehost.Config) { w.skew = 90 * time.Second })
		o, err := Status(t.Context(), w.target(), w.opt)
		if err != nil {
			t.Fatal(err)
		}
		wantKind(t, o, Answered)
		if o.RoundTrip != 2*latency || o.Difference != w.skew || !o.HaveDifference || o.Sent != 1 || o.Reply.Uptime != 3600 {
			t.Errorf("outcome %+v", o)
		}
	})
}

func TestLossless(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, func(w *world, _ *fakehost.Config) { w.skew = -time.Hour })
		o := w.run(t, "n,s,u,b")
		wantKind(t, o, Accepted)
		wantRuns(t, w, 1)
		if o.Sent != 2 || o.OnePacket || o.RoundTrip != 2*latency || o.RunTook != 2*latency || o.Elapsed != 4*latency || o.DryRun {
			t.Errorf("outcome %+v", o)
		}
		// The host's time, so that the form is new to it whatever our clock says.
		sent := w.packets(ChallengeForm)[0]
		if d := time.Duration(sent.request.Time - w.hostTime(sent.at)); d.Abs() > latency {
			t.Errorf("the form with a challenge carries a time that is %v off the host's", d)
		}
	})
}

func TestStatusLost(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.up = lose(func(n int) bool { return n <= 2 })
		o := w.run(t, "s")
		wantKind(t, o, Accepted)
		wantRuns(t, w, 1)
		s := w.packets(StatusForm)
		if len(s) != 3 || s[2].at != 500*time.Millisecond {
			t.Errorf("%d statuses", len(s))
		}
		if s[0].request.Time == s[1].request.Time {
			t.Error("a status was not sealed anew")
		}
	})
}

// The reply to the run is lost; a repeat brings it again. Each is sealed anew,
// so that no recording can stand in its way.
func TestReplyLost(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.down = lose(func(n int) bool { return n == 2 || n == 3 })
		o := w.run(t, "s")
		wantKind(t, o, Accepted)
		wantRuns(t, w, 1)
		if o.Reply.Flags&auth.Repeat == 0 {
			t.Error("not a repeat")
		}
		runs := w.packets(ChallengeForm)
		if len(runs) != 3 {
			t.Fatalf("%d packets of the run", len(runs))
		}
		for i, r := range runs[1:] {
			before := runs[i].request
			if r.request.ID != before.ID || r.request.Challenge != before.Challenge || r.request.Time <= before.Time {
				t.Errorf("repeat %d: %+v after %+v", i+1, r.request, before)
			}
		}
	})
}

// Silence: when and from where every packet goes out.
func TestSchedule(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.host.Mute(true)
		o := w.run(t, "s")
		wantKind(t, o, Unknown)
		if !o.RunSent || !o.OnePacket || o.Elapsed != DefaultTimeout {
			t.Errorf("outcome %+v", o)
		}
		var at []time.Duration
		ports := map[int]int{}
		statuses := w.packets(StatusForm)
		for _, p := range statuses {
			at = append(at, p.at.Round(time.Millisecond))
			ports[p.port]++
		}
		want := []time.Duration{0, 250, 500, 1000, 2000, 3000, 4000, 5000, 6000, 7000, 8000, 9000}
		if len(at) != len(want) {
			t.Fatalf("statuses at %v", at)
		}
		for i := range want {
			if at[i] != want[i]*time.Millisecond {
				t.Fatalf("statuses at %v", at)
			}
		}
		if len(ports) != 4 || ports[statuses[0].port] != 9 {
			t.Errorf("ports of the statuses: %v", ports)
		}
		runs := w.packets(TimeForm)
		if len(runs) != 11 || runs[0].at != time.Second || runs[1].at != 1250*time.Millisecond {
			t.Errorf("%d packets with a time", len(runs))
		}
		for _, p := range runs {
			if p.packet != runs[0].packet {
				t.Error("the form with a time was sealed twice")
			}
		}
	})
}

// Without a clock of our own there is no form with a time, and the run is
// never sent to a host that answers nothing.
func TestNoClock(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, func(w *world, c *fakehost.Config) {
			w.opt.Clock.Synchronised = func() bool { return false }
			c.Synchronised = false
			w.skew = -20 * 365 * 24 * time.Hour
		})
		wantKind(t, w.run(t, "s"), Accepted)

		w.host.Mute(true)
		o := w.run(t, "s")
		wantKind(t, o, Unknown)
		if o.RunSent || len(w.packets(TimeForm)) != 0 {
			t.Errorf("outcome %+v", o)
		}
		wantRuns(t, w, 1)
	})
}

// The host's random generator is not ready: it answers without a challenge,
// and is asked again until there is one. A host that answers gets no form with
// a time.
func TestNoChallengeYet(t *testing.T) {
	in(t, func(t *testing.T) {
		var ready atomic.Bool
		w := newWorld(t, func(_ *world, c *fakehost.Config) { c.Random = ready.Load })
		time.AfterFunc(3500*time.Millisecond, func() { ready.Store(true) })
		o := w.run(t, "s")
		wantKind(t, o, Accepted)
		if o.OnePacket || len(w.packets(StatusForm)) != 7 {
			t.Errorf("outcome %+v", o)
		}
		wantRuns(t, w, 1)
	})
}

// Replies to statuses never come, but the form with a time runs.
func TestFallback(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.up = func(_ int, p []byte) []time.Duration {
			if isRun(w, p) {
				return []time.Duration{latency}
			}
			return nil
		}
		o := w.run(t, "s")
		wantKind(t, o, Accepted)
		if !o.OnePacket || o.Elapsed != time.Second+2*latency || o.RoundTrip != 2*latency {
			t.Errorf("outcome %+v", o)
		}
		wantRuns(t, w, 1)
	})
}

// The form with a time is stale, since the clocks differ; the ledger is old
// enough to prove that nothing ran, so the run goes out with a challenge.
func TestStaleThenChallenge(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, func(w *world, c *fakehost.Config) { w.skew = time.Minute })
		w.up = func(_ int, p []byte) []time.Duration {
			if isRun(w, p) {
				return []time.Duration{latency}
			}
			return nil
		}
		o := w.run(t, "s")
		wantKind(t, o, Accepted)
		if !o.TimeStale || o.Difference.Round(time.Second) != time.Minute || o.RoundTrip != 0 {
			t.Errorf("outcome %+v", o)
		}
		wantRuns(t, w, 1)
	})
}

// The form with a time lies in the host's future, and the host restarts: a
// copy of it that arrives when its time has come is fresh to the new ledger.
// So no further form is made before the host's clock is near enough.
func TestPostdated(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, func(w *world, c *fakehost.Config) {
			w.skew = -22 * time.Second
			w.opt.Timeout = time.Minute
		})
		w.host.OnRun(func(h *fakehost.Host, _ auth.Request) { h.Fall() })
		w.up = func(n int, p []byte) []time.Duration {
			if n < 5 && !isRun(w, p) {
				return nil
			}
			return []time.Duration{latency, 10 * time.Second, 20 * time.Second}
		}
		o := w.run(t, "b")
		wantKind(t, o, Accepted)
		if !o.OnePacket || o.Postdated || o.Elapsed < 8*time.Second {
			t.Errorf("outcome %+v", o)
		}
		time.Sleep(time.Minute)
		wantRuns(t, w, 1)
	})
}

// Another request of the same key used the challenge up in between.
func TestChallengeUsedUp(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.down = func(n int, _ []byte) []time.Duration {
			if n == 1 {
				w.host.Forget()
			}
			return []time.Duration{latency, 2 * latency, 3 * latency}
		}
		wantKind(t, w.run(t, "s"), Accepted)
		wantRuns(t, w, 1)
		if n := len(w.packets(ChallengeForm)); n != 2 {
			t.Errorf("%d forms", n)
		}
	})
}

// A host that never takes its own challenges is not asked for ever.
func TestQuarrel(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.down = func(int, []byte) []time.Duration {
			w.host.Forget()
			return []time.Duration{latency}
		}
		o := w.run(t, "s")
		wantKind(t, o, Unknown)
		wantRuns(t, w, 0)
		if n := len(w.packets(ChallengeForm)); n != maxForms {
			t.Errorf("%d forms", n)
		}
	})
}

// The daemon restarts after the run and before its reply: what comes next
// must not become a second run.
func TestDaemonRestarts(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.down = lose(func(n int) bool {
			if n == 2 {
				w.host.RestartDaemon()
			}
			return n == 2
		})
		o := w.run(t, "s")
		wantKind(t, o, Unknown)
		if !o.Forgotten || o.Before != o.After {
			t.Errorf("outcome %+v", o)
		}
		wantRuns(t, w, 1)
		sent := len(w.sent)
		time.Sleep(time.Minute)
		if len(w.sent) != sent {
			t.Error("something was sent after that")
		}
	})
}

// The run reboots the host before its reply leaves.
func TestRebooted(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, nil)
		before := w.host.Boot()
		w.host.OnRun(func(h *fakehost.Host, _ auth.Request) { h.Fall() })
		w.down = lose(func(n int) bool { return n == 2 })
		o := w.run(t, "b")
		wantKind(t, o, Rebooted)
		if o.Before != before || o.After != w.host.Boot() || o.Before == o.After {
			t.Errorf("outcome %+v", o)
		}
		wantRuns(t, w, 1)
		if n := len(w.packets(ChallengeForm)); n != 2 {
			t.Errorf("%d packets of the run", n)
		}
	})
}

// The same with a host that takes its time to come back.
func TestRebootedLater(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, func(w *world, c *fakehost.Config) { w.opt.Timeout = 2 * time.Minute })
		w.host.OnRun(func(h *fakehost.Host, _ auth.Request) { h.Fall() })
		w.down = func(n int, _ []byte) []time.Duration {
			if n == 2 {
				w.host.Mute(true)
				time.AfterFunc(40*time.Second, func() { w.host.Reboot(); w.host.Mute(false) })
				return nil
			}
			return []time.Duration{latency}
		}
		wantKind(t, w.run(t, "b"), Rebooted)
		wantRuns(t, w, 1)
	})
}

// The host reboots, by another hand, between the status and the run.
func TestRebootBeforeRun(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.down = func(n int, _ []byte) []time.Duration {
			if n == 1 {
				w.host.Reboot()
			}
			return []time.Duration{latency}
		}
		wantKind(t, w.run(t, "b"), Rebooted)
		wantRuns(t, w, 0)
	})
}

// Only the form with a time was sent when the host restarted: the boot id from
// before is not known, and the ledger is too young.
func TestTimeThenYoungLedger(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.host.Mute(true)
		time.AfterFunc(4*time.Second, func() { w.host.Mute(false); w.host.Reboot() })
		o := w.run(t, "b")
		wantKind(t, o, Unknown)
		if !o.Forgotten || o.Before != o.After {
			t.Errorf("outcome %+v", o)
		}
		wantRuns(t, w, 0)
		if n := len(w.packets(ChallengeForm)); n != 0 {
			t.Errorf("%d packets with a challenge", n)
		}
	})
}

func TestDuplicatesAndReordering(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, nil)
		late := []time.Duration{latency, 3 * latency, 300 * time.Millisecond, 2 * time.Second}
		w.up = func(int, []byte) []time.Duration { return late }
		w.down = func(int, []byte) []time.Duration { return late }
		wantKind(t, w.run(t, "s"), Accepted)
		time.Sleep(time.Minute)
		wantRuns(t, w, 1)
	})
}

// Nothing that others can make counts: our own packets sent back, noise,
// damaged replies, replies to other requests and replies of another key.
func TestForeignPackets(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, nil)
		stranger, _ := (&auth.Master{1}).HostKey("web1")
		accepted := func(s *auth.Sealer, id auth.RequestID) []byte {
			p := s.SealReply(&auth.Reply{ID: id, Result: auth.Accepted, Executor: auth.Daemon})
			return p[:]
		}
		ignored := 0
		opt := w.opt
		opt.Trace = func(e Event) {
			if !e.Sent && e.Err == nil && e.Reply == nil {
				ignored++
			}
		}
		dial := opt.Dial
		opt.Dial = func(ctx context.Context, to netip.AddrPort) (io.ReadWriteCloser, error) {
			c, err := dial(ctx, to)
			p := c.(*fakePath)
			time.AfterFunc(time.Millisecond, func() {
				own := w.packets(StatusForm)[0]
				damaged := accepted(w.sealer, own.request.ID)
				damaged[70] ^= 1
				p.inject(own.packet[:])
				p.inject(nil)
				p.inject(make([]byte, 5000))
				p.inject(damaged)
				p.inject(accepted(w.sealer, auth.RequestID{9}))
				p.inject(accepted(w.sealer, own.request.ID)) // a status is never accepted
				p.inject(accepted(auth.NewSealer(&stranger), own.request.ID))
			})
			return c, err
		}
		o, err := Run(t.Context(), w.target(), []auth.Step{{Key: 's'}}, 0, opt)
		if err != nil {
			t.Fatal(err)
		}
		wantKind(t, o, Accepted)
		wantRuns(t, w, 1)
		if o.Ignored != 7 || ignored != 7 || o.Replies != 2 {
			t.Errorf("outcome %+v", o)
		}
	})
}

func TestOnePacket(t *testing.T) {
	one := func(w *world, c *fakehost.Config) {
		w.opt.OnePacket = true
		w.opt.Clock.Synchronised = func() bool { return false } // the operator asked for it
	}
	t.Run("accepted", func(t *testing.T) {
		in(t, func(t *testing.T) {
			w := newWorld(t, one)
			o := w.run(t, "s")
			wantKind(t, o, Accepted)
			if o.Sent != 1 || !o.OnePacket || o.RoundTrip != 2*latency {
				t.Errorf("outcome %+v", o)
			}
		})
	})
	t.Run("stale", func(t *testing.T) {
		in(t, func(t *testing.T) {
			w := newWorld(t, one)
			w.skew = time.Minute
			o := w.run(t, "s")
			wantKind(t, o, Refused)
			if o.Reply.Result != auth.Stale || o.Difference != w.skew {
				t.Errorf("outcome %+v", o)
			}
			wantRuns(t, w, 0)
		})
	})
	t.Run("postdated", func(t *testing.T) {
		in(t, func(t *testing.T) {
			w := newWorld(t, one)
			w.skew = -time.Minute
			o := w.run(t, "s")
			wantKind(t, o, Unknown) // a ledger that begins now would take it in a minute
			if !o.Postdated {
				t.Errorf("outcome %+v", o)
			}
		})
	})
	t.Run("restarted", func(t *testing.T) {
		in(t, func(t *testing.T) {
			w := newWorld(t, one)
			w.down = lose(func(n int) bool {
				if n == 1 {
					w.host.RestartDaemon()
				}
				return n == 1
			})
			o := w.run(t, "s")
			wantKind(t, o, Unknown)
			if !o.Forgotten {
				t.Errorf("outcome %+v", o)
			}
			wantRuns(t, w, 1)
		})
	})
	t.Run("silence", func(t *testing.T) {
		in(t, func(t *testing.T) {
			w := newWorld(t, one)
			w.host.Mute(true)
			wantKind(t, w.run(t, "s"), Unknown)
			if len(w.packets(TimeForm)) != len(w.sent) {
				t.Error("something else was sent")
			}
		})
	})
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name, steps string
		change      func(*fakehost.Config)
		want        auth.Result
		mask        uint8
	}{
		{"policy", "s,e", nil, auth.RefPolicy, 2},
		{"masked", "n,s", func(c *fakehost.Config) { c.Executor = auth.Kernel; c.Sysrq = 0xb6 }, auth.RefSysrq, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			in(t, func(t *testing.T) {
				w := newWorld(t, func(_ *world, cfg *fakehost.Config) {
					if c.change != nil {
						c.change(cfg)
					}
				})
				o := w.run(t, c.steps)
				wantKind(t, o, Refused)
				if o.Reply.Result != c.want || o.Reply.Mask != c.mask {
					t.Errorf("reply %+v", o.Reply)
				}
				wantRuns(t, w, 0)
			})
		})
	}
}

// A host with the kernel module says whose word an answer is. A drill is the
// kernel's, whatever the daemon does; nothing of it is run.
func TestExecutor(t *testing.T) {
	for _, c := range []struct {
		attached fakehost.Attached
		flags    auth.RequestFlags
		want     auth.Executor
		silent   uint16
	}{
		{fakehost.Healthy, auth.Rehearse, auth.Daemon, 0},
		{fakehost.Healthy, auth.Drill, auth.Kernel, 0},
		{fakehost.Forbids, auth.Drill, auth.Kernel, 0},
		{fakehost.Slow, auth.Rehearse, auth.Kernel, 0},
		{fakehost.Hung, auth.Rehearse, auth.Kernel, 8},
		{fakehost.Absent, auth.Rehearse, auth.Kernel, 0xffff},
	} {
		in(t, func(t *testing.T) {
			w := newWorld(t, func(_ *world, cfg *fakehost.Config) {
				cfg.Executor, cfg.Attached, cfg.DryRun = auth.Kernel, c.attached, true
			})
			steps, _ := auth.ParseSteps("n,s,u,b")
			o, err := Run(t.Context(), w.target(), steps, c.flags, w.opt)
			if err != nil {
				t.Fatal(err)
			}
			wantKind(t, o, Accepted)
			if r := o.Reply; r.Executor != c.want || r.Flags&(auth.Armed|auth.Rehearsed) != auth.Armed|auth.Rehearsed || r.Silent != c.silent || !o.DryRun {
				t.Errorf("%+v: dry run %v, %+v", c, o.DryRun, r)
			}
			wantRuns(t, w, 0)
		})
	}
}

func TestBarrier(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, nil)
		o, err := Run(t.Context(), w.target(), nil, auth.Now, w.opt)
		if err != nil {
			t.Fatal(err)
		}
		wantKind(t, o, Accepted)
		wantRuns(t, w, 0)
	})
}

func TestCancelledContext(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.host.Mute(true)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		o, err := Run(ctx, w.target(), []auth.Step{{Key: 's'}}, 0, w.opt)
		if !errors.Is(err, context.DeadlineExceeded) || o.Kind != Unknown || !o.RunSent || o.Elapsed != 3*time.Second {
			t.Errorf("outcome %+v, error %v", o, err)
		}
	})
}

func TestNothingSent(t *testing.T) {
	w := newWorld(t, nil)
	broken := errors.New("no such network")
	w.opt.Dial = func(context.Context, netip.AddrPort) (io.ReadWriteCloser, error) { return nil, broken }
	_, err := Run(t.Context(), w.target(), []auth.Step{{Key: 's'}}, 0, w.opt)
	if !errors.Is(err, ErrNotSent) || !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
}

func TestBadRequests(t *testing.T) {
	w := newWorld(t, nil)
	for name, steps := range map[string][]auth.Step{
		"too many": make([]auth.Step, 8),
		"no key":   {{Key: '?'}},
		"pauses":   {{Key: 's', Pause: 6000}, {Key: 'u', Pause: 1}},
	} {
		if o, err := Run(t.Context(), w.target(), steps, 0, w.opt); o != nil || !errors.Is(err, auth.ErrSteps) {
			t.Errorf("%s: %+v, %v", name, o, err)
		}
	}
	w.opt.Timeout = time.Millisecond
	if _, err := Status(t.Context(), w.target(), w.opt); err == nil {
		t.Error("a timeout of 1 ms was taken")
	}
}

// The host's daemon restarts and this machine sleeps: to its timers no time has
// passed, and the host's ledger looks older than the run. CLOCK_BOOTTIME knows.
func TestSleep(t *testing.T) {
	in(t, func(t *testing.T) {
		const nap = 20 * time.Minute
		var asleep atomic.Int64
		w := newWorld(t, func(w *world, c *fakehost.Config) {
			w.opt.Timeout = MaxTimeout
			boot, host := w.opt.Clock.Boot, c.Clock
			w.opt.Clock.Boot = func() uint64 { return boot() + uint64(asleep.Load()) }
			c.Clock = func() (uint64, uint64) {
				real, steady := host()
				return real + uint64(asleep.Load()), steady + uint64(asleep.Load())
			}
		})
		w.down = lose(func(n int) bool {
			if n == 2 {
				w.host.RestartDaemon()
				asleep.Store(int64(nap))
			}
			return n == 2
		})
		o := w.run(t, "s")
		wantKind(t, o, Unknown)
		if !o.Forgotten {
			t.Errorf("outcome %+v", o)
		}
		wantRuns(t, w, 1)
	})
}

// However the network and the host behave, an intent is run at most once, and
// what is said to be accepted was run.
func TestAtMostOnce(t *testing.T) {
	kinds := map[Kind]int{}
	n := 3000
	if testing.Short() {
		n = 200
	}
	for seed := range n {
		in(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(seed), 7))
			w := newWorld(t, func(w *world, c *fakehost.Config) {
				ours := rng.IntN(4) > 0
				w.opt.Clock.Synchronised = func() bool { return ours }
				w.opt.OnePacket = rng.IntN(6) == 0
				w.opt.Timeout = time.Duration(1+rng.IntN(60)) * time.Second
				c.Synchronised = rng.IntN(3) > 0
				if rng.IntN(3) == 0 {
					c.Executor = auth.Kernel
				}
				w.skew = time.Duration(rng.IntN(60)-30) * time.Second
			})
			loss := rng.IntN(90)
			chaos := func(int, []byte) (out []time.Duration) {
				w.mu.Lock() // rng is shared
				defer w.mu.Unlock()
				for range 1 + rng.IntN(2) {
					if rng.IntN(100) < loss {
						continue
					}
					d := latency
					if rng.IntN(3) == 0 {
						d = time.Duration(rng.IntN(20_000)) * time.Millisecond
					}
					out = append(out, d)
				}
				return out
			}
			w.up, w.down = chaos, chaos
			if rng.IntN(2) == 0 {
				w.host.OnRun(func(h *fakehost.Host, _ auth.Request) { h.Fall() })
			}
			for range rng.IntN(4) {
				event := []func(){w.host.Reboot, w.host.RestartDaemon, w.host.Forget,
					func() { w.host.Mute(true) }, func() { w.host.Mute(false) }}[rng.IntN(5)]
				time.AfterFunc(time.Duration(rng.IntN(30_000))*time.Millisecond, event)
			}
			o := w.run(t, "s") // which checks the count of runs
			kinds[o.Kind]++
			time.Sleep(5 * time.Minute)
			if n := w.host.RunsOf(o.Request); n > 1 || o.Kind == Accepted && n != 1 || o.Kind == Refused && n != 0 {
				t.Fatalf("seed %d: %v, and run %d times: %+v", seed, o.Kind, n, o)
			}
		})
	}
	t.Logf("%v", kinds)
	for k := Accepted; k <= Rebooted; k++ {
		if kinds[k] == 0 && !testing.Short() {
			t.Errorf("never %v", k)
		}
	}
}
