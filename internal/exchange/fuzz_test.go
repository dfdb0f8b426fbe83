// SPDX-License-Identifier: GPL-2.0-only

package exchange

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"netsysrq/auth"
)

// FuzzReply feeds an exchange first raw bytes, which change nothing unless
// they are sealed, and then a sealed reply of any content, which may change
// only what section 6 says.
func FuzzReply(f *testing.F) {
	key, _ := new(auth.Master).HostKey("web1")
	sealer := auth.NewSealer(&key)
	reply := sealer.SealReply(&auth.Reply{ID: auth.RequestID{1}, Result: auth.Accepted, Executor: auth.Daemon})
	request := sealer.SealRequest(&auth.Request{ID: auth.RequestID{1}, Op: auth.OpRun})
	for stage := range byte(4) {
		f.Add(reply[:], stage, false, byte(auth.Stale), byte(0), byte(1), uint16(9), uint64(0), byte(1))
		f.Add(request[:], stage, true, byte(auth.Status), byte(8), byte(2), uint16(0), uint64(1e18), byte(2))
		f.Add([]byte{}, stage, true, byte(auth.Accepted), byte(9), byte(0), uint16(7), uint64(5), byte(0))
	}
	f.Fuzz(func(t *testing.T, raw []byte, stage byte, toStatus bool, result, flags, challenge byte, age uint16, hostTime uint64, boot byte) {
		var now uint64 = 1e12
		clock := Clock{
			Real:         func() uint64 { return 1e18 + now },
			Boot:         func() uint64 { return now },
			Synchronised: func() bool { return stage&1 != 0 },
		}
		id := newID()
		w := newWay(sealer, auth.Request{Op: auth.OpRun, ID: id, Count: 1, Steps: [auth.MaxSteps]auth.Step{{Key: 's'}}},
			Options{Timeout: time.Minute, Clock: clock, OnePacket: stage&4 != 0, Trace: func(Event) {}})
		w.due(now)
		var status auth.RequestID
		for status = range w.statuses {
		}
		send := func(r auth.Reply) {
			p := sealer.SealReply(&r)
			w.receive(now, netip.AddrPort{}, p[:])
		}
		if stage&2 != 0 && !w.onePacket {
			send(auth.Reply{ID: status, Executor: auth.Kernel, Challenge: auth.Challenge{1}, Time: clock.Real(), Boot: auth.BootID{1}})
		}
		now += 2e9
		w.due(now)

		before := w.out
		w.receive(now, netip.AddrPort{}, slices.Clone(raw))
		if w.done || w.out.Ignored != before.Ignored+1 || w.out.Replies != before.Replies {
			t.Fatalf("unsealed bytes were believed: %+v", w.out)
		}

		r := auth.Reply{ID: id, Time: hostTime, Result: auth.Result(result), Executor: auth.Daemon, Flags: auth.ReplyFlags(flags),
			LedgerAge: age, Boot: auth.BootID{boot}, Challenge: auth.Challenge{challenge}}
		if toStatus {
			r.ID = status
		}
		forms, sent := len(w.taken), w.out.RunSent
		send(r)
		send(r)
		if made := len(w.taken) - forms; made > 1 || made == 1 && sent && time.Duration(age)*time.Second <= time.Duration(now-w.first) {
			t.Fatalf("%d further forms with a ledger age of %d s", made, age)
		}
		if w.out.Kind == Accepted && (r.Result != auth.Accepted || toStatus || !sent) {
			t.Fatalf("accepted by %+v", r)
		}
		if w.done && len(w.due(now+1e9)) > 0 {
			t.Fatal("something is sent after the end")
		}
	})
}
