// SPDX-License-Identifier: GPL-2.0-only

//go:build install

package system_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"netsysrq/internal/system"
	"netsysrq/internal/vm"
)

// on runs a test on every release, side by side with all others.
func on(t *testing.T, test func(t *testing.T, i *system.Image)) {
	t.Helper()
	onPrepared(t, system.Releases, test)
}

// everything has tests leave nothing out for the sake of time.
var everything = os.Getenv("INSTALL") == "all"

// onOne runs a test on one release: the other one has little to add to it, and an
// emulator takes minutes. INSTALL=all has it run on every one.
func onOne(t *testing.T, r system.Release, test func(t *testing.T, i *system.Image)) {
	t.Helper()
	if everything {
		on(t, test)
		return
	}
	onPrepared(t, []system.Release{r}, test)
}

func onPrepared(t *testing.T, releases []system.Release, test func(t *testing.T, i *system.Image)) {
	t.Helper()
	prepare(t, releases)
	onBare(t, releases, func(t *testing.T, i *system.Image) {
		vm.Check(t, prepared[i.Release])
		test(t, i)
	})
}

// onBare is on for tests that have no use for our packages.
func onBare(t *testing.T, releases []system.Release, test func(t *testing.T, i *system.Image)) {
	t.Parallel()
	for _, r := range releases {
		t.Run(string(r), func(t *testing.T) {
			t.Parallel()
			test(t, system.NewImage(t, r))
		})
	}
}

// phase logs how long something took.
func phase(t *testing.T, what string) func() {
	start := time.Now()
	return func() { t.Logf("%s: %.1f s", what, time.Since(start).Seconds()) }
}

// makeDeb makes a package that says what it needs and installs one file.
func makeDeb(t *testing.T, name, version, depends string, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	control := fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\n"+
		"Depends: %s\nDescription: made by a test\n", name, version, depends)
	files["DEBIAN/control"] = control
	for path, content := range files {
		path = filepath.Join(dir, "tree", path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	deb := filepath.Join(dir, name+".deb")
	cmd := exec.Command("dpkg-deb", "--root-owner-group", "--build", filepath.Join(dir, "tree"), deb)
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1000000000") // the same bytes each time
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("dpkg-deb: %v: %s", err, out)
	}
	return deb
}

// checkClock fails unless the machine's seconds are ours.
func checkClock(t *testing.T, m *system.Machine) {
	t.Helper()
	ctx := vm.Within(t, time.Minute)
	if early := m.Sh(t, time.Minute, "cat /proc/cmdline"); !strings.Contains(early, "tsc_early_khz=") {
		t.Errorf("the kernel was not told its TSC's frequency: %s", early)
	}
	first, err := m.Clocks(ctx)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	time.Sleep(3 * time.Second)
	second, err := m.Clocks(ctx)
	if err != nil {
		t.Fatal(err)
	}
	rate := (second.Monotonic - first.Monotonic).Seconds() / time.Since(start).Seconds()
	if rate < 0.8 || rate > 1.25 { // an answer takes its time on a busy host
		t.Errorf("the clock runs at %.2f of ours", rate)
	}
}

func TestHarnessRuns(t *testing.T) {
	onBare(t, system.Releases, func(t *testing.T, i *system.Image) {
		done := phase(t, "state")
		s := system.NewBooted(t, i)
		done()
		done = phase(t, "resume")
		m := system.From(t, s, system.Options{})
		done()
		if got := strings.TrimSpace(m.Sh(t, time.Minute, "uname -r")); got != i.Kernel {
			t.Errorf("the kernel is %q, not %q", got, i.Kernel)
		}
		if got := strings.TrimSpace(m.Sh(t, time.Minute, "systemctl is-system-running")); got != "running" {
			t.Errorf("the system is %q", got)
		}
		out, code, err := m.Exec(t.Context(), []byte("in"), "sh", "-c", "cat; echo out; exit 7")
		if out != "inout\n" || code != 7 || err != nil {
			t.Errorf("exec: %q, %d, %v", out, code, err)
		}
		clocks, err := m.Clocks(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if late := time.Since(time.Unix(0, int64(clocks.Real))); late.Abs() > 5*time.Second {
			t.Errorf("the clock is late by %v", late)
		}
		checkClock(t, m)
		hosts, err := m.ReadFile(t.Context(), "/etc/hosts")
		if err != nil || !strings.Contains(string(hosts), "web1") {
			t.Errorf("/etc/hosts: %q, %v", hosts, err)
		}
	})
}

const echo = `
import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
s.bind(("::", 9))
open("/run/echo.ready", "w").close()
while True:
    data, peer = s.recvfrom(2000)
    s.sendto(data.upper(), peer)
`

func TestHarnessNetwork(t *testing.T) {
	onBare(t, system.Releases, func(t *testing.T, i *system.Image) {
		m := system.New(t, i, system.Options{})
		// Nothing of a firewall is there before a test puts it there.
		rules := m.Sh(t, time.Minute, "cat /proc/net/ip_tables_names /proc/net/ip6_tables_names 2>/dev/null || true; nft list ruleset")
		if strings.TrimSpace(rules) != "" {
			t.Errorf("rules: %s", rules)
		}
		ctx := vm.Within(t, time.Minute)
		if err := m.WriteFile(ctx, "/run/echo.py", 0o644, []byte(echo)); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Start(ctx, "echo", "python3", "/run/echo.py"); err != nil {
			t.Fatal(err)
		}
		m.Sh(t, time.Minute, "until [ -e /run/echo.ready ]; do sleep 0.1; done")

		relay, err := m.Net.Relay(vm.GuestUDP4(9))
		if err != nil {
			t.Fatal(err)
		}
		defer relay.Close()
		relayed, err := net.Dial("udp4", fmt.Sprintf("127.0.0.1:%d", relay.Port()))
		if err != nil {
			t.Fatal(err)
		}
		paths := map[string]io.ReadWriteCloser{"relay": relayed}
		for _, to := range []netip.AddrPort{vm.GuestUDP4(9), vm.GuestUDP6(9)} {
			if paths[to.String()], err = m.Net.Dial(ctx, to); err != nil {
				t.Fatal(err)
			}
		}
		for name, path := range paths {
			// A Read that waits for nothing ends with the test.
			t.Cleanup(func() { path.Close() })
			if _, err := io.WriteString(path, "hello"); err != nil {
				t.Fatal(err)
			}
			answer := make(chan string, 1)
			go func() {
				b := make([]byte, 100)
				n, _ := path.Read(b)
				answer <- string(b[:n])
			}()
			select {
			case a := <-answer:
				if a != "HELLO" {
					t.Errorf("%s: the answer is %q", name, a)
				}
			case <-time.After(20 * time.Second):
				t.Errorf("%s: no answer", name)
			}
		}
		if err := m.Signal(ctx, "echo", syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if code, err := m.WaitFor(ctx, "echo"); code != 128+int(syscall.SIGTERM) || err != nil {
			t.Errorf("the listener ended with %d, %v", code, err)
		}
	})
}

// stuck is a unit that the system waits for when it boots, for ever.
const stuck = `[Unit]
DefaultDependencies=no
Before=basic.target

[Service]
Type=oneshot
ExecStart=-/bin/sleep infinity
TimeoutStartSec=infinity

[Install]
WantedBy=basic.target
`

// A machine that was resumed and reset is booted from what it had written, and
// the agent is there long before the system is.
func TestHarnessReset(t *testing.T) {
	onBare(t, system.Releases, func(t *testing.T, i *system.Image) {
		m := system.New(t, i, system.Options{Append: "bench.second"})
		ctx := vm.Within(t, time.Minute)
		if err := m.WriteFile(ctx, "/etc/systemd/system/stuck.service", 0o644, []byte(stuck)); err != nil {
			t.Fatal(err)
		}
		before := m.Sh(t, time.Minute, "cat /proc/sys/kernel/random/boot_id; systemctl -q enable stuck; echo kept >/var/lib/kept; sync; echo lost >/run/lost")
		mark := m.Console.Mark()
		if _, err := m.Start(ctx, "reset", "sh", "-c", "echo b >/proc/sysrq-trigger"); err != nil {
			t.Fatal(err)
		}
		end, err := m.Wait(vm.Within(t, 30*time.Second))
		if err != nil || end.Fate != vm.Reset {
			t.Fatalf("the machine ended with %+v, %v", end, err)
		}
		if _, err := m.Console.Await(ctx, mark, "sysrq: Resetting"); err != nil {
			t.Error(err)
		}

		done := phase(t, "power on")
		if err := m.PowerOn(t.Context()); err != nil {
			t.Fatal(err)
		}
		done()
		m.Sh(t, time.Minute, "until pgrep -x sleep; do sleep 0.1; done")
		if state, _, err := m.Exec(vm.Within(t, time.Minute), nil, "systemctl", "is-system-running"); state != "initializing\n" {
			t.Errorf("with a unit that blocks it, the system is %q, %v", state, err)
		}
		m.Sh(t, time.Minute, "systemctl kill stuck")
		done = phase(t, "and until it runs")
		if err := m.AwaitRunning(t.Context()); err != nil {
			t.Fatal(err)
		}
		done()
		checkClock(t, m)
		after := m.Sh(t, time.Minute, "cat /proc/sys/kernel/random/boot_id /var/lib/kept; test ! -e /run/lost; grep -q bench.second /proc/cmdline")
		if id, kept, _ := strings.Cut(after, "\n"); kept != "kept\n" || strings.HasPrefix(before, id) {
			t.Errorf("before the reset %q, after it %q", before, after)
		}
		if out := m.Sh(t, time.Minute, "journalctl --list-boots --no-pager"); strings.Count(out, "\n") < 2 {
			t.Errorf("the journal does not know of the first boot:\n%s", out)
		}
	})
}

// With everything frozen, only the kernel and the agent run.
func TestHarnessFreeze(t *testing.T) {
	m := system.New(t, system.NewImage(t, system.Bookworm), system.Options{})
	stopped, err := m.Freeze(vm.Within(t, 20*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	list, err := m.Processes(vm.Within(t, 20*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list {
		if p.PID != 1 && !p.Kernel && p.State != "T" && p.Name != "agent" {
			t.Errorf("process %d, %s, is in state %s", p.PID, p.Name, p.State)
		}
	}
	// Signals do not stop init, and it would start again what has ended.
	out, code, err := m.Exec(vm.Within(t, time.Minute), nil, "timeout", "3", "systemctl", "is-system-running")
	if err != nil || code != 124 {
		t.Errorf("with %d processes stopped, systemctl ends with %d, %v: %s", stopped, code, err, out)
	}
	if err := m.Thaw(vm.Within(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(m.Sh(t, time.Minute, "systemctl is-system-running")); got != "running" {
		t.Errorf("after the thaw the system is %q", got)
	}
}

// Packages are installed without a network, and what was installed is kept as a
// state, of which each machine has its own copy.
func TestHarnessInstall(t *testing.T) {
	// All that a package of ours may depend on.
	const depends = "init-system-helpers, systemd, iptables, dkms, libxtables12, libxtables-dev, kmod, gcc, make"
	first := makeDeb(t, "bench-trivial", "1", depends, map[string]string{
		"usr/share/bench-trivial/version": "1\n",
		"usr/lib/systemd/system/bench-trivial.service": "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n" +
			"[Install]\nWantedBy=multi-user.target\n",
		"DEBIAN/conffiles":       "/etc/bench-trivial.conf\n",
		"etc/bench-trivial.conf": "a = 1\n",
	})
	second := makeDeb(t, "bench-trivial", "2", depends, map[string]string{"usr/share/bench-trivial/version": "2\n"})
	onBare(t, system.Releases, func(t *testing.T, i *system.Image) {
		opt := system.Options{Files: map[string]string{"1.deb": first, "2.deb": second}}
		from := system.NewBooted(t, i)
		install := func(ctx context.Context, m *system.Machine) error {
			if out, err := m.Run(ctx, "apt-get", "install", "-y", system.FilesDir+"/1.deb"); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			_, err := m.Run(ctx, "systemctl", "enable", "--now", "bench-trivial")
			return err
		}
		done := phase(t, "installed state")
		s := system.NewState(t, from, "trivial", "", opt, install)
		done()
		again := system.NewState(t, from, "trivial", "", opt, func(context.Context, *system.Machine) error {
			return errors.New("it is not in the cache")
		})
		if *again != *s {
			t.Errorf("the cache has %v, not %v", again, s)
		}
		a, b := system.From(t, s, opt), system.From(t, s, system.Options{})
		done = phase(t, "upgrade")
		a.Sh(t, 2*time.Minute, "apt-get install -y "+system.FilesDir+"/2.deb")
		done()
		for m, want := range map[*system.Machine]string{a: "2", b: "1"} {
			if got := strings.TrimSpace(m.Sh(t, time.Minute, "cat /usr/share/bench-trivial/version")); got != want {
				t.Errorf("installed is version %s, not %s", got, want)
			}
		}
		done = phase(t, "purge")
		b.Sh(t, 2*time.Minute, "systemctl is-active bench-trivial; apt-get purge -y bench-trivial; test ! -e /etc/bench-trivial.conf")
		done()
	})
}
