// SPDX-License-Identifier: GPL-2.0-only

package nfq

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// dispatcher turns datagrams into handler calls and the handler's decisions
// into verdict messages. It allocates nothing.
//
// Ids ascend within a queue and packets are answered in order, so one message
// answers every packet since the one before: it is held back until
// the decision changes or the batch ends.
type dispatcher struct {
	queue    uint16
	handler  func(*Packet) Verdict
	send     func([]byte) error
	counters *counters

	packet  Packet
	pending bool // id and verdict wait to be sent
	id      uint32
	verdict Verdict
	out     [verdictMessageLen]byte
}

// datagram handles every message of one datagram from the kernel. An error
// means that the queue can no longer be served.
func (d *dispatcher) datagram(b []byte) error {
	for len(b) > 0 {
		m, rest, err := nextMessage(b)
		if err != nil {
			d.counters.malformed.Add(1)
			return nil
		}
		b = rest
		switch m.kind {
		case msgPacket:
			err = d.onPacket(m.body)
		case unix.NLMSG_ERROR:
			err = d.onError(m.body)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *dispatcher) onPacket(body []byte) error {
	known, err := parsePacket(body, &d.packet)
	if err != nil {
		d.counters.malformed.Add(1)
		if !known {
			return nil // a later verdict covers it
		}
		return d.decide(d.packet.ID, Drop)
	}
	d.counters.packets.Add(1)
	id := d.packet.ID // the handler may write to its Packet
	return d.decide(id, d.handler(&d.packet))
}

func (d *dispatcher) decide(id uint32, v Verdict) error {
	if d.pending && d.verdict != v {
		if err := d.flush(); err != nil {
			return err
		}
	}
	d.pending, d.id, d.verdict = true, id, v
	return nil
}

// flush sends the verdict that waits, if one does.
func (d *dispatcher) flush() error {
	if !d.pending {
		return nil
	}
	d.pending = false
	putVerdict(&d.out, seqVerdict, d.queue, d.id, d.verdict)
	if err := d.send(d.out[:]); err != nil {
		return fmt.Errorf("send verdict: %w", err)
	}
	d.counters.verdicts.Add(1)
	return nil
}

func (d *dispatcher) onError(body []byte) error {
	errno, seq, err := parseError(body)
	switch {
	case err != nil:
		d.counters.malformed.Add(1)
	case errno == 0:
	case errno == syscall.ENODEV, errno == syscall.EPERM:
		return fmt.Errorf("%w: %w", ErrQueueLost, errno)
	case seq == seqClear && errno == syscall.ENOENT:
		// There was nothing to clear.
	default:
		d.counters.verdictErrors.Add(1)
	}
	return nil
}
