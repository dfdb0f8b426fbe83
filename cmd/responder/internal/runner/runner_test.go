// SPDX-License-Identifier: GPL-2.0-only

package runner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"netsysrq/auth"
)

// bench is a runner on plain files, with a goroutine that plays the kernel.
type bench struct {
	*Runner
	trigger, kmsg string
	mu            sync.Mutex
	finished      []auth.RequestID
}

// newBench starts a runner. For each step of answers it logs the completion.
func newBench(t *testing.T, answers string) *bench {
	t.Helper()
	dir := t.TempDir()
	b := &bench{trigger: filepath.Join(dir, "trigger"), kmsg: filepath.Join(dir, "kmsg")}
	for _, path := range []string{b.trigger, b.kmsg} {
		if err := os.WriteFile(path, []byte("6,1,1,-;Emergency Sync complete\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(b.trigger, 0); err != nil {
		t.Fatal(err)
	}
	log, err := unix.Open(b.kmsg, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	kmsg, err := NewKmsg(log, b.kmsg)
	if err != nil {
		t.Fatal(err)
	}
	b.Runner = New(openTrigger(t, b.trigger), b.trigger, kmsg, func(_ auth.KeyID, id auth.RequestID) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.finished = append(b.finished, id)
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); b.Run(ctx) }()
	kernel := make(chan struct{})
	go func() { defer close(kernel); b.playKernel(t, ctx, answers) }()
	t.Cleanup(func() { cancel(); <-done; <-kernel; kmsg.Close() })
	return b
}

func (b *bench) playKernel(t *testing.T, ctx context.Context, answers string) {
	seen := 0
	for ctx.Err() == nil {
		written := b.written(t)
		for ; seen < len(written); seen++ {
			if c := written[seen]; strings.IndexByte(answers, c) >= 0 {
				b.logLine(t, fmt.Sprintf("4,9,9,-;%s", completions[c]))
			}
		}
		time.Sleep(time.Millisecond)
	}
}

func (b *bench) written(t *testing.T) string {
	s, err := os.ReadFile(b.trigger)
	if err != nil {
		t.Error(err)
	}
	return string(s)
}

func (b *bench) logLine(t *testing.T, line string) {
	f, err := os.OpenFile(b.kmsg, os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(line + "\n")
		f.Close()
	}
	if err != nil {
		t.Error(err)
	}
}

func (b *bench) submit(t *testing.T, key byte, allowed, steps string, now bool) auth.RequestID {
	t.Helper()
	b.mu.Lock()
	id := auth.RequestID{key, byte(time.Now().UnixNano()), byte(len(steps))}
	b.mu.Unlock()
	set, err := auth.ParseKeySet(allowed)
	if err != nil {
		t.Fatal(err)
	}
	j := &Job{Key: auth.KeyID{key}, Allowed: set, ID: id, Now: now, Replied: time.Now(), Log: slog.New(slog.DiscardHandler)}
	if steps != "" {
		if j.Steps, err = auth.ParseSteps(steps); err != nil {
			t.Fatal(err)
		}
	}
	if now {
		b.Cut(j)
	}
	if len(j.Steps) == 0 {
		return id
	}
	if err := b.Submit(j); err != nil {
		t.Fatal(err)
	}
	return id
}

// wait waits until the trigger holds what is wanted and nothing runs.
func (b *bench) wait(t *testing.T, want string) {
	t.Helper()
	for range 10000 {
		if b.written(t) == want && b.Idle() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("trigger holds %q, want %q", b.written(t), want)
}

func TestConfirmedStepsDoNotWait(t *testing.T) {
	b := newBench(t, "su")
	start := time.Now()
	b.submit(t, 1, "nsub", "n,s,u,b", false)
	b.wait(t, "nsub")
	if d := time.Since(start); d > 8*time.Second {
		t.Errorf("took %v: the bound of a step was waited for although the kernel said that it was done", d)
	}
}

// A step that the kernel never confirms holds up the rest for its bound only.
func TestUnconfirmedStepEnds(t *testing.T) {
	b := newBench(t, "")
	start := time.Now()
	b.submit(t, 1, "nsub", "s:200ms,u:100ms,b", false)
	b.wait(t, "sub")
	if d := time.Since(start); d < 300*time.Millisecond {
		t.Errorf("took %v: b did not wait for s and u", d)
	}
}

// A device that is called so does not say that a sync is complete.
func TestCompletionIsTheWholeMessage(t *testing.T) {
	b := newBench(t, "")
	b.submit(t, 1, "s", "s:300ms,n", false)
	for b.written(t) != "s" {
		time.Sleep(time.Millisecond)
	}
	start := time.Now()
	b.logLine(t, "6,9,9,-;usb 1-1: Product: Emergency Sync complete")
	b.logLine(t, "6,9,9,-;Emergency Sync completed elsewhere")
	b.wait(t, "sn")
	if d := time.Since(start); d < 150*time.Millisecond {
		t.Errorf("n came after %v", d)
	}
}

func TestForgedCompletionIsIgnored(t *testing.T) {
	b := newBench(t, "")
	b.submit(t, 1, "s", "s:400ms,n", false)
	for b.written(t) != "s" {
		time.Sleep(time.Millisecond)
	}
	start := time.Now()
	b.logLine(t, "12,9,9,-;Emergency Sync complete") // facility 1: written by a process
	b.logLine(t, "no record at all: Emergency Sync complete")
	b.wait(t, "sn")
	if d := time.Since(start); d < 200*time.Millisecond {
		t.Errorf("n came after %v: a process's words were taken for the kernel's", d)
	}
}

func TestGraceBeforeTheEnd(t *testing.T) {
	b := newBench(t, "")
	start := time.Now()
	b.submit(t, 1, "b", "b", false)
	b.wait(t, "b")
	if d := time.Since(start); d < auth.Grace {
		t.Errorf("b came %v after the reply, want %v", d, auth.Grace)
	}
}

func TestOneSequenceAtATime(t *testing.T) {
	b := newBench(t, "")
	b.submit(t, 1, "01", "0:100ms,1:100ms", false)
	b.submit(t, 2, "23", "2:50ms,3", false)
	b.submit(t, 1, "4", "4", false)
	b.wait(t, "01234")
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.finished) != 3 || b.finished[0][0] != 1 || b.finished[1][0] != 2 || b.finished[2][0] != 1 {
		t.Errorf("finished %v", b.finished)
	}
}

func TestNowCuts(t *testing.T) {
	running := func(t *testing.T) *bench {
		b := newBench(t, "")
		b.submit(t, 1, "0123", "0:5s,1", false)
		b.submit(t, 1, "0123", "2", false)
		for b.written(t) != "0" {
			time.Sleep(time.Millisecond)
		}
		return b
	}
	t.Run("own", func(t *testing.T) {
		b := running(t)
		b.submit(t, 1, "4", "4", true)
		b.wait(t, "04")
	})
	t.Run("barrier", func(t *testing.T) {
		b := running(t)
		b.submit(t, 1, "0123", "", true)
		b.wait(t, "0")
	})
	t.Run("other allowed", func(t *testing.T) {
		b := running(t)
		b.submit(t, 2, "014", "4", true)
		b.wait(t, "042") // what waits of another key is not cut
	})
	t.Run("other not allowed", func(t *testing.T) {
		b := newBench(t, "")
		b.submit(t, 1, "01", "0:300ms,1", false)
		for b.written(t) != "0" {
			time.Sleep(time.Millisecond)
		}
		b.submit(t, 2, "04", "4", true)
		b.wait(t, "014")
	})
}

func openTrigger(t *testing.T, path string) int {
	t.Helper()
	fd, err := unix.Open(path, TriggerFlags|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// An order to stop the daemon must not stop a reboot half way.
func TestStopWaitsForTheSequence(t *testing.T) {
	dir := t.TempDir()
	trigger := filepath.Join(dir, "trigger")
	if err := os.WriteFile(trigger, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := New(openTrigger(t, trigger), trigger, nil, func(auth.KeyID, auth.RequestID) {})
	ctx, cancel := context.WithCancel(context.Background())
	steps, _ := auth.ParseSteps("0:100ms,1:100ms,2")
	if err := r.Submit(&Job{Steps: steps, Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := r.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(trigger); string(b) != "012" {
		t.Errorf("trigger holds %q", b)
	}
}

func TestDryRunWritesNothing(t *testing.T) {
	b := newBench(t, "")
	steps, _ := auth.ParseSteps("n,s,u,b")
	if err := b.Submit(&Job{Steps: steps, DryRun: true, Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	b.wait(t, "")
}

func TestTooMany(t *testing.T) {
	dir := t.TempDir()
	trigger := filepath.Join(dir, "trigger")
	if err := os.WriteFile(trigger, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := New(openTrigger(t, trigger), trigger, nil, func(auth.KeyID, auth.RequestID) {})
	for range maxWaiting {
		if err := r.Submit(&Job{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Submit(&Job{}); !errors.Is(err, ErrFull) {
		t.Errorf("one more: %v", err)
	}
}
