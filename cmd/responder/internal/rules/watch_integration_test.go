// SPDX-License-Identifier: GPL-2.0-only

//go:build integration

package rules

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// record is a log that a test reads while it is written.
type record struct {
	sync.Mutex
	buffer bytes.Buffer
}

func (r *record) Write(b []byte) (int, error) {
	r.Lock()
	defer r.Unlock()
	return r.buffer.Write(b)
}

// take returns the lines since it was last called.
func (r *record) take() (lines []string) {
	r.Lock()
	defer r.Unlock()
	for line := range strings.Lines(r.buffer.String()) {
		lines = append(lines, strings.TrimSpace(line))
	}
	r.buffer.Reset()
	return lines
}

// watched waits until the rules are in place and first, for as long as the watcher
// may take, and then for more lines of its log. Each mending is one.
func (l *lab) watched(set Set, log *record, what string, mended int) {
	l.Helper()
	start := time.Now()
	for {
		if l.states(set) == "IPv4 3 false;IPv6 3 false;" {
			break
		}
		if time.Since(start) > 5*time.Second {
			l.Fatalf("%s: after %v: %s; %q", what, time.Since(start), l.states(set), log.take())
		}
		time.Sleep(50 * time.Millisecond)
	}
	time.Sleep(2 * time.Second)
	lines := log.take()
	if len(lines) != mended {
		l.Errorf("%s: %d lines, not %d: %q", what, len(lines), mended, lines)
	}
	for _, line := range lines {
		if !strings.Contains(line, "put back") {
			l.Errorf("%s: %s", what, line)
		}
	}
	l.want(set, Present, false)
}

// TestWatch: what others do to the rules is undone within seconds, with one line of
// the log each time.
func TestWatch(t *testing.T) {
	each(t, func(t *testing.T, l *lab) {
		for _, b := range []string{nft, legacy} {
			if l.set.find("iptables-"+b) == "" {
				t.Skipf("iptables-%s is not installed", b)
			}
		}
		// What iptables stands for is another backend later.
		bin := t.TempDir()
		alternative := func(backend string) {
			link := filepath.Join(bin, "iptables")
			os.Remove(link)
			if err := os.Symlink(l.set.find("iptables-"+backend), link); err != nil {
				t.Fatal(err)
			}
		}
		alternative(l.set.Backend)
		set := l.set
		set.Backend, set.Path = "auto", bin

		log, ready := &record{}, make(chan struct{})
		w := &Watcher{
			Set:   func() (Set, error) { return set, nil },
			Log:   slog.New(slog.NewTextHandler(log, nil)),
			Ready: func() error { close(ready); return nil },
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- l.net.Do(l.net.Server, func() error { return w.Run(ctx) }) }()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		select {
		case <-ready:
		case <-time.After(30 * time.Second):
			t.Fatal("the watcher has not looked at the rules")
		}
		l.watched(set, log, "begin", 1)

		raw := func(args ...string) {
			for _, c := range []string{"iptables-", "ip6tables-"} {
				l.tables(append([]string{c + l.set.Backend, "-t", "raw"}, args...)...)
			}
		}
		raw("-A", "PREROUTING", "-p", "tcp", "-j", "ACCEPT")
		l.watched(set, log, "another rule after ours", 0)
		raw("-I", "PREROUTING", "-p", "tcp", "-j", "ACCEPT")
		l.watched(set, log, "another rule before ours", 1)

		// Something that changes other tables all the time does not keep the
		// watcher from its work.
		churn, stop := context.WithCancel(ctx)
		var churned sync.WaitGroup
		for _, name := range []string{"busy1", "busy2"} {
			churned.Go(func() {
				for churn.Err() == nil {
					l.net.Run(l.net.Server, "nft", "add table ip "+name+"; delete table ip "+name)
				}
			})
		}
		raw("-F")
		l.watched(set, log, "flushed, with changes all the time", 1)
		stop()
		churned.Wait()
		l.watched(set, log, "no changes", 0)

		alternative(otherBackend(l.set.Backend))
		l.watched(set, log, "another backend", 1)
	})
}
