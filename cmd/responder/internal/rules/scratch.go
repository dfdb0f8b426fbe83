// SPDX-License-Identifier: GPL-2.0-only

package rules

import (
	"context"
	"fmt"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// inScratch runs fn in a new, empty network namespace, which ends with it.
// Commands that fn starts are inside it too.
func inScratch(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with this goroutine, so that no
		// other finds itself in the wrong namespace.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("new network namespace: %w", err)
			return
		}
		done <- fn()
	}()
	return <-done
}

// standIn takes the place of the module's target, which lets itself be used in
// no namespace but the first.
const standIn = "-j RETURN"

// asSaved puts the rules in place where nobody is, and returns what this
// version of iptables makes of them.
func (s Set) asSaved(ctx context.Context, t *tool, hits int) (saved *table, err error) {
	err = inScratch(func() error {
		saved, err = s.applied(ctx, t, hits)
		return err
	})
	return saved, err
}

// applied puts the rules in place, but for the module's target, and reads them.
func (s Set) applied(ctx context.Context, t *tool, hits int) (*table, error) {
	text := restore(s.rules(t.family, hits))
	if err := t.change(ctx, strings.Replace(text, target, standIn, 1)); err != nil {
		return nil, err
	}
	saved, err := t.read(ctx)
	if err == nil && s.Kernel {
		for i, rule := range saved.rules[chain] {
			if before, ok := strings.CutSuffix(rule, standIn); ok {
				saved.rules[chain][i] = before + target
			}
		}
	}
	return saved, err
}

// Try reports whether kernel and iptables accept the rules of a family,
// without changing anything on the host.
func (s Set) Try(ctx context.Context, f Family) error {
	backend, err := s.backend(ctx)
	if err != nil {
		return err
	}
	t, err := s.tool(ctx, f, backend)
	if err != nil {
		return err
	}
	return inScratch(func() error {
		if _, err := s.applied(ctx, t, busyHits()); err != nil || !s.Kernel {
			return err
		}
		return t.parse(ctx, s.Text(f))
	})
}
