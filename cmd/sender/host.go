// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/exchange"
	"netsysrq/internal/fleet/drills"
	"netsysrq/internal/fleet/follow"
	"netsysrq/internal/fleet/hosts"
)

// result is what became of one host.
type result struct {
	options *options
	host    *hosts.Host
	many    bool // one of many, so that hints must fit all of them
	flags   auth.RequestFlags
	key     auth.KeyID
	addrs   []netip.AddrPort
	outcome *exchange.Outcome // nil: err says why
	err     error             // of this side
	follow  *follow.Result    // nil: not followed
	drilled time.Time         // the last successful drill with this key; zero: not known
}

// askHosts is status, send, reboot and cancel.
func askHosts(ctx context.Context, w world, o *options) (int, error) {
	s, err := chosen(w, o)
	if err != nil {
		return 0, err
	}
	if o.dryRun {
		return dryRun(ctx, s)
	}
	if err := s.find(ctx); err != nil {
		return 0, err
	}
	if err := confirm(ctx, s); err != nil {
		return 0, err
	}
	if err := s.open(ctx); err != nil {
		return s.failed(err), nil
	}
	defer s.close()
	if o.onePacket && !w.clock.Synchronised() {
		w.note("warning: our clock is not synchronised; a host takes the one packet only if its clock is within %v of ours", auth.Window)
	}
	return s.run(ctx, func(ctx context.Context, h *hosts.Host, p *progress) answer {
		return s.ask(ctx, h, s.flags, p)
	}), nil
}

// failed tells an error that keeps every host from being asked.
func (s *session) failed(err error) int {
	if s.many {
		return s.w.fail(err)
	}
	return s.show(&result{options: s.o, host: s.hosts[0], err: err})
}

// ask does what the command line says to a host.
func (s *session) ask(ctx context.Context, h *hosts.Host, flags auth.RequestFlags, p *progress) *result {
	r := &result{options: s.o, host: h, many: s.many, flags: flags}
	to, ok := s.target(ctx, r)
	if !ok {
		return r
	}
	r.drilled = s.drills[drills.Drill{Host: h.Name, Key: r.key}]
	opt := s.options(s.o.timeout)
	if s.o.command.name == "status" {
		r.outcome, r.err = exchange.Status(ctx, to, opt)
	} else {
		r.outcome, r.err = exchange.Run(ctx, to, s.o.steps, flags, opt) // without steps: cancel
	}
	if errors.Is(r.err, exchange.ErrNotSent) {
		r.outcome = nil
	}
	if s.o.wait > 0 && r.followable() {
		s.watch(ctx, r, to, p)
	}
	return r
}

// target finds out the key and the addresses of a host; where it cannot, r.err
// says why.
func (s *session) target(ctx context.Context, r *result) (to exchange.Host, ok bool) {
	op, key, err := s.key(r.host)
	if err != nil {
		r.err = err
		return to, false
	}
	r.key = key.ID
	if r.addrs, r.err = resolve(ctx, s.o, r.host); r.err != nil {
		return to, false
	}
	if s.o.verbose {
		s.w.note("%s: key %v of %s, to %v", r.host.Name, r.key, op.label, r.addrs)
	}
	return exchange.Host{Name: r.host.Name, Addrs: r.addrs, Sealer: auth.NewSealer(&key)}, true
}

// key returns a host's key, and whose it is; hosts are asked at once.
func (s *session) key(h *hosts.Host) (*operator, auth.HostKey, error) {
	s.keyLock.Lock()
	op, err := s.keys.of(h)
	s.keyLock.Unlock()
	if err != nil {
		return nil, auth.HostKey{}, err
	}
	key, err := op.master.HostKey(h.Enrolled)
	return op, key, err
}

// trace tells of one packet.
func (w world) trace(e exchange.Event) {
	at := fmt.Sprintf("%8.3f s", e.At.Seconds())
	switch {
	case e.Sent && e.Err != nil:
		w.note("%s  %v not sent to %v: %v", at, e.Form, e.Addr, e.Err)
	case e.Sent && e.NewPort:
		w.note("%s  %v sent to %v from a new port", at, e.Form, e.Addr)
	case e.Sent:
		w.note("%s  %v sent to %v", at, e.Form, e.Addr)
	case e.Err != nil:
		w.note("%s  %v: %v", at, e.Addr, e.Err)
	case e.Piece != nil:
		w.note("%s  %v sends piece %d: records %d to %d of %d", at, e.Addr, e.Piece.Index, e.Piece.First, e.Piece.Next, e.Piece.End)
	case e.Reply != nil:
		w.note("%s  %v answers %v, ledger age %d s", at, e.Addr, e.Reply.Result, e.Reply.LedgerAge)
	default:
		w.note("%s  packet from %v ignored: %v", at, e.Addr, e.Reason)
	}
}
