// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"netsysrq/internal/vm/agent"
)

// channel is the control channel: a serial port with a JSON object a line.
type channel struct {
	tty *os.File
	in  *bufio.Scanner
	mu  sync.Mutex // one line at a time
}

// openChannel opens a serial port that changes nothing on its way.
func openChannel(path string) (*channel, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	raw := unix.Termios{Cflag: unix.CS8 | unix.CREAD | unix.CLOCAL | unix.B115200, Ispeed: unix.B115200, Ospeed: unix.B115200}
	raw.Cc[unix.VMIN] = 1
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &raw); err != nil {
		return nil, fmt.Errorf("set %s up: %w", path, err)
	}
	return newChannel(os.NewFile(uintptr(fd), path)), nil
}

func newChannel(tty *os.File) *channel {
	c := &channel{tty: tty, in: bufio.NewScanner(tty)}
	c.in.Buffer(nil, 1<<20)
	return c
}

func (c *channel) send(r agent.Response) {
	b, err := json.Marshal(r)
	if err != nil {
		fmt.Println("init:", err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.tty.Write(append(b, '\n')); err != nil {
		fmt.Println("init:", err)
	}
}

// receive returns the next request that can be read.
func (c *channel) receive() (r agent.Request, ok bool) {
	for c.in.Scan() {
		r = agent.Request{}
		err := json.Unmarshal(c.in.Bytes(), &r)
		if err == nil {
			return r, true
		}
		fmt.Printf("init: request %.80q: %v\n", c.in.Bytes(), err)
	}
	return r, false
}
