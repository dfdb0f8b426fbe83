// SPDX-License-Identifier: GPL-2.0-only

package hosts

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"netsysrq/auth"
)

// Errors of Select.
var (
	ErrNoMatch = errors.New("no host of the list matches")
	ErrGroup   = errors.New("no such group")
	ErrPattern = errors.New("bad pattern")
	ErrNobody  = errors.New("no host is left")
)

// IsOne reports whether an operand names one host, rather than a pattern, a
// group or an exception.
func IsOne(operand string) bool { return !strings.ContainsAny(operand, "*?[@!") }

// Knows reports whether a name is that of a host of the file.
func (f *File) Knows(name string) bool {
	n, err := auth.NormalizeHost(name)
	return err == nil && f.hosts[n] != nil
}

// Host returns the host of that name. One that is not in the file has nothing
// but the name.
func (f *File) Host(name string) (*Host, error) {
	n, err := auth.NormalizeHost(name)
	if err != nil {
		return nil, err
	}
	if h := f.hosts[n]; h != nil {
		return h, nil
	}
	return &Host{Name: n, Enrolled: n}, nil
}

// Select returns the hosts that the operands mean, each once: names, patterns
// such as web*, groups such as @db, @all, and exceptions such as !web3 from
// what stands before them. Operands keep their order; within one, hosts are
// sorted by name, numbers by value.
func (f *File) Select(operands []string) ([]*Host, error) {
	var out []*Host
	have := map[string]bool{}
	for _, operand := range operands {
		rest, except := strings.CutPrefix(operand, "!")
		found, err := f.match(rest)
		if err != nil {
			return nil, err
		}
		if except {
			drop := map[string]bool{}
			for _, h := range found {
				drop[h.Name] = true
				delete(have, h.Name)
			}
			out = slices.DeleteFunc(out, func(h *Host) bool { return drop[h.Name] })
			continue
		}
		for _, h := range found {
			if !have[h.Name] {
				have[h.Name] = true
				out = append(out, h)
			}
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: %w", strings.Join(operands, " "), ErrNobody)
	}
	return out, nil
}

func (f *File) match(operand string) (out []*Host, err error) {
	if IsOne(operand) {
		h, err := f.Host(operand)
		return []*Host{h}, err
	}
	pattern := strings.ToLower(operand)
	if group, ok := strings.CutPrefix(pattern, "@"); ok {
		return f.group(group)
	}
	for _, name := range f.sorted {
		ok, err := path.Match(pattern, name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", operand, ErrPattern)
		}
		if ok {
			out = append(out, f.hosts[name])
		}
	}
	if out == nil {
		return nil, fmt.Errorf("%s: %w", operand, ErrNoMatch)
	}
	return out, nil
}

func (f *File) group(group string) (out []*Host, err error) {
	names, ok := f.groups[group]
	if group == All {
		names, ok = f.sorted, true
	}
	if !ok {
		return nil, fmt.Errorf("@%s: %w", group, ErrGroup)
	}
	for _, name := range names {
		out = append(out, f.hosts[name])
	}
	return out, nil
}

// Len counts the hosts.
func (f *File) Len() int { return len(f.sorted) }

// Read reports whether there was a file to read.
func (f *File) Read() bool { return f.read }

// Groups lists the groups in order, without All.
func (f *File) Groups() []string { return slices.SortedFunc(maps.Keys(f.groups), natural) }

// natural compares names as people do: web2 comes before web10.
func natural(a, b string) int {
	for a != "" && b != "" {
		na, nb := digits(a), digits(b)
		if na == 0 || nb == 0 {
			if a[0] != b[0] {
				return int(a[0]) - int(b[0])
			}
			a, b = a[1:], b[1:]
			continue
		}
		da, db := strings.TrimLeft(a[:na], "0"), strings.TrimLeft(b[:nb], "0")
		if len(da) != len(db) {
			return len(da) - len(db)
		}
		if c := strings.Compare(da, db); c != 0 {
			return c
		}
		if na != nb { // web1 before web01
			return na - nb
		}
		a, b = a[na:], b[nb:]
	}
	return len(a) - len(b)
}

func digits(s string) int {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return i
		}
	}
	return len(s)
}
