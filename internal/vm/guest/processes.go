// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"netsysrq/internal/vm/agent"
)

// processes are init's children: those that it started, and the orphans of
// others. One loop reaps them all.
type processes struct {
	mu    sync.Mutex // held from a fork until the child is in own
	own   map[int]*process
	named map[string]*process
}

// process is a child that init started.
type process struct {
	pid  int
	done chan struct{} // closed when it has ended
	code int           // then: its exit code, or 128 and the signal that killed it
}

func newProcesses() *processes {
	return &processes{own: map[int]*process{}, named: map[string]*process{}}
}

// reap ends every zombie, for ever.
func (p *processes) reap() {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		if err != nil {
			time.Sleep(10 * time.Millisecond) // no children
			continue
		}
		p.mu.Lock()
		if c := p.own[pid]; c != nil {
			delete(p.own, pid)
			c.code = status.ExitStatus()
			if status.Signaled() {
				c.code = 128 + int(status.Signal())
			}
			close(c.done)
		}
		p.mu.Unlock()
	}
}

// run starts a command, in a session of its own.
func (p *processes) run(args []string, stdin, out *os.File) (*process, error) {
	if len(args) == 0 {
		return nil, errors.New("no command")
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	child, err := os.StartProcess(path, args, &os.ProcAttr{
		Files: []*os.File{stdin, out, out},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return nil, err
	}
	c := &process{pid: child.Pid, done: make(chan struct{})}
	p.own[c.pid] = c
	return c, child.Release()
}

// exec runs a command to its end, and ends its session when the time is over.
// Its output goes through a file, so that nothing waits for what it leaves
// behind.
func (p *processes) exec(timeout time.Duration, input []byte, args []string) (output []byte, code int, err error) {
	stdin, err := memoryFile(input)
	if err != nil {
		return nil, 0, err
	}
	defer stdin.Close()
	out, err := memoryFile(nil)
	if err != nil {
		return nil, 0, err
	}
	defer out.Close()
	c, err := p.run(args, stdin, out)
	if err != nil {
		return nil, 0, err
	}
	select {
	case <-c.done:
	case <-time.After(timeout):
		p.mu.Lock()
		if p.own[c.pid] != nil {
			unix.Kill(-c.pid, unix.SIGKILL)
		}
		p.mu.Unlock()
		<-c.done
	}
	output = make([]byte, maxOutput)
	n, err := out.ReadAt(output, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return output[:n], c.code, err
}

// maxOutput bounds what is told of a command's output.
const maxOutput = 1 << 20

// memoryFile returns an unnamed file with a content, to be read from its start.
func memoryFile(content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("exec", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "exec")
	if _, err = f.Write(content); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// start starts a command under a name and does not wait for it.
func (p *processes) start(name string, args []string) (pid int, err error) {
	if name == "" {
		return 0, errors.New("no name")
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	log, err := os.OpenFile(agent.LogPath(name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	c, err := p.run(args, null, log)
	if err != nil {
		return 0, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.named[name] = c
	return c.pid, nil
}

func (p *processes) find(name string) (*process, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.named[name]; c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("nothing was started as %q", name)
}

// pid returns that of a named process that has not ended.
func (p *processes) pid(name string) (int, error) {
	c, err := p.find(name)
	if err != nil {
		return 0, err
	}
	select {
	case <-c.done:
		return 0, fmt.Errorf("%q has ended", name)
	default:
		return c.pid, nil
	}
}

func (p *processes) wait(name string, timeout time.Duration) (code int, err error) {
	c, err := p.find(name)
	if err != nil {
		return 0, err
	}
	var late <-chan time.Time
	if timeout > 0 {
		late = time.After(timeout)
	}
	select {
	case <-c.done:
		return c.code, nil
	case <-late:
		return 0, fmt.Errorf("%q runs", name)
	}
}

// allProcesses reads /proc.
func allProcesses() ([]agent.Process, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var list []agent.Process
	for _, n := range names {
		if n[0] < '0' || n[0] > '9' {
			continue
		}
		b, err := os.ReadFile("/proc/" + n + "/stat")
		if err != nil {
			continue // it has ended
		}
		if p, ok := parseStat(string(b)); ok {
			list = append(list, p)
		}
	}
	return list, nil
}

// parseStat reads /proc/PID/stat: the name is in parentheses and may hold any
// character.
func parseStat(s string) (p agent.Process, ok bool) {
	const kernelThread = 0x00200000 // PF_KTHREAD
	pid, rest, ok1 := strings.Cut(s, " (")
	end := strings.LastIndex(rest, ") ")
	if !ok1 || end < 0 {
		return p, false
	}
	f := strings.Fields(rest[end+2:])
	if len(f) < 7 {
		return p, false
	}
	var err1, err2, err3 error
	var flags uint64
	p.Name, p.State = rest[:end], f[0]
	p.PID, err1 = strconv.Atoi(pid)
	p.Parent, err2 = strconv.Atoi(f[1])
	flags, err3 = strconv.ParseUint(f[6], 10, 64)
	p.Kernel = flags&kernelThread != 0
	return p, err1 == nil && err2 == nil && err3 == nil
}

// signalAll sends a signal to every process but this one, init and kernel
// threads, and looks again until it finds none that is new. It returns how many
// got it.
func signalAll(s unix.Signal) (int, error) {
	seen := map[int]bool{}
	for {
		list, err := allProcesses()
		if err != nil {
			return len(seen), err
		}
		before := len(seen)
		for _, p := range list {
			if p.PID != 1 && p.PID != os.Getpid() && !p.Kernel && p.State != "Z" && !seen[p.PID] {
				seen[p.PID] = true
				unix.Kill(p.PID, s)
			}
		}
		if len(seen) == before {
			return len(seen), nil
		}
	}
}
