// SPDX-License-Identifier: GPL-2.0-only

package nfq

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Packet is one queued packet. It and its Data are valid until the handler returns.
type Packet struct {
	// ID is the kernel's number for the packet, ascending by one within a
	// queue.
	ID uint32
	// InDev is the index of the interface that the packet came in on, 0 if
	// the kernel did not say.
	InDev uint32
	// Mark is the packet's netfilter mark.
	Mark uint32
	// Arrived is when the kernel received the packet, in ns of CLOCK_REALTIME
	// with a resolution of 1 µs, however long it waited since. It is 0 if the
	// packet was not stamped, as can happen in the first moments after Open.
	Arrived int64
	// Data begins with the IP header and ends after at most Config.CopyRange
	// bytes.
	Data []byte
	// Len is the length of the whole packet, at least len(Data).
	Len int
}

// Verdict is what becomes of a packet.
type Verdict uint8

// Anything that is not Accept counts as Drop.
const (
	Drop   Verdict = iota // the kernel forgets the packet
	Accept                // the packet goes on to the next table, past the rules after the queue's
)

// Handler decides about one packet. Calls are made one at a time, on the thread
// of Run, in the order of the queue; while one runs, nothing else is
// read. A panic ends the process.
type Handler func(*Packet) Verdict

// Config says which queue and how. Only Handler is required.
type Config struct {
	// Queue is the queue number.
	Queue uint16
	// MaxLen is how many packets may wait for a verdict before the kernel
	// drops new ones; 0 means 1024.
	MaxLen uint32
	// CopyRange is how many bytes of each packet reach the handler; 0 means
	// 512, at most 65535.
	CopyRange uint32
	// Batch is how many packets are read at once and answered together; 0
	// means 32.
	Batch int
	// ReceiveBuffer is the size of the socket's receive buffer in bytes, of
	// which the kernel allows double; 0 means enough for MaxLen packets, so
	// that a full queue and not a full socket is what drops packets.
	ReceiveBuffer int
	// Handler is called for each packet.
	Handler Handler
	// OnStart is called on the thread of Run, which serves nothing else
	// and ends with it, before the first packet is read; an error ends Run.
	OnStart func() error
	// Statistics is StatisticsPath, opened by root; KernelStats reads it. If
	// it is nil, Open opens it. The queue does not close it.
	Statistics *os.File
	// Logger gets what is worth a human's eye, never one line a packet.
	Logger *slog.Logger
}

const (
	defaultMaxLen    = 1024
	defaultCopyRange = 512
	maxCopyRange     = 65535 // NFQNL_MAX_COPY_RANGE is a little less
	defaultBatch     = 32
	maxBatch         = 1024 // UIO_MAXIOV, all that recvmmsg takes

	// A queued message is charged with its payload, rounded up by the
	// allocator, and about 1 KiB of headers and bookkeeping.
	bufferOverhead   = 512 // doubled by the kernel
	maxReceiveBuffer = 64 << 20
)

// Queue is one bound netfilter queue. Its methods may be called from any
// goroutine, but none from its own handler except Stats and KernelStats.
type Queue struct {
	cfg        Config
	socket     *socket
	dispatcher dispatcher
	counters   counters
	proc       *os.File // nil if it could not be opened
	procErr    error
	ownProc    bool
	start      time.Time

	closing atomic.Bool
	mu      sync.Mutex
	closed  bool
	running chan struct{} // closed when Run returns; nil: not running
}

// Open binds a queue in the network namespace of the calling thread. From then
// on the kernel queues packets; packets that arrive while Open still works are
// dropped, though the handler may see the last of them.
//
// The errors to expect are [ErrQueueOwned], [ErrNoCapability] and
// [ErrUnsupported].
func Open(cfg Config) (*Queue, error) {
	if err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("open queue %d: %w", cfg.Queue, err)
	}
	// The socket and the statistics file must see the same namespace.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	s, err := bind(&cfg)
	if err != nil {
		return nil, fmt.Errorf("open queue %d: %w", cfg.Queue, err)
	}
	return newQueue(cfg, s), nil
}

func newQueue(cfg Config, s *socket) *Queue {
	q := &Queue{cfg: cfg, socket: s, start: time.Now()}
	q.dispatcher = dispatcher{
		queue:    cfg.Queue,
		handler:  cfg.Handler,
		send:     s.send,
		counters: &q.counters,
	}
	if q.proc = cfg.Statistics; q.proc == nil {
		q.ownProc = true
		q.proc, q.procErr = os.Open(StatisticsPath)
	}
	return q
}

func (cfg *Config) complete() error {
	if cfg.Handler == nil {
		return errors.New("no handler")
	}
	if cfg.MaxLen == 0 {
		cfg.MaxLen = defaultMaxLen
	}
	if cfg.CopyRange == 0 {
		cfg.CopyRange = defaultCopyRange
	}
	if cfg.CopyRange > maxCopyRange {
		return fmt.Errorf("copy range %d is above %d", cfg.CopyRange, maxCopyRange)
	}
	if cfg.Batch == 0 {
		cfg.Batch = defaultBatch
	}
	if cfg.Batch < 1 || cfg.Batch > maxBatch {
		return fmt.Errorf("batch %d is not between 1 and %d", cfg.Batch, maxBatch)
	}
	if cfg.ReceiveBuffer == 0 {
		size := uint64(cfg.MaxLen) * uint64(cfg.CopyRange+bufferOverhead)
		cfg.ReceiveBuffer = int(min(size, maxReceiveBuffer))
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Close ends Run, waits until it has returned, and gives the queue back. The
// kernel drops the packets that still wait. A second Close does nothing.
func (q *Queue) Close() error {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return nil
	}
	q.closed = true
	q.closing.Store(true)
	running := q.running
	if running != nil {
		q.wake()
	}
	q.mu.Unlock()

	if running != nil {
		<-running
	}
	err := q.socket.close()
	if q.ownProc && q.proc != nil {
		err = errors.Join(err, q.proc.Close())
	}
	if err != nil {
		return fmt.Errorf("close queue %d: %w", q.cfg.Queue, err)
	}
	return nil
}
