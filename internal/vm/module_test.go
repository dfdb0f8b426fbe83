// SPDX-License-Identifier: GPL-2.0-only

//go:build vm

package vm_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/exchange"
	"netsysrq/internal/vm"
)

// extension compiles libxt_NETSYSRQ.so.
func extension(t *testing.T) string {
	t.Helper()
	flags, err := exec.Command("pkg-config", "--cflags", "xtables").Output()
	if err != nil {
		t.Skip("the iptables extension needs the packages libxtables-dev and pkg-config")
	}
	out := filepath.Join(t.TempDir(), "libxt_NETSYSRQ.so")
	args := append([]string{"-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-o", out,
		"../../kmod-fallback/libxt_NETSYSRQ.c"}, strings.Fields(string(flags))...)
	if b, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
		t.Fatalf("libxt_NETSYSRQ.so: %v\n%s", err, b)
	}
	return out
}

// newArmedHost boots a host whose kernel module has the keys, and whose daemon
// was never started.
func newArmedHost(t *testing.T, l *vm.Linux, ko, so string) *host {
	t.Helper()
	tree, sealer := guestTree(t, "nsubw")
	tree.Copy("/usr/lib/x86_64-linux-gnu/xtables/libxt_NETSYSRQ.so", so)
	opt := vm.Options{Kernel: l, Modules: []string{ko}, Tree: tree, Setup: [][]string{
		{"netsysrqd", "keys", "add", "--file", "/run/enrolment"},
		{"netsysrqd", "load-keys"},
		{"/bin/busybox", "sysctl", "-w", "kernel.sysrq=438"},
	}}
	for _, iptables := range []string{"/usr/sbin/iptables-legacy", "/usr/sbin/ip6tables-legacy"} {
		rule := []string{iptables, "-t", "raw", "-A", "PREROUTING", "-p", "udp", "--dport", "9", "-m", "addrtype", "--dst-type", "LOCAL"}
		opt.Setup = append(opt.Setup, append(rule[:len(rule):len(rule)], "-j", "NETSYSRQ"), append(rule[:len(rule):len(rule)], "-j", "DROP"))
	}
	return &host{t, vm.New(t, opt), sealer}
}

// resets asks for a reboot and wants the kernel's sealed answer and then the
// kernel's own reset.
func (h *host) resets() {
	h.Helper()
	mark := h.Console.Mark()
	opt := exchange.Options{Dial: h.Net.Dial, Timeout: 20 * time.Second}
	out := h.run(vm.GuestUDP4(auth.Port), "n,s,u,b", opt, exchange.Accepted)
	if out.Reply.Executor != auth.Kernel {
		h.Errorf("answered by the %v", out.Reply.Executor)
	}
	start := time.Now()
	end, err := h.Wait(vm.Within(h, 30*time.Second))
	if err != nil || end.Fate != vm.Reset {
		h.Fatalf("the machine ended with %+v %v", end, err)
	}
	if _, err := h.Console.Await(vm.Within(h, time.Second), mark, "sysrq: Resetting"); err != nil {
		h.Error(err)
	}
	h.Logf("reset %.1f s after the answer: %s", time.Since(start).Seconds(), end.Detail)
}

// TestModule is the kernel module without any daemon.
func TestModule(t *testing.T) {
	l := vm.NewKernel(t, vm.TestKernel())
	so := extension(t)
	ko, err := vm.BuildModule(t.Context(), l, "../../kmod-fallback")
	if err != nil {
		t.Fatal(err)
	}
	t.Run("healthy", func(t *testing.T) {
		h := newArmedHost(t, l, ko, so)
		opt := exchange.Options{Dial: h.Net.Dial}
		for _, to := range []struct {
			name string
			host exchange.Host
		}{{"IPv4", h.asked(vm.GuestUDP4(auth.Port))}, {"IPv6", h.asked(vm.GuestUDP6(auth.Port))}} {
			out, err := exchange.Status(t.Context(), to.host, opt)
			if err != nil || out.Kind != exchange.Answered || out.Reply.Executor != auth.Kernel || out.Reply.Boot == (auth.BootID{}) ||
				out.Reply.Sysrq != 438 {
				t.Fatalf("%s: %v %+v", to.name, err, out)
			}
		}
		// 438 does not allow w, and s,c is not alice's.
		if out := h.run(vm.GuestUDP4(auth.Port), "s,w", opt, exchange.Refused); out.Reply.Result != auth.RefSysrq || out.Reply.Mask != 0b10 {
			t.Errorf("s,w: %+v", out.Reply)
		}
		if out := h.run(vm.GuestUDP4(auth.Port), "s,o", opt, exchange.Refused); out.Reply.Result != auth.RefPolicy || out.Reply.Mask != 0b10 {
			t.Errorf("s,o: %+v", out.Reply)
		}
		mark := h.Console.Mark()
		h.run(vm.GuestUDP6(auth.Port), "s", opt, exchange.Accepted)
		if _, err := h.Console.Await(vm.Within(t, 15*time.Second), mark, "Emergency Sync complete"); err != nil {
			t.Error(err)
		}
		h.resets()
	})
	for _, s := range []vm.Scenario{vm.DaemonNever, vm.ForkBomb, vm.FIFOHogs, vm.PreemptAll} {
		t.Run(s.Name, func(t *testing.T) {
			h := newArmedHost(t, l, ko, so)
			proof, err := h.Hang(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("hung: %s", proof)
			h.resets()
		})
	}
}
