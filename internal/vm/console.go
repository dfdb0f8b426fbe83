// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Line is one line of the guest's console.
type Line struct {
	At   time.Time // when its end arrived, by the host's clock
	Text string
}

var stamp = regexp.MustCompile(`^\[ *(\d+\.\d+)\] `)

// Stamp is the time that the kernel printed with the line, by the guest's clock
// since its boot, if it is a line of the kernel.
func (l Line) Stamp() (time.Duration, bool) {
	m := stamp.FindStringSubmatch(l.Text)
	if m == nil {
		return 0, false
	}
	f, err := strconv.ParseFloat(m[1], 64)
	return time.Duration(f * float64(time.Second)), err == nil
}

// Console is the first serial port: what the kernel and the guest's init print.
type Console struct {
	mu    sync.Mutex
	lines []Line
	news  chan struct{} // closed, and made anew, with every line
	ended bool
}

func newConsole() *Console { return &Console{news: make(chan struct{})} }

// read takes lines until the end and shows each to watch.
func (c *Console) read(r io.Reader, watch func(Line)) {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	s.Split(splitScreen)
	for s.Scan() {
		l := Line{time.Now(), strings.TrimRight(s.Text(), "\r")}
		c.mu.Lock()
		c.lines = append(c.lines, l)
		c.tell()
		c.mu.Unlock()
		watch(l)
	}
	io.Copy(io.Discard, r) // a line without end must not block QEMU
	c.mu.Lock()
	c.ended = true
	c.tell()
	c.mu.Unlock()
}

// move is what a terminal is sent to write elsewhere on the screen.
var move = regexp.MustCompile(`\x1b\[\d+;\d+H`)

// splitScreen is bufio.ScanLines, but that a line also ends where the next text is
// written elsewhere on the screen: the menus of firmware have no other ends.
func splitScreen(data []byte, atEOF bool) (advance int, token []byte, err error) {
	advance, token, err = bufio.ScanLines(data, atEOF)
	text := data
	if token != nil {
		text = token
	}
	if at := move.FindIndex(text); at != nil {
		return at[1], text[:at[0]], nil
	}
	return advance, token, err
}

func (c *Console) tell() {
	close(c.news)
	c.news = make(chan struct{})
}

// Mark is a place in the log: its present end.
func (c *Console) Mark() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.lines)
}

// Since returns the lines from a mark on; 0 is the beginning.
func (c *Console) Since(mark int) []Line {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.lines[mark:])
}

// Await waits for a line from the mark on that contains text, and returns it. It
// fails when the context or the console ends first.
func (c *Console) Await(ctx context.Context, mark int, text string) (Line, error) {
	for {
		c.mu.Lock()
		at := slices.IndexFunc(c.lines[mark:], func(l Line) bool { return strings.Contains(l.Text, text) })
		if at >= 0 {
			l := c.lines[mark+at]
			c.mu.Unlock()
			return l, nil
		}
		mark = len(c.lines)
		news, ended := c.news, c.ended
		c.mu.Unlock()
		if ended {
			return Line{}, fmt.Errorf("console: no %q before its end", text)
		}
		select {
		case <-news:
		case <-ctx.Done():
			return Line{}, fmt.Errorf("console: no %q: %w", text, context.Cause(ctx))
		}
	}
}

// Text returns the lines from a mark on, each after the seconds since start.
func (c *Console) Text(mark int, start time.Time) string {
	var b strings.Builder
	for _, l := range c.Since(mark) {
		fmt.Fprintf(&b, "%8.3f  %s\n", l.At.Sub(start).Seconds(), l.Text)
	}
	return b.String()
}
