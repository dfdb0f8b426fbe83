// SPDX-License-Identifier: GPL-2.0-only

package drills

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"netsysrq/auth"
)

var (
	key   = auth.KeyID{0x60, 0x0e, 1, 2, 3, 4, 5, 6}
	other = auth.KeyID{0x70, 0x0e, 1, 2, 3, 4, 5, 6}
)

func TestRecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "netsysrq", "drills")
	if d, err := Read(path); err != nil || len(d) != 0 {
		t.Fatalf("%v, %v", d, err)
	}
	first := time.Date(2026, 1, 31, 4, 5, 6, 0, time.UTC)
	var group sync.WaitGroup
	for i := range 20 {
		group.Go(func() {
			if err := Record(path, []Drill{{"web1", key}, {fmt.Sprint("db", i), key}}, first); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	// Of a host, each key has its own.
	if err := Record(path, []Drill{{"web1", other}}, first.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	d, err := Read(path)
	if err != nil || len(d) != 22 || !d[Drill{"web1", key}].Equal(first) || !d[Drill{"web1", other}].Equal(first.Add(time.Hour)) ||
		!d[Drill{"db7", key}].Equal(first) || !d[Drill{"db7", other}].IsZero() {
		t.Errorf("%v, %v", d, err)
	}
	text, _ := os.ReadFile(path)
	if !strings.HasPrefix(string(text), "netsysrq-drills-2\n2026-01-31T04:05:06Z db0 600e010203040506\n") ||
		!strings.HasSuffix(string(text), "2026-01-31T05:05:06Z web1 700e010203040506\n") {
		t.Errorf("%s", text)
	}
	if left, _ := filepath.Glob(path + ".[0-9]*"); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

// A file that does not say with which keys counts for none, and is replaced.
func TestVersion1(t *testing.T) {
	path := filepath.Join(t.TempDir(), "drills")
	if err := os.WriteFile(path, []byte("# a comment\n2026-01-31T04:05:06Z web1\n2026-01-31T04:05:06Z web2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if d, err := Read(path); err != nil || len(d) != 0 {
		t.Errorf("%v, %v", d, err)
	}
	if err := Record(path, []Drill{{"web1", key}}, time.Now()); err != nil {
		t.Error(err)
	}
	if d, err := Read(path); err != nil || len(d) != 1 {
		t.Errorf("%v, %v", d, err)
	}
}

func TestMistakes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "drills")
	for _, text := range []string{
		"yesterday web1", "netsysrq-drills-3", "2026-01-31T04:05:06Z", "2026-01-31T04:05:06Z a b",
		version + "\n2026-01-31T04:05:06Z web1", version + "\n2026-01-31T04:05:06Z web1 600e", version + "\nyesterday web1 600e010203040506",
		version + "\n2026-01-31T04:05:06Z web1 600e010203040506 more", "2026-01-31T04:05:06Z web1\n2026-01-31T04:05:06Z web1 600e010203040506",
	} {
		if err := os.WriteFile(path, []byte("# a comment\n"+text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		line := fmt.Sprintf("drills:%d: ", 2+strings.Count(text, "\n"))
		if _, err := Read(path); err == nil || !strings.Contains(err.Error(), line) {
			t.Errorf("%q: %v", text, err)
		}
		if err := Record(path, []Drill{{"web1", key}}, time.Now()); err == nil {
			t.Errorf("%q was replaced", text)
		}
	}
}
