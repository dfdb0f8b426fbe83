// SPDX-License-Identifier: GPL-2.0-only

package nfq

import (
	"encoding/binary"
	"net/netip"
)

// Datagram is a UDP datagram. Payload is a part of the packet it was read from.
type Datagram struct {
	Src, Dst netip.AddrPort
	Payload  []byte
}

const (
	ipv4HeaderLen = 20 // RFC 791, without options
	ipv6HeaderLen = 40 // RFC 8200
	udpHeaderLen  = 8  // RFC 768

	ipv4MoreFragments  = 0x2000
	ipv4FragmentOffset = 0x1fff

	// Protocol numbers, https://www.iana.org/assignments/protocol-numbers.
	protoHopByHop           = 0
	protoUDP                = 17
	protoRouting            = 43
	protoFragment           = 44
	protoDestinationOptions = 60

	// RFC 8200 section 4.1 lets each extension header occur once, destination
	// options twice.
	maxExtensionHeaders = 4
)

// ParseUDP reads a packet that begins with its IPv4 or IPv6 header. wireLen is
// the packet's length before it was truncated to the copy range, [Packet.Len];
// a value below len(packet) counts as len(packet).
//
// It returns a Datagram only if the packet holds exactly one whole datagram:
// the UDP length agrees with the IP header, and what may follow the end of the
// IP packet is link padding, left out of Payload. Fragments are refused, and so
// is an IPv6 fragment header with nothing left to reassemble (an "atomic
// fragment", RFC 6946): RFC 8021 deprecates them, and whoever takes them sees
// packets that a rule about fragments does not.
//
// Checksums are not verified. Addresses are not judged, and neither are ports:
// they may be zero, multicast or broadcast. No memory is allocated.
func ParseUDP(packet []byte, wireLen int) (Datagram, error) {
	wireLen = max(wireLen, len(packet))
	if len(packet) == 0 {
		return Datagram{}, ErrIPVersion
	}
	switch packet[0] >> 4 {
	case 4:
		return parseIPv4(packet, wireLen)
	case 6:
		return parseIPv6(packet, wireLen)
	}
	return Datagram{}, ErrIPVersion
}

func parseIPv4(packet []byte, wireLen int) (Datagram, error) {
	if len(packet) < ipv4HeaderLen {
		return Datagram{}, tooShort(packet, wireLen)
	}
	headerLen := int(packet[0]&0xf) * 4
	if headerLen < ipv4HeaderLen {
		return Datagram{}, ErrHeaderLength
	}
	totalLen := int(binary.BigEndian.Uint16(packet[2:]))
	if totalLen > wireLen {
		return Datagram{}, ErrIPLength
	}
	if totalLen < headerLen {
		return Datagram{}, ErrHeaderLength
	}
	if binary.BigEndian.Uint16(packet[6:])&(ipv4MoreFragments|ipv4FragmentOffset) != 0 {
		return Datagram{}, ErrFragment
	}
	if packet[9] != protoUDP {
		return Datagram{}, ErrNotUDP
	}
	if totalLen > len(packet) {
		return Datagram{}, ErrTruncated
	}
	src := netip.AddrFrom4([4]byte(packet[12:16]))
	dst := netip.AddrFrom4([4]byte(packet[16:20]))
	return parseUDPHeader(packet[headerLen:totalLen], src, dst)
}

func parseIPv6(packet []byte, wireLen int) (Datagram, error) {
	if len(packet) < ipv6HeaderLen {
		return Datagram{}, tooShort(packet, wireLen)
	}
	payloadLen := int(binary.BigEndian.Uint16(packet[4:]))
	if payloadLen == 0 {
		return Datagram{}, ErrJumbo
	}
	end := ipv6HeaderLen + payloadLen
	if end > wireLen {
		return Datagram{}, ErrIPLength
	}
	truncated := end > len(packet)
	if truncated {
		end = len(packet)
	}
	next, rest := packet[6], packet[ipv6HeaderLen:end]
	for count := 0; next != protoUDP; count++ {
		switch next {
		case protoHopByHop:
			// Anywhere but first it is a parameter problem (RFC 8200 section 4).
			if count != 0 {
				return Datagram{}, ErrExtensionHeaders
			}
		case protoRouting, protoDestinationOptions:
		case protoFragment:
			return Datagram{}, ErrFragment
		default:
			return Datagram{}, ErrNotUDP
		}
		if count == maxExtensionHeaders {
			return Datagram{}, ErrExtensionHeaders
		}
		// Every extension header left is at least 8 bytes: next header,
		// length in 8-byte units without the first, and its own data.
		headerLen := 8
		if len(rest) >= headerLen {
			headerLen += int(rest[1]) * 8
		}
		if len(rest) < headerLen {
			if truncated {
				return Datagram{}, ErrTruncated
			}
			return Datagram{}, ErrHeaderLength
		}
		// With segments left, the destination address is only a stop
		// on the way and the packet is not ours to take.
		if next == protoRouting && rest[3] != 0 {
			return Datagram{}, ErrExtensionHeaders
		}
		next, rest = rest[0], rest[headerLen:]
	}
	if truncated {
		return Datagram{}, ErrTruncated
	}
	src := netip.AddrFrom16([16]byte(packet[8:24]))
	dst := netip.AddrFrom16([16]byte(packet[24:40]))
	return parseUDPHeader(rest, src, dst)
}

// parseUDPHeader takes all that the IP header says belongs to the datagram.
func parseUDPHeader(b []byte, src, dst netip.Addr) (Datagram, error) {
	if len(b) < udpHeaderLen || int(binary.BigEndian.Uint16(b[4:])) != len(b) {
		return Datagram{}, ErrUDPLength
	}
	return Datagram{
		Src:     netip.AddrPortFrom(src, binary.BigEndian.Uint16(b)),
		Dst:     netip.AddrPortFrom(dst, binary.BigEndian.Uint16(b[2:])),
		Payload: b[udpHeaderLen:],
	}, nil
}

// tooShort says why the IP header is incomplete.
func tooShort(packet []byte, wireLen int) error {
	if wireLen > len(packet) {
		return ErrTruncated
	}
	return ErrHeaderLength
}
