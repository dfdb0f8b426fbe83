// SPDX-License-Identifier: GPL-2.0-only

package auth

import "time"

// Constants of the ledger, PROTOCOL.md section 1.
const (
	Window       = 15 * time.Second // W
	ChallengeTTL = 30 * time.Second // C
	Renew        = 15 * time.Second
	ClockStep    = time.Second // STEP
	Answers      = 16          // requests remembered for each key
	Active       = 2           // runs of a key that are not final
	Budget       = 32          // answers in a burst to packets that prove nothing new
	Refill       = 50 * time.Millisecond
)

// Instant is a moment on both of the host's clocks.
type Instant struct {
	Real uint64 // CLOCK_REALTIME, ns since 1970
	Boot uint64 // CLOCK_BOOTTIME, ns since boot
}

// Source stands for the address and port that a packet came from. The ledger
// only compares it.
type Source uint64

// Config is what a ledger needs to know of its host.
type Config struct {
	Executor Executor
	// Sysrq is the value of kernel.sysrq that the executor obeys, or -1 if
	// it obeys none, as writes to /proc/sysrq-trigger do.
	Sysrq  int
	DryRun bool
	// Veto reports whether the daemon alone forbids a request that is fresh and
	// within policy. It must not call the ledger. Nil: never.
	Veto func(*Request) bool
	// Random fills b with random bytes and reports whether it could.
	Random func(b []byte) bool
}

// Ledger decides what is fresh, what is stale and what was seen, as written
// in PROTOCOL.md section 5. It is not safe for concurrent use: the caller
// holds a lock around every call. No call allocates but Install.
type Ledger struct {
	cfg     Config
	clockOK bool
	offset  uint64 // real() - boot(), modulo 2^64
	keys    map[KeyID]*account
}

// account is the ledger's state of one key.
type account struct {
	allowed KeySet
	floor   uint64 // real()
	newest  uint64 // real()
	horizon uint64 // boot()
	slots   [2]slot
	entries [Answers]entry
	tokens  uint64
	refill  uint64 // boot() up to which tokens are counted
}

type slot struct {
	challenge Challenge
	made      uint64 // boot()
}

type state uint8

const (
	unused state = iota
	pending
	active
	final
)

type entry struct {
	id       RequestID
	state    state
	result   Result
	flags    ReplyFlags
	mask     uint8
	by       Executor
	bar      uint64 // real()
	seen     uint64 // boot()
	answered uint64 // boot()
	source   Source
}

// Decision is what the ledger says of a request.
type Decision struct {
	Reason Reason // OK: to be run, rehearsed or answered as a status
	Silent bool   // no reply is sent: it is known and pending, or the answer budget is used up
	Result Result
	Flags  ReplyFlags
	Mask   uint8
	// Challenge for the reply, zero: none.
	Challenge Challenge
	// Age is the ledger age of the reply, in seconds.
	Age uint16
	// By is whose word settled it, zero: it was never pending.
	By Executor
	// Run reports that the steps are to be run. Pending reports that the
	// answer is owed only when the request is settled.
	Run, Pending bool
	// Cut reports that earlier runs of this key became final by the flag now.
	Cut bool
	// Pieces reports that a log is granted: the answer is its pieces, with
	// the challenge, and no reply.
	Pieces bool
}

// NewLedger begins a ledger: it has forgotten whatever ran before.
func NewLedger(cfg Config, now Instant) *Ledger {
	return &Ledger{cfg: cfg, offset: now.Real - now.Boot, keys: map[KeyID]*account{}}
}

// Install adds a key, or changes the allowed set of a known one.
func (l *Ledger) Install(now Instant, id KeyID, allowed KeySet) {
	l.look(now)
	if a := l.keys[id]; a != nil {
		a.allowed = allowed
		return
	}
	l.keys[id] = &account{
		allowed: allowed,
		floor:   add(now.Real, Window),
		horizon: now.Boot,
		tokens:  Budget,
		refill:  now.Boot,
	}
}

// Remove forgets a key and all that it did.
func (l *Ledger) Remove(now Instant, id KeyID) {
	l.look(now)
	delete(l.keys, id)
}

// SetDryRun changes whether accepted runs are only rehearsed.
func (l *Ledger) SetDryRun(on bool) { l.cfg.DryRun = on }

// Synchronised tells whether the kernel's clock is disciplined, as it was when
// asked. An answer that a step of the clock has overtaken counts as no.
func (l *Ledger) Synchronised(now Instant, yes bool, asked Instant) {
	l.look(now)
	yes = yes && !stepped(now.Real-now.Boot, asked.Real-asked.Boot)
	if yes && !l.clockOK {
		for _, a := range l.keys {
			a.floor = max(a.floor, add(now.Real, Window))
			a.newest = min(a.newest, add(now.Real, Window))
		}
	}
	l.clockOK = yes
}

// ClockTrusted reports whether requests with a time instead of a challenge
// can be fresh.
func (l *Ledger) ClockTrusted() bool { return l.clockOK }

// Floor returns the time at or below which requests of a key are stale, 0 if
// the key is not known.
func (l *Ledger) Floor(id KeyID) uint64 {
	if a := l.keys[id]; a != nil {
		return a.floor
	}
	return 0
}

// look notices a step of the clock. It is the first thing in every event.
func (l *Ledger) look(now Instant) {
	offset := now.Real - now.Boot
	if stepped(offset, l.offset) {
		l.clockOK = false
	}
	l.offset = offset
}

// stepped compares two values of real() - boot().
func stepped(a, b uint64) bool {
	d := int64(a - b)
	return d > int64(ClockStep) || d < -int64(ClockStep)
}

// JudgeMalformed decides whether a malformed request of a known key is
// answered. Of p only Time and ID count.
func (l *Ledger) JudgeMalformed(now Instant, id KeyID, p *Request) Decision {
	l.look(now)
	a := l.keys[id]
	if a == nil {
		return Decision{Reason: ReasonUnknownKey, Silent: true}
	}
	d := Decision{Reason: ReasonMalformed, Result: Malformed, Age: a.age(now)}
	d.Flags = l.trusted()
	d.Silent = !a.isNew(l, now, p) && !a.token(now)
	return d
}

// Judge decides an authentic, well-formed request.
func (l *Ledger) Judge(now Instant, id KeyID, p *Request, from Source) Decision {
	l.look(now)
	a := l.keys[id]
	if a == nil {
		return Decision{Reason: ReasonUnknownKey, Silent: true}
	}
	isNew := a.isNew(l, now, p)

	if p.Op == OpStatus {
		d := Decision{Reason: OK, Result: Status, Flags: l.trusted()}
		if l.cfg.DryRun {
			d.Flags |= DryRun
		}
		if d.Silent = !isNew && !a.token(now); d.Silent {
			d.Reason = ReasonBudget
		} else {
			d.Challenge = a.issue(l, now)
		}
		d.Age = a.age(now)
		return d
	}

	if p.Op == OpLog {
		return l.judgeLog(now, a, p, isNew)
	}

	if e := a.find(p.ID); e != nil {
		if e.state == pending {
			return Decision{Reason: ReasonPending, Silent: true}
		}
		d := Decision{Reason: ReasonRepeat, Result: e.result, Flags: e.flags | Repeat | l.trusted(), Mask: e.mask, By: e.by, Age: a.age(now)}
		if e.source == from && sat(now.Boot, e.answered) >= uint64(Refill) {
			e.answered = now.Boot
		} else {
			d.Silent = !isNew && !a.token(now)
		}
		return d
	}

	sinceBoot := sat(now.Real, now.Boot) // the wall clock at boot
	f := max(a.floor, sat(now.Real, uint64(Window)), add(sinceBoot, Window))
	a.floor = max(a.floor, p.Time)
	var fresh bool
	if p.Challenge != (Challenge{}) {
		fresh = a.alive(now, p.Challenge)
	} else {
		fresh = l.clockOK && f < p.Time && p.Time <= add(now.Real, Window)
	}
	if !fresh {
		return l.stale(now, a, isNew)
	}

	a.slots = [2]slot{}
	e := a.claim()
	*e = entry{id: p.ID, seen: now.Boot, answered: now.Boot, source: from}
	if p.Challenge != (Challenge{}) {
		e.bar = add(now.Real, Window)
	}
	d := l.decide(now, a, e, p)
	e.result, e.flags, e.mask = d.Result, d.Flags, d.Mask
	d.Flags |= l.trusted()
	d.Age = a.age(now)
	return d
}

// judgeLog decides a log. It is not remembered: reading twice does no harm.
func (l *Ledger) judgeLog(now Instant, a *account, p *Request, isNew bool) Decision {
	if !a.alive(now, p.Challenge) {
		return l.stale(now, a, isNew)
	}
	a.slots = [2]slot{}
	d := Decision{Reason: ReasonNotAllowed, Result: RefPolicy, Flags: l.trusted(), Age: a.age(now)}
	if a.allowed&ReadLog != 0 {
		d.Reason, d.Result, d.Pieces = OK, Status, true
		d.Challenge = a.issue(l, now)
	}
	return d
}

// stale is the answer to a request that is not fresh.
func (l *Ledger) stale(now Instant, a *account, isNew bool) Decision {
	d := Decision{Reason: ReasonStale, Result: Stale, Flags: l.trusted()}
	if d.Silent = !isNew && !a.token(now); !d.Silent {
		d.Challenge = a.issue(l, now)
	}
	d.Age = a.age(now)
	return d
}

// decide is PROTOCOL.md section 5.3. It sets e.state.
func (l *Ledger) decide(now Instant, a *account, e *entry, p *Request) Decision {
	steps := p.Sequence()
	e.state = final
	if m := a.allowed.missing(steps); m != 0 {
		return Decision{Reason: ReasonNotAllowed, Result: RefPolicy, Mask: m}
	}
	if m := AfterKill(steps); m != 0 && l.cfg.Executor == Daemon {
		return Decision{Reason: ReasonAfterKill, Result: RefPolicy, Mask: m}
	}
	if l.cfg.Sysrq >= 0 {
		if m := Swallowed(steps, l.cfg.Sysrq); m != 0 {
			return Decision{Reason: ReasonMasked, Result: RefSysrq, Mask: m}
		}
	}
	if l.cfg.Executor == Daemon && p.Count > 0 && l.cfg.Veto != nil && l.cfg.Veto(p) {
		return Decision{Reason: ReasonVetoed, Result: Vetoed}
	}
	d := Decision{Result: Accepted}
	rehearsal := p.Flags&(Rehearse|Drill) != 0
	if rehearsal {
		d.Flags, d.Mask = Rehearsed, p.AllSteps()
		if l.cfg.Executor == Daemon {
			return d
		}
	} else {
		if p.Flags&Now != 0 {
			d.Cut = a.cut()
		}
		if p.Count == 0 {
			a.floor = max(a.floor, add(now.Real, Window))
			return d
		}
		if l.cfg.DryRun {
			d.Flags, d.Mask = DryRun, p.AllSteps()
		}
	}
	if a.active() >= Active {
		return Decision{Reason: ReasonBusy, Result: Busy, Cut: d.Cut}
	}
	d.Run = !rehearsal
	e.state = active
	if l.cfg.Executor == Kernel {
		e.state, d.Pending = pending, true
	}
	return d
}

// Settlement is how the pending state of a request ends.
type Settlement uint8

// Settlements.
const (
	Taken     Settlement = iota // by the daemon
	Forbidden                   // by the daemon
	Deadline                    // by nobody's word in time
)

// Settle ends the pending state of a request, exactly once, and returns the
// answer that is now owed. It reports false if nothing is pending under that
// id, which is "late".
func (l *Ledger) Settle(now Instant, id KeyID, request RequestID, how Settlement) (Decision, bool) {
	l.look(now)
	e := l.entry(id, request)
	if e == nil || e.state != pending {
		return Decision{}, false
	}
	d := Decision{Reason: OK, Run: e.flags&Rehearsed == 0}
	e.state = active
	if !d.Run {
		e.state = final
	}
	e.by = Daemon
	if how == Deadline {
		e.by = Kernel
	}
	if how == Forbidden {
		e.state, e.result, e.flags, e.mask = final, Vetoed, 0, 0
		d = Decision{Reason: ReasonVetoed}
	}
	d.Result, d.Flags, d.Mask, d.By = e.result, e.flags|l.trusted(), e.mask, e.by
	d.Age = l.keys[id].age(now)
	return d, true
}

// Finish makes a run final: its last step is done, or it was cut.
func (l *Ledger) Finish(now Instant, id KeyID, request RequestID) {
	l.look(now)
	if e := l.entry(id, request); e != nil && e.state == active {
		e.state = final
	}
}

// Final reports whether a request is known and nothing more will be run for it.
func (l *Ledger) Final(id KeyID, request RequestID) bool {
	e := l.entry(id, request)
	return e != nil && e.state == final
}

func (l *Ledger) entry(id KeyID, request RequestID) *entry {
	if a := l.keys[id]; a != nil {
		return a.find(request)
	}
	return nil
}

func (l *Ledger) trusted() ReplyFlags {
	if l.clockOK {
		return ClockTrusted
	}
	return 0
}

// age is how far back the answers of a key are complete, in seconds.
func (a *account) age(now Instant) uint16 {
	return uint16(min(sat(now.Boot, a.horizon)/uint64(time.Second), 0xffff))
}

// isNew reports whether no packet seen before can have carried p's time.
func (a *account) isNew(l *Ledger, now Instant, p *Request) bool {
	if p.Time <= a.newest || l.clockOK && p.Time > add(now.Real, Window) {
		return false
	}
	a.newest = p.Time
	return true
}

// token takes one answer from the budget.
func (a *account) token(now Instant) bool {
	n := sat(now.Boot, a.refill) / uint64(Refill)
	a.refill += n * uint64(Refill)
	a.tokens = min(Budget, a.tokens+n)
	if a.tokens == 0 {
		return false
	}
	a.tokens--
	return true
}

func (a *account) issue(l *Ledger, now Instant) Challenge {
	if a.slots[0].challenge == (Challenge{}) || sat(now.Boot, a.slots[0].made) >= uint64(Renew) {
		var c Challenge
		if !l.cfg.Random(c[:]) {
			return Challenge{}
		}
		a.slots[1] = a.slots[0]
		a.slots[0] = slot{c, now.Boot}
	}
	return a.slots[0].challenge
}

func (a *account) alive(now Instant, c Challenge) bool {
	for _, s := range a.slots {
		if s.challenge == c && sat(now.Boot, s.made) < uint64(ChallengeTTL) {
			return true
		}
	}
	return false
}

func (a *account) find(id RequestID) *entry {
	for i := range a.entries {
		if e := &a.entries[i]; e.state != unused && e.id == id {
			return e
		}
	}
	return nil
}

// claim returns an entry to fill: an unused one, or the final one that was
// seen longest ago, forgotten. There is always one, since at most Active
// entries are not final.
func (a *account) claim() *entry {
	var oldest *entry
	for i := range a.entries {
		e := &a.entries[i]
		if e.state == unused {
			return e
		}
		if e.state == final && (oldest == nil || e.seen < oldest.seen) {
			oldest = e
		}
	}
	a.horizon = max(a.horizon, oldest.seen)
	a.floor = max(a.floor, oldest.bar)
	return oldest
}

// cut makes every entry final that is not, and reports whether there was one.
func (a *account) cut() (any bool) {
	for i := range a.entries {
		switch e := &a.entries[i]; e.state {
		case pending:
			e.result, e.flags, e.mask = Vetoed, 0, 0
			fallthrough
		case active:
			e.state, any = final, true
		}
	}
	return any
}

func (a *account) active() (n int) {
	for i := range a.entries {
		if s := a.entries[i].state; s == pending || s == active {
			n++
		}
	}
	return n
}

// sat is a - b, or 0 where that would be negative.
func sat(a, b uint64) uint64 { return a - min(a, b) }

// add is a + d, or the largest value where that would overflow.
func add(a uint64, d time.Duration) uint64 {
	if a+uint64(d) < a {
		return ^uint64(0)
	}
	return a + uint64(d)
}
