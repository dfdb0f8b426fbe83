// SPDX-License-Identifier: GPL-2.0-only

package auth

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// world drives a ledger by a string of bytes and checks what PROTOCOL.md
// section 5.5 promises after every event.
type world struct {
	t       *testing.T
	truth   uint64 // the time that a good clock shows
	real    uint64
	boot    uint64
	ledger  *Ledger
	draws   uint64
	kernel  bool
	key     KeyID
	sent    []Request // everything ever made, for replays
	ran     map[RequestID]int
	used    map[Challenge]int
	floor   uint64
	pending []RequestID
}

func (w *world) now() Instant { return Instant{w.real, w.boot} }

func (w *world) begin() {
	cfg := Config{Executor: Daemon, Sysrq: -1, Random: func(b []byte) bool {
		w.draws++
		binary.BigEndian.PutUint64(b, w.draws)
		return true
	}}
	if w.kernel {
		cfg.Executor = Kernel
	}
	w.ledger = NewLedger(cfg, w.now())
	all, _ := ParseKeySet("nsubtL")
	w.ledger.Install(w.now(), w.key, all)
	w.floor, w.pending = 0, nil
}

func (w *world) judge(r *Request, from Source) Decision {
	d := w.ledger.Judge(w.now(), w.key, r, from)
	if d.Run {
		if w.ran[r.ID]++; w.ran[r.ID] > 1 && !d.Pending {
			w.t.Fatalf("request %x runs for the %d. time", r.ID[:2], w.ran[r.ID])
		}
		if d.Pending {
			w.ran[r.ID]--
			w.pending = append(w.pending, r.ID)
		}
	}
	// Only a fresh request has one of these outcomes.
	fresh := d.Reason == OK && r.Op != OpStatus || d.Reason >= ReasonNotAllowed
	if fresh && r.Challenge != (Challenge{}) {
		if w.used[r.Challenge]++; w.used[r.Challenge] > 1 {
			w.t.Fatalf("challenge %x makes a second request fresh", r.Challenge[:8])
		}
	}
	if d.Pieces && (r.Op != OpLog || !fresh || d.Run || d.Pending || d.Cut) || r.Op == OpLog && w.ledger.Floor(w.key) != w.floor {
		w.t.Fatalf("%v: %+v", r.Op, d)
	}
	if fresh && d.Silent {
		w.t.Fatalf("a fresh request gets silence: %+v", d)
	}
	if d.Result == Accepted && r.Count > MaxSteps {
		w.t.Fatal("too many steps accepted")
	}
	return d
}

func (w *world) event(op, arg byte) {
	switch op % 16 {
	case 0, 1: // time passes
		w.boot += uint64(arg) * uint64(100*time.Millisecond)
		w.real += uint64(arg) * uint64(100*time.Millisecond)
		w.truth += uint64(arg) * uint64(100*time.Millisecond)
	case 2: // the clock is stepped, to where it can be
		w.real = add(sat(w.real, uint64(arg)*uint64(time.Second)), time.Duration(arg%7)*20*time.Second)
	case 3:
		if arg%4 == 0 {
			w.real = w.truth
		}
		// Who disciplines a clock does not call a wrong one right. All that
		// is asked of it is that the two sides differ by less than W.
		off := time.Duration(w.real - w.truth).Abs()
		w.ledger.Synchronised(w.now(), arg%2 == 0 && off < Window, w.now())
	case 4, 5, 6: // a status, whose challenge is used now or later
		d := w.judge(&Request{ID: RequestID{0xff, arg}, Op: OpStatus, Time: w.truth}, Source(arg))
		r := Request{ID: w.id(), Op: OpRun, Challenge: d.Challenge}
		r.SetSteps(sequences[int(arg)%len(sequences)])
		if op%16 > 4 && arg&8 != 0 {
			r = Request{ID: r.ID, Op: OpLog, Challenge: d.Challenge, Time: w.truth, Pieces: MaxPieces}
		}
		w.sent = append(w.sent, r)
		if op%16 == 4 {
			w.judge(&r, Source(arg))
		}
	case 7, 8: // the form with a time
		r := Request{ID: w.id(), Op: OpRun, Time: add(w.truth, time.Duration(arg)*time.Second-120*time.Second)}
		if arg&1 == 0 {
			r.Time = w.truth
		}
		if arg&2 != 0 {
			r.Flags = RequestFlags(arg>>2) & requestFlags
		}
		r.SetSteps(sequences[int(arg)%len(sequences)])
		w.sent = append(w.sent, r)
		if op%16 == 7 {
			w.judge(&r, Source(arg))
		}
	case 9, 10, 11, 12: // a replay, or a packet that was held back
		if len(w.sent) > 0 {
			r := w.sent[int(arg)%len(w.sent)]
			w.judge(&r, Source(op))
		}
	case 13:
		if len(w.sent) > 0 {
			w.ledger.Finish(w.now(), w.key, w.sent[int(arg)%len(w.sent)].ID)
		}
	case 14:
		if len(w.pending) > 0 {
			id := w.pending[int(arg)%len(w.pending)]
			if d, ok := w.ledger.Settle(w.now(), w.key, id, []Settlement{Forbidden, Taken, Deadline, Taken}[arg%4]); ok && d.Run {
				if w.ran[id]++; w.ran[id] > 1 {
					w.t.Fatalf("request %x runs for the %d. time", id[:2], w.ran[id])
				}
			}
		}
	case 15: // the daemon or the host restarts; the clock may be dead
		if arg < 64 {
			if arg < 16 {
				w.boot = uint64(arg) * uint64(time.Second)
			}
			w.begin()
		}
	}
	if f := w.ledger.Floor(w.key); f < w.floor {
		w.t.Fatalf("floor falls from %d to %d", w.floor, f)
	} else {
		w.floor = f
	}
	n := 0
	for _, e := range w.ledger.keys[w.key].entries {
		if e.state == pending || e.state == active {
			n++
		}
	}
	if n > Active {
		w.t.Fatalf("%d runs are not final", n)
	}
}

var sequences = func() (out [][]Step) {
	for _, s := range []string{"nsub", "s", "t", "c", "u:1s"} {
		steps, err := ParseSteps(s)
		if err != nil {
			panic(err)
		}
		out = append(out, steps)
	}
	return append(out, nil)
}()

func (w *world) id() (id RequestID) {
	binary.BigEndian.PutUint32(id[:], uint32(len(w.sent)+1))
	return id
}

func play(t *testing.T, kernel bool, events []byte) {
	w := &world{t: t, truth: 1767225600e9, real: 1767225600e9, boot: 60e9, kernel: kernel, key: KeyID{1},
		ran: map[RequestID]int{}, used: map[Challenge]int{}}
	w.begin()
	for i := 0; i+1 < len(events); i += 2 {
		w.event(events[i], events[i+1])
	}
}

func FuzzLedger(f *testing.F) {
	f.Add(false, []byte{3, 0, 0, 200, 7, 0, 9, 0, 4, 1, 9, 1, 15, 1, 9, 0})
	// A clock that is called right while it is not: no promise holds then.
	f.Add(false, []byte{3, 0, 0, 200, 7, 0, 13, 0, 2, 21, 15, 30, 3, 0, 0, 100, 9, 0})
	f.Add(true, []byte{3, 0, 0, 200, 7, 0, 14, 1, 9, 0, 4, 1, 14, 0})
	f.Fuzz(func(t *testing.T, kernel bool, events []byte) { play(t, kernel, events) })
}

func TestLedgerInvariants(t *testing.T) {
	for seed := range uint64(400) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 0))
			events := make([]byte, 2000)
			for i := range events {
				events[i] = byte(r.Uint32())
			}
			play(t, seed%2 == 0, events)
		})
	}
}

func BenchmarkJudgeReplay(b *testing.B) {
	l := NewLedger(Config{Executor: Daemon, Sysrq: -1, Random: func([]byte) bool { return true }}, Instant{1e18, 1e9})
	l.Install(Instant{1e18, 1e9}, KeyID{1}, 0)
	req := testRequest()
	b.ReportAllocs()
	for b.Loop() {
		l.Judge(Instant{1e18 + 100e9, 101e9}, KeyID{1}, req, 1)
	}
}

// Moments that come out of order, as from two threads, must not look like a
// great age: a challenge just issued would be pushed out, a budget refilled.
func TestMomentsOutOfOrder(t *testing.T) {
	const real, boot = 1767225600e9, 100e9
	draws := byte(0)
	l := NewLedger(Config{Executor: Daemon, Sysrq: -1, Random: func(b []byte) bool {
		draws++
		b[0] = draws
		return true
	}}, Instant{real, boot})
	key := KeyID{1}
	l.Install(Instant{real, boot}, key, 0)
	var first Challenge
	for i := range uint64(4) {
		at := Instant{real + 20e9 - i, boot + 20e9 - i}
		d := l.Judge(at, key, &Request{ID: RequestID{1}, Op: OpStatus}, 1)
		if i == 0 {
			first = d.Challenge
		}
		if d.Challenge != first {
			t.Fatalf("%d ns earlier: challenge %x, want %x", i, d.Challenge[:2], first[:2])
		}
	}
	run := &Request{ID: RequestID{2}, Op: OpRun, Challenge: first}
	if d := l.Judge(Instant{real + 20e9, boot + 20e9}, key, run, 1); d.Result != Accepted {
		t.Fatalf("barrier %+v", d)
	}
	for range Budget {
		l.Judge(Instant{real + 20e9, boot + 20e9}, key, run, 2)
	}
	if d := l.Judge(Instant{real + 20e9 - 1, boot + 20e9 - 1}, key, run, 1); !d.Silent {
		t.Error("a repeat that is earlier than the first answer is answered again")
	}
}
