// SPDX-License-Identifier: GPL-2.0-only

package exchange

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"netsysrq/auth"
)

const (
	// sharedSockets of each family carry all packets. One in newPortEvery goes
	// out from another than the first, as it would without sharing.
	sharedSockets = 8
	// sharedBuffer is asked for, for each of them: a thousand hosts may answer
	// in one millisecond.
	sharedBuffer = 4 << 20
	// StartEvery spaces out the beginnings of exchanges over a Shared: ten
	// thousand hosts are asked within a second, at 14 Mbit/s, rather than lost
	// in the first router.
	StartEvery = 100 * time.Microsecond
)

// Socket is a UDP socket that is not connected, such as *net.UDPConn.
type Socket interface {
	ReadFromUDPAddrPort(p []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(p []byte, to netip.AddrPort) (int, error)
	Close() error
}

// Shared carries any number of exchanges over a few sockets. Replies find
// their exchange by the key id that they name, and only if they come from an
// address that it asks; whether they are genuine is for the exchange to tell.
type Shared struct {
	open func(ipv6 bool) (Socket, error)

	mu      sync.Mutex
	sockets [2][]Socket // IPv4, IPv6; opened when first needed
	jobs    map[auth.KeyID][]*job
	timers  timers
	socket  int       // that the next exchange begins with
	start   time.Time // when the next exchange may begin
	closed  bool
	wake    chan struct{}
	stop    chan struct{}
	running sync.WaitGroup
}

// job is one exchange.
type job struct {
	host Host
	opt  Options
	done chan struct{}

	mu     sync.Mutex // the way's; taken before Shared.mu
	way    *way
	err    error // of this side
	socket int

	at    time.Time // when something is due; Shared.mu
	index int       // in timers; -1: not in it
}

// NewShared returns a Shared with sockets of the given kind; nil: those of the
// real network.
func NewShared(open func(ipv6 bool) (Socket, error)) *Shared {
	if open == nil {
		open = openUDP
	}
	s := &Shared{open: open, jobs: map[auth.KeyID][]*job{}, wake: make(chan struct{}, 1), stop: make(chan struct{})}
	s.running.Go(s.schedule)
	return s
}

// Close ends it. No exchange may be under way.
func (s *Shared) Close() {
	s.mu.Lock()
	s.closed = true
	for _, family := range s.sockets {
		for _, socket := range family {
			socket.Close()
		}
	}
	s.mu.Unlock()
	close(s.stop)
	s.running.Wait()
}

// await waits for the exchange's turn to begin.
func (s *Shared) await(ctx context.Context) error {
	s.mu.Lock()
	now := time.Now()
	if s.start.Before(now) {
		s.start = now
	}
	wait := s.start.Sub(now)
	s.start = s.start.Add(StartEvery)
	s.mu.Unlock()
	if wait < time.Millisecond { // a timer is not finer than that
		return context.Cause(ctx)
	}
	select {
	case <-time.After(wait):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// drive is drive over the shared sockets.
func (s *Shared) drive(ctx context.Context, w *way, host Host, opt Options) (*Outcome, error) {
	j := &job{host: host, opt: opt, done: make(chan struct{}), way: w, index: -1}
	id := host.Sealer.ID()
	s.mu.Lock()
	j.socket = s.socket
	s.socket = (s.socket + 1) % sharedSockets
	s.jobs[id] = append(s.jobs[id], j)
	s.mu.Unlock()
	s.after(j, 0)
	var err error
	select {
	case <-j.done:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}

	s.mu.Lock()
	if left := slices.DeleteFunc(s.jobs[id], func(other *job) bool { return other == j }); len(left) > 0 {
		s.jobs[id] = left
	} else {
		delete(s.jobs, id)
	}
	s.mu.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	s.after(j, -1)
	if j.err != nil {
		err = j.err
	}
	return w.finish(opt.Clock.Boot(), Unknown), err
}

// after has a job looked at in so long; less than zero: not at all.
func (s *Shared) after(j *job, in time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case in < 0 && j.index >= 0:
		heap.Remove(&s.timers, j.index)
	case in >= 0:
		j.at = time.Now().Add(in)
		if j.index < 0 {
			heap.Push(&s.timers, j)
		} else {
			heap.Fix(&s.timers, j.index)
		}
		if j.index == 0 {
			select {
			case s.wake <- struct{}{}:
			default:
			}
		}
	}
}

// schedule has every job looked at when something of it is due.
func (s *Shared) schedule() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		j, wait := s.due()
		if j != nil {
			s.act(j, nil)
			continue
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-s.wake:
		case <-s.stop:
			return
		}
	}
}

// due takes the next job that is due, or else says how long there is none.
func (s *Shared) due() (*job, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.timers) == 0 {
		return nil, time.Hour
	}
	if wait := time.Until(s.timers[0].at); wait > 0 {
		return nil, wait
	}
	return heap.Pop(&s.timers).(*job), 0
}

// act tells a job's way what happened, if anything, and does what it says.
func (s *Shared) act(j *job, happened func(w *way, now uint64)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	w, now := j.way, j.opt.Clock.Boot
	if w.done || j.err != nil {
		return // it ended meanwhile
	}
	if happened != nil {
		happened(w, now())
	}
	for _, d := range w.due(now()) {
		if d.newPort {
			j.socket++
		}
		for _, addr := range j.host.Addrs {
			w.sent(now(), d, addr, s.send(j, d, addr))
		}
		if d.newPort {
			j.socket--
		}
	}
	if w.out.Sent == 0 && !w.done {
		j.err = fmt.Errorf("ask %s: %w: %w", j.host.Name, ErrNotSent, w.out.Unreachable)
	}
	if w.done || j.err != nil {
		close(j.done)
		return
	}
	s.after(j, w.next(now()))
}

// send sends a packet from the job's socket of the address's family. It is
// called with j.mu held.
func (s *Shared) send(j *job, d datagram, to netip.AddrPort) error {
	sockets, err := s.family(to.Addr().Is6())
	if err != nil {
		return err
	}
	socket := sockets[j.socket%len(sockets)]
	_, err = socket.WriteToUDPAddrPort(d.packet[:], to)
	for range 3 {
		if !icmp(err) {
			break
		}
		// That may be the error of an earlier packet, to another host even,
		// and this one did not leave.
		go s.complaints(socket)
		_, err = socket.WriteToUDPAddrPort(d.packet[:], to)
	}
	return err
}

// family returns the sockets of a family, and opens them the first time.
func (s *Shared) family(ipv6 bool) ([]Socket, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := 0
	if ipv6 {
		i = 1
	}
	if s.closed {
		return nil, net.ErrClosed
	}
	for len(s.sockets[i]) < sharedSockets {
		socket, err := s.open(ipv6)
		if err != nil {
			if len(s.sockets[i]) > 0 {
				break // short of descriptors; fewer will do
			}
			return nil, err
		}
		s.sockets[i] = append(s.sockets[i], socket)
		s.running.Go(func() { s.listen(socket) })
	}
	return s.sockets[i], nil
}

// listen takes what arrives at a socket.
func (s *Shared) listen(socket Socket) {
	// One byte more than a reply, so that a longer datagram is seen as one.
	packet := make([]byte, auth.PacketSize+1)
	for {
		n, from, err := socket.ReadFromUDPAddrPort(packet)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			s.complaints(socket)
			continue
		case n != auth.PacketSize:
			continue
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		for _, j := range s.find(packet, from) {
			s.act(j, func(w *way, now uint64) { w.receive(now, from, slices.Clone(packet[:n])) })
		}
	}
}

// find returns the exchanges that a packet from or to an address belongs to,
// by the key id in it.
func (s *Shared) find(packet []byte, addr netip.AddrPort) (out []*job) {
	const offset = 8 // PROTOCOL.md section 3
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, j := range s.jobs[auth.KeyID(packet[offset:])] {
		if slices.Contains(j.host.Addrs, addr) {
			out = append(out, j)
		}
	}
	return out
}

// complaints takes what the network says of earlier packets.
func (s *Shared) complaints(socket Socket) {
	conn, ok := socket.(*net.UDPConn)
	if !ok {
		return
	}
	for packet, c := range complaintsOf(conn) {
		for _, j := range s.find(packet, c.to) {
			s.act(j, func(w *way, now uint64) { w.unreachable(now, c.to, c.err) })
		}
	}
}

// timers is a heap of jobs, the one that is due first at its top.
type timers []*job

func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, j int) bool { return t[i].at.Before(t[j].at) }
func (t timers) Swap(i, j int)      { t[i], t[j] = t[j], t[i]; t[i].index, t[j].index = i, j }
func (t *timers) Push(x any)        { j := x.(*job); j.index = len(*t); *t = append(*t, j) }
func (t *timers) Pop() any {
	last := len(*t) - 1
	j := (*t)[last]
	(*t)[last], j.index = nil, -1
	*t = (*t)[:last]
	return j
}
