// SPDX-License-Identifier: GPL-2.0-only

// Package nfq reads packets from a netfilter queue (iptables -j NFQUEUE, nft
// queue) and answers each with a verdict.
//
// A [Queue] owns one queue number in one network namespace. [Open] binds it,
// [Queue.Run] hands each packet to a [Handler] on one thread and tells the
// kernel what the handler decided, [Queue.Close] gives the queue back.
// [ParseUDP] looks into a packet that the handler got. The package knows nothing of
// what the packets mean.
//
// The process needs CAP_NET_ADMIN over the namespace for as long as it runs: the
// kernel checks it for every verdict (netlink_net_capable in
// net/netlink/af_netlink.c), not only for the bind.
//
// The files, in reading order:
//
//	queue.go    the Queue: configuration, life cycle
//	errors.go   what can go wrong
//	bind.go     how the socket is bound, also while packets pour in
//	run.go      the read loop
//	dispatch.go from a datagram to the handler to a verdict
//	message.go  netlink messages and their attributes
//	socket.go   the system calls
//	stats.go    counters, ours and the kernel's
//	udp.go      ParseUDP
package nfq
