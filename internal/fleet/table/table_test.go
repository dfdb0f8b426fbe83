// SPDX-License-Identifier: GPL-2.0-only

package table

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestLines(t *testing.T) {
	rows := []Row{
		{Name: "web1", State: "up", By: "daemon", Load: "0.42", Free: "1803 MiB", Up: "3 d 4 h", Trip: "0.8 ms"},
		{Name: "web10", State: "up", By: "kernel", Load: "12.00", Free: "3 MiB", Up: "5 s", Trip: "12 ms", Note: "the daemon\x1b[2J"},
		{Name: "db1", State: "no answer"},
	}
	want := []string{
		"HOST   STATE      ANSWERS   LOAD      FREE  UP         TRIP  NOTE",
		"web1   up         daemon    0.42  1803 MiB  3 d 4 h  0.8 ms",
		"web10  up         kernel   12.00     3 MiB  5 s       12 ms  the daemon?[2J",
		"db1    no answer",
	}
	if got := Lines(rows); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if got := Lines([]Row{{Name: "web1", State: "accepted"}}); !slices.Equal(got, []string{"HOST  STATE", "web1  accepted"}) {
		t.Errorf("empty columns: %q", got)
	}
}

func TestScreen(t *testing.T) {
	var rows []Row
	for i := range 1000 {
		rows = append(rows, Row{Name: fmt.Sprint("web", i), State: "up", Note: strings.Repeat("long ", 50)})
	}
	rows[700].Rank, rows[10].Rank, rows[999].Rank = Bad, Bad, Busy
	for _, size := range [][2]int{{80, 24}, {20, 6}, {1, 1}, {200, 50}} {
		lines := Screen(rows, "1000 hosts", size[0], size[1])
		width, height := max(size[0], 20), max(size[1], 6)
		if len(lines) > height-1 {
			t.Errorf("%v: %d lines", size, len(lines))
		}
		for _, l := range lines {
			if utf8.RuneCountInString(l) >= width {
				t.Errorf("%v: %q", size, l)
			}
		}
		text := strings.Join(lines, "\n")
		if height > 6 && (!strings.Contains(text, "web10 ") || !strings.Contains(text, "web700") || !strings.Contains(text, "web999")) ||
			!strings.Contains(text, " more\n") || !strings.HasSuffix(text, "1000 hosts") {
			t.Errorf("%v:\n%s", size, text)
		}
	}
	if lines := Screen(rows[:3], "3 hosts", 80, 24); len(lines) != 5 {
		t.Errorf("%q", lines)
	}
}

func TestLive(t *testing.T) {
	var b strings.Builder
	l := NewLive(&b)
	l.Draw([]string{"one", "two"}, 80, 24)
	if got := b.String(); got != "one\x1b[K\ntwo\x1b[K\n\x1b[J" {
		t.Errorf("%q", got)
	}
	b.Reset()
	l.Draw([]string{strings.Repeat("x", 79)}, 80, 24)
	if got := b.String(); !strings.HasPrefix(got, "\x1b[2A\r") {
		t.Errorf("%q", got)
	}
	// The terminal became narrower, so that the line takes four rows.
	b.Reset()
	l.Draw(nil, 20, 24)
	if got := b.String(); got != "\x1b[4A\r\x1b[J" {
		t.Errorf("%q", got)
	}
	b.Reset()
	l.Clear(20, 24)
	if got := b.String(); got != "\x1b[J" {
		t.Errorf("%q", got)
	}
}
