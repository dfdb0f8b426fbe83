// SPDX-License-Identifier: GPL-2.0-only

//go:build testclock

package clock

import (
	"fmt"
	"os"
)

// Testing reports that this binary's clocks can be set by a test.
const Testing = true

// settings reads the offset of CLOCK_REALTIME in nanoseconds and whether the
// clock is synchronised (0 or 1). Writers replace the file by renaming.
func settings() (offset int64, synchronised bool) {
	path := os.Getenv("NETSYSRQ_TEST_CLOCK")
	b, err := os.ReadFile(path)
	if err != nil {
		panic(err)
	}
	var yes int
	if _, err := fmt.Sscan(string(b), &offset, &yes); err != nil {
		panic(fmt.Sprintf("%s: %v", path, err))
	}
	return offset, yes != 0
}

// Boot returns CLOCK_BOOTTIME in nanoseconds.
func Boot() uint64 { return boot() }

// Real returns CLOCK_REALTIME plus the test's offset.
func Real() uint64 {
	offset, _ := settings()
	return clamp(int64(realtime()) + offset)
}

// Synchronised reports what the test says.
func Synchronised() bool {
	_, yes := settings()
	return yes
}
