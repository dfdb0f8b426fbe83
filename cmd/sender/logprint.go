// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"netsysrq/internal/exchange"
)

// maxBlock bounds the text of a host that waits for its turn, and that of one
// JSON object.
const maxBlock = 1 << 20

// logOutput is where hosts print their logs: one after the other, each in one
// block, or line by line with their names where they are followed.
type logOutput struct {
	s      *session
	mu     sync.Mutex // held by the host whose turn it is
	blocks int        // begun so far
}

// inBlocks reports whether what a host prints must stand together.
func (out *logOutput) inBlocks() bool { return out.s.many && !out.s.o.follow }

// logPrinter prints the log of one host.
type logPrinter struct {
	out   *logOutput
	a     *logged
	block bytes.Buffer // waits for the turn
	turn  bool         // out.mu is held, and the block is begun
	kept  int          // bytes of text for the next JSON object
}

// add prints records, or keeps them until it is the host's turn. Where more
// would wait than may, it waits for the turn itself.
func (p *logPrinter) add(r exchange.Records) {
	if p.out.s.o.json {
		p.keep(r)
		return
	}
	text := p.text(r)
	switch {
	case !p.out.inBlocks():
		p.out.mu.Lock()
		defer p.out.mu.Unlock()
		p.out.s.w.stdout.Write(text)
	case !p.turn && p.block.Len()+len(text) <= maxBlock:
		p.block.Write(text)
	default:
		p.begin()
		p.out.s.w.stdout.Write(text)
	}
}

// begin waits for the turn and begins the block.
func (p *logPrinter) begin() {
	if p.turn {
		return
	}
	p.out.mu.Lock()
	p.turn = true
	w := p.out.s.w.stdout
	if p.out.blocks++; p.out.blocks > 1 {
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "==> %s <==\n", p.a.host.Name)
	p.block.WriteTo(w)
}

// flush prints a JSON object of what came since the last.
func (p *logPrinter) flush() {
	if len(p.a.records)+len(p.a.missing) == 0 {
		return
	}
	p.out.mu.Lock()
	defer p.out.mu.Unlock()
	fmt.Fprintln(p.out.s.w.stdout, p.a.part())
	p.kept = 0
}

// end tells how it ended.
func (out *logOutput) end(p *logPrinter) {
	o, w := out.s.o, out.s.w
	code, line, hints := p.a.words()
	if out.inBlocks() && !o.json && (code == exitOK || p.block.Len() > 0) {
		p.begin()
	}
	if !p.turn {
		out.mu.Lock()
	}
	defer out.mu.Unlock()
	switch {
	case o.json:
		fmt.Fprintln(w.stdout, p.a.json(code, line, hints))
	case code != exitOK, p.a.dump != nil && !o.quiet:
		w.note("%s", line)
		if !out.s.many {
			w.hints(hints)
		}
	}
}

// text is records as lines for people.
func (p *logPrinter) text(r exchange.Records) []byte {
	var b bytes.Buffer
	name := ""
	if p.out.s.many && p.out.s.o.follow {
		name = p.a.host.Name + ": "
	}
	if r.Lost {
		fmt.Fprintf(&b, "%s[%d records are missing: overwritten before they could be read]\n", name, r.Next-r.First)
	}
	for line := range bytes.Lines(r.Text) {
		p.a.printed++
		_, rest := splitPrio(bytes.TrimSuffix(line, []byte("\n")))
		b.WriteString(name)
		if p.out.inBlocks() && bytes.HasPrefix(rest, []byte("=")) {
			// No host is to begin a block in the name of another.
			b.WriteString(`\x3d`)
			rest = rest[1:]
		}
		b.WriteString(escape(rest))
		b.WriteByte('\n')
	}
	if r.Cut {
		fmt.Fprintf(&b, "%s[the record goes on, but is longer than a packet]\n", name)
	}
	return b.Bytes()
}

// lineReport is one line of a kernel log in JSON.
type lineReport struct {
	Facility *int   `json:"facility"` // null: the line does not say
	Level    *int   `json:"level"`
	Stamp    string `json:"stamp,omitempty"` // seconds and microseconds of the kernel's own clock
	Text     string `json:"text"`
	Cut      bool   `json:"cut,omitempty"` // longer than a packet; this is its beginning
}

// missingReport is what was overwritten before it could be read.
type missingReport struct {
	First uint64 `json:"first"`
	Next  uint64 `json:"next"`
}

// keep keeps records for the next JSON object.
func (p *logPrinter) keep(r exchange.Records) {
	a := p.a
	if r.Lost {
		a.missing = append(a.missing, missingReport{r.First, r.Next})
	}
	for line := range bytes.Lines(r.Text) {
		a.printed++
		prio, rest := splitPrio(bytes.TrimSuffix(line, []byte("\n")))
		j := lineReport{Text: string(rest), Cut: r.Cut}
		if prio >= 0 {
			j.Facility, j.Level = new(prio>>3), new(prio&7)
		}
		if stamp, text, ok := bytes.Cut(rest, []byte("] ")); ok && len(stamp) > 0 && stamp[0] == '[' {
			j.Stamp, j.Text = strings.TrimSpace(string(stamp[1:])), string(text)
		}
		a.records = append(a.records, j)
	}
	if p.kept += len(r.Text); p.kept >= maxBlock {
		p.flush()
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
