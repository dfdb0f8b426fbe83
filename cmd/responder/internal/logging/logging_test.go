// SPDX-License-Identifier: GPL-2.0-only

package logging

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// journalRecord reads one datagram of the Native Journal Protocol.
func journalRecord(t *testing.T, b []byte) map[string]string {
	t.Helper()
	fields := map[string]string{}
	for len(b) > 0 {
		name, rest, ok := bytes.Cut(b, []byte("\n"))
		if !ok {
			t.Fatalf("field without end: %q", b)
		}
		if n, v, ok := bytes.Cut(name, []byte("=")); ok {
			fields[string(n)] = string(v)
			b = rest
			continue
		}
		n := binary.LittleEndian.Uint64(rest)
		fields[string(name)] = string(rest[8 : 8+n])
		if rest[8+n] != '\n' {
			t.Fatalf("field %s does not end with its length", name)
		}
		b = rest[8+n+1:]
	}
	return fields
}

func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	journal, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer journal.Close()
	level := new(slog.LevelVar)
	c, err := dialJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(&journalHandler{level: level, w: c}).With("key", "alice").WithGroup("g")
	log.Debug("hidden")
	// A value with a line feed must not be able to forge a field.
	log.Warn("request refused", "key_id", "00ff", "err", "a\nPRIORITY=0", slog.Group("h", "n", 1))

	b := make([]byte, 4096)
	n, err := journal.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	got := journalRecord(t, b[:n])
	for name, want := range map[string]string{
		"MESSAGE":           `request refused key=alice g.key_id=00ff g.err="a\nPRIORITY=0" g.h.n=1`,
		"PRIORITY":          "4",
		"SYSLOG_IDENTIFIER": "netsysrqd",
		"NETSYSRQ_KEY":      "alice",
		"NETSYSRQ_G_KEY_ID": "00ff",
		"NETSYSRQ_G_ERR":    "a\nPRIORITY=0",
		"NETSYSRQ_G_H_N":    "1",
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	if len(got) != 7 {
		t.Errorf("%d fields: %v", len(got), got)
	}
}

func TestFormats(t *testing.T) {
	var b bytes.Buffer
	log, err := New("json", &b, slog.LevelInfo)
	if err != nil {
		t.Fatal(err)
	}
	log.Info("m", "a", 1)
	log.Flush(time.Second)
	var rec map[string]any
	if err := json.Unmarshal(b.Bytes(), &rec); err != nil || rec["a"] != 1.0 || rec["msg"] != "m" {
		t.Errorf("record %v, error %v", rec, err)
	}
	b.Reset()
	if log, err = New("auto", &b, slog.LevelInfo); err != nil {
		t.Fatal(err)
	}
	log.Info("m", "a", 1)
	log.Flush(time.Second)
	if !strings.Contains(b.String(), "msg=m a=1") {
		t.Errorf("text record %q", b.String())
	}
	if _, err := New("xml", &b, slog.LevelInfo); err == nil || !strings.Contains(err.Error(), "auto, journald, text, json") {
		t.Errorf("unknown format: %v", err)
	}
}

// stuck is a reader that hangs until it is released.
type stuck struct {
	release chan struct{}
	n       atomic.Int64
}

func (s *stuck) Write(b []byte) (int, error) {
	<-s.release
	s.n.Add(1)
	return len(b), nil
}

// A journal that hangs must never make the daemon wait.
func TestStuckReader(t *testing.T) {
	w := &stuck{release: make(chan struct{})}
	log, err := New("json", w, slog.LevelInfo)
	if err != nil {
		t.Fatal(err)
	}
	const n = 2 * pending
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range n {
			log.Info("m")
		}
		log.Flush(10 * time.Millisecond)
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("logging waits for a reader that hangs")
	}
	close(w.release)
	log.Flush(10 * time.Second)
	if got := uint64(w.n.Load()) + log.Lost(); got != n || log.Lost() == 0 {
		t.Errorf("%d written and %d lost of %d", w.n.Load(), log.Lost(), n)
	}
}
