// SPDX-License-Identifier: GPL-2.0-only

package rules

import (
	"slices"
	"strings"
)

// table is the raw table as iptables-save prints it.
type table struct {
	chains []string
	rules  map[string][]string // by chain: "-A CHAIN " is cut off
}

func parseSave(text string) *table {
	t := &table{rules: map[string][]string{}}
	raw := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "*"):
			raw = line == "*raw"
		case !raw:
		case strings.HasPrefix(line, ":"):
			name, _, _ := strings.Cut(line[1:], " ")
			t.chains = append(t.chains, name)
		case strings.HasPrefix(line, "-A "), strings.HasPrefix(line, "-I "):
			t.add(line)
		}
	}
	return t
}

// add takes a rule that is appended ("-A CHAIN ...") or put first
// ("-I CHAIN 1 ...").
func (t *table) add(line string) {
	name, rule, _ := strings.Cut(line[3:], " ")
	if !slices.Contains(t.chains, name) { // a built-in one, in what is to be applied
		t.chains = append(t.chains, name)
	}
	if line[1] == 'I' {
		t.rules[name] = slices.Insert(t.rules[name], 0, strings.TrimPrefix(rule, "1 "))
		return
	}
	t.rules[name] = append(t.rules[name], rule)
}

// leadsToUs reports whether a rule goes to a chain of ours. The target is the
// last thing that is printed of such a rule.
func leadsToUs(rule string) bool {
	for _, c := range chains {
		if strings.HasSuffix(" "+rule, " -j "+c) || strings.HasSuffix(" "+rule, " -g "+c) {
			return true
		}
	}
	return false
}

// jumps are the rules in the chains of others that lead to ours, as
// "CHAIN rule".
func (t *table) jumps() (list []string) {
	for _, c := range t.chains {
		if slices.Contains(chains, c) {
			continue
		}
		for _, rule := range t.rules[c] {
			if leadsToUs(rule) {
				list = append(list, c+" "+rule)
			}
		}
	}
	return list
}

// ours are the chains of ours that are there.
func (t *table) ours() (list []string) {
	for _, c := range chains {
		if slices.Contains(t.chains, c) {
			list = append(list, c)
		}
	}
	return list
}

// removal are the lines that take out what is ours.
func (t *table) removal() (lines []string) {
	for _, j := range t.jumps() {
		lines = append(lines, "-D "+j)
	}
	for _, c := range t.ours() {
		lines = append(lines, "-F "+c)
	}
	for _, c := range t.ours() {
		lines = append(lines, "-X "+c)
	}
	return lines
}

// same reports whether two tables hold the same of ours, wherever our jumps
// stand in their chains.
func (t *table) same(u *table) bool {
	if !slices.Equal(t.ours(), u.ours()) {
		return false
	}
	for _, c := range t.ours() {
		if !slices.Equal(t.rules[c], u.rules[c]) {
			return false
		}
	}
	a, b := t.jumps(), u.jumps()
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

// alike reports whether two tables hold as many rules of ours. However a version of
// iptables prints them, that stays.
func (t *table) alike(u *table) bool {
	for _, c := range chains {
		if len(t.rules[c]) != len(u.rules[c]) {
			return false
		}
	}
	return slices.Equal(t.ours(), u.ours()) && len(t.jumps()) == len(u.jumps())
}

// first reports whether our jumps stand ahead of everything else.
func (t *table) first() bool {
	for _, hook := range hooks {
		if rules := t.rules[hook]; slices.ContainsFunc(rules, leadsToUs) && !leadsToUs(rules[0]) {
			return false
		}
	}
	return true
}

// kernel reports whether our rules lead through the module's target, however it
// is printed: without the extension iptables does not know its options.
func (t *table) kernel() bool {
	return slices.ContainsFunc(t.rules[chain], func(rule string) bool {
		return strings.Contains(rule+" ", "-j NETSYSRQ ")
	})
}
