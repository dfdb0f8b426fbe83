// SPDX-License-Identifier: GPL-2.0-only

package check

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"netsysrq/cmd/responder/internal/hint"
	"netsysrq/cmd/responder/internal/rules"
)

// table is the raw table of a family.
type table struct {
	rules.Status
	try error // why the kernel or iptables would not take the rules
}

// readRules looks at the tables of both families, and where rules of ours are
// missing or others, whether they can be put in place.
func (c *checker) readRules(ctx context.Context, set rules.Set) {
	all, err := c.Rules(ctx, set)
	if errors.Is(err, rules.ErrNoIptables) {
		c.nft = c.Nft(ctx, set)
		err = hint.Add(err, "apt install iptables, or: nft -f /usr/share/netsysrq/netsysrq.nft")
	}
	c.tablesErr = err
	for _, st := range all {
		t := table{Status: st}
		switch st.State {
		case rules.Absent, rules.Outdated, rules.Changed:
			t.try = c.Try(ctx, set, st.Family)
		}
		if st.State == rules.Outdated && set.Kernel && t.try != nil {
			c.past = t.try
		}
		c.tables = append(c.tables, t)
	}
}

// firewall judges the rules of both families. A family that this host speaks
// must have them: an operator may know it by an address of either.
func (c *checker) firewall() {
	if c.nft {
		c.add("rule", OK, "in the table inet netsysrq of nft, for the daemon alone; nothing puts it back when it is flushed", "")
		return
	}
	if err := c.tablesErr; err != nil {
		state := Fail
		if isPermission(err) {
			state = Unknown
			c.through = c.loaded
		}
		c.add("rule", state, err.Error(), hintOf(err, ""))
		return
	}
	const apply = "netsysrqd rules apply"
	for _, st := range c.tables {
		name := fmt.Sprintf("rule %v", st.Family)
		where := fmt.Sprintf("the raw table (iptables-%s)", st.Backend)
		if st.State == rules.Present || st.State == rules.NotFirst || st.Elsewhere {
			c.through = c.loaded
		}
		switch {
		case st.State == rules.NoFamily:
			c.add(name, OK, fmt.Sprintf("this kernel does not speak %v, so none is needed", st.Family), "")
		case st.Elsewhere:
			c.add(name, Warn, "not in "+where+", but in that of the other backend, where it works", apply)
		case st.State == rules.Absent:
			text, next := "not in "+where, apply
			if err := st.try; err != nil {
				text += ", and the kernel does not take it: " + err.Error()
				next = "the kernel needs the raw table, NFQUEUE and the matches addrtype, length, limit, mark, recent and u32"
				next = hintOf(err, next)
			} else if st.Other {
				text += ", but in that of the other backend"
			}
			c.add(name, Fail, text, next)
		case st.State == rules.Outdated && st.try != nil && c.module != nil && len(c.module.Keys) == 0:
			c.add(name, Warn, "in "+where+", for daemon-only mode, since none can lead to the kernel module", hintOf(st.try, ""))
		case st.State == rules.Outdated && !c.loaded:
			c.add(name, Fail, "outdated: the rules in "+where+" lead through the kernel module, which is not loaded", apply)
		case st.State == rules.Outdated, st.State == rules.Changed:
			text, next := "in "+where+" there is another one than the configuration asks for", apply
			if st.State == rules.Outdated {
				text = "outdated: the rules in " + where + " do not lead through the kernel module"
			}
			if err := st.try; err != nil {
				text += ": " + err.Error()
				next = hintOf(err, "see what it lacks, or let the daemon answer alone") + "; or, for daemon-only mode: " + apply
			}
			c.add(name, Fail, text, next)
		case st.State == rules.NotFirst:
			c.add(name, Warn, "in "+where+", but others come first and may take the packets", apply)
		case st.Other:
			c.add(name, Warn, "in "+where+"; an old one is in the other backend too", apply)
		case c.loaded:
			c.add(name, OK, "first in "+where+", through the kernel module", "")
		default:
			c.add(name, OK, "first in "+where, "")
		}
	}
}

// savedFiles are where distributions keep firewall rules for the next boot, below
// /etc, and what lines of ours look like in them.
var savedFiles = []struct{ name, ours string }{
	{"iptables/rules.v4", "-j NETSYSRQ"}, {"iptables/rules.v6", "-j NETSYSRQ"},
	{"iptables/iptables.rules", "-j NETSYSRQ"}, {"iptables/ip6tables.rules", "-j NETSYSRQ"},
	{"sysconfig/iptables", "-j NETSYSRQ"}, {"sysconfig/ip6tables", "-j NETSYSRQ"},
	{nftablesConf, "chain netsysrq {"}, {"sysconfig/" + nftablesConf, "chain netsysrq {"},
}

const nftablesConf = "nftables.conf"

// savedRules looks for rules of ours that somebody saved together with others.
// It says nothing if there are none.
func (c *checker) savedRules() {
	var iptables, nft []string
	for _, f := range savedFiles {
		path := filepath.Join(c.Etc, f.name)
		b, err := os.ReadFile(path)
		switch {
		case err != nil || !strings.Contains(string(b), f.ours):
		case filepath.Base(f.name) == nftablesConf:
			nft = append(nft, path)
		default:
			iptables = append(iptables, path)
		}
	}
	if iptables != nil {
		// Every line of ours has the name in it.
		c.add("saved rules", Warn, strings.Join(iptables, ", ")+": with the target NETSYSRQ in it, none of the rules is restored "+
			"after a boot where the kernel module is not there", "sed -i /netsysrq/d "+strings.Join(iptables, " "))
	}
	if nft != nil {
		c.add("saved rules", Warn, strings.Join(nft, ", ")+": with rules of iptables in it, such as ours, nft loads nothing of it",
			"take what iptables manages out of it; ours is put in place by itself")
	}
}

func isPermission(err error) bool { return errors.Is(err, fs.ErrPermission) }

// hintOf is the hint of an error, or another.
func hintOf(err error, otherwise string) string {
	if h := hint.Of(err); h != "" {
		return h
	}
	return otherwise
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}
