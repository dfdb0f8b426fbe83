// SPDX-License-Identifier: GPL-2.0-only

//go:build integration

package main

import (
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"netsysrq/internal/netlab"
)

// TestNetnsScript runs the files of testdata/netns, each with a host of its own,
// with real firewall rules. In them, "host" in front of a command makes it run on
// that host, whose namespace is $HOST.
func TestNetnsScript(t *testing.T) {
	files, err := filepath.Glob("testdata/netns/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("scripts: %q %v", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			lab := netlab.New(t)
			testscript.Run(t, testscript.Params{
				Files: []string{file},
				Setup: func(env *testscript.Env) error {
					env.Setenv("HOST", lab.Server)
					return setup(env)
				},
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
		})
	}
}
