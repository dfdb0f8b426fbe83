// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"bytes"
	"net/netip"
	"testing"
)

// sumOf is what a receiver computes over a message with its checksum in place:
// zero, if nothing is damaged.
func sumOf(p packet) uint16 {
	if p.from.Is4() && p.proto == protoICMP {
		return checksum(0, p.payload)
	}
	return Checksum(p.from, p.to, p.proto, p.payload)
}

func TestUDPFrame(t *testing.T) {
	for _, c := range []struct{ from, to netip.AddrPort }{
		{netip.AddrPortFrom(HostIPv4, 40001), GuestUDP4(9)},
		{netip.AddrPortFrom(HostIPv6, 40001), GuestUDP6(9)},
	} {
		for _, n := range []int{0, 1, 128, 1400} {
			payload := bytes.Repeat([]byte{0xa5}, n)
			f := UDPFrame(c.from, c.to, payload)
			from, to, got, ok := ParseUDP(f)
			if !ok || from != c.from || to != c.to || !bytes.Equal(got, payload) {
				t.Errorf("%v, %d bytes: parsed %v %v %v %x", c, n, ok, from, to, got)
			}
			p, _ := parse(f)
			if sum := sumOf(p); sum != 0 {
				t.Errorf("%v, %d bytes: checksum is off by %#x", c, n, sum)
			}
			if c.from.Addr().Is4() && checksum(0, f[etherSize:etherSize+ipv4Size]) != 0 {
				t.Errorf("%v: the header's checksum is wrong", c)
			}
		}
	}
}

// RFC 1071, section 3, has this example.
func TestChecksum(t *testing.T) {
	if got := checksum(0, []byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}); got != ^uint16(0xddf2) {
		t.Errorf("checksum is %#x", got)
	}
}

func TestParseRefusesWhatIsNotWhole(t *testing.T) {
	for _, f := range [][]byte{
		UDPFrame(netip.AddrPortFrom(HostIPv4, 1), GuestUDP4(2), []byte("12345678")),
		UDPFrame(netip.AddrPortFrom(HostIPv6, 1), GuestUDP6(2), []byte("12345678")),
	} {
		for n := range f {
			if _, _, _, ok := ParseUDP(f[:n]); ok {
				t.Errorf("%d of %d bytes were taken for a datagram", n, len(f))
			}
		}
		long := bytes.Clone(f)
		be.PutUint16(long[len(long)-8-udpSize+4:], 999) // the UDP length
		if _, _, _, ok := ParseUDP(long); ok {
			t.Error("a datagram longer than its packet was taken")
		}
	}
}

func TestNeighbourAnswers(t *testing.T) {
	q := append(append([]byte{255, 255, 255, 255, 255, 255}, GuestMAC[:]...), 8, 6, 0, 1, 8, 0, 6, 4, 0, 1)
	q = append(append(q, GuestMAC[:]...), GuestIPv4.AsSlice()...)
	q = append(append(q, 0, 0, 0, 0, 0, 0), HostIPv4.AsSlice()...)
	want := append(append(append([]byte{}, GuestMAC[:]...), HostMAC[:]...), 8, 6, 0, 1, 8, 0, 6, 4, 0, 2)
	want = append(append(want, HostMAC[:]...), HostIPv4.AsSlice()...)
	want = append(append(want, GuestMAC[:]...), GuestIPv4.AsSlice()...)
	if got := arpReply(q); !bytes.Equal(got, want) {
		t.Errorf("ARP: got  %x\nwant %x", got, want)
	}
	q[len(q)-1]++
	if got := arpReply(q); got != nil {
		t.Errorf("ARP: answered for another address: %x", got)
	}
	p, ok := parse(advertisementTo(GuestIPv6))
	if !ok || sumOf(p) != 0 || !bytes.HasSuffix(p.payload, HostMAC[:]) || p.payload[0] != advertisement {
		t.Errorf("advertisement: %v %+v", ok, p)
	}
}
