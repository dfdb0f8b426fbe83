// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"netsysrq/internal/vm/agent"
)

// attach serves the control channel on a virtio port, as one process of many: the
// system has an init of its own.
func attach(port string) error {
	path, err := findPort(port)
	if err != nil {
		return err
	}
	// Commands are to find what an administrator's shell has, and nothing of
	// the unit that this is. debconf would look for a terminal in four ways.
	os.Clearenv()
	for name, value := range map[string]string{
		"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME": "/root", "USER": "root", "LOGNAME": "root", "SHELL": "/bin/bash", "LANG": "C.UTF-8",
		"DEBIAN_FRONTEND": "noninteractive",
	} {
		os.Setenv(name, value)
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	s := newServer(newChannel(os.NewFile(uintptr(fd), path)))
	go s.processes.reap()
	s.channel.send(agent.Response{})
	s.serve()
	return nil
}

// findPort returns the device of a virtio port, which udev may not have named
// yet.
func findPort(name string) (string, error) {
	names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return "", err
	}
	for _, n := range names {
		if b, err := os.ReadFile(n); err == nil && strings.TrimSpace(string(b)) == name {
			return "/dev/" + filepath.Base(filepath.Dir(n)), nil
		}
	}
	return "", fmt.Errorf("there is no virtio port %q", name)
}

// freezeInit freezes an init that is not this program. No signal stops PID 1,
// but the control group that systemd gives itself can be frozen.
func freezeInit(freeze bool) error {
	if os.Getpid() == 1 {
		return nil
	}
	const scope = "/sys/fs/cgroup/init.scope/"
	value := "0"
	if freeze {
		value = "1"
	}
	if err := os.WriteFile(scope+"cgroup.freeze", []byte(value), 0); err != nil {
		return err
	}
	for range 100 {
		b, err := os.ReadFile(scope + "cgroup.events")
		if err != nil {
			return err
		}
		if strings.Contains(string(b), "frozen "+value) {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return errors.New("init cannot be frozen")
}
