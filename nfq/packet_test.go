// SPDX-License-Identifier: GPL-2.0-only

package nfq

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// Builders for the packets and messages of the tests. The lengths are right
// unless a test puts others in.

var (
	src4 = netip.MustParseAddr("192.0.2.1")
	dst4 = netip.MustParseAddr("192.0.2.2")
	src6 = netip.MustParseAddr("2001:db8::1")
	dst6 = netip.MustParseAddr("2001:db8::2")
)

func udp(payload string) []byte {
	b := binary.BigEndian.AppendUint16(nil, 4000)
	b = binary.BigEndian.AppendUint16(b, 9)
	b = binary.BigEndian.AppendUint16(b, uint16(udpHeaderLen+len(payload)))
	b = append(b, 0, 0)
	return append(b, payload...)
}

func ipv4(proto byte, options, payload []byte) []byte {
	b := make([]byte, ipv4HeaderLen)
	b[0] = 4<<4 | byte((ipv4HeaderLen+len(options))/4)
	binary.BigEndian.PutUint16(b[2:], uint16(ipv4HeaderLen+len(options)+len(payload)))
	b[8], b[9] = 64, proto
	copy(b[12:], src4.AsSlice())
	copy(b[16:], dst4.AsSlice())
	return slices.Concat(b, options, payload)
}

func ipv6(next byte, payload []byte) []byte {
	b := make([]byte, ipv6HeaderLen)
	b[0] = 6 << 4
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	b[6], b[7] = next, 64
	copy(b[8:], src6.AsSlice())
	copy(b[24:], dst6.AsSlice())
	return append(b, payload...)
}

// extension is an IPv6 extension header of the smallest size in front of rest.
func extension(next byte, rest []byte) []byte {
	return append([]byte{next, 0, 0, 0, 0, 0, 0, 0}, rest...)
}

// with changes bytes of a packet.
func with(b []byte, at int, value ...byte) []byte {
	b = slices.Clone(b)
	copy(b[at:], value)
	return b
}

func attribute(kind uint16, value ...byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(attrHeaderLen+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, align4(len(b))-len(b))...)
}

func netlinkMessage(kind uint16, parts ...[]byte) []byte {
	body := slices.Concat(parts...)
	b := make([]byte, nlmsgHeaderLen, nlmsgHeaderLen+len(body))
	binary.NativeEndian.PutUint32(b, uint32(nlmsgHeaderLen+len(body)))
	binary.NativeEndian.PutUint16(b[4:], kind)
	return append(b, body...)
}

// packetMessage is an NFQNL_MSG_PACKET as the kernel sends it.
func packetMessage(id uint32, data []byte, extra ...[]byte) []byte {
	header := append(binary.BigEndian.AppendUint32(nil, id), 0x08, 0, 0)
	return netlinkMessage(msgPacket,
		[]byte{2, 0, 0, 0},
		attribute(attrPacketHdr, header...),
		slices.Concat(extra...),
		attribute(attrPayload, data...))
}

// errorMessage is an NLMSG_ERROR about a request of ours.
func errorMessage(errno int32, seq uint32) []byte {
	code := binary.NativeEndian.AppendUint32(nil, uint32(-errno))
	request := make([]byte, nlmsgHeaderLen)
	binary.NativeEndian.PutUint32(request[8:], seq)
	return netlinkMessage(2, code, request)
}
