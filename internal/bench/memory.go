// SPDX-License-Identifier: GPL-2.0-only

package main

import "fmt"

const rssBar = 10_000_000 / 1024 // KiB

// memory reads what the daemon holds after all that.
func (b *bench) memory() error {
	for _, m := range []struct {
		name, what, bar string
		met             func(kib uint64) bool
	}{
		{"VmRSS", "memory in use (VmRSS)", "<= 10 MB", func(kib uint64) bool { return kib <= rssBar }},
		{"VmHWM", "most memory ever in use (VmHWM)", "", nil},
		{"VmLck", "locked memory (VmLck)", "> 0", func(kib uint64) bool { return kib > 0 }},
	} {
		kib, err := memoryLine(b.daemon.pid(), m.name)
		if err != nil {
			return err
		}
		r := row{what: m.what, measured: fmt.Sprintf("%.1f MB", float64(kib)*1024/1e6), bar: m.bar, verdict: plain}
		if m.met != nil {
			r.verdict = judge(m.met(kib))
		}
		b.table.add(r)
	}
	b.table.note("VmLck counts reserved addresses; what is locked is what is in use, since pages are locked as they are touched")
	return nil
}
