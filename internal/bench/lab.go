// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lab is three network namespaces of this process, by name.
type lab struct {
	client, host, reference string
}

// A wire joins the client with one of the servers. Its ends have the same
// device name and link addresses that are known, so that nobody ever asks for
// a neighbour: the question could get lost in a flood.
type wire struct {
	device         string
	client, server [2]netip.Addr // IPv4, IPv6
	clientMAC      net.HardwareAddr
	serverMAC      net.HardwareAddr
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

var (
	toHost = wire{
		device:    "host",
		client:    [2]netip.Addr{addr("192.0.2.1"), addr("2001:db8::1")},
		server:    [2]netip.Addr{addr("192.0.2.2"), addr("2001:db8::2")},
		clientMAC: net.HardwareAddr{2, 0, 0, 0, 1, 1},
		serverMAC: net.HardwareAddr{2, 0, 0, 0, 1, 2},
	}
	toReference = wire{
		device:    "reference",
		client:    [2]netip.Addr{addr("198.51.100.1"), addr("2001:db8:1::1")},
		server:    [2]netip.Addr{addr("198.51.100.2"), addr("2001:db8:1::2")},
		clientMAC: net.HardwareAddr{2, 0, 0, 0, 2, 1},
		serverMAC: net.HardwareAddr{2, 0, 0, 0, 2, 2},
	}
)

// The client has many addresses, each in an IPv6 /64 of its own. Requests come
// from them in turn: the rules treat one that sends many a second as a flood.
const clientSources = 32

func clientSource(family, i int) netip.Addr {
	if family == 0 {
		return netip.AddrFrom4([4]byte{203, 0, 113, byte(i + 1)})
	}
	return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0, 2, 0, byte(i + 1), 15: 1})
}

// newLab makes the namespaces.
func newLab(ctx context.Context) (l *lab, err error) {
	prefix := fmt.Sprintf("nb%d", os.Getpid())
	l = &lab{client: prefix + "c", host: prefix + "h", reference: prefix + "r"}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	for _, ns := range l.names() {
		if err := ip(ctx, "netns", "add", ns); err != nil {
			return l, err
		}
		if err := ip(ctx, "-n", ns, "link", "set", "lo", "up"); err != nil {
			return l, err
		}
	}
	if err := l.connect(ctx, toHost, l.host); err != nil {
		return l, err
	}
	if err := l.connect(ctx, toReference, l.reference); err != nil {
		return l, err
	}
	for i := range clientSources {
		for family := range 2 {
			a := clientSource(family, i)
			if err := ip(ctx, "-n", l.client, "addr", "add", netip.PrefixFrom(a, a.BitLen()).String(), "dev", "lo"); err != nil {
				return l, err
			}
		}
	}
	for family, route := range []string{"203.0.113.0/24", "2001:db8:2::/48"} {
		if err := ip(ctx, "-n", l.host, "route", "add", route, "via", toHost.client[family].String()); err != nil {
			return l, err
		}
	}
	return l, nil
}

func (l *lab) connect(ctx context.Context, w wire, server string) error {
	err := ip(ctx, "link", "add", w.device, "netns", l.client, "address", w.clientMAC.String(), "type", "veth",
		"peer", "name", w.device, "netns", server, "address", w.serverMAC.String())
	if err != nil {
		return err
	}
	for _, end := range []struct {
		ns        string
		own, peer [2]netip.Addr
		peerMAC   net.HardwareAddr
	}{
		{l.client, w.client, w.server, w.serverMAC},
		{server, w.server, w.client, w.clientMAC},
	} {
		if err := ip(ctx, "-n", end.ns, "link", "set", w.device, "up"); err != nil {
			return err
		}
		for family, bits := range []int{24, 64} {
			own := netip.PrefixFrom(end.own[family], bits).String()
			add := []string{"-n", end.ns, "addr", "add", own, "dev", w.device}
			if family == 1 {
				add = append(add, "nodad")
			}
			if err := ip(ctx, add...); err != nil {
				return err
			}
			if err := ip(ctx, "-n", end.ns, "neigh", "replace", end.peer[family].String(), "lladdr", end.peerMAC.String(),
				"dev", w.device, "nud", "permanent"); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *lab) names() []string { return []string{l.client, l.host, l.reference} }

// close removes the namespaces, whatever has become of the run's context.
func (l *lab) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var errs []error
	for _, ns := range l.names() {
		if _, err := os.Stat(netnsPath(ns)); err == nil {
			errs = append(errs, ip(ctx, "netns", "del", ns))
		}
	}
	return errors.Join(errs...)
}

func netnsPath(ns string) string { return filepath.Join("/run/netns", ns) }

// command is a command that will run inside ns, and be killed with ctx. `ip
// netns exec` becomes the command: its process id is the command's.
func (l *lab) command(ctx context.Context, ns, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", ns, name}, args...)...)
	cmd.WaitDelay = 2 * time.Second
	return cmd
}

// do runs fn inside ns on a thread of its own, which ends with it.
func (l *lab) do(ns string, fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread is in another namespace
		fd, err := unix.Open(netnsPath(ns), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			unix.Close(fd)
		}
		if err == nil {
			err = fn()
		}
		done <- err
	}()
	return <-done
}

func ip(ctx context.Context, args ...string) error {
	_, err := output(exec.CommandContext(ctx, "ip", args...))
	return err
}

// output runs a command and returns what it printed; the error has all of that.
func output(cmd *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = 2 * time.Second
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s%s", strings.Join(cmd.Args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String(), nil
}
