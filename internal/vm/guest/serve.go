// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"netsysrq/internal/vm/agent"
)

// server does what requests ask for, each on its own.
type server struct {
	channel   *channel
	processes *processes
}

func newServer(c *channel) *server { return &server{c, newProcesses()} }

func (s *server) serve() {
	for {
		r, ok := s.channel.receive()
		if !ok {
			return
		}
		go func() {
			var a agent.Response
			if err := s.do(&r, &a); err != nil {
				a.Error = err.Error()
			}
			a.ID = r.ID
			s.channel.send(a)
		}()
	}
}

func (s *server) do(r *agent.Request, a *agent.Response) (err error) {
	switch r.Op {
	case agent.Ping:
	case agent.Exec:
		a.Data, a.Code, err = s.processes.exec(r.Timeout, r.Data, r.Args)
	case agent.Start:
		a.PID, err = s.processes.start(r.Name, r.Args)
	case agent.Wait:
		a.Code, err = s.processes.wait(r.Name, r.Timeout)
	case agent.Signal:
		pid := r.PID
		if r.Name != "" {
			if pid, err = s.processes.pid(r.Name); err != nil {
				return err
			}
		}
		err = unix.Kill(pid, syscall.Signal(r.Signal))
	case agent.Read:
		a.Data, err = readChunk(r.Path, r.Offset)
	case agent.Write:
		err = writeChunk(r.Path, r.Offset, r.Data, r.Mode)
	case agent.Processes:
		a.Processes, err = allProcesses()
	case agent.Freeze:
		if err := freezeInit(true); err != nil {
			return err
		}
		a.PID, err = signalAll(unix.SIGSTOP)
	case agent.Thaw:
		if err := freezeInit(false); err != nil {
			return err
		}
		_, err = signalAll(unix.SIGCONT)
	case agent.Clocks:
		a.Clocks, err = readClocks()
	case agent.SetClock:
		err = setClock(r.Real, r.Synchronised)
	case agent.Hang:
		err = s.hang(r.Name, r.Args)
	default:
		err = fmt.Errorf("unknown operation %q", r.Op)
	}
	return err
}

func readChunk(path string, offset int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// Files of /proc say nothing of their size and cannot all be read at an
	// offset, so that what comes before is read too.
	if _, err := io.CopyN(io.Discard, f, offset); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	b := make([]byte, agent.Chunk)
	n, err := io.ReadFull(f, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return b[:n], err
}

func writeChunk(path string, offset int64, data []byte, mode uint32) error {
	flags := os.O_WRONLY
	if offset == 0 {
		// Files of /proc and /sys are there already and cannot be truncated
		// in all kernels.
		if !exists(path) {
			flags |= os.O_CREATE
		} else if info, err := os.Stat(path); err == nil && info.Size() > 0 && info.Mode().IsRegular() {
			flags |= os.O_TRUNC
		}
	}
	f, err := os.OpenFile(path, flags, os.FileMode(mode))
	if err != nil {
		return err
	}
	defer f.Close()
	if offset > 0 {
		_, err = f.WriteAt(data, offset)
	} else {
		_, err = f.Write(data)
	}
	return err
}
