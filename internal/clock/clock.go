// SPDX-License-Identifier: GPL-2.0-only

// Package clock reads the clocks that freshness depends on.
//
// Built with the tag testclock, the clocks are those of the file named by
// NETSYSRQ_TEST_CLOCK, so that tests can step them; such a binary must never
// be installed.
package clock

import (
	"time"

	"golang.org/x/sys/unix"
)

func boot() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err) // Linux has had it since 2.6.39
	}
	return uint64(ts.Nano())
}

// clamp keeps a clock before 1970 from becoming a time far in the future.
func clamp(ns int64) uint64 { return uint64(max(ns, 0)) }

func realtime() uint64 { return clamp(time.Now().UnixNano()) }

// synchronised asks the kernel whether something disciplines its clock
// (adjtimex(2): TIME_ERROR means not synchronised).
func synchronised() bool {
	const timeError = 5
	state, err := unix.Adjtimex(&unix.Timex{})
	return err == nil && state != timeError
}
