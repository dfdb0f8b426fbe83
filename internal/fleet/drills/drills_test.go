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
			if err := Record(path, []string{"web1", fmt.Sprint("db", i)}, first); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if err := Record(path, []string{"web1"}, first.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	d, err := Read(path)
	if err != nil || len(d) != 21 || !d["web1"].Equal(first.Add(time.Hour)) || !d["db7"].Equal(first) {
		t.Errorf("%v, %v", d, err)
	}
	text, _ := os.ReadFile(path)
	if !strings.HasSuffix(string(text), "2026-01-31T05:05:06Z web1\n") {
		t.Errorf("%s", text)
	}
	if left, _ := filepath.Glob(path + ".[0-9]*"); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

func TestMistakes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "drills")
	for _, line := range []string{"yesterday web1", "2026-01-31T04:05:06Z", "2026-01-31T04:05:06Z a b"} {
		os.WriteFile(path, []byte("# a comment\n"+line+"\n"), 0o600)
		if _, err := Read(path); err == nil || !strings.Contains(err.Error(), "drills:2: ") {
			t.Errorf("%q: %v", line, err)
		}
	}
}
