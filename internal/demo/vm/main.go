// SPDX-License-Identifier: GPL-2.0-only

// Command vm shows what netsysrq is for: a throwaway virtual machine with a real
// kernel, the kernel module and the daemon, whose processes are frozen before
// the viewer's eyes, and which one packet brings back. It ends with exit code 1
// unless everything that it shows has happened. It needs no root.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"netsysrq/internal/vm"
)

// kernel is Debian 12's, which the host's compiler can build modules for.
const kernel = "6.1"

// silence is for how long the machine hangs before anybody helps.
const silence = 8 * time.Second

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: vm BIN MODULE: the folder of netsysrq and netsysrqd, and that of the kernel module's source")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first time, a kernel is downloaded and unpacked.
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	err := run(ctx, os.Args[1], os.Args[2])
	cancel()
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "demo: %v\n", err)
		if errors.Is(err, vm.ErrUnavailable) {
			fmt.Fprintln(os.Stderr, "hint: .ci/deps vm, as root, installs what is missing; make demo-netns needs no virtual machine")
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, bin, source string) (err error) {
	s, err := newStage(ctx, bin, source)
	if s != nil {
		defer func() { err = errors.Join(err, s.tearDown(err != nil)) }()
	}
	if err != nil {
		return err
	}
	for _, act := range []func(context.Context, *stage) error{
		prepare, enrol, boot, well, freeze, silent, rescue, again, judged,
	} {
		if err := act(ctx, s); err != nil {
			return err
		}
	}
	s.title("All of it happened. The machine, its disk and the keys are thrown away")
	return nil
}

// The acts.

func prepare(ctx context.Context, s *stage) error {
	cache, err := vm.CacheDir()
	if err != nil {
		return err
	}
	s.title("A kernel of Debian's, and the module built for it: minutes the first time, then they are in " + cache)
	return s.build(ctx)
}

func enrol(ctx context.Context, s *stage) error {
	s.title("An operator makes a key, and the host web1 gets its own from it")
	if _, err := s.netsysrq(ctx, 0, "keygen", "--operator", "alice", "--quiet"); err != nil {
		return err
	}
	s.say("$ netsysrq enroll web1 | ssh root@web1 netsysrqd keys add alice")
	return s.enrol(ctx)
}

func boot(ctx context.Context, s *stage) error {
	s.title("web1 boots: " + s.linux.Release + " in QEMU, two emulated CPUs")
	return s.boot(ctx)
}

func well(ctx context.Context, s *stage) error {
	s.title("web1 is well: ping is answered, a login is offered")
	if err := s.ping(ctx); err != nil {
		return err
	}
	if err := s.login(ctx, true); err != nil {
		return err
	}
	out, err := s.netsysrq(ctx, 0, "status", "web1")
	if err != nil {
		return err
	}
	return expect(out, healthyStatus)
}

func freeze(ctx context.Context, s *stage) error {
	s.title("Now it hangs. A file is written, and then every process but init is stopped")
	return s.freeze(ctx)
}

func silent(ctx context.Context, s *stage) error {
	s.title(fmt.Sprintf("For %g s nobody comes. Ping is answered, since the kernel takes interrupts; no login is", silence.Seconds()))
	// Not more often: telnetd's queue holds two connections that it has not taken.
	for range 2 {
		if err := s.ping(ctx); err != nil {
			return err
		}
		if err := s.login(ctx, false); err != nil {
			return err
		}
	}
	out, err := s.netsysrq(ctx, 0, "status", "web1")
	if err != nil {
		return err
	}
	if err := expect(out, "; the kernel answers: "+hungDaemon, "; armed"); err != nil {
		return err
	}
	return s.onDisk(false)
}

func rescue(ctx context.Context, s *stage) error {
	s.title("One packet: make real-time tasks ordinary, sync, remount read-only, reset")
	mark := s.machine.Console.Mark()
	out, err := s.netsysrq(ctx, 0, "reboot", "web1", "--yes")
	if err != nil {
		return err
	}
	if err := expect(out, "web1: accepted: n, s, u, b (", "; the kernel answers: "+hungDaemon); err != nil {
		return err
	}
	if err := s.reset(ctx, mark); err != nil {
		return err
	}
	return s.onDisk(true)
}

func again(ctx context.Context, s *stage) error {
	s.title("web1 boots again. (QEMU was told to end at a reset, so it is started anew, with the same disk)")
	if err := s.boot(ctx); err != nil {
		return err
	}
	if err := s.rescued(ctx); err != nil {
		return err
	}
	if err := s.ping(ctx); err != nil {
		return err
	}
	return s.login(ctx, true)
}

func judged(ctx context.Context, s *stage) error {
	s.title("A healthy host: the daemon judges. A drill rehearses its way, then that of a kernel on its own")
	out, err := s.netsysrq(ctx, healthyDrillExit, "drill", "web1")
	if err != nil {
		return err
	}
	if err := expect(out, healthyDrill...); err != nil {
		return err
	}
	return s.daemonLog(ctx)
}

// expect wants texts in what was printed.
func expect(out string, texts ...string) error {
	for _, text := range texts {
		if !strings.Contains(out, text) {
			return fmt.Errorf("what was printed lacks %q", text)
		}
	}
	return nil
}
