// SPDX-License-Identifier: GPL-2.0-only

//go:build integration

package e2e_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"netsysrq/auth"
)

// vector is a request of auth/testdata/vectors.
type vector struct {
	name, expect string
	key          auth.HostKey
	packet       []byte
}

func readVectors(t *testing.T) (list []vector) {
	t.Helper()
	files, err := filepath.Glob("../../auth/testdata/vectors/request_*.txt")
	if err != nil || len(files) < 100 {
		t.Fatalf("%d vectors: %v", len(files), err)
	}
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		head, packet, _ := strings.Cut(string(b), "\n\n")
		v := vector{name: filepath.Base(f), packet: unhex(strings.Join(strings.Fields(packet), ""))}
		for l := range strings.Lines(head + "\n") {
			name, value, _ := strings.Cut(strings.TrimSuffix(l, "\n"), ": ")
			switch name {
			case "expect":
				v.expect = value
			case "key-id":
				copy(v.key.ID[:], unhex(value))
			case "request-key":
				copy(v.key.Request[:], unhex(value))
			case "reply-key":
				copy(v.key.Reply[:], unhex(value))
			}
		}
		list = append(list, v)
	}
	return list
}

// badInput is a host on which every SysRq key is allowed to the owner of the
// vectors' key and to alice, with a sniffer for whatever comes back.
type badInput struct {
	*host
	back    *sniffer
	vectors []vector
	// bare is a host without the daemon's rules: one rule queues all UDP.
	bare bool
	want map[string]uint64
}

func newBadInput(t *testing.T, bare bool) *badInput {
	h := newHost(t, plain)
	b := &badInput{host: h, vectors: readVectors(t), bare: bare, want: map[string]uint64{}}
	if bare {
		h.queueEverything()
	}
	all, err := auth.ParseKeySet(allowAll)
	if err != nil {
		t.Fatal(err)
	}
	h.enrol("vector", (&auth.Enrolment{Operator: "vector", Host: hostName, Allow: all, Key: b.vectors[0].key}).Line())
	h.start()
	b.back = h.sniff(h.lab.Client)
	return b
}

// junk sends packets that are to be counted for a reason, and nothing else.
func (b *badInput) junk(f family, reason string, packets ...[]byte) {
	b.Helper()
	p := b.peer(f)
	for i, packet := range packets {
		p.send(packet)
		if i%200 == 199 {
			b.settled() // a full queue would drop
		}
	}
	b.expect(reason, len(packets))
}

// expect waits until packets are judged and notes how they must be counted.
// The rules drop what is not of the right length or has no magic.
func (b *badInput) expect(reason string, n int) {
	b.Helper()
	b.settled()
	if b.bare || reason != "length" && reason != "magic" && reason != "datagram" {
		b.want[reason] += uint64(n)
	}
}

func (b *badInput) frames(reason string, packets ...[]byte) {
	b.Helper()
	b.sendFrames(packets...)
	b.expect(reason, len(packets))
}

// slips sends packets that the rules let pass although they are bad.
func (b *badInput) slips(reason string, packets ...[]byte) {
	b.Helper()
	b.sendFrames(packets...)
	b.settled()
	b.want[reason] += uint64(len(packets))
}

// TestBadInput sends what must have no effect and no answer, and compares
// what the daemon says of it with what was sent.
func TestBadInput(t *testing.T) {
	for name, bare := range map[string]bool{"rules": false, "everything queued": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBadInput(t, bare)
			for _, f := range families {
				b.headers(f)
				b.lengths(f)
				b.keys(f)
				b.bits(f)
				b.reflected(f)
				b.back.silent(f.name + " junk")
				b.oddPackets(f)
			}
			b.settled()
			b.back.silent("all of the junk")
			b.alive()
			h := b.host
			if got := h.triggered(); got != "" {
				t.Errorf("trigger: %q", got)
			}
			h.stop()
			h.wantCounted(b.want)
			t.Logf("counted: %v", h.counted())
		})
	}
}

// headers are the vectors that fail before or at the AEAD.
func (b *badInput) headers(f family) {
	b.Helper()
	for _, v := range b.vectors {
		switch {
		case v.expect == "ok" || v.expect == "malformed":
		case len(v.packet) > whole:
			b.junk(f, "datagram", v.packet)
		default:
			b.junk(f, v.expect, v.packet)
		}
	}
	b.back.silent(f.name + " vectors")
}

// lengths are prefixes of a valid status, followed by zeros, of every length
// but the right one. Those beyond the MTU come in fragments, and of those that
// are longer than any request the daemon does not see all.
func (b *badInput) lengths(f family) {
	b.Helper()
	r := b.status()
	valid := b.alice.SealRequest(&r)
	const mtu = 1500
	fits := mtu - 28
	if f.name == "IPv6" {
		fits = mtu - 48
	}
	var short, cut, long [][]byte
	for n := range 2001 {
		packet := make([]byte, n)
		copy(packet, valid[:])
		switch {
		case n == auth.PacketSize || n > whole && n <= 512-28:
			// In between, it depends on the IP header what is wrong.
		case n <= whole:
			short = append(short, packet)
		case n <= fits:
			cut = append(cut, packet)
		default:
			long = append(long, packet)
		}
	}
	b.junk(f, "length", short...)
	b.junk(f, "datagram", cut...)
	p := b.peer(f)
	for i, packet := range long {
		p.send(packet)
		if i%100 == 99 {
			b.settled()
		}
	}
	// Without connection tracking nothing puts fragments together before the
	// raw table, and the two of each packet come one by one.
	b.expect("datagram", 2*len(long))
}

// whole is the most payload of which the daemon sees every byte, whatever the
// IP header: it reads 512 bytes of a packet.
const whole = 512 - 48

// keys are packets sealed with keys that the host does not have.
func (b *badInput) keys(f family) {
	b.Helper()
	seal := func(k auth.HostKey) []byte {
		r := b.status()
		p := auth.NewSealer(&k).SealRequest(&r)
		return p[:]
	}
	right, err := b.owner.HostKey(hostName)
	if err != nil {
		b.Fatal(err)
	}
	other, err := b.owner.HostKey("web02.example.org")
	if err != nil {
		b.Fatal(err)
	}
	stranger := auth.NewMaster()
	foreign, err := stranger.HostKey(hostName)
	if err != nil {
		b.Fatal(err)
	}
	b.junk(f, "unknown-key", seal(other), seal(foreign))
	forged := foreign
	forged.ID = right.ID
	crossed := right
	crossed.Request, crossed.Reply = right.Reply, right.Request
	b.junk(f, "forged", seal(forged), seal(crossed))
	version := seal(right)
	version[4] = 2
	b.junk(f, "version", version)
}

// bits are all packets that differ from a valid one in a single bit.
func (b *badInput) bits(f family) {
	b.Helper()
	r := b.runOf("n,s,u,b", 0, auth.Challenge{})
	r.Time = b.now()
	valid := b.alice.SealRequest(&r)
	kinds := map[string][][]byte{}
	for bit := range 8 * len(valid) {
		packet := slices.Clone(valid[:])
		packet[bit/8] ^= 0x80 >> (bit % 8)
		kind := "forged"
		switch at := bit / 8; {
		case at < 4:
			kind = "magic"
		case at == 4:
			kind = "version"
		case at == 5:
			kind = "type"
		case at < 8:
			kind = "reserved"
		case at < 16:
			kind = "unknown-key"
		}
		kinds[kind] = append(kinds[kind], packet)
	}
	for kind, packets := range kinds {
		b.junk(f, kind, packets...)
	}
}

// reflected are the host's own replies.
func (b *badInput) reflected(f family) {
	b.Helper()
	b.back.silent("what was before the reflection")
	p := b.peer(f)
	r := b.status()
	packet := b.alice.SealRequest(&r)
	p.send(packet[:])
	reply := make([]byte, 2048)
	p.conn.SetReadDeadline(time.Now().Add(patience))
	n, err := p.conn.Read(reply)
	if err != nil || n != auth.PacketSize {
		b.Fatalf("reply of %d bytes: %v", n, err)
	}
	if got := b.back.drain(); len(got) != 1 || !bytes.HasSuffix(got[0], reply[:n]) {
		b.Errorf("%d packets came back for one status", len(got))
	}
	b.junk(f, "type", reply[:n])
	retyped := slices.Clone(reply[:n])
	retyped[5] = 1
	b.junk(f, "forged", retyped)
}

// oddPackets carry valid requests in packets that must not be listened to.
func (b *badInput) oddPackets(f family) {
	b.Helper()
	seal := func() []byte {
		r := b.status()
		p := b.alice.SealRequest(&r)
		return p[:]
	}
	odd := func(change func(*ipPacket)) []byte {
		p := ipPacket{src: f.client, port: 40000, payload: seal()}
		change(&p)
		return p.bytes(f)
	}
	b.frames("source", odd(func(p *ipPacket) { p.port = 0 }))
	sources := []string{"224.0.0.1", "239.255.255.250", "255.255.255.255", "240.0.0.1", "0.0.0.0", "0.1.2.3", "127.0.0.1", "127.9.9.9"}
	if f.name == "IPv6" {
		sources = []string{"::", "::ffff:192.0.2.1"}
		// The kernel drops these before any table (ip6_rcv_core).
		for _, s := range []string{"ff02::1", "ff0e::5", "::1"} {
			b.sendFrames(odd(func(p *ipPacket) { p.src = s }))
		}
	}
	for _, s := range sources {
		b.frames("source", odd(func(p *ipPacket) { p.src = s }))
	}
	b.back.silent(f.name + " sources")

	// The UDP header says less or more than the IP header.
	b.frames("datagram", odd(func(p *ipPacket) { p.udpMore = -1 }), odd(func(p *ipPacket) { p.udpMore = 1 }),
		odd(func(p *ipPacket) { p.udpMore = -128 }))
	longer := odd(func(p *ipPacket) { p.payload = append(p.payload, 0); p.udpMore = -1 })
	if f.name == "IPv4" {
		b.slips("datagram", longer) // the rule looks at the length in the UDP header
	} else {
		b.frames("datagram", longer)
	}
	b.back.silent(f.name + " UDP lengths")

	if f.name == "IPv4" {
		// The first of several fragments with all that we need in it, and a
		// later one that looks like a whole packet.
		b.frames("datagram", odd(func(p *ipPacket) { p.fragment = 0x2000 }))
		b.fragmentsEnd(f, odd(func(p *ipPacket) { p.fragment = 0x0010 }))
		b.fragmentsEnd(f, odd(func(p *ipPacket) { p.fragment, p.cut = 0x2000, 72 }), odd(func(p *ipPacket) { p.fragment, p.skip = 72/8, 72 }))
		// IP options alone make no packet a bad one: junk in it is junk.
		junk := seal()
		junk[127] ^= 1
		b.frames("forged", odd(func(p *ipPacket) { p.payload, p.extension = junk, []byte{1, 1, 1, 0} }))
		// The IP header says more than there is, or less: the kernel drops
		// the first, and of the second the UDP header says more.
		b.sendFrames(odd(func(p *ipPacket) { p.ipMore = 8 }))
		b.slips("datagram", odd(func(p *ipPacket) { p.ipMore = -8 }))
	} else {
		fragment := func(offset uint16, more bool) []byte {
			e := []byte{unix.IPPROTO_UDP, 0, 0, 0, 1, 2, 3, byte(4 + offset)}
			binary.BigEndian.PutUint16(e[2:], offset<<3)
			if more {
				e[3] |= 1
			}
			return e
		}
		b.frames("datagram", odd(func(p *ipPacket) { p.next, p.extension = unix.IPPROTO_FRAGMENT, fragment(0, true) }))
		// All of it in one fragment (RFC 6946), and in two.
		b.fragmentsEnd(f, odd(func(p *ipPacket) { p.next, p.extension = unix.IPPROTO_FRAGMENT, fragment(0, false) }))
		two := func(offset uint16, more bool) []byte {
			e := fragment(offset, more)
			e[7] = 99
			return e
		}
		b.fragmentsEnd(f,
			odd(func(p *ipPacket) { p.next, p.extension, p.cut = unix.IPPROTO_FRAGMENT, two(0, true), 72 }),
			odd(func(p *ipPacket) { p.next, p.extension, p.skip = unix.IPPROTO_FRAGMENT, two(72/8, false), 72 }))
		// Extension headers are for nobody that we wait for: the rules drop
		// them. Without rules the daemon reads past them, to find junk.
		junk := seal()
		junk[127] ^= 1
		for _, e := range []struct {
			next byte
			head []byte
		}{
			{unix.IPPROTO_DSTOPTS, []byte{unix.IPPROTO_UDP, 0, 1, 4, 0, 0, 0, 0}},
			{unix.IPPROTO_HOPOPTS, []byte{unix.IPPROTO_UDP, 0, 1, 4, 0, 0, 0, 0}},
		} {
			b.sendFrames(odd(func(p *ipPacket) { p.payload, p.next, p.extension = junk, e.next, e.head }))
			b.settled()
			if b.bare {
				b.want["forged"]++
			}
		}
	}
	b.back.silent(f.name + " odd packets")

	// Addresses that only the kernel knows to be none of a sender: the reply
	// to the host's own address comes in again by loopback, and is junk.
	b.sendFrames(odd(func(p *ipPacket) { p.src, p.port = f.server, auth.Port }))
	b.expect("type", 1)
	if f.name == "IPv4" {
		b.sendFrames(odd(func(p *ipPacket) { p.src = "192.0.2.255" }))
		b.settled()
	}
	b.settled()
	b.back.silent(f.name + " the host's own address and a broadcast one")
}

// fragmentsEnd sends fragments: of nothing, or of a valid request.
func (b *badInput) fragmentsEnd(f family, packets ...[]byte) {
	b.Helper()
	b.frames("datagram", packets...)
	b.back.silent(f.name + " fragments")
}

// TestVectorsOfAHolder sends the vectors that a holder of the key has sealed.
// They may be answered, but none of them is fresh.
func TestVectorsOfAHolder(t *testing.T) {
	t.Parallel()
	b := newBadInput(t, false)
	for _, f := range families {
		p := b.peer(f)
		sealer := auth.NewSealer(&b.vectors[0].key)
		var sent int
		for _, v := range b.vectors {
			if v.expect != "ok" && v.expect != "malformed" {
				continue
			}
			sent++
			var r auth.Request
			open := slices.Clone(v.packet)
			if reason, err := sealer.OpenRequest(open, &r); reason.String() != v.expect && !(reason == auth.OK && v.expect == "ok") {
				t.Fatalf("%s: %v %v", v.name, reason, err)
			}
			// As slowly as the budget for what proves nothing new refills.
			time.Sleep(auth.Refill + 5*time.Millisecond)
			p.send(v.packet)
			reply, ok := p.receive(sealer, patience, r.ID)
			if !ok {
				t.Errorf("%s %s: not answered", f.name, v.name)
				continue
			}
			want := auth.Status
			switch {
			case v.expect == "malformed":
				want = auth.Malformed
			case r.Op == auth.OpRun, r.Op == auth.OpLog:
				want = auth.Stale
			}
			if reply.Result != want {
				t.Errorf("%s %s: answered %v, want %v", f.name, v.name, reply.Result, want)
			}
		}
		if got := b.back.drain(); len(got) != sent {
			t.Errorf("%s: %d packets came back for %d", f.name, len(got), sent)
		}
	}
	b.alive()
	if got := b.triggered(); got != "" {
		t.Errorf("trigger: %q", got)
	}
}
