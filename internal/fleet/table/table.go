// SPDX-License-Identifier: GPL-2.0-only

// Package table lays out one line for each host, and keeps them up to date on
// a terminal.
package table

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Row is one host.
type Row struct {
	Name, State, By, Load, Free, Up, Trip, Note string
	// Rank says how much the row matters where there is not room for all.
	Rank int
}

// Ranks of rows, the least important first.
const (
	Fine    = iota // nothing to see
	Waiting        // nothing is known yet
	Busy           // under way
	Bad            // not as it should be
)

func (r *Row) cells() [8]string {
	return [...]string{r.Name, r.State, r.By, r.Load, r.Free, r.Up, r.Trip, r.Note}
}

var head = Row{Name: "HOST", State: "STATE", By: "ANSWERS", Load: "LOAD", Free: "FREE", Up: "UP", Trip: "TRIP", Note: "NOTE"}

// right tells the columns of numbers.
var right = [8]bool{3: true, 4: true, 6: true}

// Lines lays out the rows under a headline. Columns without content are left
// out.
func Lines(rows []Row) []string {
	var widths [8]int
	for i := range rows {
		for c, cell := range rows[i].cells() {
			widths[c] = max(widths[c], utf8.RuneCountInString(cell))
		}
	}
	for c, cell := range head.cells() {
		if widths[c] > 0 || c == 0 {
			widths[c] = max(widths[c], len(cell))
		}
	}
	lines := make([]string, 0, len(rows)+1)
	lines = append(lines, line(&head, &widths))
	for i := range rows {
		lines = append(lines, line(&rows[i], &widths))
	}
	return lines
}

func line(r *Row, widths *[8]int) string {
	var b strings.Builder
	for c, cell := range r.cells() {
		if widths[c] == 0 {
			continue
		}
		if b.Len() > 0 {
			b.WriteString("  ")
		}
		pad := strings.Repeat(" ", widths[c]-utf8.RuneCountInString(cell))
		if right[c] {
			b.WriteString(pad)
			pad = ""
		}
		b.WriteString(clean(cell))
		b.WriteString(pad)
	}
	return strings.TrimRight(b.String(), " ")
}

// clean keeps what a cell holds from moving the cursor.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, s)
}

// Screen is what fits on a screen of that size: the rows that matter most, in
// their order, how many are left out, and a last line.
func Screen(rows []Row, foot string, width, height int) []string {
	width, height = max(width, 20), max(height, 6)
	shown := rows
	room := height - 3 // headline, last line, and the line of the cursor
	left := ""
	if len(rows) > room {
		room--
		shown = most(rows, room)
		left = fmt.Sprintf("… and %d more", len(rows)-room)
	}
	lines := Lines(shown)
	if left != "" {
		lines = append(lines, left)
	}
	lines = append(lines, clean(foot))
	for i := range lines {
		lines[i] = cut(lines[i], width-1)
	}
	return lines
}

// most returns the n rows of highest rank, in the order of rows.
func most(rows []Row, n int) []Row {
	order := make([]int, len(rows))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return rows[b].Rank - rows[a].Rank })
	order = order[:n]
	slices.Sort(order)
	out := make([]Row, n)
	for i, k := range order {
		out[i] = rows[k]
	}
	return out
}

func cut(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:width-1]) + "…"
}

// Live is an area of lines at the end of a terminal that is drawn over again.
type Live struct {
	out   io.Writer
	drawn []int // lengths of the lines on the screen
}

// NewLive returns an empty area.
func NewLive(out io.Writer) *Live { return &Live{out: out} }

// Draw shows lines in place of those before. width and height are the
// terminal's as it is now: it may have been changed, and have wrapped the lines
// before.
func (l *Live) Draw(lines []string, width, height int) {
	var b strings.Builder
	l.up(&b, width, height)
	l.drawn = l.drawn[:0]
	for _, s := range lines {
		b.WriteString(s)
		b.WriteString("\x1b[K\n")
		l.drawn = append(l.drawn, utf8.RuneCountInString(s))
	}
	b.WriteString("\x1b[J")
	io.WriteString(l.out, b.String())
}

// Clear takes the area away.
func (l *Live) Clear(width, height int) { l.Draw(nil, width, height) }

func (l *Live) up(b *strings.Builder, width, height int) {
	n := 0
	for _, length := range l.drawn {
		n += max(1, (length+width-1)/max(width, 1))
	}
	if n = min(n, height-1); n > 0 {
		fmt.Fprintf(b, "\x1b[%dA\r", n)
	}
}
