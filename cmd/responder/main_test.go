// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"netsysrq/auth"
	"netsysrq/cmd/responder/internal/rules"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"netsysrqd": main})
}

// TestScript runs the files of testdata; each is a chapter of the manual. They
// need no root and touch nothing but a directory of their own.
func TestScript(t *testing.T) {
	if os.Geteuid() == 0 && rules.ModuleLoaded() {
		t.Skip("the kernel module is loaded: it would obey the keys of this test, which everybody knows")
	}
	testscript.Run(t, testscript.Params{
		Dir:   "testdata",
		Setup: setup,
		Cmds:  map[string]func(*testscript.TestScript, bool, []string){"enroll": enroll},
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
	})
}

// setup writes a configuration that keeps away from the real host.
func setup(env *testscript.Env) error {
	user := fmt.Sprintf("%d:%d", os.Geteuid(), os.Getegid())
	if os.Geteuid() == 0 {
		user = "65534:65534"
	}
	for name, text := range map[string]string{
		"machine-id": "0123456789abcdef0123456789abcdef\n",
		"trigger":    "",
		// The queues are not those of a daemon that runs on this machine.
		"etc.toml": fmt.Sprintf("queue = 39990\nkeys_dir = %q\nmachine_id = %q\ntrigger = %q\nuser = %q\n",
			env.WorkDir+"/keys", env.WorkDir+"/machine-id", env.WorkDir+"/trigger", user),
	} {
		if err := os.WriteFile(filepath.Join(env.WorkDir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	env.Setenv("CONFIG", env.WorkDir+"/etc.toml")
	return nil
}

// enroll OPERATOR HOST KEYS FILE stands for the operator's command.
func enroll(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: enroll OPERATOR HOST KEYS FILE")
	}
	var m auth.Master
	copy(m[:], args[0])
	key, err := m.HostKey(args[1])
	ts.Check(err)
	allow, err := auth.ParseKeySet(args[2])
	ts.Check(err)
	e := auth.Enrolment{Operator: args[0], Host: args[1], Allow: allow, Key: key}
	ts.Check(os.WriteFile(ts.MkAbs(args[3]), []byte(e.Line()+"\n"), 0o600))
}

// TestUsageFitsATerminal: the text is read where there is little room.
func TestUsageFitsATerminal(t *testing.T) {
	for i, line := range strings.Split(usage, "\n") {
		if len(line) > 80 || strings.Contains(line, "\t") {
			t.Errorf("line %d: %q", i+1, line)
		}
	}
}
