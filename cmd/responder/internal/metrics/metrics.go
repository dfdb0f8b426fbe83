// SPDX-License-Identifier: GPL-2.0-only

// Package metrics counts what the daemon does, and writes it to a file in the
// text format of Prometheus, which node_exporter reads.
package metrics

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Kind is the type of a metric.
type Kind string

// Kinds.
const (
	Counter Kind = "counter"
	Gauge   Kind = "gauge"
)

// Family is a metric: one sample, or one for each value of a label.
type Family struct {
	Name    string
	Kind    Kind
	Help    string
	Label   string // "": the only sample has none
	Samples []Sample
}

// Sample is one value of a metric.
type Sample struct {
	Of     string // value of the label
	Number float64
}

// One is the sample of a metric without a label.
func One[T int | int64 | uint64 | float64](n T) []Sample { return []Sample{{"", float64(n)}} }

// Is is 1 for what is so.
func Is(yes bool) []Sample {
	if yes {
		return One(1)
	}
	return One(0)
}

var (
	escapeHelp  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	escapeLabel = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

// Text writes metrics in the text-based exposition format, version 0.0.4. One
// without samples is left out.
func Text(families []Family) []byte {
	var b bytes.Buffer
	for _, f := range families {
		if len(f.Samples) == 0 {
			continue
		}
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n", f.Name, escapeHelp.Replace(f.Help), f.Name, f.Kind)
		for _, s := range f.Samples {
			b.WriteString(f.Name)
			if f.Label != "" {
				fmt.Fprintf(&b, `{%s="%s"}`, f.Label, escapeLabel.Replace(s.Of))
			}
			fmt.Fprintf(&b, " %s\n", number(s.Number))
		}
	}
	return b.Bytes()
}

// number is a float as Go writes it, without an exponent where that is exact.
func number(v float64) string {
	if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
		return strconv.FormatInt(int64(v), 10)
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}
