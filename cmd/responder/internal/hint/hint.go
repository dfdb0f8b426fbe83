// SPDX-License-Identifier: GPL-2.0-only

// Package hint lets an error carry what its reader can do about it.
package hint

import "errors"

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
