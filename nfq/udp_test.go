// SPDX-License-Identifier: GPL-2.0-only

package nfq

import (
	"errors"
	"net/netip"
	"testing"
	"unsafe"
)

const (
	protoICMP, protoESP, protoAH, protoNone = 1, 50, 51, 59
)

func TestParseUDP(t *testing.T) {
	plain4, plain6 := ipv4(protoUDP, nil, udp("hello")), ipv6(protoUDP, udp("hello"))
	manyExtensions := udp("hello")
	next := byte(protoUDP)
	for range maxExtensionHeaders + 1 {
		manyExtensions = extension(next, manyExtensions)
		next = protoDestinationOptions
	}
	tests := []struct {
		name    string
		packet  []byte
		wireLen int
		want    error
	}{
		{"ipv4", plain4, 0, nil},
		{"ipv6", plain6, 0, nil},
		{"ipv4 options", ipv4(protoUDP, []byte{7, 4, 4, 0}, udp("hello")), 0, nil},
		{"ipv4 longest options", ipv4(protoUDP, make([]byte, 40), udp("hello")), 0, nil},
		{"ipv4 don't fragment", with(plain4, 6, 0x40), 0, nil},
		{"ipv4 link padding", append(plain4, make([]byte, 13)...), 0, nil},
		{"ipv6 link padding", append(plain6, 0, 0), 0, nil},
		{"ipv4 link padding cut off", plain4, len(plain4) + 8, nil},
		{"ipv6 hop-by-hop", ipv6(protoHopByHop, extension(protoUDP, udp("hello"))), 0, nil},
		{"ipv6 routing", ipv6(protoRouting, extension(protoUDP, udp("hello"))), 0, nil},
		{"ipv6 destination options", ipv6(protoDestinationOptions, extension(protoUDP, udp("hello"))), 0, nil},
		{"ipv6 chain", ipv6(protoHopByHop, extension(protoDestinationOptions, extension(protoRouting,
			extension(protoDestinationOptions, extension(protoUDP, udp("hello")))))), 0, nil},
		{"ipv6 longer extension", ipv6(protoDestinationOptions,
			with(extension(protoUDP, append(make([]byte, 16), udp("hello")...)), 1, 2)), 0, nil},

		{"empty", nil, 0, ErrIPVersion},
		{"empty, truncated", nil, 100, ErrIPVersion},
		{"version 5", with(plain4, 0, 0x55), 0, ErrIPVersion},
		{"ipv4 short", plain4[:19], 0, ErrHeaderLength},
		{"ipv4 short, truncated", plain4[:19], len(plain4), ErrTruncated},
		{"ipv4 header length 4", with(plain4, 0, 0x44), 0, ErrHeaderLength},
		{"ipv4 header beyond total length", with(plain4, 0, 0x4f), 0, ErrHeaderLength},
		{"ipv4 total length too large", with(plain4, 2, 0, byte(len(plain4)+1)), 0, ErrIPLength},
		{"ipv4 total length 0", with(plain4, 2, 0, 0), 0, ErrHeaderLength},
		{"ipv4 first fragment", with(plain4, 6, 0x20), 0, ErrFragment},
		{"ipv4 last fragment", with(plain4, 7, 1), 0, ErrFragment},
		{"ipv4 icmp", ipv4(protoICMP, nil, udp("hello")), 0, ErrNotUDP},
		{"ipv4 truncated", plain4[:len(plain4)-1], len(plain4), ErrTruncated},
		{"ipv4 truncated options", with(plain4, 0, 0x46)[:22], len(plain4), ErrTruncated},
		{"ipv4 no room for udp", ipv4(protoUDP, nil, udp("")[:7]), 0, ErrUDPLength},
		{"ipv4 udp length too small", with(plain4, 25, 12), 0, ErrUDPLength},
		{"ipv4 udp length too large", with(plain4, 25, 14), 0, ErrUDPLength},
		{"ipv4 udp length 0", with(plain4, 25, 0), 0, ErrUDPLength},
		{"ipv4 udp length reaches padding", append(with(plain4, 25, 15), 0, 0), 0, ErrUDPLength},

		{"ipv6 short", plain6[:39], 0, ErrHeaderLength},
		{"ipv6 short, truncated", plain6[:39], len(plain6), ErrTruncated},
		{"ipv6 payload length too large", with(plain6, 5, 14), 0, ErrIPLength},
		{"ipv6 jumbo", with(plain6, 4, 0, 0), 0, ErrJumbo},
		{"ipv6 fragment", ipv6(protoFragment, with(extension(protoUDP, udp("hello")), 3, 1)), 0, ErrFragment},
		{"ipv6 atomic fragment", ipv6(protoFragment, extension(protoUDP, udp("hello"))), 0, ErrFragment},
		{"ipv6 esp", ipv6(protoESP, udp("hello")), 0, ErrNotUDP},
		{"ipv6 ah", ipv6(protoAH, extension(protoUDP, udp("hello"))), 0, ErrNotUDP},
		{"ipv6 no next header", ipv6(protoNone, udp("hello")), 0, ErrNotUDP},
		{"ipv6 route goes on", ipv6(protoRouting, with(extension(protoUDP, udp("hello")), 3, 1)), 0, ErrExtensionHeaders},
		{"ipv6 late hop-by-hop", ipv6(protoDestinationOptions,
			extension(protoHopByHop, extension(protoUDP, udp("hello")))), 0, ErrExtensionHeaders},
		{"ipv6 too many extensions", ipv6(protoDestinationOptions, manyExtensions), 0, ErrExtensionHeaders},
		{"ipv6 extension beyond the end", ipv6(protoDestinationOptions,
			with(extension(protoUDP, udp("hello")), 1, 9)), 0, ErrHeaderLength},
		{"ipv6 half an extension", ipv6(protoDestinationOptions, make([]byte, 7)), 0, ErrHeaderLength},
		{"ipv6 extension truncated", ipv6(protoDestinationOptions, extension(protoUDP, udp("hello")))[:44], 61, ErrTruncated},
		{"ipv6 truncated", plain6[:len(plain6)-1], len(plain6), ErrTruncated},
		{"ipv6 udp length too small", with(plain6, 45, 12), 0, ErrUDPLength},
		{"ipv6 udp length too large", with(plain6, 45, 14), 0, ErrUDPLength},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d, err := ParseUDP(test.packet, test.wireLen)
			if !errors.Is(err, test.want) {
				t.Fatalf("got error %v, want %v", err, test.want)
			}
			if err != nil {
				return
			}
			src, dst := src4, dst4
			if test.packet[0]>>4 == 6 {
				src, dst = src6, dst6
			}
			if d.Src != netip.AddrPortFrom(src, 4000) || d.Dst != netip.AddrPortFrom(dst, 9) {
				t.Errorf("got %v to %v", d.Src, d.Dst)
			}
			if string(d.Payload) != "hello" {
				t.Errorf("got payload %q", d.Payload)
			}
		})
	}
}

func TestParseUDPDoesNotAllocate(t *testing.T) {
	packet := ipv6(protoHopByHop, extension(protoUDP, udp("hello")))
	n := testing.AllocsPerRun(100, func() {
		if _, err := ParseUDP(packet, 0); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzParseUDP(f *testing.F) {
	f.Fuzz(func(t *testing.T, packet []byte, wireLen int) {
		d, err := ParseUDP(packet, wireLen)
		if err != nil {
			if d.Payload != nil || d.Src.IsValid() {
				t.Errorf("a datagram in spite of %v", err)
			}
			return
		}
		inside(t, d.Payload, packet)
		if len(d.Payload) > len(packet)-ipv4HeaderLen-udpHeaderLen {
			t.Errorf("%d bytes of payload in a packet of %d", len(d.Payload), len(packet))
		}
	})
}

// inside fails unless part lies in the memory of whole.
func inside(t *testing.T, part, whole []byte) {
	t.Helper()
	if len(part) == 0 {
		return
	}
	from := uintptr(unsafe.Pointer(unsafe.SliceData(part)))
	start := uintptr(unsafe.Pointer(unsafe.SliceData(whole)))
	if from < start || from+uintptr(len(part)) > start+uintptr(len(whole)) {
		t.Error("a slice leads out of the input")
	}
}
