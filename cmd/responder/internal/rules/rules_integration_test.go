// SPDX-License-Identifier: GPL-2.0-only

//go:build integration

package rules

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"netsysrq/internal/netlab"
)

// each runs a test in a lab of its own for both backends.
func each(t *testing.T, test func(t *testing.T, l *lab)) {
	for _, backend := range []string{nft, legacy} {
		t.Run(backend, func(t *testing.T) {
			net := netlab.New(t)
			set := Set{Port: 9, Queue: 9, Backend: backend, Path: os.Getenv("PATH")}
			if set.find("iptables-"+backend) == "" {
				t.Skipf("iptables-%s is not installed", backend)
			}
			test(t, &lab{t, net, set})
		})
	}
}

type lab struct {
	*testing.T
	net *netlab.Lab
	set Set
}

// server runs fn in the namespace of the host that has the rules.
func (l *lab) server(fn func(context.Context) error) {
	l.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := l.net.Do(l.net.Server, func() error { return fn(ctx) }); err != nil {
		l.Fatal(err)
	}
}

func (l *lab) apply(set Set) (results []Result) {
	l.Helper()
	l.server(func(ctx context.Context) (err error) {
		results, err = set.Apply(ctx)
		return err
	})
	return results
}

func (l *lab) remove(set Set) (results []Result) {
	l.Helper()
	l.server(func(ctx context.Context) (err error) {
		results, err = set.Remove(ctx)
		return err
	})
	return results
}

func (l *lab) states(set Set) (text string) {
	l.Helper()
	l.server(func(ctx context.Context) error {
		all, err := set.Status(ctx)
		for _, s := range all {
			text += fmt.Sprintf("%v %d %v;", s.Family, s.State, s.Other)
		}
		return err
	})
	return text
}

// want compares what Status says; both families are in the same state.
func (l *lab) want(set Set, state State, other bool) {
	l.Helper()
	want := fmt.Sprintf("IPv4 %d %v;IPv6 %d %v;", state, other, state, other)
	if got := l.states(set); got != want {
		l.Errorf("status %s want %s", got, want)
	}
}

// elsewhere compares whether the rules work in the other backend alone.
func (l *lab) elsewhere(set Set, want bool) {
	l.Helper()
	l.server(func(ctx context.Context) error {
		all, err := set.Status(ctx)
		for _, s := range all {
			if s.Elsewhere != want {
				l.Errorf("%+v: in the other backend alone: want %v", s, want)
			}
		}
		return err
	})
}

func (l *lab) tables(args ...string) string {
	l.Helper()
	out, err := l.net.Run(l.net.Server, args[0], args[1:]...)
	if err != nil {
		l.Fatal(err)
	}
	var keep []string
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "#") {
			keep = append(keep, line)
		}
	}
	return policyCounters.ReplaceAllString(strings.Join(keep, ""), "[0:0]")
}

// policyCounters move with every packet of the neighbours' small talk.
var policyCounters = regexp.MustCompile(`(?m)\[\d+:\d+\]$`)

// saved is the raw table of both families and everything else.
func (l *lab) saved() string {
	return l.tables("iptables-"+l.set.Backend+"-save") + l.tables("ip6tables-"+l.set.Backend+"-save")
}

// foreign puts rules of somebody else in place.
func (l *lab) foreign() {
	for _, command := range []string{"iptables-" + l.set.Backend, "ip6tables-" + l.set.Backend} {
		for _, args := range []string{
			"-N docker", "-A docker -j RETURN",
			"-A PREROUTING -p tcp --dport 80 -j docker",
			"-A PREROUTING -p udp --dport 9 -j ACCEPT",
			"-A OUTPUT -p udp --sport 9 -j ACCEPT",
		} {
			l.tables(append([]string{command, "-t", "raw"}, strings.Fields(args)...)...)
		}
		l.tables(command, "-A", "INPUT", "-p", "tcp", "--dport", "22", "-j", "ACCEPT")
	}
}

func TestApplyTwice(t *testing.T) {
	each(t, func(t *testing.T, l *lab) {
		l.foreign()
		before := l.saved()
		l.want(l.set, Absent, false)

		for _, r := range l.apply(l.set) {
			if !r.Changed || r.Warning != "" {
				t.Errorf("first time: %+v", r)
			}
		}
		once := l.saved()
		l.want(l.set, Present, false)
		for _, r := range l.apply(l.set) {
			if r.Changed {
				t.Errorf("second time: %+v", r)
			}
		}
		if twice := l.saved(); twice != once {
			t.Errorf("applied once:\n%s\ntwice:\n%s", once, twice)
		}
		for line := range strings.Lines(before) {
			if !strings.Contains(once, line) {
				t.Errorf("lost: %s", line)
			}
		}

		if n := len(l.remove(l.set)); n != 2 {
			t.Errorf("removed %d of 2", n)
		}
		if after := l.saved(); after != before {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
		if n := len(l.remove(l.set)); n != 0 {
			t.Errorf("removed %d of 0", n)
		}
	})
}

// TestPrintedTextIsWhatIsApplied gives the text to iptables-restore by hand.
func TestPrintedTextIsWhatIsApplied(t *testing.T) {
	each(t, func(t *testing.T, l *lab) {
		for f, command := range map[Family]string{IPv4: "iptables-", IPv6: "ip6tables-"} {
			path := t.TempDir() + "/rules"
			if err := os.WriteFile(path, []byte(l.set.Text(f)), 0o600); err != nil {
				t.Fatal(err)
			}
			l.tables("sh", "-c", command+l.set.Backend+"-restore --noflush <"+path)
		}
		l.want(l.set, Present, false)
	})
}

// TestMending: whatever happened to the rules, Apply brings them back, first
// and once, and Status told it before.
func TestMending(t *testing.T) {
	each(t, func(t *testing.T, l *lab) {
		l.foreign()
		l.apply(l.set)
		good := l.saved()
		other := l.set
		other.Port, other.Queue, other.AllowFrom = 4009, 20, prefixes("192.0.2.0/24")
		commands := []string{"iptables-" + l.set.Backend, "ip6tables-" + l.set.Backend}
		raw := func(args ...string) {
			for _, c := range commands {
				l.tables(append([]string{c, "-t", "raw"}, args...)...)
			}
		}
		for _, c := range []struct {
			name  string
			state State
			harm  func()
		}{
			{"another rule first", NotFirst, func() {
				raw("-I", "PREROUTING", "-p", "icmp", "-j", "ACCEPT")
			}},
			{"jump twice", Changed, func() {
				raw("-A", "PREROUTING", "-p", "udp", "--dport", "9", "-j", chain)
			}},
			{"jump lost", Changed, func() { raw("-D", "PREROUTING", "1") }},
			{"chain flushed", Changed, func() { raw("-F", chain) }},
			{"rule added", Changed, func() { raw("-I", chain, "-j", "ACCEPT") }},
			{"jump from a chain of others", Changed, func() { raw("-A", "docker", "-j", chain) }},
			{"settings of before", Changed, func() { l.apply(other) }},
		} {
			c.harm()
			l.want(l.set, c.state, false)
			l.apply(l.set)
			l.want(l.set, Present, false)
			got := l.saved()
			if c.state == NotFirst { // the other rule stays, behind ours
				raw("-D", "PREROUTING", "-p", "icmp", "-j", "ACCEPT")
				got = l.saved()
			}
			if got != good {
				t.Errorf("%s: mended to\n%s\nwant\n%s", c.name, got, good)
			}
		}
		raw("-F")
		raw("-X")
		l.want(l.set, Absent, false)
	})
}

// TestOtherBackend: rules that an earlier configuration left in the other
// backend are seen, replaced by Apply and found by Remove.
func TestOtherBackend(t *testing.T) {
	each(t, func(t *testing.T, l *lab) {
		old := l.set
		old.Backend = otherBackend(old.Backend)
		l.apply(old)
		l.want(l.set, Absent, true)
		l.elsewhere(l.set, true)
		moved := l.set
		moved.Port++
		l.elsewhere(moved, false) // those of another port do not work
		l.apply(l.set)
		l.want(l.set, Present, false)
		l.elsewhere(l.set, false)
		l.want(old, Absent, true)
		l.remove(old)
		l.want(l.set, Absent, false)
	})
}

// TestAnotherWayToPrint: a version of iptables that prints rules in another
// way is not taken for one that has other rules.
func TestAnotherWayToPrint(t *testing.T) {
	each(t, func(t *testing.T, l *lab) {
		dir := t.TempDir()
		for _, command := range []string{"iptables-", "ip6tables-"} {
			name := command + l.set.Backend + "-save"
			script := fmt.Sprintf("#!/bin/sh\n%s \"$@\" | sed 's/--queue-num/--queue/'\n", l.set.find(name))
			if err := os.WriteFile(dir+"/"+name, []byte(script), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		l.apply(l.set)
		set := l.set
		set.Path = dir + ":" + set.Path
		l.want(set, Present, false)
		set.Queue = 7
		l.want(set, Changed, false)
	})
}

// TestTryChangesNothing asks the kernel for its opinion.
func TestTryChangesNothing(t *testing.T) {
	each(t, func(t *testing.T, l *lab) {
		before := l.saved()
		l.server(func(ctx context.Context) error {
			for _, f := range Families {
				if err := l.set.Try(ctx, f); err != nil {
					return err
				}
			}
			return nil
		})
		if after := l.saved(); after != before {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
	})
}

// TestLowerLimit: on a kernel whose xt_recent refuses 64 hits, Apply asks for
// what is possible and says so.
func TestLowerLimit(t *testing.T) {
	each(t, func(t *testing.T, l *lab) {
		path := t.TempDir() + "/limit"
		if err := os.WriteFile(path, []byte("20\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		before := hitLimit
		hitLimit = path
		defer func() { hitLimit = before }()
		for _, r := range l.apply(l.set) {
			if !strings.Contains(r.Warning, "after 20 packets") {
				t.Errorf("%+v", r)
			}
		}
		l.want(l.set, Present, false)
		if !strings.Contains(l.saved(), "--hitcount 20 ") {
			t.Error(l.saved())
		}
	})
}

// TestReplacingLetsNothingThrough: while rules are replaced, again and again,
// every packet meets the old ones or the new.
func TestReplacingLetsNothingThrough(t *testing.T) {
	each(t, func(t *testing.T, l *lab) {
		other := l.set
		other.Queue, other.AllowFrom = 40, prefixes("0.0.0.0/0", "::/0")
		l.apply(l.set)
		commands := map[Family]string{IPv4: "iptables-" + l.set.Backend, IPv6: "ip6tables-" + l.set.Backend}
		for _, c := range commands {
			l.tables(c, "-t", "raw", "-A", "PREROUTING", "-p", "udp", "--dport", "9", "-j", "DROP")
		}
		stop, done := make(chan struct{}), make(chan int)
		go func() {
			sent := 0
			defer func() { done <- sent }()
			err := l.net.Do(l.net.Client, func() error {
				var conns []net.Conn
				for _, f := range Families {
					_, server := addresses(f)
					c, err := net.Dial("udp", net.JoinHostPort(server, "9"))
					if err != nil {
						return err
					}
					defer c.Close()
					conns = append(conns, c)
				}
				for {
					for _, c := range conns {
						c.Write(request())
						sent++
					}
					select {
					case <-stop:
						return nil
					case <-time.After(50 * time.Microsecond):
					}
				}
			})
			if err != nil {
				t.Error(err)
			}
		}()
		for range 10 {
			for _, set := range []Set{other, l.set} {
				for _, r := range l.apply(set) {
					if !r.Changed {
						t.Errorf("not changed: %+v", r)
					}
				}
			}
		}
		close(stop)
		t.Logf("%d packets", <-done)
		for f, c := range commands {
			if out := l.tables(c+"-save", "-c", "-t", "raw"); !strings.Contains(out, "[0:0] -A PREROUTING -p udp -m udp --dport 9 -j DROP\n") {
				t.Errorf("%v: packets got past our rules:\n%s", f, out)
			}
		}
	})
}

// TestNoModule: where no rule can lead to the module's target, the rules of
// daemon-only mode are put in place with a warning, and are not what was asked
// for. In a namespace that is so whether or not the module is loaded.
func TestNoModule(t *testing.T) {
	each(t, func(t *testing.T, l *lab) {
		kernel := l.set
		kernel.Kernel = true
		l.server(func(context.Context) error {
			if ModuleLoaded() {
				t.Error("the module is said to be loaded")
			}
			return nil
		})
		for i := range 2 {
			for _, r := range l.apply(kernel) {
				if r.Changed != (i == 0) || !r.Past || !strings.Contains(r.Warning, "rules of daemon-only mode: ") {
					t.Errorf("time %d: %+v", i, r)
				}
			}
			l.want(l.set, Present, false)
			l.want(kernel, Outdated, false)
		}
		other := kernel
		other.Port = 4009
		l.want(other, Changed, false)
		if n := len(l.remove(kernel)); n != 2 {
			t.Errorf("removed %d of 2", n)
		}
		l.want(kernel, Absent, false)
		l.server(func(ctx context.Context) error {
			if err := kernel.Try(ctx, IPv4); err == nil {
				t.Log("Try passed: the extension is installed here")
			} else if !errors.Is(err, ErrNoExtension) {
				t.Error(err)
			}
			return nil
		})
	})
}

// TestWatcherWithoutTarget: that no rule leads to the module is said once, and
// told every time to who takes its keys out.
func TestWatcherWithoutTarget(t *testing.T) {
	each(t, func(t *testing.T, l *lab) {
		kernel := l.set
		kernel.Kernel = true
		var log bytes.Buffer
		past := 0
		w := &Watcher{Set: func() (Set, error) { return kernel, nil }, Log: slog.New(slog.NewTextHandler(&log, nil)), Past: func() { past++ }}
		l.server(func(ctx context.Context) error {
			for range 3 {
				w.check(ctx)
			}
			leads, err := l.set.LeadPast(ctx)
			if err == nil && !leads {
				err = errors.New("rules of daemon-only mode are not seen")
			}
			return err
		})
		for text, want := range map[string]int{"these are the rules of daemon-only mode": 2 /* families, one line */, "put back": 1, "level=": 1} {
			if got := strings.Count(log.String(), text); got != want {
				t.Errorf("%d times %q, want %d:\n%s", got, text, want, &log)
			}
		}
		if past != 3 || len(w.budget.mended) != 1 {
			t.Errorf("told %d times, mended %d times", past, len(w.budget.mended))
		}
		l.remove(kernel)
		l.server(func(ctx context.Context) error {
			if leads, err := l.set.LeadPast(ctx); err != nil || leads {
				t.Errorf("without rules: %v %v", leads, err)
			}
			return nil
		})
	})
}

// TestKernelRulesButTheTarget: all but the target itself is printed as it was
// written.
func TestKernelRulesButTheTarget(t *testing.T) {
	each(t, func(t *testing.T, l *lab) {
		kernel := l.set
		kernel.Kernel, kernel.AllowFrom = true, prefixes("192.0.2.0/24", "2001:db8::/32")
		l.server(func(ctx context.Context) error {
			for _, f := range Families {
				tool, err := kernel.tool(ctx, f, kernel.Backend)
				if err != nil {
					return err
				}
				saved, err := kernel.asSaved(ctx, tool, defaultHits)
				if err != nil {
					return err
				}
				if want := parseSave(kernel.Text(f)); !saved.same(want) {
					t.Errorf("%v: written:\n%v\nsaved:\n%v", f, want, saved)
				}
			}
			return nil
		})
	})
}

// counts are the packets that each rule of our chains has seen: "first",
// "second" (queue), "shape" and "source" (drops), "reply".
func (l *lab) counts(f Family) map[string]int {
	l.Helper()
	command := "iptables-"
	if f == IPv6 {
		command = "ip6tables-"
	}
	counts := map[string]int{}
	for line := range strings.Lines(l.tables(command+l.set.Backend+"-save", "-c", "-t", "raw")) {
		line = strings.TrimSpace(line)
		number, rule, ok := strings.Cut(strings.TrimPrefix(line, "["), ":")
		n, err := strconv.Atoi(number)
		if !ok || err != nil {
			continue
		}
		switch {
		case strings.HasSuffix(rule, "--queue-num 9"):
			counts["first"] = n
		case strings.HasSuffix(rule, "--queue-num 10"):
			counts["second"] = n
		case strings.Contains(rule, "--u32"):
			counts["shape"] = n
		case strings.Contains(rule, "-A netsysrq-allow -j DROP"):
			counts["source"] = n
		case strings.HasSuffix(rule, "--notrack"):
			counts["reply"] = n
		}
	}
	return counts
}

// wantCounts waits a little, since packets travel by themselves.
func (l *lab) wantCounts(f Family, what string, want string) {
	l.Helper()
	var got string
	for deadline := time.Now().Add(3 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c := l.counts(f)
		got = fmt.Sprintf("first %d second %d shape %d source %d reply %d",
			c["first"], c["second"], c["shape"], c["source"], c["reply"])
		if got == want || time.Now().After(deadline) {
			break
		}
	}
	if got != want {
		l.Errorf("%v, %s: %s, want %s", f, what, got, want)
	}
}

func addresses(f Family) (client, server string) {
	if f == IPv6 {
		return netlab.ClientIPv6, netlab.ServerIPv6
	}
	return netlab.ClientIPv4, netlab.ServerIPv4
}

func request() []byte { return append([]byte("NSRQ"), make([]byte, 124)...) }

// send sends payloads from an address and port of a namespace.
func (l *lab) send(ns, from, to string, payloads ...[]byte) {
	l.Helper()
	err := l.net.Do(ns, func() error {
		var d net.Dialer
		if from != "" {
			d.LocalAddr = net.UDPAddrFromAddrPort(netip.MustParseAddrPort(from))
		}
		c, err := d.Dial("udp", to)
		if err != nil {
			return err
		}
		defer c.Close()
		for _, p := range payloads {
			if _, err := c.Write(p); err != nil && !strings.Contains(err.Error(), "refused") {
				return err
			}
		}
		return nil
	})
	if err != nil {
		l.Fatal(err)
	}
}

func TestPackets(t *testing.T) {
	each(t, func(t *testing.T, l *lab) {
		l.apply(l.set)
		for _, f := range Families {
			client, server := addresses(f)
			to := net.JoinHostPort(server, "9")
			send := func(payload []byte) { t.Helper(); l.send(l.net.Client, "", to, payload) }

			send(request())
			l.wantCounts(f, "a request", "first 1 second 0 shape 0 source 0 reply 0")
			send(request()[:127])
			send(append(request(), 0))
			send(nil)
			l.wantCounts(f, "another length", "first 1 second 0 shape 3 source 0 reply 0")
			wrong := request()
			wrong[3]++
			send(wrong)
			l.wantCounts(f, "another magic", "first 1 second 0 shape 4 source 0 reply 0")
			l.send(l.net.Client, "", net.JoinHostPort(server, "10"), request())
			l.wantCounts(f, "another port", "first 1 second 0 shape 4 source 0 reply 0")

			l.sendRaw(f, packet(f, plain))
			l.wantCounts(f, "a packet made by hand", "first 2 second 0 shape 4 source 0 reply 0")
			l.sendRaw(f, packet(f, firstFragment))
			l.wantCounts(f, "a first fragment", "first 2 second 0 shape 5 source 0 reply 0")
			l.sendRaw(f, packet(f, laterFragment))
			l.wantCounts(f, "a later fragment", "first 2 second 0 shape 5 source 0 reply 0")
			l.sendRaw(f, packet(f, shortUDP))
			l.wantCounts(f, "another UDP length", "first 2 second 0 shape 6 source 0 reply 0")
			want := "first 3 second 0 shape 6 source 0 reply 0" // IP options are allowed
			if f == IPv6 {
				want = "first 2 second 0 shape 7 source 0 reply 0" // extension headers are not
			}
			l.sendRaw(f, packet(f, options))
			l.wantCounts(f, "options", want)

			// What the host itself sends to the port of others is not a reply.
			l.send(l.net.Server, "", net.JoinHostPort(client, "9"), request())
			l.wantCounts(f, "a request of this host", want)
			l.send(l.net.Server, net.JoinHostPort(server, "9"), net.JoinHostPort(client, "5000"), request())
			l.wantCounts(f, "a reply", strings.Replace(want, "reply 0", "reply 1", 1))
		}
	})
}

func TestLinkLocalAndLoopback(t *testing.T) {
	each(t, func(t *testing.T, l *lab) {
		l.apply(l.set)
		l.send(l.net.Server, "", "127.0.0.1:9", request())
		l.wantCounts(IPv4, "loopback", "first 1 second 0 shape 0 source 0 reply 0")
		l.send(l.net.Server, "", "[::1]:9", request())
		l.wantCounts(IPv6, "loopback", "first 1 second 0 shape 0 source 0 reply 0")
		out := l.tables("ip", "-6", "-o", "addr", "show", "dev", netlab.Device, "scope", "link")
		fields := strings.Fields(out)
		if len(fields) < 4 {
			t.Fatalf("no link-local address: %s", out)
		}
		addr, _, _ := strings.Cut(fields[3], "/")
		l.send(l.net.Client, "", "["+addr+"%"+netlab.Device+"]:9", request())
		l.wantCounts(IPv6, "link-local", "first 2 second 0 shape 0 source 0 reply 0")
	})
}

// TestAllowFrom: the second address of the client is not in the list.
func TestAllowFrom(t *testing.T) {
	each(t, func(t *testing.T, l *lab) {
		set := l.set
		set.AllowFrom = prefixes("203.0.113.0/24", netlab.ClientIPv4+"/32", netlab.ClientIPv6+"/128")
		l.apply(set)
		l.want(set, Present, false)
		strangers := map[Family]string{IPv4: "192.0.2.77", IPv6: "2001:db8::77"}
		l.second(strangers)
		for _, f := range Families {
			client, server := addresses(f)
			to := net.JoinHostPort(server, "9")
			l.send(l.net.Client, net.JoinHostPort(client, "0"), to, request())
			l.wantCounts(f, "allowed", "first 1 second 0 shape 0 source 0 reply 0")
			l.send(l.net.Client, net.JoinHostPort(strangers[f], "0"), to, request())
			l.wantCounts(f, "not allowed", "first 1 second 0 shape 0 source 1 reply 0")
		}
	})
}

// TestNoneAllowedOfAFamily: a list of IPv4 networks lets no IPv6 source in.
func TestNoneAllowedOfAFamily(t *testing.T) {
	each(t, func(t *testing.T, l *lab) {
		set := l.set
		set.AllowFrom = prefixes("0.0.0.0/0")
		l.apply(set)
		l.want(set, Present, false)
		l.send(l.net.Client, "", net.JoinHostPort(netlab.ServerIPv4, "9"), request())
		l.wantCounts(IPv4, "allowed", "first 1 second 0 shape 0 source 0 reply 0")
		l.send(l.net.Client, "", net.JoinHostPort(netlab.ServerIPv6, "9"), request())
		l.wantCounts(IPv6, "not allowed", "first 0 second 0 shape 0 source 1 reply 0")
	})
}

// TestBusySource: who sends more than 64 packets in a second goes to the
// second queue, while another source still goes to the first.
func TestBusySource(t *testing.T) {
	each(t, func(t *testing.T, l *lab) {
		l.apply(l.set)
		// Of IPv6 a whole /64 is one source.
		quiet := map[Family]string{IPv4: "192.0.2.77", IPv6: "2001:db8:0:1::1"}
		l.second(quiet)
		l.tables("ip", "-6", "route", "add", "2001:db8:0:1::/64", "dev", netlab.Device)
		flood := make([][]byte, 200)
		for i := range flood {
			flood[i] = request()
		}
		for _, f := range Families {
			client, server := addresses(f)
			to := net.JoinHostPort(server, "9")
			start := time.Now()
			l.send(l.net.Client, net.JoinHostPort(client, "0"), to, flood...)
			l.wantCounts(f, "a flood", "first 64 second 136 shape 0 source 0 reply 0")
			l.send(l.net.Client, net.JoinHostPort(quiet[f], "0"), to, request())
			l.wantCounts(f, "a quiet source", "first 65 second 136 shape 0 source 0 reply 0")
			if time.Since(start) > 900*time.Millisecond {
				t.Logf("%v: this machine was slow, the flood may have ended early", f)
				continue
			}
			l.send(l.net.Client, net.JoinHostPort(client, "0"), to, request())
			l.wantCounts(f, "the busy source again", "first 65 second 137 shape 0 source 0 reply 0")
			time.Sleep(time.Until(start.Add(2500 * time.Millisecond)))
			l.send(l.net.Client, net.JoinHostPort(client, "0"), to, request())
			l.wantCounts(f, "after a pause", "first 66 second 137 shape 0 source 0 reply 0")
		}
	})
}

// second gives the client further addresses.
func (l *lab) second(addresses map[Family]string) {
	l.Helper()
	for f, a := range addresses {
		args := []string{"addr", "add", a + "/24", "dev", netlab.Device}
		if f == IPv6 {
			args = []string{"addr", "add", a + "/64", "dev", netlab.Device, "nodad"}
		}
		if _, err := l.net.Run(l.net.Client, "ip", args...); err != nil {
			l.Fatal(err)
		}
	}
}
