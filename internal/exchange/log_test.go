// SPDX-License-Identifier: GPL-2.0-only

package exchange

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/exchange/fakehost"
)

// one makes a direction of the network take one packet at a time.
func one(f func(n int, packet []byte) []time.Duration) func(int, []byte) []time.Duration {
	var mu sync.Mutex
	return func(n int, packet []byte) []time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return f(n, packet)
	}
}

// newLogWorld is a world whose operator may read the log.
func newLogWorld(t *testing.T, change func(*world, *fakehost.Config)) *world {
	t.Helper()
	return newWorld(t, func(w *world, c *fakehost.Config) {
		c.Allow |= auth.ReadLog
		if change != nil {
			change(w, c)
		}
	})
}

func (w *world) openLog(t *testing.T) *Log {
	t.Helper()
	l, err := NewLog(t.Context(), w.target(), w.opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// transcript is what was read.
type transcript struct {
	text strings.Builder
	next uint64
	lost []Records
	cut  int
	t    *testing.T
}

func (x *transcript) add(r Records) {
	if r.First != x.next {
		x.t.Fatalf("records from %d on, after %d", r.First, x.next)
	}
	x.next = r.Next
	if r.Lost {
		x.lost = append(x.lost, r)
	}
	if r.Cut {
		x.cut++
	}
	x.text.Write(r.Text)
}

// read reads all there is from a record on.
func (w *world) read(t *testing.T, l *Log, from uint64) *transcript {
	t.Helper()
	x := &transcript{t: t, next: from}
	next, err := l.Read(t.Context(), from, auth.LogEnd, x.add)
	if err != nil {
		t.Fatalf("read from %d: %v, at %d: %+v", from, err, next, l.Outcome())
	}
	if next != x.next {
		t.Fatalf("ended at %d, given up to %d", next, x.next)
	}
	return x
}

func (w *world) wantLog(t *testing.T, x *transcript, from uint64) {
	t.Helper()
	oldest, records := w.host.Log()
	if from > oldest {
		records = records[from-oldest:]
	}
	if want := strings.Join(records, ""); x.text.String() != want {
		t.Fatalf("read %d bytes, want %d", x.text.Len(), len(want))
	}
}

func TestLog(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newLogWorld(t, func(w *world, _ *fakehost.Config) { w.skew = time.Hour })
		w.host.Fill(30_000)
		l := w.openLog(t)
		b, err := l.Bounds(t.Context())
		_, records := w.host.Log()
		if err != nil || b.Oldest != 0 || b.End != uint64(len(records)) {
			t.Fatalf("bounds %+v %v", b, err)
		}
		x := w.read(t, l, 0)
		w.wantLog(t, x, 0)
		// A status, the bounds, and eight pieces for each packet of ours.
		if o := l.Outcome(); o.Sent > 2+30_000/(6*auth.TextSize) || o.Kind != Answered || o.Ignored != 0 || o.Elapsed > time.Second {
			t.Errorf("outcome %+v", o)
		}
		if x.lost != nil || x.cut != 0 {
			t.Errorf("lost %v, cut %d", x.lost, x.cut)
		}
		// From the middle, and from the end, where nothing is until something is logged.
		w.wantLog(t, w.read(t, l, 100), 100)
		x = w.read(t, l, x.next)
		if x.text.Len() != 0 {
			t.Errorf("after the end: %q", x.text.String())
		}
		w.host.Print("sysrq: Show Blocked State")
		if x := w.read(t, l, x.next); !strings.HasSuffix(x.text.String(), "sysrq: Show Blocked State\n") {
			t.Errorf("after the end: %q", x.text.String())
		}
		for _, p := range w.packets(LogForm) {
			if d := time.Duration(p.request.Time - w.hostTime(p.at)); d.Abs() > latency {
				t.Errorf("a log carries a time that is %v off the host's", d)
			}
		}
	})
}

func TestEmptyLog(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newLogWorld(t, nil)
		l := w.openLog(t)
		if b, err := l.Bounds(t.Context()); err != nil || b != (Bounds{}) {
			t.Errorf("bounds %+v %v", b, err)
		}
		if x := w.read(t, l, 0); x.next != 0 {
			t.Errorf("read up to %d", x.next)
		}
	})
}

// 64 KiB arrive whole through a network that loses every fifth packet, repeats
// others and gives them in any order.
func TestLogThroughLoss(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			in(t, func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 1))
				bad := one(func(int, []byte) (out []time.Duration) {
					for range 1 + r.IntN(2)*r.IntN(2) {
						if r.IntN(5) > 0 {
							out = append(out, latency+time.Duration(r.IntN(40))*time.Millisecond)
						}
					}
					return out
				})
				w := newLogWorld(t, func(w *world, _ *fakehost.Config) { w.up, w.down = bad, bad })
				w.host.Fill(64 << 10)
				l := w.openLog(t)
				if _, err := l.Bounds(t.Context()); err != nil {
					t.Fatal(err)
				}
				x := w.read(t, l, 0)
				w.wantLog(t, x, 0)
				if x.lost != nil {
					t.Errorf("%v called lost", x.lost)
				}
				o := l.Outcome()
				if o.Elapsed > 20*time.Second {
					t.Errorf("took %v", o.Elapsed)
				}
				t.Logf("%d bytes in %v, %d packets sent, %d received", x.text.Len(), o.Elapsed, o.Sent, o.Replies)
			})
		})
	}
}

// Only what is missing is asked for again.
func TestLogHole(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newLogWorld(t, nil)
		w.host.Fill(8 * 900)
		n := 0
		w.down = one(func(_ int, packet []byte) []time.Duration {
			if auth.IsPiece(packet) {
				if n++; n == 3 || n == 4 {
					return nil
				}
			}
			return []time.Duration{latency}
		})
		l := w.openLog(t)
		w.wantLog(t, w.read(t, l, 0), 0)
		logs := w.packets(LogForm)
		if len(logs) != 2 || logs[1].request.Pieces != 2 || logs[1].request.From == 0 {
			t.Errorf("asked %d times, at last for %d pieces from %d", len(logs), logs[1].request.Pieces, logs[1].request.From)
		}
	})
}

// What the host overwrote before it was read is told, and the rest comes.
func TestLogOverwritten(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newLogWorld(t, func(_ *world, c *fakehost.Config) { c.Room = 50 })
		w.host.Fill(40_000)
		oldest, _ := w.host.Log()
		l := w.openLog(t)
		x := w.read(t, l, 0)
		w.wantLog(t, x, 0)
		if len(x.lost) != 1 || x.lost[0].First != 0 || x.lost[0].Next != oldest {
			t.Errorf("lost %+v, oldest is %d", x.lost, oldest)
		}
	})
	// A log that runs faster than it is read.
	in(t, func(t *testing.T) {
		w := newLogWorld(t, func(w *world, c *fakehost.Config) {
			c.Room = 60
			w.up = func(int, []byte) []time.Duration {
				for range 17 {
					w.host.Print("%s", strings.Repeat("again ", 20))
				}
				return []time.Duration{latency}
			}
		})
		w.down = lose(func(n int) bool { return n%4 == 0 })
		w.host.Fill(5000)
		l := w.openLog(t)
		x := &transcript{t: t}
		next, err := l.Read(t.Context(), 0, 200, x.add)
		if err != nil || next < 200 || next != x.next || len(x.lost) == 0 {
			t.Errorf("%v: read up to %d, lost %v", err, next, x.lost)
		}
	})
}

func TestLogCut(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newLogWorld(t, nil)
		w.host.Print("before")
		w.host.Print("%s", strings.Repeat("x", 3000))
		w.host.Print("after")
		x := w.read(t, w.openLog(t), 0)
		if x.cut != 1 || x.next != 3 || !strings.HasSuffix(x.text.String(), "after\n") {
			t.Errorf("%d cut, up to %d: %q", x.cut, x.next, x.text.String())
		}
	})
}

func TestLogRefused(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, nil) // no L
		l := w.openLog(t)
		_, err := l.Bounds(t.Context())
		if o := l.Outcome(); !errors.Is(err, ErrLog) || o.Kind != Refused || o.Reply.Result != auth.RefPolicy || o.Elapsed > 5*latency {
			t.Errorf("%v %+v", err, o)
		}
	})
}

func TestLogSilence(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newLogWorld(t, nil)
		w.host.Fill(20_000)
		l := w.openLog(t)
		if _, err := l.Bounds(t.Context()); err != nil {
			t.Fatal(err)
		}
		// It falls silent in the middle. What came stays, and it goes on from there.
		n := 0
		w.down = one(lose(func(int) bool { n++; return n > 5 }))
		x := &transcript{t: t}
		next, err := l.Read(t.Context(), 0, auth.LogEnd, x.add)
		if o := l.Outcome(); !errors.Is(err, ErrLog) || o.Kind != Unknown || next == 0 || next != x.next || o.Elapsed > DefaultTimeout+time.Second {
			t.Errorf("%v, at %d (%d), %+v", err, next, x.next, o)
		}
		w.down = nil
		if next, err = l.Read(t.Context(), next, auth.LogEnd, x.add); err != nil {
			t.Errorf("%v, at %d", err, next)
		}
		w.wantLog(t, x, 0)
	})
}

func TestLogRebooted(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newLogWorld(t, nil)
		w.host.Fill(5000)
		l := w.openLog(t)
		w.read(t, l, 0)
		w.host.Reboot()
		w.host.Fill(50_000)
		_, err := l.Read(t.Context(), 10, auth.LogEnd, func(r Records) { t.Errorf("records %d to %d of another boot", r.First, r.Next) })
		if o := l.Outcome(); !errors.Is(err, ErrLog) || o.Kind != Rebooted || o.Before == o.After {
			t.Errorf("%v %+v", err, o)
		}
	})
}

// Pieces that answer nothing we asked, and replayed ones, change nothing.
func TestLogForeignPieces(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newLogWorld(t, nil)
		w.host.Fill(20_000)
		var first []byte
		w.down = one(func(_ int, packet []byte) []time.Duration {
			if !auth.IsPiece(packet) {
				return []time.Duration{latency}
			}
			if first == nil {
				first = slices.Clone(packet)
			}
			return []time.Duration{latency, latency, 3 * latency}
		})
		l := w.openLog(t)
		w.wantLog(t, w.read(t, l, 0), 0)

		other := w.openLog(t)
		w.down = func(int, []byte) []time.Duration { return nil }
		foreign := w.sealer.SealPiece(&auth.Piece{ID: auth.RequestID{9}, End: 9, Next: 9, Text: []byte("<6>forged\n")})
		for _, packet := range [][]byte{first, foreign, make([]byte, 1200), make([]byte, 5000)} {
			other.r.begin(w.opt.Clock.Boot(), 0, auth.LogEnd, func(Records) { t.Error("a foreign piece was believed") })
			other.r.receive(w.opt.Clock.Boot(), netip.AddrPort{}, slices.Clone(packet))
		}
		if o := other.Outcome(); o.Replies != 0 || o.Ignored != 4 {
			t.Errorf("%+v", o)
		}
	})
}

// Whoever takes the records may take his time: that is no silence of the host.
func TestLogSlowReader(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newLogWorld(t, nil)
		w.host.Fill(30_000)
		l := w.openLog(t)
		x := &transcript{t: t}
		_, err := l.Read(t.Context(), 0, auth.LogEnd, func(r Records) {
			x.add(r)
			time.Sleep(2 * DefaultTimeout)
		})
		if err != nil {
			t.Fatal(err)
		}
		w.wantLog(t, x, 0)
	})
}

// A host that was silent for a while answers again, and is said to.
func TestLogKindAfterSilence(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newLogWorld(t, nil)
		w.host.Fill(1000)
		l := w.openLog(t)
		x := w.read(t, l, 0)
		w.host.Mute(true)
		if _, err := l.Read(t.Context(), x.next, auth.LogEnd, x.add); !errors.Is(err, ErrLog) || l.Outcome().Kind != Unknown {
			t.Errorf("while it is silent: %v, %v", err, l.Outcome().Kind)
		}
		w.host.Mute(false)
		if _, err := l.Read(t.Context(), x.next, auth.LogEnd, x.add); err != nil || l.Outcome().Kind != Answered {
			t.Errorf("%v, %v", err, l.Outcome().Kind)
		}
	})
}

// A run goes on beside a reader of the same key, though each uses up the
// other's challenges.
func TestLogBesideRun(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newLogWorld(t, nil)
		w.host.Fill(200_000)
		l := w.openLog(t)
		ended := make(chan *transcript)
		go func() { ended <- w.read(t, l, 0) }()
		time.Sleep(3 * latency)
		w.run(t, "n,s,u,b")
		w.wantLog(t, <-ended, 0)
	})
}

// What a host sends takes no more memory the longer it goes on: neither pieces
// far ahead of what is wanted, nor silence.
func TestLogBounded(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newLogWorld(t, nil)
		r := newReader(w.sealer, Options{Clock: w.opt.Clock, Trace: func(Event) {}})
		now := w.opt.Clock.Boot()
		r.begin(now, 0, auth.LogEnd, func(c Records) { t.Errorf("given %d to %d", c.First, c.Next) })
		for i := range uint64(1000) {
			r.ask, r.challenge = nil, auth.Challenge{byte(i), byte(i >> 8), 1}
			r.due(now)
			packet := w.sealer.SealPiece(&auth.Piece{ID: r.ask.id, First: 10 + 2*i, Next: 11 + 2*i, End: 1e6, Index: 1})
			r.ask.pieces = auth.MaxPieces
			r.receive(now, netip.AddrPort{}, packet)
		}
		if r.out.Replies != 1000 || len(r.kept) != maxKept || len(r.asks) > maxAsks || len(r.order) > maxAsks || len(r.used) > 2*maxAsks+1 {
			t.Errorf("%d replies, %d kept, %d asks, %d used challenges", r.out.Replies, len(r.kept), len(r.asks), len(r.used))
		}
	})
	in(t, func(t *testing.T) {
		w := newLogWorld(t, nil)
		l := w.openLog(t)
		w.host.Mute(true)
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		l.Follow(ctx, 0, func(Records) {}, func(bool) {})
		if sent := l.Outcome().Sent; sent < 10_000 || len(l.r.statuses) > 40 {
			t.Errorf("%d packets sent, %d statuses remembered", sent, len(l.r.statuses))
		}
	})
}

func FuzzPiece(f *testing.F) {
	key, _ := new(auth.Master).HostKey("web1")
	sealer := auth.NewSealer(&key)
	f.Add([]byte{}, byte(0), byte(1), uint64(0), uint64(1), uint64(1), uint64(0), uint64(0), uint64(9), true)
	f.Add([]byte{1}, byte(3), byte(0), uint64(5), uint64(9), uint64(12), uint64(4), uint64(2), uint64(7), false)
	f.Fuzz(func(t *testing.T, raw []byte, index, flags byte, first, next, end, oldest, from, to uint64, ours bool) {
		var now uint64 = 1e12
		clock := Clock{Real: func() uint64 { return now }, Boot: func() uint64 { return now }, Synchronised: func() bool { return true }}
		r := newReader(sealer, Options{Clock: clock, Trace: func(Event) {}})
		at := from
		r.begin(now, from, to, func(c Records) {
			if c.First != at || c.Next <= c.First || c.First >= to {
				t.Fatalf("records %d to %d after %d", c.First, c.Next, at)
			}
			at = c.Next
		})
		r.receive(now, netip.AddrPort{}, slices.Clone(raw))
		if r.out.Replies != 0 {
			t.Fatal("unsealed bytes were believed")
		}
		r.challenge = auth.Challenge{1}
		r.due(now)
		p := auth.Piece{Index: index, Flags: auth.PieceFlags(flags), First: first, Next: next, End: end, Oldest: oldest, Text: raw}
		if ours && r.ask != nil {
			p.ID = r.ask.id
		}
		packet := sealer.SealPiece(&p)
		r.receive(now, netip.AddrPort{}, slices.Clone(packet))
		r.receive(now, netip.AddrPort{}, packet)
		if at != r.want {
			t.Fatalf("at %d, given up to %d", r.want, at)
		}
		if !ours && from < to && (r.out.Replies != 0 || at != from) {
			t.Fatal("a piece for somebody else was believed")
		}
		now += 1e9
		r.due(now)
		if d := r.next(now); d < 0 {
			t.Fatalf("wait for %v", d)
		}
	})
}

func TestTail(t *testing.T) {
	for _, c := range []struct{ have, want int }{{40_000, 10_000}, {40_000, 0}, {5_000, 10_000}, {64_000, 63_000}, {0, 100}} {
		in(t, func(t *testing.T) {
			w := newLogWorld(t, nil)
			w.host.Fill(c.have)
			_, records := w.host.Log()
			all := strings.Join(records, "")
			l := w.openLog(t)
			var got strings.Builder
			next, err := l.Tail(t.Context(), c.want, func(r Records) { got.Write(r.Text) })
			if err != nil || next != uint64(len(records)) || !strings.HasSuffix(all, got.String()) {
				t.Fatalf("%v, up to %d: %d bytes", err, next, got.Len())
			}
			least := min(len(all), c.want-200)
			if c.want == 0 {
				least = len(all)
			}
			if got.Len() < least || c.want > 0 && got.Len() > c.want || got.Len() > 0 && got.String()[0] != '<' {
				t.Errorf("tail of %d bytes: %d of %d, from %.20q", c.want, got.Len(), len(all), got.String())
			}
		})
	}
}

// Many empty-looking records: the first guess brings too little.
func TestTailOfShortLines(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newLogWorld(t, nil)
		for range 4000 {
			w.host.Print("x")
		}
		got := 0
		if _, err := w.openLog(t).Tail(t.Context(), 20_000, func(r Records) { got += len(r.Text) }); err != nil || got < 19_900 || got > 20_000 {
			t.Errorf("%d bytes, %v", got, err)
		}
	})
}

func TestFollow(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newLogWorld(t, nil)
		w.host.Fill(3000)
		l := w.openLog(t)
		x := &transcript{t: t}
		var silences []bool
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(5500*time.Millisecond, func() { w.host.Print("later") })
		time.AfterFunc(10*time.Second, func() { w.host.Mute(true) })
		time.AfterFunc(30*time.Second, func() { w.host.Print("while silent"); w.host.Mute(false) })
		time.AfterFunc(60*time.Second, cancel)
		_, err := l.Follow(ctx, 0, x.add, func(s bool) { silences = append(silences, s) })
		if !errors.Is(err, context.Canceled) || fmt.Sprint(silences) != "[true false]" {
			t.Errorf("%v, silences %v", err, silences)
		}
		w.wantLog(t, x, 0)
		if sent := l.Outcome().Sent; sent > 110 {
			t.Errorf("%d packets in a minute", sent)
		}
	})
}

func TestRunLog(t *testing.T) {
	steps, _ := auth.ParseSteps("w")
	runLog := func(t *testing.T, w *world) (*Dump, string, error) {
		var text strings.Builder
		d, err := RunLog(t.Context(), w.target(), steps, w.opt, func(r Records) { text.Write(r.Text) })
		return d, text.String(), err
	}
	allow := func(_ *world, c *fakehost.Config) { c.Allow, _ = auth.ParseKeySet("wL") }

	in(t, func(t *testing.T) {
		w := newWorld(t, allow)
		w.host.Fill(10_000)
		w.host.OnRun(func(h *fakehost.Host, _ auth.Request) {
			time.AfterFunc(300*time.Millisecond, func() {
				h.Print("sysrq: Show Blocked State")
				for i := range 300 {
					time.Sleep(10 * time.Millisecond)
					h.Print("task:writer-%d state:D", i)
				}
			})
		})
		d, text, err := runLog(t, w)
		if err != nil || !d.Begun || !d.Ended || d.Run.Kind != Accepted || !strings.HasPrefix(text, "<6>[ 3600.") ||
			!strings.Contains(text, "Show Blocked State\n") || !strings.HasSuffix(text, "writer-299 state:D\n") {
			t.Errorf("%v %+v:\n%s", err, d, text)
		}
	})
	in(t, func(t *testing.T) { // nothing is logged
		d, text, err := runLog(t, newWorld(t, allow))
		if err != nil || d.Begun || d.Ended || d.Run.Kind != Accepted || text != "" {
			t.Errorf("%v %+v: %q", err, d, text)
		}
	})
	in(t, func(t *testing.T) { // so much that the beginning is overwritten
		w := newWorld(t, func(w *world, c *fakehost.Config) { allow(w, c); c.Room = 10 })
		w.host.OnRun(func(h *fakehost.Host, _ auth.Request) {
			h.Printk("sysrq: Show Blocked State")
			for i := range 300 {
				h.Printk("task:writer-%d state:D", i)
			}
		})
		d, text, err := runLog(t, w)
		if err != nil || !d.Begun || !d.Ended || strings.Contains(text, "Show Blocked State") || !strings.HasSuffix(text, "writer-299 state:D\n") {
			t.Errorf("%v %+v:\n%s", err, d, text)
		}
	})
	in(t, func(t *testing.T) { // no L: nothing is run
		w := newWorld(t, func(_ *world, c *fakehost.Config) { c.Allow, _ = auth.ParseKeySet("w") })
		d, _, err := runLog(t, w)
		if !errors.Is(err, ErrLog) || d.Run != nil || d.Log.Kind != Refused {
			t.Errorf("%v %+v", err, d)
		}
		wantRuns(t, w, 0)
	})
	in(t, func(t *testing.T) { // L, but not w
		w := newLogWorld(t, nil)
		if d, _, err := runLog(t, w); err != nil || d.Run.Kind != Refused || d.Begun {
			t.Errorf("%v %+v", err, d)
		}
	})
	in(t, func(t *testing.T) { // the host falls while it prints
		w := newWorld(t, allow)
		w.host.OnRun(func(h *fakehost.Host, _ auth.Request) {
			h.Printk("sysrq: Show Blocked State")
			time.AfterFunc(500*time.Millisecond, h.Reboot)
		})
		d, text, err := runLog(t, w)
		if !errors.Is(err, ErrLog) || d.Log.Kind != Rebooted || !strings.Contains(text, "Blocked State") {
			t.Errorf("%v %+v: %q", err, d, text)
		}
	})
}
