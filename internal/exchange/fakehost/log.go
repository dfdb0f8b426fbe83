// SPDX-License-Identifier: GPL-2.0-only

package fakehost

import (
	"fmt"

	"netsysrq/auth"
)

// kernelLog is the log of a fake kernel: its records from oldest on.
type kernelLog struct {
	oldest  uint64
	records []string // as syslog(2) gives them
}

// Print logs a record as the kernel does. A line feed within it begins a line.
func (h *Host) Print(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Printk(format, args...)
}

// Printk is Print for use in OnRun.
func (h *Host) Printk(format string, args ...any) {
	at := h.now().Boot
	h.log.records = append(h.log.records, fmt.Sprintf("<6>[%5d.%06d] ", at/1e9, at%1e9/1e3)+fmt.Sprintf(format, args...)+"\n")
	if over := len(h.log.records) - h.cfg.Room; h.cfg.Room > 0 && over > 0 {
		h.log.oldest += uint64(over)
		h.log.records = h.log.records[over:]
	}
}

// Log returns what is left of the log, and the number of its first record.
func (h *Host) Log() (oldest uint64, records []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.log.oldest, append([]string(nil), h.log.records...)
}

// pieces answers a log that was granted.
func (h *Host) pieces(now auth.Instant, q *auth.Request, c auth.Challenge) (out [][]byte) {
	l := &h.log
	end := l.oldest + uint64(len(l.records))
	at := min(max(q.From, l.oldest), end)
	for index := range q.Pieces {
		p := auth.Piece{Time: now.Real, ID: q.ID, Challenge: c, Index: index, Boot: h.boot, First: at, End: end, Oldest: l.oldest}
		for at < end {
			record := l.records[at-l.oldest]
			if len(p.Text)+len(record) > auth.TextSize {
				if at > p.First {
					break
				}
				record = record[:auth.TextSize-1] + "\n"
				p.Flags |= auth.Cut
			}
			p.Text = append(p.Text, record...)
			if at++; p.Flags&auth.Cut != 0 {
				break
			}
		}
		p.Next = at
		if at == end || index+1 == q.Pieces {
			p.Flags |= auth.Last
		}
		out = append(out, h.sealer.SealPiece(&p))
		if p.Flags&auth.Last != 0 {
			break
		}
	}
	return out
}

// Fill logs about so many bytes.
func (h *Host) Fill(bytes int) {
	for i, n := 0, 0; n < bytes; i++ {
		line := fmt.Sprintf("filler %d: %0*d", i, i*7%90, i)
		n += len(line) + len("<6>[    0.000000] \n")
		h.Print("%s", line)
	}
}
