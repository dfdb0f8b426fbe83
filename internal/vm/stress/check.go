// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"netsysrq/auth"
	"netsysrq/internal/exchange"
	"netsysrq/kmod-fallback/kmod"
)

const (
	// remembered is how many fresh requests of its key a request is certainly
	// known for: of the entries, some older ones may not be final.
	remembered = auth.Answers - auth.Active - 1
	// owed is how long an answer may take, whatever the emulator does.
	owed = 5 * time.Second
	// onItsWay is how long an answer may be, on a machine that is busy.
	onItsWay = 300 * time.Millisecond
	// skew is how far two readings of CLOCK_BOOTTIME, one of them by the way
	// that needs no lock, may be apart.
	skew = boot(time.Millisecond)
)

// life is what the events tell of a request.
type life struct {
	request *request
	ledger  int // that called it fresh

	fresh  bool
	at     boot
	from   string
	reason auth.Reason
	result auth.Result // of the answer that is owed
	mask   uint8
	nth    int // fresh request of this installation

	settled   bool
	by        kmod.By
	settledAt boot
	order     int // of settling
	steps     int // claimed
	runs      bool
	done, cut bool
	stale     bool // it was called so
	unsaid    bool

	// loose reports that events were lost while it was under way, so that only
	// what there is can be judged.
	loose bool
}

func (l *life) pending() bool {
	return l.fresh && l.reason == auth.OK && !l.settled && !l.cut && !l.barrier()
}

// barrier reports whether it is a run without steps, which is never pending.
func (l *life) barrier() bool { return l.request.steps == "" && !rehearsal(l.request.flags) }

func (l *life) unfinished() bool { return l.runs && !l.done && !l.cut }

func rehearsal(f auth.RequestFlags) bool { return f&(auth.Rehearse|auth.Drill) != 0 }

// checker goes through a history.
type checker struct {
	*history
	lives  map[auth.RequestID]*life
	faults []string
	tally  tally

	// Of the ledger that is gone through.
	ledger  int
	running *life
	orders  int
	keys    []keyState
	used    map[auth.Challenge]auth.RequestID
	lostAny bool
}

// keyState is what must hold of a key from one event to the next.
type keyState struct {
	installation int // -1: not known
	floor        uint64
	fresh        int
	barrier      boot // when the last was accepted
}

// tally counts what happened, to show that it did.
type tally struct {
	Requests, Fresh, Accepted, Refused, Stale       int
	ByTake, ByVeto, ByDeadline                      int
	Steps, ByTick, Skipped, Cut, Unsaid, Barriers   int
	ByTime, Answers, Repeats, Silent, Events, Lost  int
	Words, WordsTaken, WordsLate, WordsNotPermitted int
}

const maxFaults = 40

func (c *checker) fail(id auth.RequestID, format string, args ...any) {
	if len(c.faults) < maxFaults {
		c.faults = append(c.faults, fmt.Sprintf(format, args...)+"\n"+c.tell(id))
	}
}

// tell returns all that is known of a request.
func (c *checker) tell(id auth.RequestID) string {
	var b strings.Builder
	r := c.requests[id]
	if r == nil {
		fmt.Fprintf(&b, "  %x: nobody made it\n", id[:4])
	} else {
		fmt.Fprintf(&b, "  %x of key %d, kind %d, %q, flags %q, time %d, challenge %x, first sent at %d by %v\n", id[:4], r.key, r.kind, r.steps,
			r.flags, r.time, r.challenge[:4], r.first, r.sockets)
		for _, a := range r.answers {
			fmt.Fprintf(&b, "    %d answer to %d: %v by %d, flags %q, mask %b\n", a.at, a.socket, a.result, a.by, a.flags, a.mask)
		}
		if r.outcome != nil {
			fmt.Fprintf(&b, "    outcome: %v after %v\n", r.outcome.Kind, r.outcome.Elapsed)
		}
		for _, in := range c.installations[r.key] {
			fmt.Fprintf(&b, "    key installed %d-%d, removed %d-%d, allowed %v\n", in.asked, in.done, in.removing, in.gone, in.allowed)
		}
	}
	for n, l := range c.ledgers {
		for _, e := range l.events {
			if e.Request == id {
				fmt.Fprintf(&b, "    %d ledger %d event %d: %v by %v, %v, %v, step %d, %v after it came, flags %q\n", e.Boot, n, e.Seq, e.Kind, e.By,
					e.Reason, e.Result, e.Step, e.Took, e.Flags)
			}
		}
	}
	for _, w := range c.words {
		if w.id == id {
			fmt.Fprintf(&b, "    %d-%d word, veto %v: %v\n", w.call.begin, w.call.end, w.veto, w.err)
		}
	}
	return b.String()
}

// check finds what is wrong with a history, and counts what happened in it.
func (h *history) check() *checker {
	h.Lock()
	defer h.Unlock()
	c := &checker{history: h, lives: map[auth.RequestID]*life{}, faults: slices.Clone(h.faults), used: map[auth.Challenge]auth.RequestID{}}
	for n, l := range h.ledgers {
		c.goThrough(n, l)
	}
	c.checkWords()
	c.checkAnswers()
	return c
}

// goThrough judges the events of a ledger, in their order.
func (c *checker) goThrough(n int, l *ledger) {
	c.ledger, c.running, c.orders = n, nil, 0
	c.keys = make([]keyState, len(c.ids))
	for i := range c.keys {
		c.keys[i].installation = -1
	}
	next := uint32(1)
	var lost uint32
	var before boot
	for i := range l.events {
		e := &l.events[i]
		at := boot(e.Boot)
		if e.Seq != next {
			if e.Seq < next || e.Seq-next > l.lost-lost {
				c.fail(e.Request, "ledger %d: event %d follows event %d, and %d were counted as lost", n, e.Seq, next-1, l.lost)
			}
			lost += e.Seq - next
			c.loosen()
		}
		next = e.Seq + 1
		if at+skew < before || at+skew < l.loaded || l.end != 0 && at > l.end+skew {
			c.fail(e.Request, "ledger %d, from %d to %d: event %d has the time %d after %d", n, l.loaded, l.end, e.Seq, at, before)
		}
		before = at
		if (e.Kind == kmod.EventBegin) != (e.Seq == 1) {
			c.fail(e.Request, "ledger %d: event %d is %v", n, e.Seq, e.Kind)
		}
		if e.Kind != kmod.EventBegin {
			c.event(l, i)
		}
	}
	if lost != l.lost {
		c.fail(auth.RequestID{}, "ledger %d: %d events are missing, and %d were counted as lost", n, lost, l.lost)
	}
	c.tally.Events += len(l.events)
	c.tally.Lost += int(lost)
	for _, r := range c.order {
		v := c.lives[r.id]
		if v == nil || v.ledger != n || v.loose || !l.complete {
			continue
		}
		if v.pending() {
			c.fail(r.id, "accepted as pending, and never settled")
		} else if v.unfinished() {
			c.fail(r.id, "accepted, and not all its steps were run")
		}
	}
}

// loosen forgets what an event that was lost may have changed.
func (c *checker) loosen() {
	c.running, c.lostAny = nil, true
	for _, v := range c.lives {
		if v.ledger == c.ledger && (v.pending() || v.unfinished()) {
			v.loose = true
		}
	}
}

func (c *checker) event(l *ledger, i int) {
	e := &l.events[i]
	id, at := e.Request, boot(e.Boot)
	r := c.requests[id]
	if r == nil {
		c.fail(id, "event %d, %v: nobody made this request", e.Seq, e.Kind)
		return
	}
	v := c.lives[id]
	if v == nil {
		v = &life{request: r, ledger: -1}
		c.lives[id] = v
	}
	k := c.key(r, e, at)
	if e.Kind == kmod.EventRequest || e.Kind == kmod.EventStale {
		if e.Key == (auth.KeyID{}) || k == nil {
			c.fail(id, "event %d, %v: the key is removed", e.Seq, e.Kind)
			return
		}
	}
	if e.Kind != kmod.EventRequest && e.Kind != kmod.EventStale && (!v.fresh || v.ledger != c.ledger) {
		if !c.lostAny {
			c.fail(id, "event %d, %v: this ledger has not called it fresh", e.Seq, e.Kind)
		}
		v.fresh, v.ledger, v.loose = true, c.ledger, true
	}
	switch e.Kind {
	case kmod.EventRequest:
		c.request(v, k, e)
	case kmod.EventStale:
		c.stale(v, k, e)
	case kmod.EventSettled:
		c.settled(v, e)
	case kmod.EventStep, kmod.EventSkipped:
		c.step(v, e)
	case kmod.EventDone:
		if !v.loose && (!v.runs || v.steps != len(v.request.steps) || v.done || v.cut) {
			c.fail(id, "event %d, done: %d of %d steps were run", e.Seq, v.steps, len(r.steps))
		}
		v.done = true
		if c.running == v {
			c.running = nil
		}
	case kmod.EventCut:
		c.cut(l, i, v, e)
	case kmod.EventUnsaid: // nothing but its repeats will be answered
		c.tally.Unsaid++
		v.unsaid = true
	case kmod.EventConfirmed, kmod.EventUnconfirmed:
		c.fail(id, "event %d, %v: though nothing may be done", e.Seq, e.Kind)
	}
}

// key returns the state of a request's key, for the installation at that time;
// nil if there can be none.
func (c *checker) key(r *request, e *kmod.Event, at boot) *keyState {
	k := &c.keys[r.key]
	found := -1
	for i := range c.installations[r.key] {
		if c.installations[r.key][i].possibly(at) {
			found = i
		}
	}
	if found < 0 {
		return nil
	}
	if found != k.installation {
		*k = keyState{installation: found}
	}
	if e.Key != (auth.KeyID{}) && e.Key != c.ids[r.key] {
		c.fail(r.id, "event %d: with another key, %v", e.Seq, e.Key)
	}
	return k
}

// request judges a request that the ledger calls fresh.
func (c *checker) request(v *life, k *keyState, e *kmod.Event) {
	r, at := v.request, boot(e.Boot)
	in := &c.installations[r.key][k.installation]
	c.tally.Fresh++
	switch {
	case v.fresh:
		c.fail(r.id, "event %d: fresh for the second time", e.Seq)
		return
	case v.stale && r.kind != several && r.honest():
		c.fail(r.id, "event %d: stale once, and now fresh", e.Seq)
	case e.Steps != r.steps || e.Asked != r.flags:
		c.fail(r.id, "event %d: it asked for %q, flags %q", e.Seq, r.steps, r.flags)
	}
	if r.kind != several {
		if r.first < in.asked && (r.time == 0 || r.challenge != (auth.Challenge{}) || r.honest()) {
			c.fail(r.id, "event %d: fresh, and older than the installation of its key", e.Seq)
		}
		if r.first < k.barrier && r.challenge == (auth.Challenge{}) && r.honest() {
			c.fail(r.id, "event %d: fresh, and older than the barrier at %d", e.Seq, k.barrier)
		}
		if r.challenge == (auth.Challenge{}) {
			c.tally.ByTime++
			if r.time <= k.floor {
				c.fail(r.id, "event %d: fresh by its time, which is not above the floor of at least %d", e.Seq, k.floor)
			}
		} else if other, ok := c.used[r.challenge]; ok {
			c.fail(r.id, "event %d: fresh by a challenge that made %x fresh", e.Seq, other[:4])
		} else {
			c.used[r.challenge] = r.id
		}
		k.floor = max(k.floor, r.time)
	}
	k.fresh++
	*v = life{
		request: r, ledger: c.ledger, fresh: true, stale: v.stale, at: at, from: e.From.String(),
		reason: e.Reason, result: e.Result, mask: e.Mask, nth: k.fresh,
	}
	if e.Reason != auth.OK {
		c.tally.Refused++
		if e.Reason == auth.ReasonBusy && !c.lostAny && c.underWay(v) < auth.Active {
			c.fail(r.id, "event %d: busy, with %d requests under way", e.Seq, c.underWay(v))
		}
		return
	}
	if r.kind == never {
		c.fail(r.id, "event %d: fresh and allowed, which it can't be", e.Seq)
	}
	for i := range r.steps {
		if in.allowedIsSteady && in.surely(at) && !in.allowed.Has(r.steps[i]) {
			c.fail(r.id, "event %d: allowed, though the key may do %v", e.Seq, in.allowed)
		}
	}
	if v.barrier() {
		c.tally.Barriers++
		k.barrier = at
	}
}

// underWay counts the requests of a key that are not final, but for this one.
func (c *checker) underWay(v *life) (n int) {
	done := c.installations[v.request.key][c.keys[v.request.key].installation].done
	for _, o := range c.lives {
		if o != v && o.request.key == v.request.key && o.ledger == c.ledger && (o.pending() || o.unfinished()) && (o.at >= done || v.at < done) {
			n++
		}
	}
	return n
}

// honest reports whether the time of a request was as near to that of any host
// as section 5.5 of PROTOCOL.md takes for granted.
func (r *request) honest() bool { return r.time <= r.made+uint64(ahead) }

func (c *checker) stale(v *life, k *keyState, e *kmod.Event) {
	if e.Reason == auth.ReasonMalformed {
		return
	}
	c.tally.Stale++
	if v.fresh && v.ledger == c.ledger && v.at >= c.installations[v.request.key][k.installation].done && k.fresh-v.nth < remembered && !c.lostAny {
		c.fail(v.request.id, "event %d: stale, though it is known for certain: %d fresh ones came since", e.Seq, k.fresh-v.nth)
	}
	v.stale = true
	if v.request.kind != several {
		k.floor = max(k.floor, v.request.time)
	}
}

func (c *checker) settled(v *life, e *kmod.Event) {
	id := v.request.id
	if v.settled || v.cut || !v.loose && !v.pending() {
		c.fail(id, "event %d: settled, and it was not pending", e.Seq)
		return
	}
	v.settled, v.by, v.settledAt, v.result, v.mask = true, e.By, boot(e.Boot), e.Result, e.Mask
	c.orders++
	v.order = c.orders
	in := e.Took < deadline
	want := auth.Accepted
	switch e.By {
	case kmod.ByTake:
		c.tally.ByTake++
		if v.request.flags&auth.Drill != 0 {
			c.fail(id, "event %d: the daemon took a drill", e.Seq)
		}
	case kmod.ByVeto:
		c.tally.ByVeto++
		want = auth.Vetoed
	case kmod.ByDeadline:
		c.tally.ByDeadline++
		in = !in
	default:
		c.fail(id, "event %d: settled by %v", e.Seq, e.By)
	}
	if !in {
		c.fail(id, "event %d: settled by %v after %v", e.Seq, e.By, e.Took)
	}
	if e.Result != want {
		c.fail(id, "event %d: settled by %v as %v", e.Seq, e.By, e.Result)
	}
	if want == auth.Accepted {
		c.tally.Accepted++
		v.runs = !rehearsal(v.request.flags)
	}
}

func (c *checker) step(v *life, e *kmod.Event) {
	id := v.request.id
	c.tally.Steps++
	if e.By == kmod.ByTick {
		c.tally.ByTick++
	}
	if e.Kind == kmod.EventSkipped {
		c.tally.Skipped++
	}
	if v.loose {
		v.runs = true
		if e.Step < v.steps {
			c.fail(id, "event %d: step %d after step %d", e.Seq, e.Step, v.steps-1)
		}
		v.steps = e.Step + 1
		return
	}
	switch {
	case !v.runs:
		c.fail(id, "event %d: step of a request that is not to be run", e.Seq)
		return
	case v.done || v.cut:
		c.fail(id, "event %d: step of a request that has ended", e.Seq)
	case e.Step != v.steps:
		c.fail(id, "event %d: step %d after step %d", e.Seq, e.Step, v.steps-1)
	case e.Step >= len(v.request.steps):
		c.fail(id, "event %d: step %d of %d", e.Seq, e.Step, len(v.request.steps))
	case e.Flags&auth.DryRun == 0:
		c.fail(id, "event %d: not in a dry run", e.Seq)
	case c.running != nil && c.running != v:
		c.fail(id, "event %d: while %x was running", e.Seq, c.running.request.id[:4])
	}
	if c.running == nil {
		for _, o := range c.lives {
			if o != v && o.ledger == c.ledger && !o.loose && o.unfinished() && o.order < v.order {
				c.fail(id, "event %d: out of turn, %x was settled before", e.Seq, o.request.id[:4])
			}
		}
	}
	c.running = v
	v.steps = e.Step + 1
}

func (c *checker) cut(l *ledger, i int, v *life, e *kmod.Event) {
	id := v.request.id
	c.tally.Cut++
	if !v.loose && !v.pending() && !v.unfinished() {
		c.fail(id, "event %d: cut, and nothing was left of it", e.Seq)
	}
	switch e.By {
	case kmod.ByNow:
		// What cuts it is decided at the same moment.
		by := slices.ContainsFunc(l.events[max(0, i-8):min(len(l.events), i+8)], func(o kmod.Event) bool {
			return o.Boot == e.Boot && o.Asked&auth.Now != 0 && (o.Kind == kmod.EventRequest || o.Kind == kmod.EventSettled) && o.Request != id
		})
		if !by && !v.loose && i+8 < len(l.events) {
			c.fail(id, "event %d: cut, and no request wanted that", e.Seq)
		}
	case kmod.ByRemoved:
		if in := c.installed(v.request.key, boot(e.Boot)); in != nil && in.surely(boot(e.Boot)) {
			c.fail(id, "event %d: cut, though its key was there", e.Seq)
		}
	default:
		c.fail(id, "event %d: cut by %v", e.Seq, e.By)
	}
	if !v.settled {
		v.result, v.mask = auth.Vetoed, 0
	}
	v.cut = true
	if c.running == v {
		c.running = nil
	}
}

// checkWords compares what the second client was told with what happened.
func (c *checker) checkWords() {
	said := map[auth.RequestID]int{}
	for _, w := range c.words {
		c.tally.Words++
		v := c.lives[w.id]
		switch {
		case errors.Is(w.err, kmod.ErrLate):
			c.tally.WordsLate++
		case errors.Is(w.err, kmod.ErrPermission):
			c.tally.WordsNotPermitted++
		case errors.Is(w.err, kmod.ErrDrill):
			if w.veto || c.requests[w.id] == nil || c.requests[w.id].flags&auth.Drill == 0 {
				c.fail(w.id, "a word was refused for a drill: %v", w.err)
			}
		case w.err == nil:
			c.tally.WordsTaken++
			said[w.id]++
			by := kmod.ByTake
			if w.veto {
				by = kmod.ByVeto
			}
			switch {
			case said[w.id] > 1:
				c.fail(w.id, "two words were taken")
			case v == nil || !v.settled || v.by != by || !(span{w.call.begin - skew, w.call.end + skew}).holds(v.settledAt):
				if (v == nil || !v.loose) && c.wasReadUpTo(w.call.end) {
					c.fail(w.id, "the word of %d was taken, and settled nothing", w.call.begin)
				}
			}
		case errors.Is(w.err, unix.EBADF):
			// Somebody still had the usurper's connection when it was closed.
		default:
			c.fail(w.id, "a word failed: %v", w.err)
		}
	}
	for _, v := range c.lives {
		if !v.settled || v.loose || v.by == kmod.ByDeadline || said[v.request.id] > 0 {
			continue
		}
		for _, s := range c.usurped {
			if s.holds(v.settledAt) {
				c.fail(v.request.id, "settled by %v, which nobody said in time", v.by)
			}
		}
	}
}

// wasReadUpTo reports whether the events up to then were read: the last ones of
// a ledger go with it.
func (c *checker) wasReadUpTo(at boot) bool {
	for i, l := range c.ledgers {
		if at >= l.loaded && (i+1 == len(c.ledgers) || at < c.ledgers[i+1].loaded) {
			return l.complete || len(l.events) > 0 && at < boot(l.events[len(l.events)-1].Boot)
		}
	}
	return false
}

// checkAnswers compares the answers of a request with its events, and with each
// other.
func (c *checker) checkAnswers() {
	for _, s := range c.statuses {
		if c.installed(s.key, s.at) == nil && !c.recently(s.key, s.at) {
			c.fail(auth.RequestID{}, "a status of key %d was answered at %d, though the key was removed", s.key, s.at)
		}
	}
	for _, r := range c.order {
		c.tally.Requests++
		v := c.lives[r.id]
		if v == nil {
			v = &life{request: r, ledger: -1}
		}
		var first *answer
		anew := 0
		for i := range r.answers {
			a := &r.answers[i]
			c.tally.Answers++
			if !r.sockets[a.socket] {
				c.fail(r.id, "answered to one who did not ask, at %d", a.at)
			}
			if a.flags&auth.Armed == 0 {
				if v.fresh && a.at > v.at && c.holds(v, a.at) {
					c.fail(r.id, "answered by the daemon at %d, though the module held it", a.at)
				}
				continue // by the daemon without the module
			}
			if in := c.installed(r.key, a.at); in == nil && !c.recently(r.key, a.at) {
				c.fail(r.id, "answered at %d, though its key was removed", a.at)
			}
			switch a.result {
			case auth.Status, auth.Stale, auth.Malformed:
				if a.result == auth.Malformed && r.kind != never {
					c.fail(r.id, "called malformed")
				}
				continue
			}
			if a.flags&auth.Repeat == 0 {
				anew++
			} else {
				c.tally.Repeats++
			}
			c.answer(v, a)
			if first == nil {
				first = a
			} else if a.result != first.result || a.mask != first.mask || (a.flags^first.flags)&(auth.Rehearsed|auth.DryRun) != 0 ||
				v.settled && a.by != first.by {
				c.fail(r.id, "the answer of %d is not that of %d", a.at, first.at)
			}
		}
		if anew > 1 {
			c.fail(r.id, "answered anew %d times", anew)
		}
		if r.waited && (first == nil || r.kind != several) && len(r.answers) == 0 {
			c.fail(r.id, "no answer within the sender's way")
		}
		if v.fresh && first == nil && c.owesAnswer(v) {
			c.fail(r.id, "fresh, and never answered")
		}
		c.checkOnce(r, v)
	}
}

// holds reports whether the ledger that called a request fresh has its key still.
func (c *checker) holds(v *life, at boot) bool {
	in := c.installed(v.request.key, at)
	return in != nil && in.surely(at) && in == c.installed(v.request.key, v.at)
}

// recently reports whether the key was there a moment ago, so that an answer
// may have been on its way.
func (c *checker) recently(key int, at boot) bool {
	return c.installed(key, at-min(at, boot(onItsWay))) != nil
}

// answer compares an answer with the events.
func (c *checker) answer(v *life, a *answer) {
	id := v.request.id
	if !v.fresh {
		if c.tally.Lost == 0 && c.wasReadUpTo(a.at) {
			c.fail(id, "answered with %v at %d, and never called fresh", a.result, a.at)
		}
		return
	}
	if v.loose || !c.wasReadUpTo(a.at) && (v.pending() || a.result != v.result) {
		return
	}
	var by auth.Executor
	switch {
	case v.settled && v.by == kmod.ByDeadline:
		by = auth.Kernel
	case v.settled:
		by = auth.Daemon
	}
	switch {
	case v.pending():
		c.fail(id, "answered with %v at %d, and still pending", a.result, a.at)
	case a.result != v.result || a.mask != v.mask:
		c.fail(id, "answered with %v, mask %b at %d, and was %v, mask %b", a.result, a.mask, a.at, v.result, v.mask)
	case by != 0 && a.by != by:
		c.fail(id, "answered as by the %v at %d, and settled by %v", a.by, a.at, v.by)
	}
}

// owesAnswer reports whether an answer to a fresh request must have come.
func (c *checker) owesAnswer(v *life) bool {
	if v.loose || v.cut || v.unsaid || v.request.kind == several {
		return false
	}
	l := c.ledgers[v.ledger]
	if l.end != 0 && !l.complete && v.at+boot(owed) > l.end {
		return false
	}
	in := c.installed(v.request.key, v.at)
	return in != nil && (in.removing == 0 || v.at+boot(owed) < in.removing)
}

// checkOnce looks at a request from the outside.
func (c *checker) checkOnce(r *request, v *life) {
	runs := c.daemonRuns[r.id]
	if v.steps > 0 {
		runs++
	}
	if runs > 1 {
		c.fail(r.id, "run %d times by daemon and kernel", runs)
	}
	if r.outcome == nil {
		return
	}
	ran := c.daemonRuns[r.id] > 0 || v.fresh && v.reason == auth.OK && (v.barrier() || v.settled && v.result == auth.Accepted)
	switch known := !v.loose && (v.ledger >= 0 || c.tally.Lost == 0); {
	case r.outcome.Kind == exchange.Accepted && !ran && known && c.ledgersComplete(r.first):
		c.fail(r.id, "accepted by the answer, and not run")
	case r.outcome.Kind == exchange.Refused && ran:
		c.fail(r.id, "refused by the answer, and run")
	case r.outcome.Kind == exchange.Rebooted:
		c.fail(r.id, "the machine did not reboot")
	}
}

// ledgersComplete reports whether all events since then were read.
func (c *checker) ledgersComplete(since boot) bool {
	for _, l := range c.ledgers {
		if (l.end == 0 || l.end > since) && !l.complete {
			return false
		}
	}
	return true
}
