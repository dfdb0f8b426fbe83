// SPDX-License-Identifier: GPL-2.0-only

package host

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Names under which the service manager keeps what only root may open, for a
// daemon that it starts as an ordinary user (sd_listen_fds_with_names(3)).
const (
	TriggerFile    = "trigger"
	KmsgFile       = "kmsg"
	StatisticsFile = "queues"
	Answer4        = "answer4"
	Answer6        = "answer6"
)

// firstInherited is SD_LISTEN_FDS_START.
const firstInherited = 3

// Inherited are the files that the service manager handed to this process, by
// name. Each is good for one taker.
type Inherited map[string]int

// Inherit takes what was handed over, and forgets that it was, so that no
// child believes it was meant for it.
func Inherit() Inherited {
	in := Inherited{}
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	mine := os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid())
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	for _, v := range []string{"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"} {
		os.Unsetenv(v)
	}
	if err != nil || !mine {
		return in
	}
	for i := range n {
		fd := firstInherited + i
		unix.CloseOnExec(fd)
		if i < len(names) {
			in[names[i]] = fd
		}
	}
	return in
}

// Open returns the file of a name that was handed over, or else opens the path.
func (in Inherited) Open(name, path string, flags int) (fd int, err error) {
	if fd, ok := in.take(name); ok {
		return fd, nil
	}
	if fd, err = unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

func (in Inherited) take(name string) (fd int, ok bool) {
	fd, ok = in[name]
	delete(in, name)
	return fd, ok
}

// HandOver gives the service manager a file to keep for the daemon, in place
// of the one that it has under this name (sd_pid_notify_with_fds(3)).
func HandOver(name string, fd int) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return errors.New("no service manager to hand files to: NOTIFY_SOCKET is not set; a unit runs this")
	}
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("connect to the service manager: %w", err)
	}
	defer unix.Close(socket)
	// A leading @ stands for the abstract namespace, there as here.
	manager := &unix.SockaddrUnix{Name: path}
	for _, m := range []struct {
		state  string
		rights []byte
	}{
		{"FDSTOREREMOVE=1\nFDNAME=" + name, nil},
		// FDPOLL=0: that a file of /proc is readable is no news.
		{"FDSTORE=1\nFDPOLL=0\nFDNAME=" + name, unix.UnixRights(fd)},
	} {
		if err := unix.Sendmsg(socket, []byte(m.state), m.rights, manager, 0); err != nil {
			return fmt.Errorf("hand %s to the service manager: %w", name, err)
		}
	}
	return nil
}
