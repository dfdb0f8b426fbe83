// SPDX-License-Identifier: GPL-2.0-only

package klog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"netsysrq/auth"
)

// open makes a log of records: a plain file in the format of /dev/kmsg.
func open(t testing.TB, text string) *Log {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kmsg")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return New(fd, path)
}

func records(first, n int) string {
	var b strings.Builder
	for i := first; i < first+n; i++ {
		fmt.Fprintf(&b, "6,%d,%d,-;message %d %s\n SUBSYSTEM=pci\n", i, 1000000+i, i, strings.Repeat("x", i%60))
	}
	return b.String()
}

func TestRead(t *testing.T) {
	l := open(t, records(100, 200))
	all := ""
	for from := uint64(0); ; {
		pieces, err := l.read(from, 3)
		if err != nil || len(pieces) > 3 {
			t.Fatal(len(pieces), err)
		}
		for i, p := range pieces {
			if int(p.Index) != i || p.End != 300 || p.Oldest != 100 || len(p.Text) > auth.TextSize || (p.Flags&auth.Last != 0) != (i == len(pieces)-1) {
				t.Fatalf("piece %+v", p)
			}
			if want := max(from, 100); p.First != want {
				t.Fatalf("piece begins with %d, want %d", p.First, want)
			}
			all, from = all+string(p.Text), p.Next
		}
		if from == 300 {
			break
		}
	}
	if n := strings.Count(all, "\n"); n != 200 || !strings.HasPrefix(all, "<6>[    1.000100] message 100 ") || strings.Contains(all, "SUBSYSTEM") {
		t.Errorf("%d lines: %.60q", n, all)
	}
	for _, from := range []uint64{300, 301, auth.LogEnd} {
		pieces, err := l.read(from, 8)
		if err != nil || len(pieces) != 1 || pieces[0].First != 300 || pieces[0].Next != 300 || pieces[0].Flags != auth.Last || pieces[0].Text != nil {
			t.Errorf("from %d: %+v %v", from, pieces, err)
		}
	}
}

func TestGapsAndLongRecords(t *testing.T) {
	l := open(t, "6,1,1,-;one\n6,5,2,-;five\nrubbish\n6,6,3,-;"+strings.Repeat("y", 2000)+"\n6,7,4,-;seven\n6,8,")
	pieces, err := l.read(0, 8)
	if err != nil || len(pieces) != 4 {
		t.Fatal(len(pieces), err)
	}
	for i, want := range []auth.Piece{{First: 1, Next: 2}, {First: 5, Next: 6}, {First: 6, Next: 7, Flags: auth.Cut}, {First: 7, Next: 8, Flags: auth.Last}} {
		if p := pieces[i]; p.First != want.First || p.Next != want.Next || p.Flags != want.Flags {
			t.Errorf("piece %d: %+v, want %+v", i, p, want)
		}
	}
	if n := len(pieces[2].Text); n != auth.TextSize {
		t.Errorf("the long record has %d bytes", n)
	}
}

func TestFormat(t *testing.T) {
	for record, want := range map[string]string{
		`6,1,5140900,-;plain`:                     "<6>[    5.140900] plain\n",
		`30,1,123456789012,c,caller=T1;userspace`: "<30>[123456.789012] userspace\n",
		`4,1,0,-;two\x0alines`:                    "<4>[    0.000000] two\n<4>[    0.000000] lines\n",
		`4,1,0,-;\x1b[2J \x5cx1b \xzz \xff;a`:     "<4>[    0.000000] \x1b[2J \\x1b \\xzz \xff;a\n",
		`4,1,0,-;`:                                "<4>[    0.000000] \n",
	} {
		prio, _, stamp, message, ok := parse([]byte(record))
		if got := string(format(prio, stamp, message)); !ok || got != want {
			t.Errorf("%s gives %q, want %q", record, got, want)
		}
	}
	for _, bad := range []string{"", "x", ";", "6,1;x", "6,,1,-;x", "6,-1,1,-;x", "6,18446744073709551615,1,-;x"} {
		if _, _, _, _, ok := parse([]byte(bad)); ok {
			t.Errorf("%q is taken for a record", bad)
		}
	}
}

// What the kernel itself gives, where this process may read it.
func TestDevKmsg(t *testing.T) {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skip("needs /dev/kmsg: ", err)
	}
	defer unix.Close(fd)
	l := New(fd, "/dev/kmsg")
	pieces, err := l.read(0, 8)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ESPIPE) {
		t.Skip("/dev/kmsg is not the kernel's: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(pieces) == 0 {
		t.Fatal("nothing was read")
	}
	for _, p := range pieces {
		if p.First > p.Next || p.Next > p.End || p.First < p.End && len(p.Text) == 0 {
			t.Errorf("records %d to %d of %d in %d bytes", p.First, p.Next, p.End, len(p.Text))
		}
	}
}

func TestRun(t *testing.T) {
	l := open(t, records(0, 100))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	sent := make(chan auth.Piece, 20)
	g := &Grant{From: 0, Pieces: 4, Base: auth.Piece{ID: auth.RequestID{7}, Challenge: auth.Challenge{8}, Boot: auth.BootID{9}, Time: 10},
		Send: func(p *auth.Piece) error { sent <- *p; return nil }, Log: slog.New(slog.DiscardHandler)}
	n := 0
	for l.Answer(g) {
		n++
	}
	if n != waiting {
		t.Errorf("%d grants wait", n)
	}
	go l.Run(ctx)
	for range 8 {
		select {
		case p := <-sent:
			if p.ID != g.Base.ID || p.Challenge != g.Base.Challenge || p.Boot != g.Base.Boot || p.Time != 10 {
				t.Errorf("piece %+v", p)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("nothing is sent")
		}
	}
}

func FuzzRecords(f *testing.F) {
	f.Add([]byte(records(3, 4)), uint64(0), uint8(2))
	f.Add([]byte("6,5,5,-;a\\x0ab\n6,4,5,-;a\n6,4,5,-;b\n"), uint64(4), uint8(8))
	f.Fuzz(func(t *testing.T, text []byte, from uint64, most uint8) {
		most = most%auth.MaxPieces + 1
		pieces, err := open(t, string(text)).read(from, int(most))
		if err != nil || len(pieces) == 0 || len(pieces) > int(most) {
			t.Fatal(len(pieces), err)
		}
		for _, p := range pieces {
			if p.First > p.Next || len(p.Text) > auth.TextSize {
				t.Errorf("piece %+v", p)
			}
		}
	})
}
