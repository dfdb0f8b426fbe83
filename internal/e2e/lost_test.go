// SPDX-License-Identifier: GPL-2.0-only

//go:build integration

package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"netsysrq/auth"
)

// dropReplies drops the replies at the operator's side, all but so many; the
// function that it returns lets them through again.
func (h *host) dropReplies(f family, but int) (end func()) {
	h.Helper()
	rules := []string{"INPUT -p udp --sport 9 -j DROP"}
	if but > 0 {
		// Matches the first packet, and then one in a billion.
		rules = append([]string{"INPUT -p udp --sport 9 -m statistic --mode nth --every 1000000000 --packet 0 -j ACCEPT"}, rules...)
	}
	for _, r := range rules {
		h.firewall(h.lab.Client, f, "-A "+r)
	}
	return func() {
		h.firewall(h.lab.Client, f, "-F INPUT")
	}
}

// TestRepliesLost drops replies while a sender asks, and restarts daemon and
// host within its timeout. There is one run, and the sender says what it knows.
func TestRepliesLost(t *testing.T) {
	for i, c := range []struct {
		name    string
		f       family
		answers int      // that arrive before the loss
		args    []string // of send
		restart bool     // the daemon is killed and started, and has forgotten
		reboot  bool     // the host boots, and has forgotten
		outcome string
		code    int
	}{
		{"answer repeated", v4, 1, nil, false, false, "accepted", 0},
		{"answer repeated", v6, 1, nil, false, false, "accepted", 0},
		{"daemon restarted", v4, 1, nil, true, false, "unknown", 5},
		{"daemon restarted", v6, 1, nil, true, false, "unknown", 5},
		{"host restarted", v4, 1, nil, false, true, "rebooted", 4},
		{"host restarted", v6, 1, nil, false, true, "rebooted", 4},
		{"no challenge, daemon restarted", v4, 0, nil, true, false, "unknown", 5},
		{"no challenge, host restarted", v6, 0, nil, false, true, "unknown", 5},
		{"one packet, daemon restarted", v6, 0, []string{"--one-packet"}, true, false, "unknown", 5},
		{"one packet, host restarted", v4, 0, []string{"--one-packet"}, false, true, "unknown", 5},
		{"one packet, answer repeated", v4, 0, []string{"--one-packet"}, false, false, "accepted", 0},
	} {
		t.Run(c.f.name+" "+c.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, clocked)
			h.start()
			if c.answers == 0 {
				h.advance(h.peer(c.f), 2*auth.Window) // so that one packet is enough
			}
			seen := h.sniff(h.lab.Server)
			restore := h.dropReplies(c.f, c.answers)
			key := string(rune('a' + i))
			sender := make(chan *report, 1)
			go func() {
				sender <- h.netsysrq(c.f, "", append([]string{"send", hostName, key, "--yes", "--timeout", "15s"}, c.args...)...)
			}()
			h.wantTriggered(key)
			if c.restart || c.reboot {
				h.kill()
				h.fakeBoot = c.reboot
				h.start()
			} else {
				time.Sleep(600 * time.Millisecond)
			}
			restore()
			var r *report
			select {
			case r = <-sender:
			case <-time.After(30 * time.Second):
				t.Fatal("the sender does not end")
			}
			h.want(r, c.outcome, c.code)
			if r.Reply == nil {
				t.Fatalf("no reply was heard: %s", r.stdout)
			}
			switch {
			case c.outcome == "accepted" && !r.Reply.Repeat:
				t.Errorf("the answer is no repeat: %s", r.stdout)
			case c.outcome == "unknown" && !r.Forgotten:
				t.Errorf("the sender does not say that the host has forgotten: %s", r.stdout)
			case c.outcome == "unknown" && (strings.Contains(r.Message, "did not run") || strings.Contains(r.Message, "accepted")):
				t.Errorf("the sender says more than it knows: %s", r.Message)
			case c.outcome == "rebooted" && (r.Before == r.After || !strings.HasPrefix(strings.ReplaceAll(otherBoot, "-", ""), r.After)):
				t.Errorf("boot ids: %s", r.stdout)
			}
			t.Log(r.Message)

			// Whatever was sent is worthless now, also after the window.
			requests := payloads(seen.drain())
			for range 2 {
				p := h.peer(c.f)
				for _, packet := range requests {
					p.send(packet)
				}
				h.settled()
				h.setClock(3*auth.Window, true)
				time.Sleep(1200 * time.Millisecond) // the daemon looks every second
			}
			h.wantTriggered(key)
		})
	}
}

// TestStopped stops the daemon as a debugger would, or a host that hangs. What
// waits in its queue then is too old when it goes on, but for what a sender
// still asks for.
func TestStopped(t *testing.T) {
	t.Parallel()
	h := newHost(t, clocked)
	// A one-packet form is dead once a newer one of the same key was seen, so
	// those who send at the same time have keys of their own.
	h.enrolNew("bob", allowAll)
	h.start()
	h.advance(h.peer(v4), 2*auth.Window)
	h.want(h.netsysrq(v4, "", "send", hostName, "h", "--one-packet"), "accepted", 0)
	h.wantTriggered("h")
	c := h.peer(v6).challenge(h.alice)
	stale := h.counted()["late"]

	h.signal(stopSignal)
	stopped := time.Now()
	// Two senders give up, and two of the tests' own packets lie in the queue:
	// one with a living challenge, one with a time.
	for _, r := range []auth.Request{h.runOf("w", 0, c), h.runOf("x", 0, auth.Challenge{})} {
		if r.Challenge == (auth.Challenge{}) {
			r.Time = h.now()
		}
		packet := h.alice.SealRequest(&r)
		h.peer(v6).send(packet[:])
	}
	gaveUp := make(chan *report, 4)
	for i, args := range [][]string{{"t"}, {"p", "--one-packet"}} {
		f := families[i]
		go func() {
			gaveUp <- h.netsysrq(f, "", append([]string{"send", hostName, "--yes", "--timeout", "4s"}, args...)...)
		}()
	}
	for range 2 {
		r := h.want(<-gaveUp, "unknown", 5)
		if !r.RunSent || r.Reply != nil {
			t.Errorf("gave up: %s", r.stdout)
		}
	}
	time.Sleep(time.Until(stopped.Add(16 * time.Second)))
	// Two more do not give up.
	asking := make(chan *report, 4)
	for i, args := range [][]string{{"k"}, {"d", "--one-packet", "--key", h.masterOf("bob")}} {
		f := families[i]
		go func() {
			asking <- h.netsysrq(f, "", append([]string{"send", hostName, "--yes", "--timeout", "25s"}, args...)...)
		}()
	}
	time.Sleep(time.Until(stopped.Add(20 * time.Second)))
	h.signal(continueSignal)
	for range 2 {
		h.want(<-asking, "accepted", 0)
	}
	h.wait("two runs", func() bool { return len(h.triggered()) >= 3 })
	time.Sleep(2 * time.Second)
	h.settled()
	if got := h.triggered(); got != "hkd" && got != "hdk" {
		t.Errorf("trigger %q, want only what was accepted: h, k and d", got)
	}
	h.stop()
	late := h.counted()["late"] - stale
	t.Logf("%d packets came too late: %v", late, h.counted())
	if late < 8 {
		t.Errorf("only %d packets were too old", late)
	}
	for _, l := range h.requestLines() {
		if s := l.text("steps"); strings.ContainsAny(s, "wxtp") {
			t.Errorf("%s was judged: %v", s, l)
		}
	}
}

// TestKilled kills the daemon again and again, at many points of a run, and
// sends everything ever sent to each new one. What was accepted never runs
// twice, and what was recorded is never accepted.
func TestKilled(t *testing.T) {
	t.Parallel()
	h := newHost(t, clocked)
	seen := h.sniff(h.lab.Server)
	const rounds = 36
	h.start()
	for i := range rounds {
		f := families[i%2]
		key := string(allowAll[i])
		p := h.peer(f)
		before := h.triggered()
		// A run of two steps: it is killed before, between and after them.
		run := h.runOf(key+":30ms,"+key, 0, p.challenge(h.alice))
		if i%2 == 1 {
			steps := slices.Clone(run.Sequence())
			run.SetSteps(append(steps, steps[0], steps[0], steps[1]))
		}
		packet := h.alice.SealRequest(&run)
		accepted := false
		// The form with a time of the same intent, as a recorder may have it.
		dated := run
		dated.Challenge, dated.Time = auth.Challenge{}, h.now()
		other := h.alice.SealRequest(&dated)
		switch i % 6 {
		case 0: // as soon as it is sent
			p.send(packet[:])
		case 1: // some time after
			p.send(packet[:])
			time.Sleep(time.Duration(i*150) * time.Microsecond)
		case 2: // after the reply
			p.send(packet[:])
			_, accepted = p.receive(h.alice, patience, run.ID)
		case 3: // after the reply, between steps
			p.send(packet[:])
			_, accepted = p.receive(h.alice, patience, run.ID)
			time.Sleep(time.Duration(10+i) * time.Millisecond)
		case 4: // after the last step
			p.send(packet[:])
			_, accepted = p.receive(h.alice, patience, run.ID)
			h.wait("the last step", func() bool { return strings.Count(h.triggered(), key) == int(run.Count) })
		case 5: // while it repeats, in both forms
			for range 4 {
				p.send(packet[:])
				p.send(other[:])
				time.Sleep(3 * time.Millisecond)
			}
		}
		h.kill()
		p.send(other[:])
		after := h.triggered()
		ran := strings.Count(after, key)
		if !strings.HasPrefix(after, before) || len(after)-len(before) != ran || ran > int(run.Count) {
			t.Fatalf("round %d: the trigger went from %q to %q", i, before, after)
		}
		if i%6 == 2 && !accepted {
			t.Errorf("round %d: not accepted", i)
		}

		if i%4 == 3 {
			h.setClock(h.ahead+2*auth.Window, true)
		}
		h.start()
		// Some are sent at once, some after the new daemon has been asked
		// something, some after it has trusted its clock for long.
		if i%9 == 4 {
			h.advance(p, 2*auth.Window)
		}
		if i%3 == 1 {
			p.challenge(h.alice)
		}
		all := payloads(seen.snapshot())
		q := h.peer(families[(i+1)%2])
		for n, packet := range all {
			q.send(packet)
			if n%4 == 0 {
				p.send(packet) // also from where it came
			}
			if n%200 == 199 {
				h.settled()
			}
		}
		h.settled()
		if i%3 == 2 {
			time.Sleep(40 * time.Millisecond)
		}
		if got := h.triggered(); got != after {
			t.Fatalf("round %d: recorded packets made %q of %q", i, got, after)
		}
	}
	if n := len(payloads(seen.snapshot())); n < 3*rounds {
		t.Errorf("only %d packets were recorded", n)
	}
	for _, c := range allowAll {
		if n := strings.Count(h.triggered(), string(c)); n > 5 {
			t.Errorf("%c ran %d times", c, n)
		}
	}
	t.Logf("%d rounds, %d packets recorded, trigger %q", rounds, len(payloads(seen.snapshot())), h.triggered())
}

// TestKilledUnderASender kills and starts the daemon while the real sender asks.
func TestKilledUnderASender(t *testing.T) {
	t.Parallel()
	h := newHost(t, plain)
	h.start()
	outcomes := map[string]int{}
	for i := range 10 {
		key := string("adfghjklmn"[i])
		sender := make(chan *report, 1)
		go func() {
			sender <- h.netsysrq(families[i%2], "", "send", hostName, key+":20ms,"+key, "--yes", "--timeout", "6s")
		}()
		time.Sleep(time.Duration(5+4*i) * time.Millisecond)
		h.kill()
		time.Sleep(time.Duration(i%3) * 200 * time.Millisecond)
		h.start()
		r := <-sender
		outcomes[fmt.Sprintf("%s %d", r.Outcome, r.code)]++
		switch ran := strings.Count(h.triggered(), key); {
		case r.Outcome == "accepted":
			// Accepted by the first daemon means that steps may be missing.
			if ran > 2 {
				t.Errorf("round %d: accepted, and ran %d steps of 2", i, ran)
			}
		case r.Outcome == "unknown":
			if ran > 2 {
				t.Errorf("round %d: ran %d steps of 2: %s", i, ran, r.stdout)
			}
		default:
			t.Errorf("round %d: %s", i, r.stdout)
		}
	}
	t.Logf("outcomes: %v", outcomes)
}
