// SPDX-License-Identifier: GPL-2.0-only

//go:build !testclock

package clock

// Testing reports that this binary's clocks can be set by a test.
const Testing = false

// Boot returns CLOCK_BOOTTIME in nanoseconds.
func Boot() uint64 { return boot() }

// Real returns CLOCK_REALTIME in nanoseconds since 1970.
func Real() uint64 { return realtime() }

// Synchronised reports whether the kernel's clock is disciplined.
func Synchronised() bool { return synchronised() }
