// SPDX-License-Identifier: GPL-2.0-only

// Package klog reads the kernel's log for an operator who asked for it, where
// there is no kernel module to do so.
package klog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"

	"golang.org/x/sys/unix"

	"netsysrq/auth"
)

// Grant is a log that an operator may have, and the way to him.
type Grant struct {
	From   uint64                  // the first record wanted, or auth.LogEnd
	Pieces uint8                   // how many may be sent
	Base   auth.Piece              // what is the same in each piece
	Send   func(*auth.Piece) error // seals one, and sends it
	Log    *slog.Logger
}

// waiting is how many grants may wait: who asks again is no worse off.
const waiting = 8

// Log is the kernel's log: /dev/kmsg, or a file of the same format
// (Documentation/ABI/testing/dev-kmsg). Its file is nobody else's, since it has
// a position.
type Log struct {
	fd     int // not an os.File, whose poller a plain file could not join
	path   string
	grants chan *Grant
	buf    [8192]byte
	part   []byte
}

// New reads the log from a file that is open, without waiting (O_NONBLOCK). The
// path is for messages.
func New(fd int, path string) *Log {
	return &Log{fd: fd, path: path, grants: make(chan *Grant, waiting)}
}

// Answer has a grant answered soon. It never waits; it reports false if there
// is too much to do already.
func (l *Log) Answer(g *Grant) bool {
	select {
	case l.grants <- g:
		return true
	default:
		return false
	}
}

// Run answers grants until the context ends.
func (l *Log) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case g := <-l.grants:
			if err := l.serve(g); err != nil {
				g.Log.Error("kernel log not sent", "err", err)
			}
		}
	}
}

func (l *Log) serve(g *Grant) error {
	pieces, err := l.read(g.From, int(g.Pieces))
	if err != nil {
		return err
	}
	for i := range pieces {
		p := &pieces[i]
		p.Time, p.ID, p.Challenge, p.Boot = g.Base.Time, g.Base.ID, g.Base.Challenge, g.Base.Boot
		if err := g.Send(p); err != nil {
			return err
		}
	}
	return nil
}

// read makes at most so many pieces. The file can only be read from its
// beginning, so it goes through all of it.
func (l *Log) read(from uint64, most int) ([]auth.Piece, error) {
	if _, err := unix.Seek(l.fd, 0, unix.SEEK_SET); err != nil {
		return nil, fmt.Errorf("seek to the beginning of %s: %w", l.path, err)
	}
	l.part = l.part[:0]
	var pieces []auth.Piece
	var oldest, end uint64
	some, full := false, false
	err := l.scan(func(record []byte) {
		prio, number, stamp, message, ok := parse(record)
		if !ok {
			return
		}
		if !some {
			some, oldest = true, number
		}
		end = max(end, number+1)
		if full || number < from {
			return
		}
		text := format(prio, stamp, message)
		last := len(pieces) - 1
		if last < 0 || pieces[last].Next != number || len(pieces[last].Text)+len(text) > auth.TextSize {
			if full = len(pieces) == most; full {
				return
			}
			pieces = append(pieces, auth.Piece{Index: uint8(len(pieces)), First: number})
			last++
		}
		p := &pieces[last]
		if len(text) > auth.TextSize {
			text = append(text[:auth.TextSize-1], '\n')
			p.Flags |= auth.Cut
		}
		p.Text, p.Next = append(p.Text, text...), number+1
	})
	if err != nil {
		return nil, err
	}
	if len(pieces) == 0 {
		pieces = []auth.Piece{{First: end, Next: end}}
	}
	for i := range pieces {
		pieces[i].Oldest, pieces[i].End = oldest, end
	}
	pieces[len(pieces)-1].Flags |= auth.Last
	return pieces, nil
}

// scan gives every record that there is by now, without its line feed.
func (l *Log) scan(give func(record []byte)) error {
	for {
		n, err := unix.Read(l.fd, l.buf[:])
		switch {
		case errors.Is(err, unix.EPIPE), errors.Is(err, unix.EINTR):
			continue // records were overwritten meanwhile; go on with the oldest
		case errors.Is(err, unix.EAGAIN) || err == nil && n == 0:
			return nil
		case err != nil:
			return fmt.Errorf("read %s: %w", l.path, err)
		}
		l.part = append(l.part, l.buf[:n]...)
		rest := l.part
		for {
			line, after, whole := bytes.Cut(rest, []byte("\n"))
			if !whole {
				break
			}
			// Lines with a space in front belong to the record before, and are
			// not what dmesg(1) shows.
			if len(line) > 0 && line[0] != ' ' {
				give(line)
			}
			rest = after
		}
		l.part = append(l.part[:0], rest...)
	}
}

// parse takes a record of /dev/kmsg apart: "6,339,5140900,-;message".
func parse(record []byte) (prio, number, stamp uint64, message []byte, ok bool) {
	head, message, ok := bytes.Cut(record, []byte(";"))
	fields := bytes.SplitN(head, []byte(","), 4)
	if !ok || len(fields) < 3 {
		return 0, 0, 0, nil, false
	}
	var n [3]uint64
	for i := range n {
		var err error
		if n[i], err = strconv.ParseUint(string(fields[i]), 10, 64); err != nil {
			return 0, 0, 0, nil, false
		}
	}
	return n[0], n[1], n[2], message, n[1] < auth.LogEnd-1
}

// format writes a record as syslog(2) gives it.
func format(prio, stamp uint64, message []byte) (text []byte) {
	for line := range bytes.SplitSeq(unescape(message), []byte("\n")) {
		text = fmt.Appendf(text, "<%d>[%5d.%06d] ", prio, stamp/1e6, stamp%1e6)
		text = append(append(text, line...), '\n')
	}
	return text
}

// unescape undoes the \x1b of /dev/kmsg, which a backslash has too.
func unescape(b []byte) []byte {
	if !bytes.Contains(b, []byte(`\x`)) {
		return b
	}
	out := make([]byte, 0, len(b))
	for len(b) > 0 {
		if len(b) >= 4 && b[0] == '\\' && b[1] == 'x' {
			if c, err := strconv.ParseUint(string(b[2:4]), 16, 8); err == nil {
				out, b = append(out, byte(c)), b[4:]
				continue
			}
		}
		out, b = append(out, b[0]), b[1:]
	}
	return out
}
