// SPDX-License-Identifier: GPL-2.0-only

package host

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What is handed to the service manager comes with its name, in place of what
// had that name before.
func TestHandOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	file, err := os.CreateTemp(t.TempDir(), "trigger")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	if err := HandOver(TriggerFile, int(file.Fd())); err != nil {
		t.Fatal(err)
	}
	buf, oob := make([]byte, 256), make([]byte, 256)
	n, _, _, _, err := manager.ReadMsgUnix(buf, oob)
	if want := "FDSTOREREMOVE=1\nFDNAME=trigger"; err != nil || string(buf[:n]) != want {
		t.Errorf("first %q %v, want %q", buf[:n], err, want)
	}
	n, k, _, _, err := manager.ReadMsgUnix(buf, oob)
	if want := "FDSTORE=1\nFDPOLL=0\nFDNAME=trigger"; err != nil || string(buf[:n]) != want {
		t.Errorf("then %q %v, want %q", buf[:n], err, want)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:k])
	if err != nil || len(messages) != 1 {
		t.Fatalf("%d control messages, %v", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatalf("files %v, %v", fds, err)
	}
	defer unix.Close(fds[0])
	var sent, got unix.Stat_t
	if unix.Fstat(int(file.Fd()), &sent) != nil || unix.Fstat(fds[0], &got) != nil || sent.Ino != got.Ino {
		t.Errorf("inode %d, want %d", got.Ino, sent.Ino)
	}

	t.Setenv("NOTIFY_SOCKET", "")
	if HandOver(TriggerFile, int(file.Fd())) == nil {
		t.Error("handed to nobody")
	}
}

// TakeBack waits for the manager, who closes the pipe when all before it is done.
func TestTakeBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	done := make(chan error, 1)
	go func() { done <- TakeBack(Answer4, Answer6) }()
	buf, oob := make([]byte, 256), make([]byte, 256)
	var k int
	for _, want := range []string{"FDSTOREREMOVE=1\nFDNAME=answer4", "FDSTOREREMOVE=1\nFDNAME=answer6", "BARRIER=1"} {
		var n int
		if n, k, _, _, err = manager.ReadMsgUnix(buf, oob); err != nil || string(buf[:n]) != want {
			t.Fatalf("%q %v, want %q", buf[:n], err, want)
		}
	}
	messages, err := unix.ParseSocketControlMessage(oob[:k])
	if err != nil || len(messages) != 1 {
		t.Fatalf("%d control messages, %v", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatalf("files %v, %v", fds, err)
	}
	select {
	case err := <-done:
		t.Errorf("did not wait: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	unix.Close(fds[0])
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Only what is meant for this process is taken, and only once.
func TestInherit(t *testing.T) {
	set := func(pid int, fds, names string) {
		t.Setenv("LISTEN_PID", strconv.Itoa(pid))
		t.Setenv("LISTEN_FDS", fds)
		t.Setenv("LISTEN_FDNAMES", names)
	}
	set(os.Getpid()+1, "1", "trigger")
	if in := Inherit(); len(in) != 0 {
		t.Errorf("took another's: %v", in)
	}
	set(os.Getpid(), "0", "")
	if in := Inherit(); len(in) != 0 || os.Getenv("LISTEN_PID") != "" {
		t.Errorf("took %v, left %q", in, os.Getenv("LISTEN_PID"))
	}
	in := Inherited{TriggerFile: 77}
	if fd, err := in.Open(TriggerFile, "/nonexistent", unix.O_WRONLY); fd != 77 || err != nil {
		t.Errorf("inherited file is %d %v", fd, err)
	}
	if _, err := in.Open(TriggerFile, "/nonexistent", unix.O_WRONLY); err == nil || !strings.Contains(err.Error(), "/nonexistent") {
		t.Errorf("taken twice: %v", err)
	}
}
