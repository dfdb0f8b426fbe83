// SPDX-License-Identifier: GPL-2.0-only

//go:build integration

package e2e_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestLog reads the log of a host without the module, by the real queue and
// rules, and has it print something.
func TestLog(t *testing.T) {
	t.Parallel()
	h := newHost(t, plain)
	h.enrolNew("carol", "wL")
	h.enrolNew("dave", "w")
	var records strings.Builder
	for i := 1; i <= 1500; i++ {
		fmt.Fprintf(&records, "6,%d,%d,-;record %d %s\n", i, i*1000, i, strings.Repeat("x", i%70))
	}
	h.appendKmsg(records.String())
	h.start()

	read := func(r *report) (text []string) {
		t.Helper()
		var log struct {
			Lines []struct{ Text, Stamp string }
		}
		if err := json.Unmarshal([]byte(r.stdout), &log); err != nil {
			t.Fatal(err)
		}
		for _, l := range log.Lines {
			text = append(text, l.Text)
		}
		return text
	}
	for _, f := range families {
		lines := read(h.want(h.netsysrq(f, "", "log", hostName, "--all", "--key", h.masterOf("carol")), "answered", 0))
		if len(lines) < 1501 || lines[0] != "Linux version 6.1" || !strings.HasPrefix(lines[1500], "record 1500 x") {
			t.Errorf("%s: %d lines", f.name, len(lines))
		}
		h.want(h.netsysrq(f, "", "log", hostName, "--key", h.masterOf("dave")), "refused", 3)
		h.want(h.netsysrq(f, "", "run", hostName, "w", "--key", h.masterOf("dave")), "refused", 3)
	}
	h.wantTriggered("")

	number := 1501
	go func() {
		for range 200 {
			time.Sleep(50 * time.Millisecond)
			if h.triggered() == "w" {
				h.appendKmsg(fmt.Sprintf("6,%d,9000000,-;sysrq: Show Blocked State\n6,%d,9000001,-;task:dd state:D\n", number, number+1))
				return
			}
		}
	}()
	lines := read(h.want(h.netsysrq(v4, "", "run", hostName, "w", "--key", h.masterOf("carol")), "accepted", 0))
	if len(lines) != 2 || lines[1] != "task:dd state:D" {
		t.Errorf("run w: %q", lines)
	}
	h.wantTriggered("w")

	// A full table of connections swallows no piece: they are not tracked.
	if out := h.run(h.lab.Server, "conntrack", "-L"); out.code == 0 && strings.Contains(out.stdout, "sport=9 ") {
		t.Errorf("an answer is tracked:\n%s", out.stdout)
	}
}
