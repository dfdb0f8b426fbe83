// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"netsysrq/auth"
	"netsysrq/internal/exchange"
)

// dumpKeys are the SysRq keys that only print.
const dumpKeys = "dlmpqtwz"

// checkDumps wants only such steps.
func checkDumps(steps []auth.Step) error {
	for _, s := range steps {
		if strings.IndexByte(dumpKeys, s.Key) < 0 {
			return usageError(fmt.Errorf("run is for SysRq keys that print something and change nothing: not %c", s.Key),
				"these are d l m p q t w z; netsysrq send runs the others")
		}
	}
	return nil
}

// dump is netsysrq run: SysRq keys, and what the kernel prints about them.
func dump(ctx context.Context, w world, o *options) (int, error) {
	s, r, host, opt, err := reach(ctx, w, o)
	if err != nil {
		return 0, err
	}
	defer s.close()
	if r.err != nil {
		return s.show(r), nil
	}
	p := &logPrinter{w: w.stdout, json: o.json, quiet: o.quiet}
	d, err := exchange.RunLog(ctx, host, o.steps, opt, p.add)
	code, line, hints := r.dumpWords(d, err, p.count)
	switch {
	case o.json:
		fmt.Fprintln(w.stdout, p.report(r, code, line, hints))
	case r.outcome == nil:
		return w.fail(r.err), nil
	case code != exitOK || !o.quiet:
		w.note("%s", line)
		for _, h := range hints {
			fmt.Fprintf(w.stderr, "hint: %s\n", h)
		}
	}
	return code, nil
}

// dumpWords say what became of the run and of what was to be read about it.
func (r *result) dumpWords(d *exchange.Dump, err error, lines int) (code int, line string, hints []string) {
	ran := d.Run != nil && d.Run.Kind == exchange.Accepted && d.Run.Reply.Flags&auth.DryRun == 0
	switch {
	case d.Run == nil: // the log cannot be read
		if r.outcome, r.err = d.Log, err; errors.Is(err, exchange.ErrNotSent) {
			r.outcome = nil
		}
		code, line, hints = r.logWords(0)
		if r.outcome != nil {
			line += "; nothing was run"
		}
		return code, line, hints
	case !ran:
		if r.outcome, r.err = d.Run, err; errors.Is(err, exchange.ErrNotSent) {
			r.outcome = nil
		}
		return r.words()
	case err != nil:
		r.outcome, r.err = d.Log, err
		code, line, hints = r.logWords(lines)
		r.outcome = d.Run
		return code, line + "; " + listSteps(r.options.steps) + " was accepted", hints
	}
	r.outcome = d.Run
	code, line, hints = r.words()
	switch {
	case !d.Begun:
		return exitUnknown, line + ", but the kernel has written nothing about it",
			[]string{"a kernel that prints to a slow console may be late: netsysrq log " + r.hostName() + " --follow shows what comes"}
	case !d.Ended:
		return code, line + "; the kernel is still writing", []string{"netsysrq log " + r.hostName() + " --follow shows the rest"}
	}
	return code, line, hints
}
