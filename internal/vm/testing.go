// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"
)

// NewKernel is Kernel for a test: it skips the test, saying why, where the
// kernel cannot be had.
func NewKernel(t testing.TB, version string) *Linux {
	t.Helper()
	l, err := Kernel(t.Context(), version)
	Check(t, err)
	return l
}

// New is Boot for a test: it skips the test, saying why, where machines cannot
// be had, and ends the machine with the test. The console of a test that failed
// is in its log; that of one that was passed is lost.
func New(t testing.TB, opt Options) *Machine {
	t.Helper()
	m, err := Boot(t.Context(), opt)
	if m != nil {
		t.Cleanup(func() {
			m.Close()
			if line, yes := m.EmulatorFault(); yes {
				t.Logf("the kernel died of the emulator: %s", line)
			}
			if t.Failed() {
				t.Logf("console:\n%s", tail([]byte(m.Console.Text(0, m.Started)), 30000))
			}
		})
	}
	Check(t, err)
	for _, line := range m.Faults {
		t.Logf("booted again after a fault of the emulator: %s", line)
	}
	return m
}

// Check ends the test unless err is nil: as skipped, where something cannot be had,
// but not in continuous integration, which has to have all of it.
func Check(t testing.TB, err error) {
	t.Helper()
	switch {
	case errors.Is(err, ErrUnavailable) && os.Getenv("CI") == "":
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
}

// TestKernel is the kernel that a test is to run on: $KERNEL, or 6.1.
func TestKernel() string {
	if v := os.Getenv("KERNEL"); v != "" {
		return v
	}
	return "6.1"
}

// Within bounds a call on behalf of a test.
func Within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
