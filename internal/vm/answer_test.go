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

// rehearse seals a request, sends it once from an address, and waits for nothing.
func rehearse(t *testing.T, m *vm.Machine, sealer *auth.Sealer, from netip.AddrPort, id auth.RequestID, c auth.Challenge) *rehearsal {
	t.Helper()
	conn, err := m.Net.DialFrom(from, vm.GuestUDP4(auth.Port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	r := auth.Request{Op: auth.OpRun, ID: id, Challenge: c, Flags: auth.Rehearse}
	r.SetSteps([]auth.Step{{Key: 'n'}})
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

// TestAnswerThatCannotLeave has the module owe an answer to an address to which
// no route leads: it keeps nobody else waiting, and leaves as soon as it can.
func TestAnswerThatCannotLeave(t *testing.T) {
	h := newArmedHost(t, newArms(t, "n"), armed{})
	far := netip.MustParseAddrPort("198.51.100.9:4000")
	near := netip.AddrPortFrom(vm.HostIPv4, 4000)
	asked := h.asked(vm.GuestUDP4(auth.Port))
	route := func(act string) []string {
		return []string{"/usr/sbin/ip", "route", act, "unreachable", "198.51.100.0/24"}
	}
	// The emulator may be too late for what is to be seen, but not always.
	const attempts = 5

	t.Run("others do not wait", func(t *testing.T) {
		h := h.with(t)
		if _, err := h.Machine.Run(vm.Within(t, 10*time.Second), route("add")...); err != nil {
			t.Fatal(err)
		}
		for n := range byte(attempts) {
			first, second := auth.RequestID{1, n}, auth.RequestID{2, n}
			a := rehearse(t, h.Machine, h.sealer, far, first, challenge(t, asked, h.Net.Dial))
			b := rehearse(t, h.Machine, h.sealer, near, second, challenge(t, asked, h.Net.Dial))
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
		for n := range byte(attempts) {
			if _, err := h.Machine.Run(vm.Within(t, 10*time.Second), route("replace")...); err != nil {
				t.Fatal(err)
			}
			before := h.module().Unsent
			a := rehearse(t, h.Machine, h.sealer, far, auth.RequestID{3, n}, challenge(t, asked, h.Net.Dial))
			time.Sleep(330 * time.Millisecond) // 80 ms after the deadline
			if _, err := h.Machine.Run(vm.Within(t, 10*time.Second), route("del")...); err != nil {
				t.Fatal(err)
			}
			reply := a.answer(t, time.Second)
			t.Logf("attempt %d: answered: %v", n+1, reply != nil)
			if reply != nil {
				if after := h.module().Unsent; after != before {
					t.Errorf("%d answers are counted as lost, and none was", after-before)
				}
				return
			}
		}
		t.Error("it never left")
	})
}
