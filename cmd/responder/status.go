// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"netsysrq/auth"
	"netsysrq/cmd/responder/internal/hint"
	"netsysrq/kmod-fallback/kmod"
)

// moduleReport is the JSON form of status, version 1.
type moduleReport struct {
	V            int               `json:"v"`
	Loaded       bool              `json:"loaded"`
	DeadlineMS   int64             `json:"deadline_ms"`
	DryRun       bool              `json:"dry_run"`
	ClockTrusted bool              `json:"clock_trusted"`
	Daemon       bool              `json:"daemon_attached"`
	SilentS      *float64          `json:"daemon_silent_s"` // null: never heard
	KernelSysrq  int               `json:"kernel_sysrq"`
	Busy         int               `json:"requests_pending_or_running"`
	Keys         []moduleKey       `json:"keys"`
	Packets      map[string]uint64 `json:"packets"`
	Replies      uint64            `json:"replies_sent"`
	Unsent       uint64            `json:"replies_not_sent"`
	Events       []moduleEvent     `json:"events,omitempty"`
	EventsLost   uint32            `json:"events_lost,omitempty"`
}

type moduleKey struct {
	ID      string  `json:"key_id"`
	Allowed string  `json:"allowed"`
	AgeS    float64 `json:"ledger_age_s"`
}

type moduleEvent struct {
	Number  uint32  `json:"event"`
	BootS   float64 `json:"boottime_s"`
	Kind    string  `json:"kind"`
	By      string  `json:"by"`
	Key     string  `json:"key_id"`
	Request string  `json:"request"`
	Steps   string  `json:"steps"`
	Step    int     `json:"step"` // from 0
	Flags   string  `json:"flags,omitempty"`
	Reason  string  `json:"reason"`
	Result  string  `json:"decision"`
	Of      string  `json:"qualified,omitempty"`
	From    string  `json:"src"` // empty: nobody asked for it
	TookMS  int64   `json:"took_ms"`
}

const neverHeard = 0xffff * time.Second

// status tells what the kernel module says of itself.
func (c *command) status(args []string) error {
	flags := newFlags("status")
	asJSON := flags.Bool("json", false, "")
	withEvents := flags.Bool("events", false, "")
	if _, err := c.parse(flags, args, 0); err != nil {
		return err
	}
	m, err := kmod.Dial()
	if errors.Is(err, kmod.ErrNotLoaded) {
		return hint.Add(err, "modprobe xt_NETSYSRQ; without it the daemon answers and acts alone")
	}
	if err != nil {
		return err
	}
	defer m.Close()
	s, err := m.Status()
	if err != nil {
		return asRoot(err)
	}
	r := moduleReport{V: 1, Loaded: true, DeadlineMS: s.Deadline.Milliseconds(), DryRun: s.DryRun, ClockTrusted: s.ClockTrusted,
		Daemon: s.Daemon != 0, KernelSysrq: s.Sysrq, Busy: s.Jobs, Keys: []moduleKey{}, Packets: map[string]uint64{}, Replies: s.Sent, Unsent: s.Lost}
	if s.Silent < neverHeard {
		r.SilentS = new(s.Silent.Seconds())
	}
	for _, k := range s.Keys {
		r.Keys = append(r.Keys, moduleKey{k.ID.String(), k.Allowed.String(), k.Age.Seconds()})
	}
	for i, n := range s.Packets {
		if n > 0 {
			r.Packets[auth.Reason(i).String()] = n
		}
	}
	if *withEvents {
		if r.Events, r.EventsLost, err = readEvents(m, s.NextEvent); err != nil {
			return asRoot(err)
		}
	}
	if *asJSON {
		return c.printJSON(r)
	}
	c.printStatus(&r)
	return nil
}

// eventReader is the module as far as it tells what it did.
type eventReader interface {
	Events(seq uint32) (events []kmod.Event, next, lost uint32, err error)
}

// readEvents returns what the module's record holds before number end: it may be
// written faster than it is read.
func readEvents(m eventReader, end uint32) (all []moduleEvent, lost uint32, err error) {
	for seq := uint32(1); seq < end; {
		events, next, missed, err := m.Events(seq)
		if err != nil || len(events) == 0 {
			return all, lost, err
		}
		lost += missed
		for _, e := range events {
			all = append(all, moduleEvent{e.Seq, e.Boot.Seconds(), e.Kind.String(), e.By.String(), e.Key.String(), fmt.Sprintf("%x", e.Request[:]),
				e.Steps, e.Step, e.Asked.String(), e.Reason.String(), e.Result.String(), e.Flags.String(), sender(e.From), e.Took.Milliseconds()})
		}
		seq = next
	}
	return all, lost, nil
}

// sender is an address that an event may lack.
func sender(from netip.AddrPort) string {
	if !from.IsValid() {
		return ""
	}
	return from.String()
}

func (c *command) printStatus(r *moduleReport) {
	daemon := "no daemon was ever attached"
	switch {
	case r.SilentS != nil && r.Daemon:
		daemon = fmt.Sprintf("attached, heard %.0f s ago", *r.SilentS)
	case r.SilentS != nil:
		daemon = fmt.Sprintf("gone, heard %.0f s ago", *r.SilentS)
	}
	armed := fmt.Sprintf("armed with %d keys", len(r.Keys))
	if len(r.Keys) == 0 {
		armed = "not armed: it holds no keys"
	}
	fmt.Fprintf(c.stdout, "module    %s; waits %d ms for the daemon's word\n", armed, r.DeadlineMS)
	fmt.Fprintf(c.stdout, "daemon    %s\n", daemon)
	for _, k := range r.Keys {
		fmt.Fprintf(c.stdout, "key       %s may use %s, ledger %.0f s old\n", k.ID, k.Allowed, k.AgeS)
	}
	fmt.Fprintf(c.stdout, "requests  %d pending or running; dry run: %v; clock trusted: %v; kernel.sysrq: %d\n", r.Busy, r.DryRun, r.ClockTrusted, r.KernelSysrq)
	for i := range auth.NumReasons {
		if name := auth.Reason(i).String(); r.Packets[name] > 0 {
			fmt.Fprintf(c.stdout, "packets   %d %s\n", r.Packets[name], name)
		}
	}
	fmt.Fprintf(c.stdout, "replies   %d sent, %d that could not be\n", r.Replies, r.Unsent)
	for _, e := range r.Events {
		fmt.Fprintf(c.stdout, "event     %d at %.3f s: %s by %s, key %s, request %s, steps %s, step %d, %s\n",
			e.Number, e.BootS, e.Kind, e.By, e.Key, e.Request, e.Steps, e.Step+1, e.Result)
	}
}
