// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// One run of the cost of rejected packets: reached is how many packets a
// second the reader was given.
type costRun struct {
	perPacket float64 // µs of CPU
	reached   float64
}

const (
	costBar   = 2.0
	costFlood = 1500 * time.Millisecond
	costWarm  = 200 * time.Millisecond
	drainTime = time.Second // more than a full queue takes
)

// cost compares the CPU time that a rejected packet takes of the daemon, which
// opens each, and of cnfq, which looks at none, one verdict for each packet.
// What the rules cost is paid by the sender's CPU in both cases.
func (b *bench) cost(ctx context.Context) error {
	pairs := 7
	if b.quick {
		pairs = 3
	}
	collections, err := b.daemon.collections()
	if err != nil {
		return err
	}
	for family, name := range families {
		var ours, theirs, ratesOurs, ratesTheirs []float64
		for range pairs {
			a, err := b.costOfDaemon(ctx, family)
			if err != nil {
				return err
			}
			c, err := b.costOfReference(ctx, family)
			if err != nil {
				return err
			}
			ours, theirs = append(ours, a.perPacket), append(theirs, c.perPacket)
			ratesOurs, ratesTheirs = append(ratesOurs, a.reached), append(ratesTheirs, c.reached)
		}
		b.table.add(compare("CPU per rejected packet, "+name, "µs", ours, theirs, costBar))
		b.table.note("CPU per rejected packet, %s: %d pairs; %.0f packets/s judged by the daemon, %.0f/s answered by cnfq",
			name, pairs, median(ratesOurs), median(ratesTheirs))
	}
	after, err := b.daemon.collections()
	if err != nil {
		return err
	}
	b.table.add(row{what: "garbage collections during that", measured: strconv.Itoa(after - collections), bar: "<= 1",
		verdict: judge(after == collections)})
	return nil
}

func (b *bench) costOfDaemon(ctx context.Context, family int) (costRun, error) {
	return b.costOf(ctx, b.daemon.pid(), toHost, family)
}

func (b *bench) costOfReference(ctx context.Context, family int) (run costRun, err error) {
	err = b.withReference(ctx, queue, "drop", func(pid int) error {
		run, err = b.costOf(ctx, pid, toReference, family)
		return err
	})
	return run, err
}

// withReference calls fn while cnfq serves a queue of the reference namespace.
func (b *bench) withReference(ctx context.Context, number int, decision string, fn func(pid int) error) error {
	ctx, cancel := context.WithCancel(ctx)
	const longEnough = 120 // seconds; it is killed before
	cmd := b.lab.command(ctx, b.lab.reference, b.references.cnfq, strconv.Itoa(number), decision, strconv.Itoa(longEnough), "0")
	if err := cmd.Start(); err != nil {
		cancel()
		return err
	}
	defer func() {
		cancel()
		cmd.Wait()
	}()
	if err := b.bound(ctx, cmd, number); err != nil {
		return err
	}
	return fn(cmd.Process.Pid)
}

// bound waits until a command has bound a queue.
func (b *bench) bound(ctx context.Context, cmd *exec.Cmd, number int) error {
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		if peers, err := queuePeers(cmd.Process.Pid); err == nil && peers[number] {
			return nil
		}
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s did not bind queue %d", strings.Join(cmd.Args, " "), number)
}

// costOf floods the reader of a namespace's queues.
func (b *bench) costOf(ctx context.Context, pid int, w wire, family int) (run costRun, err error) {
	p, err := b.pourFrom(ctx, newJunk(spoofed, w, family, b.daemon.key.ID, b.rate, costWarm+costFlood+200*time.Millisecond))
	if err != nil {
		return run, err
	}
	defer p.stdin.Close()
	if err := sleep(ctx, costWarm); err != nil {
		return run, err
	}
	before, beforeCPU, err := progressOf(pid)
	if err != nil {
		return run, err
	}
	start := time.Now()
	if err := sleep(ctx, costFlood); err != nil {
		return run, err
	}
	after, afterCPU, err := progressOf(pid)
	if err != nil {
		return run, err
	}
	took := time.Since(start)
	if _, err := p.wait(); err != nil {
		return run, err
	}
	n := after.delivered - before.delivered
	if n == 0 {
		return run, fmt.Errorf("no packet reached process %d", pid)
	}
	if err := drained(ctx, pid); err != nil {
		return run, err
	}
	return costRun{float64((afterCPU - beforeCPU).Nanoseconds()) / 1e3 / float64(n), float64(n) / took.Seconds()}, nil
}

func progressOf(pid int) (q queues, cpu time.Duration, err error) {
	if q, err = readQueues(pid); err != nil {
		return q, 0, err
	}
	cpu, err = cpuTime(pid)
	return q, cpu, err
}

// drained waits until nothing waits in the queues any more.
func drained(ctx context.Context, pid int) error {
	for deadline := time.Now().Add(drainTime); time.Now().Before(deadline); {
		if q, err := readQueues(pid); err != nil || q.waiting == 0 {
			return err
		}
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("the queue of process %d does not drain", pid)
}
