// SPDX-License-Identifier: GPL-2.0-only

package exchange

import (
	"crypto/rand"
	"net/netip"
	"slices"
	"time"

	"netsysrq/auth"
)

const (
	// Patience is how long a status may stay unanswered before the run is
	// also sent with a time (rule 4).
	Patience = time.Second
	// newPortEvery repeats, one comes from a new port: a path may hate the old one.
	newPortEvery = 3
	// maxForms ends a quarrel with a host that calls its own challenges stale.
	maxForms = 8
)

// way is the sender's way for one intent, as a state machine. It is driven by
// the time (CLOCK_BOOTTIME, ns: a sleep of this machine must count in rule 5)
// and by what arrives, and says what to send.
type way struct {
	sealer    *auth.Sealer
	clock     Clock
	onePacket bool
	trace     func(Event)

	begun, deadline uint64
	intent          auth.Request // the run, without time and challenge

	asking   bool // a status is sent until a reply brings what it is for
	ask      schedule
	statuses map[auth.RequestID]uint64 // when each was sent

	// form is the newest form of the run, which alone is repeated: the host
	// knows the intent by its id, whichever form brought it.
	form     Form
	packet   [auth.PacketSize]byte
	repeat   schedule
	taken    []auth.Challenge // those that forms were made with
	first    uint64           // when any form was first sent, if out.RunSent
	dated    uint64           // the time in the form with a time; 0: none was made
	measured time.Duration    // how long the measurement of out.Difference took

	done bool
	out  Outcome
}

// datagram is a packet to send to every address of the host.
type datagram struct {
	form    Form
	packet  [auth.PacketSize]byte
	newPort bool
}

func newWay(sealer *auth.Sealer, intent auth.Request, opt Options) *way {
	now := opt.Clock.Boot()
	run := intent.Op == auth.OpRun
	w := &way{
		sealer:    sealer,
		clock:     opt.Clock,
		onePacket: run && opt.OnePacket,
		trace:     opt.Trace,
		begun:     now,
		deadline:  now + uint64(opt.Timeout),
		intent:    intent,
		ask:       schedule{begun: now},
		statuses:  map[auth.RequestID]uint64{},
		out:       Outcome{Request: intent.ID},
	}
	w.asking = !w.onePacket
	return w
}

// newID returns a random request id, which is never zero in practice and not
// zero by test.
func newID() (id auth.RequestID) {
	for id == (auth.RequestID{}) {
		rand.Read(id[:])
	}
	return id
}

// due returns what is to be sent at this moment.
func (w *way) due(now uint64) (out []datagram) {
	if !w.done && now >= w.deadline {
		w.finish(now, Unknown)
	}
	if w.done {
		return nil
	}
	if w.asking && w.ask.due(now) {
		out = append(out, datagram{StatusForm, w.status(now), w.ask.newPort()})
	}
	if !w.out.RunSent && w.wantsTime(now) {
		w.newForm(now, auth.Challenge{})
	}
	if w.out.RunSent && w.repeat.due(now) {
		if w.form == ChallengeForm {
			w.seal()
		}
		out = append(out, datagram{w.form, w.packet, w.repeat.newPort()})
	}
	return out
}

// next is how long nothing is due, unless something arrives.
func (w *way) next(now uint64) time.Duration {
	at := w.deadline
	if w.asking {
		at = min(at, w.ask.next())
	}
	if w.out.RunSent {
		at = min(at, w.repeat.next())
	}
	return time.Duration(at - min(at, now))
}

// status seals a status for this moment. Each has an id of its own, so that
// its reply tells the round trip.
func (w *way) status(now uint64) [auth.PacketSize]byte {
	r := auth.Request{Op: auth.OpStatus, ID: newID(), Time: w.clock.Real()}
	w.statuses[r.ID] = now
	return w.sealer.SealRequest(&r)
}

// wantsTime reports whether the run is to be sealed with a time although no
// challenge came (rule 4).
func (w *way) wantsTime(now uint64) bool {
	if w.onePacket {
		return true
	}
	return w.intent.Op == auth.OpRun && w.out.Replies == 0 && now-w.begun >= uint64(Patience) && w.clock.Synchronised()
}

// newForm seals a form of the run, to be sent from now on.
func (w *way) newForm(now uint64, c auth.Challenge) {
	if c == (auth.Challenge{}) {
		w.dated = w.clock.Real()
		w.form, w.out.OnePacket = TimeForm, true
		r := w.intent
		r.Time = w.dated
		w.packet = w.sealer.SealRequest(&r)
	} else {
		w.form, w.asking = ChallengeForm, false
		w.taken = append(w.taken, c)
	}
	w.repeat = schedule{begun: now}
	if !w.out.RunSent {
		w.out.RunSent, w.first = true, now
	}
}

// seal seals the form with the newest challenge for this moment. The challenge
// alone makes it fresh, and only once; the time, on the host's clock, shows the
// host that this is no recording, so that it answers whatever else comes.
func (w *way) seal() {
	r := w.intent
	r.Challenge = w.taken[len(w.taken)-1]
	r.Time = w.clock.Real() + uint64(w.out.Difference)
	w.packet = w.sealer.SealRequest(&r)
}

// receive takes a datagram from the network, whatever it is, and overwrites it.
func (w *way) receive(now uint64, from netip.AddrPort, packet []byte) {
	var r auth.Reply
	reason := w.open(packet, &r)
	if w.done || reason != auth.OK {
		w.out.Ignored++
		w.trace(Event{At: w.since(now), Addr: from, Reason: reason})
		return
	}
	w.out.Replies++
	w.trace(Event{At: w.since(now), Addr: from, Reply: &r})
	w.measure(now, &r)
	if r.Result == auth.Status {
		w.out.DryRun = r.Flags&auth.DryRun != 0
	}

	rebooted := w.out.RunSent && w.out.Before != (auth.BootID{}) && r.Boot != w.out.Before
	if !w.out.RunSent || w.out.Before == (auth.BootID{}) {
		w.out.Before = r.Boot
	}
	w.out.After, w.out.Reply = r.Boot, &r

	switch {
	case r.Result == auth.Accepted:
		w.finish(now, Accepted)
	case r.Result != auth.Status && r.Result != auth.Stale:
		w.finish(now, Refused)
	case w.intent.Op == auth.OpStatus:
		w.finish(now, Answered)
	case rebooted:
		// The machine that answers is not the one that was asked.
		w.finish(now, Rebooted)
	case r.Result == auth.Stale:
		w.stale(now, &r)
	case !w.out.RunSent || w.form == TimeForm:
		w.challenge(now, &r)
	}
}

// open opens a reply to one of our requests, by rule 2.
func (w *way) open(packet []byte, r *auth.Reply) auth.Reason {
	again := slices.Clone(packet) // a packet can be opened once
	reason, _ := w.sealer.OpenReply(packet, w.out.Request, r)
	if reason == auth.OK && w.out.RunSent && r.Result != auth.Status {
		return auth.OK
	}
	if reason == auth.OK {
		return auth.ReasonMalformed // not what a host says of a run
	}
	// The id of another request, to be believed only if we made it.
	if _, ours := w.statuses[r.ID]; reason != auth.ReasonOtherRequest || !ours {
		return reason
	}
	reason, _ = w.sealer.OpenReply(again, r.ID, r)
	if reason == auth.OK && r.Result != auth.Status && (r.Result != auth.Malformed || w.out.RunSent) {
		return auth.ReasonMalformed
	}
	return reason
}

// stale hears that a form of the run was not fresh.
func (w *way) stale(now uint64, r *auth.Reply) {
	if w.form == TimeForm {
		w.out.TimeStale = true
	}
	if !w.onePacket {
		w.challenge(now, r)
		return
	}
	switch w.out.Postdated = w.postdated(r); {
	case !w.remembers(now, r):
		w.forgotten(now)
	case w.out.Postdated:
		w.finish(now, Unknown)
	default:
		// The only form is dead: first sight is the last.
		w.finish(now, Refused)
	}
}

// challenge makes a form of the run with the challenge that a reply brings, if
// that can't become a second run.
func (w *way) challenge(now uint64, r *auth.Reply) {
	switch w.out.Postdated = w.postdated(r); {
	case slices.Contains(w.taken, r.Challenge):
		// A late or repeated reply. A form with this challenge is on its way.
	case w.out.RunSent && !w.remembers(now, r):
		w.forgotten(now)
	case w.out.Postdated:
		// Once the host's clock has come that far, a reply will bring one.
	case r.Challenge == auth.Challenge{}:
		// The host can't make one yet; the next reply may bring it.
	case len(w.taken) == maxForms:
		w.finish(now, Unknown)
	default:
		w.newForm(now, r.Challenge)
	}
}

// remembers is rule 5: the host knows whatever it accepted since the run was
// first sent.
func (w *way) remembers(now uint64, r *auth.Reply) bool {
	return time.Duration(r.LedgerAge)*time.Second > time.Duration(now-w.first)
}

// postdated reports that the form with a time lies in the host's future. A
// ledger that begins from here on may take it, until the host's clock comes
// within W of it; a further form could then become a second run (rule 5).
func (w *way) postdated(r *auth.Reply) bool {
	return w.dated > r.Time && w.dated-r.Time > uint64(auth.Window)
}

func (w *way) forgotten(now uint64) {
	w.out.Forgotten = true
	w.finish(now, Unknown)
}

// measure takes the round trip of a reply and the difference of the clocks. A
// reply to bytes that were sent several times may answer any of them.
func (w *way) measure(now uint64, r *auth.Reply) {
	sent, status := w.statuses[r.ID]
	took := time.Duration(now - sent)
	w.out.RoundTrip = took
	if !status {
		took = time.Duration(now - w.repeat.begun)
		w.out.RoundTrip = took
		if w.repeat.n > 1 || len(w.taken) > 1 || w.out.OnePacket && len(w.taken) > 0 {
			took, w.out.RoundTrip = time.Duration(now-w.first), 0
		}
	}
	if !w.out.HaveDifference || took < w.measured {
		w.out.HaveDifference, w.measured = true, took
		w.out.Difference = time.Duration(r.Time - (w.clock.Real() - uint64(took/2)))
	}
}

// unreachable takes an error of the network about an earlier packet.
func (w *way) unreachable(now uint64, from netip.AddrPort, err error) {
	w.out.Unreachable = err
	w.trace(Event{At: w.since(now), Addr: from, Err: err})
}

// sent hears whether a packet left.
func (w *way) sent(now uint64, d datagram, to netip.AddrPort, err error) {
	if err != nil {
		w.out.Unreachable = err
	} else {
		w.out.Sent++
	}
	w.trace(Event{At: w.since(now), Addr: to, Sent: true, Form: d.form, NewPort: d.newPort, Err: err})
}

func (w *way) since(now uint64) time.Duration { return time.Duration(now - w.begun) }

// finish ends the exchange. The first end is the one that counts.
func (w *way) finish(now uint64, k Kind) *Outcome {
	if !w.done {
		w.done = true
		w.out.Kind, w.out.Elapsed = k, w.since(now)
		if w.out.RunSent {
			w.out.RunTook = time.Duration(now - w.first)
		}
	}
	return &w.out
}

// schedule is when a packet is sent: at 0, 250 ms, 500 ms, 1 s, 2 s and every
// second after.
type schedule struct {
	begun uint64
	n     int // packets sent
}

func (s *schedule) next() uint64 {
	early := [...]time.Duration{0, 250 * time.Millisecond, 500 * time.Millisecond}
	if s.n < len(early) {
		return s.begun + uint64(early[s.n])
	}
	return s.begun + uint64(s.n-len(early)+1)*uint64(time.Second)
}

// due reports, once for each, whether a packet is to be sent. What was missed,
// by a sleep of this machine, is not made up for.
func (s *schedule) due(now uint64) bool {
	if now < s.next() {
		return false
	}
	for now >= s.next() {
		s.n++
	}
	return true
}

// newPort reports whether the packet that is due goes out from a new port.
func (s *schedule) newPort() bool { return s.n > 1 && (s.n-1)%newPortEvery == 0 }
