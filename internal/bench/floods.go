// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"netsysrq/auth"
)

// bar is what 99 of 100 valid requests must keep in a flood of each kind, from
// the first packet to the trigger.
var bar = map[kind]time.Duration{
	misshapen: 2 * time.Millisecond,
	few:       20 * time.Millisecond,
	spoofed:   3 * time.Second,
}

const (
	floodInterval = 5 * time.Millisecond // between two requests
	floodWarm     = 300 * time.Millisecond
	givenUp       = 10 * time.Second // a request that took longer is lost

	clientPriority = 50 // of SCHED_FIFO
)

func (b *bench) misshapen(ctx context.Context) error { return b.floods(ctx, misshapen) }
func (b *bench) few(ctx context.Context) error       { return b.floods(ctx, few) }
func (b *bench) random(ctx context.Context) error    { return b.floods(ctx, spoofed) }

// floods sends valid requests, one after the other, through floods of one
// kind. A flood that misses a bar is repeated once: where the second run meets
// it, the machine was busy with something else.
func (b *bench) floods(ctx context.Context, k kind) error {
	if err := b.daemon.settled(ctx); err != nil {
		return err
	}
	if err := b.daemon.realtime(b.realtime); err != nil {
		return err
	}
	for family, name := range families {
		what := fmt.Sprintf("flood %s, %v", name, k)
		first, err := b.flood(ctx, k, family)
		if err != nil {
			return err
		}
		b.table.note("%s: %s", what, first.load())
		rows := first.rows(what, bar[k])
		if missed(rows) > 0 {
			again, err := b.flood(ctx, k, family)
			if err != nil {
				return err
			}
			b.table.note("%s, repeated: %d of %d lost, to trigger p50 %s, p99 %s, max %s; %s", what, again.lost, again.made,
				short(quantile(again.times, 0.5)), short(quantile(again.times, 0.99)), short(quantile(again.times, 1)), again.load())
			for i, r := range again.rows(what, bar[k]) {
				if rows[i].verdict == fail && r.verdict == fine {
					rows[i].verdict = noisy
				}
			}
		}
		b.table.rows = append(b.table.rows, rows...)
	}
	return nil
}

// floodRun is what one flood and the requests in it came to.
type floodRun struct {
	wanted, made, lost, repeated int
	times                        []time.Duration // to the trigger, sorted
	sent, judged, full, cpu      float64         // packets/s, and parts of a CPU
}

// load words what the flood was.
func (f *floodRun) load() string {
	s := fmt.Sprintf("%.0f packets/s sent, %.0f/s judged, %.0f/s found the queue full, %.0f%% of a CPU used by the daemon, "+
		"%d requests needed more than one packet", f.sent, f.judged, f.full, 100*f.cpu, f.repeated)
	if f.made < f.wanted {
		s += fmt.Sprintf("; time was up before %d requests were made", f.wanted)
	}
	return s
}

func (f *floodRun) rows(what string, p99 time.Duration) []row {
	return []row{
		{what: what + ": lost", measured: fmt.Sprintf("%d of %d", f.lost, f.made), bar: "0", verdict: judge(f.lost == 0)},
		{what: "  to trigger, p50", measured: short(quantile(f.times, 0.5)), verdict: plain},
		bound("  to trigger, p99", quantile(f.times, 0.99), p99),
		{what: "  to trigger, max", measured: short(quantile(f.times, 1)), verdict: plain},
	}
}

func (b *bench) flood(ctx context.Context, k kind, family int) (*floodRun, error) {
	f := &floodRun{wanted: 1000}
	length := 30 * time.Second
	if b.quick {
		f.wanted, length = 200, 10*time.Second
	}
	p, err := b.pourFrom(ctx, newJunk(k, toHost, family, b.daemon.key.ID, b.rate, length+floodWarm+givenUp))
	if err != nil {
		return nil, err
	}
	defer p.stdin.Close()
	if err := sleep(ctx, floodWarm); err != nil {
		return nil, err
	}
	before, beforeCPU, err := progressOf(b.daemon.pid())
	if err != nil {
		return nil, err
	}
	start := time.Now()
	outcomes, err := b.requests(ctx, family, f.wanted, start.Add(length))
	if err != nil {
		return nil, err
	}
	second := time.Since(start).Seconds()
	after, afterCPU, err := progressOf(b.daemon.pid())
	if err != nil {
		return nil, err
	}
	sent, err := p.stop()
	if err != nil {
		return nil, err
	}
	f.count(outcomes)
	f.sent = sent.PerSecond()
	f.judged = float64(after.delivered-before.delivered) / second
	f.full = float64(after.lost-before.lost) / second
	f.cpu = (afterCPU - beforeCPU).Seconds() / second
	return f, drained(ctx, b.daemon.pid())
}

func (f *floodRun) count(outcomes []outcome) {
	f.made = len(outcomes)
	for _, o := range outcomes {
		if !o.done() || o.result != auth.Accepted {
			f.lost++
			continue
		}
		if o.packets > 1 {
			f.repeated++
		}
		f.times = append(f.times, o.trigger)
	}
	slices.Sort(f.times)
}

// requests makes requests until there are enough or the time is over.
func (b *bench) requests(ctx context.Context, family, n int, end time.Time) (outcomes []outcome, err error) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	err = b.lab.do(b.lab.client, func() error {
		// The client stands for another machine, which does not wait until
		// the flood and the daemon leave it a CPU.
		if err := realtime(clientPriority); err != nil {
			return err
		}
		c, err := newClient(b.daemon)
		if err != nil {
			return err
		}
		defer c.close()
		for range n {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if time.Now().After(end) {
				return nil
			}
			o, err := c.request(family, givenUp)
			if err != nil {
				return err
			}
			outcomes = append(outcomes, o)
			pause(floodInterval)
		}
		return nil
	})
	return outcomes, err
}
