// SPDX-License-Identifier: GPL-2.0-only

//go:build vm

package vm_test

import (
	"context"
	"encoding/json"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/exchange"
	"netsysrq/internal/vm"
	"netsysrq/internal/vm/agent"
)

const hostName = "guest.example.org"

// build makes a static program of this project.
func build(t *testing.T, pkg string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), filepath.Base(pkg))
	cmd := exec.Command("go", "build", "-trimpath", "-o", out, pkg)
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", pkg, err, b)
	}
	return out
}

// host is a machine with netsysrqd in daemon-only mode: the real rules, the real
// trigger, and one operator who may use every SysRq key.
type host struct {
	*testing.T
	*vm.Machine
	sealer *auth.Sealer
}

const config = `user = "65534"
iptables = "legacy"
[log]
format = "json"
`

// guestTree is what a host has: netsysrqd, its configuration, iptables, and an
// enrolment of alice, who may use the given SysRq keys.
func guestTree(t *testing.T, allowed string) (*vm.Tree, *auth.Sealer) {
	t.Helper()
	master := auth.NewMaster()
	key, err := master.HostKey(hostName)
	if err != nil {
		t.Fatal(err)
	}
	allow, err := auth.ParseKeySet(allowed)
	if err != nil {
		t.Fatal(err)
	}
	enrolment := auth.Enrolment{Operator: "alice", Host: hostName, Allow: allow, Key: key}

	tree := vm.NewTree()
	tree.Copy("/usr/sbin/netsysrqd", build(t, "netsysrq/cmd/responder"))
	tree.Write("/etc/netsysrq/netsysrqd.toml", 0o644, []byte(config))
	tree.Write("/etc/machine-id", 0o644, []byte("0123456789abcdef0123456789abcdef\n"))
	tree.Write("/run/enrolment", 0o600, []byte(enrolment.Line()+"\n"))
	vm.Check(t, tree.Iptables())
	return tree, auth.NewSealer(&key)
}

// newHost boots a host. The bench's options are the caller's, but for what
// the daemon needs.
func newHost(t *testing.T, opt vm.Options) *host {
	t.Helper()
	tree, sealer := guestTree(t, "0123456789abcdefghijklmnopqrstuvwxyz")
	opt.Tree = tree
	opt.Setup = [][]string{
		{"netsysrqd", "keys", "add", "--file", "/run/enrolment"},
		{"netsysrqd", "rules", "apply"},
	}
	m := vm.New(t, opt)
	t.Logf("%s: set up after %.1f s", opt.Kernel.Release, time.Since(m.Started).Seconds())
	return &host{t, m, sealer}
}

// start starts the daemon and waits until it is ready.
func (h *host) start() {
	h.Helper()
	if _, err := h.Start(vm.Within(h, 10*time.Second), vm.Daemon, "netsysrqd", "run"); err != nil {
		h.Fatal(err)
	}
	h.awaitLog("ready", 1)
}

// awaitLog waits until the daemon has logged a message so often, and returns the
// last such record.
func (h *host) awaitLog(message string, n int) (record map[string]any) {
	h.Helper()
	var text []byte
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		var err error
		if text, err = h.ReadFile(vm.Within(h, 10*time.Second), agent.LogPath(vm.Daemon)); err != nil {
			h.Fatal(err)
		}
		found := 0
		for line := range strings.Lines(string(text)) {
			var r map[string]any
			if json.Unmarshal([]byte(line), &r) == nil && r["msg"] == message {
				record = r
				found++
			}
		}
		if found >= n {
			return record
		}
	}
	h.Fatalf("the daemon has not logged %q %d times:\n%s", message, n, text)
	return nil
}

// options are those of the sender, whose clock is the guest's plus so much.
func (h *host) options(ahead time.Duration, onePacket bool) exchange.Options {
	h.Helper()
	now, err := h.Clocks(vm.Within(h, 5*time.Second))
	if err != nil {
		h.Fatal(err)
	}
	at := time.Now()
	clock := exchange.SystemClock
	clock.Real = func() uint64 { return uint64(now.Real + ahead + time.Since(at)) }
	clock.Synchronised = func() bool { return true }
	return exchange.Options{Dial: h.Net.Dial, Clock: clock, OnePacket: onePacket}
}

func (h *host) asked(to netip.AddrPort) exchange.Host {
	return exchange.Host{Name: hostName, Addrs: []netip.AddrPort{to}, Sealer: h.sealer}
}

// run sends steps and wants an outcome.
func (h *host) run(to netip.AddrPort, steps string, opt exchange.Options, want exchange.Kind) *exchange.Outcome {
	h.Helper()
	list, err := auth.ParseSteps(steps)
	if err != nil {
		h.Fatal(err)
	}
	out, err := exchange.Run(h.Context(), h.asked(to), list, 0, opt)
	if err != nil {
		h.Fatal(err)
	}
	if out.Kind != want {
		h.Fatalf("%s to %v: %v, want %v: %+v", steps, to, out.Kind, want, out.Reply)
	}
	h.Logf("%s to %v: %v after %v", steps, to, out.Kind, out.Elapsed.Round(time.Millisecond))
	return out
}

// TestFates wants each way to end told from the others.
func TestFates(t *testing.T) {
	l := vm.NewKernel(t, vm.TestKernel())
	for key, want := range map[string]vm.Fate{"b": vm.Reset, "c": vm.Panic, "o": vm.PowerOff} {
		t.Run(string(want), func(t *testing.T) {
			m := vm.New(t, vm.Options{Kernel: l})
			// The answer to this may never come.
			go m.WriteFile(vm.Within(t, time.Second), "/proc/sysrq-trigger", 0, []byte(key))
			end, err := m.Wait(vm.Within(t, 15*time.Second))
			if err != nil || end.Fate != want {
				t.Errorf("SysRq %s: %+v %v, want %s", key, end, err, want)
			}
			t.Logf("SysRq %s: %s: %s", key, end.Fate, end.Detail)
		})
	}
}

// TestDaemonOnARealKernel is daemon-only mode with nothing replaced: the kernel's
// queue, rules, log and trigger, from the first status to the reset.
func TestDaemonOnARealKernel(t *testing.T) {
	l := vm.NewKernel(t, vm.TestKernel())
	trivial, err := vm.BuildModule(t.Context(), l, "testdata/trivial")
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t, vm.Options{Kernel: l, Modules: []string{trivial}})
	if _, err := h.Console.Await(vm.Within(t, time.Second), 0, "trivial: loaded"); err != nil {
		t.Error(err)
	}
	if out, err := h.Machine.Run(vm.Within(t, 10*time.Second), "/bin/busybox", "uname", "-r"); err != nil || strings.TrimSpace(out) != l.Release {
		t.Errorf("the guest runs %q %v, not %q", out, err, l.Release)
	}
	for _, a := range []netip.Addr{vm.GuestIPv4, vm.GuestIPv6} {
		took, err := h.Net.Ping(vm.Within(t, 5*time.Second), a)
		if err != nil {
			t.Error(err)
		}
		t.Logf("ping %v: %v", a, took.Round(10*time.Microsecond))
	}
	if err := h.SetClock(vm.Within(t, 5*time.Second), 0, true); err != nil {
		t.Fatal(err)
	}
	h.start()
	ledger := time.Now()
	addresses := []netip.AddrPort{vm.GuestUDP4(auth.Port), vm.GuestUDP6(auth.Port)}
	for _, to := range addresses {
		out, err := exchange.Status(t.Context(), h.asked(to), h.options(0, false))
		if err != nil || out.Kind != exchange.Answered || out.Reply.Executor != auth.Daemon || out.Reply.Boot == (auth.BootID{}) {
			t.Fatalf("status of %v: %v %+v", to, err, out)
		}
		t.Logf("status of %v: answered after %v", to, out.RoundTrip.Round(10*time.Microsecond))
	}

	t.Run("SysRq", h.sysrq)
	t.Run("Clocks", func(t *testing.T) { h.with(t).clocks(ledger) })
	t.Run("Reboot", func(t *testing.T) { h.with(t).reboot(addresses[1]) })
}

func (h *host) with(t *testing.T) *host { return &host{t, h.Machine, h.sealer} }

// sysrq has the kernel list its blocked tasks.
func (h *host) sysrq(t *testing.T) {
	h = h.with(t)
	mark := h.Console.Mark()
	h.run(vm.GuestUDP4(auth.Port), "w", h.options(0, false), exchange.Accepted)
	if _, err := h.Console.Await(vm.Within(t, 10*time.Second), mark, "sysrq: Show Blocked State"); err != nil {
		t.Error(err)
	}
}

// clocks steps the guest's clock under the daemon. SysRq h, the help text, shows
// whether anything ran.
func (h *host) clocks(ledger time.Time) {
	to := vm.GuestUDP4(auth.Port)
	const help = "sysrq: HELP"
	ran := func(mark int, want bool) {
		h.Helper()
		_, err := h.Console.Await(vm.Within(h, 2*time.Second), mark, help)
		if (err == nil) != want {
			h.Errorf("ran: %v, want %v", err == nil, want)
		}
	}
	step := func(by time.Duration) {
		h.Helper()
		now, err := h.Clocks(vm.Within(h, 5*time.Second))
		if err == nil {
			err = h.SetClock(vm.Within(h, 5*time.Second), now.Real+by, true)
		}
		if err != nil {
			h.Fatal(err)
		}
	}
	// A ledger takes no time that lies before its beginning plus W. The sender
	// believes that only of one that is older than its question.
	time.Sleep(time.Until(ledger.Add(2 * time.Second)))
	mark := h.Console.Mark()
	h.run(to, "h", h.options(0, true), exchange.Refused)
	ran(mark, false)

	time.Sleep(time.Until(ledger.Add(auth.Window + 2*time.Second)))
	mark = h.Console.Mark()
	capture := h.Net.Capture()
	recorded := h.seal("h", h.options(0, true))
	if r := h.send(to, recorded); r == nil || r.Result != auth.Accepted {
		h.Fatalf("a packet with the right time: %+v", r)
	}
	ran(mark, true)
	capture.Close()

	mark = h.Console.Mark()
	if r := h.send(to, recorded); r == nil || r.Flags&auth.Repeat == 0 {
		h.Errorf("the same packet again: %+v", r)
	}
	h.run(to, "h", h.options(auth.Window+time.Second, true), exchange.Unknown) // in the future: not now, and not later here
	ran(mark, false)

	// A step makes the clock untrusted until it was right for W.
	for _, by := range []time.Duration{time.Hour, -2 * time.Hour} {
		step(by)
		mark = h.Console.Mark()
		h.run(to, "h", h.options(0, true), exchange.Refused)
		if r := h.send(to, recorded); r != nil && r.Result == auth.Accepted && r.Flags&auth.Repeat == 0 {
			h.Errorf("after a step by %v a recorded packet is accepted", by)
		}
		ran(mark, false)
		// A challenge needs no clock.
		h.run(to, "h", h.options(0, false), exchange.Accepted)
		ran(mark, true)
	}
}

// seal makes a request with a time.
func (h *host) seal(steps string, opt exchange.Options) [auth.PacketSize]byte {
	h.Helper()
	list, err := auth.ParseSteps(steps)
	if err != nil {
		h.Fatal(err)
	}
	r := auth.Request{Op: auth.OpRun, ID: auth.RequestID{1, 2, 3}, Time: opt.Clock.Real()}
	r.SetSteps(list)
	return h.sealer.SealRequest(&r)
}

// send sends a packet as it is and returns the answer, or nil.
func (h *host) send(to netip.AddrPort, packet [auth.PacketSize]byte) *auth.Reply {
	h.Helper()
	conn, err := h.Net.Dial(h.Context(), to)
	if err != nil {
		h.Fatal(err)
	}
	stop := context.AfterFunc(vm.Within(h, 3*time.Second), func() { conn.Close() })
	defer stop()
	defer conn.Close()
	if _, err := conn.Write(packet[:]); err != nil {
		h.Fatal(err)
	}
	b := make([]byte, 2048)
	n, err := conn.Read(b)
	if err != nil {
		return nil
	}
	var r auth.Reply
	if reason, _ := h.sealer.OpenReply(b[:n], auth.RequestID{1, 2, 3}, &r); reason != auth.OK {
		h.Errorf("a reply that cannot be opened: %v", reason)
		return nil
	}
	return &r
}

// reboot is n,s,u,b: the kernel says each in its log, and resets.
func (h *host) reboot(to netip.AddrPort) {
	mark, start := h.Console.Mark(), time.Now()
	h.run(to, "n,s,u,b", h.options(0, false), exchange.Accepted)
	end, err := h.Wait(vm.Within(h, 25*time.Second))
	if err != nil || end.Fate != vm.Reset {
		h.Fatalf("the machine ended with %+v %v", end, err)
	}
	h.Logf("reset %v after the request", end.At.Sub(start).Round(time.Millisecond))
	at := mark
	for _, text := range []string{
		"sysrq: Nice All RT Tasks", "sysrq: Emergency Sync", "Emergency Sync complete",
		"sysrq: Emergency Remount R/O", "Emergency Remount complete", "sysrq: Resetting",
	} {
		next := -1
		for i, l := range h.Console.Since(at) {
			if strings.Contains(l.Text, text) {
				next = at + i + 1
				stamp, _ := l.Stamp()
				h.Logf("%8.3f s  %s", stamp.Seconds(), text)
				break
			}
		}
		if next < 0 {
			h.Fatalf("the kernel did not say %q in its turn:\n%s", text, h.Console.Text(mark, h.Started))
		}
		at = next
	}
}
