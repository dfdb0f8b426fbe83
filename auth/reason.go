// SPDX-License-Identifier: GPL-2.0-only

package auth

import "errors"

// Reason names a decision about a packet. The network never sees it: for
// everything up to ReasonForged the answer is silence.
type Reason uint8

// Reasons, in the order in which they are checked (PROTOCOL.md section 4).
const (
	OK Reason = iota
	ReasonDatagram
	ReasonSource
	ReasonLate
	ReasonLength
	ReasonMagic
	ReasonVersion
	ReasonType
	ReasonReserved
	ReasonUnknownKey
	ReasonForged

	// From here on the packet is authentic.
	ReasonMalformed
	ReasonStale
	ReasonRepeat
	ReasonPending
	ReasonBudget // a status that proves nothing new, beyond the answer budget
	ReasonNotAllowed
	ReasonAfterKill
	ReasonMasked
	ReasonBusy
	ReasonVetoed

	// Reasons for which a sender turns a reply away.
	ReasonOtherRequest

	NumReasons
)

var reasonNames = [NumReasons]string{
	"ok", "datagram", "source", "late", "length", "magic", "version", "type", "reserved",
	"unknown-key", "forged", "malformed", "stale", "repeat", "pending", "budget", "not-allowed", "after-kill", "masked",
	"busy", "vetoed", "other-request",
}

// String returns the name used in logs, scripts and vectors.
func (r Reason) String() string {
	if r < NumReasons {
		return reasonNames[r]
	}
	return "unknown"
}

// Authentic reports whether a packet with this outcome was sealed by a holder
// of its key.
func (r Reason) Authentic() bool { return r == OK || r >= ReasonMalformed }

// What makes a body malformed. The text names the field.
var (
	errOp           = errors.New("op")
	errID           = errors.New("id")
	errBodyReserved = errors.New("body-reserved")
	errFlags        = errors.New("flags")
	errStepCount    = errors.New("step-count")
	errStepKey      = errors.New("step-key")
	errStepReserved = errors.New("step-reserved")
	errStepUnused   = errors.New("step-unused")
	errPauses       = errors.New("pauses")
	errStatusFields = errors.New("status-fields")
	errLogFields    = errors.New("log-fields")
	errResult       = errors.New("result")
	errExecutor     = errors.New("executor")
	errMask         = errors.New("mask")
	errIndex        = errors.New("index")
	errRecords      = errors.New("records")
)
