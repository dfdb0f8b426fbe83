// SPDX-License-Identifier: GPL-2.0-only

package host

import (
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func listen(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { manager.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return manager
}

func newNotifier(t *testing.T) *Notifier {
	t.Helper()
	n, err := NewNotifier()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return n
}

func TestTell(t *testing.T) {
	manager := listen(t)
	if err := newNotifier(t).Tell("READY=1", "STATUS=well"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 256)
	n, err := manager.Read(buf)
	if want := "READY=1\nSTATUS=well"; err != nil || string(buf[:n]) != want {
		t.Errorf("told %q %v, want %q", buf[:n], err, want)
	}

	t.Setenv("NOTIFY_SOCKET", "")
	if n, err := NewNotifier(); !errors.Is(err, ErrNoManager) || n.Tell("READY=1") != nil {
		t.Errorf("without a manager: %v", err)
	}
}

// A manager that reads nothing keeps nobody waiting.
func TestTellDoesNotWait(t *testing.T) {
	listen(t)
	n := newNotifier(t)
	done := make(chan error, 1)
	go func() {
		for range 100_000 { // more than any queue holds
			if err := n.Tell("WATCHDOG=1"); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	select {
	case err := <-done:
		if !errors.Is(err, unix.EAGAIN) {
			t.Errorf("a manager that hangs: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the notifier waits for a manager that hangs")
	}
}

// What a manager had no room for is not lost, but for signs of life, of which each
// is worth nothing after the next.
func TestTellKeeps(t *testing.T) {
	manager := listen(t)
	n := newNotifier(t)
	for n.Tell("WATCHDOG=1") == nil {
	}
	for _, state := range []string{"RELOADING=1", "READY=1", "WATCHDOG=1"} {
		if err := n.Tell(state); !errors.Is(err, unix.EAGAIN) {
			t.Fatalf("a manager that is full: %v", err)
		}
	}
	read := func() string {
		t.Helper()
		manager.SetReadDeadline(time.Now().Add(10 * time.Second))
		buf := make([]byte, 256)
		size, err := manager.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:size])
	}
	told := read()
	for err := error(unix.EAGAIN); err != nil; told = read() {
		if err = n.Tell("WATCHDOG=1"); err != nil && !errors.Is(err, unix.EAGAIN) {
			t.Fatal(err)
		}
	}
	for told == "WATCHDOG=1" {
		told = read()
	}
	if second := read(); told != "RELOADING=1" || second != "READY=1" {
		t.Errorf("told %q and %q of what was kept", told, second)
	}

	for range 10 * maxKept {
		_ = n.Tell("STATUS=more than a manager reads")
	}
	if len(n.kept) != maxKept {
		t.Errorf("%d messages are kept, want %d", len(n.kept), maxKept)
	}
}
