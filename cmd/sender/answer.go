// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"errors"
	"fmt"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/exchange"
	"netsysrq/internal/fleet/table"
)

// answer is what became of one host, in each form in which it is told.
type answer interface {
	// words is the outcome in one line that begins with the host's name,
	// unless that was named alone and there is a failure.
	words() (code int, line string, hints []string)
	lines() []string // for one host alone
	json(code int, line string, hints []string) string
	failure() error // of this side: nothing was asked
	state() string  // in a word or two, for the table and the summary
	row() table.Row
}

// show tells of one host alone and returns its exit code.
func (s *session) show(a answer) int {
	code, line, hints := a.words()
	switch err := a.failure(); {
	case s.o.quiet && code == exitOK:
	case s.o.json:
		fmt.Fprintln(s.w.stdout, a.json(code, line, hints))
	case err != nil:
		return s.w.fail(err)
	default:
		for _, l := range a.lines() {
			fmt.Fprintln(s.w.stdout, l)
		}
		s.w.hints(hints)
	}
	return code
}

// errNotAsked is the error of a host that was not reached before the end.
var errNotAsked = errors.New("not asked")

func (r *result) lines() []string {
	_, line, _ := r.words()
	return []string{line}
}

func (r *result) failure() error {
	if r.outcome != nil {
		return nil
	}
	return r.err
}

func (r *result) state() string {
	o := r.outcome
	switch {
	case errors.Is(r.err, errNotAsked):
		return "not asked"
	case o == nil:
		return "error"
	case r.follow != nil:
		return r.followState()
	}
	switch o.Kind {
	case exchange.Answered:
		if o.Reply.Executor == auth.Kernel {
			return "daemon silent"
		}
		return "up"
	case exchange.Accepted:
		switch {
		case o.Reply.Flags&auth.Rehearsed != 0:
			return "rehearsed"
		case o.Reply.Flags&auth.DryRun != 0:
			return "dry run"
		case r.options.command.name == "cancel":
			return "cancelled"
		}
	case exchange.Refused:
		switch o.Reply.Result {
		case auth.RefPolicy:
			return "refused"
		case auth.RefSysrq:
			return "masked"
		}
		return o.Reply.Result.String()
	case exchange.Unknown:
		switch {
		case o.Reply == nil && !o.RunSent:
			return "no answer"
		case !o.RunSent:
			return "not sent"
		}
	}
	return o.Kind.String()
}

func (r *result) row() table.Row {
	row := table.Row{Name: r.host.Name, State: r.state()}
	code, line, _ := r.plainWords()
	if code != exitOK {
		row.Note, row.Rank = line, table.Bad
	}
	o := r.outcome
	if o == nil || o.Reply == nil {
		return row
	}
	p := o.Reply
	if r.follow != nil && r.follow.Reply != nil {
		p = r.follow.Reply
	}
	row.By = p.Executor.String()
	row.Load = fmt.Sprintf("%.2f", float64(p.Load)/100)
	row.Free = memory(p.Free)
	row.Up = duration(time.Duration(p.Uptime) * time.Second)
	if o.RoundTrip > 0 {
		row.Trip = duration(o.RoundTrip)
	}
	if o.Kind == exchange.Answered {
		row.Note = r.remarks(&row.Rank)
	}
	return row
}

// remarks are what is out of the ordinary about a host that answered.
func (r *result) remarks(rank *int) string {
	o, p := r.outcome, r.outcome.Reply
	note := ""
	add := func(bad bool, text string) {
		if bad {
			*rank = table.Bad
		}
		if note != "" {
			note += "; "
		}
		note += text
	}
	if p.Executor == auth.Kernel {
		add(true, silentWords(p))
	}
	if r.clockDiffers() {
		add(true, clockWords(o))
	}
	if p.Flags&auth.ClockTrusted == 0 {
		add(false, untrusted)
	}
	if p.Flags&auth.DryRun != 0 {
		add(true, "dry run")
	}
	if p.Flags&auth.Armed == 0 {
		add(false, "daemon only")
	}
	if !r.drilled.IsZero() {
		add(false, "drill "+ago(r.drilled))
	}
	return note
}

// clockDiffers reports whether the host's clock is so far from ours that the
// one-packet form would not be taken.
func (r *result) clockDiffers() bool {
	return r.outcome != nil && r.outcome.HaveDifference && r.outcome.Difference.Abs() > auth.Window
}
