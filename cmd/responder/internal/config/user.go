// SPDX-License-Identifier: GPL-2.0-only

package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

var errRoot = errors.New("must not be root: the daemon reads packets from strangers " +
	"and needs no privilege once it has opened its files")

// checkUser checks what can be known without looking the user up: that happens
// late, since a configuration may be checked on another machine.
func checkUser(s string) error {
	if s == "" {
		return errors.New("must name a user")
	}
	if s == "root" {
		return errRoot
	}
	if s[0] < '0' || s[0] > '9' {
		return nil
	}
	uid, gid, both := strings.Cut(s, ":")
	for _, part := range []string{uid, gid} {
		if part == "" && !both {
			continue
		}
		n, err := strconv.ParseUint(part, 10, 32)
		if err != nil || n == 1<<32-1 {
			return fmt.Errorf("%q: must be a name, a uid or uid:gid", s)
		}
		if n == 0 {
			return errRoot
		}
	}
	return nil
}
