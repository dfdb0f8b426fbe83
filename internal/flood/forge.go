// SPDX-License-Identifier: GPL-2.0-only

package flood

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"net"
	"net/netip"
)

// forge writes frames. All that is the same in every frame is summed up once:
// the Internet checksum (RFC 1071) is a sum, so the rest is added later.
type forge struct {
	wire    Wire
	load    Load
	rnd     *rand.PCG
	frames  [][]byte // templates, one for each payload; varying bytes are 0
	sums    []uint64 // of everything under the UDP checksum in a template
	payload int      // offset
	next    int
	from    int
}

const ethernet = 14

func newForge(own net.HardwareAddr, w Wire, l Load) (*forge, error) {
	if len(own) != 6 || len(w.Peer) != 6 || len(w.Sources) == 0 {
		return nil, fmt.Errorf("flood: an Ethernet device, its peer and a source are needed")
	}
	for _, s := range w.Sources {
		if s.Addr().Is4() != w.To.Addr().Is4() {
			return nil, fmt.Errorf("flood: %v is not of the family of %v", s, w.To.Addr())
		}
	}
	f := &forge{wire: w, load: l, rnd: newRandom()}
	for _, p := range l.Payloads {
		b := append(append([]byte{}, w.Peer...), own...)
		udp := uint16(8 + len(p))
		to := w.To.Addr().AsSlice()
		pseudo := sum(to) + 17 + uint64(udp)
		if w.To.Addr().Is4() {
			b = binary.BigEndian.AppendUint16(b, 0x0800)
			h := []byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 0, 0, 0, 0} // don't fragment
			binary.BigEndian.PutUint16(h[2:], 20+udp)
			b = append(append(b, h...), to...)
		} else {
			b = binary.BigEndian.AppendUint16(b, 0x86dd)
			h := []byte{0x60, 0, 0, 0, 0, 0, 17, 64}
			binary.BigEndian.PutUint16(h[4:], udp)
			b = append(append(append(b, h...), make([]byte, 16)...), to...)
		}
		f.payload = len(b) + 8
		b = append(b, 0, 0, 0, 0, 0, 0, 0, 0) // UDP header
		binary.BigEndian.PutUint16(b[len(b)-6:], w.To.Port())
		binary.BigEndian.PutUint16(b[len(b)-4:], udp)
		b = append(b, p...)
		clear(b[f.payload+l.VaryFrom : f.payload+l.VaryTo])
		f.frames = append(f.frames, b)
		f.sums = append(f.sums, pseudo+sum(b[f.payload-8:]))
	}
	return f, nil
}

// frame writes the next frame and returns its length.
func (f *forge) frame(slot []byte) int {
	b := slot[:copy(slot, f.frames[f.next])]
	total := f.sums[f.next]
	f.next = (f.next + 1) % len(f.frames)

	src := f.wire.Sources[f.from]
	f.from = (f.from + 1) % len(f.wire.Sources)
	at, size := ethernet+12, 4
	if !f.wire.To.Addr().Is4() {
		at, size = ethernet+8, 16
	}
	f.source(b[at:at+size], src)
	total += sum(b[at : at+size])
	if size == 4 {
		binary.BigEndian.PutUint16(b[ethernet+10:], fold(sum(b[ethernet:ethernet+20])))
	}

	port := f.wire.Port
	if port == 0 {
		port = uint16(1024 + f.rnd.Uint64()%(1<<16-1024))
	}
	binary.BigEndian.PutUint16(b[f.payload-8:], port)
	total += uint64(port)

	vary := b[f.payload+f.load.VaryFrom : f.payload+f.load.VaryTo]
	for i := 0; i < len(vary); i += 8 {
		var v [8]byte
		binary.NativeEndian.PutUint64(v[:], f.rnd.Uint64())
		copy(vary[i:], v[:])
	}
	total += sum(vary)
	c := fold(total)
	if c == 0 {
		c = 0xffff // 0 would mean none (RFC 768)
	}
	binary.BigEndian.PutUint16(b[f.payload-2:], c)
	return len(b)
}

// source writes an address of a prefix with random bits behind it.
func (f *forge) source(b []byte, p netip.Prefix) {
	if len(b) == 4 {
		a := p.Addr().As4()
		mask := ^uint32(0) >> p.Bits() // 0 for a /32, since Go shifts so
		v := binary.BigEndian.Uint32(a[:])&^mask | uint32(f.rnd.Uint64())&mask
		binary.BigEndian.PutUint32(b, v)
		return
	}
	a := p.Addr().As16()
	for half, n := range [2]int{min(p.Bits(), 64), max(p.Bits()-64, 0)} {
		mask := ^uint64(0) >> n
		v := binary.BigEndian.Uint64(a[8*half:])&^mask | f.rnd.Uint64()&mask
		binary.BigEndian.PutUint64(b[8*half:], v)
	}
}

// sum adds up big-endian 16-bit words; an odd last byte counts as high.
func sum(b []byte) (s uint64) {
	for ; len(b) >= 8; b = b[8:] {
		var carry uint64
		s, carry = bits.Add64(s, binary.BigEndian.Uint64(b), 0)
		s += carry
	}
	s = s>>32 + s&0xffffffff
	for ; len(b) >= 2; b = b[2:] {
		s += uint64(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint64(b[0]) << 8
	}
	return s
}

// fold makes a checksum of a sum of sums.
func fold(s uint64) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}
