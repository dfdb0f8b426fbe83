// SPDX-License-Identifier: GPL-2.0-only

//go:build integration

package e2e_test

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/promtext"
)

// TestMetrics: the daemon, which is an ordinary user by then, tells a monitoring
// system what it did.
func TestMetrics(t *testing.T) {
	t.Parallel()
	h := newHost(t, plain)
	dir := filepath.Join(h.dir, "metrics")
	path := filepath.Join(dir, "netsysrq.prom")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	h.configure("metrics", strconv.Quote(path))
	h.niced = true // whoever starts it has reasons; both lanes work all the same
	before := time.Now().Add(-time.Second)
	h.start()

	read := func() map[string]float64 {
		t.Helper()
		text, err := os.ReadFile(path)
		if err != nil {
			return nil
		}
		m, err := promtext.Parse(string(text))
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		return m.Values
	}
	h.wait("the first metrics", func() bool { return read() != nil })
	for name, want := range map[string]float64{
		"netsysrqd_keys": 1, "netsysrqd_keys_complete": 1, "netsysrqd_module_armed": 0, "netsysrqd_dry_run": 0,
		"netsysrqd_last_reload_successful": 1, `netsysrqd_queue_bound{lane="quiet"}`: 1, `netsysrqd_queue_bound{lane="busy"}`: 1,
		`netsysrqd_requests_total{result="accepted"}`: 0, `netsysrqd_packets_ignored_total{reason="forged"}`: 0,
	} {
		if v, ok := read()[name]; !ok || v != want {
			t.Errorf("at first %s is %v, want %v", name, v, want)
		}
	}
	if v := read()["netsysrqd_start_time_seconds"]; v < float64(before.Unix()) || v > float64(time.Now().Unix()+1) {
		t.Errorf("started at %v", v)
	}

	p := h.peer(v4)
	if r := p.do(h.alice, "h", 0); r.Result != auth.Accepted {
		t.Fatal(r.Result)
	}
	if r := p.do(h.alice, "h", auth.Rehearse); r.Result != auth.Accepted {
		t.Fatal(r.Result)
	}
	master := auth.NewMaster()
	stranger, err := master.HostKey(hostName)
	if err != nil {
		t.Fatal(err)
	}
	req := h.runOf("h", 0, auth.Challenge{})
	sealed := auth.NewSealer(&stranger).SealRequest(&req)
	for range 3 {
		p.send(sealed[:])
	}
	h.enrolNew("bob", "h")
	h.reload("reloaded")
	h.wait("what was done in the metrics", func() bool {
		v := read()
		return v[`netsysrqd_requests_total{result="accepted"}`] == 1 && v[`netsysrqd_requests_total{result="rehearsed"}`] == 1 &&
			v[`netsysrqd_packets_ignored_total{reason="unknown-key"}`] == 3 && v["netsysrqd_keys"] == 2
	})
	if at := read()[`netsysrqd_last_request_timestamp_seconds{result="accepted"}`]; at < float64(before.Unix()) || at > float64(time.Now().Unix()+1) {
		t.Errorf("accepted at %v", at)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("mode %v %v", info.Mode(), err)
	}
	if files, _ := os.ReadDir(dir); len(files) != 1 {
		t.Errorf("left %v", files)
	}

	h.write(filepath.Join(h.keys, "broken.key"), "x", 0o600)
	h.reload("reload: keys not taken, the old ones stay")
	h.wait("a reload that failed in the metrics", func() bool { return read()["netsysrqd_last_reload_successful"] == 0 })
	for _, lane := range []string{"quiet", "busy"} {
		if v := read()[`netsysrqd_queue_bound{lane="`+lane+`"}`]; v != 1 {
			t.Errorf("the %s lane is not read", lane)
		}
	}
}
