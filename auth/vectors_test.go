// SPDX-License-Identifier: GPL-2.0-only

package auth

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// vector is one file of testdata/vectors: a header and a packet.
type vector struct {
	name   string
	header map[string]string
	used   map[string]bool
	packet []byte
}

// readVectors reads every vector. A file that does not have the form of
// testdata/README.md fails the test.
func readVectors(t testing.TB) []*vector {
	t.Helper()
	paths, err := filepath.Glob("testdata/vectors/*.txt")
	if err != nil || len(paths) < 60 {
		t.Fatalf("%d vectors, error %v", len(paths), err)
	}
	var vectors []*vector
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		v := &vector{name: strings.TrimSuffix(filepath.Base(path), ".txt"), header: map[string]string{}, used: map[string]bool{}}
		head, body, ok := bytes.Cut(b, []byte("\n\n"))
		if !ok {
			t.Fatalf("%s: no empty line after the header", path)
		}
		lines := bufio.NewScanner(bytes.NewReader(head))
		for lines.Scan() {
			name, value, ok := strings.Cut(lines.Text(), ": ")
			if !ok {
				name, ok = strings.CutSuffix(lines.Text(), ":")
			}
			if _, twice := v.header[name]; !ok || twice {
				t.Fatalf("%s: bad header line %q", path, lines.Text())
			}
			v.header[name] = value
		}
		if v.packet, err = hex.DecodeString(strings.ReplaceAll(string(body), "\n", "")); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		vectors = append(vectors, v)
	}
	return vectors
}

func (v *vector) get(t *testing.T, name string) string {
	t.Helper()
	s, ok := v.header[name]
	if !ok {
		t.Fatalf("header %s is missing", name)
	}
	v.used[name] = true
	return s
}

func (v *vector) hex(t *testing.T, name string) []byte {
	t.Helper()
	b, err := hex.DecodeString(v.get(t, name))
	if err != nil {
		t.Fatalf("header %s: %v", name, err)
	}
	return b
}

func (v *vector) key(t *testing.T) *HostKey {
	return &HostKey{
		ID:      KeyID(v.hex(t, "key-id")),
		Request: [KeySize]byte(v.hex(t, "request-key")),
		Reply:   [KeySize]byte(v.hex(t, "reply-key")),
	}
}

// check compares a decoded field with the header of that name.
func (v *vector) check(t *testing.T, name string, got any) {
	t.Helper()
	if want := v.get(t, name); fmt.Sprint(got) != want {
		t.Errorf("%s is %v, want %s", name, got, want)
	}
}

func TestVectors(t *testing.T) {
	for _, v := range readVectors(t) {
		t.Run(v.name, func(t *testing.T) {
			v.used["comment"] = true
			expect := v.get(t, "expect")
			switch kind := v.get(t, "kind"); kind {
			case "request":
				v.request(t, expect)
			case "reply":
				v.reply(t, expect)
			case "piece":
				v.piece(t, expect)
			case "derive":
				v.derive(t, expect)
			case "passphrase":
				v.passphrase(t, expect)
			default:
				t.Fatalf("unknown kind %q", kind)
			}
			for name := range v.header {
				if !v.used[name] && !t.Failed() {
					t.Errorf("unknown header %q", name)
				}
			}
		})
	}
}

func openAsHost(s *Sealer, packet []byte, req *Request) (Reason, error) {
	if _, reason := CheckRequest(packet); reason != OK {
		return reason, nil
	}
	return s.OpenRequest(packet, req)
}

func (v *vector) request(t *testing.T, expect string) {
	s := NewSealer(v.key(t))
	var req Request
	reason, detail := openAsHost(s, bytes.Clone(v.packet), &req)
	if reason.String() != expect {
		t.Fatalf("reason %v (%v), want %s", reason, detail, expect)
	}
	switch reason {
	case ReasonMalformed:
		v.check(t, "malformed", detail)
	case OK:
		v.check(t, "op", req.Op)
		v.check(t, "time", req.Time)
		v.check(t, "id", hex.EncodeToString(req.ID[:]))
		v.check(t, "challenge", hexOrNone(req.Challenge))
		v.check(t, "flags", orNone(req.Flags.String()))
		if req.Op == OpLog {
			v.check(t, "from", req.From)
			v.check(t, "pieces", req.Pieces)
		} else {
			v.check(t, "steps", FormatSteps(req.Sequence()))
		}
		v.sealsBack(t, s, func(s *Sealer) []byte { p := s.SealRequest(&req); return p[:] })
	}
}

func (v *vector) reply(t *testing.T, expect string) {
	s := NewSealer(v.key(t))
	var rep Reply
	reason, detail := s.OpenReply(bytes.Clone(v.packet), RequestID(v.hex(t, "id")), &rep)
	if reason.String() != expect {
		t.Fatalf("reason %v (%v), want %s", reason, detail, expect)
	}
	switch reason {
	case ReasonMalformed:
		v.check(t, "malformed", detail)
	case OK:
		v.check(t, "time", rep.Time)
		v.check(t, "challenge", hexOrNone(rep.Challenge))
		v.check(t, "result", rep.Result)
		v.check(t, "executor", rep.Executor)
		v.check(t, "flags", orNone(rep.Flags.String()))
		v.check(t, "mask", rep.Mask)
		v.check(t, "boot-id", hex.EncodeToString(rep.Boot[:]))
		v.check(t, "uptime", rep.Uptime)
		v.check(t, "ledger-age", rep.LedgerAge)
		v.check(t, "load", rep.Load)
		v.check(t, "free", rep.Free)
		v.check(t, "sysrq", rep.Sysrq)
		v.check(t, "silent", rep.Silent)
		v.sealsBack(t, s, func(s *Sealer) []byte { p := s.SealReply(&rep); return p[:] })
	}
}

func (v *vector) piece(t *testing.T, expect string) {
	s := NewSealer(v.key(t))
	var p Piece
	reason, detail := s.OpenPiece(bytes.Clone(v.packet), &p)
	if reason.Authentic() && p.ID != RequestID(v.hex(t, "id")) {
		reason = ReasonOtherRequest
	}
	v.used["id"] = true
	if reason.String() != expect {
		t.Fatalf("reason %v (%v), want %s", reason, detail, expect)
	}
	switch reason {
	case ReasonMalformed:
		v.check(t, "malformed", detail)
	case OK:
		v.check(t, "time", p.Time)
		v.check(t, "challenge", hexOrNone(p.Challenge))
		v.check(t, "index", p.Index)
		v.check(t, "flags", orNone(p.Flags.String()))
		v.check(t, "boot-id", hex.EncodeToString(p.Boot[:]))
		v.check(t, "first", p.First)
		v.check(t, "next", p.Next)
		v.check(t, "end", p.End)
		v.check(t, "oldest", p.Oldest)
		v.check(t, "text", hex.EncodeToString(p.Text))
		v.sealsBack(t, s, func(s *Sealer) []byte { return s.SealPiece(&p) })
	}
}

// sealsBack checks that sealing what was opened gives the same packet but for
// what the nonce changes.
func (v *vector) sealsBack(t *testing.T, s *Sealer, seal func(*Sealer) []byte) {
	t.Helper()
	again := seal(s)
	if !bytes.Equal(again[:offNonce], v.packet[:offNonce]) {
		t.Errorf("sealed header %x, want %x", again[:offNonce], v.packet[:offNonce])
	}
	a := s.request
	if again[offType] != typeRequest {
		a = s.reply
	}
	want, r1 := open(a, s.id, bytes.Clone(v.packet))
	got, r2 := open(a, s.id, again)
	if r1 != OK || r2 != OK || !bytes.Equal(want, got) {
		t.Errorf("sealed body %x (%v), want %x (%v)", got, r2, want, r1)
	}
}

func (v *vector) derive(t *testing.T, expect string) {
	m := Master(v.hex(t, "master"))
	k, err := m.HostKey(v.get(t, "host"))
	if (err == nil) != (expect == "ok") {
		t.Fatalf("error %v, want %s", err, expect)
	}
	if err != nil {
		v.check(t, "malformed", "name")
	} else {
		v.check(t, "key-id", k.ID)
		v.check(t, "request-key", hex.EncodeToString(k.Request[:]))
		v.check(t, "reply-key", hex.EncodeToString(k.Reply[:]))
	}
}

func (v *vector) passphrase(t *testing.T, expect string) {
	if testing.Short() {
		t.Skip("Argon2id takes a second and 256 MiB")
	}
	m, err := MasterFromPassphrase(v.get(t, "passphrase"), v.get(t, "label"))
	if (err == nil) != (expect == "ok") {
		t.Fatalf("error %v, want %s", err, expect)
	}
	if err != nil {
		v.check(t, "malformed", "label")
	} else {
		v.check(t, "master", hex.EncodeToString(m[:]))
	}
}

func hexOrNone(c Challenge) string {
	if c == (Challenge{}) {
		return "none"
	}
	return hex.EncodeToString(c[:])
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
