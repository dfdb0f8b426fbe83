// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"netsysrq/cmd/responder/internal/gate"
	"netsysrq/nfq"
)

// lane is one queue and what reads it.
type lane struct {
	*gate.Lane
	name   string
	number uint16
	queue  atomic.Pointer[nfq.Queue] // nil while it is lost
	// Packets that the kernel dropped: those of queues that are closed, and
	// all that a summary has named.
	gone    atomic.Uint64
	dropped uint64
}

// open binds a lane's queue.
func (d *daemon) open(l *lane) error {
	q, err := nfq.Open(nfq.Config{
		Queue:      l.number,
		Handler:    l.Handle,
		OnStart:    func() error { d.demote(l); return nil },
		Statistics: d.statistics,
		Logger:     d.log.With("lane", l.name),
	})
	if err != nil {
		return err
	}
	l.queue.Store(q)
	return nil
}

// demote takes real-time scheduling, which the unit may give to every thread,
// from the lane that a flood can keep busy. It gets no less than an ordinary
// thread: it may hold a lock that the quiet lane waits for, and among its
// packets are those of an operator whose address is spoofed. A lane that cannot
// be demoted is better than none.
func (d *daemon) demote(l *lane) {
	if l == d.lanes[0] {
		return
	}
	prio, err := unix.Getpriority(unix.PRIO_PROCESS, 0) // 20 - nice
	if err == nil {
		err = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_BATCH, Nice: int32(20 - prio)}, 0)
	}
	if err != nil {
		d.log.Warn("a lane keeps its priority: a flood may hold up the other one", "lane", l.name, "err", err)
	}
}

// serve reads a lane's queue for ever. A queue that is lost is opened anew.
func (d *daemon) serve(ctx context.Context, l *lane) {
	for {
		q := l.queue.Load()
		err := q.Run(ctx)
		last, _ := q.KernelStats()
		l.queue.Store(nil)
		if cerr := q.Close(); cerr != nil && ctx.Err() == nil {
			d.log.Warn("queue not closed", "lane", l.name, "err", cerr)
		}
		l.gone.Add(kernelDrops(last) + uint64(last.Waiting))
		if ctx.Err() != nil {
			return
		}
		d.log.Error("queue lost", "lane", l.name, "queue", l.number, "err", err)
		for said := ""; ; {
			select {
			case <-ctx.Done():
				return
			case <-time.After(reopenWait):
			}
			if err = d.open(l); err == nil {
				d.log.Info("queue opened again", "lane", l.name, "queue", l.number)
				break
			}
			if err.Error() != said { // it may be long until whoever has it ends
				said = err.Error()
				d.log.Error("queue not opened, trying on", "lane", l.name, "queue", l.number, "err", err)
			}
		}
	}
}

// feedWatchdog tells systemd that all is well, if every read loop turns. That
// the ledger's lock is not stuck was just shown by the gate's sample.
func (d *daemon) feedWatchdog() bool {
	for _, l := range d.lanes {
		q := l.queue.Load()
		if q == nil {
			continue // serve opens it again, and says how that goes
		}
		if since := time.Since(q.Stats().LastTick); since > stuckAfter {
			d.log.Error("read loop hangs", "lane", l.name, "since", since)
			return false
		}
	}
	d.tell("WATCHDOG=1")
	return true
}

func (d *daemon) summarise() {
	lanes := make([]*gate.Lane, len(d.lanes))
	var dropped uint64
	for i, l := range d.lanes {
		lanes[i] = l.Lane
		var ks nfq.KernelStats
		if q := l.queue.Load(); q != nil {
			var err error
			if ks, err = q.KernelStats(); err != nil {
				d.log.Warn("kernel's queue statistics cannot be read", "lane", l.name, "err", err)
				continue
			}
		}
		if n := l.gone.Load() + kernelDrops(ks); n > l.dropped {
			dropped += n - l.dropped
			l.dropped = n
		}
	}
	for r, n := range gate.Summarise(d.log.Logger, lanes, dropped, d.modulePackets()) {
		d.ignored[r] += n
	}
	if n := d.log.Lost(); n > d.lost {
		d.log.Warn("log records lost: nobody read them in time", "records", n-d.lost)
		d.lost = n
	}
}

func kernelDrops(ks nfq.KernelStats) uint64 {
	return uint64(ks.QueueDropped) + uint64(ks.UserDropped)
}
