// SPDX-License-Identifier: GPL-2.0-only

//go:build vm

package vm_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"net/netip"
	"testing"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/exchange"
	"netsysrq/internal/vm"
)

// event waits for an event of a request, and returns when it was.
func (h *host) event(id auth.RequestID, kind string) time.Duration {
	h.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		for _, e := range h.module().Events {
			if e.Kind == kind && e.Request == hex.EncodeToString(id[:]) {
				return time.Duration(e.Boot * float64(time.Second))
			}
		}
	}
	h.Fatalf("no event %s of %x", kind, id)
	return 0
}

// challenge is a fresh one of the host.
func challenge(t *testing.T, asked exchange.Host, dial exchange.Dial) auth.Challenge {
	t.Helper()
	out, err := exchange.Status(t.Context(), asked, exchange.Options{Dial: dial})
	if err != nil || out.Kind != exchange.Answered || out.Reply.Challenge == (auth.Challenge{}) {
		t.Fatalf("status: %v %+v", err, out)
	}
	return out.Reply.Challenge
}

// rehearsal is a path on which a rehearsal is asked for, once.
type rehearsal struct {
	*vm.Conn
	sealer *auth.Sealer
	id     auth.RequestID
}

// rehearse seals a request for a step, sends it once from an address, and waits
// for nothing.
func rehearse(t *testing.T, m *vm.Machine, sealer *auth.Sealer, from netip.AddrPort, step byte, id auth.RequestID, c auth.Challenge) *rehearsal {
	t.Helper()
	conn, err := m.Net.DialFrom(from, vm.GuestUDP4(auth.Port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	r := auth.Request{Op: auth.OpRun, ID: id, Challenge: c, Flags: auth.Rehearse}
	r.SetSteps([]auth.Step{{Key: step}})
	packet := sealer.SealRequest(&r)
	if _, err := conn.Write(packet[:]); err != nil {
		t.Fatal(err)
	}
	return &rehearsal{conn, sealer, id}
}

// answer waits for the answer, and returns nil if none comes in time.
func (r *rehearsal) answer(t *testing.T, patience time.Duration) *auth.Reply {
	t.Helper()
	stop := context.AfterFunc(vm.Within(t, patience), func() { r.Close() })
	defer stop()
	b := make([]byte, 2048)
	n, err := r.Read(b)
	if err != nil {
		return nil
	}
	var reply auth.Reply
	if reason, err := r.sealer.OpenReply(bytes.Clone(b[:n]), r.id, &reply); reason != auth.OK {
		t.Fatalf("an answer that is %v: %v", reason, err)
	}
	return &reply
}

// TestDeadlineOfTheFirst leaves nothing of a machine but the interrupts of one
// CPU, and sends a second request shortly before the first one's deadline: that
// postpones nothing.
func TestDeadlineOfTheFirst(t *testing.T) {
	if v := vm.TestKernel(); v == "5.10" || v == "6.1" || v == vm.DebugVersion {
		t.Skip("for KERNEL=6.12 and later: before, the second would not be seen in between")
	}
	h := newLogHost(t, true)
	const (
		deadline = 380 * time.Millisecond // less than the tick's own period
		later    = 250 * time.Millisecond
	)
	if err := h.WriteFile(vm.Within(t, 10*time.Second), "/etc/netsysrq/netsysrqd.toml", 0o644, []byte("deadline = \"380ms\"\n"+config)); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Machine.Run(vm.Within(t, 10*time.Second), "netsysrqd", "load-keys"); err != nil {
		t.Fatal(err)
	}
	mark := h.Console.Mark()
	for _, spin := range []string{"irqs 0", "preempt 1"} {
		if err := h.WriteFile(vm.Within(t, 10*time.Second), "/sys/module/hang/parameters/spin", 0, []byte(spin)); err != nil {
			t.Fatal(err)
		}
	}
	for _, cpu := range []string{"0", "1"} {
		if _, err := h.Console.Await(vm.Within(t, 20*time.Second), mark, "hang: cpu "+cpu+": tick silent"); err != nil {
			t.Fatal(err)
		}
	}
	asked := [2]exchange.Host{h.asked(h.alice, vm.GuestUDP4(auth.Port)), h.asked(h.bob, vm.GuestUDP4(auth.Port))}
	const attempts = 10 // of which the emulator may break some
	for n := range byte(attempts) {
		var c [2]auth.Challenge
		for i := range asked {
			c[i] = challenge(t, asked[i], h.Net.Dial)
		}
		var r [2]*rehearsal
		var sent [2]time.Time
		var answers [2]*auth.Reply
		for i := range r {
			sent[i] = time.Now()
			from := netip.AddrPortFrom(vm.HostIPv4, 5000+uint16(n)*2+uint16(i))
			r[i] = rehearse(t, h.Machine, asked[i].Sealer, from, 'w', auth.RequestID{1, n, byte(i)}, c[i])
			if i == 0 {
				time.Sleep(later)
			}
		}
		for i := range r {
			if answers[i] = r[i].answer(t, 10*time.Second); answers[i] == nil || answers[i].Result != auth.Accepted {
				t.Fatalf("request %d is answered by %+v", i, answers[i])
			}
		}
		apart := time.Duration(answers[1].Time - answers[0].Time)
		t.Logf("attempt %d: sent %v apart, answered %v apart", n+1, sent[1].Sub(sent[0]), apart)
		// Two answers of one tick are less than this apart.
		if sent[1].Sub(sent[0]) < deadline-50*time.Millisecond && apart > later/2 {
			return
		}
	}
	t.Error("the first was never answered before the second")
}

// TestAnswerThatCannotLeave has the module owe an answer to an address to which
// no route leads, or a firewall lets nothing out: it keeps nobody else waiting,
// and leaves as soon as it can.
func TestAnswerThatCannotLeave(t *testing.T) {
	h := newArmedHost(t, newArms(t, "n"), armed{})
	far := netip.MustParseAddrPort("198.51.100.9:4000")
	near := netip.AddrPortFrom(vm.HostIPv4, 4000)
	asked := h.asked(vm.GuestUDP4(auth.Port))
	// The emulator may be too late for what is to be seen, but not always.
	const attempts = 5

	t.Run("others do not wait", func(t *testing.T) {
		h := h.with(t)
		if out, err := h.Machine.Run(vm.Within(t, 10*time.Second), "/usr/sbin/ip", "route", "add", "unreachable", "198.51.100.0/24"); err != nil {
			t.Fatal(err, out)
		}
		for n := range byte(attempts) {
			first, second := auth.RequestID{1, n}, auth.RequestID{2, n}
			a := rehearse(t, h.Machine, h.sealer, far, 'n', first, challenge(t, asked, h.Net.Dial))
			b := rehearse(t, h.Machine, h.sealer, near, 'n', second, challenge(t, asked, h.Net.Dial))
			reply := b.answer(t, 2*time.Second)
			a.Close()
			b.Close()
			givenUp := h.event(first, "unsaid")
			if reply == nil {
				t.Logf("attempt %d: the second was not answered at all", n+1)
				continue
			}
			clocks, err := h.Clocks(vm.Within(t, 10*time.Second))
			if err != nil {
				t.Fatal(err)
			}
			answered := time.Duration(reply.Time) - clocks.Real + clocks.Boot
			t.Logf("attempt %d: the second was answered %v before the first answer was given up", n+1, givenUp-answered)
			if answered < givenUp {
				return
			}
		}
		t.Error("the second was never answered before the first answer was given up")
	})
	t.Run("it leaves at last", func(t *testing.T) {
		h := h.with(t)
		far := netip.MustParseAddrPort("203.0.113.9:4000")
		firewall := func(act string) {
			t.Helper()
			// It matches three packets an hour.
			if out, err := h.Machine.Run(vm.Within(t, 10*time.Second), "/usr/sbin/iptables-legacy", act, "OUTPUT", "-p", "udp", "-d", far.Addr().String(),
				"-m", "limit", "--limit", "1/hour", "--limit-burst", "3", "-j", "DROP"); err != nil {
				t.Fatal(err, out)
			}
		}
		for n := range byte(attempts) {
			firewall("-A")
			before := h.module().Unsent
			a := rehearse(t, h.Machine, h.sealer, far, 'n', auth.RequestID{3, n}, challenge(t, asked, h.Net.Dial))
			reply := a.answer(t, 2*time.Second)
			a.Close()
			t.Logf("attempt %d: answered: %v", n+1, reply != nil)
			if reply != nil {
				if after := h.module().Unsent; after != before {
					t.Errorf("%d answers are counted as lost, and none was", after-before)
				}
				return
			}
			firewall("-D")
		}
		t.Error("it never left")
	})
}
