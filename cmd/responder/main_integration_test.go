// SPDX-License-Identifier: GPL-2.0-only

//go:build integration

package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"netsysrq/internal/netlab"
)

// TestNetnsScript runs the files of testdata/netns. In them, "host" in front
// of a command makes it run on a host of its own, with real firewall rules.
func TestNetnsScript(t *testing.T) {
	lab := netlab.New(t)
	testscript.Run(t, testscript.Params{
		Dir:   "testdata/netns",
		Setup: setup,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"enroll": enroll,
			"host": func(ts *testscript.TestScript, neg bool, args []string) {
				err := ts.Exec("ip", append([]string{"netns", "exec", lab.Server}, args...)...)
				if (err != nil) != neg {
					ts.Fatalf("%v: unexpected result: %v", args, err)
				}
			},
		},
	})
}
