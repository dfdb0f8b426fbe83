// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Net is the host's end of the guest's wire: a very small IP stack of the test's
// own. Like a wire it loses what nobody takes in time.
type Net struct {
	wire *net.UDPConn
	mu   sync.Mutex
	// What waits for packets of the guest.
	conns    map[flow]*Conn
	pings    map[uint16]chan time.Time
	captures map[*Capture]bool
	last     uint16 // source port or echo identifier that was given out
}

// flow is a UDP conversation, seen from the host.
type flow struct{ local, remote netip.AddrPort }

// newNet makes the wire: two sockets that are connected to each other. The file
// is QEMU's end, to be inherited.
func newNet() (*Net, *os.File, error) {
	var fds [2]int
	var addrs [2]unix.Sockaddr
	fail := func(err error) (*Net, *os.File, error) {
		for _, fd := range fds {
			if fd > 0 {
				unix.Close(fd)
			}
		}
		return nil, nil, fmt.Errorf("make the wire: %w", err)
	}
	for i := range fds {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fail(err)
		}
		fds[i] = fd
		// The kernel gives what it may; root may have more.
		const buffer = 8 << 20
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer)
		}
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			return fail(err)
		}
		if addrs[i], err = unix.Getsockname(fd); err != nil {
			return fail(err)
		}
	}
	for i := range fds {
		if err := unix.Connect(fds[i], addrs[1-i]); err != nil {
			return fail(err)
		}
	}
	theirs := os.NewFile(uintptr(fds[1]), "wire")
	f := os.NewFile(uintptr(fds[0]), "wire")
	c, err := net.FileConn(f)
	f.Close()
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("make the wire: %w", err)
	}
	n := &Net{
		wire:     c.(*net.UDPConn),
		conns:    map[flow]*Conn{},
		pings:    map[uint16]chan time.Time{},
		captures: map[*Capture]bool{},
	}
	go n.read()
	return n, theirs, nil
}

// close ends the wire and every Conn and Capture.
func (n *Net) close() {
	n.wire.Close()
	n.mu.Lock()
	defer n.mu.Unlock()
	for f, c := range n.conns {
		delete(n.conns, f)
		close(c.arrived)
	}
	for c := range n.captures {
		delete(n.captures, c)
		close(c.frames)
	}
}

func (n *Net) read() {
	buf := make([]byte, 65536)
	for {
		k, err := n.wire.Read(buf)
		switch {
		case err == nil:
			n.receive(buf[:k])
		case errors.Is(err, net.ErrClosed):
			return
		}
		// Any other error: QEMU has gone, or is not there yet.
	}
}

// SendFrame sends any bytes as one Ethernet frame.
func (n *Net) SendFrame(frame []byte) error {
	if len(frame) == 0 {
		return errors.New("send a frame: QEMU would take an empty one for the end")
	}
	_, err := n.wire.Write(frame)
	if err != nil {
		return fmt.Errorf("send a frame: %w", err)
	}
	return nil
}

func (n *Net) receive(f []byte) {
	now := time.Now()
	n.mu.Lock()
	for c := range n.captures {
		c.take(now, f)
	}
	n.mu.Unlock()
	if reply := arpReply(f); reply != nil {
		n.SendFrame(reply)
		return
	}
	p, ok := parse(f)
	if !ok {
		return
	}
	if from, to, payload, ok := p.udp(); ok {
		n.mu.Lock()
		defer n.mu.Unlock()
		if c := n.conns[flow{to, from}]; c != nil {
			c.take(payload)
		}
		return
	}
	n.icmp(p, now)
}

func (n *Net) icmp(p packet, now time.Time) {
	m := p.payload
	if p.proto != protoICMP && p.proto != protoICMPv6 || len(m) < icmpSize {
		return
	}
	switch kind := m[0]; {
	case p.proto == protoICMP && kind == echoReply4, p.proto == protoICMPv6 && kind == echoReply6:
		n.mu.Lock()
		defer n.mu.Unlock()
		id := be.Uint16(m[4:])
		if c := n.pings[id]; c != nil {
			c <- now
			delete(n.pings, id)
		}
	case p.proto == protoICMP && kind == echoRequest4, p.proto == protoICMPv6 && kind == echoRequest6:
		n.SendFrame(echoFrame(p.to, p.from, false, be.Uint16(m[4:]), be.Uint16(m[6:]), m[icmpSize:]))
	case p.proto == protoICMPv6 && kind == solicitation && len(m) >= icmpSize+16:
		if target := netip.AddrFrom16([16]byte(m[8:])); target == HostIPv6 {
			n.SendFrame(advertisementTo(p.from))
		}
	}
}

// arpReply answers a question for the host's address.
func arpReply(f []byte) []byte {
	const size = 28
	if len(f) < etherSize+size || be.Uint16(f[12:]) != etherARP {
		return nil
	}
	q := f[etherSize : etherSize+size]
	const request, reply = 1, 2
	if be.Uint16(q[6:]) != request || netip.AddrFrom4([4]byte(q[24:])) != HostIPv4 {
		return nil
	}
	r := append(append(append([]byte{}, q[8:14]...), HostMAC[:]...), f[12:14]...)
	r = append(r, q[:6]...)
	r = be.AppendUint16(r, reply)
	r = append(append(r, HostMAC[:]...), q[24:28]...)
	return append(r, q[8:18]...)
}

// advertisementTo tells the guest the host's link address.
func advertisementTo(to netip.Addr) []byte {
	const solicited, override, targetLink = 0x40, 0x20, 2
	m := make([]byte, icmpSize, icmpSize+24)
	m[0], m[4] = advertisement, solicited|override
	m = append(m, HostIPv6.AsSlice()...)
	m = append(append(m, targetLink, 1), HostMAC[:]...)
	return icmpFrame(HostIPv6, to, m)
}

// fresh returns a number that was not given out for long.
func (n *Net) fresh() uint16 {
	n.last = max(n.last+1, 40000)
	return n.last
}

// Ping sends an ICMP echo request to an address of the guest and waits for the
// reply.
func (n *Net) Ping(ctx context.Context, to netip.Addr) (time.Duration, error) {
	from := HostIPv4
	if to.Is6() {
		from = HostIPv6
	}
	back := make(chan time.Time, 1)
	n.mu.Lock()
	id := n.fresh()
	n.pings[id] = back
	n.mu.Unlock()
	start := time.Now()
	err := n.SendFrame(echoFrame(from, to, true, id, 1, make([]byte, 56)))
	if err == nil {
		select {
		case at := <-back:
			return at.Sub(start), nil
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	n.mu.Lock()
	delete(n.pings, id)
	n.mu.Unlock()
	return 0, fmt.Errorf("ping %v: %w", to, err)
}

// Dial opens a path to a UDP port of the guest, from a new port of the host. It
// is an exchange.Dial.
func (n *Net) Dial(_ context.Context, to netip.AddrPort) (io.ReadWriteCloser, error) {
	from := HostIPv4
	if to.Addr().Is6() {
		from = HostIPv6
	}
	n.mu.Lock()
	port := n.fresh()
	n.mu.Unlock()
	return n.DialFrom(netip.AddrPortFrom(from, port), to)
}

// DialFrom is Dial from any address and port of the same family: the guest
// reaches all addresses but its own through the wire.
func (n *Net) DialFrom(from, to netip.AddrPort) (*Conn, error) {
	c := &Conn{net: n, flow: flow{from, to}, arrived: make(chan []byte, 256)}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.conns[c.flow] != nil {
		return nil, fmt.Errorf("dial %v from %v: %w", to, from, unix.EADDRINUSE)
	}
	n.conns[c.flow] = c
	return c, nil
}

// Conn is a path to a UDP port of the guest. A Read returns one datagram, a
// Write sends one.
type Conn struct {
	net     *Net
	flow    flow
	arrived chan []byte
}

// take keeps a datagram for Read, unless too many are kept already.
func (c *Conn) take(payload []byte) {
	select {
	case c.arrived <- append([]byte(nil), payload...):
	default:
	}
}

// Read waits for a datagram. What does not fit into b is lost.
func (c *Conn) Read(b []byte) (int, error) {
	payload, ok := <-c.arrived
	if !ok {
		return 0, net.ErrClosed
	}
	return copy(b, payload), nil
}

func (c *Conn) Write(b []byte) (int, error) {
	return len(b), c.net.SendFrame(UDPFrame(c.flow.local, c.flow.remote, b))
}

// Close ends a Read with net.ErrClosed.
func (c *Conn) Close() error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if c.net.conns[c.flow] == c {
		delete(c.net.conns, c.flow)
		close(c.arrived)
	}
	return nil
}

// Frame is a frame of the guest.
type Frame struct {
	At   time.Time // of its arrival
	Data []byte
}

// Capture is every frame of the guest since it was begun.
type Capture struct {
	net    *Net
	frames chan Frame
	lost   atomic.Uint64
}

// Capture begins to keep the guest's frames, 4096 at most that are not read.
func (n *Net) Capture() *Capture {
	c := &Capture{net: n, frames: make(chan Frame, 4096)}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.captures[c] = true
	return c
}

func (c *Capture) take(now time.Time, f []byte) {
	select {
	case c.frames <- Frame{now, append([]byte(nil), f...)}:
	default:
		c.lost.Add(1)
	}
}

// Frames is where they arrive; it is closed with the capture or the machine.
func (c *Capture) Frames() <-chan Frame { return c.frames }

// Lost is how many frames found no room.
func (c *Capture) Lost() uint64 { return c.lost.Load() }

// Close ends the capture.
func (c *Capture) Close() {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if c.net.captures[c] {
		delete(c.net.captures, c)
		close(c.frames)
	}
}
