// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// hang begins a scenario. Those that would keep the answer from the host begin
// a moment later.
func (s *server) hang(name string, args []string) error {
	scenario, ok := scenarios[name]
	if !ok {
		return fmt.Errorf("no scenario %q", name)
	}
	return scenario(s, args)
}

// scenarios are those that the host cannot make with the other operations.
var scenarios = map[string]func(s *server, args []string) error{
	"memory":    (*server).exhaustMemory,
	"fifo":      (*server).fifo,
	"conntrack": (*server).fillConntrack,
	"freeze-fs": (*server).freezeFileSystem,
	"spin":      (*server).spin,
}

// self is this program, wherever it lies.
const self = "/proc/self/exe"

// hog starts this program as one of the hogs.
func (s *server) hog(name string, args ...string) error {
	_, err := s.processes.start("hog-"+name, append([]string{self, name}, args...))
	return err
}

// exhaustMemory takes nearly all memory for good, and has others fight for the
// rest.
func (s *server) exhaustMemory([]string) error {
	for i := range 3 {
		if err := s.hog("memory-fight", strconv.Itoa(i)); err != nil {
			return err
		}
	}
	return s.hog("memory-hold")
}

// fifo spins at the highest priority on every CPU, with no time kept for others.
func (s *server) fifo([]string) error {
	if err := os.WriteFile("/proc/sys/kernel/sched_rt_runtime_us", []byte("-1"), 0); err != nil {
		return err
	}
	return s.hog("fifo")
}

// fillConntrack fills the table with connections that are not given up for new
// ones.
func (s *server) fillConntrack([]string) error {
	if out, code, err := s.processes.exec(time.Minute, nil, []string{"/bin/sh", "-c", trackAll}); err != nil || code != 0 {
		return fmt.Errorf("track connections: exit code %d %v: %s", code, err, out)
	}
	if err := s.hog("conntrack"); err != nil {
		return err
	}
	// The hog says when it is done by setting the limit.
	const limit = "/proc/sys/net/netfilter/nf_conntrack_max"
	before, err := os.ReadFile(limit)
	if err != nil {
		return err
	}
	for range 300 {
		time.Sleep(50 * time.Millisecond)
		if now, err := os.ReadFile(limit); err == nil && string(now) != string(before) {
			return nil
		}
	}
	return errors.New("the connections were not made in time")
}

// trackAll has every packet tracked, as the firewalls of most hosts do.
const trackAll = `iptables-legacy -I INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT &&
ip6tables-legacy -I INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT`

// freezeFileSystem has processes write to a file system and freezes it under
// them.
func (s *server) freezeFileSystem(args []string) error {
	if len(args) != 1 {
		return errors.New("say where")
	}
	for i := range 4 {
		if err := s.hog("write", filepath.Join(args[0], "written"+strconv.Itoa(i))); err != nil {
			return err
		}
	}
	time.Sleep(300 * time.Millisecond)
	dir, err := unix.Open(args[0], unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	const fifreeze = 0xc0045877 // _IOWR('X', 119, int)
	if err := unix.IoctlSetInt(dir, fifreeze, 0); err != nil {
		return fmt.Errorf("freeze %s: %w", args[0], err)
	}
	return nil
}

// spin has the helper module take CPUs away, such as "preempt 1".
func (s *server) spin(args []string) error {
	return os.WriteFile("/sys/module/hang/parameters/spin", []byte(strings.Join(args, " ")), 0)
}
