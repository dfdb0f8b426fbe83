// SPDX-License-Identifier: GPL-2.0-only

// Package logging makes the daemon's logger: structured records to the
// journal, or as text or JSON to a stream.
package logging

import (
	"fmt"
	"io"
	"log/slog"
	"time"
)

// Log is a logger that never makes its user wait.
type Log struct {
	*slog.Logger
	pump *pump
}

// Lost is how many records were lost, because nobody read or writing failed.
func (l *Log) Lost() uint64 { return l.pump.lost.Load() }

// Flush waits until all that was logged is out, or the time is over.
func (l *Log) Flush(most time.Duration) { l.pump.flush(most) }

// New returns a log. Format is auto, journald, text or json; auto takes the
// journal if the stream is connected to it. The level can be changed later.
// The journal's socket is opened here and needs no privileges later.
func New(format string, w io.Writer, level slog.Leveler) (*Log, error) {
	if format == "auto" {
		format = "text"
		if inJournal(w) {
			format = "journald"
		}
	}
	if format == "journald" {
		c, err := dialJournal(journalSocket)
		if err != nil {
			return nil, err
		}
		w = c
	}
	l := &Log{pump: newPump(w)}
	opts := &slog.HandlerOptions{Level: level}
	switch format {
	case "text":
		l.Logger = slog.New(slog.NewTextHandler(l.pump, opts))
	case "json":
		l.Logger = slog.New(slog.NewJSONHandler(l.pump, opts))
	case "journald":
		l.Logger = slog.New(&journalHandler{level: level, w: l.pump})
	default:
		return nil, fmt.Errorf("log format %q is not one of auto, journald, text, json", format)
	}
	return l, nil
}
