// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"crypto/rand"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"netsysrq/auth"
	"netsysrq/internal/clock"
)

// client sends one-packet requests and sees their effect. It works on one
// thread and waits in the kernel without telling the runtime, so that what it
// measures is the daemon and not the runtime's way back from a system call.
type client struct {
	sealer  *auth.Sealer
	trigger int // reading end of the FIFO
	to      [2]unix.Sockaddr
	paths   [2][]int // sockets, one for each source
	turn    int
	last    uint64 // time of the last request
}

// outcome is what became of a request. Times count from the first packet.
type outcome struct {
	reply, trigger time.Duration // 0: never
	packets        int           // that were sent
	result         auth.Result   // of the first reply
}

func (o *outcome) done() bool { return o.reply > 0 && o.trigger > 0 }

// newClient must be called, and its client used, in the client's namespace.
func newClient(d *daemon) (c *client, err error) {
	key := d.key
	c = &client{sealer: auth.NewSealer(&key), trigger: d.trigger}
	for family := range families {
		c.to[family] = sockaddr(netip.AddrPortFrom(toHost.server[family], port))
		for i := range clientSources {
			fd, err := c.open(family, i)
			if err != nil {
				c.close()
				return nil, err
			}
			c.paths[family] = append(c.paths[family], fd)
		}
	}
	return c, nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// open makes a socket with a new port of one of the client's addresses.
func (c *client) open(family, source int) (int, error) {
	fd, err := unix.Socket([2]int{unix.AF_INET, unix.AF_INET6}[family], unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	err = unix.Bind(fd, sockaddr(netip.AddrPortFrom(clientSource(family, source), 0)))
	if err == nil {
		err = unix.Connect(fd, c.to[family])
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("socket of %v: %w", clientSource(family, source), err)
	}
	return fd, nil
}

func (c *client) close() {
	for _, fds := range c.paths {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
}

// newPortEvery packets, one comes from a new port, as the sender does it.
const newPortEvery = 3

// sendAt is when the sender sends the i-th packet of a request.
func sendAt(i int) time.Duration {
	early := [...]time.Duration{0, 250 * time.Millisecond, 500 * time.Millisecond}
	if i < len(early) {
		return early[i]
	}
	return time.Duration(i-len(early)+1) * time.Second
}

// request makes a request and sends it by the sender's schedule until it is
// answered and run, or the limit is over.
func (c *client) request(family int, limit time.Duration) (o outcome, err error) {
	source := c.turn % clientSources
	key := allowed[c.turn%len(allowed)]
	c.turn++
	r := auth.Request{Op: auth.OpRun, Time: max(clock.Real(), c.last+1)}
	c.last = r.Time
	rand.Read(r.ID[:])
	r.SetSteps([]auth.Step{{Key: key}})
	packet := c.sealer.SealRequest(&r)

	fds := []unix.PollFd{{Fd: int32(c.trigger), Events: unix.POLLIN}, {Fd: int32(c.paths[family][source]), Events: unix.POLLIN}}
	defer func() {
		for _, f := range fds[2:] {
			unix.Close(int(f.Fd))
		}
	}()
	c.forget(fds)

	start := time.Now()
	for {
		now := time.Since(start)
		if now >= limit {
			return o, nil
		}
		if now >= sendAt(o.packets) {
			path := fds[1].Fd
			if o.packets > 0 && o.packets%newPortEvery == 0 {
				fd, err := c.open(family, source)
				if err != nil {
					return o, err
				}
				path = int32(fd)
				fds = append(fds, unix.PollFd{Fd: path, Events: unix.POLLIN})
			}
			o.packets++
			_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(path), uintptr(unsafe.Pointer(&packet)), uintptr(len(packet)), 0, 0, 0)
			if errno != 0 {
				return o, os.NewSyscallError("send", errno)
			}
		}
		timeout := unix.NsecToTimespec(int64(max(min(sendAt(o.packets), limit)-time.Since(start), 0)))
		n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fds[0])), uintptr(len(fds)), uintptr(unsafe.Pointer(&timeout)), 0, 0, 0)
		now = time.Since(start)
		if errno != 0 && errno != syscall.EINTR {
			return o, os.NewSyscallError("ppoll", errno)
		}
		if errno != 0 || n == 0 {
			continue
		}
		if fds[0].Revents != 0 && o.trigger == 0 && c.triggered(key) {
			o.trigger = now
		}
		for _, f := range fds[1:] {
			if f.Revents != 0 && o.reply == 0 {
				if result, ok := c.reply(int(f.Fd), r.ID); ok {
					o.reply, o.result = now, result
				}
			}
		}
		if o.done() || o.reply > 0 && o.result != auth.Accepted {
			return o, nil
		}
		if fds[0].Revents&unix.POLLHUP != 0 {
			return o, fmt.Errorf("the daemon closed its trigger")
		}
	}
}

// forget reads what came too late for the request before.
func (c *client) forget(fds []unix.PollFd) {
	var b [auth.PacketSize]byte
	for _, f := range fds {
		for {
			if n, err := unix.Read(int(f.Fd), b[:]); err != nil || n == 0 {
				break
			}
		}
	}
}

// pause sleeps without waking another thread of this program.
func pause(d time.Duration) {
	t := unix.NsecToTimespec(d.Nanoseconds())
	unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&t)), 0, 0)
}

// triggered reads the FIFO and reports whether a key was in it.
func (c *client) triggered(key byte) (found bool) {
	var b [64]byte
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(c.trigger), uintptr(unsafe.Pointer(&b)), uintptr(len(b)))
	if errno != 0 {
		return false
	}
	for _, k := range b[:n] {
		found = found || k == key
	}
	return found
}

// reply reads a datagram and reports the result if it is the request's reply.
func (c *client) reply(fd int, id auth.RequestID) (auth.Result, bool) {
	var b [auth.PacketSize + 1]byte
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b)), uintptr(len(b)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, false
	}
	var r auth.Reply
	reason, _ := c.sealer.OpenReply(b[:n], id, &r)
	return r.Result, reason == auth.OK
}
