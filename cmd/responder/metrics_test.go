// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"regexp"
	"strings"
	"testing"

	"netsysrq/auth"
	"netsysrq/cmd/responder/internal/metrics"
	"netsysrq/internal/doctest"
	"netsysrq/internal/promtext"
)

// What the daemon writes keeps to the format, and says how things are.
func TestFamilies(t *testing.T) {
	r := newDaemonRig(t)
	r.lanes = []*lane{{Lane: r.gate.Lane(), name: "quiet", dropped: 7}}
	r.ignored[auth.ReasonForged] = 3
	read := func() map[string]float64 {
		t.Helper()
		text := metrics.Text(r.families())
		m, err := promtext.Parse(string(text))
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		return m.Values
	}
	before := read()
	r.arm()
	r.drop(r.keys)
	after := read()
	for name, want := range map[string][2]float64{
		"netsysrqd_module_armed": {0, 1},
		"netsysrqd_keys":         {1, 0},
		`netsysrqd_packets_ignored_total{reason="forged"}`:    {3, 3},
		`netsysrqd_queue_dropped_packets_total{lane="quiet"}`: {7, 7},
		`netsysrqd_queue_bound{lane="quiet"}`:                 {0, 0},
	} {
		if got := [2]float64{before[name], after[name]}; got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

// TestMetricsAreDocumented: the page has the metrics that there are, and what the
// examples ask for is there.
func TestMetricsAreDocumented(t *testing.T) {
	there := doctest.Words{}
	for _, f := range newDaemonRig(t).families() {
		there.Add(f.Name)
	}
	in := func(text string) doctest.Words {
		return doctest.Set(regexp.MustCompile(`\bnetsysrqd_[a-z_]+`).FindAllString(text, -1)...)
	}
	_, section, _ := strings.Cut(doctest.Read(t, manual), ".Sh METRICS")
	section, _, _ = strings.Cut(section, ".Sh ")
	doctest.Same(t, "METRICS of the page", in(section), there)
	guide := in(doctest.Read(t, "../../docs/OPERATIONS.md"))
	if len(guide) < 4 {
		t.Error("the guide has no examples")
	}
	for name := range guide {
		if !there[name] {
			t.Errorf("the guide asks for %s, which is not there", name)
		}
	}
}
