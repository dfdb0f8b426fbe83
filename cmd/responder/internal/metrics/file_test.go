// SPDX-License-Identifier: GPL-2.0-only

package metrics

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// buffer may be written to and read at once.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func newFile(t *testing.T, path string) (*File, *buffer) {
	log := new(buffer)
	f := NewFile(path, slog.New(slog.NewTextHandler(log, nil)))
	t.Cleanup(f.Close)
	return f, log
}

func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not in time: " + what)
		}
	}
}

func holds(path, text string) func() bool {
	return func() bool {
		if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
			return false // who reads a FIFO waits
		}
		b, err := os.ReadFile(path)
		return err == nil && string(b) == text
	}
}

// The file is one that anyone may read, whatever the umask, and readers of the
// old one keep it.
func TestFile(t *testing.T) {
	old := syscall.Umask(0o077)
	t.Cleanup(func() { syscall.Umask(old) })
	dir := t.TempDir()
	path := filepath.Join(dir, "metrics.prom")
	f, log := newFile(t, path)
	f.Put([]byte("one\n"))
	await(t, "the first text", holds(path, "one\n"))
	reader, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	f.Put([]byte("two\n"))
	await(t, "the second text", holds(path, "two\n"))
	b := make([]byte, 10)
	if n, _ := reader.Read(b); string(b[:n]) != "one\n" {
		t.Errorf("a reader of the old file sees %q", b[:n])
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("mode %v %v", info.Mode(), err)
	}
	if files, _ := os.ReadDir(dir); len(files) != 1 || log.String() != "" {
		t.Errorf("left %v, logged %q", files, log)
	}
}

// A directory that is not there is one line in the log, each time that it goes.
func TestFileCannotBeWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	path := filepath.Join(dir, "metrics.prom")
	f, log := newFile(t, path)
	for range 3 {
		f.Put([]byte("x\n"))
		await(t, "an attempt", func() bool { return len(f.next) == 0 && log.String() != "" })
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	f.Put([]byte("y\n"))
	await(t, "a text", holds(path, "y\n"))
	if n := strings.Count(log.String(), "metrics not written"); n != 1 {
		t.Errorf("%d lines: %s", n, log)
	}
}

// A disk that hangs keeps nobody waiting, and gets the newest text when it is
// back.
func TestFileDoesNotWait(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "metrics.prom")
	draft := filepath.Join(dir, ".metrics.prom.new")
	// Who opens a FIFO for writing waits for a reader.
	if err := syscall.Mkfifo(draft, 0o600); err != nil {
		t.Fatal(err)
	}
	f, _ := newFile(t, path)
	f.Put([]byte("first\n"))
	await(t, "an attempt", func() bool { return len(f.next) == 0 })
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 1000 {
			f.Put([]byte("old\n"))
		}
		f.Put([]byte("new\n"))
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("Put waits for the disk")
	}
	reader, err := os.Open(draft)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	await(t, "the newest text", holds(path, "new\n"))
}
