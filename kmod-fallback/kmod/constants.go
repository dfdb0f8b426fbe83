// SPDX-License-Identifier: GPL-2.0-only

package kmod

// The family, and its numbers in the order of netlink/specs/netsysrq.yaml. A
// test compares them, and netsysrq_uapi.h, with that file.
const familyName = "netsysrq"

const (
	cmdKeySet = iota + 1
	cmdKeyDel
	cmdSet
	cmdClock
	cmdRegister
	cmdTake
	cmdVeto
	cmdStatus
	cmdEvents
)

const (
	aPad = iota + 1
	aKeyID
	aRequestKey
	aReplyKey
	aAllowed
	aRequestID
	aClockOK
	aClockOffset
	aBootID
	aDryRun
	aDeadline
	aSeq
	aLost
	aEvent
	aKey
	aCounters
	aDaemon
	aSilent
	aSysrq
	aJobs
	aRead
)

const (
	aAccountPad = iota + 1
	aAccountID
	aAccountAllowed
	aAccountAge
)

const (
	aEventPad = iota + 1
	aEventSeq
	aEventBoot
	aEventKind
	aEventBy
	aEventReason
	aEventResult
	aEventReplyFlags
	aEventMask
	aEventStep
	aEventKeyID
	aEventRequestID
	aEventSteps
	aEventFlags
	aEventAddr
	aEventPort
	aEventIfindex
	aEventMs
)

// The counters before are those of the reasons, under the reasons' numbers.
const (
	aCountOK = iota + 21
	aCountSent
	aCountLost
	aCountPad
)

// Kind says what an event tells of a request.
type Kind uint8

// Kinds of events.
const (
	EventBegin Kind = iota + 1
	EventRequest
	EventStale
	EventSettled
	EventUnsaid
	EventStep
	EventSkipped
	EventConfirmed
	EventUnconfirmed
	EventDone
	EventCut
	EventRead
)

var kindNames = []string{
	"begin", "request", "stale", "settled", "unsaid", "step", "skipped", "confirmed", "unconfirmed", "done", "cut", "read",
}

// String returns the name in the specification.
func (k Kind) String() string {
	if k > 0 && int(k) <= len(kindNames) {
		return kindNames[k-1]
	}
	return "unknown"
}

// By says who did what an event tells.
type By uint8

// Who did it.
const (
	ByNobody By = iota
	ByTake
	ByVeto
	ByDeadline
	ByThread
	ByTick
	ByNow
	ByRemoved
)

var byNames = []string{"nobody", "take", "veto", "deadline", "thread", "tick", "now", "removed"}

// String returns the name in the specification.
func (b By) String() string {
	if int(b) < len(byNames) {
		return byNames[b]
	}
	return "unknown"
}
