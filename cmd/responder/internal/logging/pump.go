// SPDX-License-Identifier: GPL-2.0-only

package logging

import (
	"bytes"
	"io"
	"sync/atomic"
	"time"
)

// pending is how many records may wait for a reader that is slow or hangs.
const pending = 512

// pump writes records in a goroutine of its own, so that nobody who logs ever
// waits. A journal that hangs is a reason why the daemon is needed. Records
// for which there is no room are lost, and counted.
type pump struct {
	queue chan record
	lost  atomic.Uint64
}

// record is bytes to write, or a channel to close in its turn.
type record struct {
	bytes []byte
	done  chan struct{}
}

func newPump(w io.Writer) *pump {
	p := &pump{queue: make(chan record, pending)}
	go func() {
		for r := range p.queue {
			if r.done != nil {
				close(r.done)
			} else if _, err := w.Write(r.bytes); err != nil {
				p.lost.Add(1)
			}
		}
	}()
	return p
}

// Write takes one record. It never fails and never waits.
func (p *pump) Write(b []byte) (int, error) {
	select {
	case p.queue <- record{bytes: bytes.Clone(b)}:
	default:
		p.lost.Add(1)
	}
	return len(b), nil
}

// flush waits until what was written before is out, or the time is over.
func (p *pump) flush(most time.Duration) {
	deadline := time.After(most)
	done := make(chan struct{})
	select {
	case p.queue <- record{done: done}:
	case <-deadline:
		return
	}
	select {
	case <-done:
	case <-deadline:
	}
}
