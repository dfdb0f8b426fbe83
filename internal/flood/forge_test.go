// SPDX-License-Identifier: GPL-2.0-only

package flood

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"
)

// plainSum is RFC 1071 as it stands, to check the quick sums against.
func plainSum(b []byte) uint16 {
	if len(b)%2 == 1 {
		b = append(append([]byte{}, b...), 0)
	}
	var s uint32
	for i := 0; i < len(b); i += 2 {
		s += uint32(b[i])<<8 | uint32(b[i+1])
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

func TestFramesAreRight(t *testing.T) {
	own, peer := net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 2}
	for _, c := range []struct {
		to      string
		sources []netip.Prefix
	}{
		{"192.0.2.2:9", []netip.Prefix{netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("192.0.2.1/32")}},
		{"[2001:db8::2]:9", []netip.Prefix{netip.MustParsePrefix("2001:db8:f000::/36"), netip.MustParsePrefix("2001:db8::1/128")}},
	} {
		to := netip.MustParseAddrPort(c.to)
		payloads := [][]byte{bytes.Repeat([]byte{0xa5}, 128), bytes.Repeat([]byte{0xff}, 41)}
		f, err := newForge(own, Wire{Peer: peer, To: to, Sources: c.sources}, Load{Payloads: payloads, VaryFrom: 16, VaryTo: 38, For: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for i := range 1000 {
			slot := make([]byte, 1500)
			b := slot[:f.frame(slot)]
			if !bytes.Equal(b[:12], append(append([]byte{}, peer...), own...)) {
				t.Fatalf("addresses % x", b[:12])
			}
			ip := b[14:]
			var src, dst netip.Addr
			var udp []byte
			if to.Addr().Is4() {
				if plainSum(ip[:20]) != 0xffff || int(binary.BigEndian.Uint16(ip[2:])) != len(ip) {
					t.Fatalf("IPv4 header % x", ip[:20])
				}
				src, dst, udp = netip.AddrFrom4([4]byte(ip[12:])), netip.AddrFrom4([4]byte(ip[16:])), ip[20:]
			} else {
				if int(binary.BigEndian.Uint16(ip[4:])) != len(ip)-40 {
					t.Fatalf("IPv6 header % x", ip[:40])
				}
				src, dst, udp = netip.AddrFrom16([16]byte(ip[8:])), netip.AddrFrom16([16]byte(ip[24:])), ip[40:]
			}
			if dst != to.Addr() || !c.sources[i%2].Contains(src) {
				t.Fatalf("from %v to %v", src, dst)
			}
			pseudo := append(append(append([]byte{}, src.AsSlice()...), dst.AsSlice()...), 0, 17, 0, byte(len(udp)))
			if plainSum(append(pseudo, udp...)) != 0xffff || int(binary.BigEndian.Uint16(udp[4:])) != len(udp) {
				t.Fatalf("UDP checksum or length of % x", udp)
			}
			want := payloads[i%2]
			if got := udp[8:]; !bytes.Equal(got[:16], want[:16]) || !bytes.Equal(got[38:], want[38:]) {
				t.Fatalf("payload % x", got)
			}
			seen[string(udp[8:])+src.String()] = true
		}
		if len(seen) != 1000 {
			t.Errorf("%d of 1000 frames differ", len(seen))
		}
	}
}

func BenchmarkFrame(b *testing.B) {
	f, err := newForge(make(net.HardwareAddr, 6), Wire{Peer: make(net.HardwareAddr, 6), To: netip.MustParseAddrPort("192.0.2.2:9"),
		Sources: []netip.Prefix{netip.MustParsePrefix("198.18.0.0/15")}}, Load{Payloads: [][]byte{make([]byte, 128)}})
	if err != nil {
		b.Fatal(err)
	}
	slot := make([]byte, 1500)
	b.ReportAllocs()
	for b.Loop() {
		f.frame(slot)
	}
}
