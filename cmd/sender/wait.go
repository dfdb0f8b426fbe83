// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"fmt"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/exchange"
	"netsysrq/internal/fleet/follow"
)

// followable reports whether there is something to wait for: the machine will
// restart, or may, and the boot id that it had is known.
func (r *result) followable() bool {
	o := r.outcome
	if o == nil || r.err != nil {
		return false
	}
	switch o.Kind {
	case exchange.Accepted:
		return o.Reply.Flags&(auth.Rehearsed|auth.DryRun) == 0
	case exchange.Rebooted:
		return true
	case exchange.Unknown:
		return o.RunSent && !o.Forgotten && !o.Postdated && o.Before != (auth.BootID{})
	}
	return false
}

// watch follows the machine until it is back.
func (s *session) watch(ctx context.Context, r *result, to exchange.Host, p *progress) {
	opt := follow.Options{Limit: s.o.wait}
	before := r.outcome.Before
	if r.outcome.Kind == exchange.Accepted {
		before = r.outcome.Reply.Boot
	} else {
		// Nobody said that it would restart. The steps and their pauses may
		// still be under way, and so may another sequence before them.
		opt.Leave = 15 * time.Second
		for _, step := range s.o.steps {
			opt.Leave += step.Wait()
		}
	}
	p.say(r.outcome.Kind.String())
	opt.Changed = func(e follow.Event) { p.say(phaseWords(e.Phase)) }
	ask := func(ctx context.Context, timeout time.Duration) *auth.Reply {
		o, err := exchange.Status(ctx, to, s.options(timeout))
		if err != nil || o == nil {
			return nil // the network of this side may come back
		}
		return o.Reply
	}
	r.follow = new(follow.Watch(ctx, before, ask, opt))
}

// followedWords say how the machine came through it.
func (r *result) followedWords() (code int, line string, hints []string) {
	f := r.follow
	heard := r.outcome.Kind == exchange.Accepted
	tail := "; that it accepted was not heard"
	if heard {
		tail = "; " + r.acceptedWords()
	}
	switch {
	case f.Phase == follow.Back:
		code = exitOK
		if !heard {
			code = exitRebooted
		}
		return code, fmt.Sprintf("came back by its daemon after %s%s%s", duration(f.Daemon), r.passage(), tail), nil
	case f.Phase == follow.Kernel:
		return exitNoDaemon, fmt.Sprintf("came back after %s, the daemon not yet: the kernel answers, %s%s%s",
				duration(f.Back), silentWords(f.Reply), r.passage(), tail),
			[]string{"its processes may hang again, or netsysrqd does not start: see its console; " + r.again("status") + " tells when it answers"}
	case f.Interrupted:
		return exitUnknown, fmt.Sprintf("interrupted after %s: not back yet, %s%s", duration(f.Took), r.goneWords(), tail), nil
	case f.Phase == follow.Running && heard:
		return exitNotBack, fmt.Sprintf("did not come back in %s: it never went down, and answers with the boot that it had (%x)%s",
				duration(f.Took), f.Before[:4], tail),
			[]string{"a sequence before it may not be done, or its disks do not sync; " + r.again("cancel") + " and other steps may do better"}
	case f.Phase == follow.Running:
		return exitUnknown, fmt.Sprintf("unknown: it did not go down in %s, and answers with the boot that it had (%x)%s",
			duration(f.Took), f.Before[:4], tail), nil
	}
	return exitNotBack, fmt.Sprintf("did not come back in %s: %s%s", duration(f.Took), r.goneWords(), tail),
		[]string{"it may take longer, or not boot at all: see its console; " + r.again("status") + " asks again"}
}

func (r *result) goneWords() string {
	if r.follow.Gone == 0 {
		return "it still answers as before"
	}
	if r.follow.Gone < time.Millisecond {
		return "silent from the start"
	}
	return "silent from " + duration(r.follow.Gone) + " on"
}

// passage is how a machine that is back went.
func (r *result) passage() string {
	f := r.follow
	gone := ""
	if f.Gone >= time.Millisecond {
		gone = fmt.Sprintf("silent after %s, ", duration(f.Gone))
	}
	if f.Phase == follow.Back && f.Daemon > f.Back {
		gone += fmt.Sprintf("its kernel answered after %s, ", duration(f.Back))
	}
	return fmt.Sprintf(" (%sboot %x before, %x now)", gone, f.Before[:4], f.After[:4])
}

// followState is the short form of it.
func (r *result) followState() string {
	switch f := r.follow; {
	case f.Phase == follow.Back:
		return "back"
	case f.Phase == follow.Kernel:
		return "back, no daemon"
	case f.Interrupted:
		return "interrupted"
	case f.Phase == follow.Running:
		return "never went"
	}
	return "not back"
}

// waitReport is the JSON form of what --wait saw. Times begin with the watch.
type waitReport struct {
	Phase       string   `json:"phase"` // running, gone, kernel, back: the last that was seen
	Interrupted bool     `json:"interrupted,omitempty"`
	GoneS       *float64 `json:"gone_s,omitempty"`
	BackS       *float64 `json:"back_s,omitempty"`   // a new boot id
	DaemonS     *float64 `json:"daemon_s,omitempty"` // its daemon answered
	TookS       float64  `json:"took_s"`
	BootBefore  string   `json:"boot_before"`
	BootAfter   string   `json:"boot_after,omitempty"`
}

func newWaitReport(f *follow.Result) *waitReport {
	j := &waitReport{Phase: f.Phase.String(), Interrupted: f.Interrupted, TookS: f.Took.Seconds(), BootBefore: idHex(f.Before[:])}
	for _, t := range []struct {
		at   time.Duration
		into **float64
	}{{f.Gone, &j.GoneS}, {f.Back, &j.BackS}, {f.Daemon, &j.DaemonS}} {
		if t.at > 0 {
			*t.into = new(t.at.Seconds())
		}
	}
	if f.Back > 0 {
		j.BootAfter = idHex(f.After[:])
	}
	return j
}
