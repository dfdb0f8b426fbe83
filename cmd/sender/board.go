// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"netsysrq/internal/fleet/table"
)

// board tells of many hosts: in a table on a terminal, else line by line in
// the order of the hosts.
type board struct {
	s      *session
	screen *screen     // nil: lines
	ended  func() bool // a watch has ended: what is cut short is not told
	begun  time.Time

	mu      sync.Mutex
	answers []answer // nil: not in this round
	rows    []table.Row
	next    int  // the first answer not yet told, of lines
	asked   bool // in an earlier round
	stop    chan struct{}
	drawer  sync.WaitGroup
}

func newBoard(ctx context.Context, s *session) *board {
	b := &board{
		s:     s,
		ended: func() bool { return s.o.watch > 0 && ctx.Err() != nil },
		rows:  make([]table.Row, len(s.hosts)),
		stop:  make(chan struct{}),
	}
	for i, h := range s.hosts {
		b.rows[i] = table.Row{Name: h.Name, State: "waiting", Rank: table.Waiting}
	}
	if !s.o.json && !s.o.quiet && !s.o.verbose {
		b.screen = s.w.screen()
	}
	if b.screen != nil {
		b.drawer.Go(b.draw)
	}
	return b
}

// begin begins a round. The table keeps what an earlier one found until there
// is something newer.
func (b *board) begin() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.begun, b.next = time.Now(), 0
	b.asked = b.answers != nil
	b.answers = make([]answer, len(b.s.hosts))
}

// set takes what became of a host.
func (b *board) set(i int, a answer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended() {
		return
	}
	b.answers[i] = a
	if b.screen != nil {
		b.rows[i] = a.row()
		return
	}
	for ; b.next < len(b.answers) && b.answers[b.next] != nil; b.next++ {
		b.tell(b.answers[b.next])
	}
}

// tell writes one line.
func (b *board) tell(a answer) {
	code, line, hints := a.words()
	switch o := b.s.o; {
	case o.quiet && code == exitOK:
	case o.json:
		fmt.Fprintln(b.s.w.stdout, a.json(code, line, hints))
	default:
		fmt.Fprintln(b.s.w.stdout, line)
	}
}

// phase is where a host is that is under way.
func (b *board) phase(i int, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rows[i].State, b.rows[i].Rank = text, table.Busy
	b.rows[i].Note = "after " + duration(time.Since(b.begun).Round(time.Second))
}

// finish ends a round and returns its exit code.
func (b *board) finish() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended() {
		return exitOK
	}
	sum := b.s.summarize(b.answers, time.Since(b.begun))
	alone := b.s.o.single() // the summary would say what its line has said
	switch o := b.s.o; {
	case b.screen != nil && o.watch > 0:
		if b.screen.foot = sum.line(); alone {
			b.screen.foot = "every " + duration(o.watch)
		}
		b.screen.draw(b.rows, "")
	case b.screen != nil:
		b.screen.clear()
		for _, l := range table.Lines(b.rows) {
			fmt.Fprintln(b.s.w.stdout, l)
		}
		fmt.Fprintln(b.s.w.stdout, sum.line())
		b.screen.done = true
	case o.json:
		fmt.Fprintln(b.s.w.stdout, sum.json())
	case !alone && (!o.quiet || sum.Exit != exitOK):
		fmt.Fprintln(b.s.w.stdout, sum.line())
	}
	return sum.Exit
}

// draw keeps the table up to date.
func (b *board) draw() {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-b.stop:
			return
		}
		b.mu.Lock()
		done := 0
		for _, a := range b.answers {
			if a != nil {
				done++
			}
		}
		foot := ""
		if !b.asked && b.answers != nil {
			foot = fmt.Sprintf("%d of %s, %s", done, count(len(b.answers)), duration(time.Since(b.begun).Round(time.Second)))
		}
		b.screen.draw(b.rows, foot)
		b.mu.Unlock()
	}
}

// close ends the drawing. What stands on the screen stays there.
func (b *board) close() {
	select {
	case <-b.stop:
		return
	default:
	}
	close(b.stop)
	b.drawer.Wait()
}
