// SPDX-License-Identifier: GPL-2.0-only

package nfq

import "errors"

// What can be wrong with a queue. Test with errors.Is.
var (
	// ErrQueueOwned: another socket, of this process or another, has bound
	// the queue number.
	ErrQueueOwned = errors.New("queue is owned by another socket")
	// ErrNoCapability: CAP_NET_ADMIN over the network namespace is missing.
	ErrNoCapability = errors.New("CAP_NET_ADMIN is missing")
	// ErrUnsupported: the kernel has no nfnetlink_queue, built in or loadable.
	ErrUnsupported = errors.New("kernel has no nfnetlink_queue")
	// ErrQueueLost: the kernel no longer takes our word for the queue: it was
	// unbound, or this process gave up CAP_NET_ADMIN.
	ErrQueueLost = errors.New("queue is lost")
	// ErrClosed: the Queue was closed.
	ErrClosed = errors.New("queue is closed")
)

// Why ParseUDP refused a packet. They are returned as they are, not wrapped.
var (
	// ErrTruncated: the packet is longer than what was copied of it.
	ErrTruncated = errors.New("packet is truncated")
	// ErrIPVersion: neither IPv4 nor IPv6, or nothing at all.
	ErrIPVersion = errors.New("not an IPv4 or IPv6 packet")
	// ErrHeaderLength: a header says it is shorter than its fixed part, or
	// longer than the packet.
	ErrHeaderLength = errors.New("bad header length")
	// ErrIPLength: the IP header claims more bytes than the packet has.
	ErrIPLength = errors.New("bad IP length")
	// ErrFragment: a fragment, or an IPv6 packet with a fragment header.
	ErrFragment = errors.New("packet is a fragment")
	// ErrExtensionHeaders: more IPv6 extension headers than any honest sender
	// uses, or in an order that RFC 8200 forbids, or a route that has not
	// ended here.
	ErrExtensionHeaders = errors.New("unacceptable IPv6 extension headers")
	// ErrJumbo: an IPv6 payload length of 0, as jumbograms have (RFC 2675).
	ErrJumbo = errors.New("packet is a jumbogram")
	// ErrNotUDP: the payload is of another protocol, or encrypted.
	ErrNotUDP = errors.New("not a UDP packet")
	// ErrUDPLength: the UDP length is not what the IP header leaves for it.
	ErrUDPLength = errors.New("bad UDP length")
)
