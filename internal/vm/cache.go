// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrUnavailable is wrapped when something that the bench needs cannot be had
// here: a test that meets it is to be skipped.
var ErrUnavailable = errors.New("the VM bench cannot run here")

//go:embed scripts
var scripts embed.FS

// CacheDir is where kernels and modules are kept: $NETSYSRQ_CACHE or
// ~/.cache/netsysrq. What is in it may be removed at any time that no test runs.
func CacheDir() (string, error) {
	dir := os.Getenv("NETSYSRQ_CACHE")
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		dir = filepath.Join(base, "netsysrq")
	}
	return filepath.Abs(dir)
}

// locked runs fn while no other process of the bench changes that part of the
// cache.
func locked(part string, fn func(dir string) error) error {
	dir, err := CacheDir()
	if err != nil {
		return err
	}
	locks := filepath.Join(dir, "locks")
	if err := os.MkdirAll(locks, 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(locks, part), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer f.Close() // unlocks
	for {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			if err != nil {
				return fmt.Errorf("lock the cache: %w", err)
			}
			return fn(dir)
		}
	}
}

// script runs one of the scripts and returns the last line that it printed. The
// scripts bound each of their downloads; this bounds them together.
func script(ctx context.Context, name string, args ...string) (string, error) {
	return runScript(ctx, map[string]fs.FS{"vm": scripts}, "vm/scripts/"+name, args...)
}

// runScript runs a script out of folders that lie side by side, as in the tree.
func runScript(ctx context.Context, sources map[string]fs.FS, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 40*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "netsysrq-scripts-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	for folder, files := range sources {
		if err := os.CopyFS(filepath.Join(dir, folder), files); err != nil {
			return "", err
		}
	}
	cmd := exec.CommandContext(ctx, "bash", append([]string{filepath.Join(dir, name)}, args...)...)
	cmd.Env = append(os.Environ(), "PATH="+searchPath(), "LC_ALL=C.UTF-8")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%w: %s %s: %w\n%s", ErrUnavailable, name, strings.Join(args, " "), err, tail(stderr.Bytes(), 2000))
	}
	lines := strings.Split(strings.TrimSpace(stdout.String()), "\n")
	return lines[len(lines)-1], nil
}

// searchPath is $PATH with the folders of an administrator's commands.
func searchPath() string {
	return os.Getenv("PATH") + ":/usr/local/sbin:/usr/sbin:/sbin"
}

// find returns the path of a command.
func find(name string) (string, error) {
	for _, dir := range filepath.SplitList(searchPath()) {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("%w: the command %s is not installed", ErrUnavailable, name)
}

func tail(b []byte, n int) []byte { return b[max(0, len(b)-n):] }

// Prepare installs, once in a process, what the bench needs on the host: QEMU
// above all. It fails with ErrUnavailable where that cannot be done.
var Prepare = sync.OnceValue(func() error {
	return locked("deps", func(string) error {
		_, err := script(context.Background(), "deps.sh")
		return err
	})
})
