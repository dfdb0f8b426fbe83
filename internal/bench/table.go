// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// row is one comparison. Empty fields are shown as a dash.
type row struct {
	what, measured, reference, ratio, bar string
	verdict                               verdict
}

type verdict string

const (
	fine  verdict = "ok"
	fail  verdict = "FAIL"
	noisy verdict = "noisy" // a repetition met the bar
	plain verdict = "-"     // no bar
)

func judge(met bool) verdict {
	if met {
		return fine
	}
	return fail
}

// table collects rows and notes.
type table struct {
	rows  []row
	notes []string
}

func (t *table) add(r row) { t.rows = append(t.rows, r) }

func (t *table) note(format string, a ...any) { t.notes = append(t.notes, fmt.Sprintf(format, a...)) }

// missed counts the rows that miss their bar.
func missed(rows []row) (n int) {
	for _, r := range rows {
		if r.verdict == fail || r.verdict == noisy {
			n++
		}
	}
	return n
}

func (t *table) print(w io.Writer) {
	if len(t.rows) == 0 {
		return
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "WHAT\tMEASURED\tREFERENCE\tRATIO\tBAR\t")
	for _, r := range t.rows {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\n", r.what, dash(r.measured), dash(r.reference), dash(r.ratio), dash(r.bar), r.verdict)
	}
	tw.Flush()
	for _, n := range t.notes {
		fmt.Fprintf(w, "note: %s\n", n)
	}
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// compare makes the row of paired measurements, of which pairs are the ratios
// one by one: the ratio of the medians has to stay below the bar.
func compare(what, unit string, measured, reference []float64, bar float64) row {
	ratio := median(measured) / median(reference)
	least, most := pairRange(measured, reference)
	r := row{
		what:      what,
		measured:  fmt.Sprintf("%.1f %s", median(measured), unit),
		reference: fmt.Sprintf("%.1f %s", median(reference), unit),
		ratio:     fmt.Sprintf("%.2f (%.2f-%.2f)", ratio, least, most),
		verdict:   plain,
	}
	if bar > 0 {
		r.bar = fmt.Sprintf("<= %.1f", bar)
		r.verdict = judge(ratio <= bar)
		if r.verdict == fail && least <= bar {
			r.verdict = noisy
		}
	}
	return r
}

func pairRange(measured, reference []float64) (least, most float64) {
	for i := range measured {
		q := measured[i] / reference[i]
		if i == 0 {
			least, most = q, q
		}
		least, most = min(least, q), max(most, q)
	}
	return least, most
}

// bound makes the row of a time that has a bar of its own.
func bound(what string, d, bar time.Duration) row {
	return row{what: what, measured: short(d), bar: "<= " + short(bar), verdict: judge(d <= bar)}
}

// short words a time with three digits or so.
func short(d time.Duration) string {
	switch {
	case d >= time.Second:
		return fmt.Sprintf("%.3g s", d.Seconds())
	case d >= time.Millisecond:
		return fmt.Sprintf("%.3g ms", float64(d)/1e6)
	}
	return fmt.Sprintf("%.3g µs", float64(d)/1e3)
}
