// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"netsysrq/auth"
	"netsysrq/internal/clock"
	"netsysrq/kmod-fallback/kmod"
)

// deadline is that of the host's configuration.
const deadline = 15 * time.Millisecond

// Two clocks that are both called synchronised differ by at most W: the host's is
// off by less than wrong, and senders' are ahead by at most ahead.
const (
	wrong = 1500 * time.Millisecond
	ahead = auth.Window - wrong - 100*time.Millisecond
)

// world is the machine under test, and what is known of it.
type world struct {
	*history
	operators []*operator
	byKey     map[auth.KeyID]*operator
	statusOf  sync.Map // id of a status: the operator that waits for it
	sockets   []*socket
	base      uint64 // true time - CLOCK_BOOTTIME
	ended     atomic.Bool
	second    atomic.Pointer[kmod.Client] // a client that may have taken the daemon's place
	speaking  sync.RWMutex                // held for reading while it is spoken to

	behind atomic.Bool // events are made faster than they are read
	// Held while events are read, by one who must not wait for the others.
	watching sync.Mutex
	client   *kmod.Client
	current  *ledger
}

// trueTime is what every synchronised clock is near to.
func (w *world) trueTime() uint64 { return clock.Boot() + w.base }

// open opens the sockets: one for each operator, some that only repeat what
// others sent, and one for junk.
func (w *world) open(repeaters int) error {
	add := func(junk bool) (*socket, error) {
		s := &socket{n: len(w.sockets), six: len(w.sockets)%3 == 2, junk: junk}
		at := &net.UDPAddr{IP: net.IPv4(127, 0, 0, byte(2+s.n))}
		if s.six {
			at.IP = net.IPv6loopback
		}
		var err error
		if s.UDPConn, err = net.ListenUDP("udp", at); err != nil {
			return nil, err
		}
		if err := s.SetReadBuffer(1 << 20); err != nil {
			return nil, err
		}
		w.sockets = append(w.sockets, s)
		go w.listen(s)
		return s, nil
	}
	for _, o := range w.operators {
		s, err := add(false)
		if err != nil {
			return err
		}
		o.socket = s
		o.to = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), auth.Port)
	}
	for range repeaters {
		if _, err := add(false); err != nil {
			return err
		}
	}
	_, err := add(true)
	return err
}

// anySocket is one that is not for junk.
func (w *world) anySocket(random *rand.Rand) *socket {
	return w.sockets[random.IntN(len(w.sockets)-1)]
}

func (w *world) listen(s *socket) {
	buf := make([]byte, 2048)
	for {
		n, err := s.Read(buf)
		if err != nil {
			continue // what an earlier packet met
		}
		w.arrive(s, buf[:n])
	}
}

// arrive takes an answer.
func (w *world) arrive(s *socket, packet []byte) {
	at := clock.Boot()
	if s.junk {
		w.fault(fmt.Sprintf("at %d: %d bytes were answered to junk", at, len(packet)))
		return
	}
	if len(packet) != auth.PacketSize {
		w.fault(fmt.Sprintf("at %d: an answer of %d bytes", at, len(packet)))
		return
	}
	o := w.byKey[auth.KeyID(packet[8:16])]
	if o == nil {
		w.fault(fmt.Sprintf("at %d: an answer with a key of nobody", at))
		return
	}
	again := [auth.PacketSize]byte(packet)
	var a auth.Reply
	if reason, _ := o.sealer.OpenReply(packet, auth.RequestID{}, &a); reason != auth.ReasonOtherRequest {
		w.fault(fmt.Sprintf("at %d: an answer that is %v", at, reason))
		return
	}
	if reason, err := o.sealer.OpenReply(again[:], a.ID, &a); reason != auth.OK {
		w.fault(fmt.Sprintf("at %d: an answer that is %v: %v", at, reason, err))
		return
	}
	if asker, ok := w.statusOf.Load(a.ID); ok {
		if a.Flags&auth.Armed != 0 {
			w.Lock()
			w.statuses = append(w.statuses, statusAnswer{o.n, at})
			w.Unlock()
		}
		select {
		case asker.(*operator).status <- a:
		default:
		}
		return
	}
	w.Lock()
	defer w.Unlock()
	r := w.requests[a.ID]
	if r == nil || r.key != o.n {
		w.faults = append(w.faults, fmt.Sprintf("at %d: an answer to %x, which nobody asked", at, a.ID))
		return
	}
	r.answers = append(r.answers, answer{at, s.n, a.Result, a.Flags, a.Mask, a.Executor})
	if r.arrived == nil {
		return
	}
	select {
	case r.arrived <- a:
	default:
	}
}

// noteStatus says who waits for the answer to a status.
func (w *world) noteStatus(id auth.RequestID, o *operator) { w.statusOf.Store(id, o) }

// begin makes a request known, before its first packet.
func (w *world) begin(r *request) {
	w.Lock()
	defer w.Unlock()
	r.first = clock.Boot()
	w.requests[r.id] = r
	w.order = append(w.order, r)
}

// from notes that a socket is about to send a packet of a request.
func (w *world) from(id auth.RequestID, s *socket) {
	w.Lock()
	defer w.Unlock()
	if r := w.requests[id]; r != nil {
		r.sockets[s.n] = true
	}
}

// watch reads the module's events, for ever: faster than they are overwritten.
func (w *world) watch() {
	runtime.LockOSThread()
	first := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}
	if err := unix.SchedSetAttr(0, first, 0); err != nil {
		w.fault(fmt.Sprintf("make the reader of events first: %v", err))
	}
	for full := 0; !w.ended.Load(); {
		n, err := w.readEvents()
		if n == 0 || err != nil {
			full = 0
			w.behind.Store(false)
			// Not time.Sleep: another thread, which may not run, would end it.
			_ = unix.Nanosleep(&unix.Timespec{Nsec: 2e6}, nil)
			continue
		}
		full++
		w.behind.Store(full > 3)
	}
}

// pace waits while events are not read: the module keeps so many, and no more.
func (w *world) pace() {
	for w.behind.Load() && !w.ended.Load() {
		time.Sleep(2 * time.Millisecond)
	}
}

// readEvents reads what there is, and returns how much it was.
func (w *world) readEvents() (int, error) {
	w.watching.Lock()
	defer w.watching.Unlock()
	if w.client == nil {
		return 0, nil
	}
	l := w.current
	events, next, lost, err := w.client.Events(l.next)
	if err != nil {
		return 0, err
	}
	l.events = append(l.events, events...)
	l.next = next
	l.lost += lost
	return len(events), nil
}

// beginLedger reads the events of a module that was just loaded.
func (w *world) beginLedger(loaded boot) error {
	c, err := kmod.Dial()
	if err != nil {
		return err
	}
	w.watching.Lock()
	defer w.watching.Unlock()
	w.Lock()
	defer w.Unlock()
	w.client = c
	w.current = &ledger{loaded: loaded, next: 1}
	w.ledgers = append(w.ledgers, w.current)
	return nil
}

// endLedger reads what is left. Quiet says that it is to wait until nothing is
// under way.
func (w *world) endLedger(quiet bool) error {
	for begun := time.Now(); quiet; time.Sleep(10 * time.Millisecond) {
		status, err := w.client.Status()
		if err != nil {
			return err
		}
		if status.Jobs == 0 {
			break
		}
		if time.Since(begun) > 30*time.Second {
			return fmt.Errorf("%d requests are still under way after %v", status.Jobs, time.Since(begun))
		}
	}
	for {
		n, err := w.readEvents()
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
	}
	status, err := w.client.Status()
	if err != nil {
		return err
	}
	w.watching.Lock()
	defer w.watching.Unlock()
	l := w.current
	l.complete = quiet && status.Jobs == 0 && status.NextEvent == l.next
	return nil
}

// closeLedger stops reading.
func (w *world) closeLedger(end boot) {
	w.watching.Lock()
	defer w.watching.Unlock()
	w.client.Close()
	w.client = nil
	w.Lock()
	defer w.Unlock()
	w.ledgers[len(w.ledgers)-1].end = end
}
