// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"

	"netsysrq/auth"
)

// enroll prints the line that makes a host know the operator.
func enroll(ctx context.Context, w world, o *options) (int, error) {
	allow, err := auth.ParseKeySet(o.allow)
	if err != nil {
		return 0, usageError(fmt.Errorf("--allow: %w", err), "netsysrq help enroll")
	}
	if allow == 0 {
		return 0, usageError(errors.New("--allow: no SysRq key at all"), "netsysrq help enroll")
	}
	op, err := loadOperator(ctx, w, o, true)
	if err != nil {
		return 0, err
	}
	key, err := op.master.HostKey(o.host)
	if err != nil {
		return 0, err
	}
	e := auth.Enrolment{Operator: op.label, Host: o.host, Allow: allow, Key: key}
	fmt.Fprintln(w.stdout, e.Line())
	if !o.quiet {
		w.note("this line is secret; give it to the host: netsysrq enroll %s | ssh root@%s netsysrqd keys add %s",
			o.host, o.host, op.label)
	}
	return exitOK, nil
}
