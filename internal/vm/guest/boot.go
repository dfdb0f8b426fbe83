// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"netsysrq/internal/vm/agent"
)

// boot is what init does. It never returns: a kernel whose init ends panics.
func boot() {
	os.Setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
	os.Setenv("HOME", "/")
	err := mountAll()
	var c *channel
	if err == nil {
		c, err = openChannel("/dev/ttyS1")
	}
	if err != nil {
		// There is nobody else to tell.
		fmt.Println("init:", err)
		select {}
	}
	s := newServer(c)
	go s.processes.reap()
	var hello agent.Response
	if err := setUp(s); err != nil {
		hello.Error = err.Error()
	}
	c.send(hello)
	s.serve()
	fmt.Println("init: the control channel has ended")
	select {}
}

func mountAll() error {
	for _, m := range []struct{ kind, at string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"},
	} {
		if err := unix.Mount(m.kind, m.at, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	return nil
}

// setUp makes the machine what its Config says.
func setUp(s *server) error {
	b, err := os.ReadFile(agent.ConfigPath)
	if err != nil {
		return err
	}
	var c agent.Config
	if err := json.Unmarshal(b, &c); err != nil {
		return err
	}
	// Memory that runs out is to take others.
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0); err != nil {
		return err
	}
	for _, m := range c.Modules {
		load := loadModule
		if filepath.Base(m) == c.NICDriver+".ko" {
			load = func(m string) error { return loadNIC(m, c.NICCPU) }
		}
		if err := load(m); err != nil {
			return err
		}
	}
	if c.Mount[0] != "" {
		if err := mountDisk(c.Mount[0], c.Mount[1]); err != nil {
			return err
		}
	}
	for _, command := range c.Commands {
		if out, code, err := s.processes.exec(time.Minute, nil, command); err != nil || code != 0 {
			return fmt.Errorf("%v: exit code %d %v: %s", command, code, err, out)
		}
	}
	return checkInterrupts(c.NICDriver, c.NICCPU)
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), "", 0)
	// ENODEV: made for another processor; what stands in for it is there too.
	if err != nil && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("load %s: %w", path, err)
	}
	return nil
}

// mountDisk mounts a disk, which is there a moment after its driver.
func mountDisk(device, at string) error {
	var err error
	for range 100 {
		if err = unix.Mount(device, at, "ext4", 0, ""); !errors.Is(err, unix.ENOENT) {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("mount %s: %w", device, err)
	}
	return nil
}

// loadNIC loads a driver whose interrupts are to go to one CPU. That has to be
// said before: an interrupt that is set up already moves when it happens next,
// and the CPU that it happens on may hang by then.
func loadNIC(path string, cpu int) error {
	const all = "/proc/irq/default_smp_affinity"
	before, err := os.ReadFile(all)
	if err != nil {
		return err
	}
	if err := os.WriteFile(all, fmt.Appendf(nil, "%x", 1<<cpu), 0); err != nil {
		return err
	}
	return errors.Join(loadModule(path), os.WriteFile(all, before, 0))
}

// checkInterrupts fails unless all interrupts of a driver's devices go to one
// CPU. In /proc/interrupts they have the name of the virtio device, such as
// virtio1-input.0.
func checkInterrupts(driver string, cpu int) error {
	devices, err := filepath.Glob(filepath.Join("/sys/bus/virtio/drivers", driver, "virtio*"))
	if err != nil || len(devices) == 0 {
		return fmt.Errorf("no device has the driver %s", driver)
	}
	b, err := os.ReadFile("/proc/interrupts")
	if err != nil {
		return err
	}
	found := 0
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		device, _, _ := strings.Cut(f[len(f)-1], "-")
		for _, d := range devices {
			if device != filepath.Base(d) {
				continue
			}
			at, err := os.ReadFile(filepath.Join("/proc/irq", strings.TrimSuffix(f[0], ":"), "effective_affinity_list"))
			if err != nil {
				return err
			}
			if got := strings.TrimSpace(string(at)); got != strconv.Itoa(cpu) {
				return fmt.Errorf("the interrupt %s goes to CPU %s, not %d", f[len(f)-1], got, cpu)
			}
			found++
		}
	}
	if found == 0 {
		return fmt.Errorf("%s has no interrupts", driver)
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
