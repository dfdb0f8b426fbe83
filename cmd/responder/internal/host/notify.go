// SPDX-License-Identifier: GPL-2.0-only

package host

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Notifier tells the service manager how things are (sd_notify(3)). It never
// waits: a manager that hangs is a reason why the daemon is needed.
type Notifier struct {
	socket  int
	manager unix.Sockaddr
	kept    []string // what it had no room for, oldest first
}

// maxKept is more than a manager that listens at all is ever told at once.
const maxKept = 16

// alive is the message that is of no use later.
const alive = "WATCHDOG=1"

// ErrNoManager is returned where no service manager wants to be told anything.
var ErrNoManager = errors.New("NOTIFY_SOCKET is not set; a unit runs this")

// NewNotifier finds the service manager, which needs no privilege later.
func NewNotifier() (*Notifier, error) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil, ErrNoManager
	}
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	// A leading @ stands for the abstract namespace, there as here.
	return &Notifier{socket: socket, manager: &unix.SockaddrUnix{Name: path}}, nil
}

// Tell sends one message of these lines. It fails with EAGAIN if the manager has
// too many to read already: the message is kept, unless it is WATCHDOG=1, and goes
// ahead of the next one. A nil Notifier tells nobody.
func (n *Notifier) Tell(lines ...string) error {
	if n == nil {
		return nil
	}
	message := strings.Join(lines, "\n")
	n.kept = append(n.kept, message)
	for len(n.kept) > 0 {
		if err := unix.Sendmsg(n.socket, []byte(n.kept[0]), nil, n.manager, unix.MSG_DONTWAIT); err != nil {
			if message == alive {
				n.kept = n.kept[:len(n.kept)-1]
			}
			n.kept = n.kept[max(0, len(n.kept)-maxKept):]
			return err
		}
		n.kept = n.kept[1:]
	}
	return nil
}

// Close closes the socket.
func (n *Notifier) Close() {
	if n != nil {
		unix.Close(n.socket)
	}
}

// message is one to the service manager, with the files that go with it.
type message struct {
	state  string
	rights []byte
}

// notify sends messages of which none may be lost, and waits until they are
// taken.
func notify(messages ...message) error {
	n, err := NewNotifier()
	if err != nil {
		return err
	}
	defer n.Close()
	for _, m := range messages {
		if err := unix.Sendmsg(n.socket, []byte(m.state), m.rights, n.manager, 0); err != nil {
			return err
		}
	}
	return nil
}
