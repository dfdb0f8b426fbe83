// SPDX-License-Identifier: GPL-2.0-only

package system

import (
	"context"
	"testing"
	"time"

	"netsysrq/internal/vm"
)

// NewImage is GetImage for a test: it skips the test, saying why, where images
// cannot be had.
func NewImage(t testing.TB, r Release) *Image {
	t.Helper()
	i, err := GetImage(t.Context(), r)
	vm.Check(t, err)
	return i
}

// New is Resume for a test, from the image as it is when it was booted. The machine
// ends with the test; the console of a test that failed is in its log.
func New(t testing.TB, i *Image, opt Options) *Machine {
	t.Helper()
	s, err := Booted(t.Context(), i)
	vm.Check(t, err)
	return From(t, s, opt)
}

// From is Resume for a test, from any state.
func From(t testing.TB, s *State, opt Options) *Machine {
	t.Helper()
	m, err := Resume(t.Context(), s, opt)
	return closing(t, m, err)
}

// NewFromDisk is BootFrom for a test.
func NewFromDisk(t testing.TB, s *State, opt Options) *Machine {
	t.Helper()
	m, err := BootFrom(t.Context(), s, opt)
	return closing(t, m, err)
}

// closing has a machine end with the test.
func closing(t testing.TB, m *Machine, err error) *Machine {
	t.Helper()
	if m != nil {
		t.Cleanup(func() {
			if t.Failed() {
				t.Log(m.consoleError())
			}
			m.Close()
		})
	}
	vm.Check(t, err)
	return m
}

// NewState is Derive for a test.
func NewState(t testing.TB, from *State, name, key string, opt Options, change func(ctx context.Context, m *Machine) error) *State {
	t.Helper()
	s, err := Derive(t.Context(), from, name, key, opt, change)
	vm.Check(t, err)
	return s
}

// NewBooted is Booted for a test.
func NewBooted(t testing.TB, i *Image) *State {
	t.Helper()
	s, err := Booted(t.Context(), i)
	vm.Check(t, err)
	return s
}

// Sh runs a script in a machine, which is to succeed within a time, and returns
// what it printed.
func (m *Machine) Sh(t testing.TB, limit time.Duration, script string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	out, err := m.Run(ctx, "sh", "-ec", script)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
