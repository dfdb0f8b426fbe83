// SPDX-License-Identifier: GPL-2.0-only

package exchange

import (
	"bytes"
	"context"
	"time"

	"netsysrq/auth"
)

const (
	// settled is how long the log must be silent after a dump to count as over.
	settled = time.Second
	// longest is how long a dump is read at most.
	longest = time.Minute
	// lookEvery is how often a log that is waited for is looked at.
	lookEvery = 250 * time.Millisecond
)

// Dump is what became of a run whose output was to be read.
type Dump struct {
	Run *Outcome // nil: the host was not asked to run anything
	Log *Outcome // of reading; nil: not begun
	// Begun reports that the kernel wrote of each step, or of so much that not
	// all of it could be read; Ended that it wrote no more after that.
	Begun, Ended bool
}

// RunLog runs steps and gives what the kernel logs from then on to f, until
// there is nothing more about them. It asks for the end of the log first, so
// that nothing is run whose output could not be read. The error is that of
// reading, if it is not of this side; Dump is never nil.
func RunLog(ctx context.Context, host Host, steps []auth.Step, opt Options, f func(Records)) (*Dump, error) {
	d := &Dump{}
	l, err := NewLog(ctx, host, opt)
	if err != nil {
		return d, err
	}
	defer l.Close()
	opt = l.opt
	bounds, err := l.Bounds(ctx)
	if d.Log = l.Outcome(); err != nil {
		return d, err
	}
	if d.Run, err = Run(ctx, host, steps, 0, opt); err != nil || d.Run.Kind != Accepted || d.Run.Reply.Flags&auth.DryRun != 0 {
		return d, err
	}
	told, lost := 0, false
	give := func(r Records) {
		told += bytes.Count(r.Text, []byte("sysrq: "))
		lost = lost || r.Lost
		f(r)
	}
	at, begun := bounds.End, opt.Clock.Boot()
	pauses := time.Duration(0)
	for _, s := range steps {
		pauses += s.Wait()
	}
	for last := begun; ; {
		next, err := l.Read(ctx, at, auth.LogEnd, give)
		d.Log = l.Outcome()
		if err != nil {
			return d, err
		}
		now := opt.Clock.Boot()
		if next > at {
			at, last = next, now
		}
		d.Begun = told >= len(steps) || lost
		d.Ended = d.Begun && time.Duration(now-last) >= settled
		since := time.Duration(now - begun)
		if d.Ended || !d.Begun && since >= opt.Timeout+pauses || since >= longest+pauses {
			return d, nil
		}
		if err := sleep(ctx, lookEvery); err != nil {
			return d, err
		}
	}
}

// Follow reads a log from a record on, for ever, and gives it to f. It returns
// the error that ends it; silence of the host does not. changed is told, once
// each time, that the host has become silent, or is heard again.
func (l *Log) Follow(ctx context.Context, from uint64, f func(Records), changed func(silent bool)) (next uint64, err error) {
	silent := false
	for next = from; ; {
		next, err = l.Read(ctx, next, auth.LogEnd, f)
		out := l.Outcome()
		if err != nil && (ctx.Err() != nil || out.Kind != Unknown) {
			return next, err
		}
		if now := err != nil; now != silent {
			silent = now
			changed(silent)
		}
		if err := sleep(ctx, time.Second); err != nil {
			return next, err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// Tail reads about the last so many bytes of the log, and gives whole lines of
// it; size 0 stands for all. What was overwritten is told only of all.
func (l *Log) Tail(ctx context.Context, size int, f func(Records)) (next uint64, err error) {
	bounds, err := l.Bounds(ctx)
	if err != nil {
		return 0, err
	}
	if size <= 0 {
		return l.Read(ctx, bounds.Oldest, bounds.End, f)
	}
	for records := uint64(size)/64 + 1; ; {
		first := bounds.Oldest
		if bounds.End-first > records {
			first = bounds.End - records
		}
		var parts []Records
		n := 0 // bytes in parts
		next, err = l.Read(ctx, first, bounds.End, func(r Records) {
			if r.Lost {
				return
			}
			parts = append(parts, r)
			n += len(r.Text)
			for n-len(parts[0].Text) >= size {
				n -= len(parts[0].Text)
				parts[0].Text, parts = nil, parts[1:]
			}
		})
		if err != nil || n >= size || first == bounds.Oldest {
			for _, r := range trim(parts, n-size) {
				f(r)
			}
			return next, err
		}
		// Lines were shorter than was thought.
		records = records*uint64(size)/uint64(max(n, 1)) + records/4 + 1
	}
}

// trim takes at least so many bytes off the front, up to the end of a line.
func trim(parts []Records, over int) []Records {
	for over > 0 && len(parts) > 0 {
		text := parts[0].Text
		if over < len(text) {
			if i := bytes.IndexByte(text[over-1:], '\n'); i >= 0 && over+i < len(text) {
				parts[0].Text = text[over+i:]
				return parts
			}
		}
		over -= len(text)
		parts = parts[1:]
	}
	return parts
}
