// SPDX-License-Identifier: GPL-2.0-only

package metrics

import (
	"math"
	"strings"
	"testing"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/promtext"
)

// What the format has rules for comes back as it was.
func TestText(t *testing.T) {
	text := Text([]Family{
		{Name: "a_total", Kind: Counter, Help: "Back\\slash and\nline feed.", Label: "reason",
			Samples: []Sample{{`quote " back \ line` + "\n", 1}, {"", 1 << 40}, {"ünï", 0}}},
		{Name: "empty", Kind: Gauge, Help: "Nothing."},
		{Name: "b_seconds", Kind: Gauge, Help: "A time.", Samples: One(1767323045.125)},
		{Name: "c", Kind: Gauge, Help: "A fact.", Samples: Is(true)},
		{Name: "d", Kind: Gauge, Help: "No number.", Samples: One(math.Inf(1))},
	})
	got, err := promtext.Parse(string(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for name, want := range map[string]float64{
		`a_total{reason="quote \" back \\ line\n"}`: 1, `a_total{reason=""}`: 1 << 40, `a_total{reason="ünï"}`: 0,
		"b_seconds": 1767323045.125, "c": 1, "d": math.Inf(1),
	} {
		if v, ok := got.Values[name]; !ok || v != want {
			t.Errorf("%s is %v, want %v", name, v, want)
		}
	}
	if len(got.Values) != 6 || got.Types["a_total"] != "counter" || got.Help["a_total"] != "Back\\slash and\nline feed." {
		t.Errorf("%+v", got)
	}
	if strings.Contains(string(text), "empty") {
		t.Error("a metric without samples is named")
	}
}

func TestRequests(t *testing.T) {
	var r Requests
	at := time.Date(2026, 1, 2, 3, 4, 5, 250e6, time.UTC)
	r.Count(auth.Accepted, 0, 4, at)
	r.Count(auth.Accepted, auth.Rehearsed, 4, at)
	r.Count(auth.Accepted, auth.DryRun, 4, at)
	r.Count(auth.Accepted, 0, 0, at)
	r.Count(auth.Vetoed, 0, 4, at)
	r.Count(auth.Malformed, 0, 0, at)
	r.Count(200, 0, 4, at) // of a module that knows more
	r.Unattended()
	(*Requests)(nil).Count(auth.Accepted, 0, 4, at)
	(*Requests)(nil).Unattended()
	got, err := promtext.Parse(string(Text(r.Families())))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]float64{
		`netsysrqd_requests_total{result="accepted"}`:                  1,
		`netsysrqd_requests_total{result="rehearsed"}`:                 2,
		`netsysrqd_requests_total{result="barrier"}`:                   1,
		`netsysrqd_requests_total{result="vetoed"}`:                    1,
		`netsysrqd_requests_total{result="malformed"}`:                 1,
		`netsysrqd_requests_total{result="stale"}`:                     0,
		`netsysrqd_requests_unattended_total`:                          1,
		`netsysrqd_last_request_timestamp_seconds{result="vetoed"}`:    1767323045.25,
		`netsysrqd_last_request_timestamp_seconds{result="rehearsed"}`: 1767323045.25,
	} {
		if v, ok := got.Values[name]; !ok || v != want {
			t.Errorf("%s is %v, want %v", name, v, want)
		}
	}
	if _, ok := got.Values[`netsysrqd_last_request_timestamp_seconds{result="stale"}`]; ok {
		t.Error("what never came has a time")
	}
}
