// SPDX-License-Identifier: GPL-2.0-only

package gate

import (
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"netsysrq/auth"
	"netsysrq/kmod-fallback/kmod"
	"netsysrq/nfq"
)

// Module is the kernel module as the gate needs it: the one that keeps the
// ledger, answers and acts, once the gate has said its word or the deadline has
// passed. *kmod.Client is one.
type Module interface {
	Take(auth.KeyID, auth.RequestID) error
	Veto(auth.KeyID, auth.RequestID) error
}

// SetModule leaves ledger, answers and steps to the module, or takes them over
// for nil. Who takes over begins a ledger anew: what the other has run is not
// known here. There must be no module that holds a key when nil is given.
func (g *Gate) SetModule(m Module) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if m != nil {
		g.module.Store(&m)
		return
	}
	if g.module.Swap(nil) == nil {
		return
	}
	at := now()
	g.ledger = auth.NewLedger(g.ledgerConfig(), at)
	for id, k := range *g.keys.Load() {
		g.ledger.Install(at, id, k.Allowed)
	}
}

// takeOrVeto says the daemon's word on a request that the module keeps pending.
func (g *Gate) takeOrVeto(m Module, l *Lane, p *nfq.Packet, d *nfq.Datagram, k *key) auth.Reason {
	req := &l.req
	if p.Mark&g.cfg.MarkMask != g.cfg.Mark&g.cfg.MarkMask {
		// The module did not find it authentic, or the packet did not come by
		// it. Nobody answers then, so the host's owner must hear of it.
		if g.line(k.Host.ID) {
			k.log.Error("request not run: it did not come by the kernel module, or with a key that the module does not hold: see netsysrqd check",
				"src", d.Src.String(), "request", hex.EncodeToString(req.ID[:]))
			return auth.OK
		}
		return auth.ReasonLate
	}
	if req.Op != auth.OpRun || req.ID == l.last {
		return auth.ReasonRepeat // part of a merged packet, of which one was fresh
	}
	l.last = req.ID
	if req.Flags&auth.Drill != 0 {
		g.word(k, req, d.Src, slog.LevelInfo, "drill left to the kernel", latency(p, time.Now()))
		return auth.OK
	}
	missing := !k.Allowed.HasAll(req.Sequence())
	reason, forbidden := "", false
	if !missing && g.cfg.Veto != nil {
		reason, forbidden = g.cfg.Veto()
	}
	var err error
	if missing || forbidden {
		err = m.Veto(k.Host.ID, req.ID)
	} else {
		err = m.Take(k.Host.ID, req.ID)
	}
	took := latency(p, time.Now())
	switch {
	case errors.Is(err, kmod.ErrLate):
		g.word(k, req, d.Src, slog.LevelWarn, "late: the kernel did not wait for the daemon's word", took)
	case err != nil:
		g.word(k, req, d.Src, slog.LevelError, "the daemon's word did not reach the kernel, which acts alone", took, slog.Any("err", err))
	case missing:
		g.word(k, req, d.Src, slog.LevelWarn, "request vetoed", took, slog.String("reason", auth.ReasonNotAllowed.String()))
	case forbidden:
		g.word(k, req, d.Src, slog.LevelWarn, "request vetoed", took, slog.String("reason", auth.ReasonVetoed.String()), slog.String("veto", reason))
	default:
		g.word(k, req, d.Src, slog.LevelInfo, "request accepted", took, slog.String("decision", auth.Accepted.String()))
	}
	if g.cfg.Judged != nil {
		g.cfg.Judged()
	}
	return auth.OK
}

// word writes the line of a request that the module keeps.
func (g *Gate) word(k *key, req *auth.Request, src netip.AddrPort, level slog.Level, message string, took time.Duration, more ...slog.Attr) {
	attrs := []slog.Attr{
		slog.String("src", src.String()),
		slog.String("request", hex.EncodeToString(req.ID[:])),
		slog.String("op", req.Op.String()),
		slog.String("steps", auth.FormatSteps(req.Sequence())),
		slog.String("executor", auth.Kernel.String()),
		slog.Int64("latency_us", took.Microseconds()),
	}
	if f := req.Flags.String(); f != "" {
		attrs = append(attrs, slog.String("flags", f))
	}
	k.log.LogAttrs(context.Background(), level, message, append(attrs, more...)...)
}

// line takes one line from the budget of a key.
func (g *Gate) line(id auth.KeyID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	b := g.lines[id]
	return b != nil && b.take(now().Boot)
}
