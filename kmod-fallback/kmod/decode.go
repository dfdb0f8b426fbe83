// SPDX-License-Identifier: GPL-2.0-only

package kmod

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"

	"netsysrq/auth"
)

// Key is what the module tells of a key that it holds.
type Key struct {
	ID      auth.KeyID
	Allowed auth.KeySet
	Age     time.Duration // of the ledger
}

// Status is the state of the module.
type Status struct {
	Boot         auth.BootID // zero: not told yet
	DryRun       bool
	ClockTrusted bool
	Deadline     time.Duration
	Daemon       uint32        // netlink port, 0: none
	Silent       time.Duration // since the daemon spoke
	Sysrq        int           // kernel.sysrq
	Jobs         int           // requests pending or running
	NextEvent    uint32
	NextUnread   uint32 // that no daemon has read
	Keys         []Key
	// Packets counts by reason. Sent and Lost count replies.
	Packets    [auth.NumReasons]uint64
	Sent, Lost uint64
}

// Event is one line of the module's record.
type Event struct {
	Seq     uint32
	Boot    time.Duration // CLOCK_BOOTTIME
	Kind    Kind
	By      By
	Reason  auth.Reason
	Result  auth.Result
	Flags   auth.ReplyFlags
	Mask    uint8
	Step    int // index into Steps
	Key     auth.KeyID
	Request auth.RequestID
	Steps   string // SysRq keys
	Asked   auth.RequestFlags
	From    netip.AddrPort
	// Took is how long a step was waited for (EventConfirmed and
	// EventUnconfirmed), or else the time since the request came.
	Took time.Duration
}

// each calls f for every attribute.
func each(b []byte, f func(d *netlink.AttributeDecoder) error) error {
	d, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return err
	}
	for d.Next() {
		if err := f(d); err != nil {
			return err
		}
	}
	return d.Err()
}

// fixed copies an attribute that must have exactly the length of to.
func fixed(d *netlink.AttributeDecoder, to []byte) error {
	b := d.Bytes()
	if len(b) != len(to) {
		return fmt.Errorf("attribute %d has %d bytes instead of %d", d.Type(), len(b), len(to))
	}
	copy(to, b)
	return nil
}

func (s *Status) decode(b []byte) error {
	return each(b, func(d *netlink.AttributeDecoder) error {
		switch d.Type() {
		case aBootID:
			return fixed(d, s.Boot[:])
		case aDryRun:
			s.DryRun = d.Uint8() != 0
		case aClockOK:
			s.ClockTrusted = d.Uint8() != 0
		case aDeadline:
			s.Deadline = time.Duration(d.Uint32()) * time.Millisecond
		case aDaemon:
			s.Daemon = d.Uint32()
		case aSilent:
			s.Silent = time.Duration(d.Uint32()) * time.Second
		case aSysrq:
			s.Sysrq = int(d.Uint32())
		case aJobs:
			s.Jobs = int(d.Uint32())
		case aSeq:
			s.NextEvent = d.Uint32()
		case aRead:
			s.NextUnread = d.Uint32()
		case aKey:
			var k Key
			if err := k.decode(d.Bytes()); err != nil {
				return err
			}
			s.Keys = append(s.Keys, k)
		case aCounters:
			return each(d.Bytes(), s.count)
		}
		return nil
	})
}

func (s *Status) count(d *netlink.AttributeDecoder) error {
	switch t := d.Type(); {
	case t == aCountOK:
		s.Packets[auth.OK] = d.Uint64()
	case t == aCountSent:
		s.Sent = d.Uint64()
	case t == aCountLost:
		s.Lost = d.Uint64()
	case t < aCountOK:
		s.Packets[t] = d.Uint64()
	}
	return nil
}

func (k *Key) decode(b []byte) error {
	return each(b, func(d *netlink.AttributeDecoder) error {
		switch d.Type() {
		case aAccountID:
			return fixed(d, k.ID[:])
		case aAccountAllowed:
			k.Allowed = auth.KeySet(d.Uint64())
		case aAccountAge:
			k.Age = time.Duration(d.Uint64())
		}
		return nil
	})
}

func decodeEvents(b []byte) (events []Event, next, lost uint32, err error) {
	err = each(b, func(d *netlink.AttributeDecoder) error {
		switch d.Type() {
		case aSeq:
			next = d.Uint32()
		case aLost:
			lost = d.Uint32()
		case aEvent:
			var e Event
			if err := e.decode(d.Bytes()); err != nil {
				return err
			}
			events = append(events, e)
		}
		return nil
	})
	return events, next, lost, err
}

func (e *Event) decode(b []byte) error {
	var addr netip.Addr
	var port uint16
	err := each(b, func(d *netlink.AttributeDecoder) error {
		switch d.Type() {
		case aEventSeq:
			e.Seq = d.Uint32()
		case aEventBoot:
			e.Boot = time.Duration(d.Uint64())
		case aEventKind:
			e.Kind = Kind(d.Uint8())
		case aEventBy:
			e.By = By(d.Uint8())
		case aEventReason:
			e.Reason = auth.Reason(d.Uint8())
		case aEventResult:
			e.Result = auth.Result(d.Uint8())
		case aEventReplyFlags:
			e.Flags = auth.ReplyFlags(d.Uint8())
		case aEventMask:
			e.Mask = d.Uint8()
		case aEventStep:
			e.Step = int(d.Uint8())
		case aEventKeyID:
			return fixed(d, e.Key[:])
		case aEventRequestID:
			return fixed(d, e.Request[:])
		case aEventSteps:
			e.Steps = d.String()
		case aEventFlags:
			e.Asked = auth.RequestFlags(d.Uint8())
		case aEventAddr:
			addr, _ = netip.AddrFromSlice(d.Bytes())
		case aEventPort:
			if b := d.Bytes(); len(b) == 2 {
				port = binary.BigEndian.Uint16(b)
			}
		case aEventMs:
			e.Took = time.Duration(d.Uint32()) * time.Millisecond
		case aEventIfindex:
			if i := d.Uint32(); i != 0 {
				addr = addr.WithZone(fmt.Sprint(i))
			}
		}
		return nil
	})
	if port != 0 { // an event without a sender has an address of zeros
		e.From = netip.AddrPortFrom(addr, port)
	}
	return err
}
