// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"netsysrq/internal/vm/agent"
)

func readClocks() (*agent.ClockValues, error) {
	var v agent.ClockValues
	for _, c := range []struct {
		id  int32
		out *time.Duration
	}{{unix.CLOCK_REALTIME, &v.Real}, {unix.CLOCK_BOOTTIME, &v.Boot}, {unix.CLOCK_MONOTONIC, &v.Monotonic}} {
		var ts unix.Timespec
		if err := unix.ClockGettime(c.id, &ts); err != nil {
			return nil, err
		}
		*c.out = time.Duration(ts.Nano())
	}
	return &v, nil
}

// setClock steps the clock, if real is not 0, and says whether it is
// disciplined. A step makes the kernel forget that it was.
func setClock(real time.Duration, synchronised bool) error {
	if real != 0 {
		ts := unix.NsecToTimespec(real.Nanoseconds())
		if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
			return fmt.Errorf("step the clock: %w", err)
		}
	}
	const status, maxError, estimatedError, unsynchronised = 0x10, 0x4, 0x8, 0x40 // ADJ_*, STA_UNSYNC
	t := unix.Timex{Modes: status, Status: unsynchronised}
	if synchronised {
		// A small error, or the kernel takes it back at once.
		t = unix.Timex{Modes: status | maxError | estimatedError, Maxerror: 1000, Esterror: 1000}
	}
	if _, err := unix.Adjtimex(&t); err != nil {
		return fmt.Errorf("set the clock's state: %w", err)
	}
	return nil
}
