// SPDX-License-Identifier: GPL-2.0-only

//go:build install

package system_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"netsysrq/internal/system"
	"netsysrq/internal/vm"
)

// report is what the operator's command says with --json, as far as tests need it.
type report struct {
	Outcome  string
	Exit     int
	Message  string
	Request  string `json:"request_id"`
	Replies  int
	BootID   string
	Executor string
	Armed    bool
}

// ask is try with --json, for a command with one host.
func (o *operator) ask(ctx context.Context, limit time.Duration, args ...string) (r report, err error) {
	a, err := o.try(ctx, limit, append(args[:len(args):len(args)], "--json")...)
	if err != nil {
		return r, err
	}
	var said struct {
		report
		Reply struct {
			BootID   string `json:"boot_id"`
			Executor string
			Armed    bool
		}
	}
	if err := json.Unmarshal([]byte(a.out), &said); err != nil {
		return r, fmt.Errorf("netsysrq %v: %w: %s", args, err, a.out)
	}
	r = said.report
	r.BootID, r.Executor, r.Armed = said.Reply.BootID, said.Reply.Executor, said.Reply.Armed
	return r, nil
}

// awaitStatus asks for a status until one is answered by whom it should be.
func (o *operator) awaitStatus(t *testing.T, executor string, limit time.Duration) report {
	t.Helper()
	for deadline := time.Now().Add(limit); ; {
		r, err := o.ask(t.Context(), time.Minute, "status", "web1", "--timeout", "2s")
		if err != nil {
			t.Fatal(err)
		}
		if r.Exit == 0 && r.Executor == executor {
			t.Logf("status: %s", r.Message)
			return r
		}
		if time.Now().After(deadline) {
			t.Fatalf("no status by the %s within %v, at last: %s", executor, limit, r.Message)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// reset waits until the machine has reset itself by SysRq, and fails unless it was
// that. The console is that of the boot that ends.
func reset(t *testing.T, m *system.Machine, console *vm.Console, mark int) {
	t.Helper()
	end, err := m.Wait(vm.Within(t, time.Minute))
	if err != nil || end.Fate != vm.Reset {
		t.Fatalf("the machine ended with %+v, %v", end, err)
	}
	for _, line := range []string{"Emergency Sync complete", "Emergency Remount complete", "sysrq: Resetting"} {
		if _, err := console.Await(vm.Within(t, 10*time.Second), mark, line); err != nil {
			t.Error(err)
		}
	}
}

// hold keeps the daemon from starting until a file is there.
const hold = `[Service]
TimeoutStartSec=infinity
ExecStartPre=+/bin/sh -c 'until [ -e /run/go ]; do sleep 0.1; done'
`

// Every process of an installed host is frozen. One command saves what was only in
// memory, resets the host and follows it until its daemon is back; on the way up
// the kernel answers for the daemon.
func TestHangAfterInstall(t *testing.T) {
	onOne(t, system.Bookworm, func(t *testing.T, i *system.Image) {
		m := system.From(t, installed(t, i), system.Options{})
		o := newOperator(t, m)
		o.enroll(t, m)
		before := o.awaitStatus(t, "daemon", time.Minute)

		m.Sh(t, time.Minute, "mkdir /etc/systemd/system/netsysrqd.service.d")
		if err := m.WriteFile(vm.Within(t, time.Minute), "/etc/systemd/system/netsysrqd.service.d/hold.conf", 0o644, []byte(hold)); err != nil {
			t.Fatal(err)
		}
		// From here on the kernel writes nothing by itself.
		m.Sh(t, time.Minute, "sync; sysctl -q vm.dirty_writeback_centisecs=0; echo saved >/var/lib/memory-only")
		console, mark := m.Console, m.Console.Mark()
		if _, err := m.Freeze(vm.Within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
		type ended struct {
			answer
			err error
		}
		followed := make(chan ended, 1)
		go func() {
			a, err := o.try(t.Context(), 5*time.Minute, "reboot", "web1", "--yes", "--wait")
			followed <- ended{a, err}
		}()
		reset(t, m, console, mark)

		done := phase(t, "power on until the daemon answers")
		o.powerOn(t, m)
		up := o.awaitStatus(t, "kernel", 2*time.Minute)
		if !up.Armed || up.BootID == before.BootID || !strings.Contains(up.Message, "no daemon was ever heard") {
			t.Errorf("before the daemon is up: %+v", up)
		}
		if saved, err := m.ReadFile(vm.Within(t, time.Minute), "/var/lib/memory-only"); err != nil || string(saved) != "saved\n" {
			t.Errorf("what was in memory is now %q, %v", saved, err)
		}
		m.Sh(t, time.Minute, "touch /run/go")
		if again := o.awaitStatus(t, "daemon", 2*time.Minute); !again.Armed || again.BootID != up.BootID {
			t.Errorf("after the daemon is up: %+v", again)
		}
		done()
		select {
		case f := <-followed:
			t.Logf("netsysrq reboot --wait: %d, %v: %s", f.code, f.err, f.out)
			for _, want := range []string{"came back by its daemon", "accepted: n, s, u, b", "the kernel answers"} {
				if f.err != nil || f.code != 0 || !strings.Contains(f.out, want) {
					t.Errorf("netsysrq reboot --wait does not say %q", want)
				}
			}
		case <-time.After(time.Minute):
			t.Error("netsysrq reboot --wait has not ended")
		}
	})
}

// A host that never comes to its daemon, since something before it blocks the boot,
// is armed nevertheless.
func TestHangInBoot(t *testing.T) {
	onOne(t, system.Trixie, func(t *testing.T, i *system.Image) {
		m := system.From(t, installed(t, i), system.Options{})
		o := newOperator(t, m)
		o.enroll(t, m)
		if err := m.WriteFile(vm.Within(t, time.Minute), "/etc/systemd/system/stuck.service", 0o644, []byte(stuck)); err != nil {
			t.Fatal(err)
		}
		m.Sh(t, time.Minute, "systemctl -q enable stuck; sync")

		done := phase(t, "power on until the kernel answers")
		o.powerOn(t, m)
		if s := o.awaitStatus(t, "kernel", 2*time.Minute); !s.Armed {
			t.Errorf("not armed: %+v", s)
		}
		done()
		m.Sh(t, time.Minute, "until pgrep -x sleep; do sleep 0.1; done")
		if state, _, err := m.Exec(vm.Within(t, time.Minute), nil, "systemctl", "is-system-running"); state != "initializing\n" {
			t.Errorf("the system is %q, %v", state, err)
		}
		if out, code, err := m.Exec(vm.Within(t, time.Minute), nil, "pgrep", "-x", "netsysrqd", "-u", "netsysrq"); code != 1 || err != nil {
			t.Errorf("the daemon runs: %s %d %v", out, code, err)
		}
		began := monotonic(t, m, "ExecMainStartTimestampMonotonic", "netsysrq-arm.service")
		armed := monotonic(t, m, "ExecMainExitTimestampMonotonic", "netsysrq-arm.service")
		network := monotonic(t, m, "ExecMainStartTimestampMonotonic", "systemd-networkd.service")
		t.Logf("after boot: arming began at %v and was done at %v, the network began at %v", began, armed, network)
		if armed > network {
			t.Error("the network began before the host was armed")
		}

		mark := m.Console.Mark()
		if a := o.run(t, time.Minute, "reboot", "web1", "--yes"); a.code != 0 || !strings.Contains(a.out, "the kernel answers") {
			t.Errorf("reboot ended with %d", a.code)
		}
		reset(t, m, m.Console, mark)
	})
}

// monotonic is a time since boot that systemd knows of a unit.
func monotonic(t *testing.T, m *system.Machine, property, unit string) time.Duration {
	t.Helper()
	out := m.Sh(t, time.Minute, "systemctl show --value --property="+property+" "+unit)
	us, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
	if err != nil || us == 0 {
		t.Fatalf("%s of %s is %q", property, unit, out)
	}
	return time.Duration(us) * time.Microsecond
}
