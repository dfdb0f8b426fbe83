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
}

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
	return &Notifier{socket, &unix.SockaddrUnix{Name: path}}, nil
}

// Tell sends one message of these lines. It fails with EAGAIN if the manager has
// too many to read already. A nil Notifier tells nobody.
func (n *Notifier) Tell(lines ...string) error {
	if n == nil {
		return nil
	}
	return unix.Sendmsg(n.socket, []byte(strings.Join(lines, "\n")), nil, n.manager, unix.MSG_DONTWAIT)
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
