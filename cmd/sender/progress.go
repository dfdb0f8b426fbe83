// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/term"

	"netsysrq/internal/fleet/follow"
	"netsysrq/internal/fleet/table"
)

// screen is a terminal that a table is drawn on.
type screen struct {
	live *table.Live
	size func() (width, height int)
	foot string // of the round before
	done bool
}

// screen returns the terminal that stdout is, or nil.
func (w world) screen() *screen {
	f, ok := w.stdout.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) || w.getenv("TERM") == "dumb" {
		return nil
	}
	return &screen{live: table.NewLive(f), size: func() (int, int) {
		width, height, err := term.GetSize(int(f.Fd()))
		if err != nil || width < 1 || height < 1 {
			return 80, 24
		}
		return width, height
	}}
}

// draw shows the rows that fit, above foot or else the foot of the round
// before.
func (s *screen) draw(rows []table.Row, foot string) {
	if s.done {
		return
	}
	if foot == "" {
		foot = s.foot
	}
	width, height := s.size()
	s.live.Draw(table.Screen(rows, foot, width, height), width, height)
}

func (s *screen) clear() { s.live.Clear(s.size()) }

// progress tells how far one host is that is waited for.
type progress struct {
	board *board // of many hosts
	i     int

	// Of one host alone: on stderr, on a terminal in one line with a clock,
	// else in a line for each change.
	w     world
	name  string
	line  bool
	begun time.Time

	mu   sync.Mutex
	text string
	stop chan struct{}
	done sync.WaitGroup
}

// alone is the progress of the only host.
func (s *session) alone() *progress {
	p := &progress{w: s.w, name: s.hosts[0].Name, begun: time.Now(), stop: make(chan struct{})}
	if s.o.wait == 0 || s.o.quiet {
		return p
	}
	p.line = true
	if term.IsTerminal(int(s.w.stderr.Fd())) && s.w.getenv("TERM") != "dumb" && !s.o.verbose {
		p.done.Go(p.clock)
	} else {
		close(p.stop)
	}
	return p
}

// say tells of a change.
func (p *progress) say(text string) {
	if p.board != nil {
		p.board.phase(p.i, text)
		return
	}
	if !p.line {
		return
	}
	p.mu.Lock()
	p.text = text
	p.mu.Unlock()
	select {
	case <-p.stop:
		p.w.note("%s: after %s: %s", p.name, duration(time.Since(p.begun)), text)
	default:
		fmt.Fprintf(p.w.stderr, "\r%s: %s\x1b[K", p.name, p.at(text))
	}
}

func (p *progress) at(text string) string {
	return fmt.Sprintf("%s: %s", duration(time.Since(p.begun).Round(time.Second)), text)
}

// clock writes the line again every second.
func (p *progress) clock() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			p.mu.Lock()
			if p.text != "" {
				fmt.Fprintf(p.w.stderr, "\r%s: %s\x1b[K", p.name, p.at(p.text))
			}
			p.mu.Unlock()
		case <-p.stop:
			fmt.Fprint(p.w.stderr, "\r\x1b[K")
			return
		}
	}
}

// end takes the line away.
func (p *progress) end() {
	if !p.line {
		return
	}
	select {
	case <-p.stop:
	default:
		close(p.stop)
	}
	p.done.Wait()
}

// phaseWords say where a machine is on its way.
func phaseWords(p follow.Phase) string {
	return [...]string{"answers as before", "silent", "back, the daemon not yet", "back"}[p]
}
