// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"netsysrq/auth"
	"netsysrq/internal/exchange"
)

// kernelLog is netsysrq log: the end of a host's kernel log, or all of it.
func kernelLog(ctx context.Context, w world, o *options) (int, error) {
	s, r, host, opt, err := reach(ctx, w, o)
	if err != nil {
		return 0, err
	}
	defer s.close()
	if r.err != nil {
		return s.show(r), nil
	}
	l, err := exchange.NewLog(ctx, host, opt)
	if err != nil {
		return 0, err
	}
	defer l.Close()
	p := &logPrinter{w: w.stdout, json: o.json, quiet: o.quiet}
	next, err := l.Tail(ctx, o.tailBytes, p.add)
	if err == nil && o.follow {
		if o.json {
			p.flush(r, l.Outcome())
		}
		_, err = l.Follow(ctx, next, func(rec exchange.Records) {
			p.add(rec)
			if o.json {
				p.flush(r, l.Outcome())
			}
		}, func(silent bool) {
			if silent {
				w.note("%s: no answer any more; asking on", host.Name)
			} else {
				w.note("%s: answers again", host.Name)
			}
		})
		if ctx.Err() != nil {
			err = nil // a log that is followed is ended by the operator
		}
	}
	r.outcome, r.err = l.Outcome(), err
	return p.end(w, r), nil
}

// reach finds out the key and the addresses of the one host that is meant.
func reach(ctx context.Context, w world, o *options) (s *session, r *result, host exchange.Host, opt exchange.Options, err error) {
	if s, err = chosen(w, o); err != nil {
		return nil, nil, host, opt, err
	}
	h := s.hosts[0]
	r = &result{options: o, host: h}
	if r.err = s.open(ctx); r.err != nil {
		return s, r, host, opt, nil
	}
	op, err := s.master(h)
	if err != nil {
		r.err = err
		return s, r, host, opt, nil
	}
	key, err := op.master.HostKey(h.Enrolled)
	if err != nil {
		return nil, nil, host, opt, err
	}
	r.key = key.ID
	r.addrs, r.err = resolve(ctx, o, h)
	opt = s.options(o.timeout)
	if o.verbose {
		w.note("%s: key %v of %s, to %v", h.Name, r.key, op.label, r.addrs)
		opt.Trace = func(e exchange.Event) {
			if p := e.Piece; p != nil {
				w.note("%8.3f s  %v sends piece %d: records %d to %d of %d", e.At.Seconds(), e.Addr, p.Index, p.First, p.Next, p.End)
				return
			}
			w.trace(e)
		}
	}
	return s, r, exchange.Host{Name: h.Name, Addrs: r.addrs, Sealer: auth.NewSealer(&key)}, opt, nil
}

// takeLog checks what the command line says of a log or of a dump.
func (o *options) takeLog() (err error) {
	if !o.single() {
		return usageError(fmt.Errorf("%s is for one host: what many print cannot be told apart", o.command.name), "name one host")
	}
	if o.command.name == "run" {
		return checkDumps(o.steps)
	}
	if !o.all {
		if o.tailBytes, err = parseSize(o.tail); err != nil {
			return usageError(err, "netsysrq help log")
		}
	}
	return nil
}

// logPrinter shows records, or keeps them for a JSON object.
type logPrinter struct {
	w     io.Writer
	json  bool
	quiet bool
	lines []lineReport
	lost  []lostReport
	count int // lines in all
}

// lineReport is one line of a kernel log in JSON.
type lineReport struct {
	Facility *int   `json:"facility"` // null: the line does not say
	Level    *int   `json:"level"`
	Stamp    string `json:"stamp,omitempty"` // seconds and microseconds of the kernel's own clock
	Text     string `json:"text"`
	Cut      bool   `json:"cut,omitempty"` // longer than a packet; this is its beginning
}

// lostReport is what was overwritten before it could be read.
type lostReport struct {
	First uint64 `json:"first"`
	Next  uint64 `json:"next"`
}

func (p *logPrinter) add(r exchange.Records) {
	if r.Lost {
		p.lost = append(p.lost, lostReport{r.First, r.Next})
		if !p.json {
			fmt.Fprintf(p.w, "[%d records are missing: overwritten before they could be read]\n", r.Next-r.First)
		}
		return
	}
	for line := range bytes.Lines(r.Text) {
		p.count++
		line = bytes.TrimSuffix(line, []byte("\n"))
		prio, rest := splitPrio(line)
		if !p.json {
			fmt.Fprintf(p.w, "%s\n", escape(rest))
			continue
		}
		j := lineReport{Text: string(rest), Cut: r.Cut}
		if prio >= 0 {
			j.Facility, j.Level = new(prio>>3), new(prio&7)
		}
		if stamp, text, ok := bytes.Cut(rest, []byte("] ")); ok && len(stamp) > 0 && stamp[0] == '[' {
			j.Stamp, j.Text = strings.TrimSpace(string(stamp[1:])), string(text)
		}
		p.lines = append(p.lines, j)
	}
	if r.Cut && !p.json {
		fmt.Fprintln(p.w, "[the record goes on, but is longer than a packet]")
	}
}

// splitPrio takes the <N> off a line; -1: there is none.
func splitPrio(line []byte) (prio int, rest []byte) {
	head, rest, ok := bytes.Cut(line, []byte(">"))
	if !ok || len(head) < 2 || len(head) > 5 || head[0] != '<' {
		return -1, line
	}
	n, err := strconv.ParseUint(string(head[1:]), 10, 16)
	if err != nil {
		return -1, line
	}
	return int(n), rest
}

// escape makes text harmless to a terminal: whoever had the kernel print it is
// not to move the operator's cursor.
func escape(text []byte) string {
	var b strings.Builder
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		switch {
		case r == utf8.RuneError && n == 1, r < ' ' && r != '\t', r >= 0x7f && r < 0xa0:
			for _, c := range text[:n] {
				fmt.Fprintf(&b, `\x%02x`, c)
			}
		case r != '\t' && !unicode.IsPrint(r):
			fmt.Fprintf(&b, `\u{%x}`, r)
		default:
			b.WriteRune(r)
		}
		text = text[n:]
	}
	return b.String()
}

// logReport is the JSON form of a log, or of the part of it that came since the
// last, in the same version as report.
type logReport struct {
	reportHead
	Lines   []lineReport `json:"lines"`
	Missing []lostReport `json:"missing"` // records that were overwritten before they could be read
	exchangeReport
}

// report is what was read since the last one.
func (p *logPrinter) report(r *result, code int, line string, hints []string) string {
	j := logReport{reportHead: r.head(code, line, hints), Lines: p.lines, Missing: p.lost}
	if r.outcome != nil {
		j.exchangeReport = newExchangeReport(r.outcome, r.options.steps)
	}
	p.lines, p.lost = nil, nil
	b, err := json.Marshal(j)
	if err != nil {
		panic(err) // no field can fail
	}
	return string(b)
}

// flush tells, while a log is followed, what has come.
func (p *logPrinter) flush(r *result, out *exchange.Outcome) {
	part := *r
	part.outcome = out
	fmt.Fprintln(p.w, p.report(&part, exitOK, "", nil))
}

// end tells how reading ended, and returns the exit code.
func (p *logPrinter) end(w world, r *result) int {
	if errors.Is(r.err, exchange.ErrNotSent) {
		r.outcome = nil
	}
	code, line, hints := r.logWords(p.count)
	switch {
	case r.options.json:
		fmt.Fprintln(w.stdout, p.report(r, code, line, hints))
	case r.outcome == nil:
		return w.fail(r.err)
	case code != exitOK:
		w.note("%s", line)
		for _, h := range hints {
			fmt.Fprintf(w.stderr, "hint: %s\n", h)
		}
	}
	return code
}

// logWords say how reading a log ended.
func (r *result) logWords(lines int) (code int, line string, hints []string) {
	o, host := r.outcome, r.hostName()
	after := ""
	if lines > 0 {
		after = fmt.Sprintf(" after %d lines", lines)
	}
	switch {
	case o == nil:
		f := asFailure(r.err)
		if f.hint != "" {
			hints = []string{f.hint}
		}
		return f.code, r.err.Error(), hints
	case r.err == nil:
		return exitOK, fmt.Sprintf("%s: %d lines", host, lines), nil
	case o.Kind == exchange.Refused && o.Reply.Result == auth.Malformed:
		return exitRefused, host + ": it does not know this request", []string{"its netsysrq is older and has no log to give"}
	case o.Kind == exchange.Refused:
		return exitRefused, host + ": refused by policy: your key may not read its kernel log",
			[]string{"what a key may do stands in its file on the host: add L to allow there, and reload netsysrqd; netsysrq enroll --allow nsubL proposes it"}
	case o.Kind == exchange.Rebooted:
		return exitRebooted, fmt.Sprintf("%s: it has rebooted%s: boot %x before, %x now", host, after, o.Before[:4], o.After[:4]),
			[]string{"netsysrq log " + host + " reads the log of this boot"}
	}
	if o.Replies == 0 || errors.Is(r.err, context.Canceled) {
		status := *r.options
		status.command = &command{name: "status"}
		_, line, hints = (&result{options: &status, host: r.host, key: r.key, outcome: o, err: r.ctxErr()}).plainWords()
		return exitUnknown, host + ": " + line, hints
	}
	line = fmt.Sprintf("%s: no answer any more%s", host, after)
	if after == "" {
		line = host + ": it answers a status, but not a request for its log"
		hints = []string{"pieces of the log are longer than other answers, up to 1248 bytes with their headers: does the path let them through?"}
	}
	return exitUnknown, line, hints
}

// ctxErr is the error of the exchange where that was interrupted.
func (r *result) ctxErr() error {
	if errors.Is(r.err, context.Canceled) {
		return r.err
	}
	return nil
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
