// SPDX-License-Identifier: GPL-2.0-only

//go:build integration

package e2e_test

import (
	"path/filepath"
	"testing"
	"time"

	"netsysrq/auth"
)

const tenYears = 10 * 365 * 24 * time.Hour

// TestClocks sets both clocks to whatever they should not be. By a challenge
// every command gets through; the one packet does where its time is right; and
// nothing that was recorded ever runs again.
func TestClocks(t *testing.T) {
	t.Parallel()
	h := newHost(t, clocked)
	seen := h.sniff(h.lab.Server)
	wrong := filepath.Join(h.dir, "sender-clock")
	done := ""
	next := 0
	var dated [][]byte // requests of which the time may come

	// send sends a run of one step and waits for it.
	send := func(f family, clock string, args ...string) *report {
		t.Helper()
		key := string("0123456789adfghjklmnpqrstuvwxyz"[next%31])
		next++
		r := h.netsysrq(f, clock, append([]string{"send", hostName, key, "--yes", "--timeout", "3s"}, args...)...)
		if r.Outcome == "accepted" {
			done += key
		}
		h.wantTriggered(done)
		return r
	}
	gets := func(f family, clock string) {
		t.Helper()
		h.want(send(f, clock), "accepted", 0)
	}
	// replay sends every request ever seen on the wire once more.
	replay := func(when string) {
		t.Helper()
		all := payloads(seen.snapshot())
		for _, f := range families {
			p := h.peer(f)
			for i, packet := range all {
				p.send(packet)
				if i%200 == 199 {
					h.settled()
				}
			}
		}
		h.settled()
		time.Sleep(20 * time.Millisecond)
		if got := h.triggered(); got != done {
			t.Fatalf("%s: recorded packets made %q of %q", when, got, done)
		}
	}
	// look waits until the daemon has looked at its clock, once a second.
	look := func() { time.Sleep(1200 * time.Millisecond) }

	h.start()
	h.advance(h.peer(v4), 2*auth.Window)
	h.want(send(v4, "", "--one-packet"), "accepted", 0)
	replay("clocks that agree")

	for _, off := range []time.Duration{tenYears, -tenYears, time.Hour, -time.Hour, 20 * time.Second, -20 * time.Second} {
		for _, synchronised := range []bool{true, false} {
			writeClock(h, wrong, h.ahead+off, synchronised)
			for _, f := range families {
				gets(f, wrong)
			}
			r := send(v6, wrong, "--one-packet")
			if r.Outcome == "accepted" || r.code != 3 && r.code != 5 {
				t.Errorf("one packet from a clock that is off by %v: %s", off, r.stdout)
			}
			replay("a sender's clock that is off by " + off.String())
		}
	}

	// A sender that is ten years ahead has raised the floor by that: first
	// sight is the last. The challenge still gets through, as it just did.
	if r := send(v4, "", "--one-packet"); r.Outcome == "accepted" {
		t.Errorf("one packet below the floor: %s", r.stdout)
	}
	dated = payloads(seen.snapshot())
	h.kill()
	h.start()
	gets(v4, "")
	replay("a restart")

	// The host's clock steps while it runs, and comes back.
	start := h.ahead
	for i, step := range []time.Duration{time.Hour, -time.Hour, tenYears, -tenYears, -30 * time.Second, 2 * time.Second, tenYears, -time.Hour} {
		h.setClock(start+step, i < 6)
		writeClock(h, wrong, start, true)
		for _, f := range families {
			gets(f, wrong)
		}
		if r := send(v4, wrong, "--one-packet"); r.Outcome == "accepted" {
			t.Errorf("one packet after a step of %v: %s", step, r.stdout)
		}
		replay("a step of " + step.String())
		look()
		replay("a while after a step of " + step.String())
		h.setClock(start, true)
		gets(v6, wrong)
		look()
		replay("the way back from a step of " + step.String())
	}

	// A dead clock battery: 1970, and not synchronised. Then the network time
	// comes.
	h.kill()
	h.setClock(-time.Duration(time.Now().Unix())*time.Second+30*time.Second, false)
	h.start()
	writeClock(h, wrong, start, true)
	for _, f := range families {
		gets(f, wrong)
		gets(f, "") // a sender in 1970
		r := send(f, wrong, "--one-packet")
		if r.Outcome == "accepted" {
			t.Errorf("one packet to a host in 1970: %s", r.stdout)
		}
		if r = send(f, "", "--one-packet"); r.Outcome == "accepted" {
			t.Errorf("one packet from 1970 to 1970: %s", r.stdout)
		}
	}
	replay("1970")
	h.setClock(start, true)
	look()
	replay("the moment at which network time came")
	gets(v4, "")
	h.advance(h.peer(v6), 2*auth.Window)
	replay("trust in the clock")

	// Everything once more, to a daemon that has forgotten all of it.
	for range 2 {
		h.kill()
		h.start()
		replay("one more restart")
		h.advance(h.peer(v4), 2*auth.Window)
		replay("trust after one more restart")
	}
	gets(v6, "")
	t.Logf("%d commands, %d packets recorded, %d of them before the first restart", next, len(payloads(seen.snapshot())), len(dated))
}

// TestNetworkTimeComes restarts a host with a dead clock battery right after it
// took a one-packet request. In 1970 its daemon knows of nothing, and when the
// network time comes, the recorded packet is seconds old.
func TestNetworkTimeComes(t *testing.T) {
	t.Parallel()
	h := newHost(t, clocked)
	h.start()
	p := h.peer(v4)
	h.advance(p, 2*auth.Window)
	run := h.runOf("h", 0, auth.Challenge{})
	run.Time = h.now()
	packet := h.alice.SealRequest(&run)
	p.send(packet[:])
	if r, ok := p.receive(h.alice, patience, run.ID); !ok || r.Result != auth.Accepted {
		t.Fatalf("one packet: %v %v", ok, r)
	}
	h.wantTriggered("h")
	right := h.ahead
	h.kill()
	h.setClock(-time.Duration(time.Now().Unix())*time.Second+30*time.Second, false)
	h.start()
	h.setClock(right, true)
	// The daemon looks at its clock every second. Until it trusts it, the
	// packet would be stale for that, and dead from then on.
	for range 3 {
		time.Sleep(1600 * time.Millisecond)
		for _, f := range families {
			h.peer(f).send(packet[:])
		}
		h.settled()
		h.wantTriggered("h")
	}
	h.stop()
	if got := h.lines("request stale"); len(got) == 0 {
		t.Error("the recorded packet was not called stale")
	}
}
