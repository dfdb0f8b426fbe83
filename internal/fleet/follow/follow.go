// SPDX-License-Identifier: GPL-2.0-only

// Package follow watches a machine on its way through a reboot. Only a sealed
// reply with another boot id than before shows that it is back: silence shows
// nothing, and neither does an answer with the boot id that it had.
package follow

import (
	"context"
	"time"

	"netsysrq/auth"
)

const (
	// patience is how long a machine is silent before it counts as gone; it is
	// asked several times in that.
	patience = 2 * time.Second
	// pause is left between two answers.
	pause = time.Second
	// DaemonGrace is how long the daemon of a machine that is back is waited
	// for.
	DaemonGrace = time.Minute
)

// Phase is what is known of the machine.
type Phase uint8

// Phases of a machine.
const (
	Running Phase = iota // it answers with the boot id that it had
	Gone                 // it is silent
	Kernel               // it is back, and its kernel answers without its daemon
	Back                 // it is back, and its daemon answers
)

// String returns the word used in JSON and progress lines.
func (p Phase) String() string { return [...]string{"running", "gone", "kernel", "back"}[p] }

// Event is a change of phase.
type Event struct {
	Phase Phase
	At    time.Duration // since the watch began
	Reply *auth.Reply   // that showed it; nil of Gone
}

// Options say how long to watch.
type Options struct {
	Limit time.Duration // for a new boot id; the daemon may take DaemonGrace more
	// Leave is how long it may go on with the boot id that it had before it is
	// given up. 0: Limit.
	Leave time.Duration
	// AnyAnswer ends the watch with the first answer of a new boot id: the
	// daemon is not waited for.
	AnyAnswer bool
	// Changed, if not nil, is told of every change.
	Changed func(Event)
}

// Result is how the watch ended.
type Result struct {
	Phase         Phase
	Before, After auth.BootID
	// When each phase was first seen, since the watch began; 0: never.
	Gone, Back, Daemon time.Duration
	Took               time.Duration
	Reply              *auth.Reply // the newest; nil: none came
	// Interrupted reports that ctx ended the watch.
	Interrupted bool
}

// Ask asks the machine how it is, for so long at most. A nil reply is silence,
// for whatever reason.
type Ask func(ctx context.Context, timeout time.Duration) *auth.Reply

// Watch asks the machine until it is back, with its daemon unless any answer will
// do, or the time is over. before is the boot id that it had, and must be known: there is no other
// proof.
func Watch(ctx context.Context, before auth.BootID, ask Ask, opt Options) Result {
	w := &watch{begun: time.Now(), opt: opt, result: Result{Before: before, Phase: Running}}
	if opt.Leave == 0 {
		w.opt.Leave = opt.Limit
	}
	for ctx.Err() == nil {
		left := w.left()
		if left <= 0 {
			break
		}
		asked := time.Since(w.begun)
		reply := ask(ctx, min(patience, max(left, 100*time.Millisecond)))
		if ctx.Err() != nil && reply == nil {
			break
		}
		if w.take(asked, reply); w.back() {
			break
		}
		// Silence takes its time, but where nothing can be sent it is said at
		// once.
		if reply != nil || time.Since(w.begun)-asked < pause {
			w.sleep(ctx, min(pause, max(w.left(), 0)))
		}
	}
	w.result.Interrupted = ctx.Err() != nil && !w.back()
	w.result.Took = time.Since(w.begun)
	return w.result
}

type watch struct {
	begun  time.Time
	opt    Options
	result Result
}

// back reports whether nothing more is waited for.
func (w *watch) back() bool {
	return w.result.Phase == Back || w.opt.AnyAnswer && w.result.Back > 0
}

// left is how much longer the machine is worth asking.
func (w *watch) left() time.Duration {
	switch w.result.Phase {
	case Kernel:
		return w.result.Back + DaemonGrace - time.Since(w.begun)
	case Running:
		return min(w.opt.Leave, w.opt.Limit) - time.Since(w.begun)
	}
	return w.opt.Limit - time.Since(w.begun)
}

// take takes an answer, or its absence, to what was asked at a time.
func (w *watch) take(asked time.Duration, reply *auth.Reply) {
	r, now := &w.result, time.Since(w.begun)
	if reply == nil {
		// It may fall silent again before its daemon is there; that it came
		// back stays true.
		if r.Phase == Running {
			r.Gone = max(asked, 1)
			w.enter(Gone, r.Gone, nil)
		}
		return
	}
	r.Reply, r.After = reply, reply.Boot
	switch {
	case reply.Boot == r.Before && r.Back == 0:
		w.enter(Running, now, reply) // also after silence: packets were lost
		return
	case r.Back == 0:
		r.Back = now
	}
	if reply.Executor != auth.Daemon {
		w.enter(Kernel, now, reply)
		return
	}
	r.Daemon = now
	w.enter(Back, now, reply)
}

func (w *watch) enter(p Phase, at time.Duration, reply *auth.Reply) {
	if w.result.Phase == p {
		return
	}
	w.result.Phase = p
	if w.opt.Changed != nil {
		w.opt.Changed(Event{p, at, reply})
	}
}

func (w *watch) sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
