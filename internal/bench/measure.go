// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime is what all threads of a process have used, in user and in kernel
// mode: the sum of utime and stime in /proc/PID/stat, but exact.
func cpuTime(pid int) (time.Duration, error) {
	const sched = 2 // CPUCLOCK_SCHED
	var ts unix.Timespec
	if err := unix.ClockGettime(^int32(pid)<<3|sched, &ts); err != nil {
		return 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// queues sums up the netfilter queues of a process's network namespace.
type queues struct {
	delivered uint64 // packets that a reader was given
	lost      uint64 // packets that found a queue or its socket full
	waiting   uint64
}

func readQueues(pid int) (q queues, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/netfilter/nfnetlink_queue", pid))
	if err != nil {
		return q, err
	}
	for line := range strings.Lines(string(text)) {
		// number, port id, waiting, copy mode, copy range, dropped by the
		// queue, dropped by the socket, sequence of ids, 1
		f := strings.Fields(line)
		if len(f) < 8 {
			return q, fmt.Errorf("nfnetlink_queue: %q", line)
		}
		var v [8]uint64
		for i := range v {
			if v[i], err = strconv.ParseUint(f[i], 10, 64); err != nil {
				return q, fmt.Errorf("nfnetlink_queue: %q", line)
			}
		}
		q.waiting += v[2]
		q.lost += v[5] + v[6]
		q.delivered += v[7] - v[6]
	}
	return q, nil
}

// memoryLine reads a line of /proc/PID/status, in KiB.
func memoryLine(pid int, name string) (uint64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			return strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no %s", pid, name)
}

// quantile is the p-th part of sorted values, 0 of none.
func quantile[T any](sorted []T, p float64) (v T) {
	if len(sorted) == 0 {
		return v
	}
	return sorted[min(int(p*float64(len(sorted))), len(sorted)-1)]
}

func median[T int | float64 | time.Duration](values []T) T {
	sorted := slices.Clone(values)
	slices.Sort(sorted)
	return quantile(sorted, 0.5)
}

// queuePeers are the numbers of the queues that somebody has bound in the
// network namespace of a process.
func queuePeers(pid int) (map[int]bool, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/netfilter/nfnetlink_queue", pid))
	if err != nil {
		return nil, err
	}
	numbers := map[int]bool{}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 0 {
			n, err := strconv.Atoi(f[0])
			if err != nil {
				return nil, fmt.Errorf("nfnetlink_queue: %q", line)
			}
			numbers[n] = true
		}
	}
	return numbers, nil
}
