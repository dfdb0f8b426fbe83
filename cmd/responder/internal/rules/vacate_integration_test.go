// SPDX-License-Identifier: GPL-2.0-only

//go:build integration

package rules

import (
	"context"
	"errors"
	"os"
	"regexp"
	"testing"

	"golang.org/x/sys/unix"

	"netsysrq/internal/netlab"
)

// What was there before our rules is there after them, and nothing else: not the
// table that iptables has made for them, either, if it is empty.
func TestRemovalLeavesNoTable(t *testing.T) {
	for name, script := range map[string]string{
		"nothing":       "",
		"policy":        "iptables-nft -t raw -P OUTPUT DROP; ip6tables-nft -t raw -P PREROUTING DROP",
		"chain":         "iptables-nft -t raw -N other; ip6tables-nft -t raw -N other",
		"rule":          "iptables-nft -t raw -A OUTPUT -p tcp -j ACCEPT; ip6tables-nft -t raw -A OUTPUT -p tcp -j ACCEPT",
		"other tables":  "iptables-nft -A INPUT -p tcp -j ACCEPT; ip6tables-nft -t mangle -A INPUT -p tcp -j ACCEPT",
		"set":           "iptables-nft -t raw -P OUTPUT DROP; nft add set ip raw busy '{ type ipv4_addr; }'; nft add table ip6 raw; nft add set ip6 raw busy '{ type ipv6_addr; }'",
		"table of inet": "nft add table inet raw; nft add chain inet raw PREROUTING '{ type filter hook prerouting priority raw; }'",
		"own chain":     "nft add table ip raw; nft add chain ip raw mine; nft add table ip6 raw; nft add chain ip6 raw mine",
	} {
		t.Run(name, func(t *testing.T) {
			l := &lab{t, netlab.New(t), Set{Port: 9, Queue: 9, Backend: nft, Path: os.Getenv("PATH")}}
			l.tables("sh", "-ec", script)
			before := l.ruleset()
			l.apply(l.set)
			if l.ruleset() == before {
				t.Fatal("no rules")
			}
			l.remove(l.set)
			after := l.ruleset()
			// A table of somebody else keeps the chains that iptables has made in it.
			if before != "" && name != "table of inet" {
				after, before = withoutStandard(after), withoutStandard(before)
			}
			if after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
		})
	}
}

// withoutStandard leaves out the chains that iptables makes for our rules.
func withoutStandard(ruleset string) string {
	ruleset = standardChain.ReplaceAllString(ruleset, "")
	return emptyLines.ReplaceAllString(ruleset, "\n")
}

var emptyLines = regexp.MustCompile(`\n\n+`)

var standardChain = regexp.MustCompile(`\tchain (PREROUTING|OUTPUT) \{\n\t\ttype filter hook (prerouting|output) priority raw; policy accept;\n\t\}\n`)

func (l *lab) ruleset() string {
	l.Helper()
	return l.tables("nft", "list", "ruleset")
}

// The kernel says that it has deleted a table, and has.
func TestDeleteTable(t *testing.T) {
	l := &lab{t, netlab.New(t), Set{}}
	l.tables("sh", "-ec", "for ip in iptables ip6tables; do $ip-nft -t raw -P PREROUTING ACCEPT; $ip-nft -t raw -P OUTPUT ACCEPT; done")
	if l.ruleset() == "" {
		t.Fatal("no tables")
	}
	l.server(func(context.Context) error {
		return errors.Join(deleteTable(IPv4, []string{"PREROUTING", "OUTPUT"}), deleteTable(IPv6, []string{"OUTPUT", "PREROUTING"}))
	})
	if left := l.ruleset(); left != "" {
		t.Errorf("left:\n%s", left)
	}
}

// What comes into the table while it is about to be deleted stays, and so does all
// else in it.
func TestDeleteTableInUse(t *testing.T) {
	for name, script := range map[string]string{
		"rule":  "iptables-nft -t raw -A PREROUTING -p tcp -j ACCEPT",
		"chain": "iptables-nft -t raw -P PREROUTING ACCEPT; iptables-nft -t raw -N other",
		"set":   "iptables-nft -t raw -P PREROUTING ACCEPT; nft add set ip raw busy '{ type ipv4_addr; }'",
	} {
		t.Run(name, func(t *testing.T) {
			l := &lab{t, netlab.New(t), Set{}}
			l.tables("sh", "-ec", script)
			before := l.ruleset()
			l.server(func(context.Context) error {
				if err := deleteTable(IPv4, []string{"PREROUTING"}); !errors.Is(err, unix.EBUSY) {
					t.Errorf("the kernel says: %v", err)
				}
				if err := deleteTable(IPv6, nil); !errors.Is(err, unix.ENOENT) {
					t.Errorf("the kernel says of what is not there: %v", err)
				}
				return nil
			})
			if after := l.ruleset(); after != before || before == "" {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
		})
	}
}
