// SPDX-License-Identifier: GPL-2.0-only

//go:build vm

package vm_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/exchange"
	"netsysrq/internal/vm"
	"netsysrq/internal/vm/agent"
)

// newAttachedHost boots a host with everything: the module, armed; the rules as
// netsysrqd makes them; the daemon, attached.
func newAttachedHost(t *testing.T, allowed string) *host {
	t.Helper()
	a := newArms(t, allowed)
	opt := vm.Options{Kernel: a.linux, Tree: a.tree, Setup: [][]string{
		{"/bin/busybox", "insmod", guestModule},
		{"netsysrqd", "keys", "add", "--file", "/run/enrolment"},
		{"netsysrqd", "load-keys"},
		{"netsysrqd", "rules", "apply"},
		{"/bin/busybox", "sysctl", "-w", "kernel.sysrq=1"},
		{"/bin/busybox", "mkdir", "-p", "/run/netsysrq"},
	}}
	h := &host{t, vm.New(t, opt), a.sealer}
	h.start()
	return h
}

// records are what the daemon has logged so far.
func (h *host) records() (all []map[string]any) {
	h.Helper()
	text, err := h.ReadFile(vm.Within(h, 10*time.Second), agent.LogPath(vm.Daemon))
	if err != nil {
		h.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var r map[string]any
		if json.Unmarshal([]byte(line), &r) == nil {
			all = append(all, r)
		}
	}
	return all
}

// logged waits until the daemon has logged these messages of a request, and
// returns all that it logged of it.
func (h *host) logged(id auth.RequestID, messages ...string) (all []map[string]any) {
	h.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		all = nil
		said := map[any]int{}
		for _, r := range h.records() {
			if r["request"] == hex.EncodeToString(id[:]) {
				all = append(all, r)
				said[r["msg"]]++
			}
		}
		missing := ""
		for _, m := range messages {
			if said[m] == 0 {
				missing = m
			} else if said[m] > 1 {
				h.Errorf("logged %d times: %s", said[m], m)
			}
		}
		if missing == "" {
			return all
		}
		if time.Now().After(deadline) {
			h.Fatalf("not logged: %q; all of this request:\n%v", missing, all)
		}
	}
}

// exchange asks for steps and wants an answer.
func (h *host) exchange(steps string, flags auth.RequestFlags) *exchange.Outcome {
	h.Helper()
	list, err := auth.ParseSteps(steps)
	if err != nil {
		h.Fatal(err)
	}
	out, err := exchange.Run(h.Context(), h.asked(vm.GuestUDP4(auth.Port)), list, flags, exchange.Options{Dial: h.Net.Dial, Timeout: 5 * time.Second})
	if err != nil {
		h.Fatal(err)
	}
	if out.Reply == nil {
		h.Fatal("no reply")
	}
	return out
}

// ask is exchange with a line about it.
func (h *host) ask(steps string, flags auth.RequestFlags) *exchange.Outcome {
	h.Helper()
	out := h.exchange(steps, flags)
	h.Logf("%s %v: %v after %v", steps, flags, out.Kind, out.Elapsed.Round(time.Millisecond))
	return out
}

// accepted wants a run accepted, by the word of one of the two.
func (h *host) accepted(steps string, flags auth.RequestFlags, by auth.Executor) *exchange.Outcome {
	h.Helper()
	out := h.ask(steps, flags)
	if p := out.Reply; out.Kind != exchange.Accepted || p.Executor != by || p.Flags&auth.Armed == 0 {
		h.Fatalf("%s: %v by the %v, flags %v, daemon silent for %d s", steps, out.Kind, p.Executor, p.Flags, p.Silent)
	}
	return out
}

// TestAttached is the daemon on top of the module, in health, hung, killed and
// back, and without the module again.
func TestAttached(t *testing.T) {
	h := newAttachedHost(t, "nsubhw")
	const help = "sysrq: HELP"
	t.Run("in health", func(t *testing.T) {
		h := h.with(t)
		out, err := exchange.Status(t.Context(), h.asked(vm.GuestUDP4(auth.Port)), exchange.Options{Dial: h.Net.Dial})
		if err != nil || out.Kind != exchange.Answered || out.Reply.Executor != auth.Daemon || out.Reply.Flags&auth.Armed == 0 || out.Reply.Silent > 1 {
			t.Fatalf("status: %v %+v", err, out.Reply)
		}
		mark := h.Console.Mark()
		run := h.accepted("h", 0, auth.Daemon)
		if _, err := h.Console.Await(vm.Within(t, 2*time.Second), mark, help); err != nil {
			t.Error(err)
		}
		if run.RoundTrip > 200*time.Millisecond {
			t.Errorf("the daemon's word took %v", run.RoundTrip)
		}
		all := h.logged(run.Request, "request accepted", "step run", "sequence finished")
		if r := all[0]; r["key"] != "alice" || r["steps"] != "h" || r["executor"] != "kernel" || r["src"] == "" {
			t.Errorf("logged %v", r)
		}
		rehearsal := h.accepted("b", auth.Rehearse, auth.Daemon)
		h.logged(rehearsal.Request, "request accepted")
		drill := h.accepted("b", auth.Drill, auth.Kernel)
		h.logged(drill.Request, "drill left to the kernel", "drill answered by the kernel")
		if drill.Elapsed < 250*time.Millisecond {
			t.Errorf("the kernel answered a drill after %v", drill.Elapsed)
		}
		refused := h.ask("c", 0)
		if refused.Kind != exchange.Refused || refused.Reply.Result != auth.RefPolicy {
			t.Errorf("c: %+v", refused.Reply)
		}
		h.logged(refused.Request, "request refused")
	})
	t.Run("vetoed", func(t *testing.T) {
		h := h.with(t)
		if err := h.WriteFile(vm.Within(t, 5*time.Second), "/run/netsysrq/veto", 0o644, []byte("the array rebuilds\n")); err != nil {
			t.Fatal(err)
		}
		mark := h.Console.Mark()
		out := h.ask("h", 0)
		if out.Kind != exchange.Refused || out.Reply.Result != auth.Vetoed || out.Reply.Executor != auth.Daemon {
			t.Errorf("reply %+v", out.Reply)
		}
		if all := h.logged(out.Request, "request vetoed"); all[0]["veto"] != "the array rebuilds" {
			t.Errorf("logged %v", all)
		}
		if _, err := h.Console.Await(vm.Within(t, time.Second), mark, help); err == nil {
			t.Error("it ran all the same")
		}
		if _, err := h.Machine.Run(vm.Within(t, 5*time.Second), "/bin/busybox", "rm", "/run/netsysrq/veto"); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("stopped", func(t *testing.T) {
		h := h.with(t)
		h.signal(syscall.SIGSTOP)
		mark := h.Console.Mark()
		out := h.accepted("h", 0, auth.Kernel)
		if _, err := h.Console.Await(vm.Within(t, 2*time.Second), mark, help); err != nil {
			t.Error(err)
		}
		time.Sleep(2 * time.Second)
		if again := h.accepted("h", 0, auth.Kernel); again.Reply.Silent < 2 {
			t.Errorf("silent for %d s", again.Reply.Silent)
		}
		h.signal(syscall.SIGCONT)
		h.logged(out.Request, "request run by the kernel: no word from the daemon in time", "step run", "sequence finished")
		time.Sleep(time.Second)
		h.accepted("h", 0, auth.Daemon)
	})
	t.Run("killed", func(t *testing.T) {
		h := h.with(t)
		h.signal(syscall.SIGKILL)
		if _, err := h.WaitFor(vm.Within(t, 10*time.Second), vm.Daemon); err != nil {
			t.Fatal(err)
		}
		out := h.accepted("h", 0, auth.Kernel)
		h.restart()
		h.logged(out.Request, "request run by the kernel: no word from the daemon in time", "step run", "sequence finished")
		h.accepted("h", 0, auth.Daemon)
		// The two daemons, which share a log, have logged no event twice.
		events := map[any]bool{}
		for _, r := range h.records() {
			if n, ok := r["event"]; ok && events[n] {
				t.Errorf("logged twice: %v", r)
			} else if ok {
				events[n] = true
			}
		}
	})
	t.Run("keys", func(t *testing.T) {
		h := h.with(t)
		if out, err := h.Machine.Run(vm.Within(t, 10*time.Second), "netsysrqd", "keys", "remove", "alice"); err != nil {
			t.Fatal(err, out)
		}
		opt := exchange.Options{Dial: h.Net.Dial, Timeout: 1500 * time.Millisecond}
		if out, err := exchange.Status(t.Context(), h.asked(vm.GuestUDP4(auth.Port)), opt); err != nil || out.Reply != nil {
			t.Errorf("a removed key is answered: %v %+v", err, out)
		}
		for _, command := range [][]string{
			{"netsysrqd", "keys", "add", "--file", "/run/enrolment"}, {"netsysrqd", "load-keys"}, {"/bin/busybox", "killall", "-HUP", "netsysrqd"},
		} {
			if out, err := h.Machine.Run(vm.Within(t, 10*time.Second), command...); err != nil {
				t.Fatal(err, out)
			}
		}
		h.awaitLog("reloaded", 1)
		h.accepted("h", 0, auth.Daemon)
	})
	t.Run("another daemon", func(t *testing.T) {
		h := h.with(t)
		const other = "/etc/netsysrq/other.toml"
		if err := h.WriteFile(vm.Within(t, 5*time.Second), other, 0o644, []byte("port = 10\nqueue = 20\n"+config)); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Start(vm.Within(t, 10*time.Second), "other", "netsysrqd", "-c", other, "run"); err != nil {
			t.Fatal(err)
		}
		h.awaitLog("registered with the kernel module again: another program had taken the daemon's place, and the module heard nobody else", 1)
		if err := h.Signal(vm.Within(t, 5*time.Second), "other", syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if _, err := h.WaitFor(vm.Within(t, 10*time.Second), "other"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second) // more than a beat
		h.accepted("h", 0, auth.Daemon)
	})
	t.Run("no extension and back", func(t *testing.T) {
		h := h.with(t)
		h.do("/bin/busybox", "mv", guestExtension, "/run/extension")
		h.do("netsysrqd", "rules", "remove")
		h.do("netsysrqd", "rules", "apply")
		h.awaitLog("the kernel module holds no keys: the daemon answers and acts alone, and nothing does while this host's processes hang; "+
			"netsysrqd check tells why", 1)
		out := h.ask("h", 0)
		if out.Kind != exchange.Accepted || out.Reply.Executor != auth.Daemon || out.Reply.Flags&auth.Armed != 0 {
			t.Errorf("reply %+v", out.Reply)
		}
		h.wants(h.check("netsysrqd"), "obey", "daemon", finding{Name: "kernel module", State: "warn", Text: "loaded, but without keys"})
		// A daemon that root starts does not arm it either.
		h.signal(syscall.SIGKILL)
		if _, err := h.WaitFor(vm.Within(t, 10*time.Second), vm.Daemon); err != nil {
			t.Fatal(err)
		}
		h.restart()
		if out := h.ask("h", 0); out.Kind != exchange.Accepted || out.Reply.Flags&auth.Armed != 0 {
			t.Errorf("reply %+v", out.Reply)
		}
		h.do("/bin/busybox", "mv", "/run/extension", guestExtension)
		const attached = "attached to the kernel module: it answers and acts, also when this host's processes hang"
		times := h.countLog(attached)
		if said := h.do("netsysrqd", "arm"); !strings.Contains(said, "the kernel module holds 1 keys") || strings.Contains(said, "no kernel module") {
			t.Errorf("arm: %s", said)
		}
		h.awaitLog(attached, times+1)
		h.accepted("h", 0, auth.Daemon)
	})
	t.Run("module gone and back", func(t *testing.T) {
		h := h.with(t)
		for _, command := range [][]string{{"netsysrqd", "rules", "remove"}, {"/bin/busybox", "rmmod", "xt_NETSYSRQ"}, {"netsysrqd", "rules", "apply"}} {
			if out, err := h.Machine.Run(vm.Within(t, 20*time.Second), command...); err != nil {
				t.Fatal(err, out)
			}
		}
		h.awaitLog("the kernel module is gone: the daemon answers and acts alone", 1)
		mark := h.Console.Mark()
		out := h.ask("h", 0)
		if out.Kind != exchange.Accepted || out.Reply.Executor != auth.Daemon || out.Reply.Flags&auth.Armed != 0 {
			t.Errorf("reply %+v", out.Reply)
		}
		if _, err := h.Console.Await(vm.Within(t, 2*time.Second), mark, help); err != nil {
			t.Error(err)
		}
		const attached = "attached to the kernel module: it answers and acts, also when this host's processes hang"
		times := h.countLog(attached)
		for _, command := range [][]string{{"/bin/busybox", "insmod", guestModule}, {"netsysrqd", "load-keys"}, {"netsysrqd", "rules", "apply"}} {
			if out, err := h.Machine.Run(vm.Within(t, 20*time.Second), command...); err != nil {
				t.Fatal(err, out)
			}
		}
		h.awaitLog(attached, times+1)
		h.accepted("h", 0, auth.Daemon)
	})
}

// countLog returns how often the daemon has logged a message.
func (h *host) countLog(message string) (n int) {
	h.Helper()
	for _, r := range h.records() {
		if r["msg"] == message {
			n++
		}
	}
	return n
}

// restart starts a daemon again, whose log goes on where the last one's ended.
func (h *host) restart() {
	h.Helper()
	ready := h.countLog("ready")
	if _, err := h.Start(vm.Within(h, 10*time.Second), vm.Daemon, "netsysrqd", "run"); err != nil {
		h.Fatal(err)
	}
	h.awaitLog("ready", ready+1)
}

func (h *host) signal(s syscall.Signal) {
	h.Helper()
	if err := h.Signal(vm.Within(h, 5*time.Second), vm.Daemon, s); err != nil {
		h.Fatal(err)
	}
}

// TestHealthy is a thousand requests to a host that is well: the daemon judges
// every one, and the deadline never runs out. What the module adds to the time
// that a request takes is given as a ratio to the daemon alone, in the same
// machine.
func TestHealthy(t *testing.T) {
	const requests = 1000
	h := newAttachedHost(t, "h")
	measure := func(n int, by auth.Executor, armed bool) (all []time.Duration) {
		t.Helper()
		for range n {
			out := h.exchange("h", auth.Rehearse)
			if p := out.Reply; out.Kind != exchange.Accepted || p.Executor != by || (p.Flags&auth.Armed != 0) != armed {
				t.Fatalf("request %d: %v by the %v, flags %v", len(all), out.Kind, p.Executor, p.Flags)
			}
			all = append(all, out.RoundTrip)
		}
		return all
	}
	with := measure(requests, auth.Daemon, true)
	for _, command := range [][]string{{"netsysrqd", "rules", "remove"}, {"/bin/busybox", "rmmod", "xt_NETSYSRQ"}, {"netsysrqd", "rules", "apply"}} {
		if out, err := h.Machine.Run(vm.Within(t, 20*time.Second), command...); err != nil {
			t.Fatal(err, out)
		}
	}
	h.awaitLog("the kernel module is gone: the daemon answers and acts alone", 1)
	without := measure(requests/4, auth.Daemon, false)
	t.Logf("%d requests with the module: median %v, largest %v; %d with the daemon alone: median %v, largest %v; ratio of the medians %.2f",
		len(with), quantile(with, 0.5), quantile(with, 1), len(without), quantile(without, 0.5), quantile(without, 1),
		float64(quantile(with, 0.5))/float64(quantile(without, 0.5)))
	var judged []time.Duration
	for _, r := range h.records() {
		if us, ok := r["latency_us"].(float64); ok && r["executor"] == "kernel" {
			judged = append(judged, time.Duration(us)*time.Microsecond)
		}
		if msg := fmt.Sprint(r["msg"]); strings.Contains(msg, "no word from the daemon") || strings.HasPrefix(msg, "late") {
			t.Errorf("logged: %v", r)
		}
	}
	if len(judged) != requests {
		t.Errorf("the daemon judged %d requests of %d", len(judged), requests)
	} else {
		t.Logf("from arrival to the daemon's word: median %v, largest %v", quantile(judged, 0.5), quantile(judged, 1))
	}
}

func quantile(all []time.Duration, q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[int(q*float64(len(sorted)-1))].Round(10 * time.Microsecond)
}
