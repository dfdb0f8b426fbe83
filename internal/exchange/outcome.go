// SPDX-License-Identifier: GPL-2.0-only

package exchange

import (
	"net/netip"
	"time"

	"netsysrq/auth"
)

// Kind is how an exchange ended.
type Kind uint8

// Outcomes of PROTOCOL.md section 6, and Answered for a status.
const (
	Unknown  Kind = iota // anything else; never "did not run", unless Outcome.RunSent is false
	Answered             // a status was answered
	Accepted             // the host said so
	Refused              // the host said so, and nothing of it will run; Reply.Result says why
	Rebooted             // not accepted in any reply, but the boot id is another one
)

// String returns the word used in JSON and logs.
func (k Kind) String() string {
	names := [...]string{"unknown", "answered", "accepted", "refused", "rebooted"}
	if int(k) < len(names) {
		return names[k]
	}
	return "unknown"
}

// Outcome says how an exchange ended and what was learnt on the way.
type Outcome struct {
	Kind  Kind
	Reply *auth.Reply // the one that decided, or else the newest; nil: none came

	// Request is the id of the run; zero for a status.
	Request auth.RequestID
	// Before is the boot id that the host had when the run was first sent, or
	// else in the first reply; After is that of the newest reply. Zero: not known.
	Before, After auth.BootID

	RunSent   bool // any form of the run was sent
	OnePacket bool // the form with a time was sent
	// TimeStale reports that the form with a time was called stale, so that
	// the difference of the clocks mattered.
	TimeStale bool
	// Postdated reports that, by the newest reply, the form with a time lies
	// in the host's future: a host that restarts may yet run it, once, if it
	// arrives again when its time has come.
	Postdated bool
	// Forgotten reports that the host has forgotten what it did since the run
	// was first sent, so that a further form could have become a second run
	// (rule 5); nothing was sent after that.
	Forgotten bool

	// DryRun reports that a status said that the host would do nothing.
	DryRun bool

	Elapsed time.Duration // from the first packet to the end
	RunTook time.Duration // from the first packet of the run to the end; 0: none was sent
	// RoundTrip is that of the reply that decided; 0 where a repeat makes it
	// uncertain.
	RoundTrip time.Duration
	// Difference is the host's clock minus ours; HaveDifference if known. It
	// is off by at most half of the time that its measurement took.
	Difference     time.Duration
	HaveDifference bool

	Sent    int // packets sent, to all addresses
	Replies int // packets that count as replies, repeats too
	Ignored int // packets received that do not count
	// Unreachable is the newest error of the network, such as
	// syscall.ECONNREFUSED. It is only a hint: anyone on the way can cause it.
	Unreachable error
}

// Form says what a packet of ours asks.
type Form uint8

// Forms of requests.
const (
	StatusForm    Form = iota
	ChallengeForm      // the run, with a challenge
	TimeForm           // the run, with a time: the one-packet form
	LogForm            // a part of the kernel's log
)

// String returns the word used in traces.
func (f Form) String() string {
	names := [...]string{"status", "run with a challenge", "run with a time", "log"}
	if int(f) < len(names) {
		return names[f]
	}
	return "unknown"
}

// Event is one packet, sent or received, or an error of the network.
type Event struct {
	At      time.Duration // since the exchange began
	Addr    netip.AddrPort
	Sent    bool        // by us; else received
	Form    Form        // of a sent packet
	NewPort bool        // of a sent packet: from a port not used before
	Reply   *auth.Reply // of a received packet that counts
	Piece   *auth.Piece // the same, of a piece of the log; its text is good until the next event
	Reason  auth.Reason // why a received packet was ignored
	Err     error       // the network's
}
