// SPDX-License-Identifier: GPL-2.0-only

package kmod

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"netsysrq/auth"
)

// Errors of the module.
var (
	ErrNotLoaded  = errors.New("the kernel module xt_NETSYSRQ is not loaded")
	ErrKeyExists  = errors.New("the module holds another key with this id")
	ErrFull       = errors.New("the module has no room for a further key")
	ErrUnknownKey = errors.New("the module does not hold this key")
	ErrPermission = errors.New("not allowed: it needs CAP_NET_ADMIN, for keys CAP_SYS_BOOT, for verdicts to be the registered daemon")
	ErrLate       = errors.New("late: nothing is pending under this request id")
	ErrDrill      = errors.New("a drill is left to the kernel")
)

// Client is a connection to the module. The one that called Register is the
// daemon until another does. Methods may be called concurrently.
type Client struct {
	conn   *genetlink.Conn
	family uint16
	port   uint32
}

// loaded is there while the module is.
const loaded = "/sys/module/xt_NETSYSRQ"

// Dial connects to the module: ErrNotLoaded if there is none, or if the caller is
// not in the network namespace that it serves.
func Dial() (*Client, error) {
	// Asked for a family that is not there, the kernel runs modprobe.
	if _, err := os.Stat(loaded); errors.Is(err, os.ErrNotExist) {
		return nil, ErrNotLoaded
	}
	conn, err := genetlink.Dial(&netlink.Config{Strict: true})
	if err != nil {
		return nil, fmt.Errorf("connect to generic netlink: %w", err)
	}
	family, err := conn.GetFamily(familyName)
	if err != nil {
		conn.Close()
		if errors.Is(err, os.ErrNotExist) {
			return nil, ErrNotLoaded
		}
		return nil, fmt.Errorf("look up netlink family %s: %w", familyName, err)
	}
	port, err := portOf(conn)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("look up the own netlink port: %w", err)
	}
	return &Client{conn: conn, family: family.ID, port: port}, nil
}

func portOf(conn *genetlink.Conn) (port uint32, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var addr unix.Sockaddr
	if cerr := raw.Control(func(fd uintptr) { addr, err = unix.Getsockname(int(fd)) }); cerr != nil {
		return 0, cerr
	}
	if own, ok := addr.(*unix.SockaddrNetlink); ok {
		port = own.Pid
	}
	return port, err
}

// Port is what Status.Daemon is while this client is the daemon.
func (c *Client) Port() uint32 { return c.port }

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// InstallKey gives the module a key, or a known one its allowed set anew.
func (c *Client) InstallKey(k *auth.HostKey, allowed auth.KeySet) error {
	e := netlink.NewAttributeEncoder()
	e.Bytes(aKeyID, k.ID[:])
	e.Bytes(aRequestKey, k.Request[:])
	e.Bytes(aReplyKey, k.Reply[:])
	e.Uint64(aAllowed, uint64(allowed))
	err := c.tell(cmdKeySet, e)
	switch {
	case errors.Is(err, unix.EEXIST):
		err = ErrKeyExists
	case errors.Is(err, unix.ENOSPC):
		err = ErrFull
	}
	return wrap("install key", k.ID, err)
}

// RemoveKey takes a key away, and with it what it has pending.
func (c *Client) RemoveKey(id auth.KeyID) error {
	e := netlink.NewAttributeEncoder()
	e.Bytes(aKeyID, id[:])
	err := c.tell(cmdKeyDel, e)
	if errors.Is(err, unix.ENOENT) {
		err = ErrUnknownKey
	}
	return wrap("remove key", id, err)
}

// SetBootID tells the module what to say in replies.
func (c *Client) SetBootID(id auth.BootID) error {
	e := netlink.NewAttributeEncoder()
	e.Bytes(aBootID, id[:])
	return wrap("set", "boot id", c.tell(cmdSet, e))
}

// SetDryRun sets whether runs are only rehearsed.
func (c *Client) SetDryRun(on bool) error {
	e := netlink.NewAttributeEncoder()
	e.Uint8(aDryRun, bit(on))
	return wrap("set", "dry run", c.tell(cmdSet, e))
}

// SetDeadline sets how long the module waits for a verdict, 10 ms to 10 s.
func (c *Client) SetDeadline(d time.Duration) error {
	e := netlink.NewAttributeEncoder()
	e.Uint32(aDeadline, uint32(d.Milliseconds()))
	return wrap("set", "deadline", c.tell(cmdSet, e))
}

// Synchronised tells whether the clock is disciplined, and both clocks at the
// moment at which the kernel was asked.
func (c *Client) Synchronised(yes bool, asked auth.Instant) error {
	e := netlink.NewAttributeEncoder()
	e.Uint8(aClockOK, bit(yes))
	e.Uint64(aClockOffset, asked.Real-asked.Boot)
	return wrap("set", "clock", c.tell(cmdClock, e))
}

// Register makes this connection the daemon's.
func (c *Client) Register() error {
	return wrap("register", "daemon", c.tell(cmdRegister, netlink.NewAttributeEncoder()))
}

// Take says that a pending request is to be run, now.
func (c *Client) Take(id auth.KeyID, request auth.RequestID) error {
	return c.verdict("take request of", cmdTake, id, request)
}

// Veto says that a pending request is not to be run.
func (c *Client) Veto(id auth.KeyID, request auth.RequestID) error {
	return c.verdict("veto request of", cmdVeto, id, request)
}

func (c *Client) verdict(what string, cmd uint8, id auth.KeyID, request auth.RequestID) error {
	e := netlink.NewAttributeEncoder()
	e.Bytes(aKeyID, id[:])
	e.Bytes(aRequestID, request[:])
	err := c.tell(cmd, e)
	switch {
	case errors.Is(err, unix.ETIME):
		err = ErrLate
	case errors.Is(err, unix.EBUSY):
		err = ErrDrill
	}
	return wrap(what, id, err)
}

// Status asks the module for its state.
func (c *Client) Status() (s Status, err error) {
	data, err := c.ask(cmdStatus, netlink.NewAttributeEncoder())
	if err == nil {
		err = s.decode(data)
	}
	return s, wrap("get", "status", err)
}

// Events returns the events from number seq on, the number to ask for next, and
// how many were overwritten before they could be read. It returns none if there
// is nothing newer.
func (c *Client) Events(seq uint32) (events []Event, next, lost uint32, err error) {
	e := netlink.NewAttributeEncoder()
	e.Uint32(aSeq, seq)
	data, err := c.ask(cmdEvents, e)
	if err == nil {
		events, next, lost, err = decodeEvents(data)
	}
	return events, next, lost, wrap("get", "events", err)
}

// tell sends a command that is only acknowledged.
func (c *Client) tell(cmd uint8, e *netlink.AttributeEncoder) error {
	_, err := c.execute(cmd, e, netlink.Request|netlink.Acknowledge)
	return err
}

// ask sends a command whose answer is one message.
func (c *Client) ask(cmd uint8, e *netlink.AttributeEncoder) ([]byte, error) {
	msgs, err := c.execute(cmd, e, netlink.Request)
	if err == nil && len(msgs) != 1 {
		err = fmt.Errorf("%d messages instead of one", len(msgs))
	}
	if err != nil {
		return nil, err
	}
	return msgs[0].Data, nil
}

func (c *Client) execute(cmd uint8, e *netlink.AttributeEncoder, flags netlink.HeaderFlags) ([]genetlink.Message, error) {
	data, err := e.Encode()
	if err != nil {
		return nil, err
	}
	defer clear(data) // some of it may be a key
	msgs, err := c.conn.Execute(genetlink.Message{
		Header: genetlink.Header{Command: cmd, Version: 1},
		Data:   data,
	}, c.family, flags)
	if errors.Is(err, unix.EPERM) {
		err = ErrPermission
	}
	return msgs, err
}

func wrap(what string, of any, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("kernel module: %s %v: %w", what, of, err)
}

func bit(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}
