// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/clock"
	"netsysrq/internal/exchange"
)

// patience is how long a sender waits for an answer, as PROTOCOL.md section 6
// has it.
const patience = 10 * time.Second

// operator holds one key, and makes the rounds of the test with it.
type operator struct {
	*world
	n       int
	label   string
	sealer  *auth.Sealer
	key     auth.HostKey
	random  *rand.Rand
	socket  *socket
	to      netip.AddrPort
	letters string // that the key may have
	never   byte   // and one that it never has

	// changes counts the beginnings and the ends of what may disturb the key,
	// the module's reload too: odd while it may not be there.
	changes atomic.Int64
	last    uint64 // newest time in a packet
	status  chan auth.Reply
	trusted bool // by the newest reply

	// aside are packets that are held back, to arrive after later ones.
	aside []*request
	sealed
}

// sealed are the packets of an operator.
type sealed struct {
	packets atomic.Pointer[[]stored]
}

// stored is a packet that was sent.
type stored struct {
	id     auth.RequestID
	packet [auth.PacketSize]byte
}

// keep remembers a packet for replays. Only its operator calls it.
func (s *sealed) keep(id auth.RequestID, packet *[auth.PacketSize]byte) {
	var next []stored
	if all := s.packets.Load(); all != nil {
		next = *all
	}
	next = append(next, stored{id, *packet})
	s.packets.Store(&next)
}

func (o *operator) steady() bool { return o.changes.Load()%2 == 0 }

// newID makes a request id of the test's own randomness.
func (o *operator) newID() (id auth.RequestID) {
	binary.LittleEndian.PutUint64(id[:], o.random.Uint64())
	binary.LittleEndian.PutUint64(id[8:], o.random.Uint64()|1)
	return id
}

// chance is true once in n times.
func (o *operator) chance(n int) bool { return o.random.IntN(n) == 0 }

// some steps of those that the key may have.
func (o *operator) some() (steps []auth.Step) {
	for range 1 + o.random.IntN(auth.MaxSteps) {
		s := auth.Step{Key: o.letters[o.random.IntN(len(o.letters))]}
		if o.chance(20) {
			s.Pause = uint16(1 + o.random.IntN(2))
		}
		steps = append(steps, s)
	}
	return steps
}

func letters(steps []auth.Step) (text string) {
	for _, s := range steps {
		text += string(s.Key)
	}
	return text
}

// round is one intent, or two that meet.
func (o *operator) round() {
	switch n := o.random.IntN(100); {
	case n < 34:
		o.send(o.byChallenge(o.some(), 0), true)
	case n < 42: // two that are under way at once, and now and then a third
		for range 2 + o.random.IntN(2) {
			if r := o.byChallenge(o.some(), 0); r != nil {
				o.send(r, false)
			}
		}
	case n < 47:
		o.sameChallenge()
	case n < 60:
		o.byTime()
	case n < 66: // not allowed
		steps := o.some()
		steps[o.random.IntN(len(steps))].Key = o.never
		if r := o.byChallenge(steps, 0); r != nil {
			r.kind = never
			o.send(r, true)
		}
	case n < 70:
		o.send(o.byChallenge(o.some(), auth.Rehearse), true)
	case n < 75:
		o.send(o.byChallenge(o.some(), auth.Drill), true)
	case n < 79:
		o.barrier()
	case n < 87: // now, while another may be under way
		if o.chance(2) {
			o.send(o.byChallenge(o.some(), 0), false)
		}
		o.send(o.byChallenge(o.some(), auth.Now), true)
	case n < 89: // the challenge is nobody's
		r := o.make(o.some(), 0)
		r.kind = never
		binary.LittleEndian.PutUint64(r.challenge[:], o.random.Uint64()|1)
		o.send(r, true)
	case n < 91:
		o.malformed()
	case n < 92:
		o.ask()
	default:
		o.exchange()
	}
	o.disorder()
}

// disorder repeats packets of before, and lets those go that were held back.
func (o *operator) disorder() {
	if len(o.aside) > 0 && o.chance(2) {
		at := o.random.IntN(len(o.aside))
		r := o.aside[at]
		o.aside = append(o.aside[:at], o.aside[at+1:]...)
		o.transmit(r, o.socket)
	}
	all := o.packets.Load()
	if all == nil || o.chance(2) {
		return
	}
	for range o.random.IntN(3) {
		recent := max(0, len(*all)-30)
		o.replay(&(*all)[recent+o.random.IntN(len(*all)-recent)], o.anySocket(o.random), o.to)
	}
}

// make makes a request, without what makes it fresh.
func (o *operator) make(steps []auth.Step, flags auth.RequestFlags) *request {
	r := &request{
		id: o.newID(), key: o.n, steps: letters(steps), flags: flags, sockets: map[int]bool{},
		sequence: steps, arrived: make(chan auth.Reply, 16),
	}
	return r
}

// byChallenge makes a request with a challenge from the host; nil if there is
// none to be had, which is noted if it must not be.
func (o *operator) byChallenge(steps []auth.Step, flags auth.RequestFlags) *request {
	c := o.ask()
	if c == (auth.Challenge{}) {
		return nil
	}
	r := o.make(steps, flags)
	r.challenge = c
	if o.chance(2) {
		r.time = clock.Real() // no more, or the floor would be above every time
	}
	return r
}

// newTime is later than any before, so that it proves to the host that this is
// no recording.
func (o *operator) newTime() uint64 {
	o.last = max(o.last+1, clock.Real())
	return o.last
}

// ask returns the host's challenge: the sender's way, step 1.
func (o *operator) ask() (c auth.Challenge) {
	changes := o.changes.Load()
	r := auth.Request{Op: auth.OpStatus}
	for len(o.status) > 0 {
		<-o.status
	}
	begun := time.Now()
	for n := 0; time.Since(begun) < patience; n++ {
		r.ID, r.Time = o.newID(), o.newTime()
		if n%2 == 1 && o.trusted {
			// What was sent before may be too far ahead to be exceeded.
			r.Time = clock.Real() + uint64(auth.Window-10*time.Millisecond)
		}
		o.noteStatus(r.ID, o)
		packet := o.sealer.SealRequest(&r)
		o.socket.write(packet[:], o.to)
		late := time.After(min(250*time.Millisecond<<min(n, 2), time.Second))
	wait:
		for {
			select {
			case a := <-o.status:
				o.trusted = a.Flags&auth.ClockTrusted != 0
				if a.Challenge != (auth.Challenge{}) {
					return a.Challenge
				}
			case <-late:
				break wait
			}
		}
		if o.changes.Load() != changes || !o.steady() {
			if !o.steady() {
				o.settle()
			}
			return c
		}
	}
	if o.steady() && o.changes.Load() == changes {
		o.fault(fmt.Sprintf("at %d: no answer to a status of key %d within %v", clock.Boot(), o.n, patience))
	}
	return c
}

// settle waits until nothing disturbs the key.
func (o *operator) settle() {
	for !o.steady() && !o.ended.Load() {
		time.Sleep(5 * time.Millisecond)
	}
}

// sameChallenge makes two requests with one challenge, of which at most one can
// be fresh.
func (o *operator) sameChallenge() {
	a := o.byChallenge(o.some(), 0)
	if a == nil {
		return
	}
	b := o.make(o.some(), 0)
	b.challenge = a.challenge
	if o.chance(2) {
		a, b = b, a
	}
	o.send(a, false)
	o.send(b, true)
}

// byTime makes a request in one packet. What begins a ledger or ends it puts the
// floor up to W ahead, so that most times are as far ahead as two clocks may be.
func (o *operator) byTime() {
	o.settle()
	r := o.make(o.some(), 0)
	now := o.trueTime()
	r.time = now + uint64(ahead) - uint64(o.random.Int64N(int64(300*time.Millisecond)))
	switch o.random.IntN(16) {
	case 0:
		r.time = now
	case 1: // too old
		r.time = now - uint64(auth.Window+2*time.Second) - uint64(o.random.Int64N(int64(time.Minute)))
		r.kind = never
	case 2: // in the future
		r.time = now + uint64(auth.Window+2*time.Second) + uint64(o.random.Int64N(int64(time.Second)))
	}
	o.last = max(o.last, r.time)
	o.send(r, true)
}

// barrier ends what was sealed before, and has not come yet.
func (o *operator) barrier() {
	r := o.make(o.some(), 0)
	r.time = o.trueTime() + uint64(ahead)
	o.last = max(o.last, r.time)
	o.seal(r)
	o.send(o.byChallenge(nil, auth.RequestFlags(o.random.IntN(2))*auth.Now), true)
	o.transmit(r, o.socket)
}

// malformed sends what its key seals, and no sender makes.
func (o *operator) malformed() {
	r := o.make(o.some(), 0)
	r.kind = never
	r.time = o.newTime()
	if o.chance(2) {
		r.flags = 0x80
	} else {
		r.sequence[0].Key = 'A'
	}
	o.send(r, true)
}

// seal makes the packet of a request.
func (o *operator) seal(r *request) {
	q := auth.Request{Op: auth.OpRun, ID: r.id, Time: r.time, Challenge: r.challenge, Flags: r.flags}
	q.SetSteps(r.sequence)
	r.packet = o.sealer.SealRequest(&q)
	r.made = o.trueTime()
	o.begin(r) // before anyone can replay it
	o.keep(r.id, &r.packet)
}

// send sends a request, perhaps several times, and waits for the answer, or not.
func (o *operator) send(r *request, wait bool) {
	if r == nil {
		return
	}
	o.seal(r)
	changes := o.changes.Load()
	if o.chance(12) { // it is overtaken by later ones
		o.aside = append(o.aside, r)
		return
	}
	o.transmit(r, o.socket)
	o.words(r)
	for o.chance(3) {
		s := o.socket
		if o.chance(2) {
			s = o.anySocket(o.random)
		}
		if o.chance(2) {
			time.Sleep(time.Duration(o.random.Int64N(int64(30 * time.Millisecond))))
		}
		o.transmit(r, s)
	}
	if wait {
		o.await(r, changes)
	}
}

// transmit sends a request's packet.
func (o *operator) transmit(r *request, s *socket) {
	o.pace()
	o.from(r.id, s)
	s.write(r.packet[:], o.to)
}

// words lets the second client say its word on a request, at some time about the
// deadline: the daemon's place may be its, or not.
func (o *operator) words(r *request) {
	c := o.second.Load()
	if c == nil || o.chance(4) {
		return
	}
	later := time.Duration(o.random.Int64N(int64(2 * deadline)))
	if o.chance(2) {
		later = 0
	}
	n := 1 + o.random.IntN(2)
	veto := o.chance(3)
	wrong := o.chance(8)
	say := func() {
		time.Sleep(later)
		id := r.id
		if wrong {
			id[0] ^= 1
		}
		o.speaking.RLock()
		defer o.speaking.RUnlock()
		for range n {
			if o.second.Load() != c {
				return // it has gone
			}
			w := word{call: span{begin: clock.Boot()}, id: id, veto: veto}
			if veto {
				w.err = c.Veto(o.sealer.ID(), id)
			} else {
				w.err = c.Take(o.sealer.ID(), id)
			}
			w.call.end = clock.Boot()
			o.Lock()
			o.history.words = append(o.history.words, w)
			o.Unlock()
			veto = !veto
		}
	}
	if later == 0 {
		say() // in time, surely
		return
	}
	go say()
}

// await waits for an answer, and repeats the packet until it comes.
func (o *operator) await(r *request, changes int64) {
	begun := time.Now()
	surely := r.challenge != (auth.Challenge{}) && r.kind != never
	limit := patience
	if !surely {
		limit = 250 * time.Millisecond // it may have been stale, and silence its due
	}
	for n := 0; time.Since(begun) < limit; n++ {
		late := time.After(min(250*time.Millisecond<<min(n, 2), time.Second))
		select {
		case a := <-r.arrived:
			o.trusted = a.Flags&auth.ClockTrusted != 0
			if o.chance(4) { // once more, for the same answer
				o.transmit(r, o.socket)
			}
			return
		case <-late:
		}
		if o.changes.Load() != changes || !o.steady() {
			o.settle()
			return
		}
		s := o.socket
		if n%3 == 2 {
			s = o.anySocket(o.random)
		}
		o.transmit(r, s)
	}
	if surely && changes%2 == 0 && o.changes.Load() == changes {
		o.Lock()
		r.waited = true
		o.Unlock()
	}
}

// exchange is the sender's own way.
func (o *operator) exchange() {
	o.settle()
	var flags auth.RequestFlags
	if o.chance(6) {
		flags = auth.Now
	}
	steps := o.some()
	if o.chance(8) {
		steps[0].Key = o.never
	}
	r := o.make(steps, flags)
	r.kind = several
	opt := exchange.Options{
		Timeout: 3 * time.Second,
		Clock:   exchange.Clock{Real: o.trueTime, Boot: clock.Boot, Synchronised: func() bool { return true }},
	}
	// The id is known when the first packet of the run is read.
	var sent []stored
	opt.Dial = func(ctx context.Context, to netip.AddrPort) (io.ReadWriteCloser, error) {
		c, err := exchange.DialUDP(ctx, to)
		if err != nil {
			return nil, err
		}
		return &tap{ReadWriteCloser: c, sent: func(p []byte) { o.sender(p, r, &sent) }}, nil
	}
	opt.OnePacket = o.chance(8)
	out, err := exchange.Run(context.Background(), exchange.Host{Name: o.label, Addrs: []netip.AddrPort{o.to}, Sealer: o.sealer}, steps, flags, opt)
	if err != nil && !errors.Is(err, exchange.ErrNotSent) {
		o.fault(fmt.Sprintf("exchange: %v", err))
		return
	}
	if out == nil || !out.RunSent {
		return
	}
	o.Lock()
	r.outcome = out
	o.Unlock()
}

// tap tells what is written.
type tap struct {
	io.ReadWriteCloser
	sent func([]byte)
}

func (t *tap) Write(p []byte) (int, error) {
	t.sent(p)
	return t.ReadWriteCloser.Write(p)
}

// sender hears of a packet that the sender's way sends. It is called from one
// goroutine.
func (o *operator) sender(p []byte, r *request, sent *[]stored) {
	var q auth.Request
	packet := [auth.PacketSize]byte(p)
	again := packet
	if reason, _ := o.sealer.OpenRequest(again[:], &q); reason != auth.OK || q.Op != auth.OpRun {
		return
	}
	o.last = max(o.last, q.Time)
	r.id = q.ID
	if len(*sent) == 0 {
		r.made = o.trueTime()
		o.begin(r)
	}
	*sent = append(*sent, stored{q.ID, packet})
	o.keep(q.ID, &packet)
}

// replay sends a recorded packet.
func (w *world) replay(p *stored, s *socket, to netip.AddrPort) {
	w.from(p.id, s)
	s.write(p.packet[:], to)
}

// socket is one that requests go out from, and answers come to.
type socket struct {
	*net.UDPConn
	n    int
	six  bool
	junk bool // nothing that it sends is authentic
}

func (s *socket) write(p []byte, to netip.AddrPort) {
	if s.six {
		to = netip.AddrPortFrom(netip.IPv6Loopback(), to.Port())
	} else if to.Addr().Is6() {
		to = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), to.Port())
	}
	// What goes wrong here is an ICMP error for an earlier packet.
	if _, err := s.WriteToUDPAddrPort(p, to); err != nil {
		_, _ = s.WriteToUDPAddrPort(p, to)
	}
}
