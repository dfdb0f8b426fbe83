// SPDX-License-Identifier: GPL-2.0-only

package follow

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"netsysrq/auth"
)

var before, after = auth.BootID{1}, auth.BootID{2}

// machine answers as its script says: the last entry whose time has come.
type machine []struct {
	from  time.Duration
	reply *auth.Reply
}

func daemon(b auth.BootID) *auth.Reply { return &auth.Reply{Boot: b, Executor: auth.Daemon} }
func kernel(b auth.BootID) *auth.Reply {
	return &auth.Reply{Boot: b, Executor: auth.Kernel, Flags: auth.Armed, Silent: 0xffff}
}

func (m machine) ask(begun time.Time) Ask {
	return func(ctx context.Context, timeout time.Duration) *auth.Reply {
		for deadline := time.Now().Add(timeout); time.Now().Before(deadline) && ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
			var now *auth.Reply
			for _, s := range m {
				if time.Since(begun) >= s.from {
					now = s.reply
				}
			}
			if now != nil {
				return now
			}
		}
		return nil
	}
}

func TestWatch(t *testing.T) {
	for _, c := range []struct {
		name   string
		script machine
		opt    Options
		phases []Phase
		took   time.Duration // at most, and a fifth less at least
	}{
		{"back with its daemon", machine{{0, daemon(before)}, {3 * time.Second, nil}, {40 * time.Second, daemon(after)}},
			Options{Limit: time.Minute}, []Phase{Gone, Back}, 41 * time.Second},
		{"so fast that it was never silent", machine{{0, daemon(before)}, {3 * time.Second, daemon(after)}},
			Options{Limit: time.Minute}, []Phase{Back}, 3500 * time.Millisecond},
		{"the daemon comes later", machine{{0, nil}, {30 * time.Second, kernel(after)}, {50 * time.Second, daemon(after)}},
			Options{Limit: 45 * time.Second}, []Phase{Gone, Kernel, Back}, 51 * time.Second},
		{"the daemon never comes", machine{{0, nil}, {30 * time.Second, kernel(after)}},
			Options{Limit: time.Hour}, []Phase{Gone, Kernel}, 91 * time.Second},
		{"it is back and silent again", machine{{0, nil}, {30 * time.Second, kernel(after)}, {32 * time.Second, nil}},
			Options{Limit: time.Hour}, []Phase{Gone, Kernel}, 93 * time.Second},
		{"any answer will do", machine{{0, nil}, {30 * time.Second, kernel(after)}},
			Options{Limit: time.Hour, AnyAnswer: true}, []Phase{Gone, Kernel}, 31 * time.Second},
		{"never back", machine{{0, nil}}, Options{Limit: time.Minute}, []Phase{Gone}, time.Minute},
		{"never gone", machine{{0, daemon(before)}}, Options{Limit: time.Minute}, nil, 61 * time.Second},
		{"never gone, given up early", machine{{0, kernel(before)}}, Options{Limit: time.Hour, Leave: 20 * time.Second}, nil, 21 * time.Second},
		{"a gap in the network", machine{{0, nil}, {5 * time.Second, daemon(before)}, {9 * time.Second, nil}, {20 * time.Second, daemon(after)}},
			Options{Limit: time.Minute}, []Phase{Gone, Running, Gone, Back}, 21 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var phases []Phase
				c.opt.Changed = func(e Event) { phases = append(phases, e.Phase) }
				r := Watch(t.Context(), before, c.script.ask(time.Now()), c.opt)
				if !slices.Equal(phases, c.phases) || r.Took > c.took || r.Took < c.took*4/5 {
					t.Errorf("%v in %v, want %v in %v: %+v", phases, r.Took, c.phases, c.took, r)
				}
				if back := r.Phase >= Kernel; back != (r.After == after) || back != (r.Back > 0) || r.Interrupted {
					t.Errorf("%+v", r)
				}
			})
		})
	}
}

func TestInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		r := Watch(ctx, before, machine{{0, nil}}.ask(time.Now()), Options{Limit: time.Minute})
		if !r.Interrupted || r.Phase != Gone || r.Took > 11*time.Second {
			t.Errorf("%+v", r)
		}
	})
}

// A network of this side that is down is asked no more often than a machine that
// answers.
func TestNothingCanBeSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		ask := func(context.Context, time.Duration) *auth.Reply {
			if asked++; asked > 100 {
				cancel()
			}
			return nil
		}
		if r := Watch(ctx, before, ask, Options{Limit: time.Hour}); r.Phase != Gone || asked > 61 {
			t.Errorf("asked %d times: %+v", asked, r)
		}
	})
}
