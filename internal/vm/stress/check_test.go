// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/exchange"
	"netsysrq/kmod-fallback/kmod"
)

const second = uint64(time.Second)

// Requests of the histories below.
var (
	first = auth.RequestID{1}
	later = auth.RequestID{2}
)

// story is a sound history: two requests of one key, run one after the other.
func story() *history {
	h := newHistory([]auth.KeyID{{7}})
	set, err := auth.ParseKeySet("ns")
	if err != nil {
		panic(err)
	}
	h.installations[0] = []installation{{asked: 2 * second, done: 3 * second, allowed: set, allowedIsSteady: true}}
	l := &ledger{loaded: second, complete: true}
	h.ledgers = []*ledger{l}
	tell := func(at time.Duration, e kmod.Event) {
		e.Seq, e.Boot = uint32(len(l.events)+1), at
		if e.Kind != kmod.EventBegin {
			e.Key, e.Steps = auth.KeyID{7}, "ns"
		}
		l.events = append(l.events, e)
	}
	tell(time.Second, kmod.Event{Kind: kmod.EventBegin})
	for i, id := range []auth.RequestID{first, later} {
		at := time.Duration(10+i) * time.Second
		ms := time.Millisecond
		dry := auth.DryRun
		by, executor, took := kmod.ByTake, auth.Daemon, 5*ms
		if id == later {
			by, executor, took = kmod.ByDeadline, auth.Kernel, 20*ms
		}
		tell(at, kmod.Event{Kind: kmod.EventRequest, Request: id, Result: auth.Accepted, Flags: dry, Mask: 3})
		tell(at+took, kmod.Event{Kind: kmod.EventSettled, By: by, Request: id, Result: auth.Accepted, Flags: dry, Mask: 3, Took: took})
		tell(at+30*ms, kmod.Event{Kind: kmod.EventStep, By: kmod.ByThread, Request: id, Flags: dry})
		tell(at+31*ms, kmod.Event{Kind: kmod.EventStep, By: kmod.ByTick, Step: 1, Request: id, Flags: dry})
		tell(at+32*ms, kmod.Event{Kind: kmod.EventDone, Step: 1, Request: id, Flags: dry})
		r := &request{
			id: id, steps: "ns", challenge: auth.Challenge{id[0]}, first: uint64(at) - second, sockets: map[int]bool{4: true},
			answers: []answer{
				{uint64(at + 25*ms), 4, auth.Accepted, dry | auth.Armed, 3, executor},
				{uint64(at + 60*ms), 4, auth.Accepted, dry | auth.Armed | auth.Repeat, 3, executor},
			},
		}
		h.requests[id] = r
		h.order = append(h.order, r)
	}
	return h
}

// number counts the events anew.
func number(l *ledger) {
	for i := range l.events {
		l.events[i].Seq = uint32(i + 1)
	}
}

func TestSoundHistory(t *testing.T) {
	if c := story().check(); len(c.faults) > 0 || c.tally.Accepted != 2 || c.tally.ByTake != 1 || c.tally.Repeats != 2 {
		t.Errorf("%+v\n%s", c.tally, strings.Join(c.faults, "\n"))
	}
}

// TestFaults breaks a sound history in one way after the other. The events are:
// 0 begin; 1 request, 2 settled, 3 step, 4 step, 5 done; 6 to 10 of the later.
func TestFaults(t *testing.T) {
	type events = []kmod.Event
	edit := func(f func(e events) events) func(*history) {
		return func(h *history) {
			l := h.ledgers[0]
			l.events = f(l.events)
			number(l)
		}
	}
	without := func(i int) func(*history) {
		return edit(func(e events) events { return slices.Delete(e, i, i+1) })
	}
	order := func(indices ...int) func(*history) {
		return edit(func(e events) (in events) {
			for n, i := range indices {
				in = append(in, e[i])
				in[n].Boot = e[n].Boot
			}
			return in
		})
	}
	twice := func(i int) func(*history) {
		return edit(func(e events) events { return slices.Insert(e, i, e[i]) })
	}
	change := func(i int, f func(e *kmod.Event)) func(*history) {
		return edit(func(e events) events { f(&e[i]); return e })
	}
	for name, c := range map[string]struct {
		spoil func(*history)
		want  string
	}{
		"step twice":       {twice(3), "step 0 after step 0"},
		"step left out":    {without(3), "step 1 after step -1"},
		"last step missed": {without(4), "done: 1 of 2 steps"},
		"steps in disorder": {func(h *history) {
			e := h.ledgers[0].events
			e[3].Step, e[4].Step = 1, 0
		}, "step 1 after step -1"},
		"not finished":  {without(10), "not all its steps were run"},
		"never settled": {edit(func(e events) events { return e[:7] }), "never settled"},
		"settled twice": {twice(2), "it was not pending"},
		"fresh twice":   {twice(1), "fresh for the second time"},
		"take too late": {change(2, func(e *kmod.Event) { e.Took = deadline }), "settled by take after"},
		"deadline too early": {change(7, func(e *kmod.Event) { e.Took = deadline - 1 }),
			"settled by deadline after"},
		"vetoed and run": {func(h *history) {
			e := h.ledgers[0].events
			e[2].By, e[2].Result = kmod.ByVeto, auth.Vetoed
		}, "not to be run"},
		"drill taken":            {func(h *history) { h.requests[first].flags = auth.Drill; h.ledgers[0].events[1].Asked = auth.Drill }, "took a drill"},
		"two at once":            {order(0, 1, 2, 6, 7, 3, 8, 9, 10, 4, 5), "while 01000000 was running"},
		"out of turn":            {order(0, 1, 2, 6, 7, 8, 9, 10, 3, 4, 5), "01000000 was settled before"},
		"in earnest":             {change(3, func(e *kmod.Event) { e.Flags = 0 }), "not in a dry run"},
		"number left out":        {func(h *history) { h.ledgers[0].events = slices.Delete(h.ledgers[0].events, 3, 4) }, "counted as lost"},
		"nobody's":               {change(3, func(e *kmod.Event) { e.Request[5] = 1 }), "nobody made this request"},
		"can't be fresh":         {func(h *history) { h.requests[first].kind = never }, "which it can't be"},
		"not allowed":            {func(h *history) { h.installations[0][0].allowed = 0 }, "though the key may do"},
		"older than its key":     {func(h *history) { h.requests[first].first = second }, "older than the installation"},
		"one challenge for two":  {func(h *history) { h.requests[later].challenge = auth.Challenge{1} }, "by a challenge that made"},
		"removed key":            {func(h *history) { h.installations[0][0].removing, h.installations[0][0].gone = 9*second, 9*second+1 }, "the key is removed"},
		"answer of another":      {func(h *history) { h.requests[first].answers[1].mask = 1 }, "is not that of"},
		"answered anew":          {func(h *history) { h.requests[first].answers[1].flags ^= auth.Repeat }, "answered anew 2 times"},
		"answered to a stranger": {func(h *history) { h.requests[first].answers[1].socket = 5 }, "who did not ask"},
		"wrong executor": {func(h *history) {
			for i := range h.requests[first].answers {
				h.requests[first].answers[i].by = auth.Kernel
			}
		}, "and settled by take"},
		"never answered": {func(h *history) { h.requests[first].answers = nil }, "never answered"},
		"gave up":        {func(h *history) { h.requests[first].waited, h.requests[first].answers = true, nil }, "within the sender's way"},
		"also by the daemon": {func(h *history) { h.daemonRuns[first] = 1 },
			"by daemon and kernel"},
		"two voices": {func(h *history) {
			r := h.requests[later]
			r.answers = append(r.answers, answer{r.answers[0].at + second/100, 4, auth.Accepted, auth.DryRun, 3, auth.Daemon})
		}, "answered by the daemon"},
		"refused and run": {func(h *history) { h.requests[first].outcome = &exchange.Outcome{Kind: exchange.Refused} }, "refused by the answer, and run"},
		"accepted and not run": {func(h *history) {
			h.requests[auth.RequestID{3}] = &request{id: auth.RequestID{3}, first: 20 * second, outcome: &exchange.Outcome{Kind: exchange.Accepted}}
			h.order = append(h.order, h.requests[auth.RequestID{3}])
		}, "accepted by the answer, and not run"},
		"word without effect": {func(h *history) {
			h.words = []word{{call: span{11 * second, 11*second + second/50}, id: later}}
		}, "settled nothing"},
		"word of nobody": {func(h *history) { h.usurped = []span{{9 * second, 11 * second}} }, "which nobody said"},
		"floor falls": {func(h *history) {
			for i, id := range []auth.RequestID{first, later} {
				r := h.requests[id]
				r.challenge, r.time, r.made = auth.Challenge{}, uint64(100-i), 100
			}
		}, "not above the floor"},
		"forgotten": {edit(func(e events) events {
			stale := e[1]
			stale.Kind, stale.Reason, stale.Result, stale.Boot = kmod.EventStale, auth.ReasonStale, auth.Stale, e[5].Boot
			return slices.Insert(e, 6, stale)
		}), "it is known for certain"},
	} {
		h := story()
		c.spoil(h)
		faults := h.check().faults
		if !slices.ContainsFunc(faults, func(f string) bool { return strings.Contains(f, c.want) }) {
			t.Errorf("%s: want a fault with %q, got:\n%s", name, c.want, strings.Join(faults, "\n"))
		}
	}
}
