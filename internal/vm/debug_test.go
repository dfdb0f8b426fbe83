// SPDX-License-Identifier: GPL-2.0-only

//go:build vm && debugkernel

package vm_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/exchange"
	"netsysrq/internal/vm"
	"netsysrq/kmod-fallback/kmod"
)

// debugged is a host with the debug kernel, and where its console is read up to.
type debugged struct {
	*host
	at int
}

// newDebugged boots the debug kernel with the module, the keys and the rules.
func newDebugged(t *testing.T) *debugged {
	t.Helper()
	if vm.TestKernel() != vm.DebugVersion {
		t.Fatal("this is for the kernel with checks: KERNEL=" + vm.DebugVersion)
	}
	a := newArms(t, "0123456789abcdefghijklmnopqrstuvwxyz")
	a.tree.Copy("/usr/bin/churn", build(t, "netsysrq/internal/vm/testdata/churn"))
	a.tree.Write("/etc/netsysrq/dry.toml", 0o644, []byte("dry_run = true\n"+config))
	a.tree.Write("/etc/netsysrq/none.toml", 0o644, []byte("keys_dir = \"/run/none\"\n"+config))
	a.tree.Dir("/run/none")
	m := vm.New(t, vm.Options{Kernel: a.linux, Tree: a.tree, Memory: 1024, Life: 22 * time.Minute})
	t.Logf("%s: set up after %.1f s", a.linux.Release, time.Since(m.Started).Seconds())
	h := &debugged{host: &host{t, m, a.sealer}}
	h.do("/bin/busybox", "mount", "-t", "debugfs", "none", "/sys/kernel/debug")
	h.do("/bin/busybox", "sysctl", "-w", "kernel.sysrq=1")
	h.do("netsysrqd", "keys", "add", "--file", "/run/enrolment")
	h.sh("echo clear > /sys/kernel/debug/kmemleak") // what was before is not the module's
	h.load()
	return h
}

// part is a subtest on the same machine. Whatever it does, the kernel's checks
// must have nothing to say of it.
func (h *debugged) part(name string, f func(h *debugged)) {
	h.Helper()
	ok := h.Run(name, func(t *testing.T) {
		start := time.Now()
		defer func() {
			h.quiet(t)
			t.Logf("%.1f s", time.Since(start).Seconds())
		}()
		f(&debugged{h.host.with(t), 0})
	})
	if !ok {
		h.Fatal("no further on this machine")
	}
}

// Run is that of the test.
func (h *debugged) Run(name string, f func(t *testing.T)) bool { return h.T.Run(name, f) }

// quiet demands that no check has reported anything since it was asked last.
// After "Resetting" nothing counts: in an interrupt, the kernel's own
// sysrq_handle_reboot() enables interrupts, and lockdep says so.
func (h *debugged) quiet(t *testing.T) {
	t.Helper()
	lines := h.Console.Since(h.at)
	h.at += len(lines)
	for i, l := range lines {
		if strings.Contains(l.Text, "sysrq: Resetting") {
			return
		}
		if !complaints.MatchString(l.Text) {
			continue
		}
		var report strings.Builder
		for _, l := range lines[max(0, i-3):min(len(lines), i+80)] {
			fmt.Fprintln(&report, l.Text)
		}
		t.Errorf("the kernel complains:\n%s", report.String())
		return
	}
}

// do runs a command that is to succeed, with time for a kernel that is slow.
func (h *debugged) do(args ...string) string {
	h.Helper()
	out, err := h.Machine.Run(vm.Within(h, 2*time.Minute), args...)
	if err != nil {
		h.Fatal(err)
	}
	return out
}

func (h *debugged) sh(script string) string {
	h.Helper()
	return h.do("/bin/busybox", "sh", "-c", script)
}

// load loads the module, gives it the keys and makes the rules.
func (h *debugged) load() {
	h.Helper()
	h.do("/bin/busybox", "insmod", guestModule)
	h.do("netsysrqd", "load-keys")
	for _, iptables := range []string{"iptables", "ip6tables"} {
		h.sh("for target in NETSYSRQ DROP; do /usr/sbin/" + iptables +
			"-legacy -t raw -A PREROUTING -p udp --dport 9 -m addrtype --dst-type LOCAL -j $target || exit 1; done")
	}
}

// unload takes away the rules and then the module, and returns how many requests
// were left in it.
func (h *debugged) unload() (jobs int) {
	h.Helper()
	out := h.sh("/usr/sbin/iptables-legacy -t raw -F PREROUTING && /usr/sbin/ip6tables-legacy -t raw -F PREROUTING && " +
		"churn status && /bin/busybox rmmod xt_NETSYSRQ")
	var s kmod.Status
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		h.Fatal(err, out)
	}
	return s.Jobs
}

func (h *debugged) patient() exchange.Options {
	return exchange.Options{Dial: h.Net.Dial, Timeout: 40 * time.Second}
}

var (
	debugUDP4 = vm.GuestUDP4(auth.Port)
	debugUDP6 = vm.GuestUDP6(auth.Port)
)

// alive wants the module to answer, over both families.
func (h *debugged) alive() (challenge auth.Challenge) {
	h.Helper()
	for _, to := range []netip.AddrPort{debugUDP4, debugUDP6} {
		out, err := exchange.Status(h.Context(), h.asked(to), h.patient())
		if err != nil || out.Kind != exchange.Answered || out.Reply.Executor != auth.Kernel {
			h.Fatalf("status of %v: %v %+v", to, err, out)
		}
		challenge = out.Reply.Challenge
	}
	return challenge
}

// moduleStatus is what the module tells over netlink.
func (h *debugged) moduleStatus() (s kmod.Status) {
	h.Helper()
	if err := json.Unmarshal([]byte(h.do("churn", "status")), &s); err != nil {
		h.Fatal(err)
	}
	return s
}

// underLoad sends requests, good ones and junk, while f runs.
func (h *debugged) underLoad(f func()) {
	ctx, stop := context.WithCancel(h.Context())
	var group sync.WaitGroup
	sent := 0
	group.Go(func() {
		r := rand.New(rand.NewPCG(3, 0))
		for ctx.Err() == nil {
			for _, frame := range brokenFrames(r, h.sealer) {
				if ctx.Err() != nil {
					break
				}
				if r.IntN(3) == 0 {
					h.Net.SendFrame(frame)
				}
				q := auth.Request{Op: auth.OpStatus, ID: auth.RequestID{byte(1 + r.IntN(255)), byte(r.IntN(256))}}
				packet := h.sealer.SealRequest(&q)
				h.Net.SendFrame(frameTo(debugUDP4, uint16(1024+r.IntN(60000)), packet[:]))
				h.Net.SendFrame(frameTo(debugUDP6, uint16(1024+r.IntN(60000)), packet[:]))
				sent += 2
				time.Sleep(20 * time.Millisecond)
			}
		}
	})
	f()
	stop()
	group.Wait()
	h.Logf("%d statuses were sent meanwhile", sent)
}

// runs sends runs for so long, whatever becomes of them.
func (h *debugged) runs(ctx context.Context, steps string, flags auth.RequestFlags, timeout time.Duration) {
	list, err := auth.ParseSteps(steps)
	if err != nil {
		h.Error(err)
		return
	}
	opt := h.patient()
	opt.Timeout = timeout
	for n := 0; ctx.Err() == nil; n++ {
		to := []netip.AddrPort{debugUDP4, debugUDP6}[n%2]
		if _, err := exchange.Run(ctx, h.asked(to), list, flags, opt); err != nil && ctx.Err() == nil {
			h.Error(err)
			return
		}
	}
}

// TestDebugKernel has the kernel's own checks watch everything that the module
// does.
func TestDebugKernel(t *testing.T) {
	h := newDebugged(t)
	h.part("Boot", func(h *debugged) { h.alive() })
	h.part("Requests", (*debugged).requests)
	h.part("Junk", (*debugged).junk)
	h.part("Netlink", (*debugged).netlink)
	h.part("Keys", (*debugged).keys)
	h.part("Reload", (*debugged).reload)
	h.part("Hotplug", (*debugged).hotplug)
	h.part("Leaks", (*debugged).leaks)
	h.part("Reboot", func(h *debugged) {
		h.do("churn", "deadline", "250ms")
		h.run(debugUDP6, "n,s,u,b", h.patient(), exchange.Accepted)
		h.ends(vm.Reset)
	})
}

// TestDebugTick has the ticks do all of it, in interrupts, while no thread runs.
func TestDebugTick(t *testing.T) {
	h := newDebugged(t)
	for _, to := range []netip.AddrPort{debugUDP4, debugUDP6} {
		h.run(to, "h", h.patient(), exchange.Accepted)
	}
	proof, err := h.Hang(t.Context(), vm.PreemptAll)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("hung: %s", proof)
	mark := h.Console.Mark()
	h.run(debugUDP4, "9,j,n,f,s,u,b", h.patient(), exchange.Accepted)
	h.ends(vm.Reset)
	h.quiet(t)
	if text := h.Console.Text(mark, h.Started); !strings.Contains(text, "by the tick") {
		t.Errorf("no step was taken by a tick:\n%s", text)
	}
}

// ends waits for the end of the machine.
func (h *debugged) ends(want vm.Fate) {
	h.Helper()
	if end, err := h.Wait(vm.Within(h, time.Minute)); err != nil || end.Fate != want {
		h.Fatalf("the machine ended with %+v %v", end, err)
	}
}

// requests is one of each kind.
func (h *debugged) requests() {
	// Without p: the kernel's own perf_event_print_debug() may not be preempted
	// there, but is, by /proc/sysrq-trigger too.
	h.run(debugUDP4, "9,h,m,w,l,q,z", h.patient(), exchange.Accepted)
	mark := h.Console.Mark()
	h.run(debugUDP6, "s,d,n,t:1s", h.patient(), exchange.Accepted)
	if _, err := h.Console.Await(vm.Within(h, time.Minute), mark, "Emergency Sync complete"); err != nil {
		h.Error(err)
	}
	h.idle()

	// As a repeat, and malformed; each while it is pending and later.
	r := auth.Request{Op: auth.OpRun, ID: auth.RequestID{1, 2, 3}, Challenge: h.alive()}
	r.SetSteps([]auth.Step{{Key: 'h'}, {Key: 'h', Pause: 20}})
	packet := h.sealer.SealRequest(&r)
	h.Net.SendFrame(frameTo(debugUDP4, 4000, packet[:]))
	h.Net.SendFrame(frameTo(debugUDP4, 4000, packet[:]))
	h.idle()
	if a := h.send(debugUDP4, packet); a == nil || a.Result != auth.Accepted || a.Flags&auth.Repeat == 0 {
		h.Errorf("a repeat is answered by %+v", a)
	}
	for _, spoil := range []func(r *auth.Request){
		func(r *auth.Request) { r.Op = 77 },
		func(r *auth.Request) { r.Flags = 0xff },
		func(r *auth.Request) { r.Count = 8 },
		func(r *auth.Request) { r.Steps[0].Key = 0 },
		func(r *auth.Request) { r.Steps[6].Pause = 0xffff },
		func(r *auth.Request) { r.ID = auth.RequestID{} },
		func(r *auth.Request) { r.Time = ^uint64(0) },
	} {
		bad := r
		spoil(&bad)
		bad.ID[5]++
		packet := h.sealer.SealRequest(&bad)
		h.Net.SendFrame(frameTo(debugUDP6, 4001, packet[:]))
		h.Net.SendFrame(frameTo(debugUDP6, 4001, packet[:]))
	}

	stale := h.patient()
	stale.OnePacket, stale.Timeout = true, 5*time.Second
	stale.Clock = exchange.SystemClock
	stale.Clock.Real = func() uint64 { return uint64(time.Now().Add(-time.Hour).UnixNano()) }
	stale.Clock.Synchronised = func() bool { return true }
	list := []auth.Step{{Key: 'h'}}
	if out, err := exchange.Run(h.Context(), h.asked(debugUDP4), list, 0, stale); err != nil || out.Kind == exchange.Accepted {
		h.Errorf("a run of an hour ago: %v %+v", err, out)
	}

	h.do("/bin/busybox", "sysctl", "-w", "kernel.sysrq=438")
	h.run(debugUDP4, "s,w", h.patient(), exchange.Refused)
	h.do("/bin/busybox", "sysctl", "-w", "kernel.sysrq=1")
	for _, flags := range []auth.RequestFlags{auth.Rehearse, auth.Drill, auth.Now} {
		if out, err := exchange.Run(h.Context(), h.asked(debugUDP6), list, flags, h.patient()); err != nil || out.Kind != exchange.Accepted {
			h.Errorf("%v: %v %+v", flags, err, out)
		}
	}
	h.do("netsysrqd", "--config", "/etc/netsysrq/dry.toml", "load-keys")
	if out := h.run(debugUDP4, "n,s,u,b", h.patient(), exchange.Accepted); out.Reply.Flags&auth.DryRun == 0 {
		h.Errorf("a dry run is answered by %+v", out.Reply)
	}
	h.idle()
	h.do("netsysrqd", "load-keys")
}

// idle waits until nothing is pending or runs.
func (h *debugged) idle() {
	h.Helper()
	for start := time.Now(); h.moduleStatus().Jobs > 0; time.Sleep(200 * time.Millisecond) {
		if time.Since(start) > time.Minute {
			h.Fatal("the module does not get done")
		}
	}
}

// junk sends every shape a few times. Most are dropped before the target sees
// them, but not all, and which must not matter.
func (h *debugged) junk() {
	r := rand.New(rand.NewPCG(4, 0))
	n := 0
	before := h.moduleStatus()
	for range 4 {
		for _, frame := range brokenFrames(r, h.sealer) {
			h.Net.SendFrame(frame)
			n++
			time.Sleep(2 * time.Millisecond)
		}
	}
	h.alive()
	after := h.moduleStatus()
	counts := ""
	for reason, count := range after.Packets {
		if d := count - before.Packets[reason]; d > 0 {
			counts += fmt.Sprintf(" %v: %d", auth.Reason(reason), d)
		}
	}
	h.Logf("%d frames:%s", n, counts)
	for _, reason := range []auth.Reason{auth.ReasonDatagram, auth.ReasonSource, auth.ReasonLength, auth.ReasonMagic, auth.ReasonForged} {
		if after.Packets[reason] == before.Packets[reason] {
			h.Errorf("no packet was turned away for %v", reason)
		}
	}
}

// netlink has userspace do everything at once, while packets come.
func (h *debugged) netlink() {
	h.underLoad(func() {
		ctx, stop := context.WithCancel(h.Context())
		var group sync.WaitGroup
		for range 2 {
			group.Go(func() { h.runs(ctx, "h:10ms,h", auth.Rehearse, time.Second) })
		}
		h.Logf("%s", h.do("churn", "run", "40s"))
		stop()
		group.Wait()
	})
	h.do("netsysrqd", "load-keys")
	h.do("churn", "deadline", "250ms")
	h.alive()
}

// keys takes the keys away and gives them back, with requests pending.
func (h *debugged) keys() {
	h.underLoad(func() {
		for range 3 {
			h.pending(func() {
				h.do("netsysrqd", "--config", "/etc/netsysrq/none.toml", "load-keys")
				if s := h.moduleStatus(); len(s.Keys) != 0 {
					h.Errorf("the module still holds %d keys", len(s.Keys))
				}
				h.do("netsysrqd", "load-keys")
			})
		}
	})
	h.do("churn", "deadline", "250ms")
	h.alive()
}

// pending calls f while runs are pending.
func (h *debugged) pending(f func()) {
	h.Helper()
	h.do("churn", "deadline", "10s") // the longest
	ctx, stop := context.WithCancel(h.Context())
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() { h.runs(ctx, "h", 0, 20*time.Second) })
	}
	for start := time.Now(); h.moduleStatus().Jobs == 0; {
		if time.Since(start) > time.Minute {
			h.Error("nothing is pending")
			break
		}
	}
	f()
	stop()
	group.Wait()
}

// reload unloads the module and loads it again, while packets come and requests
// are pending.
func (h *debugged) reload() {
	if _, code, err := h.Exec(vm.Within(h, time.Minute), nil, "/bin/busybox", "rmmod", "xt_NETSYSRQ"); err != nil || code == 0 {
		h.Fatalf("rmmod with rules: exit code %d %v", code, err)
	}
	h.underLoad(func() {
		left := 0
		for range 5 {
			h.pending(func() { left += h.unload() })
			h.load()
			h.alive()
		}
		if h.Logf("%d requests were pending when the module went", left); left == 0 {
			h.Error("none")
		}
	})
	// Without keys there are no ticks.
	h.unload()
	h.do("/bin/busybox", "insmod", guestModule)
	h.do("/bin/busybox", "rmmod", "xt_NETSYSRQ")
	h.load()
}

// hotplug takes each CPU away and gives it back. The card's interrupts are on
// CPU 1. CPU 0 can be taken away of processors that say they are Intel's, and
// QEMU's does not.
func (h *debugged) hotplug() {
	online := func(cpu int, yes string) {
		h.sh(fmt.Sprintf("echo %s > /sys/devices/system/cpu/cpu%d/online", yes, cpu))
	}
	cpus := []int{1}
	if _, code, err := h.Exec(vm.Within(h, time.Minute), nil, "/bin/busybox", "test", "-e", "/sys/devices/system/cpu/cpu0/online"); err == nil && code == 0 {
		cpus = append(cpus, 0)
	}
	h.Logf("CPUs %v", cpus)
	h.do("churn", "deadline", "50ms")
	h.underLoad(func() {
		ctx, stop := context.WithCancel(h.Context())
		var group sync.WaitGroup
		group.Go(func() { h.runs(ctx, "h:10ms,h:10ms,h", 0, 5*time.Second) })
		for range 3 {
			for _, cpu := range cpus {
				online(cpu, "0")
				h.alive()
				online(cpu, "1")
				h.alive()
			}
		}
		// Loaded and unloaded while a CPU is away.
		online(1, "0")
		h.unload()
		online(1, "1")
		h.load()
		online(1, "0")
		h.unload()
		h.load()
		online(1, "1")
		h.alive()
		stop()
		group.Wait()
	})
	h.idle()
}

// leaks has kmemleak look, with the module and without it, and wants lockdep to
// have watched to the end.
func (h *debugged) leaks() {
	if text := h.sh("cat /proc/lockdep_stats"); !regexp.MustCompile(`debug_locks: +1\n`).MatchString(text) {
		h.Errorf("lockdep has turned itself off:\n%s", text)
	}
	h.idle()
	h.scan()
	h.unload()
	h.scan()
	h.load()
	h.alive()
}

// scan fails for every object that the module allocated and nobody knows of. Of
// a module that was unloaded, only addresses are left of its functions' names.
func (h *debugged) scan() {
	h.Helper()
	for range 2 { // an object has to be lost for a while
		time.Sleep(6 * time.Second)
		h.sh("echo scan > /sys/kernel/debug/kmemleak")
	}
	others := 0
	for record := range strings.SplitSeq(h.sh("cat /sys/kernel/debug/kmemleak"), "unreferenced object") {
		switch {
		case strings.TrimSpace(record) == "":
		case strings.Contains(record, "[xt_NETSYSRQ]") || regexp.MustCompile(`\] 0x[0-9a-f]{16}`).MatchString(record):
			h.Errorf("kmemleak: unreferenced object%s", record)
		default:
			others++
			h.Logf("not the module's: unreferenced object%s", record)
		}
	}
	h.Logf("kmemleak: %d objects of others", others)
}

// frameTo is a frame to the guest, from a port of the host.
func frameTo(to netip.AddrPort, port uint16, payload []byte) []byte {
	from := vm.HostIPv4
	if to.Addr().Is6() {
		from = vm.HostIPv6
	}
	return vm.UDPFrame(netip.AddrPortFrom(from, port), to, payload)
}

// brokenFrames are frames in which something is wrong, all of them to the module's
// port or what looks like it.
func brokenFrames(r *rand.Rand, sealer *auth.Sealer) (frames [][]byte) {
	be := binary.BigEndian
	const (
		atIP   = 14
		atUDP4 = atIP + 20
		atUDP6 = atIP + 40
	)
	sealed := func() []byte {
		q := auth.Request{Op: auth.OpStatus, ID: auth.RequestID{9, byte(r.IntN(256)), byte(r.IntN(256))}}
		p := sealer.SealRequest(&q)
		return p[:]
	}
	add := func(f []byte) {
		if be.Uint16(f[12:]) == 0x0800 && len(f) >= atUDP4 {
			// Without this the packet does not get far.
			if head := int(f[atIP]&15) * 4; head >= 20 && len(f) >= atIP+head {
				be.PutUint16(f[atIP+10:], 0)
				be.PutUint16(f[atIP+10:], headerSum(f[atIP:atIP+head]))
			}
		}
		frames = append(frames, f)
	}
	both := func(payload []byte, wrong func(f []byte, ip6 bool)) {
		for _, to := range []netip.AddrPort{debugUDP4, debugUDP6} {
			f := frameTo(to, uint16(1+r.IntN(65535)), payload)
			wrong(f, to.Addr().Is6())
			add(f)
		}
	}
	right := func([]byte, bool) {}

	// The payload.
	for _, size := range []int{0, 1, 4, 15, 16, 39, 40, 127, 129, 255, 256, 257, 512, 1400} {
		both(slices.Concat(sealed(), make([]byte, 1400))[:size], right)
	}
	for at := range auth.PacketSize {
		p := sealed()
		p[at] ^= byte(1 + r.IntN(255))
		both(p, right)
	}
	noise := make([]byte, auth.PacketSize)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	both(noise, right)

	// The UDP header, and what the IP header says of it.
	for _, n := range []uint16{0, 1, 7, 8, 9, 135, 137, 264, 0x8000, 0xffff} {
		both(sealed(), func(f []byte, ip6 bool) {
			if ip6 {
				be.PutUint16(f[atUDP6+4:], n)
			} else {
				be.PutUint16(f[atUDP4+4:], n)
			}
		})
		both(sealed(), func(f []byte, ip6 bool) {
			if ip6 {
				be.PutUint16(f[atIP+4:], n)
			} else {
				be.PutUint16(f[atIP+2:], n)
			}
		})
	}
	both(sealed(), func(f []byte, ip6 bool) { // from port 0
		if ip6 {
			be.PutUint16(f[atUDP6:], 0)
		} else {
			be.PutUint16(f[atUDP4:], 0)
		}
	})
	for _, cut := range []int{1, 20, 100, 130, 136} { // the end is missing, or there is more
		both(sealed(), right)
		for i := range 2 {
			last := &frames[len(frames)-1-i]
			*last = (*last)[:len(*last)-cut]
		}
		both(sealed(), right)
		for i := range 2 {
			last := &frames[len(frames)-1-i]
			*last = append(*last, make([]byte, cut)...)
		}
	}

	// Addresses.
	from := func(to netip.AddrPort, address string) {
		add(vm.UDPFrame(netip.AddrPortFrom(netip.MustParseAddr(address), 4000), to, sealed()))
	}
	for _, a := range []string{
		"0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "239.1.2.3", "240.0.0.1", "255.255.255.255", "192.0.2.255", "192.0.2.0",
		"192.0.2.2", "192.0.2.77", "10.1.2.3", "169.254.1.1",
	} {
		from(debugUDP4, a)
	}
	for _, a := range []string{
		"::", "::1", "ff02::1", "ff0e::1", "fe80::1", "2001:db8::2", "2001:db8::77", "2001:db9::1", "::ffff:192.0.2.1", "::192.0.2.1", "64:ff9b::1",
	} {
		from(debugUDP6, a)
	}
	for _, a := range []string{"192.0.2.255", "255.255.255.255", "224.0.0.1", "127.0.0.1", "0.0.0.0", "10.0.0.1"} {
		from(netip.AddrPortFrom(netip.MustParseAddr(a), auth.Port), "192.0.2.1")
	}
	for _, a := range []string{"ff02::1", "ff02::1:ff00:2", "::1", "::", "2001:db8::99", "fe80::2"} {
		from(netip.AddrPortFrom(netip.MustParseAddr(a), auth.Port), "2001:db8::1")
	}

	// IPv4: options, fragments, other protocols.
	for words := 5; words <= 15; words++ {
		for _, option := range []byte{0, 1, 7, 68, 131, 137, 255} {
			f := frameTo(debugUDP4, 4000, sealed())
			options := make([]byte, (words-5)*4)
			for i := range options {
				options[i] = option
			}
			f = slices.Concat(f[:atUDP4], options, f[atUDP4:])
			f[atIP] = 4<<4 | byte(words)
			be.PutUint16(f[atIP+2:], uint16(len(f)-atIP))
			add(f)
		}
	}
	for _, bits := range []uint16{0x2000, 0x0001, 0x2001, 0x1fff, 0x3fff, 0x8000, 0xc000} {
		f := frameTo(debugUDP4, 4000, sealed())
		be.PutUint16(f[atIP+6:], bits)
		be.PutUint16(f[atIP+4:], uint16(r.IntN(65536)))
		add(f)
	}
	// A datagram in two fragments, which the kernel puts together.
	whole := frameTo(debugUDP4, 4000, sealed())
	id := uint16(r.IntN(65536))
	for _, part := range []struct{ from, to int }{{0, 72}, {72, len(whole) - atUDP4}} {
		f := slices.Concat(whole[:atUDP4], whole[atUDP4+part.from:atUDP4+part.to])
		be.PutUint16(f[atIP+2:], uint16(len(f)-atIP))
		be.PutUint16(f[atIP+4:], id)
		bits := uint16(part.from / 8)
		if part.from == 0 {
			bits |= 0x2000
		}
		be.PutUint16(f[atIP+6:], bits)
		add(f)
	}
	for _, proto := range []byte{0, 1, 6, 50, 51, 58, 132, 136, 255} {
		both(sealed(), func(f []byte, ip6 bool) {
			if ip6 {
				f[atIP+6] = proto
			} else {
				f[atIP+9] = proto
			}
		})
	}

	// IPv6: extension headers, well formed and not.
	const udpNext, hopByHop, routing, fragment, ah, none, destination = 17, 0, 43, 44, 51, 59, 60
	extend := func(kinds []byte, fill func(kind byte, h []byte)) {
		f := frameTo(debugUDP6, 4000, sealed())
		var chain []byte
		f[atIP+6] = kinds[0]
		for i, kind := range kinds {
			h := make([]byte, 8)
			h[0] = udpNext
			if i+1 < len(kinds) {
				h[0] = kinds[i+1]
			}
			if kind == hopByHop || kind == destination {
				h[2], h[3] = 1, 4 // PadN
			}
			fill(kind, h)
			chain = append(chain, h...)
		}
		f = slices.Concat(f[:atUDP6], chain, f[atUDP6:])
		be.PutUint16(f[atIP+4:], uint16(len(f)-atUDP6))
		add(f)
	}
	plain := func(byte, []byte) {}
	for _, kinds := range [][]byte{
		{hopByHop}, {destination}, {routing}, {fragment}, {ah}, {none}, {hopByHop, destination, routing, destination},
		{destination, destination, destination, destination, destination, destination, destination, destination},
		{fragment, fragment}, {hopByHop, hopByHop}, {routing, fragment, destination}, {destination, none}, {135}, {139}, {253},
	} {
		extend(kinds, plain)
		extend(kinds, func(_ byte, h []byte) { h[1] = byte(r.IntN(256)) }) // longer than the packet, often
		extend(kinds, func(kind byte, h []byte) {
			for i := 2; i < 8; i++ {
				h[i] = byte(r.IntN(256))
			}
		})
	}
	for _, bits := range []uint16{0, 1, 8, 9, 0xfff8, 0xfff9} {
		extend([]byte{fragment}, func(_ byte, h []byte) {
			be.PutUint16(h[2:], bits)
			be.PutUint32(h[4:], r.Uint32())
		})
	}

	// Anything in the headers.
	for range 200 {
		both(sealed(), func(f []byte, ip6 bool) {
			end := atUDP4 + 8
			if ip6 {
				end = atUDP6 + 8
			}
			for range 1 + r.IntN(3) {
				f[atIP+r.IntN(end-atIP)] = byte(r.Uint32())
			}
		})
	}
	r.Shuffle(len(frames), func(i, j int) { frames[i], frames[j] = frames[j], frames[i] })
	return frames
}

// headerSum is the checksum of an IPv4 header.
func headerSum(b []byte) uint16 {
	var s uint32
	for ; len(b) >= 2; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}
