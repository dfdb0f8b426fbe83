// SPDX-License-Identifier: GPL-2.0-only

// Package logging makes the daemon's logger: structured records to the
// journal, or as text or JSON to a stream.
package logging

import (
	"fmt"
	"io"
	"log/slog"
)

// New returns a logger. Format is auto, journald, text or json; auto takes the
// journal if the stream is connected to it. The level can be changed later.
// The journal's socket is opened here and needs no privileges later.
func New(format string, w io.Writer, level slog.Leveler) (*slog.Logger, error) {
	if format == "auto" {
		format = "text"
		if inJournal(w) {
			format = "journald"
		}
	}
	opts := &slog.HandlerOptions{Level: level}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	case "journald":
		h, err := newJournal(journalSocket, level)
		if err != nil {
			return nil, err
		}
		return slog.New(h), nil
	}
	return nil, fmt.Errorf("log format %q is not one of auto, journald, text, json", format)
}
