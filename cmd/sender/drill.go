// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"encoding/json"
	"fmt"

	"netsysrq/auth"
	"netsysrq/internal/exchange"
)

// way is one of the two ways to an answer: the daemon's word, or the kernel's
// alone.
type way struct {
	name   string
	result *result // nil: not tried
	proved bool
	exit   int
	line   string
	hints  []string
}

// drilled is what both ways came to.
type drilled struct {
	options        *options
	daemon, kernel way
}

// drill rehearses both ways, one after the other. Nothing acts.
func drill(ctx context.Context, w world, o *options) (int, error) {
	op, err := loadOperator(ctx, w, o, false)
	if err != nil {
		return (&result{options: o, err: err}).show(w), nil
	}
	first := ask(ctx, w, o, op, auth.Rehearse)
	if first.outcome == nil {
		return first.show(w), nil
	}
	d := &drilled{options: o, daemon: daemonWay(first), kernel: way{name: "kernel", line: "not tried"}}
	// Whatever else went wrong would only go wrong again. A veto is the
	// daemon's, which has no say in a drill.
	if k := first.outcome.Kind; k == exchange.Accepted || k == exchange.Refused && first.outcome.Reply.Result == auth.Vetoed {
		d.kernel = kernelWay(ask(ctx, w, o, op, auth.Drill))
	}
	return d.show(w), nil
}

// daemonWay judges a rehearsal, which a daemon that is well takes.
func daemonWay(r *result) way {
	v := way{name: "daemon", result: r}
	if v.failed() {
		return v
	}
	o, p := r.outcome, r.outcome.Reply
	took := duration(o.RunTook)
	if p.Executor != auth.Daemon {
		v.unproved(fmt.Sprintf("the kernel answered after %s: %s", took, lateWords(p)), "netsysrqd's log on the host, and netsysrqd check, tell more")
		return v
	}
	v.proved = true
	v.line = fmt.Sprintf("rehearsed %s in %s (taken by the daemon)", listSteps(r.options.steps), took)
	return v
}

// kernelWay judges a drill, which no daemon takes.
func kernelWay(r *result) way {
	v := way{name: "kernel", result: r}
	if v.failed() {
		return v
	}
	o, p := r.outcome, r.outcome.Reply
	switch {
	case p.Flags&auth.Armed == 0:
		v.unproved("the daemon answered, for want of the kernel module: nothing answers when its processes hang",
			"netsysrqd check on the host tells what the kernel module needs")
	case p.Executor != auth.Kernel:
		v.unproved("the daemon took it, which it must not do with a drill", "its netsysrqd may be another version than the module")
	default:
		v.proved = true
		v.line = fmt.Sprintf("rehearsed %s in %s (deadline, no daemon needed)", listSteps(r.options.steps), duration(o.RunTook))
	}
	return v
}

// failed reports that the way ended without an accepted rehearsal, and tells.
func (v *way) failed() bool {
	o := v.result.outcome
	switch {
	case o == nil:
		// The network went away after the other way was tried.
		f := asFailure(v.result.err)
		v.unproved(f.Error(), f.hint)
	case o.Kind != exchange.Accepted:
		v.exit, v.line, v.hints = v.result.plainWords()
	case o.Reply.Flags&auth.Rehearsed == 0:
		v.unproved("the host did not call it a rehearsal", "its netsysrq may be another version")
	default:
		return false
	}
	return true
}

// unproved is an answer that shows something else than it was to show.
func (v *way) unproved(why, hint string) {
	v.exit, v.line, v.hints = exitUnproved, "not proved: "+why, nil
	if hint != "" {
		v.hints = []string{hint}
	}
}

// verdict says in one line what the two ways prove, and gives the exit code.
func (d *drilled) verdict() (code int, line string, hints []string) {
	code = d.daemon.exit
	if d.kernel.exit != exitOK && (code == exitOK || code == exitUnproved) {
		code = d.kernel.exit
	}
	hints = append(append(hints, d.daemon.hints...), d.kernel.hints...)
	switch {
	case d.daemon.proved && d.kernel.proved:
		line = "both ways proved: the daemon answers, and the kernel does when the processes hang"
	case d.daemon.proved:
		line = "half proved: the daemon answers; the kernel alone did not"
	case d.kernel.proved:
		line = "half proved: the kernel answers; the daemon did not take it"
	default:
		line = "nothing proved"
	}
	if d.daemon.result.outcome.DryRun {
		line += "; dry run: it would do nothing (dry_run in its configuration)"
		if code == exitOK {
			code = exitRefused // as where the same host accepts a run
		}
	}
	return code, line, hints
}

// show tells what came of it and returns its exit code.
func (d *drilled) show(w world) int {
	code, line, hints := d.verdict()
	host := d.options.host + ": "
	switch {
	case d.options.quiet && code == exitOK:
	case d.options.json:
		fmt.Fprintln(w.stdout, d.json(code, host+line, hints))
	default:
		for _, v := range []way{d.daemon, d.kernel} {
			fmt.Fprintf(w.stdout, "%s%s: %s\n", host, v.name, v.line)
		}
		fmt.Fprintln(w.stdout, host+line)
		for _, h := range hints {
			fmt.Fprintf(w.stderr, "hint: %s\n", h)
		}
	}
	return code
}

// drillReport is the JSON form of a drill, in the same version as report.
type drillReport struct {
	reportHead
	Daemon *wayReport `json:"daemon"`
	Kernel *wayReport `json:"kernel"` // null: not tried
}

// wayReport is one way of a drill.
type wayReport struct {
	Proved  bool   `json:"proved"`
	Outcome string `json:"outcome"` // as in report
	Message string `json:"message"`
	exchangeReport
}

func (d *drilled) json(code int, line string, hints []string) string {
	j := drillReport{reportHead: d.daemon.result.head(code, line, hints), Daemon: d.daemon.report(), Kernel: d.kernel.report()}
	if j.Outcome = "unproved"; code == exitOK {
		j.Outcome = "proved"
	}
	b, err := json.Marshal(j)
	if err != nil {
		panic(err) // no field can fail
	}
	return string(b)
}

func (v *way) report() *wayReport {
	if v.result == nil {
		return nil
	}
	j := &wayReport{Proved: v.proved, Outcome: v.result.outcomeWord(), Message: v.line}
	if v.result.outcome != nil {
		j.exchangeReport = newExchangeReport(v.result.outcome, v.result.options.steps)
	}
	return j
}
