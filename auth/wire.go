// SPDX-License-Identifier: GPL-2.0-only

package auth

import (
	"encoding/binary"
	"strings"
	"time"
)

// Sizes and limits of the wire format, PROTOCOL.md section 1.
const (
	PacketSize = 128 // bytes of UDP payload of every request and reply
	HeaderSize = 16  // bytes of associated data
	NonceSize  = 24
	BodySize   = 72 // bytes of plaintext
	TagSize    = 16

	MaxSteps     = 7
	PauseUnit    = 10 * time.Millisecond
	MaxPause     = 6000 // sum of the pause fields of a request, in PauseUnit
	DefaultBound = 1000 // PauseUnits that s and u are waited for when their pause is 0

	Late  = time.Second           // a packet that waited longer is not judged
	Grace = 20 * time.Millisecond // between a reply and a step that ends the machine
	Port  = 9                     // default UDP port
)

const (
	version     = 1
	typeRequest = 1
	typeReply   = 2
	typePiece   = 3
)

var magic = [4]byte{'N', 'S', 'R', 'Q'}

// Offsets within a packet.
const (
	offVersion  = 4
	offType     = 5
	offReserved = 6
	offKeyID    = 8
	offNonce    = 16
	offBody     = 40
	offTag      = 112
)

// Op is what a request asks for.
type Op uint8

// Operations of a request.
const (
	OpStatus Op = 0
	OpRun    Op = 1
	OpLog    Op = 2
)

// String returns the word used in logs and vectors.
func (o Op) String() string {
	switch o {
	case OpStatus:
		return "status"
	case OpRun:
		return "run"
	case OpLog:
		return "log"
	}
	return "unknown"
}

// RequestFlags modify a run.
type RequestFlags uint8

// Flags of a request.
const (
	Rehearse RequestFlags = 1 << 0 // everything but the act
	Drill    RequestFlags = 1 << 1 // rehearse, and leave it to the kernel where there is one
	Now      RequestFlags = 1 << 2 // drop what is left of a running sequence first

	requestFlags = Rehearse | Drill | Now
)

// String returns the flags' words, separated by commas.
func (f RequestFlags) String() string { return words(uint8(f), "rehearse", "drill", "now") }

// RequestID names an operator's intent; it is random and never zero.
type RequestID [16]byte

// Challenge is a host's proof of freshness; zero means none.
type Challenge [16]byte

// BootID is the first half of the host's random/boot_id.
type BootID [8]byte

// Step is one SysRq key and the pause after it.
type Step struct {
	Key   byte   // one of 0-9, a-z
	Pause uint16 // in PauseUnit; for s and u the longest wait for completion, 0: DefaultBound
}

// Wait is the time to wait after the step. For s and u it is a bound, which
// ends early when the kernel reports completion.
func (s Step) Wait() time.Duration {
	if s.Pause == 0 && s.Bounded() {
		return DefaultBound * PauseUnit
	}
	return time.Duration(s.Pause) * PauseUnit
}

// Bounded reports whether the kernel says when the step's work is done.
func (s Step) Bounded() bool { return s.Key == 's' || s.Key == 'u' }

// Request is the body of a request. The zero value is not well formed.
type Request struct {
	Time      uint64 // ns since 1970, 0: none
	ID        RequestID
	Challenge Challenge
	Op        Op
	Flags     RequestFlags
	Count     uint8 // steps in use, at most MaxSteps
	Steps     [MaxSteps]Step
	From      uint64 // of a log: the first record wanted, or LogEnd
	Pieces    uint8  // of a log: how many may come, 1 to MaxPieces
}

// Sequence returns the steps in use. The slice aliases r.
func (r *Request) Sequence() []Step { return r.Steps[:min(int(r.Count), MaxSteps)] }

// AllSteps is the step mask with a bit for each step of r.
func (r *Request) AllSteps() uint8 { return uint8(1<<min(int(r.Count), MaxSteps) - 1) }

// Result is a host's answer to a request.
type Result uint8

// Results of a reply, PROTOCOL.md section 3.2.
const (
	Status     Result = 0
	Accepted   Result = 1
	Stale      Result = 2
	RefPolicy  Result = 3 // refused by policy
	RefSysrq   Result = 4 // refused by kernel.sysrq
	Vetoed     Result = 5
	Busy       Result = 6
	Malformed  Result = 7
	lastResult        = Malformed
)

// String returns the word used in logs, scripts and vectors.
func (r Result) String() string {
	names := [...]string{"status", "accepted", "stale", "policy", "masked", "vetoed", "busy", "malformed"}
	if int(r) < len(names) {
		return names[r]
	}
	return "unknown"
}

// Executor says whose word an answer is: the daemon's, or that of the kernel alone.
type Executor uint8

// Executors.
const (
	Daemon Executor = 1
	Kernel Executor = 2
)

// String returns the word used in logs and vectors.
func (e Executor) String() string {
	switch e {
	case Daemon:
		return "daemon"
	case Kernel:
		return "kernel"
	}
	return "unknown"
}

// ReplyFlags qualify a reply.
type ReplyFlags uint8

// Flags of a reply.
const (
	Repeat       ReplyFlags = 1 << 0 // the request had been answered before
	Rehearsed    ReplyFlags = 1 << 1
	DryRun       ReplyFlags = 1 << 2
	ClockTrusted ReplyFlags = 1 << 3
	Armed        ReplyFlags = 1 << 4 // the kernel module answers, and would while processes hang

	replyFlags = Repeat | Rehearsed | DryRun | ClockTrusted | Armed
)

// String returns the flags' words, separated by commas.
func (f ReplyFlags) String() string {
	return words(uint8(f), "repeat", "rehearsed", "dry-run", "clock-trusted", "armed")
}

func words(flags uint8, names ...string) string {
	var set []string
	for i, name := range names {
		if flags&(1<<i) != 0 {
			set = append(set, name)
		}
	}
	return strings.Join(set, ",")
}

// SysrqUnknown in Reply.Sysrq means that kernel.sysrq could not be read.
const SysrqUnknown = 0xffff

// Reply is the body of a reply.
type Reply struct {
	Time      uint64 // ns since 1970, the host's clock
	ID        RequestID
	Challenge Challenge // for the next request, zero: none
	Result    Result
	Executor  Executor
	Flags     ReplyFlags
	Mask      uint8 // bit i: step i; its meaning depends on Result
	Boot      BootID
	Uptime    uint32 // seconds
	LedgerAge uint16 // seconds
	Load      uint16 // one-minute load average x 100
	Free      uint32 // MiB
	Sysrq     uint16 // kernel.sysrq or SysrqUnknown
	Silent    uint16 // seconds since the daemon was last heard
}

func putHeader(p []byte, typ byte, id KeyID) {
	copy(p, magic[:])
	p[offVersion], p[offType] = version, typ
	p[offReserved], p[offReserved+1] = 0, 0
	copy(p[offKeyID:], id[:])
}

// header makes the checks 4 to 8 of PROTOCOL.md section 4.
func header(p []byte, typ byte) Reason {
	if len(p) != PacketSize {
		return ReasonLength
	}
	return headerOf(p, typ)
}

// headerOf is header for a packet whose length is right.
func headerOf(p []byte, typ byte) Reason {
	switch {
	case [4]byte(p) != magic:
		return ReasonMagic
	case p[offVersion] != version:
		return ReasonVersion
	case p[offType] != typ:
		return ReasonType
	case p[offReserved]|p[offReserved+1] != 0:
		return ReasonReserved
	}
	return OK
}

func (r *Request) encode(b *[BodySize]byte) {
	*b = [BodySize]byte{}
	binary.BigEndian.PutUint64(b[0:], r.Time)
	copy(b[8:], r.ID[:])
	copy(b[24:], r.Challenge[:])
	b[40], b[41], b[42] = byte(r.Op), byte(r.Flags), r.Count
	if r.Op == OpLog {
		binary.BigEndian.PutUint64(b[44:], r.From)
		b[52] = r.Pieces
		return
	}
	for i, s := range r.Sequence() {
		b[44+4*i] = s.Key
		binary.BigEndian.PutUint16(b[46+4*i:], s.Pause)
	}
}

// decode fills r from a body. It keeps ID and Time even if the body is not
// well formed, since a reply needs them.
func (r *Request) decode(b []byte) error {
	_ = b[BodySize-1]
	*r = Request{
		Time:      binary.BigEndian.Uint64(b[0:]),
		ID:        RequestID(b[8:]),
		Challenge: Challenge(b[24:]),
		Op:        Op(b[40]),
		Flags:     RequestFlags(b[41]),
	}
	switch {
	case r.Op > OpLog:
		return errOp
	case r.ID == RequestID{}:
		return errID
	case b[43] != 0:
		return errBodyReserved
	case r.Flags&^requestFlags != 0:
		return errFlags
	case b[42] > MaxSteps:
		return errStepCount
	}
	r.Count = b[42]
	if r.Op == OpLog {
		return r.decodeLog(b)
	}
	pauses := 0
	for i := range MaxSteps {
		s := b[44+4*i : 48+4*i]
		if i >= int(r.Count) {
			if [4]byte(s) != [4]byte{} {
				return errStepUnused
			}
			continue
		}
		if !IsSysrqKey(s[0]) {
			return errStepKey
		}
		if s[1] != 0 {
			return errStepReserved
		}
		r.Steps[i] = Step{Key: s[0], Pause: binary.BigEndian.Uint16(s[2:])}
		pauses += int(r.Steps[i].Pause)
	}
	if pauses > MaxPause {
		return errPauses
	}
	if r.Op == OpStatus && (r.Flags != 0 || r.Count != 0 || r.Challenge != Challenge{}) {
		return errStatusFields
	}
	return nil
}

func (r *Reply) encode(b *[BodySize]byte) {
	*b = [BodySize]byte{}
	binary.BigEndian.PutUint64(b[0:], r.Time)
	copy(b[8:], r.ID[:])
	copy(b[24:], r.Challenge[:])
	b[40], b[41], b[42], b[43] = byte(r.Result), byte(r.Executor), byte(r.Flags), r.Mask
	copy(b[44:], r.Boot[:])
	binary.BigEndian.PutUint32(b[52:], r.Uptime)
	binary.BigEndian.PutUint16(b[56:], r.LedgerAge)
	binary.BigEndian.PutUint16(b[58:], r.Load)
	binary.BigEndian.PutUint32(b[60:], r.Free)
	binary.BigEndian.PutUint16(b[64:], r.Sysrq)
	binary.BigEndian.PutUint16(b[66:], r.Silent)
}

func (r *Reply) decode(b []byte) error {
	_ = b[BodySize-1]
	*r = Reply{
		Time:      binary.BigEndian.Uint64(b[0:]),
		ID:        RequestID(b[8:]),
		Challenge: Challenge(b[24:]),
		Result:    Result(b[40]),
		Executor:  Executor(b[41]),
		Flags:     ReplyFlags(b[42]),
		Mask:      b[43],
		Boot:      BootID(b[44:]),
		Uptime:    binary.BigEndian.Uint32(b[52:]),
		LedgerAge: binary.BigEndian.Uint16(b[56:]),
		Load:      binary.BigEndian.Uint16(b[58:]),
		Free:      binary.BigEndian.Uint32(b[60:]),
		Sysrq:     binary.BigEndian.Uint16(b[64:]),
		Silent:    binary.BigEndian.Uint16(b[66:]),
	}
	switch {
	case r.Result > lastResult:
		return errResult
	case r.Executor != Daemon && r.Executor != Kernel:
		return errExecutor
	case r.Flags&^replyFlags != 0:
		return errFlags
	case r.Mask >= 1<<MaxSteps:
		return errMask
	case [4]byte(b[68:]) != [4]byte{}:
		return errBodyReserved
	}
	return nil
}
