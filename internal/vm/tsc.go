// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"fmt"
	"sync"
	"time"
)

// tsc tells a guest how fast its time stamp counter runs, as a kernel parameter.
// QEMU gives it the host's. A kernel that has to find out by itself compares it
// with another clock; on a busy host, where its CPU may be taken away in the middle
// of that, one boot was seen whose seconds were a third of ours. Rounded to MHz, it
// is the same in each process, so that it may be part of a cache's key.
var tsc = sync.OnceValue(func() string {
	var best time.Duration
	var khz float64
	for range 5 {
		// The sample counts whose two readings took the least time.
		start, a, da := sample()
		time.Sleep(20 * time.Millisecond)
		end, b, db := sample()
		if b <= a {
			return "" // not a counter of this kind
		}
		if best == 0 || da+db < best {
			best = da + db
			khz = float64(b-a) / end.Sub(start).Seconds() / 1000
		}
	}
	return fmt.Sprintf("tsc_early_khz=%d", (int64(khz)+500)/1000*1000)
})

func sample() (at time.Time, counter uint64, took time.Duration) {
	at = time.Now()
	counter = timestamp()
	return at, counter, time.Since(at)
}
