// SPDX-License-Identifier: GPL-2.0-only

// Package netlab builds the network that an integration test runs in: two
// network namespaces of its own, joined by a veth pair. Nothing leaves them.
//
//	  Lab.Client                                Lab.Server
//	┌──────────────────────┐                 ┌──────────────────────┐
//	│ lo                   │                 │ lo                   │
//	│ lab0  192.0.2.1/24   ├───── veth ──────┤ lab0  192.0.2.2/24   │
//	│       2001:db8::1/64 │                 │       2001:db8::2/64 │
//	└──────────────────────┘                 └──────────────────────┘
//
// Every lab has names of its own, so that tests of several packages can run at
// the same time, and uses the addresses of RFC 5737 and RFC 3849.
package netlab

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Addresses and the device name, the same in every lab.
const (
	Device     = "lab0" // the end of the veth pair, in either namespace
	ClientIPv4 = "192.0.2.1"
	ServerIPv4 = "192.0.2.2"
	ClientIPv6 = "2001:db8::1"
	ServerIPv6 = "2001:db8::2"
)

// commandTimeout bounds one setup, cleanup or Run command.
const commandTimeout = 20 * time.Second

// Lab is a pair of network namespaces. Its fields are names as `ip netns` and
// /run/netns know them.
type Lab struct {
	Client, Server string
}

// New builds a lab and registers its removal with t.Cleanup. It skips the test,
// saying why, where namespaces cannot be made; any other failure is fatal.
// When it returns, both ends are up and no address is tentative.
//
// The cleanup kills the processes that still run inside the two namespaces.
func New(t testing.TB) *Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("network namespaces need the ip command (iproute2)")
	}
	id := make([]byte, 4)
	rand.Read(id)
	name := "lab" + hex.EncodeToString(id)
	l := &Lab{Client: name + "c", Server: name + "s"}

	for _, ns := range []string{l.Client, l.Server} {
		if out, err := run("ip", "netns", "add", ns); err != nil {
			if strings.Contains(out, "Operation not permitted") {
				t.Skipf("this root may not make network namespaces: %s", out)
			}
			t.Fatalf("make namespace: %v", err)
		}
		t.Cleanup(func() { remove(t, ns) })
		// Duplicate address detection would hold link-local addresses
		// back for a second or two.
		if err := l.Do(ns, noAddressDetection); err != nil {
			t.Fatalf("prepare namespace %s: %v", ns, err)
		}
	}
	setup := [][]string{
		{"link", "add", Device, "netns", l.Client, "type", "veth", "peer", "name", Device, "netns", l.Server},
		{"-n", l.Client, "addr", "add", ClientIPv4 + "/24", "dev", Device},
		{"-n", l.Server, "addr", "add", ServerIPv4 + "/24", "dev", Device},
		{"-n", l.Client, "addr", "add", ClientIPv6 + "/64", "dev", Device, "nodad"},
		{"-n", l.Server, "addr", "add", ServerIPv6 + "/64", "dev", Device, "nodad"},
	}
	for _, ns := range []string{l.Client, l.Server} {
		setup = append(setup,
			[]string{"-n", ns, "link", "set", "lo", "up"},
			[]string{"-n", ns, "link", "set", Device, "up"})
	}
	for _, args := range setup {
		if _, err := run("ip", args...); err != nil {
			t.Fatalf("build lab: %v", err)
		}
	}
	for _, ns := range []string{l.Client, l.Server} {
		if err := waitUp(ns); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// Command is a command that will run inside ns. It is killed when ctx ends; its
// pipes are closed two seconds later even if a child still holds them.
func (l *Lab) Command(ctx context.Context, ns string, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", ns, name}, args...)...)
	cmd.WaitDelay = 2 * time.Second
	return cmd
}

// Run runs a short command inside ns, at most 20 s long, and returns what it
// wrote on stdout and stderr. The error holds the command and its output.
func (l *Lab) Run(ns string, name string, args ...string) (string, error) {
	return run("ip", append([]string{"netns", "exec", ns, name}, args...)...)
}

// Do runs fn inside ns and returns its error. fn runs on a thread of its own
// that ends with it; sockets it opens stay in ns, goroutines it starts do not.
func (l *Lab) Do(ns string, fn func() error) error {
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the runtime then ends the thread, and no other
		// goroutine finds itself in the wrong namespace.
		runtime.LockOSThread()
		err := errors.New("the function did not return")
		defer func() { done <- err }() // runs after t.FailNow in fn too
		err = enter(ns)
		if err == nil {
			err = fn()
		}
	}()
	return <-done
}

func enter(ns string) error {
	fd, err := unix.Open(filepath.Join("/run/netns", ns), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open namespace %s: %w", ns, err)
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter namespace %s: %w", ns, err)
	}
	return nil
}

func noAddressDetection() error {
	for _, dev := range []string{"all", "default"} {
		path := "/proc/sys/net/ipv6/conf/" + dev + "/accept_dad"
		if err := os.WriteFile(path, []byte("0"), 0); err != nil {
			return err
		}
	}
	return nil
}

// waitUp waits until the kernel reports the carrier, which it does from a
// worker, and the IPv6 addresses are usable.
func waitUp(ns string) error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		link, err := run("ip", "-n", ns, "-o", "link", "show", "dev", Device)
		if err != nil {
			return err
		}
		tentative, err := run("ip", "-n", ns, "-6", "-o", "addr", "show", "dev", Device, "tentative")
		if err != nil {
			return err
		}
		if strings.Contains(link, "state UP") && tentative == "" {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("namespace %s: %s is not up: %s %s", ns, Device, link, tentative)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func remove(t testing.TB, ns string) {
	// A process in the namespace would keep it, and what it holds, alive.
	for range 10 {
		out, err := run("ip", "netns", "pids", ns)
		if err != nil || out == "" {
			break
		}
		for _, field := range strings.Fields(out) {
			pid, err := strconv.Atoi(field)
			if err == nil && pid > 1 && pid != os.Getpid() {
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	if _, err := run("ip", "netns", "del", ns); err != nil {
		t.Errorf("remove namespace: %v", err)
	}
}

func run(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = 2 * time.Second
	raw, err := cmd.CombinedOutput()
	out := string(bytes.TrimSpace(raw))
	if err != nil {
		return out, fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return out, nil
}
