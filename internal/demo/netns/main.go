// SPDX-License-Identifier: GPL-2.0-only

// Command netns shows netsysrq at work on one machine: two network namespaces
// joined by a veth pair, the real rules, the real daemon, the real command.
// Only the trigger is a plain file, and a goroutine plays the kernel that
// would read it. It leaves nothing behind.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: netns DIR, the directory of netsysrq and netsysrqd")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	err := run(ctx, os.Args[1])
	cancel()
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "demo: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, bin string) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces and firewall rules need root: run make demo-netns as root")
	}
	d, err := newStage(ctx, bin)
	if d != nil {
		defer func() { err = errors.Join(err, d.tearDown()) }()
	}
	if err != nil {
		return err
	}
	for _, act := range []func(*stage) error{
		enrol, start, status, drill, rehearsal, refusal, reboot, replay, junk,
	} {
		if err := act(d); err != nil {
			return err
		}
	}
	fmt.Println("\nNamespaces, rules, daemon and files are removed again.")
	return nil
}

// The acts. Each shows a command of the operator and what the daemon logged.

func enrol(d *stage) error {
	d.title("An operator makes a key, and the host web1 gets its own from it")
	if err := d.operator("keygen"); err != nil {
		return err
	}
	fmt.Println("$ netsysrq enroll web1 | ssh root@web1 netsysrqd keys add alice")
	line, err := d.output(d.client, "netsysrq", "enroll", "web1")
	if err != nil {
		return err
	}
	return d.host(line, "keys", "add", "alice")
}

func start(d *stage) error {
	d.title("The host gets its rules, and the daemon starts and gives up root")
	if err := d.host(nil, "rules", "apply"); err != nil {
		return err
	}
	if err := d.startDaemon(); err != nil {
		return err
	}
	d.logged()
	return nil
}

func status(d *stage) error {
	d.title("A status: nothing happens but an answer")
	return d.expect(0, "", "status", "web1")
}

func drill(d *stage) error {
	d.title("A drill, once by the daemon and once by the kernel alone: here there is no kernel module, and the drill says so")
	const halfProved = 7
	return d.expect(halfProved, "", "drill", "web1")
}

func rehearsal(d *stage) error {
	d.title("A rehearsal: everything but the act")
	return d.expect(0, "", "reboot", "web1", "--rehearse")
}

func refusal(d *stage) error {
	d.title("A sequence that alice may not use: crash dump")
	return d.expect(3, "", "send", "web1", "s,c", "--yes")
}

func reboot(d *stage) error {
	d.title("A reboot: make real-time tasks ordinary, sync, remount read-only, reset")
	if err := d.startCapture(); err != nil {
		return err
	}
	return d.expect(0, "nsub", "reboot", "web1", "--yes")
}

func replay(d *stage) error {
	packets := d.endCapture()
	d.title(fmt.Sprintf("Someone recorded the %d packets of that reboot and sends them again, 20 times each", len(packets)))
	if len(packets) == 0 {
		return errors.New("nothing was recorded")
	}
	if err := d.send(packets, 20); err != nil {
		return err
	}
	time.Sleep(200 * time.Millisecond)
	d.logged()
	return d.trigger("")
}

func junk(d *stage) error {
	d.title("Junk: 3000 packets with the right length and magic, none of them sealed")
	if err := d.send([][]byte{append([]byte("NSRQ\x01\x01\x00\x00"), bytes.Repeat([]byte{0x5a}, 120)...)}, 3000); err != nil {
		return err
	}
	fmt.Println("The daemon counts what it ignores, and says so every ten seconds and when it ends:")
	if err := d.stopDaemon(); err != nil {
		return err
	}
	d.logged()
	return d.trigger("")
}

// expect runs netsysrq, shows the log line next to its output and checks its
// exit code and what was written to the trigger.
func (d *stage) expect(code int, keys string, args ...string) error {
	err := d.operator(args...)
	var exit *exec.ExitError
	got := 0
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		return err
	}
	if err := d.trigger(keys); err != nil {
		return err
	}
	d.logged()
	fmt.Printf("  exit status %d\n", got)
	if got != code {
		return fmt.Errorf("netsysrq %s: exit status %d, want %d", strings.Join(args, " "), got, code)
	}
	return nil
}

// trigger waits until the keys written since the last call are those wanted.
func (d *stage) trigger(want string) error {
	path := filepath.Join(d.dir, "trigger")
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		got := string(b[d.triggered:])
		if got == want {
			d.triggered = len(b)
			// The log line of the last step follows the step.
			time.Sleep(50 * time.Millisecond)
			fmt.Printf("  written to the trigger: %q\n", got)
			return nil
		}
		if !strings.HasPrefix(want, got) || time.Now().After(deadline) {
			return fmt.Errorf("the trigger got %q, want %q", got, want)
		}
	}
}
