// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"cmp"
	"os"

	"netsysrq/auth"
	"netsysrq/cmd/sender/internal/fence"
)

// fenceWorld is what the fence agent touches. A cluster manager may start it
// without a home directory.
func fenceWorld() fence.World {
	return fence.World{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Master: func(path string) (auth.Master, error) {
			op, err := loadMaster(path)
			if err != nil {
				return auth.Master{}, err
			}
			return op.master, nil
		},
		Home:  cmp.Or(os.Getenv("HOME"), "/root"),
		State: "/run/" + fence.Name,
	}
}
