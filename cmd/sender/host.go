// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"netsysrq/auth"
	"netsysrq/internal/exchange"
)

// result is what became of one host.
type result struct {
	options *options
	flags   auth.RequestFlags
	key     auth.KeyID
	addrs   []netip.AddrPort
	outcome *exchange.Outcome // nil: err says why
	err     error             // of this side
}

// askHost is status, send, reboot and cancel: one host, one outcome.
func askHost(ctx context.Context, w world, o *options) (int, error) {
	if err := confirm(ctx, w, o); err != nil {
		return 0, err
	}
	op, err := loadOperator(ctx, w, o, false)
	if err != nil {
		return (&result{options: o, err: err}).show(w), nil
	}
	if o.onePacket && !w.clock.Synchronised() {
		w.note("warning: our clock is not synchronised; a host takes the one packet only if its clock is within %v of ours", auth.Window)
	}
	var flags auth.RequestFlags
	if o.rehearse {
		flags |= auth.Rehearse
	}
	if o.command.name == "cancel" {
		flags |= auth.Now
	}
	return ask(ctx, w, o, op, flags).show(w), nil
}

// ask does what the command line says to its host.
func ask(ctx context.Context, w world, o *options, op *operator, flags auth.RequestFlags) *result {
	r := &result{options: o, flags: flags}
	key, err := op.master.HostKey(o.host)
	if err != nil {
		r.err = err
		return r
	}
	r.key = key.ID
	if r.addrs, r.err = resolve(ctx, o); r.err != nil {
		return r
	}
	host := exchange.Host{Name: o.host, Addrs: r.addrs, Sealer: auth.NewSealer(&key)}
	opt := exchange.Options{Timeout: o.timeout, OnePacket: o.onePacket, Clock: w.clock}
	if o.verbose {
		w.note("%s: key %v of %s, to %v", o.host, r.key, op.label, r.addrs)
		opt.Trace = w.trace
	}
	if o.command.name == "status" {
		r.outcome, r.err = exchange.Status(ctx, host, opt)
	} else {
		r.outcome, r.err = exchange.Run(ctx, host, o.steps, flags, opt) // without steps: cancel
	}
	if errors.Is(r.err, exchange.ErrNotSent) {
		r.outcome = nil
	}
	return r
}

// show tells the result and returns its exit code.
func (r *result) show(w world) int {
	code, line, hints := r.words()
	if r.options.quiet && code == exitOK {
		return code
	}
	if r.options.json {
		fmt.Fprintln(w.stdout, r.json(code, line, hints))
		return code
	}
	if r.outcome == nil {
		return w.fail(r.err)
	}
	fmt.Fprintln(w.stdout, line)
	for _, h := range hints {
		fmt.Fprintf(w.stderr, "hint: %s\n", h)
	}
	return code
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
	case e.Reply != nil:
		w.note("%s  %v answers %v, ledger age %d s", at, e.Addr, e.Reply.Result, e.Reply.LedgerAge)
	default:
		w.note("%s  packet from %v ignored: %v", at, e.Addr, e.Reason)
	}
}
