// SPDX-License-Identifier: GPL-2.0-only

//go:build integration

package e2e_test

import (
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"netsysrq/auth"
)

// TestPrivilege looks at what the running daemon could do if it were taken over.
func TestPrivilege(t *testing.T) {
	t.Parallel()
	h := newHost(t, plain)
	h.start()
	h.want(h.netsysrq(v4, "", "send", hostName, "h"), "accepted", 0)
	h.want(h.netsysrq(v6, "", "reboot", hostName, "--yes"), "accepted", 0)
	h.wantTriggered("hnsub")

	pid := h.daemon.Process.Pid
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(threads) < 2 {
		t.Fatalf("%d threads: %v", len(threads), err)
	}
	const netAdmin = "0000000000001000" // 1 << CAP_NET_ADMIN
	const none = "0000000000000000"
	for _, path := range threads {
		s := readStatus(t, path)
		for field, want := range map[string]string{
			"Uid": "65534 65534 65534 65534", "Gid": "65534 65534 65534 65534", "Groups": "",
			"CapEff": netAdmin, "CapPrm": netAdmin, "CapInh": none, "CapAmb": none, "CapBnd": none, "NoNewPrivs": "1",
		} {
			if s[field] != want {
				t.Errorf("%s: %s is %q, want %q", path, field, s[field], want)
			}
		}
	}
	s := readStatus(t, fmt.Sprintf("/proc/%d/status", pid))
	if kib(t, s["VmLck"]) == 0 {
		t.Errorf("no memory is locked")
	}
	rss := kib(t, s["VmRSS"])
	t.Logf("VmRSS %d KiB, VmHWM %s, VmLck %s, %d threads", rss, s["VmHWM"], s["VmLck"], len(threads))
	if rss > 10<<10 {
		t.Errorf("resident memory is %d KiB, more than 10 MiB", rss)
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(limits)) {
		if strings.HasPrefix(l, "Max core file size") && strings.Join(strings.Fields(l)[4:6], " ") != "0 0" {
			t.Errorf("core dumps: %s", l)
		}
	}
	// A process that is not dumpable has a /proc directory that belongs to root.
	info, err := os.Stat(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil || info.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Errorf("the daemon can be dumped and traced by its own user: %v", err)
	}

	files, err := filepath.Glob(filepath.Join(h.keys, "*.key"))
	if err != nil || len(files) != 1 {
		t.Fatalf("key files: %v %v", files, err)
	}
	for path, mode := range map[string]os.FileMode{files[0]: 0o640, h.keys: 0o750} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		st := info.Sys().(*syscall.Stat_t)
		if info.Mode().Perm() != mode || st.Uid != 0 || st.Gid != nobody {
			t.Errorf("%s: mode %v of %d:%d", path, info.Mode(), st.Uid, st.Gid)
		}
	}
	if info, err := os.Stat(h.master); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("master key: %v %v", info, err)
	}
	h.stop()
}

// readStatus reads a status file of proc, with single spaces between values.
func readStatus(t *testing.T, path string) map[string]string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := map[string]string{}
	for l := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(l, ":")
		s[name] = strings.Join(strings.Fields(value), " ")
	}
	return s
}

func kib(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSuffix(s, " kB"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestStatic makes sure that both commands run on any Linux of their
// architecture: no interpreter, no shared libraries.
func TestStatic(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("the binaries are built for root only, who runs the other tests")
	}
	for _, path := range []string{plain.responder, plain.sender} {
		f, err := elf.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for _, p := range f.Progs {
			if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
				t.Errorf("%s has a %v segment", filepath.Base(path), p.Type)
			}
		}
		if f.Section(".dynamic") != nil || f.Section(".interp") != nil {
			t.Errorf("%s is linked dynamically", filepath.Base(path))
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %.1f MiB", filepath.Base(path), float64(info.Size())/(1<<20))
	}
}

// TestReload changes keys and configuration under a running daemon.
func TestReload(t *testing.T) {
	t.Parallel()
	h := newHost(t, plain)
	h.start()
	p := h.peer(v4)
	pid := h.daemon.Process.Pid
	done := ""
	works := func(s *auth.Sealer, key string) {
		t.Helper()
		if r := p.do(s, key, 0); r.Result != auth.Accepted || r.Flags&auth.DryRun != 0 {
			t.Fatalf("%s: %v %v", key, r.Result, r.Flags)
		}
		done += key
		h.wantTriggered(done)
	}
	works(h.alice, "a")
	// What the ledger knows outlives a reload.
	run := h.runOf("d", 0, p.challenge(h.alice))
	if r := p.ask(h.alice, run); r.Result != auth.Accepted {
		t.Fatal(r.Result)
	}
	done += "d"
	h.wantTriggered(done)
	packet := h.alice.SealRequest(&run)

	t.Log("an added key")
	bob, id := h.enrolNew("bob", "fgh")
	h.reload("reloaded")
	works(bob, "f")
	works(h.alice, "g")
	if r := p.do(bob, "a", 0); r.Result != auth.RefPolicy {
		t.Errorf("bob may do all: %v", r.Result)
	}
	p.send(packet[:])
	if r, ok := p.receive(h.alice, patience, run.ID); !ok || r.Flags&auth.Repeat == 0 {
		t.Errorf("the ledger forgot by a reload: %v", r)
	}

	t.Log("a broken key file, a broken configuration")
	broken := filepath.Join(h.keys, "zoe-0011223344556677.key")
	for name, breakIt := range map[string]func(){
		"text":     func() { h.write(broken, "operator = \"zoe\"\n", 0o600) },
		"exposed":  func() { h.write(broken, "", 0o666) },
		"settings": func() { h.write(h.config, "prot = 9\n", 0o644) },
		"no toml":  func() { h.write(h.config, "port = = 9\n", 0o644) },
		"no file":  func() { os.Remove(h.config) },
	} {
		breakIt()
		message := "reload: configuration not taken, the old one stays"
		if name == "text" || name == "exposed" {
			message = "reload: keys not taken, the old ones stay"
		}
		h.reload(message)
		works(h.alice, "h")
		works(bob, "g")
		os.Remove(broken)
		h.configure("", "")
	}

	t.Log("a removed key is dead at once, also in what is on its way")
	c := p.challenge(bob)
	h.must(h.run(h.lab.Server, h.bin.responder, "--config", h.config, "keys", "remove", id.String()))
	h.reload("reloaded")
	dead := h.runOf("f", 0, c)
	last := bob.SealRequest(&dead)
	p.send(last[:])
	if r, ok := p.receive(bob, 500e6, dead.ID); ok {
		t.Errorf("a removed key was answered: %v", r.Result)
	}
	works(h.alice, "j")

	t.Log("a removed key is dead whatever is wrong with another file")
	carol, id := h.enrolNew("carol", "f")
	h.reload("reloaded")
	works(carol, "f")
	h.write(broken, "operator = \"zoe\"\n", 0o600)
	h.must(h.run(h.lab.Server, h.bin.responder, "--config", h.config, "keys", "remove", id.String()))
	h.reload("reload: keys not taken, the old ones stay")
	ask := p.status()
	packet = carol.SealRequest(&ask)
	p.send(packet[:])
	if _, ok := p.receive(carol, 500e6, ask.ID); ok {
		t.Error("a removed key was answered")
	}
	works(h.alice, "h")

	t.Log("the daemon starts without the broken key, and with the others")
	if h.daemon.Process.Pid != pid {
		t.Error("another daemon")
	}
	h.stop()
	if n := h.counted()["unknown-key"]; n != 2 {
		t.Errorf("%d packets of unknown keys were counted, want 2", n)
	}
	h.start()
	works(h.alice, "m")
	h.wantLines("key not in force", 1)
	os.Remove(broken)
	pid = h.daemon.Process.Pid

	t.Log("dry_run")
	h.configure("dry_run", "true")
	h.reload("reloaded")
	if r := p.do(h.alice, "k", 0); r.Result != auth.Accepted || r.Flags&auth.DryRun == 0 {
		t.Errorf("dry run: %v %v", r.Result, r.Flags)
	}
	h.wantLines("step left out", 1)
	h.configure("dry_run", "false")
	h.reload("reloaded")
	works(h.alice, "l")
	if h.daemon.Process.Pid != pid {
		t.Error("another daemon")
	}
	h.stop()
}

// TestNobodyReadsTheLog: the daemon obeys although its log goes to a pipe that
// nobody reads, and although that pipe is then closed.
func TestNobodyReadsTheLog(t *testing.T) {
	t.Parallel()
	h := newHost(t, plain)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	h.stderr = w
	h.start()
	w.Close()
	p := h.peer(v4)
	// More lines than a pipe holds: 64 KiB.
	done := ""
	for range 150 {
		for _, key := range "abcd" {
			if r := p.do(h.alice, string(key), 0); r.Result != auth.Accepted {
				t.Fatalf("after %d steps: %v", len(done), r.Result)
			}
			done += string(key)
			h.wantTriggered(done)
		}
	}
	r.Close()
	if r := p.do(h.alice, "f", 0); r.Result != auth.Accepted {
		t.Fatalf("with a closed log: %v", r.Result)
	}
	h.wantTriggered(done + "f")
	h.alive()
}
