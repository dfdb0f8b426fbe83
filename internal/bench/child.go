// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"netsysrq/internal/flood"
)

// The program runs itself as these.
const (
	synchronisedChild = "child-synchronised" // PRIORITY COMMAND ARG...
	floodChild        = "child-flood"        // a junk as JSON; ends with its standard input
)

// child runs what the name says and does not return, unless it is no child's.
func child(name string, args []string) {
	var err error
	switch name {
	case synchronisedChild:
		err = becomeSynchronised(args)
	case floodChild:
		err = pour(args)
	default:
		return
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %s: %v\n", name, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// becomeSynchronised becomes a command for which adjtimex(2) always returns 0,
// TIME_OK: without a disciplined clock the daemon would take no one-packet
// request, and the clock of a machine that tests run on often is not. Nothing
// else differs, and the clock itself is the real one. The build with the tag
// testclock would not do: it opens and reads a file for each packet.
func becomeSynchronised(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("a priority and a command are missing")
	}
	priority, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	path, err := exec.LookPath(args[1])
	if err != nil {
		return err
	}
	runtime.LockOSThread() // filter, scheduling and execve belong to the thread
	if priority > 0 {
		if err := realtime(priority); err != nil {
			return err
		}
	}
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // struct seccomp_data: nr
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_ADJTIMEX, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO}, // errno 0
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return os.NewSyscallError("seccomp", errno)
	}
	return syscall.Exec(path, args[1:], os.Environ())
}

// realtime gives the calling thread SCHED_FIFO.
func realtime(priority int) error {
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: uint32(priority)}
	return os.NewSyscallError("sched_setattr", unix.SchedSetAttr(0, &attr, 0))
}

// pour makes a flood until it is over or standard input ends, and prints what
// was sent.
func pour(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("one argument is needed")
	}
	var j junk
	if err := json.Unmarshal([]byte(args[0]), &j); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	here := func(fn func() error) error { return fn() }
	sent, err := flood.Spoofed(ctx, here, j.Wire, j.Load)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(sent)
}
