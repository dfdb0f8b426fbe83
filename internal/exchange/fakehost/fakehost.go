// SPDX-License-Identifier: GPL-2.0-only

// Package fakehost is a host for tests of senders: the real ledger, real
// replies, and steps that are only counted.
package fakehost

import (
	"crypto/rand"
	"slices"
	"sync"
	"time"

	"netsysrq/auth"
)

// Config says what host it is.
type Config struct {
	Key      auth.HostKey
	Allow    auth.KeySet
	Executor auth.Executor // 0: auth.Daemon; auth.Kernel: the kernel module answers
	Attached Attached      // what its daemon does then
	Sysrq    int           // the kernel.sysrq that the executor obeys; 0: none
	DryRun   bool
	// Lost reports whether a request, though judged, is not answered; nil: none.
	Lost func(auth.Request) bool
	// Clock returns CLOCK_REALTIME and a clock that never goes back, in ns.
	Clock func() (real, steady uint64)
	// Random reports whether the random generator is ready; nil: it is.
	Random func() bool
	// Synchronised makes the host trust its clock from its first second on.
	Synchronised bool
	// Room is how many records its log keeps; 0: all.
	Room int
}

// Attached is what the daemon does whose word the kernel module waits for.
type Attached uint8

// What an attached daemon does.
const (
	Absent  Attached = iota // none was ever heard
	Healthy                 // it takes all but drills
	Slow                    // it is heard, but its word comes too late
	Hung                    // it was last heard 8 s ago
	Forbids                 // it vetoes all but drills
)

// silent is for how many seconds it was not heard.
func (a Attached) silent() uint16 {
	switch a {
	case Absent:
		return 0xffff
	case Hung:
		return 8
	}
	return 0
}

// settles says how it ends the pending state of a request.
func (a Attached) settles(p *auth.Request) auth.Settlement {
	switch {
	case p.Flags&auth.Drill != 0:
	case a == Healthy:
		return auth.Taken
	case a == Forbids:
		return auth.Forbidden
	}
	return auth.Deadline
}

// Host answers requests. It is safe for concurrent use.
type Host struct {
	cfg    Config
	sealer *auth.Sealer

	mu     sync.Mutex
	ledger *auth.Ledger
	booted uint64 // steady
	boot   auth.BootID
	seen   int
	runs   map[auth.RequestID]int
	onRun  func(*Host, auth.Request)
	mute   bool
	lost   bool // the reply at hand
	log    kernelLog
	// granted are the pieces for the request at hand.
	granted [][]byte
}

// New returns a host that has been up for age.
func New(cfg Config, age time.Duration) *Host {
	if cfg.Executor == 0 {
		cfg.Executor = auth.Daemon
	}
	if cfg.Sysrq == 0 {
		cfg.Sysrq = -1
	}
	h := &Host{cfg: cfg, sealer: auth.NewSealer(&cfg.Key), runs: map[auth.RequestID]int{}}
	rand.Read(h.boot[:])
	_, h.booted = cfg.Clock()
	h.booted -= uint64(age)
	real, _ := cfg.Clock()
	h.begin(auth.Instant{Real: real - uint64(age), Boot: 0})
	if cfg.Synchronised {
		first := auth.Instant{Real: real - uint64(age) + 1, Boot: 1}
		h.ledger.Synchronised(first, true, first)
	}
	return h
}

func (h *Host) begin(now auth.Instant) {
	h.ledger = auth.NewLedger(auth.Config{
		Executor: h.cfg.Executor,
		Sysrq:    h.cfg.Sysrq,
		DryRun:   h.cfg.DryRun,
		Random:   func(b []byte) bool { rand.Read(b); return h.cfg.Random == nil || h.cfg.Random() },
	}, now)
	h.ledger.Install(now, h.cfg.Key.ID, h.cfg.Allow)
}

func (h *Host) now() auth.Instant {
	real, steady := h.cfg.Clock()
	return auth.Instant{Real: real, Boot: steady - h.booted}
}

// RestartDaemon forgets whatever ran before, as the daemon does.
func (h *Host) RestartDaemon() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.begin(h.now())
	h.ledger.Synchronised(h.now(), h.cfg.Synchronised, h.now())
}

// Reboot restarts the machine: a new boot id, and nothing remembered.
func (h *Host) Reboot() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reboot()
}

func (h *Host) reboot() {
	_, h.booted = h.cfg.Clock()
	h.log = kernelLog{}
	rand.Read(h.boot[:])
	h.begin(h.now())
	h.ledger.Synchronised(h.now(), h.cfg.Synchronised, h.now())
}

// Mute makes the host deaf and dumb, or not.
func (h *Host) Mute(yes bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mute = yes
}

// Attach changes what the daemon does.
func (h *Host) Attach(a Attached) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cfg.Attached = a
}

// Forget makes the host forget its challenges, as another request of the same
// key does that was fresh.
func (h *Host) Forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	id := h.cfg.Key.ID
	status := auth.Request{Op: auth.OpStatus, ID: auth.RequestID{1}, Time: h.now().Real}
	d := h.ledger.Judge(h.now(), id, &status, 0)
	other := auth.Request{Op: auth.OpRun, Challenge: d.Challenge}
	rand.Read(other.ID[:])
	h.ledger.Judge(h.now(), id, &other, 0)
}

// OnRun has f called, with the host's lock held, when steps are run. What it
// does to the host must be through the Host that it is given: Fall and Lose.
func (h *Host) OnRun(f func(*Host, auth.Request)) { h.onRun = f }

// Fall is Reboot for use in OnRun.
func (h *Host) Fall() { h.reboot() }

// Lose, in OnRun, loses the reply that says that the steps are run.
func (h *Host) Lose() { h.lost = true }

// Boot returns the boot id.
func (h *Host) Boot() auth.BootID {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.boot
}

// Seen counts the packets that came in.
func (h *Host) Seen() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.seen
}

// Runs counts the sequences run, rehearsals not.
func (h *Host) Runs() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, k := range h.runs {
		n += k
	}
	return n
}

// RunsOf counts how often one intent was run, in the whole life of the host.
func (h *Host) RunsOf(id auth.RequestID) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.runs[id]
}

// Answer takes a packet and returns what it brings: nothing, a reply, or pieces
// of the log.
func (h *Host) Answer(packet []byte, from auth.Source) [][]byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.granted = nil
	if reply, ok := h.handle(packet, from); ok {
		return [][]byte{reply[:]}
	}
	return h.granted
}

// Handle is Answer for a request that is answered by a reply.
func (h *Host) Handle(packet []byte, from auth.Source) (reply [auth.PacketSize]byte, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.handle(packet, from)
}

func (h *Host) handle(packet []byte, from auth.Source) (reply [auth.PacketSize]byte, ok bool) {
	if h.mute {
		return reply, false
	}
	h.seen++
	packet = slices.Clone(packet) // opening overwrites it
	id, reason := auth.CheckRequest(packet)
	if reason != auth.OK || id != h.cfg.Key.ID {
		return reply, false
	}
	var p auth.Request
	reason, _ = h.sealer.OpenRequest(packet, &p)
	now := h.now()
	var d auth.Decision
	switch reason {
	case auth.OK:
		d = h.ledger.Judge(now, id, &p, from)
	case auth.ReasonMalformed:
		d = h.ledger.JudgeMalformed(now, id, &p)
	default:
		return reply, false
	}
	if d.Pending {
		// At once: the deadline takes no time here.
		d, _ = h.ledger.Settle(now, id, p.ID, h.cfg.Attached.settles(&p))
	}
	if d.Silent {
		return reply, false
	}
	if d.Pieces {
		h.granted = h.pieces(now, &p, d.Challenge)
		return reply, false
	}
	r := auth.Reply{
		Time:      now.Real,
		ID:        p.ID,
		Challenge: d.Challenge,
		Result:    d.Result,
		Executor:  auth.Daemon,
		Flags:     d.Flags,
		Mask:      d.Mask,
		Boot:      h.boot,
		Uptime:    uint32(now.Boot / uint64(time.Second)),
		LedgerAge: d.Age,
		Load:      42,
		Free:      1803,
		Sysrq:     438,
	}
	if h.cfg.Sysrq > 0 {
		r.Sysrq = uint16(h.cfg.Sysrq)
	}
	if h.cfg.Executor == auth.Kernel {
		r.Flags |= auth.Armed
		r.Silent = h.cfg.Attached.silent()
		if r.Executor = d.By; r.Executor == 0 && r.Silent < 3 {
			r.Executor = auth.Daemon
		} else if r.Executor == 0 {
			r.Executor = auth.Kernel
		}
	}
	reply = h.sealer.SealReply(&r)
	if d.Run && d.Flags&auth.DryRun == 0 {
		h.runs[p.ID]++
		if h.onRun != nil {
			h.onRun(h, p)
		}
	}
	h.ledger.Finish(h.now(), id, p.ID)
	lost := h.lost || h.cfg.Lost != nil && h.cfg.Lost(p)
	h.lost = false
	return reply, !lost
}
