// SPDX-License-Identifier: GPL-2.0-only

// Package gate is what every packet passes: it makes the checks of
// auth/PROTOCOL.md in their order, asks the ledger, answers, and hands
// accepted requests to the runner. Where the kernel module does all that, the
// gate says the daemon's word on what the module keeps for it, and logs.
package gate

import (
	"context"
	"encoding/hex"
	"errors"
	"hash/maphash"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"netsysrq/auth"
	"netsysrq/cmd/responder/internal/host"
	"netsysrq/cmd/responder/internal/klog"
	"netsysrq/cmd/responder/internal/metrics"
	"netsysrq/cmd/responder/internal/runner"
	"netsysrq/internal/clock"
	"netsysrq/nfq"
)

// loopback is the interface index of lo in every network namespace
// (LOOPBACK_IFINDEX, include/net/flow.h).
const loopback = 1

// Key is one host key with its owner and what the owner may do.
type Key struct {
	Operator string
	Allowed  auth.KeySet
	Host     *auth.HostKey
}

// Answer sends a sealed reply or piece back the way a request came:
// to its source, from the address that it was sent to.
type Answer func(to, from netip.AddrPort, dev uint32, packet []byte) error

// Config is what a gate works with. Nothing in it may wait: a daemon that waits
// for its log is one more thing that hangs.
type Config struct {
	Ledger auth.Config
	Boot   auth.BootID
	Submit func(*runner.Job) error
	Cut    func(*runner.Job)
	Answer Answer
	// ReadLog answers a log that was granted, soon; it reports false if it
	// can't. Nil: the kernel's log cannot be read.
	ReadLog func(*klog.Grant) bool
	Log     *slog.Logger
	// Veto says whether requests are forbidden now, and why. Nil: never.
	Veto func() (reason string, yes bool)
	// Armed reports whether the kernel module holds keys, so that it acts. It
	// is asked before this process acts, since two must not. Nil: never.
	Armed func() bool
	// Packets that the module keeps pending have this mark, in the bits of the mask.
	Mark, MarkMask uint32
	// Requests counts what was decided here. Nil: nothing does.
	Requests *metrics.Requests
	// Judged, if not nil, is told that a word was said to the module.
	Judged func()
}

// Gate judges packets. Its methods may be called from any goroutine.
type Gate struct {
	cfg   Config
	seed  maphash.Seed
	keys  atomic.Pointer[map[auth.KeyID]*key]
	facts atomic.Pointer[host.Facts]
	// module is set while the kernel module is ledger and executor.
	module atomic.Pointer[Module]

	// mu guards the ledger and makes accept, answer and submit one step, so
	// that sequences run in the order accepted.
	mu     sync.Mutex
	ledger *auth.Ledger
	lines  map[auth.KeyID]*lineBudget
	veto   string // why the last request was vetoed
}

type key struct {
	Key
	sealer *auth.Sealer
	log    *slog.Logger
}

// New begins a ledger without keys.
func New(cfg Config) *Gate {
	g := &Gate{
		cfg:   cfg,
		seed:  maphash.MakeSeed(),
		lines: map[auth.KeyID]*lineBudget{},
	}
	g.ledger = auth.NewLedger(g.ledgerConfig(), now())
	g.keys.Store(&map[auth.KeyID]*key{})
	g.Sample()
	return g
}

func (g *Gate) ledgerConfig() auth.Config {
	cfg := g.cfg.Ledger
	if g.cfg.Veto != nil {
		cfg.Veto = func(*auth.Request) (yes bool) {
			g.veto, yes = g.cfg.Veto()
			return yes
		}
	}
	return cfg
}

// now reads both clocks as of one moment: a thread that loses its processor in
// between would see a step of the clock where there was none.
func now() auth.Instant {
	for {
		before := clock.Boot()
		real := clock.Real()
		if boot := clock.Boot(); boot-before < uint64(time.Millisecond) {
			return auth.Instant{Real: real, Boot: boot}
		}
	}
}

// SetKeys replaces the keys. A key that stays keeps what the ledger knows of
// it; one that goes is forgotten at once.
func (g *Gate) SetKeys(keys []Key) {
	next := make(map[auth.KeyID]*key, len(keys))
	for _, k := range keys {
		next[k.Host.ID] = &key{
			Key:    k,
			sealer: auth.NewSealer(k.Host),
			log:    g.cfg.Log.With("key", k.Operator, "key_id", k.Host.ID.String()),
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	at := now()
	for id := range *g.keys.Load() {
		if next[id] == nil {
			g.ledger.Remove(at, id)
			delete(g.lines, id)
		}
	}
	for id, k := range next {
		g.ledger.Install(at, id, k.Allowed)
		if g.lines[id] == nil {
			g.lines[id] = newLineBudget()
		}
	}
	g.keys.Store(&next)
}

// SetDryRun changes whether accepted runs are only gone through.
func (g *Gate) SetDryRun(on bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cfg.Ledger.DryRun = on
	g.ledger.SetDryRun(on)
}

// Sample brings up to date what does not need a request: the host's facts and
// whether the clock is disciplined. It is to be called about every second. It
// returns only if the lock can be had, so a watchdog may rely on it. It returns
// what it found about the clock, and when.
func (g *Gate) Sample() (asked auth.Instant, synchronised bool) {
	f := host.ReadFacts()
	g.facts.Store(&f)
	asked, synchronised = now(), clock.Synchronised()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ledger.Synchronised(now(), synchronised, asked)
	return asked, synchronised
}

// Finished tells the ledger that nothing more will be run for a request.
func (g *Gate) Finished(id auth.KeyID, request auth.RequestID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ledger.Finish(now(), id, request)
}

// Lane handles the packets of one queue. It is not safe for concurrent use.
type Lane struct {
	gate *Gate
	junk Junk
	req  auth.Request   // kept here so that no packet allocates
	last auth.RequestID // that the module was told a word on
}

// Lane returns a handler for the packets of one queue.
func (g *Gate) Lane() *Lane { return &Lane{gate: g} }

// Junk returns the lane's counters, for a reader on any goroutine.
func (l *Lane) Junk() *Junk { return &l.junk }

// Handle judges one packet. Every packet ends here, whatever it is.
func (l *Lane) Handle(p *nfq.Packet) nfq.Verdict {
	d, err := nfq.ParseUDP(p.Data, p.Len)
	if err != nil {
		l.junk.add(auth.ReasonDatagram, d.Src.Addr())
		return nfq.Drop
	}
	if reason := l.judge(p, &d); reason != auth.OK {
		l.junk.add(reason, d.Src.Addr())
	}
	return nfq.Drop
}

// judge returns the reason why a packet is only counted, or OK if it has a
// line of its own.
func (l *Lane) judge(p *nfq.Packet, d *nfq.Datagram) auth.Reason {
	if !answerable(d, p.InDev) {
		return auth.ReasonSource
	}
	if late(p) {
		return auth.ReasonLate
	}
	id, reason := auth.CheckRequest(d.Payload)
	if reason != auth.OK {
		return reason
	}
	k := (*l.gate.keys.Load())[id]
	if k == nil {
		return auth.ReasonUnknownKey
	}
	reason, detail := k.sealer.OpenRequest(d.Payload, &l.req)
	m := l.gate.module.Load()
	switch {
	case m != nil && reason == auth.OK:
		return l.gate.takeOrVeto(*m, l, p, d, k)
	case m == nil && l.gate.kept(p):
		return auth.ReasonLate
	case reason == auth.OK || reason == auth.ReasonMalformed:
		return l.gate.authentic(l, p, d, k, detail)
	}
	return reason
}

// kept reports whether the kernel module keeps this packet, though this process
// has not attached to it yet: then nobody else may answer. Others may use the
// bits of the mark too, so the module is asked.
func (g *Gate) kept(p *nfq.Packet) bool {
	return g.cfg.MarkMask != 0 && p.Mark&g.cfg.MarkMask == g.cfg.Mark&g.cfg.MarkMask && g.cfg.Armed != nil && g.cfg.Armed()
}

func late(p *nfq.Packet) bool {
	return p.Arrived != 0 && time.Since(time.Unix(0, p.Arrived)) > auth.Late
}

// answerable reports whether a reply could go back to where d claims to come
// from. The packet has not passed the kernel's own source validation yet.
func answerable(d *nfq.Datagram, dev uint32) bool {
	src := d.Src.Addr()
	switch {
	case d.Src.Port() == 0, src.IsUnspecified(), src.IsMulticast(), src.Is4In6(), d.Dst.Addr().IsMulticast():
		return false
	case src.IsLoopback(), d.Dst.Addr().IsLoopback():
		return dev == loopback
	case src.Is4():
		return src.As4()[0] != 0 && src.As4()[0] < 240 // RFC 1122 3.2.1.3 (a), RFC 1112 4
	}
	return true
}

// authentic judges a request whose sealing proved its key. A non-nil detail
// says what makes it malformed.
func (g *Gate) authentic(l *Lane, p *nfq.Packet, d *nfq.Datagram, k *key, detail error) auth.Reason {
	req := &l.req
	v, line, veto, sendErr := g.decide(p, d, k, req, detail)
	switch {
	case v.Reason == auth.ReasonUnknownKey || v.Reason == auth.ReasonLate:
		return v.Reason
	case !line && v.Reason == auth.OK:
		l.junk.addAnswered()
		return auth.OK
	case !line:
		return v.Reason
	}
	if (req.Op == auth.OpRun || detail != nil) && v.Reason != auth.ReasonRepeat && v.Reason != auth.ReasonPending {
		g.cfg.Requests.Count(v.Result, v.Flags, len(req.Sequence()), time.Now())
	}
	g.report(k, req, &v, d.Src, latency(p, time.Now()), veto, sendErr, detail)
	return auth.OK
}

// decide asks the ledger, answers, and hands over what is to be run. It reports
// whether the request is worth a line in the log.
func (g *Gate) decide(p *nfq.Packet, d *nfq.Datagram, k *key, req *auth.Request, detail error) (v auth.Decision, line bool, veto string, sendErr error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	// The lock may have been waited for: time is what it is now.
	if late(p) || g.module.Load() != nil {
		return auth.Decision{Reason: auth.ReasonLate}, false, "", nil
	}
	at := now()
	g.veto = ""
	if detail != nil {
		v = g.ledger.JudgeMalformed(at, k.Host.ID, req)
	} else {
		v = g.ledger.Judge(at, k.Host.ID, req, auth.Source(maphash.Comparable(g.seed, d.Src)))
	}
	if v.Reason == auth.ReasonUnknownKey {
		return v, false, "", nil // removed since it was looked up
	}
	// Only a fresh request is sure of a line: all else can be had again and
	// again by replaying.
	fresh := v.Reason == auth.OK && req.Op == auth.OpRun || v.Reason >= auth.ReasonNotAllowed
	line = fresh || g.lines[k.Host.ID].take(at.Boot)

	if v.Run && g.cfg.Armed != nil && g.cfg.Armed() {
		// It was armed since: from then on it alone answers and acts. What ran
		// here before is too old for its ledger, which began later.
		g.ledger.Finish(at, k.Host.ID, req.ID)
		k.log.Error("request not run: the kernel module was armed meanwhile", "src", d.Src.String(), "request", hex.EncodeToString(req.ID[:]))
		return auth.Decision{Reason: auth.ReasonLate}, false, "", nil
	}
	var job *runner.Job
	if fresh && v.Result == auth.Accepted && v.Flags&auth.Rehearsed == 0 {
		job = &runner.Job{
			Key:     k.Host.ID,
			Allowed: k.Allowed,
			ID:      req.ID,
			Now:     req.Flags&auth.Now != 0,
			DryRun:  v.Flags&auth.DryRun != 0,
			Source:  d.Src,
			Log:     k.log,
		}
		// What the reply says must be true when it leaves.
		if job.Now {
			g.cfg.Cut(job)
		}
	}
	if v.Pieces && g.cfg.ReadLog == nil {
		v = auth.Decision{Reason: auth.ReasonNotAllowed, Result: auth.RefPolicy, Flags: v.Flags, Age: v.Age}
	}
	switch {
	case v.Pieces:
		sendErr = g.grant(k, req, &v, p, d, at)
	case !v.Silent:
		sendErr = g.reply(k, req, &v, p, d, at)
	}
	if v.Run {
		job.Replied = time.Now()
		job.Steps = append(job.Steps, req.Sequence()...)
		if err := g.cfg.Submit(job); err != nil {
			k.log.Error("accepted request not run", "src", d.Src.String(), "request", hex.EncodeToString(req.ID[:]), "err", err)
			g.ledger.Finish(at, k.Host.ID, req.ID)
		}
	}
	return v, line, g.veto, sendErr
}

func (g *Gate) reply(k *key, req *auth.Request, v *auth.Decision, p *nfq.Packet, d *nfq.Datagram, at auth.Instant) error {
	facts := g.facts.Load()
	packet := k.sealer.SealReply(&auth.Reply{
		Time:      at.Real,
		ID:        req.ID,
		Challenge: v.Challenge,
		Result:    v.Result,
		Executor:  auth.Daemon,
		Flags:     v.Flags,
		Mask:      v.Mask,
		Boot:      g.cfg.Boot,
		Uptime:    uint32(min(at.Boot/1e9, 1<<32-1)),
		LedgerAge: v.Age,
		Load:      facts.Load,
		Free:      facts.Free,
		Sysrq:     facts.Sysrq,
	})
	return g.cfg.Answer(d.Src, d.Dst, p.InDev, packet[:])
}

// grant has the pieces of a log sent. The packet's memory is not kept.
func (g *Gate) grant(k *key, req *auth.Request, v *auth.Decision, p *nfq.Packet, d *nfq.Datagram, at auth.Instant) error {
	to, from, dev := d.Src, d.Dst, p.InDev
	granted := &klog.Grant{
		From:   req.From,
		Pieces: req.Pieces,
		Base:   auth.Piece{Time: at.Real, ID: req.ID, Challenge: v.Challenge, Boot: g.cfg.Boot},
		Send:   func(piece *auth.Piece) error { return g.cfg.Answer(to, from, dev, k.sealer.SealPiece(piece)) },
		Log:    k.log,
	}
	if !g.cfg.ReadLog(granted) {
		return errBusy // what is asked again is answered then
	}
	return nil
}

var errBusy = errors.New("too many logs are asked for at once")

// latency is the time from a packet's arrival at the host to its reply.
func latency(p *nfq.Packet, replied time.Time) time.Duration {
	if p.Arrived == 0 {
		return 0
	}
	return max(replied.Sub(time.Unix(0, p.Arrived)), 0)
}

// report writes the line of one authentic request.
func (g *Gate) report(k *key, req *auth.Request, v *auth.Decision, src netip.AddrPort, took time.Duration, veto string, sendErr, detail error) {
	level, message := slog.LevelInfo, "request answered"
	switch {
	case v.Result == auth.Accepted && v.Reason == auth.OK:
		message = "request accepted"
	case v.Reason >= auth.ReasonNotAllowed, v.Reason == auth.ReasonMalformed:
		level, message = slog.LevelWarn, "request refused"
	case v.Reason == auth.ReasonStale:
		level, message = slog.LevelWarn, "request stale"
	case v.Reason == auth.ReasonRepeat:
		message = "request repeated"
	}
	attrs := make([]slog.Attr, 0, 12)
	attrs = append(attrs,
		slog.String("src", src.String()),
		slog.String("request", hex.EncodeToString(req.ID[:])),
		slog.String("op", req.Op.String()),
		slog.String("decision", v.Result.String()),
		slog.String("reason", v.Reason.String()),
		slog.String("executor", auth.Daemon.String()),
		slog.Int64("latency_us", took.Microseconds()),
	)
	if req.Op == auth.OpRun && detail == nil {
		attrs = append(attrs, slog.String("steps", auth.FormatSteps(req.Sequence())))
		if f := req.Flags.String(); f != "" {
			attrs = append(attrs, slog.String("flags", f))
		}
	}
	if f := v.Flags.String(); f != "" {
		attrs = append(attrs, slog.String("qualified", f))
	}
	if detail != nil {
		attrs = append(attrs, slog.String("field", detail.Error()))
	}
	if veto != "" {
		attrs = append(attrs, slog.String("veto", veto))
	}
	if v.Silent {
		attrs = append(attrs, slog.Bool("silent", true))
	}
	if sendErr != nil {
		level = slog.LevelError
		attrs = append(attrs, slog.Any("reply_err", sendErr))
	}
	k.log.LogAttrs(context.Background(), level, message, attrs...)
}
