// SPDX-License-Identifier: GPL-2.0-only

// Package e2e holds the end-to-end tests of netsysrq: the real daemon with its
// real firewall rules and queue, and the real sender, in two network namespaces.
//
//	go test -tags integration ./internal/e2e
//
// They need root, iproute2 and iptables. Three things are not real: the trigger
// is a plain file, so what would have been done to the machine is read from it;
// the kernel log is another, to which the test writes what the kernel would; and
// where clocks matter, the binaries are built with the tag testclock.
//
// What a sender never does is done by a client of the tests' own, which seals
// packets with package auth and sends them from sockets in the client's namespace.
package e2e
