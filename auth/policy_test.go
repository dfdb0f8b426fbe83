// SPDX-License-Identifier: GPL-2.0-only

package auth

import (
	"errors"
	"testing"
)

func TestParseSteps(t *testing.T) {
	for in, want := range map[string]string{
		"nsub":             "n,s,u,b",
		"n,s,u,b":          "n,s,u,b",
		"s:2s,u:500ms,b":   "s:2s,u:500ms,b",
		"b":                "b",
		"s:1m":             "s:60s",
		"s:10ms":           "s:10ms",
		"s:1.5s,u":         "s:1500ms,u",
		"t:30s,w:30s":      "t:30s,w:30s",
		"0,9":              "0,9",
		"reisub":           "r,e,i,s,u,b",
		"1234567":          "1,2,3,4,5,6,7",
		"s:59990ms,u:10ms": "s:59990ms,u:10ms",
	} {
		steps, err := ParseSteps(in)
		if err != nil || FormatSteps(steps) != want {
			t.Errorf("%q: %q, %v; want %q", in, FormatSteps(steps), err, want)
		}
	}
	for _, in := range []string{
		"", ",", "s,", ",s", "S", "s,,u", "su,b", "s:", "s:2", "s:-2s", "s:0s", "s:5ms", "s:61s", "s:31s,u:30s",
		"s:2s:3s", "12345678", "s,u,b,s,u,b,s,u", "s u b", "é", "s:1ns", "s:1000000h",
	} {
		if steps, err := ParseSteps(in); !errors.Is(err, ErrSteps) {
			t.Errorf("%q: %v, %v; want an error", in, steps, err)
		}
	}
}

func TestKeySet(t *testing.T) {
	s, err := ParseKeySet("zus0b9a")
	if err != nil || s.String() != "09absuz" {
		t.Errorf("set %q, %v", s, err)
	}
	for c := range 256 {
		want := c == 'z' || c == 'u' || c == 's' || c == '0' || c == 'b' || c == '9' || c == 'a'
		if s.Has(byte(c)) != want {
			t.Errorf("Has(%q) is %v", rune(c), !want)
		}
	}
	if s, err := ParseKeySet("Lns"); err != nil || s.String() != "nsL" || s&ReadLog == 0 || s.Has('L') || !s.Has('s') {
		t.Errorf("set with L: %q, %v", s, err)
	}
	if s, _ := ParseKeySet("0123456789abcdefghijklmnopqrstuvwxyz"); s&ReadLog != 0 {
		t.Error("all SysRq keys bring the log")
	}
	for _, in := range []string{"S", "s,u", "é", " ", "l,L", "nsubM"} {
		if _, err := ParseKeySet(in); err == nil {
			t.Errorf("%q is taken for a set", in)
		}
	}
}

func TestDestructive(t *testing.T) {
	for in, want := range map[string]bool{"nsub": true, "s": false, "t,w,l,m": false, "u": true, "f": true, "o": true, "c": true, "e": true, "9": false} {
		steps, err := ParseSteps(in)
		if err != nil {
			t.Fatal(err)
		}
		if Destructive(steps) != want {
			t.Errorf("Destructive(%s) is %v", in, !want)
		}
	}
}

func FuzzParseSteps(f *testing.F) {
	f.Add("n,s:2s,u:500ms,b")
	f.Add("nsub")
	f.Fuzz(func(t *testing.T, in string) {
		steps, err := ParseSteps(in)
		if err != nil {
			return
		}
		var r Request
		r.Op, r.ID = OpRun, RequestID{1}
		r.SetSteps(steps)
		var body [BodySize]byte
		r.encode(&body)
		if err := r.decode(body[:]); err != nil {
			t.Errorf("%q parses and is malformed: %v", in, err)
		}
	})
}
