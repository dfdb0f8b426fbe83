// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/exchange"
	"netsysrq/internal/fleet/drills"
	"netsysrq/internal/fleet/hosts"
	"netsysrq/internal/fleet/table"
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
	host           *hosts.Host
	daemon, kernel way
}

// drillHosts is drill. With --overdue it only reads the record.
func drillHosts(ctx context.Context, w world, o *options) (int, error) {
	if o.overdue > 0 && len(o.hosts) == 0 {
		o.hosts = []string{"@" + hosts.All}
	}
	s, err := chosen(w, o)
	if err != nil {
		return 0, err
	}
	if o.overdue > 0 {
		return overdue(ctx, s)
	}
	if err := s.open(ctx); err != nil {
		return s.failed(err), nil
	}
	defer s.close()
	var lock sync.Mutex
	var proved []drills.Drill
	code := s.run(ctx, func(ctx context.Context, h *hosts.Host, p *progress) answer {
		a := s.drill(ctx, h, p)
		if d, ok := a.(*drilled); ok {
			if code, _, _ := d.verdict(); code == exitOK {
				lock.Lock()
				proved = append(proved, drills.Drill{Host: h.Name, Key: d.daemon.result.key})
				lock.Unlock()
			}
		}
		return a
	})
	if path := drillsPath(w); path != "" && len(proved) > 0 {
		if err := drills.Record(path, proved, time.Now()); err != nil {
			w.note("%v", err) // the drill was good all the same
		}
	}
	return code, nil
}

// drill rehearses both ways, one after the other. Nothing acts.
func (s *session) drill(ctx context.Context, h *hosts.Host, p *progress) answer {
	first := s.ask(ctx, h, auth.Rehearse, p)
	if first.outcome == nil {
		return first
	}
	d := &drilled{options: s.o, host: h, daemon: daemonWay(first), kernel: way{name: "kernel", line: "not tried"}}
	// Whatever else went wrong would only go wrong again. A veto is the
	// daemon's, which has no say in a drill.
	if k := first.outcome.Kind; k == exchange.Accepted || k == exchange.Refused && first.outcome.Reply.Result == auth.Vetoed {
		d.kernel = kernelWay(s.ask(ctx, h, auth.Drill, p))
	}
	return d
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
		v.unproved("the daemon answered, because there is no kernel module: nothing answers when its processes hang",
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
	hints = slices.Clone(d.daemon.hints)
	for _, h := range d.kernel.hints {
		if !slices.Contains(hints, h) {
			hints = append(hints, h)
		}
	}
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

// words are the verdict, after the host's name.
func (d *drilled) words() (code int, line string, hints []string) {
	code, line, hints = d.verdict()
	return code, d.host.Name + ": " + line, hints
}

// lines are a line for each way, and the verdict.
func (d *drilled) lines() (out []string) {
	for _, v := range []way{d.daemon, d.kernel} {
		out = append(out, fmt.Sprintf("%s: %s: %s", d.host.Name, v.name, v.line))
	}
	_, line, _ := d.words()
	return append(out, line)
}

func (d *drilled) failure() error { return nil }

// state is the short form of the verdict.
func (d *drilled) state() string {
	switch {
	case d.daemon.proved && d.kernel.proved && d.daemon.result.outcome.DryRun:
		return "dry run"
	case d.daemon.proved && d.kernel.proved:
		return "proved"
	case d.daemon.proved:
		return "daemon only"
	case d.kernel.proved:
		return "kernel only"
	case d.daemon.exit == exitUnproved:
		return "not proved"
	}
	return d.daemon.result.state()
}

func (d *drilled) row() table.Row {
	r := d.daemon.result.row()
	r.State, r.Note, r.Rank = d.state(), "", table.Fine
	switch {
	case d.daemon.exit != exitOK:
		r.Note, r.Rank = "daemon: "+d.daemon.line, table.Bad
	case d.kernel.exit != exitOK:
		r.Note, r.Rank = "kernel: "+d.kernel.line, table.Bad
	}
	return r
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
