// SPDX-License-Identifier: GPL-2.0-only

//go:build vm

package vm_test

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/exchange"
	"netsysrq/internal/vm"
)

// arms is what an armed host is made of: the same keys, however often it boots.
type arms struct {
	linux  *vm.Linux
	tree   *vm.Tree
	sealer *auth.Sealer
}

// guestModule is where the guest has the kernel module.
const guestModule = "/root/xt_NETSYSRQ.ko"

// complaints are what the kernel's checks begin their reports with.
var complaints = regexp.MustCompile(`BUG:|WARNING:|KASAN|UBSAN|ODEBUG|possible (recursive|circular) locking|` +
	`possible irq lock inversion|inconsistent lock state|lock order|bad unlock balance|held lock freed|suspicious RCU|sleeping function|` +
	`scheduling while atomic|refcount_t:|list_(add|del) corruption|DEBUG_LOCKS_WARN_ON|general protection fault|Oops|` +
	`unregister_netdevice: waiting`)

// newArms builds the module and an operator's key that may use some SysRq keys.
func newArms(t *testing.T, allowed string) *arms {
	t.Helper()
	l := vm.NewKernel(t, vm.TestKernel())
	so, err := vm.BuildExtension(t.Context(), "../../kmod-fallback")
	vm.Check(t, err)
	ko, err := vm.BuildModule(t.Context(), l, "../../kmod-fallback")
	vm.Check(t, err)
	tree, sealer := guestTree(t, allowed)
	tree.Copy(vm.ExtensionPath, so)
	tree.Copy(guestModule, ko)
	return &arms{l, tree, sealer}
}

// armed says how an armed host differs from the others.
type armed struct {
	sysrq  int    // kernel.sysrq; 0: Debian's
	disk   string // as in vm.Options
	clock  string // the date(1) at which the module is loaded; empty: now
	daemon bool   // start it
}

// newArmedHost boots a host whose kernel module has the keys.
func newArmedHost(t *testing.T, a *arms, how armed) *host {
	t.Helper()
	if how.sysrq == 0 {
		how.sysrq = 438
	}
	opt := vm.Options{Kernel: a.linux, Tree: a.tree, Disk: how.disk}
	setup := func(command ...string) { opt.Setup = append(opt.Setup, command) }
	if how.clock != "" {
		setup("/bin/busybox", "date", "-u", "-s", how.clock)
	}
	setup("/bin/busybox", "insmod", guestModule)
	setup("netsysrqd", "keys", "add", "--file", "/run/enrolment")
	setup("netsysrqd", "load-keys")
	setup("/bin/busybox", "sysctl", "-w", fmt.Sprintf("kernel.sysrq=%d", how.sysrq))
	setup("netsysrqd", "rules", "apply")
	setup("/bin/busybox", "mkdir", "-p", "/run/netsysrq")
	h := &host{t, vm.New(t, opt), a.sealer}
	if how.daemon {
		h.start()
	}
	return h
}

// TestModuleVersion wants the version that deploy/dkms.conf has make told, by the
// command that stands there, in what modinfo reads.
func TestModuleVersion(t *testing.T) {
	conf, err := os.ReadFile("../../deploy/dkms.conf")
	if err != nil {
		t.Fatal(err)
	}
	arg := regexp.MustCompile(`(?m)^MAKE\[0\]=".* (NETSYSRQ_VERSION=\S+) modules"$`).FindSubmatch(conf)
	if arg == nil {
		t.Fatalf("make is told no version:\n%s", conf)
	}
	l := vm.NewKernel(t, vm.TestKernel())
	for version, args := range map[string][]string{
		"devel":     nil,
		"1.2~rc3+4": {strings.ReplaceAll(string(arg[1]), "${PACKAGE_VERSION}", "1.2~rc3+4")},
	} {
		ko, err := vm.BuildModule(t.Context(), l, "../../kmod-fallback", args...)
		vm.Check(t, err)
		f, err := elf.Open(ko)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		info, err := f.Section(".modinfo").Data()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(info, []byte("\x00version="+version+"\x00")) {
			t.Errorf("no version %s in %q", version, info)
		}
	}
}

// TestModule is the kernel module without any daemon, on a machine that is well.
func TestModule(t *testing.T) {
	h := newArmedHost(t, newArms(t, "nsubw"), armed{})
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
	// 438 does not allow w, and s,o is not alice's.
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
}
