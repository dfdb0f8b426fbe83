// SPDX-License-Identifier: GPL-2.0-only

package nfq

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"
)

const (
	// tick is how long the loop waits for a packet before it looks around.
	tick = 500 * time.Millisecond

	// yieldInterval is less than the 10 ms after which the runtime counts a
	// goroutine as a hog (forcePreemptNS in runtime/proc.go). A hog loses its
	// P whenever the monitor thread finds it in a system call. Getting one
	// back wakes the monitor, so that it happens for every packet and
	// doubles the latency.
	yieldInterval = 4 * time.Millisecond
)

// Run reads packets and sends verdicts until ctx is done, which is no error;
// until Close, which is [ErrClosed]; or until it cannot go on: [ErrQueueLost]
// or what a system call said. After ctx ended it may be called again.
//
// The loop has a thread of its own.
func (q *Queue) Run(ctx context.Context) error {
	q.mu.Lock()
	if q.closed || q.running != nil {
		defer q.mu.Unlock()
		if q.closed {
			return ErrClosed
		}
		return fmt.Errorf("run queue %d: already running", q.cfg.Queue)
	}
	running := make(chan struct{})
	q.running = running
	q.mu.Unlock()

	stop := context.AfterFunc(ctx, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if !q.closed {
			q.wake()
		}
	})
	defer stop()

	result := make(chan error, 1)
	go func() {
		// Not unlocked, so that the thread ends here with whatever its
		// priority has become.
		runtime.LockOSThread()
		err := errors.New("handler left its goroutine") // by runtime.Goexit
		defer func() { result <- err }()
		err = q.loop(ctx)
	}()
	err := <-result

	q.mu.Lock()
	q.running = nil
	q.mu.Unlock()
	close(running)
	if err != nil && err != ErrClosed {
		return fmt.Errorf("run queue %d: %w", q.cfg.Queue, err)
	}
	return err
}

// wake ends a wait of the loop. Should the answer find no room in the socket,
// then packets do and the loop is not waiting.
func (q *Queue) wake() {
	if err := q.socket.probe(); err != nil {
		q.cfg.Logger.Warn("queue reader not woken", "queue", q.cfg.Queue, "error", err)
	}
}

func (q *Queue) loop(ctx context.Context) error {
	if q.cfg.OnStart != nil {
		if err := q.cfg.OnStart(); err != nil {
			return err
		}
	}
	var yielded time.Duration
	for {
		now := time.Since(q.start)
		q.counters.tick.Store(int64(now))
		if now-yielded >= yieldInterval {
			runtime.Gosched()
			yielded = now
		}
		if q.closing.Load() {
			return ErrClosed
		}
		if ctx.Err() != nil {
			return nil
		}
		n, errno := q.socket.receive()
		switch errno {
		case 0:
			if err := q.batch(n); err != nil {
				return err
			}
		case syscall.EAGAIN:
			// Silence is also what a lost queue sounds like.
			if err := q.socket.probe(); err != nil {
				return fmt.Errorf("probe: %w", err)
			}
		case syscall.ENOBUFS:
			q.counters.overruns.Add(1)
		case syscall.EINTR:
		default:
			return os.NewSyscallError("recvmmsg", errno)
		}
	}
}

func (q *Queue) batch(n int) error {
	for i := range n {
		b, ok := q.socket.datagram(i)
		if !ok {
			q.counters.malformed.Add(1)
			continue
		}
		if err := q.dispatcher.datagram(b); err != nil {
			return err
		}
	}
	return q.dispatcher.flush()
}
