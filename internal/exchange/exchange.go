// SPDX-License-Identifier: GPL-2.0-only

package exchange

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/clock"
)

// Limits of Options.Timeout, and what zero stands for.
const (
	MinTimeout     = 100 * time.Millisecond
	MaxTimeout     = time.Hour
	DefaultTimeout = 10 * time.Second
)

// Host is whom to ask.
type Host struct {
	Name   string           // the name that the key was made for; only shown
	Addrs  []netip.AddrPort // every packet is sent to each of them
	Sealer *auth.Sealer
}

// Clock is this side's view of time, as package clock gives it.
type Clock struct {
	Real         func() uint64 // CLOCK_REALTIME, ns since 1970
	Boot         func() uint64 // CLOCK_BOOTTIME, ns: goes on while this machine sleeps
	Synchronised func() bool   // the kernel's clock is disciplined
}

// SystemClock is the clock of the machine.
var SystemClock = Clock{Real: clock.Real, Boot: clock.Boot, Synchronised: clock.Synchronised}

// Dial opens a path to an address from a port of its own. Read returns one
// datagram and Write sends one; Close ends a Read with an error.
type Dial func(ctx context.Context, to netip.AddrPort) (io.ReadWriteCloser, error)

// Options change how a host is asked. The zero value is the usual way.
type Options struct {
	Timeout time.Duration // for an answer; 0: DefaultTimeout
	// OnePacket sends the run with a time instead of a challenge, and nothing
	// else: no status first, and no challenge is taken up. Whether this side's
	// clock is good enough is for the caller to judge. Status ignores it.
	OnePacket bool
	Clock     Clock // zero: SystemClock
	Dial      Dial  // nil: DialUDP
	// Shared, if not nil, carries the packets in place of Dial, over sockets
	// that many exchanges share.
	Shared *Shared
	// Trace, if not nil, is told of every packet, from one goroutine.
	Trace func(Event)
}

// ErrNotSent is wrapped when not one packet could be sent: the host knows of nothing.
var ErrNotSent = errors.New("nothing could be sent")

// Status asks the host how it is. The error is of this side; silence of the
// host is the outcome Unknown. If ctx ends first, there are both: the outcome
// so far and the cause.
func Status(ctx context.Context, host Host, opt Options) (*Outcome, error) {
	return ask(ctx, host, auth.Request{Op: auth.OpStatus}, opt)
}

// Run asks the host to run steps; without steps it is a barrier. The error is
// of this side, and with [ErrNotSent] or a nil Outcome the host was asked
// nothing. If ctx ends first, there are both: the outcome so far and the cause.
func Run(ctx context.Context, host Host, steps []auth.Step, flags auth.RequestFlags, opt Options) (*Outcome, error) {
	if len(steps) > auth.MaxSteps {
		return nil, fmt.Errorf("%w: %d steps, at most %d fit into a request", auth.ErrSteps, len(steps), auth.MaxSteps)
	}
	r := auth.Request{Op: auth.OpRun, ID: newID(), Flags: flags}
	r.SetSteps(steps)
	packet := host.Sealer.SealRequest(&r)
	if reason, err := host.Sealer.OpenRequest(packet[:], new(auth.Request)); reason != auth.OK {
		return nil, fmt.Errorf("%w: %v: %w", auth.ErrSteps, reason, err)
	}
	return ask(ctx, host, r, opt)
}

func ask(ctx context.Context, host Host, r auth.Request, opt Options) (*Outcome, error) {
	opt, err := opt.checked(host)
	if err != nil {
		return nil, err
	}
	if opt.Shared != nil {
		if err := opt.Shared.await(ctx); err != nil {
			return nil, fmt.Errorf("ask %s: %w: %w", host.Name, ErrNotSent, err)
		}
		return opt.Shared.drive(ctx, newWay(host.Sealer, r, opt), host, opt)
	}
	return drive(ctx, newWay(host.Sealer, r, opt), host, opt)
}

// drive carries what the way says to the network and back.
func drive(ctx context.Context, w *way, host Host, opt Options) (*Outcome, error) {
	p := newPaths(ctx, host.Addrs, opt.Dial)
	defer p.close()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return w.finish(opt.Clock.Boot(), Unknown), context.Cause(ctx)
		case <-timer.C:
		case a := <-p.arrivals:
			if a.err != nil {
				w.unreachable(opt.Clock.Boot(), a.from, a.err)
			} else {
				w.receive(opt.Clock.Boot(), a.from, a.packet)
			}
		}
		for _, d := range w.due(opt.Clock.Boot()) {
			for addr, err := range p.send(d.packet[:], d.newPort) {
				w.sent(opt.Clock.Boot(), d, addr, err)
			}
		}
		if w.done {
			return &w.out, nil
		}
		// A network that is not there is said at once; one that fails later
		// may come back.
		if w.out.Sent == 0 {
			return &w.out, fmt.Errorf("ask %s: %w: %w", host.Name, ErrNotSent, w.out.Unreachable)
		}
		timer.Reset(w.next(opt.Clock.Boot()))
	}
}
