// SPDX-License-Identifier: GPL-2.0-only

package host

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Names under which the service manager keeps what only root may open, for a
// daemon that it starts as an ordinary user (sd_listen_fds_with_names(3)).
const (
	TriggerFile    = "trigger"
	KmsgFile       = "kmsg"
	LogFile        = "log" // the same file, at a position of its own
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
	err := notify(
		message{"FDSTOREREMOVE=1\nFDNAME=" + name, nil},
		// FDPOLL=0: that a file of /proc is readable is no news.
		message{"FDSTORE=1\nFDPOLL=0\nFDNAME=" + name, unix.UnixRights(fd)},
	)
	if err != nil {
		return fmt.Errorf("hand %s to the service manager: %w", name, err)
	}
	return nil
}

// takeBackWait is how long the service manager may take.
const takeBackWait = 5 * time.Second

// TakeBack has the service manager close what it keeps under these names, and
// waits until that is done (sd_notify_barrier(3)).
func TakeBack(names ...string) error {
	var messages []message
	for _, name := range names {
		messages = append(messages, message{"FDSTOREREMOVE=1\nFDNAME=" + name, nil})
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("wait for the service manager: %w", err)
	}
	defer unix.Close(pipe[0])
	err := notify(append(messages, message{"BARRIER=1", unix.UnixRights(pipe[1])})...)
	unix.Close(pipe[1])
	if err != nil {
		return fmt.Errorf("take %s back from the service manager: %w", strings.Join(names, ", "), err)
	}
	// It closes its end when it has come to this message.
	end := time.Now().Add(takeBackWait)
	for {
		left := int(time.Until(end).Milliseconds())
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pipe[0])}}, max(left, 0))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("wait for the service manager: %w", err)
		case n == 0:
			return fmt.Errorf("the service manager does not give %s back within %v", strings.Join(names, ", "), takeBackWait)
		default:
			return nil
		}
	}
}
