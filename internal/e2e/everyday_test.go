// SPDX-License-Identifier: GPL-2.0-only

//go:build integration

package e2e_test

import (
	"strings"
	"testing"
	"time"

	"netsysrq/auth"
)

// TestCommands goes through what an operator does, over IPv4 and IPv6.
func TestCommands(t *testing.T) {
	t.Parallel()
	h := newHost(t, clocked)
	h.start()
	done := ""
	for _, f := range families {
		r := h.want(h.netsysrq(f, "", "status", hostName), "answered", 0)
		if r.Reply.Executor != "daemon" || r.Reply.BootID == "" || r.Reply.DryRun {
			t.Errorf("%s: status: %s", f.name, r.stdout)
		}
		h.wantTriggered(done)

		r = h.want(h.netsysrq(f, "", "send", hostName, "n:10ms,s,u:2s", "--yes"), "accepted", 0)
		if !r.RunSent || r.Reply.Result != "accepted" || r.Reply.Repeat || r.Reply.NotRun != "" {
			t.Errorf("%s: send: %s", f.name, r.stdout)
		}
		done += "nsu"
		h.wantTriggered(done)

		h.want(h.netsysrq(f, "", "reboot", hostName, "--yes"), "accepted", 0)
		done += "nsub"
		h.wantTriggered(done)

		r = h.want(h.netsysrq(f, "", "reboot", hostName, "--yes", "--rehearse"), "accepted", 0)
		if !r.Reply.Rehearsed || r.Reply.NotRun != "n, s, u, b" {
			t.Errorf("%s: rehearse: %s", f.name, r.stdout)
		}
		h.want(h.netsysrq(f, "", "cancel", hostName), "accepted", 0)

		r = h.want(h.netsysrq(f, "", "status", "web02.example.org", "--timeout", "700ms"), "unknown", 5)
		if r.Reply != nil {
			t.Errorf("%s: wrong host name: %s", f.name, r.stdout)
		}
		r = h.want(h.netsysrq(f, "", "send", "web02.example.org", "h", "--timeout", "700ms"), "unknown", 5)
		if r.RunSent {
			t.Errorf("%s: wrong host name: a run was sent: %s", f.name, r.stdout)
		}
	}
	// One packet is enough once the host has trusted its clock for W.
	h.advance(h.peer(v4), 2*auth.Window)
	for _, f := range families {
		h.want(h.netsysrq(f, "", "send", hostName, "h", "--one-packet"), "accepted", 0)
		done += "h"
		h.wantTriggered(done)
	}
	// A barrier makes worthless what was sealed before it.
	p := h.peer(v4)
	old := h.runOf("t", 0, auth.Challenge{})
	old.Time = h.now()
	h.want(h.netsysrq(v6, "", "cancel", hostName), "accepted", 0)
	if r := p.ask(h.alice, old); r.Result != auth.Stale {
		t.Errorf("a packet from before a barrier: %v", r.Result)
	}
	h.stop()

	// Nobody is there: nothing is known.
	r := h.want(h.netsysrq(v4, "", "send", hostName, "t", "--timeout", "1500ms"), "unknown", 5)
	if !r.RunSent || !r.OnePacket || strings.Contains(r.Message, "not run") && !strings.Contains(r.Message, "may") {
		t.Errorf("unknown outcome: %s", r.stdout)
	}
	t.Log(r.Message)
	h.wantTriggered(done)
	if got := h.lines("packets ignored"); len(got) > 0 && h.counted()["unknown-key"] == 0 {
		t.Errorf("the wrong host name was not counted: %v", got)
	}
}

// TestSequences is about when steps run, and which do not.
func TestSequences(t *testing.T) {
	t.Parallel()
	h := newHost(t, plain)
	bob, _ := h.enrolNew("bob", "hw")
	h.start()
	p := h.peer(v4)
	done := ""
	accept := func(s *auth.Sealer, steps string, flags auth.RequestFlags) {
		t.Helper()
		if r := p.do(s, steps, flags); r.Result != auth.Accepted || r.Mask != 0 || r.Flags&auth.Repeat != 0 {
			t.Fatalf("%s: %v, mask %b, flags %v", steps, r.Result, r.Mask, r.Flags)
		}
	}

	t.Log("pauses")
	accept(h.alice, "h:400ms,w,t", 0)
	acts := h.actsSince(len(done), 3)
	if d := acts[1].at.Sub(acts[0].at); d < 380*time.Millisecond {
		t.Errorf("the pause of 400 ms took %v", d)
	}
	done += "hwt"

	t.Log("s and u are confirmed by the kernel")
	start := time.Now()
	accept(h.alice, "s:8s,u:8s,h", 0)
	done += "suh"
	h.actsSince(len(done)-3, 3)
	if d := time.Since(start); d > 6*time.Second {
		t.Errorf("confirmed steps took %v", d)
	}
	h.wantLines("step completed", 2)

	t.Log("s is not confirmed: not by nobody, and not by a process")
	h.setConfirm(false)
	accept(h.alice, "s:600ms,h", 0)
	h.wantTriggered(done + "s")
	h.appendKmsg("12,2,2,-;Emergency Sync complete\n")
	done += "sh"
	acts = h.actsSince(len(done)-2, 2)
	if d := acts[1].at.Sub(acts[0].at); d < 580*time.Millisecond {
		t.Errorf("the bound of 600 ms took %v", d)
	}
	h.wantLines("step not confirmed", 1)
	h.setConfirm(true)

	t.Log("one runs, one waits, a third finds the host busy")
	accept(h.alice, "h:1500ms,t", 0)
	accept(h.alice, "w", 0)
	if r := p.do(h.alice, "x", 0); r.Result != auth.Busy {
		t.Errorf("third run: %v", r.Result)
	}
	done += "htw"
	h.wantTriggered(done)

	t.Log("now cuts what runs, and goes first")
	accept(h.alice, "h:50s,x", 0)
	h.wantTriggered(done + "h")
	accept(h.alice, "y", 0)
	accept(h.alice, "t", auth.Now)
	done += "ht"
	h.wantTriggered(done)

	t.Log("cancel cuts too")
	accept(h.alice, "h:50s,x", 0)
	done += "h"
	h.wantTriggered(done)
	h.want(h.netsysrq(v6, "", "cancel", hostName), "accepted", 0)
	accept(h.alice, "w", 0)
	done += "w"
	h.wantTriggered(done)

	t.Log("now of a lesser key waits, of a greater one does not")
	accept(h.alice, "h:1s,t", 0)
	accept(bob, "w", auth.Now)
	done += "htw"
	h.wantTriggered(done)
	accept(bob, "h:50s,w", 0)
	h.wantTriggered(done + "h")
	accept(h.alice, "t", auth.Now)
	done += "ht"
	h.wantTriggered(done)

	t.Log("what is not allowed, and what the daemon would not live to see")
	if r := p.do(bob, "h,t,w", 0); r.Result != auth.RefPolicy || r.Mask != 0b010 {
		t.Errorf("not allowed: %v, mask %b", r.Result, r.Mask)
	}
	r := h.want(h.netsysrq(v4, "", "send", hostName, "e,s,u", "--yes"), "refused", 3)
	if r.Reply.Result != "policy" || r.Reply.Causes != "s, u" {
		t.Errorf("after e: %s", r.stdout)
	}
	accept(h.alice, "h,e", 0)
	done += "he"
	h.wantTriggered(done)

	t.Log("the same packet many times is one run")
	run := h.runOf("h:300ms,w", 0, p.challenge(h.alice))
	packet := h.alice.SealRequest(&run)
	repeats := 0
	for i := range 8 {
		q := []*peer{p, h.peer(v6)}[i/4]
		q.send(packet[:])
		if r, ok := q.receive(h.alice, patience, run.ID); !ok || r.Result != auth.Accepted {
			t.Errorf("repeat %d: %v %v", i, ok, r)
		} else if r.Flags&auth.Repeat != 0 {
			repeats++
		}
		time.Sleep(60 * time.Millisecond)
	}
	if repeats != 7 {
		t.Errorf("%d of 8 answers were repeats", repeats)
	}
	done += "hw"
	h.wantTriggered(done)

	t.Log("a challenge is good for one request")
	c := p.challenge(h.alice)
	if r := p.ask(h.alice, h.runOf("h", 0, c)); r.Result != auth.Accepted {
		t.Errorf("first use of a challenge: %v", r.Result)
	}
	if r := p.ask(h.alice, h.runOf("x", 0, c)); r.Result != auth.Stale {
		t.Errorf("second use of a challenge: %v", r.Result)
	}
	done += "h"
	h.wantTriggered(done)

	t.Log("dry run")
	h.configure("dry_run", "true")
	h.reload("reloaded")
	if r := p.ask(h.alice, h.status()); r.Flags&auth.DryRun == 0 {
		t.Errorf("status of a dry host: %v", r.Flags)
	}
	if r := p.do(h.alice, "n,s,u,b", 0); r.Result != auth.Accepted || r.Flags&auth.DryRun == 0 || r.Mask != 0b1111 {
		t.Errorf("dry run: %v %v mask %b", r.Result, r.Flags, r.Mask)
	}
	// Nothing was done, so to the sender it is no success.
	r = h.want(h.netsysrq(v4, "", "send", hostName, "h"), "accepted", 3)
	if !r.Reply.DryRun || r.Reply.NotRun != "h" {
		t.Errorf("dry run: %s", r.stdout)
	}
	h.wantLines("step left out", 5)
	h.configure("dry_run", "false")
	h.reload("reloaded")
	accept(h.alice, "h", 0)
	done += "h"
	h.wantTriggered(done)

	t.Log("a step that ends the machine comes after the answer, and SIGTERM after the sequence")
	accept(h.alice, "h:700ms,b", 0)
	h.stop()
	done += "hb"
	h.wantTriggered(done)
	if len(h.lines("stopped")) != 1 {
		t.Error("the daemon did not say that it stopped")
	}
}
