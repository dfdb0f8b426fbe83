// SPDX-License-Identifier: GPL-2.0-only

package rules

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"netsysrq/cmd/responder/internal/hint"
)

// Result is what Apply or Remove did for one family in one backend.
type Result struct {
	Family  Family
	Backend string
	Changed bool   // false: it was so already
	Past    bool   // the rules lead past the kernel module, though it is loaded
	Warning string // something that the owner of the host should know
}

// Apply puts the rules in place, in one transaction for each family. What is
// in place already is left alone, with its counters; an older version of ours
// is replaced, in the other backend too; what others have put there stays.
func (s Set) Apply(ctx context.Context) ([]Result, error) {
	backend, err := s.backend(ctx)
	if err != nil {
		return nil, err
	}
	var results []Result
	var errs []error
	for _, f := range Families {
		r := Result{Family: f, Backend: backend}
		t, err := s.tool(ctx, f, backend)
		if err == nil {
			r.Changed, r.Warning, err = s.apply(ctx, t)
			if err != nil && s.Kernel {
				r.Changed, r.Warning, err = s.withoutTarget(ctx, t, err)
				r.Past = err == nil
			}
		}
		if err != nil && f == IPv6 && !hasIPv6() {
			r.Warning, err = "this kernel does not speak IPv6: no rules for it", nil
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%v rules: %w", f, err))
			continue
		}
		results = append(results, r)
	}
	if errs != nil {
		return results, errors.Join(errs...)
	}
	stale, err := s.remove(ctx, otherBackend(backend))
	for _, r := range stale {
		r.Warning = "rules of ours were here too, out of use: removed"
		results = append(results, r)
	}
	return results, err
}

// withoutTarget is apply where no rule can lead to the module's target, and why
// is the reason: the rules of daemon-only mode are better than none. What leads
// to the target already stays.
func (s Set) withoutTarget(ctx context.Context, t *tool, why error) (changed bool, warning string, err error) {
	if tab, err := t.read(ctx); err != nil || tab.kernel() {
		return false, "", why
	}
	s.Kernel = false
	changed, warning, err = s.apply(ctx, t)
	if err != nil {
		return false, "", why
	}
	text := fmt.Sprintf("the kernel module is loaded, but these are the rules of daemon-only mode: %v", why)
	if h := hint.Of(why); h != "" {
		text += "; " + h
	}
	if warning != "" {
		text += "; " + warning
	}
	return changed, text, nil
}

// apply changes a table from what it is to what it should be. Somebody else
// may change it at the same time, or a module be loaded that limits what we
// may ask for; then it is looked at again.
func (s Set) apply(ctx context.Context, t *tool) (changed bool, warning string, err error) {
	var before []string
	hits, failed := -1, 0
	for range 10 {
		tab, rerr := t.read(ctx)
		if rerr != nil {
			return false, "", rerr
		}
		removal := tab.removal()
		now := busyHits()
		if err == nil || now != hits || !slices.Equal(removal, before) {
			failed = 0
		} else if failed++; failed == 3 {
			return false, "", err // the same thing, whatever others change
		}
		before, hits = removal, now
		if hits < defaultHits && !s.Kernel {
			warning = fmt.Sprintf("a source counts as busy after %d packets in a second, not %d: "+
				"the kernel module xt_recent was given ip_pkt_list_tot=%d", hits, defaultHits, hits)
		}
		if s.judge(ctx, t, tab, hits) == Present {
			return false, warning, nil
		}
		if err = t.change(ctx, restore(removal, s.rules(t.family, hits))); err == nil {
			return true, warning, nil
		}
	}
	return false, "", fmt.Errorf("the raw table changes all the time: %w", err)
}

// Remove takes out all that is ours, in both backends and both families, and
// nothing else. It returns what was removed.
func (s Set) Remove(ctx context.Context) ([]Result, error) {
	var results []Result
	for _, b := range []string{nft, legacy} {
		r, err := s.remove(ctx, b)
		results = append(results, r...)
		if err != nil {
			return results, err
		}
	}
	return results, nil
}

// remove takes out what is ours in one backend. One that is not installed
// cannot be looked at, and is taken to hold nothing.
func (s Set) remove(ctx context.Context, backend string) ([]Result, error) {
	var results []Result
	for _, f := range Families {
		t, err := s.tool(ctx, f, backend)
		if err != nil || !t.loaded() || f == IPv6 && !hasIPv6() {
			continue
		}
		tab, err := t.read(ctx)
		if err != nil {
			return results, fmt.Errorf("%v rules: %w", f, err)
		}
		if removal := tab.removal(); len(removal) > 0 {
			if err := t.change(ctx, restore(removal)); err != nil {
				return results, fmt.Errorf("%v rules: %w", f, err)
			}
			t.vacate(ctx)
			results = append(results, Result{Family: f, Backend: backend, Changed: true})
		}
	}
	return results, nil
}
