// SPDX-License-Identifier: GPL-2.0-only

// Package flood makes UDP floods for tests and benchmarks: as fast as one thread
// can, or at a rate, and with an exact count of what was sent.
//
// UDP sends from ordinary sockets, so from one address. Spoofed writes whole
// frames to a device, each from a source of its own. Both open their sockets
// through a callback, so that the flood stays in a namespace of the test's own:
// never point them at a network that is not yours.
package flood

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// In runs a function inside the network namespace that the packets are to
// leave from, as Lab.Do of package netlab does.
type In func(func() error) error

// Load is what is sent, how fast and for how long.
type Load struct {
	// Payloads are sent in turn.
	Payloads [][]byte
	// VaryFrom and VaryTo bound the bytes of every payload that are random
	// in every packet. Both are even; if they are equal, nothing varies.
	VaryFrom, VaryTo int
	// Rate is packets per second; 0 means as many as possible.
	Rate int
	// The flood ends after For, after Count packets, or with its context,
	// whichever comes first. A Count of 0 is no limit; For must be given.
	For   time.Duration
	Count uint64
}

// Sent is what was sent.
type Sent struct {
	Packets uint64 // handed to the kernel and taken by it
	Took    time.Duration
}

// PerSecond is the mean rate.
func (s Sent) PerSecond() float64 { return float64(s.Packets) / max(s.Took.Seconds(), 1e-9) }

func (s Sent) String() string {
	return fmt.Sprintf("%d packets in %.2fs, %.0f a second", s.Packets, s.Took.Seconds(), s.PerSecond())
}

// batch is how many packets one system call sends.
const batch = 32

var errLoad = errors.New("flood: payloads are missing, vary in length, or have no such bytes to vary")

func (l *Load) check() error {
	if len(l.Payloads) == 0 || l.For <= 0 || l.VaryFrom < 0 || l.VaryFrom > l.VaryTo || (l.VaryFrom|l.VaryTo)&1 != 0 {
		return errLoad
	}
	for _, p := range l.Payloads {
		if l.VaryTo > len(p) && l.VaryFrom != l.VaryTo || len(p) > maxPayload {
			return errLoad
		}
	}
	return nil
}

// maxPayload keeps a packet below the MTU of Ethernet.
const maxPayload = 1400

// UDP floods an address from some ordinary sockets, each with a port of its
// own. An ICMP error that comes back ends nothing.
func UDP(ctx context.Context, in In, to netip.AddrPort, sockets int, l Load) (Sent, error) {
	if err := l.check(); err != nil {
		return Sent{}, err
	}
	var fds []int
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	err := in(func() error {
		for range sockets {
			family, addr := sockaddr(to)
			fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return os.NewSyscallError("socket", err)
			}
			fds = append(fds, fd)
			if err := unix.Connect(fd, addr); err != nil {
				return os.NewSyscallError("connect", err)
			}
		}
		return nil
	})
	if err != nil {
		return Sent{}, fmt.Errorf("flood: %w", err)
	}
	rnd, next := newRandom(), 0
	fill := func(slot []byte) int {
		n := copy(slot, l.Payloads[next])
		next = (next + 1) % len(l.Payloads)
		for i := l.VaryFrom; i < l.VaryTo; i += 2 {
			v := rnd.Uint64()
			slot[i], slot[i+1] = byte(v), byte(v>>8)
		}
		return n
	}
	return run(ctx, fds, fill, l)
}

func sockaddr(a netip.AddrPort) (family int, addr unix.Sockaddr) {
	if a.Addr().Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// Wire is where spoofed packets leave, and from whom they claim to be.
type Wire struct {
	Device string           // in the namespace
	Peer   net.HardwareAddr // of the device that is to receive them
	To     netip.AddrPort
	// Sources are used in turn; the bits behind a prefix are random in every
	// packet, so a /32 or /128 is one address.
	Sources []netip.Prefix
	// Port is the source port; 0 means a random one from 1024 up in every packet.
	Port uint16
}

// Spoofed floods an address with frames of its own making. Checksums are right.
func Spoofed(ctx context.Context, in In, w Wire, l Load) (Sent, error) {
	if err := l.check(); err != nil {
		return Sent{}, err
	}
	fd := -1
	defer func() {
		if fd >= 0 {
			unix.Close(fd)
		}
	}()
	var own net.HardwareAddr
	err := in(func() error {
		dev, err := net.InterfaceByName(w.Device)
		if err != nil {
			return err
		}
		own = dev.HardwareAddr
		// Protocol 0: this socket receives nothing.
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return os.NewSyscallError("socket", err)
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
			return os.NewSyscallError("PACKET_QDISC_BYPASS", err)
		}
		return os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: dev.Index}))
	})
	if err != nil {
		return Sent{}, fmt.Errorf("flood: %w", err)
	}
	f, err := newForge(own, w, l)
	if err != nil {
		return Sent{}, err
	}
	return run(ctx, []int{fd}, f.frame, l)
}

// mmsghdr is struct mmsghdr of sendmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// run sends what fill writes into a slot, of which it returns the length.
func run(ctx context.Context, fds []int, fill func([]byte) int, l Load) (Sent, error) {
	const slot = 14 + 40 + 8 + maxPayload
	slots := make([]byte, batch*slot)
	iovecs := make([]unix.Iovec, batch)
	headers := make([]mmsghdr, batch)
	for i := range headers {
		iovecs[i].Base = &slots[i*slot]
		headers[i].hdr.Iov = &iovecs[i]
		headers[i].hdr.SetIovlen(1)
	}
	var n uint64
	start := time.Now()
	for turn := 0; ctx.Err() == nil && (l.Count == 0 || n < l.Count); turn++ {
		elapsed := time.Since(start)
		if elapsed >= l.For {
			break
		}
		want := uint64(batch)
		if l.Rate > 0 {
			due := uint64(elapsed.Seconds()*float64(l.Rate)) + 1
			if due <= n {
				time.Sleep(200 * time.Microsecond)
				continue
			}
			want = min(want, due-n)
		}
		if l.Count > 0 {
			want = min(want, l.Count-n)
		}
		for i := range want {
			iovecs[i].SetLen(fill(slots[i*slot : (i+1)*slot]))
		}
		for done := uint64(0); done < want && ctx.Err() == nil && time.Since(start) < 2*l.For; {
			r, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fds[turn%len(fds)]),
				uintptr(unsafe.Pointer(&headers[done])), uintptr(want-done), 0, 0, 0)
			switch {
			case errno == 0:
				done += uint64(r)
				n += uint64(r)
			case transient(errno):
			default:
				return Sent{n, time.Since(start)}, os.NewSyscallError("sendmmsg", errno)
			}
		}
	}
	return Sent{n, time.Since(start)}, nil
}

// transient errors are a full device and what ICMP said of an earlier packet.
func transient(errno syscall.Errno) bool {
	switch errno {
	case syscall.ENOBUFS, syscall.EAGAIN, syscall.EINTR, syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EPERM:
		return true
	}
	return false
}

func newRandom() *rand.PCG { return rand.NewPCG(rand.Uint64(), rand.Uint64()) }
