// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/exchange"
	"netsysrq/internal/fleet/hosts"
)

// Outcomes that are hard to bring about with a real host.
func TestWords(t *testing.T) {
	send := func(line string) *options {
		o, err := parse(strings.Fields(line))
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	boots := func(o exchange.Outcome) *exchange.Outcome {
		o.Before, o.After = auth.BootID{0x1a, 0x2b, 0x3c, 0x4d}, auth.BootID{0x5e, 0x6f, 0x70, 0x81}
		return &o
	}
	for _, c := range []struct {
		options *options
		outcome *exchange.Outcome
		err     error
		code    int
		line    string
		hint    string // part of one
	}{
		{send("status web1"), &exchange.Outcome{Kind: exchange.Answered, RoundTrip: 800 * time.Microsecond, Difference: -90 * time.Second,
			Reply: &auth.Reply{Executor: auth.Kernel, Uptime: 59, Load: 12345, Silent: 75, Flags: auth.Armed, Sysrq: auth.SysrqUnknown}}, nil, 0,
			"up 59 s, load 123.45, 0 MiB free; the kernel answers: the daemon has been silent for 1 min 15 s; " +
				"armed (kernel module); its clock is 1 min 30 s behind ours; its clock is not known to be synchronised", ""},
		{send("send web1 s"), &exchange.Outcome{Kind: exchange.Accepted, Elapsed: 1300 * time.Millisecond, TimeStale: true,
			Difference: time.Minute, Reply: &auth.Reply{Executor: auth.Daemon}}, nil, 0,
			"accepted: s by the daemon (after 1.3 s); the one-packet form was stale, its clock is 1 min ahead of ours", ""},
		{send("send web1 s,t"), &exchange.Outcome{Kind: exchange.Accepted, RoundTrip: 12 * time.Millisecond,
			Reply: &auth.Reply{Executor: auth.Kernel, Flags: auth.Armed, Silent: 8, Mask: 2}}, nil, 0,
			"accepted: s, t, but without t (12 ms); the kernel answers: the daemon has been silent for 8 s", ""},
		{send("status web1"), &exchange.Outcome{Kind: exchange.Answered, RoundTrip: time.Millisecond,
			Reply: &auth.Reply{Executor: auth.Kernel, Flags: auth.Armed | auth.ClockTrusted, Sysrq: 1}}, nil, 0,
			"up 0 s, load 0.00, 0 MiB free; the kernel answers: the daemon has been silent for less than 1 s; armed (kernel module)", ""},
		{send("status web1"), &exchange.Outcome{Kind: exchange.Answered,
			Reply: &auth.Reply{Executor: auth.Daemon, Flags: auth.Armed | auth.ClockTrusted, Sysrq: 176, Free: 17<<10 + 5}}, nil, 0,
			"up 0 s, load 0.00, 17 GiB free; armed (kernel module); kernel.sysrq 176 ignores n of a reboot", ""},
		// Before a kernel module, the steps after e are refused as not allowed only.
		{send("send web1 e,s"), &exchange.Outcome{Kind: exchange.Refused, Reply: &auth.Reply{Result: auth.RefPolicy, Executor: auth.Daemon, Mask: 2}}, nil, 3,
			"refused by policy: e and i end every process, the daemon too, which would not live to run s", "end the sequence"},
		{send("send web1 e,s"), &exchange.Outcome{Kind: exchange.Refused,
			Reply: &auth.Reply{Result: auth.RefPolicy, Executor: auth.Daemon, Flags: auth.Armed, Mask: 2}}, nil, 3,
			"refused by policy: key s is not allowed for this key", "on the host, then systemctl reload netsysrqd"},
		{send("send web1 s,b"), &exchange.Outcome{Kind: exchange.Refused, Reply: &auth.Reply{Result: auth.RefPolicy, Executor: auth.Daemon, Mask: 3}}, nil, 3,
			"refused by policy: keys s, b are not allowed for this key", "on the host, then systemctl reload netsysrqd"},
		{send("send web1 s"), &exchange.Outcome{Kind: exchange.Refused, Reply: &auth.Reply{Result: auth.Vetoed}}, nil, 3,
			"vetoed: the host's daemon forbade it, or a newer request took its place", ""},
		{send("send web1 s"), &exchange.Outcome{Kind: exchange.Refused, Reply: &auth.Reply{Result: auth.Busy}}, nil, 3,
			"busy: 2 sequences of this key are running or waiting", "netsysrq cancel web1 drops"},
		{send("send web1 s --key it's --port 99 --yes"), &exchange.Outcome{Kind: exchange.Refused, Reply: &auth.Reply{Result: auth.Busy}}, nil, 3,
			"busy: 2 sequences of this key are running or waiting", `netsysrq cancel web1 --key 'it'\''s' --port 99 drops`},
		{send("send web1 s"), &exchange.Outcome{Kind: exchange.Refused, Reply: &auth.Reply{Result: auth.Malformed}}, nil, 3,
			"malformed: the host could open the request but not read it", "version"},
		{send("send web1 s"), &exchange.Outcome{Kind: exchange.Refused, Reply: &auth.Reply{Result: auth.Stale}}, nil, 3,
			"stale: the host does not trust its own clock, so it takes no packet by its time; its clock agrees with ours", "without --one-packet"},
		{send("reboot web1"), boots(exchange.Outcome{Kind: exchange.Rebooted, Reply: &auth.Reply{Uptime: 8}}), nil, 4,
			"rebooted since it was asked: boot 1a2b3c4d before, 5e6f7081 now, up 8 s; that it accepted was not heard", ""},
		{send("reboot web1"), &exchange.Outcome{RunSent: true, Forgotten: true, Elapsed: 40 * time.Second, Reply: &auth.Reply{Uptime: 8}}, nil, 5,
			"unknown: it booted (up 8 s) after it was first asked and no longer knows what it did; nothing more was sent, it may have been done all the same", "netsysrq status web1"},
		{send("reboot web1"), &exchange.Outcome{RunSent: true, Forgotten: true, Elapsed: 4 * time.Second, Reply: &auth.Reply{Uptime: 3600}}, nil, 5,
			"unknown: what answers there began anew (same boot, up 1 h) after it was first asked and no longer knows what it did; nothing more was sent, it may have been done all the same", ""},
		{send("reboot web1"), &exchange.Outcome{RunSent: true, Reply: &auth.Reply{}}, nil, 5,
			"unknown: it answered at first, but not to the run: no answer within 10 s; it may have been done all the same", ""},
		{send("reboot web1"), &exchange.Outcome{Reply: &auth.Reply{}}, nil, 5,
			"unknown: it answers, but has no challenge to give yet; the run was not sent", "--one-packet"},
		{send("reboot web1"), &exchange.Outcome{RunSent: true, Elapsed: 3 * time.Second}, errors.New("interrupted"), 5,
			"unknown: interrupted after 3 s without an answer; it may have been done all the same", `another name than "web1"`},
		{send("status web1"), &exchange.Outcome{Unreachable: syscall.EHOSTUNREACH}, nil, 5,
			"no answer within 10 s", "the network said: no route to host"},
	} {
		r := &result{options: c.options, host: &hosts.Host{Name: "web1", Enrolled: "web1"}, outcome: c.outcome, err: c.err}
		code, line, hints := r.words()
		if code != c.code || line != "web1: "+c.line {
			t.Errorf("exit %d: %s\nwant %d: web1: %s", code, line, c.code, c.line)
		}
		if !strings.Contains(strings.Join(hints, "\n"), c.hint) {
			t.Errorf("%s\nhints %q lack %q", line, hints, c.hint)
		}
	}
}

// Without the module both ways end at the same daemon, for the same reason.
func TestHintsOfADrillAreSaidOnce(t *testing.T) {
	o, err := parse([]string{"drill", "web1"})
	if err != nil {
		t.Fatal(err)
	}
	vetoed := &result{options: o, host: &hosts.Host{Name: "web1"},
		outcome: &exchange.Outcome{Kind: exchange.Refused, Reply: &auth.Reply{Result: auth.Vetoed}}}
	d := &drilled{options: o, host: vetoed.host, daemon: daemonWay(vetoed), kernel: kernelWay(vetoed)}
	if code, line, hints := d.verdict(); code != exitRefused || line != "nothing proved" || len(hints) != 1 {
		t.Errorf("exit %d: %s, %q", code, line, hints)
	}
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                                   "0 s",
		800 * time.Microsecond:              "0.8 ms",
		12345 * time.Microsecond:            "12 ms",
		time.Second:                         "1 s",
		1234 * time.Millisecond:             "1.2 s",
		time.Minute:                         "1 min",
		200 * time.Second:                   "3 min 20 s",
		3*time.Hour + 4*time.Minute + 59e9:  "3 h 4 min",
		76*time.Hour + 12*time.Minute:       "3 d 4 h",
		59*time.Second + 990e6:              "1 min",
		999*time.Millisecond + 900e3:        "1 s",
		59*time.Minute + 59*time.Second + 9: "59 min 59 s",
	} {
		if got := duration(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

func TestMasterFormat(t *testing.T) {
	op := &operator{"alice", auth.NewMaster()}
	got, err := parseMaster(string(formatMaster(op)))
	if err != nil || *got != *op {
		t.Errorf("%v, %v", got, err)
	}
}

func FuzzMaster(f *testing.F) {
	f.Add(string(formatMaster(&operator{label: "alice"})))
	f.Add("netsysrq-master-1 alice AAAA")
	f.Add("# nothing\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		op, err := parseMaster(text)
		if err != nil {
			if !errors.Is(err, errMaster) {
				t.Errorf("error %v", err)
			}
			return
		}
		again, err := parseMaster(string(formatMaster(op)))
		if err != nil || *again != *op {
			t.Errorf("read %v, then %v, %v", op, again, err)
		}
	})
}

// Every command has a help text, and every flag is in the usage text.
func TestHelpIsComplete(t *testing.T) {
	for _, c := range commands {
		if topics[c.name] == "" || !strings.Contains(usage, "netsysrq "+c.name) {
			t.Errorf("no help on %s", c.name)
		}
		for _, fl := range strings.Fields(c.flags) {
			if !strings.Contains(usage, "--"+fl) && !strings.Contains(topics[c.name], "--"+fl) {
				t.Errorf("--%s of %s is nowhere explained", fl, c.name)
			}
		}
	}
	for _, line := range strings.Split(usage, "\n") {
		if len(line) > 80 {
			t.Errorf("too wide: %s", line)
		}
	}
}

// The list of hosts in the help text is one.
func TestHostsExample(t *testing.T) {
	var list strings.Builder
	for line := range strings.Lines(topics["hosts"]) {
		if text, ok := strings.CutPrefix(line, "    "); ok && !strings.HasPrefix(text, "{") {
			list.WriteString(text)
		}
	}
	path := filepath.Join(t.TempDir(), "hosts.toml")
	if err := os.WriteFile(path, []byte(list.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := hosts.Load(path, "/home/alice")
	if err != nil {
		t.Fatal(err)
	}
	h, err := f.Host("db1")
	if err != nil || h.Port != 99 || h.Key != "/home/alice/keys/master.key" || f.Len() != 4 {
		t.Errorf("%+v, %v, %d hosts", h, err, f.Len())
	}
}
