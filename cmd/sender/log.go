// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/exchange"
	"netsysrq/internal/fleet"
	"netsysrq/internal/fleet/hosts"
)

const (
	// logParallel is how many hosts are read at once, unless --parallel says
	// otherwise: each has sockets of its own, and up to maxBlock that waits to
	// be printed.
	logParallel = 64
	// maxFollowed is how many hosts can be followed, which are all read at once.
	maxFollowed = 1000
)

// kernelLog is netsysrq log: the end of the kernel log of hosts, or all of it.
func kernelLog(ctx context.Context, w world, o *options) (int, error) {
	s, err := chosen(w, o)
	if err != nil {
		return 0, err
	}
	if o.follow {
		if len(s.hosts) > maxFollowed {
			return 0, usageError(fmt.Errorf("--follow is for %d hosts at most, not %d: it reads all of them at once", maxFollowed, len(s.hosts)), "")
		}
		o.parallel = len(s.hosts)
	}
	return s.printLogs(ctx, s.readLog)
}

// logged is what was read of one host's kernel log, and how that ended.
type logged struct {
	*result // of the run, or of the reading where there is none
	read    *exchange.Outcome
	readErr error          // why reading ended early
	dump    *exchange.Dump // of run; nil: of log
	printed int            // lines

	// For JSON, since the last object.
	records []lineReport
	missing []missingReport
}

// reading reads a log, gives it to the printer and says how that went.
type reading func(ctx context.Context, to exchange.Host, a *logged, p *logPrinter)

// printLogs has every host read and printed, and returns the exit code.
func (s *session) printLogs(ctx context.Context, read reading) (int, error) {
	if err := s.open(ctx); err != nil {
		return s.failed(err), nil
	}
	defer s.close()
	out := &logOutput{s: s}
	if !s.many {
		code, _, _ := s.printLog(ctx, s.hosts[0], read, out).words()
		return code, nil
	}
	begun := time.Now()
	answers := make([]answer, len(s.hosts))
	asked := fleet.Each(ctx, len(s.hosts), min(s.o.parallel, len(s.hosts)), exchange.StartEvery, func(i int) bool {
		answers[i] = s.printLog(ctx, s.hosts[i], read, out)
		return true
	})
	for i := asked; i < len(s.hosts); i++ {
		a := &logged{result: s.notAsked(i)}
		answers[i] = a
		if s.o.json { // for people the summary names them
			out.end(&logPrinter{out: out, a: a})
		}
	}
	sum := s.summarize(answers, time.Since(begun))
	switch {
	case s.o.json:
		fmt.Fprintln(s.w.stdout, sum.json())
	case !s.o.quiet || sum.Exit != exitOK:
		s.w.note("%s", sum.line())
	}
	s.hints(answers)
	return sum.Exit, nil
}

// printLog has one host read and printed.
func (s *session) printLog(ctx context.Context, h *hosts.Host, read reading, out *logOutput) *logged {
	a := &logged{result: &result{options: s.o, host: h, many: s.many}}
	p := &logPrinter{out: out, a: a}
	if to, ok := s.target(ctx, a.result); ok {
		read(ctx, to, a, p)
	}
	if errors.Is(a.err, exchange.ErrNotSent) {
		a.outcome = nil
	}
	out.end(p)
	return a
}

// readLog is the reading of log.
func (s *session) readLog(ctx context.Context, to exchange.Host, a *logged, p *logPrinter) {
	l, err := exchange.NewLog(ctx, to, s.options(s.o.timeout))
	if err != nil {
		a.err = err
		return
	}
	defer l.Close()
	next, err := l.Tail(ctx, s.o.tailBytes, p.add)
	followed := err == nil && s.o.follow
	if followed {
		p.flush()
		_, err = l.Follow(ctx, next, func(r exchange.Records) {
			p.add(r)
			p.flush()
		}, func(silent bool) {
			if silent {
				s.w.note("%s: no answer any more; asking on", to.Name)
			} else {
				s.w.note("%s: answers again", to.Name)
			}
		})
	}
	out := l.Outcome()
	if followed && ctx.Err() != nil { // as it is meant to end
		out.Kind, err = exchange.Answered, nil
	}
	a.outcome, a.read, a.readErr = out, out, err
	if errors.Is(err, exchange.ErrNotSent) {
		a.err = err
	}
}

// words say in one line how reading ended, and of run what became of it.
func (a *logged) words() (code int, line string, hints []string) {
	switch {
	case a.outcome == nil:
		return a.result.words()
	case a.dump == nil:
		code, line, hints = a.readWords()
	default:
		code, line, hints = a.dumpWords()
	}
	return code, a.host.Name + ": " + line, hints
}

// readWords say how reading ended.
func (a *logged) readWords() (code int, line string, hints []string) {
	o := a.read
	after := ""
	if a.printed > 0 {
		after = fmt.Sprintf(" after %d lines", a.printed)
	}
	switch {
	case a.readErr == nil:
		return exitOK, fmt.Sprintf("%d lines", a.printed), nil
	case !errors.Is(a.readErr, exchange.ErrLog):
		if after == "" {
			after = fmt.Sprintf(" after %s", duration(o.Elapsed))
		}
		return exitUnknown, "interrupted" + after, nil
	case o.Kind == exchange.Refused && o.Reply.Result == auth.Malformed:
		return exitRefused, "it does not know this request", []string{"its netsysrq is older and has no log to give"}
	case o.Kind == exchange.Refused:
		return exitRefused, "refused by policy: your key may not read its kernel log",
			[]string{a.allowHint("L")}
	case o.Kind == exchange.Rebooted:
		return exitRebooted, fmt.Sprintf("it has rebooted%s: boot %x before, %x now", after, o.Before[:4], o.After[:4]),
			[]string{a.again("log") + " reads the log of this boot"}
	case o.Replies == 0:
		return exitUnknown, "no answer within " + duration(a.options.timeout), a.silenceHints(o)
	case after == "":
		return exitUnknown, "it answers, but nothing of its log arrives",
			[]string{"pieces of the log are longer than other answers, up to 1248 bytes with their headers: does the path let them through?"}
	}
	return exitUnknown, "no answer any more" + after, nil
}

func (a *logged) state() string {
	switch o := a.read; {
	case a.outcome == nil, a.dump != nil && a.dump.Run != nil && !a.ran():
		return a.result.state()
	case a.readErr == nil && a.dump == nil:
		return "read"
	case a.readErr == nil && !a.dump.Begun:
		return "no output"
	case a.readErr == nil:
		return "printed"
	case !errors.Is(a.readErr, exchange.ErrLog):
		return "interrupted"
	case o.Kind != exchange.Unknown:
		return o.Kind.String()
	case o.Replies == 0:
		return "no answer"
	}
	return "cut short"
}

// logReport is the JSON form of a log, or of a part of it, in the same version
// as report.
type logReport struct {
	reportHead
	Lines   []lineReport    `json:"lines"`
	Missing []missingReport `json:"missing"` // overwritten before they could be read
	// More reports that another object of this host follows, which has what
	// comes next, and at last how it ended.
	More bool `json:"more,omitempty"`
	*exchangeReport
}

// json is what was read since the last part, and how reading ended.
func (a *logged) json(code int, line string, hints []string) string {
	x := &exchangeReport{}
	if a.outcome != nil {
		x = new(newExchangeReport(a.outcome, a.options.steps))
	}
	return a.object(logReport{reportHead: a.head(code, line, hints), exchangeReport: x})
}

// part is what was read since the last part.
func (a *logged) part() string {
	j := logReport{reportHead: a.head(exitOK, "", nil), More: true}
	j.Outcome = exchange.Answered.String()
	return a.object(j)
}

func (a *logged) object(j logReport) string {
	// Not null, so that programs need not ask.
	j.Lines, j.Missing = append([]lineReport{}, a.records...), append([]missingReport{}, a.missing...)
	a.records, a.missing = nil, nil
	b, err := json.Marshal(j)
	if err != nil {
		panic(err) // no field can fail
	}
	return string(b)
}

// parseSize reads a number of bytes such as 64K or 1M.
func parseSize(s string) (int, error) {
	digits, unit := strings.TrimRight(s, "kKmM"), 1
	switch strings.ToUpper(s[len(digits):]) {
	case "":
	case "K":
		unit = 1 << 10
	case "M":
		unit = 1 << 20
	default:
		return 0, fmt.Errorf("--tail %s: write a number of bytes, such as 64K or 1M", s)
	}
	n, err := strconv.Atoi(digits)
	if err != nil || n < 1 || n > 64<<20/unit {
		return 0, fmt.Errorf("--tail %s: write a number of bytes up to 64M, such as 64K or 1M", s)
	}
	return n * unit, nil
}
