// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/clock"
	"netsysrq/internal/exchange"
	"netsysrq/internal/exchange/fakehost"
	"netsysrq/internal/fleet/hosts"
)

// safeBuffer is a stdout that several may use.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// quietWorld is the real world with a stdout and a home of the test's own, and
// a stderr that is not looked at.
func quietWorld(t *testing.T) (world, *safeBuffer) {
	t.Helper()
	home, out := t.TempDir(), new(safeBuffer)
	stderr, err := os.Create(filepath.Join(home, "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stderr.Close() })
	w := system()
	w.stdout, w.stderr = out, stderr
	w.getenv = func(name string) string { return map[string]string{"HOME": home, "USER": "alice"}[name] }
	return w, out
}

// printers are those of hosts web0 and so on, and their output.
func printers(t *testing.T, n int, o *options) (list []*logPrinter, out *safeBuffer) {
	t.Helper()
	w, out := quietWorld(t)
	o.command = &command{name: "log"}
	lo := &logOutput{s: &session{w: w, o: o, many: n > 1}}
	for i := range n {
		r := &result{options: o, host: &hosts.Host{Name: fmt.Sprint("web", i)}, many: n > 1}
		list = append(list, &logPrinter{out: lo, a: &logged{result: r}})
	}
	return list, out
}

func record(name string, i int) exchange.Records {
	return exchange.Records{Text: fmt.Appendf(nil, "<6>[    1.000000] %s line %d %s\n", name, i, strings.Repeat("x", 900))}
}

// Hosts that print far more than may wait for a turn never mix, lose nothing,
// and keep no more than that.
func TestLogBlocks(t *testing.T) {
	const n, lines = 8, 2500
	list, out := printers(t, n, &options{})
	var group sync.WaitGroup
	for i, p := range list {
		group.Go(func() {
			most := 0
			for line := range lines * (i % 2) {
				p.add(record(p.a.host.Name, line))
				most = max(most, p.block.Len())
			}
			if most > maxBlock || i%2 == 1 && most < maxBlock/2 {
				t.Errorf("%d bytes waited", most)
			}
			p.a.outcome = &exchange.Outcome{Kind: exchange.Answered}
			p.a.read = p.a.outcome
			p.out.end(p)
		})
	}
	group.Wait()
	blocks := strings.Split(strings.TrimPrefix(out.String(), "==> "), "\n\n==> ")
	if len(blocks) != n {
		t.Fatalf("%d blocks", len(blocks))
	}
	for _, b := range blocks {
		name, text, _ := strings.Cut(strings.TrimSuffix(b, "\n"), " <==")
		var got []string
		if text != "" {
			got = strings.Split(strings.TrimPrefix(text, "\n"), "\n")
		}
		var i int
		fmt.Sscanf(name, "web%d", &i)
		if len(got) != lines*(i%2) {
			t.Errorf("%s: %d lines", name, len(got))
		}
		for j, l := range got {
			if want := fmt.Sprintf("] %s line %d x", name, j); !strings.Contains(l, want) {
				t.Fatalf("line %d of %s: %.60q", j, name, l)
			}
		}
	}
}

// No host prints in the name of another.
func TestLogForgedHeader(t *testing.T) {
	for _, follow := range []bool{false, true} {
		list, out := printers(t, 2, &options{follow: follow})
		p := list[0]
		p.add(exchange.Records{Text: []byte("<6>==> web1 <==\n==> web1 <==\nweb1: all is well\n")})
		p.a.outcome = &exchange.Outcome{Kind: exchange.Answered}
		p.a.read = p.a.outcome
		p.out.end(p)
		want := "==> web0 <==\n\\x3d=> web1 <==\n\\x3d=> web1 <==\nweb1: all is well\n"
		if follow {
			want = "web0: ==> web1 <==\nweb0: ==> web1 <==\nweb0: web1: all is well\n"
		}
		if got := out.String(); got != want {
			t.Errorf("follow %v: %q", follow, got)
		}
	}
}

// A long log is more than one JSON object, and none of them is long.
func TestLogParts(t *testing.T) {
	const lines = 3000
	list, out := printers(t, 1, &options{json: true})
	p := list[0]
	for i := range lines {
		p.add(record("web0", i))
	}
	p.add(exchange.Records{First: 7, Next: 9, Lost: true})
	p.a.outcome = &exchange.Outcome{Kind: exchange.Answered}
	p.a.read = p.a.outcome
	p.out.end(p)
	objects := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(objects) != 3 {
		t.Fatalf("%d objects", len(objects))
	}
	at := 0
	for i, o := range objects {
		var got struct {
			Host, Outcome, Message string
			More                   bool
			Sent                   *int `json:"packets_sent"`
			Lines                  []lineReport
			Missing                []missingReport
		}
		if err := json.Unmarshal([]byte(o), &got); err != nil {
			t.Fatal(err)
		}
		last := i == len(objects)-1
		if got.Host != "web0" || got.Outcome != "answered" || got.More == last || (got.Sent != nil) != last || (got.Message != "") != last || len(got.Missing) > 0 != last {
			t.Errorf("object %d: %.200s … %s", i, o, o[len(o)-200:])
		}
		if len(o) > 2*maxBlock {
			t.Errorf("object %d has %d bytes", i, len(o))
		}
		for _, l := range got.Lines {
			if !strings.HasPrefix(l.Text, fmt.Sprintf("web0 line %d x", at)) || *l.Level != 6 {
				t.Fatalf("line %d: %+v", at, l)
			}
			at++
		}
	}
	if at != lines {
		t.Errorf("%d lines", at)
	}
}

// logFleet is hosts web0 and so on in a list of hosts, whose logs can be read.
func logFleet(t *testing.T, w world, n int) (fleet []*fakehost.Host) {
	t.Helper()
	op := &operator{"alice", auth.NewMaster()}
	dir := w.userDir("XDG_CONFIG_HOME", ".config")
	if err := saveMaster(filepath.Join(dir, "master.key"), op); err != nil {
		t.Fatal(err)
	}
	known := map[auth.KeyID]*fakehost.Host{}
	list := ""
	for i := range n {
		name := fmt.Sprint("web", i)
		key, err := op.master.HostKey(name)
		if err != nil {
			t.Fatal(err)
		}
		h := fakehost.New(fakehost.Config{Key: key, Allow: auth.ReadLog, Synchronised: true,
			Clock: func() (uint64, uint64) { return clock.Real(), 1e18 + clock.Boot() }}, time.Hour)
		known[key.ID] = h
		fleet = append(fleet, h)
		list += fmt.Sprintf("[hosts.%s]\naddress = %q\n", name, fakehost.Address(i))
	}
	many, err := fakehost.ListenMany(known)
	if err != nil {
		t.Skipf("SKIP: %v", err)
	}
	t.Cleanup(func() { many.Close() })
	go many.Serve()
	list = fmt.Sprintf("[defaults]\nport = %d\n", many.Port()) + list
	if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(list), 0o600); err != nil {
		t.Fatal(err)
	}
	return fleet
}

// Hosts that are followed tell line by line, with their names, until the
// operator ends it.
func TestLogFollowsMany(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		t.Run(format, func(t *testing.T) {
			w, out := quietWorld(t)
			fleet := logFleet(t, w, 3)
			for _, h := range fleet {
				h.Print("before")
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			go func() {
				defer cancel()
				for i := range 3 {
					for strings.Count(out.String(), "before")+strings.Count(out.String(), "later") < 3+i && ctx.Err() == nil {
						time.Sleep(10 * time.Millisecond)
					}
					fleet[2-i].Print("later %d\nand more", i)
				}
				for strings.Count(out.String(), "and more") < 3 && ctx.Err() == nil {
					time.Sleep(10 * time.Millisecond)
				}
			}()
			args := []string{"log", "@all", "--follow"}
			if format == "json" {
				args = append(args, "--json")
			}
			if code := run(ctx, args, w); code != exitOK || context.Cause(ctx) != context.Canceled {
				t.Errorf("exit code %d, %v", code, context.Cause(ctx))
			}
			got := out.String()
			var names []string
			for i := range 3 {
				names = append(names, fmt.Sprint("web", 2-i))
				want := fmt.Sprintf("later %d\n", i)
				if format == "json" {
					want = fmt.Sprintf("later %d\"},", i)
				}
				line := ""
				for l := range strings.Lines(got) {
					if strings.Contains(l, want) {
						line = l
					}
				}
				prefix := names[i] + ": ["
				if format == "json" {
					prefix = `{"v":1,"host":"` + names[i] + `","command":"log","outcome":"answered","exit":0,`
				}
				if !strings.HasPrefix(line, prefix) {
					t.Errorf("of %s: %q", names[i], line)
				}
			}
			for l := range strings.Lines(got) {
				if format == "text" && !strings.HasPrefix(l, "web") || format == "json" && !json.Valid([]byte(l)) {
					t.Errorf("%q", l)
				}
			}
			stderr := readFile(t, w.stderr.Name())
			if sum := "3 hosts in "; format == "text" && !(strings.Contains(stderr, sum) && strings.Contains(stderr, ": 3 read\n")) || format == "json" && stderr != "" {
				t.Errorf("stderr: %q", stderr)
			}
		})
	}
}

// ^C ends it all: what was read is printed, and who was not asked is named.
func TestLogInterrupted(t *testing.T) {
	w, out := quietWorld(t)
	fleet := logFleet(t, w, 3)
	fleet[0].Print("here")
	fleet[1].Mute(true)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for end := time.Now().Add(time.Minute); !strings.Contains(out.String(), "here") && time.Now().Before(end); {
			time.Sleep(10 * time.Millisecond)
		}
		cancel()
	}()
	code := run(ctx, []string{"log", "@all", "--parallel", "1", "--timeout", "1h"}, w)
	stderr := readFile(t, w.stderr.Name())
	if code != exitUnknown || strings.Count(out.String(), "==> ") != 1 || !strings.Contains(stderr, "netsysrq: web1: interrupted after ") ||
		!strings.Contains(stderr, "1 interrupted, 1 not asked, 1 read; not asked: web2\n") {
		t.Errorf("exit code %d\n%s\n%s", code, out, stderr)
	}
}

// Not more hosts than can be followed are, and they are all read at once.
func TestLogFollowsNotTooMany(t *testing.T) {
	w, _ := quietWorld(t)
	dir := w.userDir("XDG_CONFIG_HOME", ".config")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var list strings.Builder
	for i := range maxFollowed + 1 {
		fmt.Fprintf(&list, "[hosts.web%d]\n", i)
	}
	if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(list.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	code := run(t.Context(), []string{"log", "@all", "--follow"}, w)
	if stderr := readFile(t, w.stderr.Name()); code != exitUsage || !strings.Contains(stderr, "--follow is for 1000 hosts at most, not 1001") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
