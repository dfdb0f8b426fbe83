// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"net/netip"
	"testing"

	"netsysrq/internal/vm"
)

func TestSegment(t *testing.T) {
	s := segment{
		from: netip.AddrPortFrom(vm.HostIPv4, 50000), to: netip.AddrPortFrom(vm.GuestIPv4, 23),
		seq: 1000, ack: 0xffffffff, flags: flagPSH | flagACK, data: []byte("odd"),
	}
	f := s.frame()
	// What is summed up with its own checksum gives nothing.
	if sum := vm.Checksum(s.from.Addr(), s.to.Addr(), protoTCP, f[etherSize+ipv4Size:]); sum != 0 {
		t.Errorf("checksum of the segment: %#x", sum)
	}
	got, ok := parseSegment(append(f, make([]byte, 6)...)) // padding
	if !ok || got.from != s.from || got.to != s.to || got.seq != s.seq || got.ack != s.ack || got.flags != s.flags || string(got.data) != "odd" {
		t.Errorf("%+v %v, want %+v", got, ok, s)
	}
	for n := range f {
		if _, ok := parseSegment(f[:n]); ok {
			t.Fatalf("%d of %d bytes pass for a segment", n, len(f))
		}
	}
}
