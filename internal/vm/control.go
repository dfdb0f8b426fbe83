// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"netsysrq/internal/vm/agent"
)

// ErrSilent is wrapped when the guest's init does not answer in time. Of a
// machine that hangs, that is what is expected.
var ErrSilent = errors.New("the guest's init is silent")

// control is the control channel: the second serial port, with the guest's init
// at the other end. Any number of requests may be under way.
type control struct {
	conn  net.Conn
	ready chan struct{} // closed when the guest says that it is set up
	mu    sync.Mutex
	last  uint64
	calls map[uint64]chan agent.Response
	begun error // why the guest could not be set up
	ended bool
}

func newControl(conn net.Conn) *control {
	c := &control{conn: conn, ready: make(chan struct{}), calls: map[uint64]chan agent.Response{}}
	go c.read()
	return c
}

func (c *control) read() {
	s := bufio.NewScanner(c.conn)
	s.Buffer(nil, 16<<20)
	for s.Scan() {
		var r agent.Response
		// Firmware and boot loader may say something too.
		at := bytes.IndexByte(s.Bytes(), '{')
		if at < 0 || json.Unmarshal(s.Bytes()[at:], &r) != nil {
			continue
		}
		if r.ID == 0 {
			select {
			case <-c.ready: // said again, by an agent that was started again
			default:
				if r.Error != "" {
					c.begun = fmt.Errorf("set the guest up: %s", r.Error)
				}
				close(c.ready)
			}
			continue
		}
		c.mu.Lock()
		call := c.calls[r.ID]
		delete(c.calls, r.ID)
		c.mu.Unlock()
		if call != nil {
			call <- r
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	for _, call := range c.calls {
		close(call)
	}
	clear(c.calls)
}

// do sends a request and waits for its answer.
func (c *control) do(ctx context.Context, r agent.Request) (agent.Response, error) {
	call := make(chan agent.Response, 1)
	c.mu.Lock()
	if c.ended {
		c.mu.Unlock()
		return agent.Response{}, fmt.Errorf("%s: the machine has ended", r.Op)
	}
	c.last++
	r.ID = c.last
	c.calls[r.ID] = call
	line, err := json.Marshal(r)
	if err == nil {
		// A machine that hangs reads nothing.
		c.conn.SetWriteDeadline(time.Now().Add(5 * time.Second))
		_, err = c.conn.Write(append(line, '\n'))
	}
	c.mu.Unlock()
	if err != nil {
		return agent.Response{}, fmt.Errorf("%s: %w: %w", r.Op, ErrSilent, err)
	}
	select {
	case a, ok := <-call:
		switch {
		case !ok:
			return a, fmt.Errorf("%s: the machine has ended", r.Op)
		case a.Error != "":
			return a, fmt.Errorf("%s %s%v: %s", r.Op, r.Name+r.Path, r.Args, a.Error)
		}
		return a, nil
	case <-ctx.Done():
		c.mu.Lock()
		delete(c.calls, r.ID)
		c.mu.Unlock()
		return agent.Response{}, fmt.Errorf("%s %s: %w: %w", r.Op, r.Name+r.Path, ErrSilent, context.Cause(ctx))
	}
}

// Ping asks the guest's init whether it is there, and returns how long that took.
func (m *Machine) Ping(ctx context.Context) (time.Duration, error) {
	start := time.Now()
	_, err := m.control.do(ctx, agent.Request{Op: agent.Ping})
	return time.Since(start), err
}

// Silent reports whether the guest's init, an ordinary process, says nothing
// for so long.
func (m *Machine) Silent(ctx context.Context, d time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	_, err := m.Ping(ctx)
	return errors.Is(err, ErrSilent)
}

// execTimeout is the time that the guest gives to a command, unless ctx gives
// more; it may also give less.
const execTimeout = 2 * time.Minute

// Exec runs a command in the guest, to its end, and returns what it printed on
// standard output and standard error, and its exit code.
func (m *Machine) Exec(ctx context.Context, stdin []byte, args ...string) (out string, code int, err error) {
	timeout := execTimeout
	if end, ok := ctx.Deadline(); ok {
		timeout = max(timeout, time.Until(end))
	}
	a, err := m.control.do(ctx, agent.Request{Op: agent.Exec, Args: args, Data: stdin, Timeout: timeout})
	return string(a.Data), a.Code, err
}

// Run is Exec for a command that is to succeed.
func (m *Machine) Run(ctx context.Context, args ...string) (string, error) {
	out, code, err := m.Exec(ctx, nil, args...)
	if err == nil && code != 0 {
		err = fmt.Errorf("%v: exit code %d: %s", args, code, out)
	}
	return out, err
}

// Start starts a command in the guest and lets it run under a name. Its output
// goes to the file agent.LogPath(name).
func (m *Machine) Start(ctx context.Context, name string, args ...string) (pid int, err error) {
	a, err := m.control.do(ctx, agent.Request{Op: agent.Start, Name: name, Args: args})
	return a.PID, err
}

// WaitFor waits for the end of a process that was started, and returns its exit
// code: 128 and the number of the signal for one that was killed.
func (m *Machine) WaitFor(ctx context.Context, name string) (code int, err error) {
	a, err := m.control.do(ctx, agent.Request{Op: agent.Wait, Name: name})
	return a.Code, err
}

// Signal sends a signal to a process that was started.
func (m *Machine) Signal(ctx context.Context, name string, s syscall.Signal) error {
	_, err := m.control.do(ctx, agent.Request{Op: agent.Signal, Name: name, Signal: int(s)})
	return err
}

// ReadFile returns a file of the guest.
func (m *Machine) ReadFile(ctx context.Context, path string) ([]byte, error) {
	var content []byte
	for {
		a, err := m.control.do(ctx, agent.Request{Op: agent.Read, Path: path, Offset: int64(len(content))})
		content = append(content, a.Data...)
		if err != nil || len(a.Data) < agent.Chunk {
			return content, err
		}
	}
}

// WriteFile writes a file in the guest. It is for small ones; large ones belong
// into the Tree.
func (m *Machine) WriteFile(ctx context.Context, path string, mode uint32, content []byte) error {
	for at := 0; at == 0 || at < len(content); at += agent.Chunk {
		part := content[at:min(at+agent.Chunk, len(content))]
		_, err := m.control.do(ctx, agent.Request{Op: agent.Write, Path: path, Offset: int64(at), Data: part, Mode: mode})
		if err != nil {
			return err
		}
	}
	return nil
}

// Processes returns every process of the guest.
func (m *Machine) Processes(ctx context.Context) ([]agent.Process, error) {
	a, err := m.control.do(ctx, agent.Request{Op: agent.Processes})
	return a.Processes, err
}

// Freeze stops every process of the guest but its init.
func (m *Machine) Freeze(ctx context.Context) (stopped int, err error) {
	a, err := m.control.do(ctx, agent.Request{Op: agent.Freeze})
	return a.PID, err
}

// Thaw lets them go on.
func (m *Machine) Thaw(ctx context.Context) error {
	_, err := m.control.do(ctx, agent.Request{Op: agent.Thaw})
	return err
}

// Clocks returns the guest's clocks.
func (m *Machine) Clocks(ctx context.Context) (agent.ClockValues, error) {
	a, err := m.control.do(ctx, agent.Request{Op: agent.Clocks})
	if err != nil {
		return agent.ClockValues{}, err
	}
	return *a.Clocks, nil
}

// SetClock sets the guest's CLOCK_REALTIME, given since 1970, unless it is 0, and
// whether adjtimex(2) calls it synchronised.
func (m *Machine) SetClock(ctx context.Context, real time.Duration, synchronised bool) error {
	_, err := m.control.do(ctx, agent.Request{Op: agent.SetClock, Real: real, Synchronised: synchronised})
	return err
}
