// SPDX-License-Identifier: GPL-2.0-only

package nfq

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

type counters struct {
	packets, verdicts, verdictErrors, overruns, malformed atomic.Uint64
	tick                                                  atomic.Int64 // ns since Queue.start
}

// Stats counts what the reader saw since Open.
type Stats struct {
	// Packets were handed to the handler.
	Packets uint64
	// Verdicts were sent; one can answer many packets.
	Verdicts uint64
	// VerdictErrors are verdicts that the kernel refused, such as for a
	// packet it no longer had.
	VerdictErrors uint64
	// Overruns is how often the kernel reported a full receive buffer
	// (ENOBUFS). Each stands for one or more lost packets, which
	// KernelStats.UserDropped counts.
	Overruns uint64
	// Malformed are netlink messages that could not be read. Their packets
	// were dropped.
	Malformed uint64
	// LastTick is when the read loop last began anew, with a monotonic clock
	// reading; before Run, the time of Open. It advances at least twice
	// a second unless the handler or the machine hangs.
	LastTick time.Time
}

// Stats returns the current counters.
func (q *Queue) Stats() Stats {
	return Stats{
		Packets:       q.counters.packets.Load(),
		Verdicts:      q.counters.verdicts.Load(),
		VerdictErrors: q.counters.verdictErrors.Load(),
		Overruns:      q.counters.overruns.Load(),
		Malformed:     q.counters.malformed.Load(),
		LastTick:      q.start.Add(time.Duration(q.counters.tick.Load())),
	}
}

// KernelStats is what the kernel says about a queue.
type KernelStats struct {
	// Owned tells whether the queue is still bound to our socket. If not,
	// the rest is zero.
	Owned bool
	// Waiting packets have no verdict yet.
	Waiting uint32
	// QueueDropped packets found Config.MaxLen others waiting.
	QueueDropped uint32
	// UserDropped packets found no room in the socket.
	UserDropped uint32
	// LastID is the id of the last packet queued.
	LastID uint32
}

// StatisticsPath lists the queues of the network namespace of the thread that
// opens it. Root alone may open it. An open file stays with that namespace and
// needs no privilege later.
const StatisticsPath = "/proc/thread-self/net/netfilter/nfnetlink_queue"

// maxProcQueues bounds what is read of StatisticsPath: a line has less than 80
// bytes, a namespace at most 65536 queues.
const maxProcQueues = 80 << 16

// KernelStats reads the kernel's view of the queue from procfs.
func (q *Queue) KernelStats() (KernelStats, error) {
	if q.procErr != nil {
		return KernelStats{}, fmt.Errorf("read kernel statistics: %w", q.procErr)
	}
	stats, err := parseKernelStats(io.NewSectionReader(q.proc, 0, maxProcQueues), q.cfg.Queue, q.socket.portID)
	if err != nil {
		return KernelStats{}, fmt.Errorf("read kernel statistics: %w", err)
	}
	return stats, nil
}

// parseKernelStats finds the line of a queue and an owner. The columns are
// those of seq_show in net/netfilter/nfnetlink_queue.c: queue number, port id,
// waiting, copy mode, copy range, dropped by the queue, dropped by the socket,
// last id, 1.
func parseKernelStats(r io.Reader, queue uint16, portID uint32) (KernelStats, error) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 8 {
			return KernelStats{}, fmt.Errorf("%d columns instead of 8: %q", len(fields), lines.Text())
		}
		var column [8]uint32
		for i := range column {
			v, err := strconv.ParseUint(fields[i], 10, 32)
			if err != nil {
				return KernelStats{}, err
			}
			column[i] = uint32(v)
		}
		if column[0] == uint32(queue) && column[1] == portID {
			return KernelStats{
				Owned:        true,
				Waiting:      column[2],
				QueueDropped: column[5],
				UserDropped:  column[6],
				LastID:       column[7],
			}, nil
		}
	}
	return KernelStats{}, lines.Err()
}
