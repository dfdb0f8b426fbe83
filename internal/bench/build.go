// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// repository is the directory of go.mod.
func repository(ctx context.Context) (string, error) {
	out, err := output(exec.CommandContext(ctx, "go", "env", "GOMOD"))
	if err != nil {
		return "", err
	}
	mod := strings.TrimSpace(out)
	if mod == "" || mod == os.DevNull {
		return "", errors.New("run it inside the repository")
	}
	return filepath.Dir(mod), nil
}

// build makes the daemon as it is shipped.
func build(ctx context.Context, root, dir string) (string, error) {
	binary := filepath.Join(dir, "netsysrqd")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", binary, "./cmd/responder")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	_, err := output(cmd)
	return binary, err
}

// references are the C programs.
type references struct {
	cnfq string // libnetfilter_queue at its plainest
	lat  string // one-way latency
}

// compile makes them.
func compile(ctx context.Context, source, dir string) (*references, error) {
	const need = "the reference programs cnfq.c and lat.c, gcc and libnetfilter-queue-dev are needed to compare with; " +
		"say with -reference where the programs are"
	r := &references{cnfq: filepath.Join(dir, "cnfq"), lat: filepath.Join(dir, "lat")}
	for _, p := range []struct {
		binary string
		libs   []string
	}{{r.cnfq, []string{"-lnetfilter_queue", "-lnfnetlink"}}, {r.lat, nil}} {
		c := filepath.Join(source, filepath.Base(p.binary)+".c")
		if _, err := os.Stat(c); err != nil {
			return nil, fmt.Errorf("%w\n%s", err, need)
		}
		cmd := exec.CommandContext(ctx, "gcc", append([]string{"-O2", "-o", p.binary, c}, p.libs...)...)
		if _, err := output(cmd); err != nil {
			return nil, fmt.Errorf("%w\n%s", err, need)
		}
	}
	return r, nil
}

// kernel is the release of the running kernel.
func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "of unknown version"
	}
	release, _, _ := bytes.Cut(u.Release[:], []byte{0})
	return string(release)
}
