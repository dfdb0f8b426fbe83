// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"encoding/binary"
	"net/netip"
)

// The two ends of the wire. Every address but the guest's own is reached
// through the host's.
var (
	HostIPv4  = netip.MustParseAddr("192.0.2.1")
	HostIPv6  = netip.MustParseAddr("2001:db8::1")
	GuestIPv4 = netip.MustParseAddr("192.0.2.2")
	GuestIPv6 = netip.MustParseAddr("2001:db8::2")

	HostMAC  = [6]byte{2, 0, 0, 0, 0, 1}
	GuestMAC = [6]byte{2, 0, 0, 0, 0, 2}
)

// GuestUDP4 and GuestUDP6 are a UDP port of the guest.
func GuestUDP4(port uint16) netip.AddrPort { return netip.AddrPortFrom(GuestIPv4, port) }
func GuestUDP6(port uint16) netip.AddrPort { return netip.AddrPortFrom(GuestIPv6, port) }

// Numbers of protocols, as they stand in headers.
const (
	etherIPv4 = 0x0800
	etherARP  = 0x0806
	etherIPv6 = 0x86dd

	protoICMP   = 1
	protoUDP    = 17
	protoICMPv6 = 58

	etherSize = 14
	ipv4Size  = 20
	ipv6Size  = 40
	udpSize   = 8
	icmpSize  = 8

	echoRequest4, echoReply4 = 8, 0
	echoRequest6, echoReply6 = 128, 129
	solicitation             = 135
	advertisement            = 136
)

var be = binary.BigEndian

// UDPFrame returns a whole Ethernet frame from the host to the guest with a
// well-formed UDP datagram in it. Both addresses are of one family. A test of
// malformed packets breaks it afterwards.
func UDPFrame(from, to netip.AddrPort, payload []byte) []byte {
	udp := make([]byte, udpSize, udpSize+len(payload))
	be.PutUint16(udp[0:], from.Port())
	be.PutUint16(udp[2:], to.Port())
	be.PutUint16(udp[4:], uint16(udpSize+len(payload)))
	udp = append(udp, payload...)
	sum := Checksum(from.Addr(), to.Addr(), protoUDP, udp)
	if sum == 0 {
		sum = 0xffff // zero would mean that there is none
	}
	be.PutUint16(udp[6:], sum)
	return IPFrame(from.Addr(), to.Addr(), protoUDP, udp)
}

// IPFrame puts an IP header, without options, and an Ethernet header in front of
// what a protocol carries, from the host to the guest.
func IPFrame(from, to netip.Addr, proto byte, payload []byte) []byte {
	f := make([]byte, 0, etherSize+ipv6Size+len(payload))
	f = append(f, GuestMAC[:]...)
	f = append(f, HostMAC[:]...)
	if from.Is4() {
		f = be.AppendUint16(f, etherIPv4)
		h := make([]byte, ipv4Size)
		h[0], h[8], h[9] = 4<<4|ipv4Size/4, 64, proto
		be.PutUint16(h[2:], uint16(ipv4Size+len(payload)))
		copy(h[12:], from.AsSlice())
		copy(h[16:], to.AsSlice())
		be.PutUint16(h[10:], checksum(0, h))
		f = append(f, h...)
	} else {
		f = be.AppendUint16(f, etherIPv6)
		h := make([]byte, ipv6Size)
		h[0], h[6], h[7] = 6<<4, proto, 255 // neighbour discovery wants 255
		be.PutUint16(h[4:], uint16(len(payload)))
		copy(h[8:], from.AsSlice())
		copy(h[24:], to.AsSlice())
		f = append(f, h...)
	}
	return append(f, payload...)
}

// echoFrame is an ICMP echo request or reply of the host.
func echoFrame(from, to netip.Addr, request bool, id, seq uint16, data []byte) []byte {
	m := make([]byte, icmpSize, icmpSize+len(data))
	be.PutUint16(m[4:], id)
	be.PutUint16(m[6:], seq)
	m = append(m, data...)
	switch {
	case from.Is4() && request:
		m[0] = echoRequest4
	case from.Is4():
		m[0] = echoReply4
	case request:
		m[0] = echoRequest6
	default:
		m[0] = echoReply6
	}
	return icmpFrame(from, to, m)
}

// icmpFrame fills in the checksum of an ICMP message.
func icmpFrame(from, to netip.Addr, m []byte) []byte {
	if from.Is4() {
		be.PutUint16(m[2:], checksum(0, m))
		return IPFrame(from, to, protoICMP, m)
	}
	be.PutUint16(m[2:], Checksum(from, to, protoICMPv6, m))
	return IPFrame(from, to, protoICMPv6, m)
}

// Checksum is that of a UDP, TCP or ICMPv6 message (RFC 1071, with the addresses,
// the protocol and the length). Over a message with its checksum in place it is 0.
func Checksum(from, to netip.Addr, proto byte, message []byte) uint16 {
	return checksum(pseudo(from, to, proto, len(message)), message)
}

// pseudo is the part of a checksum that stands for addresses, protocol and
// length.
func pseudo(from, to netip.Addr, proto byte, length int) uint32 {
	sum := uint32(proto) + uint32(length)
	for _, a := range [][]byte{from.AsSlice(), to.AsSlice()} {
		for i := 0; i < len(a); i += 2 {
			sum += uint32(be.Uint16(a[i:]))
		}
	}
	return sum
}

// checksum is that of RFC 1071.
func checksum(sum uint32, b []byte) uint16 {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(be.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// packet is an IP packet that the guest sent.
type packet struct {
	from, to netip.Addr
	proto    byte
	payload  []byte
}

// parse takes a frame apart, if it is an IP packet that is whole. Frames of the
// guest are believed otherwise: checksums are not looked at.
func parse(f []byte) (p packet, ok bool) {
	if len(f) < etherSize {
		return p, false
	}
	b := f[etherSize:]
	switch be.Uint16(f[12:]) {
	case etherIPv4:
		if len(b) < ipv4Size {
			return p, false
		}
		head, total := int(b[0]&15)*4, int(be.Uint16(b[2:]))
		if head < ipv4Size || total < head || total > len(b) || be.Uint16(b[6:])&0x3fff != 0 {
			return p, false
		}
		p.from, p.to, p.proto = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:])), b[9]
		p.payload = b[head:total]
	case etherIPv6:
		if len(b) < ipv6Size || ipv6Size+int(be.Uint16(b[4:])) > len(b) {
			return p, false
		}
		p.from, p.to, p.proto = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:])), b[6]
		p.payload = b[ipv6Size : ipv6Size+int(be.Uint16(b[4:]))]
	default:
		return p, false
	}
	return p, true
}

// udp returns the datagram in a packet, if it is one.
func (p packet) udp() (from, to netip.AddrPort, payload []byte, ok bool) {
	if p.proto != protoUDP || len(p.payload) < udpSize {
		return from, to, nil, false
	}
	n := int(be.Uint16(p.payload[4:]))
	if n < udpSize || n > len(p.payload) {
		return from, to, nil, false
	}
	return netip.AddrPortFrom(p.from, be.Uint16(p.payload)), netip.AddrPortFrom(p.to, be.Uint16(p.payload[2:])),
		p.payload[udpSize:n], true
}

// ParseUDP returns the UDP datagram in a frame, if that is what it holds.
func ParseUDP(frame []byte) (from, to netip.AddrPort, payload []byte, ok bool) {
	p, ok := parse(frame)
	if !ok {
		return from, to, nil, false
	}
	return p.udp()
}
