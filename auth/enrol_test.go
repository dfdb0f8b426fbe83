// SPDX-License-Identifier: GPL-2.0-only

package auth

import (
	"errors"
	"strings"
	"testing"
)

func TestEnrolment(t *testing.T) {
	e := &Enrolment{Operator: "alice", Host: "web1.example.org", Key: *testKey(t, "web1.example.org")}
	e.Allow, _ = ParseKeySet("nsub")
	line := e.Line()
	got, err := ParseEnrolment("  " + line + "\r\n")
	if err != nil || *got != *e {
		t.Fatalf("parsed %+v, %v", got, err)
	}
	if strings.ContainsAny(line, "\n") {
		t.Error("more than one line")
	}
}

// A damaged line must be refused: a wrong key looks like a dead host.
func TestEnrolmentDamaged(t *testing.T) {
	e := &Enrolment{Operator: "alice", Host: "web1", Key: *testKey(t, "web1")}
	line := e.Line()
	for i := range line {
		for _, c := range []byte{'0', 'a', 'B', ' '} {
			if line[i] == c {
				continue
			}
			b := []byte(line)
			b[i] = c
			if _, err := ParseEnrolment(string(b)); !errors.Is(err, ErrEnrolment) {
				t.Fatalf("byte %d replaced by %q: %v", i, c, err)
			}
		}
		if _, err := ParseEnrolment(line[:i]); !errors.Is(err, ErrEnrolment) {
			t.Fatalf("cut to %d bytes: %v", i, err)
		}
	}
	if _, err := ParseEnrolment(line + " x"); !errors.Is(err, ErrEnrolment) {
		t.Errorf("with a word more: %v", err)
	}
}

func FuzzEnrolment(f *testing.F) {
	e := &Enrolment{Operator: "alice", Host: "web1", Key: *testKey(f, "web1")}
	f.Add(e.Line())
	f.Fuzz(func(t *testing.T, line string) {
		got, err := ParseEnrolment(line)
		if err != nil {
			return
		}
		again, err := ParseEnrolment(got.Line())
		if err != nil || *again != *got {
			t.Errorf("%q reads as %+v and then as %+v, %v", line, got, again, err)
		}
	})
}
