// SPDX-License-Identifier: GPL-2.0-only

package check

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"netsysrq/auth"
	"netsysrq/cmd/responder/internal/config"
	"netsysrq/cmd/responder/internal/keyring"
	"netsysrq/cmd/responder/internal/rules"
	"netsysrq/kmod-fallback/kmod"
)

const machine = "0123456789abcdef0123456789abcdef"

// fake is a host made of plain files, on which all is well but the trigger,
// which can't be the kernel's.
type fake struct {
	testing.TB
	Host
	dir, config string
	rules       []rules.Status
	err         error // of looking at the rules
	nft         bool  // the rules for hosts without iptables are in place
	tryErr      error
	module      kmod.Status
	moduleErr   error
	asked       rules.Set // for these rules
}

func newFake(t testing.TB) *fake {
	f := &fake{TB: t, dir: t.TempDir(), moduleErr: kmod.ErrNotLoaded}
	f.config = filepath.Join(f.dir, "etc.toml")
	f.rules = []rules.Status{{Family: rules.IPv4, Backend: "nft", State: rules.Present}, {Family: rules.IPv6, Backend: "nft", State: rules.Present}}
	f.Host = Host{
		Proc:         filepath.Join(f.dir, "proc"),
		Sys:          filepath.Join(f.dir, "sys"),
		Etc:          filepath.Join(f.dir, "etc"),
		Modules:      filepath.Join(f.dir, "modules"),
		Source:       filepath.Join(f.dir, "src"),
		Dkms:         filepath.Join(f.dir, "dkms"),
		Root:         true,
		Synchronised: func() bool { return true },
		Rules: func(_ context.Context, s rules.Set) ([]rules.Status, error) {
			f.asked = s
			return f.rules, f.err
		},
		Try:    func(context.Context, rules.Set, rules.Family) error { return f.tryErr },
		Nft:    func(context.Context, rules.Set) bool { return f.nft },
		Module: func() (kmod.Status, error) { return f.module, f.moduleErr },
		Sleep:  func(time.Duration) { f.TB.Error("slept, though no packet waits") },
	}
	f.configure("")
	f.write("machine-id", machine+"\n")
	f.write("trigger", "")
	f.write("proc/sys/kernel/sysrq", "1\n")
	// As the kernel prints it: the second reader has a port of its own.
	f.write("proc/thread-self/net/netfilter/nfnetlink_queue", ""+
		"   10 3214567890     0 2  2048     0     3       17  1\n"+
		"    9   4242     0 2  2048     0     0       17  1\n"+
		"  100    999     5 2  2048     9     9       17  1\n")
	f.write("proc/thread-self/net/netlink", ""+
		"sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n"+
		"0000000000000000 0   4242       00000000 0        0        0     2        0        1111\n"+
		"0000000000000000 12  4242       00000000 0        0        0     2        0        2222\n"+
		"0000000000000000 12  3214567890 00000000 0        0        0     2        0        3333\n")
	f.write("proc/thread-self/net/udp", ""+
		"   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n"+
		"  420: 00000000:0009 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4444 2 0000000000000000 0\n"+
		"  421: 00000000:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 5555 2 0000000000000000 0\n")
	f.process(4242, "netsysrqd", "1111", "2222", "3333", "4444")
	f.write("proc/4242/status", "Name:\tnetsysrqd\nState:\tS (sleeping)\nVmLck:\t   12345 kB\n")
	f.limit("unlimited")
	f.write("proc/4242/oom_score_adj", "-1000\n")
	f.process(50, "resolver", "5555")
	f.key("alice", "nsub", machine)
	return f
}

// armed gives the host the kernel module, with alice's key and a daemon.
func (f *fake) armed() {
	f.moduleErr = nil
	f.module = kmod.Status{Deadline: 250 * time.Millisecond, Daemon: 4242, Sysrq: 1}
	f.hold("alice", "nsub")
	f.write("sys/class/net/eth0/threaded", "0\n")
	f.write("sys/class/net/eth0/queues/rx-0/rps_cpus", "00000000,00000000\n")
	f.write("proc/cmdline", "quiet\n")
	f.write("proc/sys/kernel/version", "#1 SMP PREEMPT_DYNAMIC Debian 6.1\n")
}

// bypassed gives the host the kernel module, to which iptables cannot lead.
func (f *fake) bypassed() {
	f.armed()
	f.module.Keys = nil
	f.rules[0].State, f.rules[1].State = rules.Outdated, rules.Outdated
	f.tryErr = rules.ErrNoExtension
}

// limit is how much memory the daemon may lock.
func (f *fake) limit(value string) {
	f.write("proc/4242/limits", ""+
		"Limit                     Soft Limit           Hard Limit           Units     \n"+
		"Max processes             unlimited            unlimited            processes \n"+
		fmt.Sprintf("Max locked memory         %-21s%-21sbytes     \n", value, value))
}

// waiting makes packets wait in the queue of quiet sources. A while later others
// wait there, of which the daemon has judged so many.
func (f *fake) waiting(judged int) {
	queues := func(entered, waiting int) {
		f.write("proc/thread-self/net/netfilter/nfnetlink_queue",
			fmt.Sprintf("10 3214567890 0 2 2048 0 0 17 1\n9 4242 %d 2 2048 5 2 %d 1\n", waiting, entered))
	}
	queues(100, 12)
	f.Sleep = func(time.Duration) { queues(101+judged, 13) }
}

// hold gives the module a key.
func (f *fake) hold(operator, allow string) {
	key, set := f.hostKey(operator, allow)
	f.module.Keys = append(f.module.Keys, kmod.Key{ID: key.ID, Allowed: set})
}

func (f *fake) write(name, text string) {
	f.Helper()
	path := filepath.Join(f.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		f.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		f.Fatal(err)
	}
}

func (f *fake) process(pid int, name string, sockets ...string) {
	f.Helper()
	dir := fmt.Sprintf("proc/%d/", pid)
	f.write(dir+"comm", name+"\n")
	fds := filepath.Join(f.dir, dir, "fd")
	if err := os.MkdirAll(fds, 0o755); err != nil {
		f.Fatal(err)
	}
	for i, inode := range sockets {
		if err := os.Symlink("socket:["+inode+"]", fmt.Sprintf("%s/%d", fds, i+3)); err != nil {
			f.Fatal(err)
		}
	}
}

func (f *fake) hostKey(operator, allow string) (auth.HostKey, auth.KeySet) {
	f.Helper()
	var m auth.Master
	copy(m[:], operator)
	key, err := m.HostKey("db3")
	if err != nil {
		f.Fatal(err)
	}
	set, err := auth.ParseKeySet(allow)
	if err != nil {
		f.Fatal(err)
	}
	return key, set
}

func (f *fake) key(operator, allow, machine string) {
	f.Helper()
	key, set := f.hostKey(operator, allow)
	_, err := keyring.Add(filepath.Join(f.dir, "keys"), keyring.Addition{
		Enrolment: &auth.Enrolment{Operator: operator, Host: "db3", Allow: set, Key: key}, MachineID: machine, Now: time.Now()}, -1)
	if err != nil {
		f.Fatal(err)
	}
}

// configure writes the configuration: extra settings after those that keep
// away from the real host.
func (f *fake) configure(extra string) {
	f.Helper()
	f.write("etc.toml", fmt.Sprintf("keys_dir = %q\nmachine_id = %q\ntrigger = %q\nuser = \"1:1\"\n%s",
		f.dir+"/keys", f.dir+"/machine-id", f.dir+"/trigger", extra))
}

func (f *fake) run() *Report { return f.Host.Run(context.Background(), f.config, "") }

func (f *fake) remove(name string) {
	f.Helper()
	if err := os.RemoveAll(filepath.Join(f.dir, name)); err != nil {
		f.Fatal(err)
	}
}

// TestFindings changes one thing at a time on a host where all is well.
func TestFindings(t *testing.T) {
	for _, c := range []struct {
		name    string
		change  func(*fake)
		finding string
		state   State
		text    string
		verdict Verdict
	}{
		{"all is well", func(*fake) {}, "daemon", OK, "netsysrqd (process 4242) reads queue 9 and 10", Rehearse},
		{"all is well", func(*fake) {}, "keys", OK, "alice may use bnsu", Rehearse},
		{"all is well", func(*fake) {}, "port", OK, "nothing else", Rehearse},
		{"all is well", func(*fake) {}, "memory", OK, "the daemon's memory is locked, and out of", Rehearse},
		{"all is well", func(*fake) {}, "kernel.sysrq", OK, "1: forbids nothing", Rehearse},
		{"all is well", func(*fake) {}, "clock", OK, "synchronised", Rehearse},
		{"all is well", func(*fake) {}, "rule IPv6", OK, "first in the raw table (iptables-nft)", Rehearse},
		{"plain file", func(*fake) {}, "trigger", Fail, "the kernel obeys nothing but", Rehearse},

		{"no keys", func(f *fake) { f.remove("keys") }, "keys", Fail, "no operator has a key", Refuse},
		{"clone", func(f *fake) { f.write("machine-id", "fedcba9876543210fedcba9876543210") }, "keys", Fail, "cloned", Refuse},
		{"no machine id", func(f *fake) { f.write("machine-id", "") }, "keys", Fail, "does not name this machine", Refuse},
		{"a key of another machine", func(f *fake) { f.key("bob", "s", "fedcba9876543210") }, "keys", Warn, "not counted", Rehearse},
		{"broken key", func(f *fake) { f.write("keys/x.key", "") }, "keys", Fail, "x.key", Refuse},

		{"rule absent", func(f *fake) { f.rules[0].State = rules.Absent }, "rule IPv4", Fail, "not in the raw table", Refuse},
		{"rule refused", func(f *fake) {
			f.rules[1].State = rules.Absent
			f.tryErr = errors.New("no u32")
		}, "rule IPv6", Fail, "the kernel does not take it: no u32", Refuse},
		{"rule changed", func(f *fake) { f.rules[1].State = rules.Changed }, "rule IPv6", Fail, "another one", Refuse},
		{"rule not first", func(f *fake) { f.rules[0].State = rules.NotFirst }, "rule IPv4", Warn, "others come first", Rehearse},
		{"old rule", func(f *fake) { f.rules[0].Other = true }, "rule IPv4", Warn, "other backend", Rehearse},
		{"rule in the other backend", func(f *fake) {
			f.rules[0] = rules.Status{Family: rules.IPv4, Backend: "legacy", Other: true, Elsewhere: true}
		},
			"rule IPv4", Warn, "not in the raw table (iptables-legacy), but in that of the other backend, where it works", Rehearse},
		{"no IPv6", func(f *fake) { f.rules[1].State = rules.NoFamily }, "rule IPv6", OK, "does not speak IPv6", Rehearse},
		{"no iptables", func(f *fake) { f.err = rules.ErrNoIptables }, "rule", Fail, "not installed", Refuse},
		{"nft alone", func(f *fake) { f.err, f.nft = rules.ErrNoIptables, true }, "rule", OK, "in the table inet netsysrq", Rehearse},
		{"rules not seen", func(f *fake) { f.err = fs.ErrPermission }, "rule", Unknown, "", NoIdea},

		{"no daemon", func(f *fake) { f.write("proc/thread-self/net/netfilter/nfnetlink_queue", "") },
			"daemon", Fail, "nothing reads queue 9 and 10", Refuse},
		{"no queues at all", func(f *fake) { f.remove("proc/thread-self/net/netfilter") }, "daemon", Fail, "nfnetlink_queue", Refuse},
		{"one queue", func(f *fake) { f.configure("queue = 99") }, "daemon", Fail, "reads queue 100, but not", Refuse},
		{"two readers", func(f *fake) {
			f.remove("proc/4242/fd/5")
			f.process(77, "suricata", "3333")
		}, "daemon", Fail, "queue 10 by suricata (process 77)", Refuse},
		{"lost packets of quiet sources", func(f *fake) { f.waiting(1) }, "daemon", Warn,
			"12 packets in queue 9; queue 9 has lost 7 packets", Rehearse},
		{"packets are not taken", func(f *fake) { f.waiting(0) }, "daemon", Fail,
			"netsysrqd (process 4242) hangs: 13 packets in queue 9, and none is taken", Refuse},
		{"packets are not taken, module", func(f *fake) { f.armed(); f.waiting(0) }, "daemon", Warn,
			"none is taken; the kernel obeys without its word, after 250ms", Obey},
		{"daemon stopped", func(f *fake) { f.write("proc/4242/status", "State:\tT (stopped)\nVmLck:\t   12345 kB\n") },
			"daemon", Fail, "netsysrqd (process 4242) is stopped, by a signal or a debugger", Refuse},

		{"port taken", func(f *fake) { f.configure("port = 53") }, "port", Warn, "resolver (process 50) is bound to UDP port 53", Rehearse},
		{"port taken, no daemon", func(f *fake) {
			f.configure("port = 53")
			f.write("proc/thread-self/net/netfilter/nfnetlink_queue", "")
		}, "port", Fail, "resolver", Refuse},

		{"port kept by systemd too", func(f *fake) { f.process(1, "systemd", "4444") }, "port", OK, "nothing else", Rehearse},
		{"port of systemd alone", func(f *fake) { f.configure("port = 53"); f.remove("proc/50"); f.process(1, "systemd", "5555") },
			"port", Warn, "systemd (process 1) is bound to UDP port 53: for a daemon that it is about to start, or for a unit of somebody else", Rehearse},

		{"dry run", func(f *fake) { f.configure("dry_run = true") }, "trigger", Fail, "dry_run is on", Rehearse},
		{"no trigger", func(f *fake) { f.remove("trigger") }, "trigger", Fail, "cannot be written to", Refuse},
		{"mask", func(f *fake) { f.write("proc/sys/kernel/sysrq", "16\n") }, "kernel.sysrq", Warn,
			"16: the daemon is not bound by it, but the kernel module would refuse: bnu", Rehearse},
		{"mask of others", func(f *fake) { f.write("proc/sys/kernel/sysrq", "438\n") }, "kernel.sysrq", OK, "438:", Rehearse},
		{"no sysctl", func(f *fake) { f.remove("proc/sys") }, "kernel.sysrq", Warn, "does not have it", Rehearse},
		{"clock", func(f *fake) { f.Synchronised = func() bool { return false } }, "clock", Warn, "not synchronised", Rehearse},
		{"memory", func(f *fake) { f.write("proc/4242/status", "VmLck:\t       0 kB\n") }, "memory", Warn, "not locked", Rehearse},
		{"memory mapped later", func(f *fake) { f.limit("8388608") }, "memory", Warn,
			"the daemon's memory is locked only as far as it was mapped at first: the rest may be swapped out", Rehearse},
		{"memory for others", func(f *fake) { f.write("proc/4242/oom_score_adj", "0\n") }, "memory", Warn,
			"the daemon's memory is not out of the OOM killer's reach: it may be killed", Rehearse},
		{"memory, both", func(f *fake) { f.limit("8388608"); f.write("proc/4242/oom_score_adj", "0\n") }, "memory", Warn,
			"when it is needed; it is not out of the OOM killer's reach", Rehearse},

		{"no module", func(*fake) {}, "kernel module", Warn, "not loaded, and not installed: daemon-only mode, nothing answers", Rehearse},
		{"module", (*fake).armed, "kernel module", OK,
			"armed: answers when the daemon cannot; 1 key, deadline 250ms, daemon attached", Obey},
		{"module", (*fake).armed, "rule IPv4", OK, "through the kernel module", Obey},
		{"module", (*fake).armed, "kernel configuration", OK, "in interrupts", Obey},
		{"module", (*fake).armed, "kernel.sysrq", OK, "forbids nothing", Obey},
		{"module", (*fake).armed, "trigger", Warn, "/trigger is not used: the kernel module acts by itself, and for real", Obey},
		{"module without daemon", func(f *fake) {
			f.armed()
			f.module.Daemon, f.module.Silent = 0, 8*time.Second
			f.write("proc/thread-self/net/netfilter/nfnetlink_queue", "")
		}, "kernel module", OK, "daemon not attached (silent for 8s)", Obey},
		{"module without daemon", func(f *fake) {
			f.armed()
			f.write("proc/thread-self/net/netfilter/nfnetlink_queue", "")
		}, "daemon", Warn, "not running: nothing reads queue 9 and 10; the kernel obeys without its word, after 250ms", Obey},
		{"module, port taken, no daemon", func(f *fake) {
			f.armed()
			f.configure("port = 53")
			f.write("proc/thread-self/net/netfilter/nfnetlink_queue", "")
		}, "port", Warn, "resolver", Obey},
		{"module, no trigger", func(f *fake) { f.armed(); f.remove("trigger") }, "trigger", Warn, "cannot be written to", Obey},
		{"module not seen", func(f *fake) { f.moduleErr = kmod.ErrPermission }, "kernel module", Unknown, "only root", NoIdea},
		{"module breaks", func(f *fake) { f.moduleErr = errors.New("no netlink") }, "kernel module", Unknown, "no netlink", NoIdea},
		{"module not armed", func(f *fake) { f.armed(); f.module.Keys = nil }, "kernel module", Fail, "not armed: it holds no keys", Refuse},
		{"no keys anywhere", func(f *fake) { f.armed(); f.module.Keys = nil; f.remove("keys") }, "kernel module", Warn, "since there are none", Refuse},
		{"missing key", func(f *fake) { f.armed(); f.key("bob", "s", machine) }, "kernel module", Fail, "bob's key", Refuse},
		{"extra key", func(f *fake) { f.armed(); f.hold("bob", "s") }, "kernel module", Fail, "there is no file", Refuse},
		{"other allowed set", func(f *fake) { f.armed(); f.module.Keys = nil; f.hold("alice", "s") },
			"kernel module", Fail, "alice may use s, by the file bnsu", Refuse},
		{"nothing allowed", func(f *fake) { f.armed(); f.module.Keys[0].Allowed = 0 }, "kernel module", Fail, "alice may use nothing", Refuse},
		{"broken key, module", func(f *fake) { f.armed(); f.write("keys/x.key", "") }, "kernel module", OK, "armed", Refuse},
		{"other deadline", func(f *fake) { f.armed(); f.configure("deadline = \"1s\"") },
			"kernel module", Warn, "its deadline is 250ms, in the configuration 1s", Obey},
		{"dry_run of the file", func(f *fake) { f.armed(); f.configure("dry_run = true") },
			"kernel module", Warn, "its dry_run is false, in the configuration true", Obey},
		{"dry_run of the module", func(f *fake) { f.armed(); f.module.DryRun = true },
			"kernel module", Fail, "its dry_run is true, in the configuration false", Rehearse},
		{"dry_run of both", func(f *fake) { f.armed(); f.module.DryRun = true; f.configure("dry_run = true") },
			"kernel module", Fail, "dry_run is on", Rehearse},
		{"module and mask", func(f *fake) { f.armed(); f.module.Sysrq = 16 }, "kernel.sysrq", Fail,
			"16: of what operators may use it forbids: bnu; netsysrq reboot would be refused by kernel.sysrq", Refuse},
		{"module and sysrq off", func(f *fake) { f.armed(); f.module.Sysrq = 0 }, "kernel.sysrq", Fail, "0: of what operators may use it forbids: bnsu", Refuse},
		{"module and mask of others", func(f *fake) {
			f.armed()
			f.key("bob", "wL", machine)
			f.hold("bob", "wL")
			f.module.Sysrq = 438
		}, "kernel.sysrq", Warn, "438: of what operators may use it forbids: w", Obey},
		{"always enabled", func(f *fake) { f.armed(); f.write("proc/sys/kernel/sysrq", "0\n") }, "kernel.sysrq", OK, "1: forbids nothing", Obey},
		{"rules without the module", func(f *fake) { f.armed(); f.rules[0].State = rules.Outdated }, "rule IPv4", Fail,
			"outdated: the rules in the raw table (iptables-nft) do not lead through the kernel module", Refuse},
		{"no extension", func(f *fake) { f.armed(); f.rules[1].State = rules.Outdated; f.tryErr = rules.ErrNoExtension }, "rule IPv6", Fail,
			"through the kernel module: iptables does not know the target NETSYSRQ", Refuse},
		{"no extension, not armed", (*fake).bypassed, "kernel module", Warn,
			"loaded, but without keys, since no rule leads to it: daemon-only mode, nothing answers when this host's processes hang: iptables does not know", Rehearse},
		{"no extension, not armed", (*fake).bypassed, "rule IPv4", Warn, "for daemon-only mode, since none can lead to the kernel module", Rehearse},
		{"no extension, not armed, mask", func(f *fake) { f.bypassed(); f.module.Sysrq = 16 }, "kernel.sysrq", Warn, "the daemon is not bound by it", Rehearse},
		{"rules for the module", func(f *fake) { f.rules[0].State = rules.Outdated }, "rule IPv4", Fail, "which is not loaded", Refuse},
		{"saved rules", func(f *fake) {
			f.write("etc/iptables/rules.v4", "-A netsysrq -j netsysrq-allow\n")
			f.write("etc/iptables/rules.v6", "-A netsysrq -p udp -j NETSYSRQ --junk-mark 1/1\n")
		}, "saved rules", Warn, "/etc/iptables/rules.v6: with the target NETSYSRQ in it", Rehearse},
		{"saved ruleset", func(f *fake) {
			f.write("etc/nftables.conf", "table ip raw {\n\tchain netsysrq {\n\t\txt match \"u32\" counter drop\n\t}\n}\n")
		}, "saved rules", Warn, "/etc/nftables.conf: with rules of iptables in it", Rehearse},
		{"ruleset of its own", func(f *fake) {
			f.write("etc/nftables.conf", "include \"/usr/share/netsysrq/netsysrq.nft\"\n")
			f.write("etc/iptables/rules.v4", "-A netsysrq -p udp -j NETSYSRQ\n")
		}, "saved rules", Warn, "/etc/iptables/rules.v4: with the target", Rehearse},
		{"real-time kernel", func(f *fake) { f.armed(); f.write("proc/sys/kernel/version", "#1 SMP PREEMPT_RT Debian\n") },
			"kernel configuration", Warn, "PREEMPT_RT: the kernel may be silent", Obey},
		{"interrupts in threads", func(f *fake) {
			f.armed()
			f.write("proc/cmdline", "quiet threadirqs\n")
			f.write("sys/class/net/eth0/threaded", "1\n")
			f.write("sys/class/net/eth0/queues/rx-1/rps_cpus", "00000000,00000002\n")
		}, "kernel configuration", Warn, "threadirqs, threaded NAPI on eth0, RPS on eth0: ", Obey},

		{"configuration", func(f *fake) { f.configure("prot = 9") }, "configuration", Fail, "etc.toml:5: unknown setting", Refuse},
		{"no user", func(f *fake) { f.write("etc.toml", "user = \"netsysrq-no-such-user\"") }, "configuration", Fail, "netsysrq-no-such-user", Refuse},
	} {
		t.Run(c.name+"/"+c.finding, func(t *testing.T) {
			f := newFake(t)
			c.change(f)
			r := f.run()
			var all []string
			found := false
			for _, x := range r.Findings {
				all = append(all, fmt.Sprintf("%s %s: %s (%s)", x.State, x.Name, x.Text, x.Hint))
				if x.Name == c.finding {
					found = true
					if x.State != c.state || !strings.Contains(x.Text, c.text) {
						t.Errorf("%s: %s: %s\nwant %s: %s", x.Name, x.State, x.Text, c.state, c.text)
					}
				}
				if x.State == Fail && x.Hint == "" && x.Name != "trigger" && f.err == nil {
					t.Errorf("%s fails without a hint", x.Name)
				}
			}
			if !found {
				t.Errorf("no finding %q", c.finding)
			}
			if want := f.moduleErr != kmod.ErrNotLoaded; f.asked.Kernel != want && r.Findings[0].State == OK {
				t.Errorf("asked for the rules of kernel mode: %v, want %v", f.asked.Kernel, want)
			}
			if r.Verdict != c.verdict {
				t.Errorf("verdict %s, want %s:\n%s", r.Verdict, c.verdict, strings.Join(all, "\n"))
			}
		})
	}
}

// TestWhyNotLoaded: each stage on the way to a module that is loaded has words of
// its own, and says what comes next.
func TestWhyNotLoaded(t *testing.T) {
	const (
		release  = "6.1.0-50-cloud-amd64"
		file     = "modules/" + release + "/updates/dkms/xt_NETSYSRQ.ko"
		enforce  = "sys/module/module/parameters/sig_enforce"
		lockdown = "sys/kernel/security/lockdown"
		mark     = "~Module signature appended~\n"
	)
	source := func(f *fake) { f.write("src/netsysrq-0.1.0/dkms.conf", "") }
	headers := func(f *fake) { source(f); f.write("modules/"+release+"/build/Makefile", "") }
	log := func(kernel string) func(*fake) {
		return func(f *fake) {
			headers(f)
			f.write("dkms/netsysrq/0.1.0/build/make.log", "DKMS make.log for netsysrq-0.1.0 for kernel "+kernel+" (x86_64)\nerror\n")
		}
	}
	built := func(name, content string, more ...string) func(*fake) {
		return func(f *fake) {
			f.write(name, content)
			for i := 0; i < len(more); i += 2 {
				f.write(more[i], more[i+1])
			}
		}
	}
	for _, c := range []struct {
		name       string
		change     func(*fake)
		text, hint string
	}{
		{"nothing", func(*fake) {}, "not loaded, and not installed", "apt install netsysrq-dkms"},
		{"no headers", source, "whose headers are missing", "apt install linux-headers-" + release + "; dkms install netsysrq/0.1.0 -k " + release},
		{"headers", headers, "not loaded: it is not built for this kernel:", "dkms install netsysrq/0.1.0 -k " + release + "; netsysrqd arm"},
		{"build failed", log(release), "its build for this kernel has failed", "dkms/netsysrq/0.1.0/build/make.log says why"},
		{"build for another kernel failed", log(release + "-old"), "not loaded: it is not built for this kernel:", "dkms install"},
		{"built", built(file, "elf", enforce, "N", lockdown, "[none] integrity confidentiality"), "though it is built for this kernel", "netsysrqd arm"},
		{"built, by hand", built("modules/"+release+"/extra/xt_NETSYSRQ.ko", "elf"), "though it is built for this kernel", "netsysrqd arm"},
		{"compressed", built(file+".xz", "xz"), "though it is built for this kernel", "netsysrqd arm"},
		{"for another kernel", built("modules/6.2/updates/dkms/xt_NETSYSRQ.ko", "elf"), "not installed", "apt install"},
		{"unsigned, enforced", built(file, "elf of some length, without a mark", enforce, "Y"), "it is built, but not signed", "mokutil --import"},
		{"unsigned, lockdown", built(file, "elf of some length, without a mark", lockdown, "none [integrity] confidentiality"), "it is built, but not signed", "secure-boot.md"},
		{"unsigned, confidentiality", built(file, "elf", lockdown, "none integrity [confidentiality]"), "it is built, but not signed", "secure-boot.md"},
		{"signed, enforced", built(file, "elf"+mark, enforce, "Y"), "it is built and signed", "mokutil --test-key"},
		{"compressed, enforced", built(file+".zst", "zst"+mark, enforce, "Y"), "whether it is signed cannot be seen", "modinfo -F signer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake(t)
			f.write("proc/sys/kernel/osrelease", release+"\n")
			c.change(f)
			for _, x := range f.run().Findings {
				if x.Name != "kernel module" {
					continue
				}
				x.Hint = strings.ReplaceAll(x.Hint, "netsysrqd -c "+f.config, "netsysrqd")
				if x.State != Warn || !strings.Contains(x.Text, c.text) || !strings.Contains(x.Text, "daemon-only mode") || !strings.Contains(x.Hint, c.hint) {
					t.Errorf("%s: %s -> %s", x.State, x.Text, x.Hint)
				}
			}
		})
	}
}

// TestMode: the kernel acts where it holds keys and a rule leads to it.
func TestMode(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*fake)
		mode   Mode
	}{
		{"no module", func(*fake) {}, DaemonMode},
		{"armed", (*fake).armed, KernelMode},
		{"not armed", func(f *fake) { f.armed(); f.module.Keys = nil }, DaemonMode},
		{"one family", func(f *fake) { f.armed(); f.rules[1].State = rules.Absent }, KernelMode},
		{"old rules", func(f *fake) { f.armed(); f.rules[0].State, f.rules[1].State = rules.Outdated, rules.Outdated }, DaemonMode},
		{"not root", func(f *fake) { f.moduleErr, f.err = kmod.ErrPermission, fs.ErrPermission }, KernelMode},
		{"no configuration", func(f *fake) { f.armed(); f.configure("prot = 9") }, ""},
	} {
		f := newFake(t)
		c.change(f)
		if r := f.run(); r.Mode != c.mode {
			t.Errorf("%s: %q, want %q", c.name, r.Mode, c.mode)
		}
	}
}

func TestSentences(t *testing.T) {
	findings := []Finding{{Name: "keys", State: Fail}, {Name: "rule IPv4", State: Fail}, {Name: "daemon", State: Unknown}, {Name: "clock", State: OK}}
	for verdict, want := range map[Verdict]string{
		Obey:     "this host would obey requests from: alice, bob",
		Rehearse: "this host would NOT obey: keys, rule IPv4: it would answer requests from alice, bob and do nothing",
		Refuse:   "this host would NOT obey: keys, rule IPv4",
		NoIdea:   "could not tell whether this host would obey: not seen: daemon",
	} {
		r := Report{Verdict: verdict, Operators: []string{"alice", "bob"}, Findings: findings}
		if got := r.Sentence(); got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
	r := Report{Verdict: Obey, Mode: KernelMode, Operators: []string{"alice"}}
	if got, want := r.Sentence(), "this host would obey requests from: alice; also while its processes hang"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

// TestVerdict: what fails outweighs what is not seen, and both outweigh the
// rest; a warning alone changes nothing.
func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		states []State
		inert  string
		want   Verdict
	}{
		{[]State{OK, Warn}, "", Obey},
		{[]State{OK}, "trigger", Rehearse},
		{[]State{OK, Unknown}, "trigger", NoIdea},
		{[]State{Unknown, Fail, OK}, "", Refuse},
		{[]State{Fail, OK}, "trigger", Refuse},
		{[]State{Fail, OK}, "x", Rehearse},
	} {
		k := checker{inert: c.inert}
		for _, s := range c.states {
			k.add("x", s, "", "")
		}
		if got := k.verdict(); got != c.want {
			t.Errorf("%v %v: %s, want %s", c.states, c.inert, got, c.want)
		}
	}
}

func TestDaemon(t *testing.T) {
	f := newFake(t)
	find := func(queue uint16) (int, error) { return f.Host.Daemon(&config.Config{Queue: queue}) }
	if pid, err := find(9); pid != 4242 || err != nil {
		t.Errorf("process %d, %v", pid, err)
	}
	if pid, err := find(99); pid != 0 || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("queues that nobody reads: process %d, %v", pid, err)
	}
	f.remove("proc/4242/fd/5")
	f.process(77, "suricata", "3333")
	if pid, err := find(9); pid != 0 || err != nil {
		t.Errorf("two readers: process %d, %v", pid, err)
	}
	f.remove("proc/thread-self/net/netfilter")
	if pid, err := find(9); pid != 0 || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no queues at all: process %d, %v", pid, err)
	}
}

// TestHintsFitTheHost: what to do next is a command that works there.
func TestHintsFitTheHost(t *testing.T) {
	idle := func(f *fake) { f.write("proc/thread-self/net/netfilter/nfnetlink_queue", "") }
	for _, c := range []struct {
		name    string
		change  func(*fake)
		finding string
		systemd string
		other   string // with another configuration than that of the units, or without systemd
	}{
		{"no daemon", idle, "daemon", "systemctl start netsysrqd", "netsysrqd -c CONFIG run"},
		{"stuck", func(f *fake) { f.waiting(0) }, "daemon", "systemctl restart netsysrqd", "kill -KILL 4242, then: netsysrqd -c CONFIG run"},
		{"one queue", func(f *fake) { f.configure("queue = 99") }, "daemon", "systemctl restart netsysrqd",
			"end what reads the queue, then: netsysrqd -c CONFIG run"},
		{"dry run", func(f *fake) { f.configure("dry_run = true") }, "trigger", "set dry_run = false, then: systemctl reload netsysrqd",
			"set dry_run = false, then: SIGHUP to the daemon"},
		{"rules", func(f *fake) { f.rules[0].State = rules.NotFirst }, "rule IPv4", "netsysrqd -c CONFIG rules apply", "netsysrqd -c CONFIG rules apply"},
		{"not TOML", func(f *fake) { f.configure("deadline = 3") }, "configuration", "man netsysrqd.toml", "man netsysrqd.toml"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake(t)
			c.change(f)
			for units, want := range map[string]string{f.config: c.systemd, "/etc/other.toml": c.other, "": c.other} {
				f.Units = units
				for _, x := range f.run().Findings {
					if want := strings.ReplaceAll(want, "CONFIG", f.config); x.Name == c.finding && x.Hint != want {
						t.Errorf("units with %q: %s\nwant %s", units, x.Hint, want)
					}
				}
			}
		})
	}
}

func FuzzParseQueues(f *testing.F) {
	f.Add("    9   4242     0 2  2048     0     0       17  1\n")
	f.Fuzz(func(t *testing.T, text string) { parseQueues(text) })
}
