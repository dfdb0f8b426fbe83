// SPDX-License-Identifier: GPL-2.0-only

//go:build integration

package e2e_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// binaries are the two commands, built one way.
type binaries struct{ responder, sender string }

// plain is what is installed; clocked has clocks that a test can set.
var plain, clocked binaries

func TestMain(m *testing.M) {
	flag.Parse()
	// Most of these tests wait most of the time.
	if !given("test.parallel") {
		flag.Set("test.parallel", "6")
	}
	os.Exit(func() int {
		if os.Geteuid() != 0 {
			return m.Run() // every test says why it is skipped
		}
		dir, err := os.MkdirTemp("", "netsysrq-e2e-bin-")
		if err == nil {
			defer os.RemoveAll(dir)
			plain, err = build(filepath.Join(dir, "plain"))
		}
		if err == nil {
			clocked, err = build(filepath.Join(dir, "clocked"), "-tags", "testclock")
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

func given(name string) (yes bool) {
	flag.Visit(func(f *flag.Flag) { yes = yes || f.Name == name })
	return yes
}

func build(dir string, args ...string) (binaries, error) {
	// The trailing slash makes go build take it for a folder.
	args = append(append([]string{"build", "-o", dir + "/"}, args...), "./cmd/responder", "./cmd/sender")
	cmd := exec.Command("go", args...)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return binaries{}, fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return binaries{filepath.Join(dir, "responder"), filepath.Join(dir, "sender")}, nil
}
