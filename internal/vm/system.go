// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"
)

// What follows is for package system, whose machines have a whole Debian in place
// of the bench's own init. The rest of a machine is the same.

// Launch starts a machine and does not wait for it. The options are QEMU's, for
// what it has besides the wire, the console and QMP; the control channel is the
// character device "control". The kernel is to get KernelParameters.
func Launch(memory int, life time.Duration, options ...string) (*Machine, error) {
	qemu, err := find("qemu-system-x86_64")
	if err != nil {
		return nil, err
	}
	m, err := start(qemu, append(hardware(memory), options...), life)
	if err != nil {
		return nil, fmt.Errorf("start QEMU: %w", err)
	}
	return m, nil
}

// Quit ends the machine as a loss of power would, and waits until QEMU has written
// what it knows of the disks. Close does not wait for that.
func (m *Machine) Quit(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if _, err := m.QMP(ctx, "quit", nil); err == nil {
		select {
		case <-m.ended:
		case <-ctx.Done():
		}
	}
	m.Close()
}

// KernelParameters returns what every kernel of the bench is told, and more. It is
// the same in each process.
func KernelParameters(more ...string) string {
	return strings.TrimSpace(kernelParameters + tsc() + " " + strings.Join(more, " "))
}

// AddAgent adds the shell of an initramfs, and the program that serves the control
// channel, as the file named: "NAME attach PORT".
func (t *Tree) AddAgent(ctx context.Context, name string) error {
	t.device("/dev/console", 5, 1)
	t.device("/dev/null", 1, 3)
	box, err := busybox(ctx)
	if err != nil {
		return err
	}
	t.Copy("/bin/busybox", box)
	t.Link("/bin/sh", "busybox")
	dir, err := os.MkdirTemp("", "netsysrq-vm-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	built := dir + "/agent"
	if err := goBuild(ctx, "netsysrq/internal/vm/guest", built, "-trimpath", "-buildvcs=false", "-ldflags=-s -w"); err != nil {
		return err
	}
	t.Copy(name, built)
	return nil
}

// Archive returns the tree as an initramfs.
func (t *Tree) Archive() ([]byte, error) { return t.archive() }

// Locked runs fn while no other process of the bench changes that part of the
// cache, whose folder fn is told.
func Locked(part string, fn func(dir string) error) error { return locked(part, fn) }

// Script runs a script of another package and returns the last line that it
// printed. The package's folder, scripts and all, is laid beside this one's, as
// they are in the tree.
func Script(ctx context.Context, pkg string, files fs.FS, name string, args ...string) (string, error) {
	return runScript(ctx, map[string]fs.FS{"vm": scripts, pkg: files}, pkg+"/scripts/"+name, args...)
}

// Find returns the path of a command of the host.
func Find(name string) (string, error) { return find(name) }

// Tool runs a command of the host, which is to succeed.
func Tool(ctx context.Context, name string, args ...string) error { return tool(ctx, name, args...) }
