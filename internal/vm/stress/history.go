// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"sync"

	"netsysrq/auth"
	"netsysrq/internal/exchange"
	"netsysrq/kmod-fallback/kmod"
)

// boot is a moment: CLOCK_BOOTTIME in nanoseconds. The module's events carry it,
// and no step of the clock changes it.
type boot = uint64

// span is from begin to end; an end of 0 is not there yet.
type span struct{ begin, end boot }

func (s span) holds(at boot) bool { return at >= s.begin && (s.end == 0 || at <= s.end) }

// kind says what is known of a request before it is sent.
type kind uint8

const (
	open    kind = iota // it may be fresh or not, allowed or not
	never               // by the rules it can't run: stale, not allowed or malformed
	several             // the sender's way: one intent in several packets
)

// request is one intent. But for several, it is one packet.
type request struct {
	id        auth.RequestID
	key       int
	kind      kind
	steps     string
	flags     auth.RequestFlags
	time      uint64
	challenge auth.Challenge // zero: by its time
	first     boot           // when it was sent first
	made      uint64         // true time at which it was sealed
	sockets   map[int]bool   // that sent it
	answers   []answer
	// waited reports that the sender, whom nothing disturbed, gave up.
	waited  bool
	outcome *exchange.Outcome // of several

	// For its sender.
	sequence []auth.Step
	packet   [auth.PacketSize]byte
	arrived  chan auth.Reply
}

// answer is a reply that came.
type answer struct {
	at     boot
	socket int
	result auth.Result
	flags  auth.ReplyFlags
	mask   uint8
	by     auth.Executor
}

// statusAnswer is an answer to a status, of the module.
type statusAnswer struct {
	key int
	at  boot
}

// ledger is the module from insmod to rmmod.
type ledger struct {
	loaded   boot
	events   []kmod.Event
	next     uint32 // number of the event to ask for
	lost     uint32 // events that the module counted as lost
	complete bool   // nothing happened after the last event, and nothing was under way
	end      boot   // when the last event can have happened; 0: it goes on
}

// installation is a key in the module. Around its begin and end nobody knows
// which side of it a packet came on.
type installation struct {
	asked, done     boot // of the installation
	removing, gone  boot // 0: not removed
	allowed         auth.KeySet
	allowedIsSteady bool // it was not changed meanwhile
}

// surely reports whether the key was certainly there.
func (i *installation) surely(at boot) bool {
	return at >= i.done && (i.removing == 0 || at < i.removing)
}

// possibly reports whether it may have been there.
func (i *installation) possibly(at boot) bool {
	return at >= i.asked && (i.gone == 0 || at <= i.gone)
}

// word is a TAKE or VETO of the second client.
type word struct {
	call span
	id   auth.RequestID
	veto bool
	err  error
}

// history is all that was done and seen.
type history struct {
	sync.Mutex
	ledgers       []*ledger
	requests      map[auth.RequestID]*request
	order         []*request // by the time of the first packet
	installations [][]installation
	ids           []auth.KeyID // of the keys
	words         []word
	usurped       []span                 // no word but the second client's counts
	daemonRuns    map[auth.RequestID]int // accepted by the daemon, without the module
	statuses      []statusAnswer
	faults        []string // seen on the way
}

func newHistory(ids []auth.KeyID) *history {
	return &history{
		requests:      map[auth.RequestID]*request{},
		installations: make([][]installation, len(ids)),
		ids:           ids,
		daemonRuns:    map[auth.RequestID]int{},
	}
}

// fault notes that something is not as it must be.
func (h *history) fault(text string) {
	h.Lock()
	defer h.Unlock()
	h.faults = append(h.faults, text)
}

// installed returns the installation of a key that was possibly there, or nil.
func (h *history) installed(key int, at boot) *installation {
	for i := len(h.installations[key]) - 1; i >= 0; i-- {
		if in := &h.installations[key][i]; in.possibly(at) {
			return in
		}
	}
	return nil
}
