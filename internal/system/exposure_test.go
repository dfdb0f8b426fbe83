// SPDX-License-Identifier: GPL-2.0-only

//go:build install

package system_test

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"netsysrq/internal/system"
	"netsysrq/internal/vm"
)

// maxExposure is the bar, by the reckoning of systemd-analyze security.
const maxExposure = 1.5

var (
	exposure = regexp.MustCompile(`Overall exposure level for netsysrqd.service: ([0-9.]+)`)
	denials  = regexp.MustCompile(`(?i)not permitted|denied|read-only file system|bad system call|no such device|panic`)
)

// The unit gives the daemon little, and with that it does all that it is there for,
// with the module and without, and meets no refusal.
func TestExposure(t *testing.T) {
	on(t, func(t *testing.T, i *system.Image) {
		m := system.From(t, installed(t, i), system.Options{})
		said := m.Sh(t, time.Minute, "systemd-analyze security --no-pager netsysrqd.service")
		level := exposure.FindStringSubmatch(said)
		if level == nil {
			t.Fatalf("no level: %s", said)
		}
		t.Log(level[0])
		if n, err := strconv.ParseFloat(level[1], 64); err != nil || n > maxExposure {
			t.Errorf("more than %v: %s", maxExposure, said)
		}

		o := newOperator(t, m)
		// An emulator that is late is not what this is about.
		m.Sh(t, time.Minute, `sed -i "s/^deadline = .*/deadline = \"3s\"/" /etc/netsysrq/netsysrqd.toml; grep -q "3s" /etc/netsysrq/netsysrqd.toml`)
		o.enroll(t, m, "--allow", "nsub9L")
		o.awaitDrill(t)
		wholeJob(t, o, m, true)
		m.Sh(t, 5*time.Minute, "systemctl stop netsysrq-arm; mv $(modinfo -n xt_NETSYSRQ) /root/; depmod; systemctl start netsysrq-arm netsysrq-rules")
		wholeJob(t, o, m, false)
		// From the start in that mode, too.
		m.Sh(t, 5*time.Minute, "systemctl restart netsysrqd")
		wholeJob(t, o, m, false)

		log := m.Sh(t, time.Minute, "journalctl --no-pager -o cat -u netsysrqd; journalctl --no-pager -k -g seccomp || true")
		for line := range strings.Lines(log) {
			if denials.MatchString(line) {
				t.Errorf("logged: %s", line)
			}
		}
		errors := m.Sh(t, time.Minute, "journalctl --no-pager -q -o cat -p err -u netsysrqd; systemctl show --property=NRestarts netsysrqd")
		if errors != "NRestarts=0\n" {
			t.Errorf("the daemon's errors: %s", errors)
		}
	})
}

// wholeJob has the daemon do all that it can, by the module or alone.
func wholeJob(t *testing.T, o *operator, m *system.Machine, armed bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		if s := o.awaitStatus(t, "daemon", time.Minute); s.Armed == armed {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("armed: %v", s.Armed)
		}
		time.Sleep(time.Second)
	}
	mark := m.Console.Mark()
	want := func(outcome, message string, args ...string) {
		t.Helper()
		r, err := o.ask(t.Context(), time.Minute, args...)
		if err != nil || r.Outcome != outcome || !strings.Contains(r.Message, message) || r.Executor != "daemon" || r.Armed != armed {
			t.Errorf("%v: %v %+v", args, err, r)
		}
	}
	want("accepted", "s, 9", "send", "web1", "s,9")
	for _, line := range []string{"Emergency Sync complete", "Loglevel set to 9"} {
		if _, err := m.Console.Await(vm.Within(t, time.Minute), mark, line); err != nil {
			t.Error(err)
		}
	}
	if log := o.must(t, "log", "web1", "--tail", "1K"); !strings.Contains(log, "Loglevel set to 9") {
		t.Errorf("the kernel log is without what was just run: %s", log)
	}
	if r, err := o.ask(t.Context(), time.Minute, "send", "web1", "c", "--yes"); err != nil || !strings.Contains(r.Message, "not allowed") {
		t.Errorf("what is not allowed: %v %+v", err, r)
	}
	m.Sh(t, time.Minute, "echo migration >/run/netsysrq/veto")
	want("refused", "vetoed", "send", "web1", "9")
	m.Sh(t, time.Minute, `rm /run/netsysrq/veto
		reloads() { journalctl --no-pager -o cat -u netsysrqd | grep -c '^reloaded'; }
		before=$(reloads) || true
		systemctl reload netsysrqd
		until [ $(reloads) -gt $before ]; do sleep 0.2; done`)
	want("accepted", "would be run", "send", "web1", "n,s,u,b", "--rehearse")
}
