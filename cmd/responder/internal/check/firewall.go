// SPDX-License-Identifier: GPL-2.0-only

package check

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"netsysrq/cmd/responder/internal/hint"
	"netsysrq/cmd/responder/internal/rules"
)

// firewall looks at the rules of both families. A family that this host speaks
// must have them: an operator may know it by an address of either.
func (c *checker) firewall(ctx context.Context, set rules.Set) {
	all, err := c.Rules(ctx, set)
	if err != nil {
		state := Fail
		if isPermission(err) {
			state = Unknown
		}
		c.add("rule", state, err.Error(), hintOf(err, ""))
		return
	}
	const apply = "netsysrqd rules apply"
	for _, st := range all {
		name := fmt.Sprintf("rule %v", st.Family)
		where := fmt.Sprintf("the raw table (iptables-%s)", st.Backend)
		switch {
		case st.State == rules.NoFamily:
			c.add(name, OK, fmt.Sprintf("this kernel does not speak %v, so none is needed", st.Family), "")
		case st.State == rules.Absent:
			text, next := "not in "+where, apply
			if err := c.Try(ctx, set, st.Family); err != nil {
				text += ", and the kernel does not take it: " + err.Error()
				next = "the kernel needs the raw table, NFQUEUE and the matches addrtype, length, recent and u32"
			} else if st.Other {
				text += ", but in that of the other backend"
			}
			c.add(name, Fail, text, next)
		case st.State == rules.Changed:
			c.add(name, Fail, "in "+where+" there is another one than the configuration asks for", apply)
		case st.State == rules.NotFirst:
			c.add(name, Warn, "in "+where+", but others come first and may take the packets", apply)
		case st.Other:
			c.add(name, Warn, "in "+where+"; an old one is in the other backend too", apply)
		default:
			c.add(name, OK, "first in "+where, "")
		}
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
