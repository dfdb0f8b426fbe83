// SPDX-License-Identifier: GPL-2.0-only

// Package hint lets an error carry what its reader can do about it.
package hint

import (
	"errors"
	"regexp"
	"strings"
)

type hinted struct {
	error
	text string
}

func (h *hinted) Unwrap() error { return h.error }

// Add returns err with a hint. The text of the error stays as it is.
func Add(err error, text string) error { return &hinted{err, text} }

// Of returns the outermost hint of err, or "".
func Of(err error) string {
	var h *hinted
	if errors.As(err, &h) {
		return h.text
	}
	return ""
}

// own is a command of netsysrqd that reads the configuration.
var own = regexp.MustCompile(`\bnetsysrqd (arm|check|disarm|keys|load-keys|rules|run|status)\b`)

// plain is what a shell takes as it is.
var plain = regexp.MustCompile(`^[\w./:@%+,-]+$`)

// WithConfig gives the commands that a hint names the configuration that they
// are to read.
func WithConfig(text, path string) string {
	if !plain.MatchString(path) {
		path = "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
	}
	return own.ReplaceAllStringFunc(text, func(command string) string {
		return "netsysrqd -c " + path + strings.TrimPrefix(command, "netsysrqd")
	})
}
