// SPDX-License-Identifier: GPL-2.0-only

package fence

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/exchange"
	"netsysrq/internal/fleet/follow"
)

const (
	// settle is how long a node that has accepted may go on as it was, beside
	// the bounds of its steps: another operator's sequence may be under way.
	settle = 20 * time.Second
	// question is how long one status is waited for.
	question = 2 * time.Second
	// pause is left between two answers.
	pause = time.Second
)

// reboot is done when a kernel that has accepted is known to be no more.
func (a *agent) reboot(ctx context.Context, t *target) error {
	notes := notesFor(a.w.State, t.key, a.clock())
	before, age, going := notes.read()
	if going {
		a.note("%s accepted %v ago, in a call that ended too early: going on with it", t.Name, age.Round(time.Second))
	} else {
		reply, err := a.ask(ctx, t)
		if err != nil {
			return err
		}
		before = reply.Boot
		notes.begin(before)
	}
	// A call that is cut off, by the manager or by the power, leaves its note.
	r := a.follow(ctx, t, before, age, notes)
	if r.Interrupted {
		return fmt.Errorf("%s is not fenced: interrupted after %v, before it answered with another boot id than %s: the manager's timeout must be longer than a boot (Pacemaker: pcmk_reboot_timeout)",
			t.Name, r.Took.Round(time.Second), short(before))
	}
	notes.remove()
	switch {
	case r.Back > 0:
		a.note("%s is fenced: it accepted, and answers with another boot id, %s instead of %s, after %v", t.Name, short(r.After), short(before), r.Back.Round(100*time.Millisecond))
		a.say("Success: Rebooted")
		return nil
	case r.Phase == follow.Running:
		return fmt.Errorf("%s is not fenced: it accepted, and still answers with boot id %s after %v", t.Name, short(before), r.Took.Round(time.Second))
	}
	return fmt.Errorf("%s is not fenced: it accepted, and has not answered with another boot id than %s for %v: it may still be booting, see power_timeout, or be down",
		t.Name, short(before), r.Took.Round(time.Second))
}

// ask has the node accept the sequence, or says why that is not so. What still
// runs or waits there gives way.
func (a *agent) ask(ctx context.Context, t *target) (*auth.Reply, error) {
	steps, err := a.o.sequence()
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	out, err := exchange.Run(ctx, t.Host, steps, auth.Now, a.exchange(a.o.loginTimeout))
	for errors.Is(err, exchange.ErrNotSent) && time.Since(begun) < a.o.loginTimeout && ctx.Err() == nil {
		// Links flap when nodes are lost, and a manager gives up after so many
		// failures.
		sleep(ctx, pause)
		out, err = exchange.Run(ctx, t.Host, steps, auth.Now, a.exchange(a.o.loginTimeout))
	}
	if err != nil {
		return nil, fmt.Errorf("%s is not fenced: %w", t.Name, err)
	}
	if err := accepted(out, steps, a.o.loginTimeout); err != nil {
		return nil, fmt.Errorf("%s is not fenced: %w", t.Name, err)
	}
	a.note("%s accepted %s, by the %v, boot id %s", t.Name, auth.FormatSteps(steps), out.Reply.Executor, short(out.Reply.Boot))
	return out.Reply, nil
}

// accepted returns nil if the host has said that it runs the steps, down to the
// last one, and which boot it is in.
func accepted(out *exchange.Outcome, steps []auth.Step, timeout time.Duration) error {
	switch out.Kind {
	case exchange.Accepted:
	case exchange.Refused:
		return refusal(out.Reply, steps)
	case exchange.Rebooted:
		return fmt.Errorf("it has another boot id, %s instead of %s, but that it accepted was not heard", short(out.After), short(out.Before))
	default:
		if out.Replies == 0 {
			return fmt.Errorf("no answer within %v", timeout)
		}
		return fmt.Errorf("it answered, but that it accepted was not heard within %v", timeout)
	}
	switch r := out.Reply; {
	case r.Flags&auth.DryRun != 0:
		return errors.New("it only rehearses: dry_run is set in its configuration")
	case r.Flags&auth.Rehearsed != 0:
		return errors.New("it only rehearsed")
	case r.Mask>>(len(steps)-1)&1 != 0:
		return fmt.Errorf("it accepted, but will not run %c", steps[len(steps)-1].Key)
	case r.Boot == auth.BootID{}:
		return errors.New("it accepted, but has no boot id to prove a reboot by")
	}
	return nil
}

func refusal(r *auth.Reply, steps []auth.Step) error {
	var keys []string
	for i, s := range steps {
		if r.Mask>>i&1 != 0 {
			keys = append(keys, string(s.Key))
		}
	}
	if len(keys) > 0 {
		return fmt.Errorf("it refused, because of %s: %v", strings.Join(keys, ", "), r.Result)
	}
	return fmt.Errorf("it refused: %v", r.Result)
}

// follow asks the node until another kernel than before answers. Whether its
// daemon runs already does not matter. It has accepted some time ago.
func (a *agent) follow(ctx context.Context, t *target, before auth.BootID, ago time.Duration, notes *notes) follow.Result {
	leave := settle - ago
	if steps, err := a.o.sequence(); err == nil {
		for _, s := range steps {
			leave += s.Wait()
		}
	}
	ask := func(ctx context.Context, timeout time.Duration) *auth.Reply {
		notes.renew()
		out, err := exchange.Status(ctx, t.Host, a.exchange(max(timeout, exchange.MinTimeout)))
		if err != nil || out.Reply == nil || out.Reply.Boot == (auth.BootID{}) {
			return nil // the network of this side may come back
		}
		return out.Reply
	}
	return follow.Watch(ctx, before, ask, follow.Options{Limit: a.o.powerTimeout, Leave: max(leave, question), AnyAnswer: true,
		Changed: func(e follow.Event) {
			if e.Phase == follow.Gone {
				a.note("%s is silent, %v after it accepted", t.Name, (ago + e.At).Round(100*time.Millisecond))
			}
		}})
}

// off is done, as far as anybody can tell, when a node that has accepted it has
// been silent for as long as the configuration says.
func (a *agent) off(ctx context.Context, t *target) error {
	reply, err := a.ask(ctx, t)
	if err != nil {
		return err
	}
	begun := time.Now()
	for heard := begun; ; {
		if time.Since(heard) >= a.o.silenceAsOff {
			a.note("%s is called off: it accepted, and has been silent for %v since %v after that; this is no proof", t.Name,
				time.Since(heard).Round(time.Second), heard.Sub(begun).Round(time.Second))
			a.say("Success: Powered OFF")
			return nil
		}
		out, err := exchange.Status(ctx, t.Host, a.exchange(question))
		switch {
		case err != nil: // a network that carries nothing makes everyone silent
			return fmt.Errorf("%s is not fenced: it accepted, but this side cannot ask it any more: %w", t.Name, err)
		case out.Reply == nil:
			continue
		case out.Reply.Boot != reply.Boot:
			return fmt.Errorf("%s is not off: it answers with another boot id, %s instead of %s", t.Name, short(out.Reply.Boot), short(reply.Boot))
		case time.Since(begun) > a.o.powerTimeout:
			return fmt.Errorf("%s is not off: it accepted, and still answers after %v", t.Name, time.Since(begun).Round(time.Second))
		}
		heard = time.Now()
		sleep(ctx, pause)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func (a *agent) clock() exchange.Clock {
	if a.w.Clock.Boot == nil {
		return exchange.SystemClock
	}
	return a.w.Clock
}
