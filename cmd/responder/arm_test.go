// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"testing"
)

// A module that is loaded serves on, though modprobe would not find its file.
func TestLoad(t *testing.T) {
	gone := errors.New("module xt_NETSYSRQ not found")
	modprobe := func(_ context.Context, module string) error {
		if module != moduleName {
			t.Errorf("modprobe %q", module)
		}
		return gone
	}
	if err := load(t.Context(), func() bool { return true }, modprobe); err != nil {
		t.Errorf("loaded: %v", err)
	}
	if err := load(t.Context(), func() bool { return false }, modprobe); err != gone {
		t.Errorf("not loaded: %v", err)
	}
}
