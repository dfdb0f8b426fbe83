// SPDX-License-Identifier: GPL-2.0-only

package nfq

import (
	"encoding/binary"
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// Message layouts: struct nlmsghdr, struct nlmsgerr and struct nlattr of
// include/uapi/linux/netlink.h, struct nfgenmsg of linux/netfilter/nfnetlink.h,
// the rest of linux/netfilter/nfnetlink_queue.h. Netlink's own fields are in
// the byte order of the machine, nfnetlink's are big-endian.
const (
	nlmsgHeaderLen   = 16
	nlmsgErrLen      = 4 + nlmsgHeaderLen // errno, then the header of the request
	nfgenmsgLen      = 4                  // family u8, version u8, queue number u16
	attrHeaderLen    = 4
	attrTypeMask     = 0x3fff // without NLA_F_NESTED and NLA_F_NET_BYTEORDER
	packetHdrLen     = 7      // packet id u32, hw protocol u16, hook u8
	timestampLen     = 16     // seconds u64, microseconds u64
	verdictHdrLen    = 8      // verdict u32, packet id u32
	msgPacket        = unix.NFNL_SUBSYS_QUEUE << 8
	msgConfig        = unix.NFNL_SUBSYS_QUEUE<<8 | 2
	msgVerdictBatch  = unix.NFNL_SUBSYS_QUEUE<<8 | 3
	attrPacketHdr    = 1
	attrVerdictHdr   = 2
	attrMark         = 3
	attrTimestamp    = 4
	attrIfindexIndev = 5
	attrPayload      = 10
	attrCapLen       = 13

	netfilterDrop, netfilterAccept = 0, 1 // NF_DROP, NF_ACCEPT

	verdictMessageLen = nlmsgHeaderLen + nfgenmsgLen + attrHeaderLen + verdictHdrLen
	probeMessageLen   = nlmsgHeaderLen + nfgenmsgLen
)

// Sequence numbers tell which of our requests an error message answers.
const (
	seqVerdict uint32 = iota
	seqProbe
	seqClear
)

var errMalformed = errors.New("malformed netlink message")

// message is one netlink message: its body is a part of the datagram.
type message struct {
	kind uint16
	body []byte
}

// nextMessage splits the first message off a datagram, which must not be empty.
func nextMessage(datagram []byte) (m message, rest []byte, err error) {
	if len(datagram) < nlmsgHeaderLen {
		return message{}, nil, errMalformed
	}
	length := binary.NativeEndian.Uint32(datagram)
	if length < nlmsgHeaderLen || uint64(length) > uint64(len(datagram)) {
		return message{}, nil, errMalformed
	}
	m = message{
		kind: binary.NativeEndian.Uint16(datagram[4:]),
		body: datagram[nlmsgHeaderLen:length],
	}
	// The last message need not be padded.
	return m, datagram[min(align4(int(length)), len(datagram)):], nil
}

// parseError reads the body of an NLMSG_ERROR message. A zero errno is an
// acknowledgement.
func parseError(body []byte) (errno syscall.Errno, seq uint32, err error) {
	if len(body) < nlmsgErrLen {
		return 0, 0, errMalformed
	}
	code := int32(binary.NativeEndian.Uint32(body))
	return syscall.Errno(-int64(code)), binary.NativeEndian.Uint32(body[4+8:]), nil
}

// parsePacket reads the body of an NFQNL_MSG_PACKET message into p. known tells
// whether p.ID is right even though an error is returned: such a packet still
// waits for a verdict. Attributes nobody asked for are skipped.
func parsePacket(body []byte, p *Packet) (known bool, err error) {
	*p = Packet{}
	if len(body) < nfgenmsgLen {
		return false, errMalformed
	}
	capLen := uint32(0)
	for rest := body[nfgenmsgLen:]; len(rest) > 0; {
		if len(rest) < attrHeaderLen {
			return known, errMalformed
		}
		length := int(binary.NativeEndian.Uint16(rest))
		kind := binary.NativeEndian.Uint16(rest[2:]) & attrTypeMask
		if length < attrHeaderLen || length > len(rest) {
			return known, errMalformed
		}
		value := rest[attrHeaderLen:length]
		rest = rest[min(align4(length), len(rest)):]

		switch kind {
		case attrPacketHdr:
			if len(value) < packetHdrLen {
				return known, errMalformed
			}
			p.ID, known = binary.BigEndian.Uint32(value), true
		case attrMark:
			if len(value) < 4 {
				return known, errMalformed
			}
			p.Mark = binary.BigEndian.Uint32(value)
		case attrIfindexIndev:
			if len(value) < 4 {
				return known, errMalformed
			}
			p.InDev = binary.BigEndian.Uint32(value)
		case attrTimestamp:
			if len(value) < timestampLen {
				return known, errMalformed
			}
			sec := int64(binary.BigEndian.Uint64(value))
			usec := int64(binary.BigEndian.Uint64(value[8:]))
			p.Arrived = sec*1e9 + usec*1e3
		case attrCapLen:
			if len(value) < 4 {
				return known, errMalformed
			}
			capLen = binary.BigEndian.Uint32(value)
		case attrPayload:
			p.Data = value
		}
	}
	if !known || capLen > 1<<30 {
		return known, errMalformed
	}
	p.Len = max(int(capLen), len(p.Data))
	return true, nil
}

// putHeader writes the nlmsghdr and nfgenmsg of a request of len(b) bytes.
func putHeader(b []byte, kind, flags uint16, seq uint32, queue uint16) {
	clear(b[:nlmsgHeaderLen+nfgenmsgLen])
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], kind)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|flags)
	binary.NativeEndian.PutUint32(b[8:], seq)
	binary.BigEndian.PutUint16(b[nlmsgHeaderLen+2:], queue)
}

// putVerdict writes a verdict for all packets of the queue up to and including
// id. The kernel compares ids in a circle: "up to" reaches back 2^31 ids
// (nfq_id_after in net/netfilter/nfnetlink_queue.c).
func putVerdict(b *[verdictMessageLen]byte, seq uint32, queue uint16, id uint32, v Verdict) {
	putHeader(b[:], msgVerdictBatch, 0, seq, queue)
	attr := b[nlmsgHeaderLen+nfgenmsgLen:]
	binary.NativeEndian.PutUint16(attr, attrHeaderLen+verdictHdrLen)
	binary.NativeEndian.PutUint16(attr[2:], attrVerdictHdr)
	code := uint32(netfilterDrop)
	if v == Accept {
		code = netfilterAccept
	}
	binary.BigEndian.PutUint32(attr[4:], code)
	binary.BigEndian.PutUint32(attr[8:], id)
}

// putProbe writes a configuration request that changes nothing. Its answer
// is 0 while the queue is ours, ENODEV when nobody has it, EPERM when another
// socket has.
func putProbe(b *[probeMessageLen]byte, queue uint16) {
	putHeader(b[:], msgConfig, unix.NLM_F_ACK, seqProbe, queue)
}

func align4(n int) int { return (n + 3) &^ 3 }
