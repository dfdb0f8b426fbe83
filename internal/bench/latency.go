// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"runtime/debug"
	"strconv"
	"time"

	"netsysrq/auth"
)

const (
	latencyBar      = 2.0
	latencyInterval = 2 * time.Millisecond
	requestLimit    = 2 * time.Second // of one request without a flood
)

// latency compares what a request takes from its sending to its sealed reply,
// and to its effect, with the one way of a packet that cnfq accepts.
func (b *bench) latency(ctx context.Context) error {
	pairs, requests := 7, 500
	if b.quick {
		pairs, requests = 3, 300
	}
	if err := b.accepting(ctx); err != nil {
		return err
	}
	if err := b.daemon.settled(ctx); err != nil {
		return err
	}
	for family, name := range families {
		if family > 0 && b.quick {
			break
		}
		var replies, triggers, theirs []float64
		for range pairs {
			reply, trigger, err := b.requestLatency(ctx, family, requests)
			if err != nil {
				return err
			}
			one, err := b.referenceLatency(ctx, requests)
			if err != nil {
				return err
			}
			replies, triggers, theirs = append(replies, reply), append(triggers, trigger), append(theirs, one)
		}
		b.table.add(compare("request to sealed reply, p50, "+name, "µs", replies, theirs, latencyBar))
		b.table.add(compare("request to trigger, p50, "+name, "µs", triggers, theirs, 0))
	}
	b.table.note("latency: %d pairs of %d each; the reference is lat (IPv4) through cnfq, one way, accepted", pairs, requests)
	return nil
}

// accepting leads lat's packets to a queue of their own.
func (b *bench) accepting(ctx context.Context) error {
	_, err := output(b.lab.command(ctx, b.lab.reference, "iptables", "-t", "raw", "-A", "PREROUTING", "-p", "udp",
		"--dport", strconv.Itoa(latencyPort), "-j", "NFQUEUE", "--queue-num", strconv.Itoa(latencyQ)))
	return err
}

// requestLatency returns the medians of both times in µs.
func (b *bench) requestLatency(ctx context.Context, family, n int) (reply, trigger float64, err error) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	var replies, triggers []time.Duration
	err = b.lab.do(b.lab.client, func() error {
		c, err := newClient(b.daemon)
		if err != nil {
			return err
		}
		defer c.close()
		for range n {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			o, err := c.request(family, requestLimit)
			if err != nil {
				return err
			}
			if o.reply == 0 || o.result != auth.Accepted || o.trigger == 0 {
				return fmt.Errorf("a request was not run: result %v, reply after %v, trigger after %v", o.result, o.reply, o.trigger)
			}
			replies, triggers = append(replies, o.reply), append(triggers, o.trigger)
			pause(latencyInterval)
		}
		return nil
	})
	return float64(median(replies)) / 1e3, float64(median(triggers)) / 1e3, err
}

var latP50 = regexp.MustCompile(`p50=([0-9.]+)`)

// referenceLatency returns lat's median in µs.
func (b *bench) referenceLatency(ctx context.Context, n int) (p50 float64, err error) {
	err = b.withReference(ctx, latencyQ, "accept", func(int) error {
		out, err := output(exec.CommandContext(ctx, b.references.lat, b.lab.client, b.lab.reference, toReference.server[0].String(),
			strconv.Itoa(latencyPort), strconv.Itoa(n), strconv.Itoa(int(latencyInterval.Microseconds())), strconv.Itoa(auth.PacketSize)))
		if err != nil {
			return err
		}
		m := latP50.FindStringSubmatch(out)
		if m == nil {
			return fmt.Errorf("lat: %s", out)
		}
		p50, err = strconv.ParseFloat(m[1], 64)
		return err
	})
	return p50, err
}
