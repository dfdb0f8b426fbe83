// SPDX-License-Identifier: GPL-2.0-only

package rules

import (
	"context"
	"fmt"
	"runtime"

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

// asSaved puts the rules in place where nobody is, and returns what this
// version of iptables makes of them.
func (s Set) asSaved(ctx context.Context, t *tool, hits int) (saved *table, err error) {
	err = inScratch(func() error {
		if err := t.change(ctx, restore(s.rules(t.family, hits))); err != nil {
			return err
		}
		saved, err = t.read(ctx)
		return err
	})
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
	_, err = s.asSaved(ctx, t, busyHits())
	return err
}
