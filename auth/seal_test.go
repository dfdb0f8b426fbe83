// SPDX-License-Identifier: GPL-2.0-only

package auth

import (
	"bytes"
	"testing"
)

func testKey(t testing.TB, host string) *HostKey {
	t.Helper()
	m := Master{1, 2, 3}
	k, err := m.HostKey(host)
	if err != nil {
		t.Fatal(err)
	}
	return &k
}

func testRequest() *Request {
	r := &Request{Time: 1767225600e9, ID: RequestID{1}, Challenge: Challenge{2}, Op: OpRun, Flags: Now}
	r.SetSteps([]Step{{Key: 'n'}, {Key: 's', Pause: 200}, {Key: 'u'}, {Key: 'b'}})
	return r
}

// Any one bit of a packet, wherever it is, makes it worthless.
func TestEveryBit(t *testing.T) {
	s := NewSealer(testKey(t, "web1"))
	request := s.SealRequest(testRequest())
	reply := s.SealReply(&Reply{ID: RequestID{1}, Executor: Daemon})
	var req Request
	var rep Reply
	if r, err := openAsHost(s, bytes.Clone(request[:]), &req); r != OK {
		t.Fatalf("request as sealed: %v %v", r, err)
	}
	if r, err := s.OpenReply(bytes.Clone(reply[:]), RequestID{1}, &rep); r != OK {
		t.Fatalf("reply as sealed: %v %v", r, err)
	}
	for bit := range PacketSize * 8 {
		flip := func(p [PacketSize]byte) []byte {
			p[bit/8] ^= 1 << (bit % 8)
			return p[:]
		}
		if r, _ := openAsHost(s, flip(request), &req); r.Authentic() {
			t.Errorf("request with bit %d flipped: %v", bit, r)
		}
		if r, _ := s.OpenReply(flip(reply), RequestID{1}, &rep); r.Authentic() && r != ReasonOtherRequest || r == ReasonOtherRequest {
			t.Errorf("reply with bit %d flipped: %v", bit, r)
		}
	}
}

func TestEveryLength(t *testing.T) {
	s := NewSealer(testKey(t, "web1"))
	p := s.SealRequest(testRequest())
	long := append(p[:], make([]byte, 2000)...)
	for n := range 2001 {
		if n == PacketSize {
			continue
		}
		if _, r := CheckRequest(long[:n]); r != ReasonLength {
			t.Errorf("request of %d bytes: %v", n, r)
		}
		var rep Reply
		if r, _ := s.OpenReply(long[:n], RequestID{1}, &rep); r != ReasonLength {
			t.Errorf("reply of %d bytes: %v", n, r)
		}
	}
}

// Two seals of one request must not be comparable on the wire.
func TestNoncesDiffer(t *testing.T) {
	s := NewSealer(testKey(t, "web1"))
	a, b := s.SealRequest(testRequest()), s.SealRequest(testRequest())
	if bytes.Equal(a[offNonce:], b[offNonce:]) || bytes.Equal(a[offBody:], b[offBody:]) {
		t.Error("two seals of one request are alike")
	}
}

func TestOpenDoesNotAllocate(t *testing.T) {
	s := NewSealer(testKey(t, "web1"))
	good := s.SealRequest(testRequest())
	bad := good
	bad[PacketSize-1] ^= 1
	var req Request
	for name, p := range map[string][]byte{"good": good[:], "forged": bad[:]} {
		buf := make([]byte, PacketSize)
		if n := testing.AllocsPerRun(100, func() { copy(buf, p); openAsHost(s, buf, &req) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkOpenForged(b *testing.B) {
	s := NewSealer(testKey(b, "web1"))
	p := s.SealRequest(testRequest())
	p[PacketSize-1] ^= 1
	var req Request
	b.ReportAllocs()
	buf := make([]byte, PacketSize)
	for b.Loop() {
		copy(buf, p[:])
		if r, _ := openAsHost(s, buf, &req); r != ReasonForged {
			b.Fatal(r)
		}
	}
}

func BenchmarkOpenGood(b *testing.B) {
	s := NewSealer(testKey(b, "web1"))
	p := s.SealRequest(testRequest())
	var req Request
	b.ReportAllocs()
	buf := make([]byte, PacketSize)
	for b.Loop() {
		copy(buf, p[:])
		if r, _ := openAsHost(s, buf, &req); r != OK {
			b.Fatal(r)
		}
	}
}

// What opens must be what was sealed: a packet that is accepted seals back to
// the same body, so no two readings of it are possible.
func FuzzOpenRequest(f *testing.F) {
	s := NewSealer(testKey(f, "web1"))
	for _, v := range readVectors(f) {
		f.Add(v.packet)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		var req Request
		reason, err := openAsHost(s, bytes.Clone(p), &req)
		if (err != nil) != (reason == ReasonMalformed) {
			t.Errorf("%v with error %v", reason, err)
		}
		if len(p) != PacketSize && reason != ReasonLength {
			t.Errorf("%d bytes: %v", len(p), reason)
		}
	})
}

// The sealed body is foreign too: whoever has a key can put anything there.
func FuzzRequestBody(f *testing.F) {
	var body [BodySize]byte
	testRequest().encode(&body)
	f.Add(body[:])
	(&Request{ID: RequestID{1}, Challenge: Challenge{1}, Op: OpLog, From: 7, Pieces: 1}).encode(&body)
	f.Add(body[:])
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) != BodySize {
			return
		}
		var r Request
		if r.decode(b) != nil {
			return
		}
		var again [BodySize]byte
		r.encode(&again)
		if !bytes.Equal(again[:], b) {
			t.Errorf("accepted body %x encodes as %x", b, again)
		}
		steps, err := ParseSteps(FormatSteps(r.Sequence()))
		if r.Count > 0 && (err != nil || FormatSteps(steps) != FormatSteps(r.Sequence())) {
			t.Errorf("steps %q: %v", FormatSteps(r.Sequence()), err)
		}
	})
}

func FuzzReplyBody(f *testing.F) {
	var body [BodySize]byte
	(&Reply{ID: RequestID{1}, Executor: Kernel, Flags: Repeat}).encode(&body)
	f.Add(body[:])
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) != BodySize {
			return
		}
		var r Reply
		if r.decode(b) != nil {
			return
		}
		var again [BodySize]byte
		r.encode(&again)
		if !bytes.Equal(again[:], b) {
			t.Errorf("accepted body %x encodes as %x", b, again)
		}
	})
}

// A piece that opens is read in one way only, whatever its length.
func FuzzPieceBody(f *testing.F) {
	s := NewSealer(testKey(f, "web1"))
	for _, p := range []*Piece{
		{Flags: Last}, {Index: 7, Flags: Last | Cut, First: 5, Next: 6, End: 9, Oldest: 2, Text: []byte("<6>[    0.000000] x\n")},
	} {
		b := s.SealPiece(p)
		body, _ := open(s.reply, s.id, b)
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		packet := make([]byte, offBody)
		putHeader(packet, typePiece, s.id)
		packet = s.reply.Seal(packet, packet[offNonce:offBody], b, packet[:HeaderSize])
		var p Piece
		reason, err := s.OpenPiece(packet, &p)
		if right := len(b) >= PieceHead && len(b) <= PieceHead+TextSize; right == (reason == ReasonLength) || (err != nil) != (reason == ReasonMalformed) {
			t.Fatalf("%d bytes: %v %v", len(b), reason, err)
		}
		if reason != OK {
			return
		}
		again, _ := open(s.reply, s.id, s.SealPiece(&p))
		if !bytes.Equal(again, b) {
			t.Errorf("accepted body %x seals as %x", b, again)
		}
	})
}
