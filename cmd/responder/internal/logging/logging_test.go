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
	"testing"
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
	h, err := newJournal(path, level)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(h).With("key", "alice").WithGroup("g")
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
	var rec map[string]any
	if err := json.Unmarshal(b.Bytes(), &rec); err != nil || rec["a"] != 1.0 || rec["msg"] != "m" {
		t.Errorf("record %v, error %v", rec, err)
	}
	b.Reset()
	if log, err = New("auto", &b, slog.LevelInfo); err != nil {
		t.Fatal(err)
	}
	log.Info("m", "a", 1)
	if !strings.Contains(b.String(), "msg=m a=1") {
		t.Errorf("text record %q", b.String())
	}
	if _, err := New("xml", &b, slog.LevelInfo); err == nil || !strings.Contains(err.Error(), "auto, journald, text, json") {
		t.Errorf("unknown format: %v", err)
	}
}
