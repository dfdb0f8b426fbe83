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
				"netsysrq run HOST... KEYS, of d l m p q t w z; netsysrq send runs the others")
		}
	}
	return nil
}

// dump is netsysrq run: SysRq keys, and what the kernels print about them.
func dump(ctx context.Context, w world, o *options) (int, error) {
	s, err := chosen(w, o)
	if err != nil {
		return 0, err
	}
	return s.printLogs(ctx, s.readDump)
}

// readDump is the reading of run.
func (s *session) readDump(ctx context.Context, to exchange.Host, a *logged, p *logPrinter) {
	d, err := exchange.RunLog(ctx, to, s.o.steps, s.options(s.o.timeout), p.add)
	a.dump, a.read, a.readErr = d, d.Log, err
	switch {
	case d.Run == nil: // the log cannot be read
		if a.outcome = d.Log; d.Log == nil || errors.Is(err, exchange.ErrNotSent) {
			a.err = err
		}
	case a.ran():
		a.outcome = d.Run
	default:
		a.outcome, a.err = d.Run, err
	}
}

// ran reports whether the steps are run.
func (a *logged) ran() bool {
	run := a.dump.Run
	return run != nil && run.Kind == exchange.Accepted && run.Reply.Flags&auth.DryRun == 0
}

// dumpWords say what became of the run and of what was to be read about it.
func (a *logged) dumpWords() (code int, line string, hints []string) {
	switch {
	case a.dump.Run == nil:
		code, line, hints = a.readWords()
		return code, line + "; nothing was run", hints
	case !a.ran():
		return a.plainWords()
	case a.readErr != nil:
		code, line, hints = a.readWords()
		return code, line + "; " + listSteps(a.options.steps) + " was accepted", hints
	}
	code, line, hints = a.plainWords()
	switch {
	case !a.dump.Begun:
		return exitUnknown, line + ", but the kernel has written nothing about it",
			[]string{"a kernel that prints to a slow console may be late: " + a.again("log") + " --follow shows what comes"}
	case !a.dump.Ended:
		return code, line + "; the kernel is still writing", []string{a.again("log") + " --follow shows the rest"}
	}
	return code, line, hints
}
