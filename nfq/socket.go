// SPDX-License-Identifier: GPL-2.0-only

package nfq

import (
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// messageOverhead is room for what precedes and surrounds the payload in
	// a packet message: headers, ids, addresses, timestamp, less than 300 bytes.
	messageOverhead = 512

	// A verdict whose message the kernel has no memory for is tried again
	// for about 100 ms.
	sendAttempts = 100
	sendPause    = time.Millisecond
)

// socket is a bound netlink socket that blocks. The runtime's poller does not
// know it: it would wake a thread of its own for every packet.
//
// receive belongs to one goroutine, send and probe may be called by any.
type socket struct {
	fd     int
	portID uint32
	queue  uint16

	buffers []byte // one datagram each
	size    int
	from    []unix.RawSockaddrNetlink
	iovecs  []unix.Iovec
	headers []mmsghdr
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// prepare allocates room for batch datagrams of packets cut to copyRange, and
// makes receive return after tick.
func (s *socket) prepare(batch int, copyRange uint32, tick time.Duration) error {
	s.size = align4(int(copyRange) + messageOverhead)
	s.buffers = make([]byte, batch*s.size)
	s.from = make([]unix.RawSockaddrNetlink, batch)
	s.iovecs = make([]unix.Iovec, batch)
	s.headers = make([]mmsghdr, batch)
	for i := range s.headers {
		s.iovecs[i].Base = &s.buffers[i*s.size]
		s.iovecs[i].SetLen(s.size)
		h := &s.headers[i].hdr
		h.Name = (*byte)(unsafe.Pointer(&s.from[i]))
		h.Iov = &s.iovecs[i]
		h.SetIovlen(1)
	}
	if err := unix.SetNonblock(s.fd, false); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	tv := unix.NsecToTimeval(int64(tick))
	if err := unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return fmt.Errorf("set SO_RCVTIMEO: %w", err)
	}
	return nil
}

// receive waits for a datagram and takes as many as are there, up to the batch
// size. Without any it returns EAGAIN after the tick. The datagrams are valid
// until the next call.
func (s *socket) receive() (n int, errno syscall.Errno) {
	for i := range s.headers {
		s.headers[i].hdr.Namelen = unix.SizeofSockaddrNetlink
	}
	r, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(s.fd),
		uintptr(unsafe.Pointer(&s.headers[0])), uintptr(len(s.headers)), unix.MSG_WAITFORONE, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(r), 0
}

// datagram is the i-th one of the last receive. ok is false if it did not come
// from the kernel or did not fit.
func (s *socket) datagram(i int) (b []byte, ok bool) {
	h := &s.headers[i]
	ok = s.from[i].Pid == 0 && h.hdr.Flags&unix.MSG_TRUNC == 0 && int(h.len) <= s.size
	return s.buffers[i*s.size:][:min(int(h.len), s.size)], ok
}

// send hands a message to the kernel, which acts on it before send returns.
// Lack of memory is waited out; what is returned then is final.
func (s *socket) send(b []byte) error {
	var errno syscall.Errno
	for range sendAttempts {
		_, _, errno = unix.Syscall6(unix.SYS_SENDTO, uintptr(s.fd),
			uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return nil
		case syscall.EINTR:
		case syscall.ENOBUFS, syscall.ENOMEM, syscall.EAGAIN:
			time.Sleep(sendPause)
		default:
			return errno
		}
	}
	return errno
}

// probe asks the kernel whether the queue is still ours. The answer arrives as
// a datagram, so that it also ends a receive that waits.
func (s *socket) probe() error {
	var b [probeMessageLen]byte
	putProbe(&b, s.queue)
	return s.send(b[:])
}

func (s *socket) close() error { return unix.Close(s.fd) }
