// SPDX-License-Identifier: GPL-2.0-only

//go:build vm

package vm_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/exchange"
	"netsysrq/internal/vm"
)

// guestExtension is where the guest's iptables looks for the target.
const guestExtension = "/usr/lib/x86_64-linux-gnu/xtables/libxt_NETSYSRQ.so"

// newRulesHost boots a host that has everything, but neither rules nor the
// kernel module. alice's key may do what reboot asks for.
func newRulesHost(t *testing.T) *host {
	t.Helper()
	a := newArms(t, "nsub")
	a.tree.Write("/etc/netsysrq/nft.toml", 0o644, []byte(strings.Replace(config, "legacy", "nft", 1)))
	a.tree.Write("/etc/netsysrq/legacy.toml", 0o644, []byte(config))
	m := vm.New(t, vm.Options{
		Kernel:  a.linux,
		Tree:    a.tree,
		Modules: []string{"nft_limit?", "nft_counter?"}, // iptables-nft uses them for the match limit
		Life:    15 * time.Minute,
		Setup: [][]string{
			{"netsysrqd", "keys", "add", "--file", "/run/enrolment"},
			{"/bin/busybox", "sysctl", "-w", "kernel.sysrq=438"},
		},
	})
	return &host{t, m, a.sealer}
}

// do runs a command that is to succeed.
func (h *host) do(args ...string) string {
	h.Helper()
	out, err := h.Machine.Run(vm.Within(h, time.Minute), args...)
	if err != nil {
		h.Fatal(err)
	}
	return out
}

// fails runs a command that is to fail and say something.
func (h *host) fails(want string, args ...string) {
	h.Helper()
	out, code, err := h.Exec(vm.Within(h, time.Minute), nil, args...)
	if err != nil {
		h.Fatal(err)
	}
	if code == 0 || !strings.Contains(out, want) {
		h.Errorf("%v: exit code %d, want a failure and %q:\n%s", args, code, want, out)
	}
}

func (h *host) insmod() { h.Helper(); h.do("/bin/busybox", "insmod", guestModule) }
func (h *host) rmmod()  { h.Helper(); h.do("/bin/busybox", "rmmod", "xt_NETSYSRQ") }

// finding is one of netsysrqd check --json.
type finding struct{ Name, State, Text, Hint string }

type report struct {
	Verdict, Mode string
	Findings      []finding
}

// check is netsysrqd check, whose exit code must fit its verdict.
func (h *host) check(backend string) (r report) {
	h.Helper()
	out, code, err := h.Exec(vm.Within(h, time.Minute), nil, "netsysrqd", "-c", "/etc/netsysrq/"+backend+".toml", "check", "--json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &r)
	}
	if err != nil {
		h.Fatalf("check: %v\n%s", err, out)
	}
	if want := map[string]int{"obey": 0, "rehearse": 1, "refuse": 1, "unknown": 3}[r.Verdict]; code != want {
		h.Errorf("check: %s with exit code %d", r.Verdict, code)
	}
	return r
}

// wants a verdict and a mode, and of each finding a state and a text.
func (h *host) wants(r report, verdict, mode string, findings ...finding) {
	h.Helper()
	bad := r.Verdict != verdict || r.Mode != mode
	for _, want := range findings {
		found := false
		for _, f := range r.Findings {
			found = found || f.Name == want.Name && f.State == want.State && strings.Contains(f.Text, want.Text) && strings.Contains(f.Hint, want.Hint)
		}
		if !found {
			h.Errorf("no finding %+v", want)
			bad = true
		}
	}
	if !bad {
		return
	}
	text := fmt.Sprintf("verdict %s in mode %s, want %s in mode %s", r.Verdict, r.Mode, verdict, mode)
	for _, f := range r.Findings {
		text += fmt.Sprintf("\n%s %s: %s -> %s", f.State, f.Name, f.Text, f.Hint)
	}
	h.Error(text)
}

// firewall is one backend of iptables on a host.
type firewall struct {
	*host
	backend string
}

func (f firewall) netsysrqd(args ...string) []string {
	return append([]string{"netsysrqd", "-c", "/etc/netsysrq/" + f.backend + ".toml"}, args...)
}

// command is iptables or ip6tables, or one of their helpers.
func (f firewall) command(name string) string {
	family, rest, _ := strings.Cut(name, "-")
	if rest != "" {
		rest = "-" + rest
	}
	return "/usr/sbin/" + family + "-" + f.backend + rest
}

// saved is the raw table of a family without comments and counters.
func (f firewall) saved(family string) string {
	f.Helper()
	var keep []string
	for line := range strings.Lines(f.do(f.command(family+"-save"), "-t", "raw")) {
		if !strings.HasPrefix(line, "#") {
			keep = append(keep, counters.ReplaceAllString(line, ""))
		}
	}
	return strings.Join(keep, "")
}

var counters = regexp.MustCompile(`\[\d+:\d+\]`)

// both calls fn for both families.
func (f firewall) both(fn func(family string)) {
	for _, family := range []string{"iptables", "ip6tables"} {
		fn(family)
	}
}

// wantPrinted wants in the kernel exactly the rules that rules print shows.
func (f firewall) wantPrinted() {
	f.Helper()
	for family, flag := range map[string]string{"iptables": "-4", "ip6tables": "-6"} {
		var want []string
		for line := range strings.Lines(f.do(f.netsysrqd("rules", "print", flag)...)) {
			if rest, ok := strings.CutPrefix(line, "-I "); ok {
				line = "-A " + strings.Replace(rest, " 1 ", " ", 1)
			}
			if strings.HasPrefix(line, "-A ") {
				want = append(want, line)
			}
		}
		got := map[string]bool{}
		order := ""
		for line := range strings.Lines(f.saved(family)) {
			if strings.HasPrefix(line, "-A ") {
				got[line] = true
				if strings.HasPrefix(line, "-A netsysrq ") {
					order += line
				}
			}
		}
		wantOrder := ""
		for _, line := range want {
			if !got[line] {
				f.Errorf("%s has not: %s", family, line)
			}
			if strings.HasPrefix(line, "-A netsysrq ") {
				wantOrder += line
			}
		}
		if len(got) != len(want) || order != wantOrder {
			f.Errorf("%s: want\n%s\nhas\n%s", family, strings.Join(want, ""), f.saved(family))
		}
	}
}

// apply wants what rules apply says of each family.
func (f firewall) apply(want string) (out string) {
	f.Helper()
	out = f.do(f.netsysrqd("rules", "apply")...)
	for _, family := range []string{"IPv4", "IPv6"} {
		if !strings.Contains(out, fmt.Sprintf("%s (iptables-%s): %s", family, f.backend, want)) {
			f.Errorf("apply does not say %q of %s:\n%s", want, family, out)
		}
	}
	return out
}

// hits are the packets that the rules of a family's chain have seen, in order.
func (f firewall) hits(family string) (counts []int) {
	f.Helper()
	for line := range strings.Lines(f.do(f.command(family+"-save"), "-c", "-t", "raw")) {
		number, rest, ok := strings.Cut(strings.TrimPrefix(line, "["), ":")
		if n, err := strconv.Atoi(number); ok && err == nil && strings.Contains(rest, "] -A netsysrq ") {
			counts = append(counts, n)
		}
	}
	return counts
}

// TestRules is netsysrqd rules on a real kernel, with the module and without,
// in both backends.
func TestRules(t *testing.T) {
	h := newRulesHost(t)
	for _, backend := range []string{"legacy", "nft"} {
		t.Run(backend, func(t *testing.T) {
			f := firewall{h.with(t), backend}
			t.Run("Modes", func(t *testing.T) { f.on(t).modes() })
			t.Run("Packets", func(t *testing.T) { f.on(t).packets() })
			t.Run("SaveAndRestore", func(t *testing.T) { f.on(t).saveAndRestore() })
			t.Run("Options", func(t *testing.T) { f.on(t).options() })
			t.Run("NoExtension", func(t *testing.T) { f.on(t).noExtension() })
			t.Run("Removal", func(t *testing.T) { f.on(t).removal() })
		})
	}
}

func (f firewall) on(t *testing.T) firewall { return firewall{f.with(t), f.backend} }

// rules are the findings of both families.
func (f firewall) rules(state, text string) []finding {
	text = strings.Replace(text, "TABLE", "the raw table (iptables-"+f.backend+")", 1)
	return []finding{{Name: "rule IPv4", State: state, Text: text}, {Name: "rule IPv6", State: state, Text: text}}
}

// modes goes from daemon-only mode to the module. It leaves the module armed.
func (f firewall) modes() {
	f.apply("in place now")
	f.wantPrinted()
	f.wants(f.check(f.backend), "refuse", "daemon", append(f.rules("ok", "first in TABLE"),
		finding{Name: "kernel module", State: "warn", Text: "not loaded", Hint: "netsysrq-dkms"},
		finding{Name: "daemon", State: "fail", Text: "not running"})...)
	daemonOnly := f.saved("iptables") + f.saved("ip6tables")

	f.insmod()
	f.do(f.netsysrqd("load-keys")...)
	f.wants(f.check(f.backend), "refuse", "daemon", append(f.rules("fail", "outdated: the rules in TABLE do not lead through the kernel module"),
		finding{Name: "kernel module", State: "ok", Text: "armed: answers when the daemon cannot; 1 key, deadline 250ms, daemon not attached"})...)
	if now := f.saved("iptables") + f.saved("ip6tables"); now != daemonOnly {
		f.Errorf("check has changed the rules:\n%s\nbefore:\n%s", now, daemonOnly)
	}
	f.apply("in place now")
	f.wantPrinted()
	f.both(func(family string) {
		if s := f.saved(family); !strings.Contains(s, "-j NETSYSRQ --authentic-mark 0x10000000/0x30000000 --junk-mark 0x20000000/0x30000000\n") ||
			strings.Contains(s, "recent") || strings.Contains(s, "netsysrq-reply") {
			f.Errorf("%s:\n%s", family, s)
		}
	})
	f.apply("was in place already")
	f.wants(f.check(f.backend), "obey", "kernel", append(f.rules("ok", "first in TABLE, through the kernel module"),
		finding{Name: "daemon", State: "warn", Text: "not running: nothing reads queue 9 and 10; the kernel obeys without its word, after 250ms"})...)

	f.both(func(family string) {
		f.do(f.command(family), "-t", "raw", "-I", "PREROUTING", "-p", "icmp", "-j", "ACCEPT")
	})
	f.wants(f.check(f.backend), "obey", "kernel", f.rules("warn", "others come first")...)
	f.apply("in place now")
	f.both(func(family string) {
		f.do(f.command(family), "-t", "raw", "-D", "PREROUTING", "-p", "icmp", "-j", "ACCEPT")
	})
	f.wantPrinted()
}

// packets sends what each rule is for, while nothing reads the queues.
func (f firewall) packets() {
	for family, to := range map[string]netip.AddrPort{"iptables": vm.GuestUDP4(auth.Port), "ip6tables": vm.GuestUDP6(auth.Port)} {
		before := f.hits(family)
		out, err := exchange.Status(f.Context(), f.asked(to), exchange.Options{Dial: f.Net.Dial})
		if err != nil || out.Kind != exchange.Answered || out.Reply.Executor != auth.Kernel {
			f.Fatalf("status of %v: %v %+v", to, err, out)
		}
		list, err := auth.ParseSteps("s")
		if err != nil {
			f.Fatal(err)
		}
		out, err = exchange.Run(f.Context(), f.asked(to), list, auth.Rehearse, exchange.Options{Dial: f.Net.Dial})
		if err != nil || out.Kind != exchange.Accepted || out.Reply.Executor != auth.Kernel {
			f.Fatalf("run on %v: %v %+v", to, err, out)
		}
		conn, err := f.Net.Dial(f.Context(), to)
		if err != nil {
			f.Fatal(err)
		}
		forged := append([]byte("NSRQ\x01\x01\x00\x00"), make([]byte, auth.PacketSize-8)...)
		for range 3 {
			conn.Write(forged)
		}
		for range 5 {
			conn.Write(forged[1:])
		}
		conn.Close()
		const authentic, shape, junk, rest = 2, 3, 4, 5
		var now []int
		for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			if now = f.hits(family); len(now) == 6 && now[junk]-before[junk] >= 3 {
				break
			}
		}
		for i := range now {
			now[i] -= before[i]
		}
		f.Logf("%v: %v", to, now)
		if len(now) != 6 || now[authentic] != 1 || now[shape] != 5 || now[junk] != 3 || now[rest] != 0 {
			f.Errorf("%s: rules have seen %v", family, now)
		}
	}
}

// saveAndRestore gives iptables-restore what iptables-save prints.
func (f firewall) saveAndRestore() {
	for _, options := range []string{"", " --junk-mark 0x8/0xff", " --authentic-mark 0x0/0x1 --junk-mark 0x80000000/0xffffffff"} {
		f.both(func(family string) {
			rule := "PREROUTING -p udp -j NETSYSRQ" + options
			f.do(append([]string{f.command(family), "-t", "raw", "-A"}, strings.Fields(rule)...)...)
			before := f.saved(family)
			if !strings.Contains(before, "-A "+rule+"\n") {
				f.Errorf("%s does not save %q:\n%s", family, rule, before)
			}
			if out, code, err := f.Exec(vm.Within(f, time.Minute), []byte(f.do(f.command(family+"-save"), "-t", "raw")), f.command(family+"-restore")); err != nil || code != 0 {
				f.Fatalf("restore: exit code %d %v: %s", code, err, out)
			}
			if after := f.saved(family); after != before {
				f.Errorf("%s: restored\n%s\nsaved\n%s", family, after, before)
			}
			f.do(append([]string{f.command(family), "-t", "raw", "-D"}, strings.Fields(rule)...)...)
		})
	}
	f.apply("was in place already")
	// The default marks are not printed.
	f.do(f.command("iptables"), "-t", "raw", "-A", "PREROUTING", "-p", "udp", "-j", "NETSYSRQ", "--authentic-mark", "1/3", "--junk-mark", "2/3")
	if s := f.saved("iptables"); !strings.Contains(s, "-A PREROUTING -p udp -j NETSYSRQ\n") {
		f.Error(s)
	}
	f.do(f.command("iptables"), "-t", "raw", "-D", "PREROUTING", "-p", "udp", "-j", "NETSYSRQ")
}

// options gives the target what it does not take.
func (f firewall) options() {
	f.both(func(family string) {
		add := func(args string) []string {
			return append([]string{f.command(family)}, strings.Fields(args)...)
		}
		f.fails("--authentic-mark: the value has bits outside of the mask", add("-t raw -A PREROUTING -p udp -j NETSYSRQ --authentic-mark 4/3")...)
		f.fails("--junk-mark: the value has bits outside of the mask", add("-t raw -A PREROUTING -p udp -j NETSYSRQ --junk-mark 0x100/0xff")...)
		f.fails(`--junk-mark: not a mark: "much"`, add("-t raw -A PREROUTING -p udp -j NETSYSRQ --junk-mark much")...)
		f.fails(`unknown option "--mark"`, add("-t raw -A PREROUTING -p udp -j NETSYSRQ --mark 1")...)
		for _, wrong := range []string{
			"-t raw -A PREROUTING -j NETSYSRQ",
			"-t raw -A PREROUTING -p tcp -j NETSYSRQ",
			"-t raw -A OUTPUT -p udp -j NETSYSRQ",
			"-t filter -A INPUT -p udp -j NETSYSRQ",
		} {
			f.fails("nvalid argument", add(wrong)...) // the kernel's log says which
		}
		if help := f.do(add("-j NETSYSRQ --help")...); !strings.Contains(help, "--junk-mark value[/mask]") {
			f.Errorf("%s: help:\n%s", family, help)
		}
	})
	f.wantPrinted()
}

// noExtension takes the extension away from iptables.
func (f firewall) noExtension() {
	const aside = "/run/extension"
	move := func(from, to string) { f.Helper(); f.do("/bin/busybox", "mv", from, to) }
	f.Cleanup(func() { f.Exec(vm.Within(f, time.Minute), nil, "/bin/busybox", "mv", aside, guestExtension) })

	// Rules that lead to the target stay.
	before := f.saved("iptables") + f.saved("ip6tables")
	move(guestExtension, aside)
	f.fails("its extension libxt_NETSYSRQ.so is not installed", f.netsysrqd("rules", "apply")...)
	out, _, err := f.Exec(vm.Within(f, time.Minute), nil, f.command("iptables-save"), "-t", "raw")
	f.Logf("saved without the extension: %v\n%s", err, out)
	f.wants(f.check(f.backend), "refuse", "daemon", f.rules("fail", "in TABLE there is another one than the configuration asks for: "+
		"iptables does not know the target NETSYSRQ")...)
	move(aside, guestExtension)
	if now := f.saved("iptables") + f.saved("ip6tables"); now != before {
		f.Errorf("rules that lead to the target:\n%s\nbefore:\n%s", now, before)
	}

	// They can be removed. Others are put in place with a warning.
	move(guestExtension, aside)
	if out := f.do(f.netsysrqd("rules", "remove")...); strings.Count(out, "removed") != 2 {
		f.Errorf("remove: %s", out)
	}
	said := f.apply("in place now")
	if !strings.Contains(said, "these are the rules of daemon-only mode: iptables does not know the target NETSYSRQ") ||
		!strings.Contains(said, "netsysrq-dkms") || !strings.Contains(said, "its keys were taken out") {
		f.Error(said)
	}
	unarmed := append(f.rules("warn", "in TABLE, for daemon-only mode, since none can lead to the kernel module"),
		finding{Name: "kernel module", State: "warn", Text: "loaded, but without keys, since no rule leads to it"},
		finding{Name: "daemon", State: "fail"})
	f.wants(f.check(f.backend), "refuse", "daemon", unarmed...)
	f.do(f.netsysrqd("arm")...)
	f.wants(f.check(f.backend), "refuse", "daemon", unarmed...)
	if out := f.do(f.netsysrqd("load-keys")...); !strings.Contains(out, "the firewall rules lead past the kernel module") {
		f.Errorf("load-keys: %s", out)
	}
	f.wants(f.check(f.backend), "refuse", "daemon",
		f.rules("fail", "outdated: the rules in TABLE do not lead through the kernel module: iptables does not know the target NETSYSRQ")...)
	move(aside, guestExtension)
	if said := f.do(f.netsysrqd("arm")...); !strings.Contains(said, "the kernel module holds 1 keys") || strings.Contains(said, "no kernel module") {
		f.Errorf("arm: %s", said)
	}
	f.wantPrinted()
}

// removal ends without rules and without the module.
func (f firewall) removal() {
	f.fails("", "/bin/busybox", "rmmod", "xt_NETSYSRQ")
	if out := f.do(f.netsysrqd("rules", "remove")...); strings.Count(out, "removed") != 2 {
		f.Errorf("remove: %s", out)
	}
	f.both(func(family string) {
		if s := f.saved(family); strings.Contains(s, "netsysrq") {
			f.Errorf("%s: left:\n%s", family, s)
		}
	})
	f.rmmod()
	f.wants(f.check(f.backend), "refuse", "daemon", f.rules("fail", "not in TABLE")...)
}

// TestCheck is netsysrqd check of a host with the kernel module.
func TestCheck(t *testing.T) {
	h := newRulesHost(t)
	netsysrqd := func(args ...string) string { t.Helper(); return h.do(append([]string{"netsysrqd"}, args...)...) }
	kernel := func(state, text string) finding { return finding{Name: "kernel module", State: state, Text: text} }
	h.insmod()
	netsysrqd("rules", "apply")
	h.wants(h.check("legacy"), "refuse", "daemon", kernel("fail", "loaded, but not armed: it holds no keys"))
	netsysrqd("load-keys")
	h.wants(h.check("legacy"), "obey", "kernel",
		kernel("ok", "armed: answers when the daemon cannot; 1 key, deadline 250ms, daemon not attached"),
		finding{Name: "kernel.sysrq", State: "ok", Text: "438: forbids nothing"},
		finding{Name: "kernel configuration", State: "ok"},
		finding{Name: "trigger", State: "ok", Text: "not used"})

	// Loading again leaves the ledger alone.
	age := h.ledgerAge()
	time.Sleep(1500 * time.Millisecond)
	netsysrqd("load-keys")
	if now := h.ledgerAge(); now < age+1 {
		t.Errorf("the ledger is %d s old after load-keys, and was %d s", now, age)
	}

	t.Run("keys", func(t *testing.T) {
		h := h.with(t)
		path := strings.Fields(h.do("/bin/sh", "-c", "echo /etc/netsysrq/keys/*.key"))[0]
		edit := func(expression string) { t.Helper(); h.do("/bin/busybox", "sed", "-i", expression, path) }
		edit(`s/^allow .*/allow = "s"/`)
		h.wants(h.check("legacy"), "refuse", "kernel", kernel("fail", "its keys are not those of the files: alice may use bnsu, by the file s"))
		netsysrqd("load-keys")
		h.wants(h.check("legacy"), "obey", "kernel", kernel("ok", "1 key"))

		h.do("/bin/busybox", "mv", path, "/run/key")
		h.wants(h.check("legacy"), "refuse", "kernel", kernel("fail", "there is no file"))
		h.do("/bin/busybox", "mv", "/run/key", path)
		edit(`s/^allow .*/allow = "bnsu"/`)
		netsysrqd("load-keys")

		// A key that is removed is gone from the module at once, and one that
		// is added there at once.
		if out := netsysrqd("keys", "remove", "alice"); !strings.Contains(out, "the kernel module does not obey it any more") ||
			!strings.Contains(out, "netsysrqd disarm") {
			t.Error(out)
		}
		h.wants(h.check("legacy"), "refuse", "daemon", kernel("warn", "it holds no keys, since there are none"))
		if out, err := exchange.Status(h.Context(), h.asked(vm.GuestUDP4(auth.Port)), exchange.Options{Dial: h.Net.Dial, Timeout: 3 * time.Second}); err != nil || out.Kind == exchange.Answered {
			t.Errorf("status with a key that was removed: %v %+v", err, out)
		}
		if out := netsysrqd("keys", "add", "--file", "/run/enrolment"); !strings.Contains(out, "the kernel module obeys it from now on") ||
			!strings.Contains(out, "next: netsysrqd arm, then netsysrqd run") {
			t.Error(out)
		}
		h.wants(h.check("legacy"), "obey", "kernel", kernel("ok", "1 key"))
	})
	t.Run("settings", func(t *testing.T) {
		h := h.with(t)
		h.do("/bin/sh", "-c", "(echo 'deadline = \"1s\"'; echo 'dry_run = true'; cat /etc/netsysrq/legacy.toml) >/etc/netsysrq/other.toml")
		h.wants(h.check("other"), "obey", "kernel",
			kernel("warn", "its deadline is 250ms, in the configuration 1s; its dry_run is false, in the configuration true"))
		netsysrqd("-c", "/etc/netsysrq/other.toml", "load-keys")
		h.wants(h.check("other"), "rehearse", "kernel", kernel("fail", "dry_run is on"))
		netsysrqd("load-keys")
		h.wants(h.check("legacy"), "obey", "kernel", kernel("ok", "deadline 250ms"))
	})
	t.Run("kernel.sysrq", func(t *testing.T) {
		h := h.with(t)
		sysrq := func(value string) { t.Helper(); h.do("/bin/busybox", "sysctl", "-w", "kernel.sysrq="+value) }
		sysrq("0")
		h.wants(h.check("legacy"), "refuse", "kernel", finding{Name: "kernel.sysrq", State: "fail",
			Text: "0: of what operators may use it forbids: bnsu; netsysrq reboot would be refused by kernel.sysrq", Hint: "/etc/sysctl.d"})
		sysrq("48")
		h.wants(h.check("legacy"), "refuse", "kernel", finding{Name: "kernel.sysrq", State: "fail", Text: "48: of what operators may use it forbids: bn;"})
		sysrq("1")
		h.wants(h.check("legacy"), "obey", "kernel", finding{Name: "kernel.sysrq", State: "ok"})
	})
	t.Run("threads", func(t *testing.T) {
		h := h.with(t)
		h.do("/bin/sh", "-c", "echo 2 >/sys/class/net/eth0/queues/rx-0/rps_cpus")
		h.wants(h.check("legacy"), "obey", "kernel", finding{Name: "kernel configuration", State: "warn", Text: "RPS on eth0: "})
		h.do("/bin/sh", "-c", "echo 0 >/sys/class/net/eth0/queues/rx-0/rps_cpus")
	})
	t.Run("daemon", func(t *testing.T) {
		h := h.with(t)
		h.start()
		r := h.check("legacy")
		h.wants(r, "obey", "kernel", finding{Name: "daemon", State: "ok", Text: "reads queue 9 and 10"}, kernel("ok", "daemon attached"))
	})
}

// ledgerAge is how old the ledger of alice's key is, in seconds.
func (h *host) ledgerAge() uint16 {
	h.Helper()
	out, err := exchange.Status(h.Context(), h.asked(vm.GuestUDP4(auth.Port)), exchange.Options{Dial: h.Net.Dial})
	if err != nil || out.Kind != exchange.Answered {
		h.Fatalf("status: %v %+v", err, out)
	}
	return out.Reply.LedgerAge
}
