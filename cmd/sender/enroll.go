// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"netsysrq/auth"
)

// enroll prints the line that makes a host know the operator.
func enroll(ctx context.Context, w world, o *options) (int, error) {
	allow, err := auth.ParseKeySet(strings.ReplaceAll(o.allow, ",", ""))
	if err != nil {
		return 0, usageError(fmt.Errorf("--allow: %w", err), "netsysrq help enroll")
	}
	if allow == 0 {
		return 0, usageError(errors.New("--allow: no SysRq key at all"), "netsysrq help enroll")
	}
	list, err := loadHosts(w, o)
	if err != nil {
		return 0, err
	}
	host, err := list.Host(o.hosts[0])
	if err != nil {
		return 0, err
	}
	keys, err := openKeyring(ctx, w, o, true)
	if err != nil {
		return 0, err
	}
	op, err := keys.of(host)
	if err != nil {
		return 0, err
	}
	key, err := op.master.HostKey(host.Enrolled)
	if err != nil {
		return 0, err
	}
	e := auth.Enrolment{Operator: op.label, Host: host.Enrolled, Allow: allow, Key: key}
	fmt.Fprintln(w.stdout, e.Line())
	if !o.quiet && !piped(w.stdout) {
		w.note("this line is secret; give it to the host: netsysrq enroll %s%s | ssh root@%s netsysrqd keys add %s",
			o.hosts[0], o.same(), o.hosts[0], op.label)
	}
	return exitOK, nil
}

// piped reports whether another program reads the output, and no person.
func piped(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	i, err := f.Stat()
	return err == nil && i.Mode()&(fs.ModeNamedPipe|fs.ModeSocket) != 0
}
