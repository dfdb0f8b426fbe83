package twin_test

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"netsysrq/auth"
)

// rounds is how often each comparison is made: 200,000 times, or as often as
// NETSYSRQ_DIFF_N says, and then with a new seed each time. NETSYSRQ_DIFF_SEED
// repeats a run.
func rounds(t *testing.T) (n int, r *rand.Rand) {
	n, seed := 200_000, uint64(1)
	var err error
	if s := os.Getenv("NETSYSRQ_DIFF_N"); s != "" {
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatalf("NETSYSRQ_DIFF_N: %v", err)
		}
		seed = uint64(time.Now().UnixNano())
	}
	if s := os.Getenv("NETSYSRQ_DIFF_SEED"); s != "" {
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("NETSYSRQ_DIFF_SEED: %v", err)
		}
	}
	t.Logf("NETSYSRQ_DIFF_N=%d NETSYSRQ_DIFF_SEED=%d", n, seed)
	return n, rand.New(rand.NewPCG(seed, 0))
}

// peer is the C side. Commands are written ahead of the answers; the first
// answer that is not what Go says fails the test.
type peer struct {
	t     *testing.T
	in    *bufio.Writer
	close func() error
	asked chan [2]string // command and what Go says
	done  chan struct{}
	seen  map[string]int // how often each kind of answer came
}

// start begins the C side; kind names the answers that are counted.
func start(t *testing.T, kind func(answer string) string) *peer {
	t.Helper()
	cmd := exec.Command(build(t, "serve"))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, in: bufio.NewWriterSize(in, 1<<16), close: in.Close, seen: map[string]int{},
		asked: make(chan [2]string, 1<<12), done: make(chan struct{})}
	go func() {
		defer close(p.done)
		answers := bufio.NewScanner(out)
		var history []string
		wrong := 0
		for a := range p.asked {
			if wrong > 0 {
				continue // drain, so that the writer ends
			}
			if !answers.Scan() {
				wrong++
				t.Errorf("the C side ended at %q", a[0])
				cmd.Process.Kill()
				continue
			}
			history = append(history, a[0])
			if answers.Text() != a[1] {
				wrong++
				t.Errorf("after\n  %s\nC  says %s\nGo says %s", strings.Join(history[max(0, len(history)-5):], "\n  "), answers.Text(), a[1])
				cmd.Process.Kill()
			}
			if len(history) > 100 {
				history = slices.Clone(history[95:])
			}
			p.seen[kind(a[1])]++
		}
		if err := cmd.Wait(); err != nil && wrong == 0 {
			t.Errorf("C side: %v\n%s", err, stderr.String())
		} else if stderr.Len() > 0 {
			t.Errorf("C side: %s", stderr.String())
		}
	}()
	return p
}

// ask sends a command whose answer must be want. What was not yet sent is
// flushed when the queue is near its end; C is never more than 256 answers
// behind, which the queue is longer than, so neither side waits for ever.
func (p *peer) ask(command, want string) {
	p.in.WriteString(command)
	p.in.WriteByte('\n')
	if len(p.asked) > cap(p.asked)-2 {
		p.in.Flush()
	}
	p.asked <- [2]string{command, want}
}

// finish waits for the last answer and wants each of the kinds to have come.
func (p *peer) finish(kinds ...string) {
	p.t.Helper()
	p.in.Flush()
	p.close()
	close(p.asked)
	<-p.done
	for _, k := range slices.Sorted(maps.Keys(p.seen)) {
		p.t.Logf("%8d %s", p.seen[k], k)
	}
	for _, k := range kinds {
		if p.seen[k] == 0 && !p.t.Failed() {
			p.t.Errorf("%q never came: the comparison is not worth much", k)
		}
	}
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

func fill(r *rand.Rand, b []byte) {
	for i := range b {
		b[i] = byte(r.Uint32())
	}
}

func random16(r *rand.Rand) (b [16]byte) {
	if r.IntN(4) > 0 {
		fill(r, b[:])
	}
	return b
}

func first(s string) string {
	s, _, _ = strings.Cut(s, " ")
	return s
}

// TestPackets opens sealed and mutated packets in Go and in C.
func TestPackets(t *testing.T) {
	n, r := rounds(t)
	p := start(t, func(answer string) string {
		f := strings.Fields(answer)
		return strings.Join(f[:min(len(f), 2)], " ")
	})
	var keys [3]auth.HostKey
	sealers := map[auth.KeyID]*auth.Sealer{}
	for i := range keys {
		k := &keys[i]
		fill(r, k.ID[:])
		fill(r, k.Request[:])
		fill(r, k.Reply[:])
		sealers[k.ID] = auth.NewSealer(k)
		p.ask(fmt.Sprintf("k %x %x %x", k.ID[:], k.Request, k.Reply), fmt.Sprint(i+1))
	}
	for range n {
		packet := mutate(r, seal(r, &keys[r.IntN(len(keys))], body(r)))
		text := "-"
		if len(packet) > 0 {
			text = hex.EncodeToString(packet)
		}
		p.ask("p "+text, open(sealers, packet))
	}
	p.finish("length", "magic", "version", "type", "reserved", "unknown-key", "forged", "ok ok", "malformed op",
		"malformed id", "malformed body-reserved", "malformed flags", "malformed step-count", "malformed step-key",
		"malformed step-reserved", "malformed step-unused", "malformed pauses", "malformed status-fields", "malformed log-fields")
}

// body is the plaintext of a request, most often a well-formed one with
// nothing or a little changed.
func body(r *rand.Rand) (b [auth.BodySize]byte) {
	if r.IntN(50) == 0 {
		fill(r, b[:])
		return b
	}
	binary.BigEndian.PutUint64(b[:], pick(r, 0, 1, r.Uint64(), math.MaxUint64))
	fill(r, b[8:24])
	if r.IntN(3) > 0 {
		b[40] = 1
		if r.IntN(2) == 0 {
			fill(r, b[24:40])
		}
		b[41] = byte(r.IntN(8))
		b[42] = byte(r.IntN(auth.MaxSteps + 1))
		for i := range int(b[42]) {
			b[44+4*i] = "0123456789abcdefghijklmnopqrstuvwxyz"[r.IntN(36)]
			// 857 * 7 = 5999: sums come close to the limit from both sides.
			binary.BigEndian.PutUint16(b[46+4*i:], uint16(pick(r, 0, 1, 200, 857, 858, 859, 1000, auth.MaxPause, r.IntN(1<<16))))
		}
	}
	if r.IntN(4) == 0 {
		clear(b[40:])
		b[40], b[52] = 2, byte(1+r.IntN(auth.MaxPieces))
		fill(r, b[24:40])
		binary.BigEndian.PutUint64(b[44:], pick(r, 0, 1, r.Uint64(), math.MaxUint64))
	}
	for range pick(r, 0, 0, 0, 1, 1, 2, 3) {
		i := pick(r, 8+r.IntN(16), 40, 41, 42, 43, 44+r.IntN(28), r.IntN(72))
		b[i] = pick(r, 0, 1, b[i]+1, b[i]-1, byte('z'+1), byte('a'-1), byte('9'+1), byte('0'-1), byte('A'), 1<<r.IntN(8), byte(r.Uint32()))
	}
	if r.IntN(40) == 0 {
		clear(b[8:24])
	}
	return b
}

func seal(r *rand.Rand, k *auth.HostKey, b [auth.BodySize]byte) []byte {
	p := make([]byte, 40, auth.PacketSize)
	copy(p, "NSRQ\x01\x01\x00\x00")
	copy(p[8:], k.ID[:])
	fill(r, p[16:])
	key := &k.Request
	if r.IntN(50) == 0 {
		key = &k.Reply
	}
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		panic(err)
	}
	return aead.Seal(p, p[16:40], b[:], p[:16])
}

func mutate(r *rand.Rand, p []byte) []byte {
	switch r.IntN(12) {
	case 0:
		p[r.IntN(len(p))] ^= 1 << r.IntN(8)
	case 1:
		p[r.IntN(16)] ^= 1 << r.IntN(8)
	case 2:
		p = p[:r.IntN(len(p))]
	case 3:
		p = append(p, make([]byte, pick(r, 1, 16, 128, 1+r.IntN(1000)))...)
	case 4:
		p[r.IntN(8)] = byte(r.Uint32())
		p[r.IntN(16)] = byte(r.Uint32())
	}
	return p
}

// open is what auth says of a packet, in the words of serve.c.
func open(sealers map[auth.KeyID]*auth.Sealer, packet []byte) string {
	id, reason := auth.CheckRequest(packet)
	if reason != auth.OK {
		return reason.String()
	}
	s := sealers[id]
	if s == nil {
		return auth.ReasonUnknownKey.String()
	}
	var req auth.Request
	reason, err := s.OpenRequest(slices.Clone(packet), &req)
	switch reason {
	case auth.ReasonMalformed:
		return fmt.Sprintf("%v %v %d %x", reason, err, req.Time, req.ID)
	case auth.OK:
		text := fmt.Sprintf("ok ok %d %x %x %d %d", req.Time, req.ID, req.Challenge, uint8(req.Op), uint8(req.Flags))
		if req.Op == auth.OpLog {
			text += fmt.Sprintf(" %d %d", req.From, req.Pieces)
		}
		for _, s := range req.Sequence() {
			text += fmt.Sprintf(" %c:%d/%d", s.Key, s.Pause, s.Wait().Milliseconds())
		}
		return text
	}
	return reason.String()
}

// TestReplies seals replies in C and opens them in Go. The numbers that are
// too large for the wire must come as the largest of their field.
func TestReplies(t *testing.T) {
	n, r := rounds(t)
	var k auth.HostKey
	fill(r, k.ID[:])
	fill(r, k.Request[:])
	fill(r, k.Reply[:])
	sealer := auth.NewSealer(&k)
	aead, err := chacha20poly1305.NewX(k.Reply[:])
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, func(string) string { return "reply" })
	p.ask(fmt.Sprintf("k %x %x %x", k.ID[:], k.Request, k.Reply), "1")
	large := func() uint64 {
		return pick(r, 0, 1, 0xfffe, 0xffff, 0x10000, 0x10001, 0xfffffffe, 0xffffffff, 1<<32, r.Uint64()>>r.IntN(64), math.MaxUint64)
	}
	for range n / 10 {
		uptime, age, load, free, sysrq, silent := large(), large(), large(), large(), large(), large()
		want := auth.Reply{
			Time: large(), ID: random16(r), Challenge: random16(r), Result: auth.Result(r.IntN(8)),
			Executor: pick(r, auth.Daemon, auth.Kernel), Flags: auth.ReplyFlags(r.IntN(32)), Mask: uint8(r.IntN(128)),
			Boot: auth.BootID(fill8(r)), Uptime: uint32(min(uptime, math.MaxUint32)), LedgerAge: uint16(min(age, 0xffff)),
			Load: uint16(min(load, 0xffff)), Free: uint32(min(free, math.MaxUint32)), Sysrq: uint16(min(sysrq, 0xffff)),
			Silent: uint16(min(silent, 0xffff)),
		}
		nonce := make([]byte, auth.NonceSize)
		fill(r, nonce)
		// The plaintext is Go's; C has to arrive at the same packet.
		packet := sealer.SealReply(&want)
		plain, err := aead.Open(nil, packet[16:40], packet[40:], packet[:16])
		if err != nil {
			t.Fatal(err)
		}
		copy(packet[16:], nonce)
		aead.Seal(packet[:40], nonce, plain, packet[:16])
		p.ask(fmt.Sprintf("r %x %x %d %x %x %d %d %d %d %x %d %d %d %d %d %d", k.ID[:], nonce, want.Time, want.ID, want.Challenge,
			want.Result, want.Executor, want.Flags, want.Mask, want.Boot, uptime, age, load, free, sysrq, silent),
			hex.EncodeToString(packet[:]))
		var back auth.Reply
		if reason, err := sealer.OpenReply(packet[:], want.ID, &back); reason != auth.OK || back != want {
			t.Fatalf("%v %v: %+v, want %+v", reason, err, back, want)
		}
	}
	p.finish()
}

// TestPieces seals pieces in C and opens them in Go.
func TestPieces(t *testing.T) {
	n, r := rounds(t)
	var k auth.HostKey
	fill(r, k.ID[:])
	fill(r, k.Request[:])
	fill(r, k.Reply[:])
	sealer := auth.NewSealer(&k)
	aead, err := chacha20poly1305.NewX(k.Reply[:])
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, func(string) string { return "piece" })
	p.ask(fmt.Sprintf("k %x %x %x", k.ID[:], k.Request, k.Reply), "1")
	for range n / 20 {
		records := []uint64{r.Uint64() >> r.IntN(64), r.Uint64() >> r.IntN(64), r.Uint64() >> r.IntN(64)}
		slices.Sort(records)
		want := auth.Piece{
			Time: r.Uint64(), ID: random16(r), Challenge: random16(r), Index: uint8(r.IntN(auth.MaxPieces)), Flags: auth.PieceFlags(r.IntN(4)),
			Boot: auth.BootID(fill8(r)), First: records[0], Next: records[1], End: records[2], Oldest: pick(r, 0, records[r.IntN(3)]),
			Text: make([]byte, pick(r, 0, 1, r.IntN(100), r.IntN(auth.TextSize+1), auth.TextSize)),
		}
		fill(r, want.Text)
		nonce := make([]byte, auth.NonceSize)
		fill(r, nonce)
		packet := sealer.SealPiece(&want)
		plain, err := aead.Open(nil, packet[16:40], packet[40:], packet[:16])
		if err != nil {
			t.Fatal(err)
		}
		copy(packet[16:], nonce)
		aead.Seal(packet[:40], nonce, plain, packet[:16])
		text := "-"
		if len(want.Text) > 0 {
			text = hex.EncodeToString(want.Text)
		}
		p.ask(fmt.Sprintf("l %x %x %d %x %x %d %d %x %d %d %d %d %s", k.ID[:], nonce, want.Time, want.ID, want.Challenge,
			want.Index, want.Flags, want.Boot, want.First, want.Next, want.End, want.Oldest, text), hex.EncodeToString(packet))
		var back auth.Piece
		if reason, err := sealer.OpenPiece(packet, &back); reason != auth.OK || !reflect.DeepEqual(back, want) {
			t.Fatalf("%v %v: %+v, want %+v", reason, err, back, want)
		}
	}
	p.finish()
}

func fill8(r *rand.Rand) []byte {
	b := make([]byte, 8)
	fill(r, b)
	return b
}
