// SPDX-License-Identifier: GPL-2.0-only

package rules

import "context"

// State is how our rules of a family stand.
type State int

// States.
const (
	Absent   State = iota
	Changed        // ours are there, but not as they would be applied
	NotFirst       // complete, but other rules come before ours
	Present        // complete and first
	Outdated       // complete, but for a host with the kernel module, or without, and this one is not
	NoFamily       // this kernel does not speak that version of IP
)

// String returns a word for the log.
func (s State) String() string {
	return [...]string{"absent", "changed", "not first", "present", "outdated", "no such family"}[s]
}

// Status is what was found of one family.
type Status struct {
	Family  Family
	Backend string
	State   State
	// Other reports that the other backend holds rules of ours.
	Other bool
	// Elsewhere reports that it holds them complete and first, and that State
	// is Absent: they work there.
	Elsewhere bool
}

// Status looks at both families. It changes nothing; it needs root.
func (s Set) Status(ctx context.Context) ([]Status, error) {
	backend, err := s.backend(ctx)
	if err != nil {
		return nil, err
	}
	var all []Status
	for _, f := range Families {
		st := Status{Family: f, Backend: backend}
		if f == IPv6 && !hasIPv6() {
			st.State = NoFamily
			all = append(all, st)
			continue
		}
		t, err := s.tool(ctx, f, backend)
		if err != nil {
			return nil, err
		}
		if t.loaded() {
			tab, err := t.read(ctx)
			if err != nil {
				return nil, err
			}
			st.State = s.judge(ctx, t, tab, busyHits())
		}
		if o, err := s.tool(ctx, f, otherBackend(backend)); err == nil && o.loaded() {
			tab, err := o.read(ctx)
			st.Other = err == nil && len(tab.removal()) > 0
			st.Elsewhere = st.Other && st.State == Absent && s.judge(ctx, o, tab, busyHits()) == Present
		}
		all = append(all, st)
	}
	return all, nil
}

// LeadPast reports whether rules of daemon-only mode are in place, in either
// family: no packet of it reaches the kernel module, loaded or not.
func (s Set) LeadPast(ctx context.Context) (bool, error) {
	backend, err := s.backend(ctx)
	if err != nil {
		return false, err
	}
	for _, f := range Families {
		t, err := s.tool(ctx, f, backend)
		if err != nil {
			return false, err
		}
		if !t.loaded() || f == IPv6 && !hasIPv6() {
			continue
		}
		tab, err := t.read(ctx)
		if err != nil {
			return false, err
		}
		if len(tab.ours()) > 0 && !tab.kernel() {
			return true, nil
		}
	}
	return false, nil
}

// judge compares a table with what would be applied.
func (s Set) judge(ctx context.Context, t *tool, tab *table, hits int) State {
	if len(tab.removal()) == 0 {
		return Absent
	}
	other := s
	other.Kernel = !s.Kernel
	switch {
	case s.written(t, tab, hits):
	case other.written(t, tab, hits):
		return Outdated
	// Another version of iptables may print the same rules in another way, and
	// only it can tell.
	case s.printed(ctx, t, tab, hits):
	case other.printed(ctx, t, tab, hits):
		return Outdated
	default:
		return Changed
	}
	if !tab.first() {
		return NotFirst
	}
	return Present
}

// written reports whether a table holds exactly our rules, word by word.
func (s Set) written(t *tool, tab *table, hits int) bool {
	return tab.same(parseSave(restore(s.rules(t.family, hits))))
}

// printed is the same for rules as this version of iptables prints them.
func (s Set) printed(ctx context.Context, t *tool, tab *table, hits int) bool {
	if s.Kernel != tab.kernel() || !tab.alike(parseSave(restore(s.rules(t.family, hits)))) {
		return false
	}
	saved, err := s.asSaved(ctx, t, hits)
	return err == nil && tab.same(saved)
}
