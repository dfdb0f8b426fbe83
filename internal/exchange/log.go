// SPDX-License-Identifier: GPL-2.0-only

package exchange

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"time"

	"netsysrq/auth"
)

const (
	// quiet is how long pieces may keep each other waiting before those that
	// are missing are asked for again.
	quiet = 60 * time.Millisecond
	// maxAsks bounds the requests whose late pieces are still welcome.
	maxAsks = 64
	// maxKept bounds the pieces that wait for others before them.
	maxKept = 4 * auth.MaxPieces
)

// Records are consecutive records of a host's kernel log.
type Records struct {
	First, Next uint64 // numbers of the first of them, and of the one after the last
	// Lost reports that the host has them no more: they were overwritten.
	// There is no text then.
	Lost bool
	// Cut reports that the one record was too long, and ends early.
	Cut bool
	// Text is lines as syslog(2) gives them, with whatever bytes somebody had
	// the kernel print.
	Text []byte
}

// Bounds are the ends of a host's kernel log.
type Bounds struct {
	Oldest uint64 // number of the oldest record that is still there
	End    uint64 // number that the next record to be logged will get
}

// ErrLog is wrapped by the errors of a Log whose Outcome says more.
var ErrLog = errors.New("kernel log not read")

// Log reads the kernel's log of one host, as far as it gets, and goes on where
// it was. It is not safe for concurrent use.
type Log struct {
	host  Host
	opt   Options
	paths *paths
	r     *reader
}

// NewLog begins to read the log of a host; nothing is sent yet. It ends with
// ctx. It has sockets of its own: opt.Shared carries no pieces.
func NewLog(ctx context.Context, host Host, opt Options) (*Log, error) {
	opt, err := opt.checked(host)
	if err != nil {
		return nil, err
	}
	p := newPaths(ctx, host.Addrs, opt.Dial)
	p.size = auth.PieceSize
	return &Log{host, opt, p, newReader(host.Sealer, opt)}, nil
}

// Close ends it.
func (l *Log) Close() { l.paths.close() }

// Outcome says what was learnt of the host so far. Its Kind is Answered while
// the host answers, and else what ended the reading.
func (l *Log) Outcome() *Outcome {
	out := l.r.out
	out.Elapsed = time.Duration(l.opt.Clock.Boot() - l.r.begun)
	return &out
}

// Bounds asks where the log begins and ends. An error that wraps ErrLog is the
// host's or the network's, and Outcome tells it.
func (l *Log) Bounds(ctx context.Context) (Bounds, error) {
	l.r.begin(l.opt.Clock.Boot(), auth.LogEnd, auth.LogEnd, nil)
	err := l.drive(ctx)
	return l.r.bounds, err
}

// Read reads the records from first on up to end, which may be auth.LogEnd for
// all that there are by now, and gives them to f in order, those that were
// overwritten too; the last may be beyond end, since they come in pieces. It
// returns the number of the record with which to go on, also where it fails; it
// is below end where the log ends before. f may take its time, which does not
// count as silence of the host. Errors are those of Bounds.
func (l *Log) Read(ctx context.Context, first, end uint64, f func(Records)) (next uint64, err error) {
	if first >= end {
		return first, nil
	}
	l.r.begin(l.opt.Clock.Boot(), first, end, f)
	err = l.drive(ctx)
	return l.r.want, err
}

// drive carries what the reader says to the network and back.
func (l *Log) drive(ctx context.Context) error {
	r, clock := l.r, l.opt.Clock.Boot
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			r.finish(Unknown)
			return context.Cause(ctx)
		case <-timer.C:
		case a := <-l.paths.arrivals:
			if a.err != nil {
				r.out.Unreachable = a.err
				r.trace(Event{At: r.since(clock()), Addr: a.from, Err: a.err})
			} else {
				r.receive(clock(), a.from, a.packet)
			}
		}
		if now := clock(); now-r.heard >= uint64(l.opt.Timeout) {
			r.finish(Unknown)
		}
		for _, d := range r.due(clock()) {
			for addr, err := range l.paths.send(d.packet[:], d.newPort) {
				if err != nil {
					r.out.Unreachable = err
				} else {
					r.out.Sent++
				}
				r.trace(Event{At: r.since(clock()), Addr: addr, Sent: true, Form: d.form, NewPort: d.newPort, Err: err})
			}
		}
		switch {
		case r.failed:
			return fmt.Errorf("%w: %v", ErrLog, r.out.Kind)
		case r.done():
			return nil
		case r.out.Sent == 0:
			return fmt.Errorf("ask %s: %w: %w", l.host.Name, ErrNotSent, r.out.Unreachable)
		}
		timer.Reset(min(r.next(clock()), time.Duration(r.heard+uint64(l.opt.Timeout)-clock())))
	}
}

// checked is opt with its zero values filled in.
func (opt Options) checked(host Host) (Options, error) {
	if len(host.Addrs) == 0 {
		return opt, fmt.Errorf("ask %s: no address", host.Name)
	}
	if opt.Timeout == 0 {
		opt.Timeout = DefaultTimeout
	}
	if opt.Timeout < MinTimeout || opt.Timeout > MaxTimeout {
		return opt, fmt.Errorf("timeout %v is not between %v and %v", opt.Timeout, MinTimeout, MaxTimeout)
	}
	if opt.Clock.Boot == nil {
		opt.Clock = SystemClock
	}
	if opt.Dial == nil {
		opt.Dial = DialUDP
	}
	if opt.Trace == nil {
		opt.Trace = func(Event) {}
	}
	return opt, nil
}

// reader is the sender's way to the log, as a state machine: driven by the time
// and by what arrives, it says what to send. One request is asked at a time,
// since each uses up the challenge that the one before brought.
type reader struct {
	sealer *auth.Sealer
	clock  Clock
	trace  func(Event)
	begun  uint64
	heard  uint64 // when a piece came last, or the reading began
	part   int    // number of the part that is read

	challenge auth.Challenge // for the next request, zero: a status is to bring one
	used      map[auth.Challenge]bool
	polling   bool
	poll      schedule
	statuses  map[auth.RequestID]uint64 // when each was sent

	asks  map[auth.RequestID]*logAsk
	order []auth.RequestID // of asks, oldest first
	ask   *logAsk          // the one that is waited for

	bounds    Bounds
	want, end uint64 // what is to be read
	atEnd     bool   // the host has no more by now
	give      func(Records)
	kept      map[uint64]chunk // came too early, by the first record that it answers for
	prev      chunk            // what was given last

	failed bool
	out    Outcome
}

func newReader(sealer *auth.Sealer, opt Options) *reader {
	return &reader{sealer: sealer, clock: opt.Clock, trace: opt.Trace, begun: opt.Clock.Boot(),
		statuses: map[auth.RequestID]uint64{}, asks: map[auth.RequestID]*logAsk{}, used: map[auth.Challenge]bool{}}
}

// logAsk is one request for pieces.
type logAsk struct {
	id        auth.RequestID
	from      uint64
	pieces    uint8
	challenge auth.Challenge
	repeat    backoff
	part      int   // of the log, for which it was made
	got       uint8 // mask of indices
	last      int   // index of the last piece, -1: not known
	heard     uint64
}

// complete reports whether all pieces are there.
func (a *logAsk) complete() bool { return a.last >= 0 && int(a.got) == 1<<(a.last+1)-1 }

// chunk is a piece that came.
type chunk struct {
	Records
	ask   *logAsk
	index int
}

// begin begins to read a part of the log, or asks for the bounds.
func (r *reader) begin(now, first, end uint64, give func(Records)) {
	r.part++
	r.heard, r.failed = now, false
	if r.out.Replies > 0 {
		r.out.Kind = Answered
	}
	r.want, r.end, r.give = first, end, give
	r.kept, r.prev, r.atEnd = map[uint64]chunk{}, chunk{}, false
	r.ask = nil
	if r.polling {
		r.poll = schedule{begun: now}
	}
}

func (r *reader) done() bool { return r.atEnd || r.want >= r.end && r.give != nil }

func (r *reader) since(now uint64) time.Duration { return time.Duration(now - r.begun) }

func (r *reader) finish(k Kind) { r.failed, r.out.Kind = true, k }

// due returns what is to be sent at this moment.
func (r *reader) due(now uint64) (out []datagram) {
	if r.failed || r.done() {
		return nil
	}
	if a := r.ask; a != nil && a.got != 0 && (a.complete() || now-a.heard >= uint64(quiet)) {
		r.ask = nil
	}
	if r.ask == nil && r.challenge == (auth.Challenge{}) {
		if !r.polling {
			r.polling, r.poll = true, schedule{begun: now}
		}
	} else if r.polling = false; r.ask == nil {
		r.newAsk(now)
	}
	if r.polling && r.poll.due(now) {
		s := auth.Request{Op: auth.OpStatus, ID: newID(), Time: r.hostTime()}
		// The challenge of an older one would be dead.
		maps.DeleteFunc(r.statuses, func(_ auth.RequestID, sent uint64) bool { return now-sent > uint64(auth.ChallengeTTL) })
		r.statuses[s.ID] = now
		out = append(out, datagram{StatusForm, r.sealer.SealRequest(&s), r.poll.newPort()})
	}
	if a := r.ask; a != nil && a.got == 0 && a.repeat.due(now) {
		q := auth.Request{Op: auth.OpLog, ID: a.id, Time: r.hostTime(), Challenge: a.challenge, From: a.from, Pieces: a.pieces}
		out = append(out, datagram{LogForm, r.sealer.SealRequest(&q), a.repeat.newPort()})
	}
	return out
}

// next is how long nothing is due, unless something arrives.
func (r *reader) next(now uint64) time.Duration {
	at := uint64(math.MaxInt64)
	if r.polling {
		at = r.poll.next()
	}
	if a := r.ask; a != nil && a.got == 0 {
		at = min(at, a.repeat.next())
	} else if a != nil {
		at = min(at, a.heard+uint64(quiet))
	}
	return time.Duration(at - min(at, now))
}

// hostTime is the host's clock as far as it is known, so that a request shows
// that it is no recording.
func (r *reader) hostTime() uint64 { return r.clock.Real() + uint64(r.out.Difference) }

// newAsk asks for what is wanted first, and for no more of it than is missing.
func (r *reader) newAsk(now uint64) {
	a := &logAsk{id: newID(), from: r.want, pieces: auth.MaxPieces, challenge: r.challenge, repeat: r.backoff(now), part: r.part, last: -1}
	if r.give == nil {
		a.pieces = 1
	}
	if c, ok := r.following(); ok {
		switch {
		case c.ask == r.prev.ask:
			a.pieces = uint8(c.index - r.prev.index - 1)
		case c.ask.from == r.want:
			a.pieces = uint8(c.index)
		}
		a.pieces = max(a.pieces, 1)
	}
	r.ask, r.asks[a.id] = a, a
	r.order = append(r.order, a.id)
	if len(r.order) > maxAsks {
		delete(r.asks, r.order[0])
		r.order = r.order[1:]
	}
	if len(r.used) > 2*maxAsks {
		clear(r.used)
	}
	r.used[r.challenge] = true
	r.challenge = auth.Challenge{}
}

// backoff is when a log is sent: at once, again as soon as its pieces are
// overdue, and then after twice as long each time, up to a second. Reading twice
// does no harm, so it need not be as patient as what runs.
type backoff struct {
	at   uint64
	wait time.Duration
	n    int // packets sent
}

func (r *reader) backoff(now uint64) backoff {
	return backoff{at: now, wait: min(max(3*r.out.RoundTrip, quiet), 250*time.Millisecond)}
}

func (b *backoff) next() uint64 { return b.at }

func (b *backoff) due(now uint64) bool {
	if now < b.at {
		return false
	}
	b.n++
	b.at, b.wait = now+uint64(b.wait), min(2*b.wait, time.Second)
	return true
}

func (b *backoff) newPort() bool { return b.n > 1 && (b.n-1)%newPortEvery == 0 }

// following is what is kept that comes first.
func (r *reader) following() (first chunk, ok bool) {
	lowest := uint64(math.MaxUint64)
	for at, c := range r.kept {
		if at < lowest {
			first, lowest, ok = c, at, true
		}
	}
	return first, ok
}

// receive takes a datagram from the network, whatever it is, and overwrites it.
func (r *reader) receive(now uint64, from netip.AddrPort, packet []byte) {
	reason, event := auth.OK, Event{At: r.since(now), Addr: from}
	if auth.IsPiece(packet) {
		var p auth.Piece
		if reason, _ = r.sealer.OpenPiece(packet, &p); reason == auth.OK && r.asks[p.ID] == nil {
			reason = auth.ReasonOtherRequest
		}
		if event.Piece = &p; reason == auth.OK && r.hear(p.Boot, p.Challenge) {
			r.heard = now
			r.piece(now, &p)
		}
	} else {
		var p auth.Reply
		if reason = r.open(packet, &p); reason == auth.OK {
			r.out.Reply = &p
			r.measure(now, &p)
			if r.hear(p.Boot, p.Challenge) {
				r.reply(&p)
			}
		}
		event.Reply = &p
	}
	if reason != auth.OK {
		r.out.Ignored++
		event.Reply, event.Piece, event.Reason = nil, nil, reason
	}
	r.trace(event)
}

// open opens a reply to one of our requests.
func (r *reader) open(packet []byte, p *auth.Reply) auth.Reason {
	again := slices.Clone(packet)
	reason, _ := r.sealer.OpenReply(packet, auth.RequestID{}, p)
	_, status := r.statuses[p.ID]
	if reason != auth.ReasonOtherRequest || !status && r.asks[p.ID] == nil {
		return reason
	}
	if reason, _ = r.sealer.OpenReply(again, p.ID, p); reason != auth.OK {
		return reason
	}
	switch p.Result {
	case auth.Status:
		if status {
			return auth.OK
		}
	case auth.Stale, auth.RefPolicy:
		if !status {
			return auth.OK
		}
	case auth.Malformed:
		return auth.OK
	}
	return auth.ReasonMalformed // not what a host says of such a request
}

// hear takes what every packet of the host brings. It reports whether the host
// is the one that was asked.
func (r *reader) hear(boot auth.BootID, c auth.Challenge) bool {
	r.out.Replies++
	if r.out.Before == (auth.BootID{}) {
		r.out.Before = boot
		r.out.Kind = Answered
	}
	if r.out.After = boot; boot != r.out.Before {
		r.finish(Rebooted)
		return false
	}
	if c != (auth.Challenge{}) && !r.used[c] {
		r.challenge = c
	}
	return true
}

// reply takes a reply: there are no pieces then.
func (r *reader) reply(p *auth.Reply) {
	switch a := r.asks[p.ID]; {
	case p.Result == auth.RefPolicy, p.Result == auth.Malformed:
		r.finish(Refused)
	case a != nil && a == r.ask && a.got == 0:
		r.ask = nil // stale: its challenge is dead, or its pieces were lost
	}
}

func (r *reader) measure(now uint64, p *auth.Reply) {
	if sent, ok := r.statuses[p.ID]; ok {
		r.out.RoundTrip = time.Duration(now - sent)
		r.out.HaveDifference = true
		r.out.Difference = time.Duration(p.Time - (r.clock.Real() - uint64(r.out.RoundTrip/2)))
	}
}

// piece takes a piece of one of our requests.
func (r *reader) piece(now uint64, p *auth.Piece) {
	a := r.asks[p.ID]
	index := int(p.Index)
	if index >= int(a.pieces) {
		return
	}
	a.got |= 1 << index
	a.heard = now
	if p.Flags&auth.Last != 0 {
		a.last = index
	}
	if p.End >= r.bounds.End {
		r.bounds = Bounds{Oldest: p.Oldest, End: p.End}
	}
	if r.give == nil {
		r.atEnd = a == r.ask
		return
	}
	c := chunk{Records{First: p.First, Next: p.Next, Cut: p.Flags&auth.Cut != 0, Text: slices.Clone(p.Text)}, a, index}
	// The first piece answers for all that was asked for: what lies before it
	// was overwritten.
	at := p.First
	if index == 0 {
		at = min(at, a.from)
	}
	if p.Next > at && c.Next > r.want && at < r.end {
		old, twice := r.kept[at]
		room := len(r.kept) < maxKept || at <= r.want
		if twice && old.Next < c.Next || !twice && room {
			r.kept[at] = c
		}
	}
	r.advance()
	// Whoever was given records may have kept us from what came meanwhile.
	r.heard = r.clock.Boot()
	a.heard = r.heard
	// A record that is not finished yet is the end too.
	stuck := p.Next <= a.from && index == a.last && a == r.ask
	if a.part == r.part && (r.want >= r.bounds.End || stuck && p.Next <= r.want) {
		r.atEnd = true
	}
}

// advance gives what is there in order.
func (r *reader) advance() {
	for r.want < r.end {
		c, ok := r.following()
		at := uint64(math.MaxUint64)
		if ok {
			at = c.First
			if c.index == 0 {
				at = min(at, c.ask.from)
			}
		}
		switch {
		case at <= r.want:
			delete(r.kept, at)
			if c.Next <= r.want || c.First < r.want {
				continue // known, or of another part: its lines cannot be parted
			}
			r.lose(min(c.First, r.end))
			if r.want < r.end && c.Next > c.First {
				r.give(c.Records)
				r.want, r.prev = c.Next, c
			}
		case r.bounds.Oldest > r.want:
			r.lose(min(r.bounds.Oldest, at, r.end))
		default:
			return
		}
	}
}

// lose gives up records that the host has overwritten.
func (r *reader) lose(next uint64) {
	if next <= r.want {
		return
	}
	r.give(Records{First: r.want, Next: next, Lost: true})
	r.want = next
}
