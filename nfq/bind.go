// SPDX-License-Identifier: GPL-2.0-only

package nfq

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"time"

	nfqueue "github.com/florianl/go-nfqueue/v2"
	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// bindAttempts bounds how often a bind that failed for no reason we know is
// tried on a fresh socket.
const bindAttempts = 3

// bind returns a socket that owns the queue and has no packet outstanding that
// the reader will not see.
//
// go-nfqueue opens, binds and configures it. Its read loop costs several times
// what the verdict itself does, so the socket is taken over: a duplicate of its
// descriptor keeps it, and the queue, alive when the library closes its own
// and ends.
//
// Packets are queued as soon as the kernel has the copy mode, which is before
// the last acknowledgement, and the library would mistake one for that.
// A socket filter hides them until the library is gone. What was hidden holds
// a slot of the queue until someone decides, so all of it is dropped at the end.
func bind(cfg *Config) (*socket, error) {
	var err error
	for range bindAttempts {
		var s *socket
		s, err = bindOnce(cfg)
		if err == nil {
			return s, nil
		}
		for _, known := range []error{ErrQueueOwned, ErrNoCapability, ErrUnsupported} {
			if errors.Is(err, known) {
				return nil, err
			}
		}
		cfg.Logger.Warn("queue was not bound", "queue", cfg.Queue, "error", err)
	}
	return nil, err
}

func bindOnce(cfg *Config) (*socket, error) {
	s, err := register(cfg)
	if err != nil {
		return nil, err
	}
	if err := s.start(cfg); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// register binds and configures a queue. The filter is still in place.
func register(cfg *Config) (*socket, error) {
	library, err := nfqueue.Open(&nfqueue.Config{
		NfQueue:      cfg.Queue,
		MaxQueueLen:  cfg.MaxLen,
		MaxPacketLen: cfg.CopyRange,
		Copymode:     nfqueue.NfQnlCopyPacket,
		AfFamily:     unix.AF_UNSPEC,
	})
	if err != nil {
		if errors.Is(err, syscall.EPROTONOSUPPORT) {
			err = fmt.Errorf("%w: %w", ErrUnsupported, err)
		}
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	// Ends the library's goroutines too.
	defer library.Close()

	s, err := takeOver(library.Con, cfg)
	if err != nil {
		return nil, err
	}
	if err := s.configure(library); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// configure makes the library bind the queue without a packet in its way.
func (s *socket) configure(library *nfqueue.Nfqueue) error {
	// Packets have a timestamp only while some socket of the machine wants
	// one (netstamp_needed_key in net/core/dev.c); any socket will do. The
	// kernel leaves the change to a worker, so this comes first.
	if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
		return fmt.Errorf("set SO_TIMESTAMPNS: %w", err)
	}
	if err := library.Con.SetBPF(hidePackets()); err != nil {
		return fmt.Errorf("attach socket filter: %w", err)
	}
	err := library.RegisterWithErrorFunc(context.Background(),
		func(nfqueue.Attribute) int { return 0 },
		func(error) int {
			// Anything but 0 would make the library unbind. After its
			// Close it ends by itself.
			time.Sleep(time.Millisecond)
			return 0
		})
	if err != nil {
		return bindError(library.Con, err)
	}
	return nil
}

// takeOver duplicates the descriptor of an open connection.
func takeOver(con *netlink.Conn, cfg *Config) (*socket, error) {
	raw, err := con.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("take over socket: %w", err)
	}
	s := &socket{portID: con.PID(), queue: cfg.Queue}
	var dupErr error
	err = raw.Control(func(fd uintptr) {
		s.fd, dupErr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err := errors.Join(err, dupErr); err != nil {
		return nil, fmt.Errorf("take over socket: %w", err)
	}
	return s, nil
}

// start lets the packets in.
func (s *socket) start(cfg *Config) error {
	if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, cfg.ReceiveBuffer); err != nil {
		return fmt.Errorf("set SO_RCVBUFFORCE: %w", err)
	}
	if err := s.prepare(cfg.Batch, cfg.CopyRange, tick); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0); err != nil {
		return fmt.Errorf("detach socket filter: %w", err)
	}
	// Ids of a fresh queue begin at 1, so half the circle of ids is all there is.
	var b [verdictMessageLen]byte
	putVerdict(&b, seqClear, s.queue, 1<<31-1, Drop)
	if err := s.send(b[:]); err != nil {
		return fmt.Errorf("clear queue: %w", err)
	}
	return nil
}

// hidePackets is a socket filter that lets everything pass but packet messages.
func hidePackets() []bpf.RawInstruction {
	// The filter machine loads big-endian, the field is in native order.
	var kind [2]byte
	binary.NativeEndian.PutUint16(kind[:], msgPacket)
	program, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 4, Size: 2}, // nlmsg_type
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(binary.BigEndian.Uint16(kind[:])), SkipFalse: 1},
		bpf.RetConstant{Val: 0},
		bpf.RetConstant{Val: 1<<32 - 1},
	})
	if err != nil {
		panic(err) // the program is a constant
	}
	return program
}

// bindError names the reason why the kernel refused the queue.
func bindError(con *netlink.Conn, err error) error {
	reason := error(nil)
	switch {
	case errors.Is(err, syscall.EPERM):
		reason = ErrQueueOwned
		if !capable(con) {
			reason = ErrNoCapability
		}
	case errors.Is(err, syscall.EBUSY):
		reason = ErrQueueOwned
	case errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.EOPNOTSUPP):
		// nfnetlink's answer for a subsystem nobody registered.
		reason = ErrUnsupported
	default:
		return fmt.Errorf("bind queue: %w", err)
	}
	return fmt.Errorf("bind queue: %w: %w", reason, err)
}

// capable asks by a request without effect, which the kernel refuses only for
// lack of CAP_NET_ADMIN.
func capable(con *netlink.Conn) bool {
	const configCommand, pfBind = 1, 3 // NFQA_CFG_CMD, NFQNL_CFG_CMD_PF_BIND
	cmd, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: configCommand, Data: []byte{pfBind, 0, 0, 0}},
	})
	if err != nil {
		return false
	}
	_, err = con.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(msgConfig),
			Flags: netlink.Request | netlink.Acknowledge,
		},
		Data: append(make([]byte, nfgenmsgLen), cmd...),
	})
	return !errors.Is(err, syscall.EPERM)
}
