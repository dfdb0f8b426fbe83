// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// hogs are what this program is when it is not init. None of them ends by
// itself.
var hogs = map[string]func(args []string) error{
	"fifo":         hogCPUs,
	"memory-hold":  holdMemory,
	"memory-fight": fightForMemory,
	"memory-eat":   eatMemory,
	"conntrack":    hogConntrack,
	"write":        writeForEver,
}

// hogCPUs takes every CPU at the same moment, so that the first to spin does not
// keep the next from starting.
func hogCPUs([]string) error {
	at := time.Now().Add(time.Second)
	failed := make(chan error)
	for cpu := range runtime.NumCPU() {
		go func() { failed <- spinAt(cpu, at) }()
	}
	return <-failed
}

func spinAt(cpu int, at time.Time) error {
	runtime.LockOSThread()
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("stay on CPU %d: %w", cpu, err)
	}
	fifo := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 99}
	if err := unix.SchedSetAttr(0, &fifo, 0); err != nil {
		return fmt.Errorf("become real-time: %w", err)
	}
	left := unix.NsecToTimespec(time.Until(at).Nanoseconds())
	// The thread itself sleeps: Go's own timers belong to other threads.
	if err := unix.Nanosleep(&left, nil); err != nil {
		return err
	}
	for spun := uint64(0); ; spun++ {
	}
}

// available is the memory that is left, in KiB.
func available() (uint64, error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(b) {
		f := bytes.Fields(line)
		if len(f) > 1 && string(f[0]) == "MemAvailable:" {
			return strconv.ParseUint(string(f[1]), 10, 64)
		}
	}
	return 0, fmt.Errorf("/proc/meminfo says nothing of memory that is left")
}

func setOOM(score string) error {
	return os.WriteFile("/proc/self/oom_score_adj", []byte(score), 0)
}

// eat takes so much memory and uses it.
func eat(size int) error {
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	return nil
}

// keepKiB is what holdMemory leaves for others to fight for.
const keepKiB = 20 << 10

// holdMemory takes what there is and cannot be ended for it.
func holdMemory([]string) error {
	if err := setOOM("-1000"); err != nil {
		return err
	}
	time.Sleep(time.Second)
	for {
		left, err := available()
		if err != nil {
			return err
		}
		if left <= keepKiB {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		if err := eat(int(min(left-keepKiB, 8<<10)) << 10); err != nil {
			return err
		}
	}
}

// fightForMemory has a child that takes more than there is, and another when
// that was ended for it.
func fightForMemory([]string) error {
	if err := setOOM("-1000"); err != nil {
		return err
	}
	time.Sleep(2 * time.Second)
	for {
		// What fails for want of memory is tried again.
		if exec.Command(self, "memory-eat").Run() != nil {
			time.Sleep(5 * time.Millisecond)
		}
	}
}

func eatMemory([]string) error {
	if err := setOOM("1000"); err != nil {
		return err
	}
	for {
		if err := eat(1 << 20); err != nil {
			return err
		}
	}
}

// tracked is how many connections fill the table.
const tracked = 64

// hogConntrack keeps connections over loopback, and makes the table just as
// large as they are. Established ones are never evicted.
func hogConntrack([]string) error {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go io.Copy(io.Discard, c)
		}
	}()
	var keep []net.Conn
	for range tracked {
		c, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			return err
		}
		if _, err := c.Write([]byte("x")); err != nil {
			return err
		}
		keep = append(keep, c)
	}
	err = os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_max", []byte(strconv.Itoa(tracked)), 0)
	if err != nil {
		return err
	}
	time.Sleep(time.Hour)
	runtime.KeepAlive(keep)
	return nil
}

// writeForEver writes to a file and to the disk, again and again.
func writeForEver(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("say where")
	}
	f, err := os.Create(args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	block := bytes.Repeat([]byte("netsysrq"), 1024)
	for n := int64(0); ; n++ {
		if _, err := f.WriteAt(block, n%64*int64(len(block))); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
	}
}
