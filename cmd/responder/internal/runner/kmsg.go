// SPDX-License-Identifier: GPL-2.0-only

package runner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// completions are what the kernel logs when the work of a step is done
// (fs/sync.c, fs/super.c).
var completions = map[byte][]byte{
	's': []byte("Emergency Sync complete"),
	'u': []byte("Emergency Remount complete"),
}

// pollEvery is how often the kernel log is looked at while a step is waited
// for. /dev/kmsg could be polled, a plain file in its place could not.
const pollEvery = 5 * time.Millisecond

// Kmsg reads the kernel log: /dev/kmsg or a file of the same format
// (Documentation/ABI/testing/dev-kmsg).
type Kmsg struct {
	fd   int // not an os.File, whose poller a plain file could not join
	path string
	buf  [8192]byte
	// part is what came after the last whole line of a plain file.
	part []byte
}

// NewKmsg reads the log from a file that is open, without waiting (O_NONBLOCK),
// from now on. The path is for messages.
func NewKmsg(fd int, path string) (*Kmsg, error) {
	k := &Kmsg{fd: fd, path: path}
	if err := k.skip(); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return k, nil
}

// Close closes the log.
func (k *Kmsg) Close() error { return unix.Close(k.fd) }

// skip goes to the end of the log.
func (k *Kmsg) skip() error {
	k.part = k.part[:0]
	if _, err := unix.Seek(k.fd, 0, unix.SEEK_END); err != nil {
		return fmt.Errorf("seek to the end of %s: %w", k.path, err)
	}
	return nil
}

// await reads on until a record of the kernel itself says text. It
// reports false when the context ends first.
func (k *Kmsg) await(ctx context.Context, text []byte) (bool, error) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		found, err := k.scan(text)
		if found || err != nil {
			return found, err
		}
		select {
		case <-ctx.Done():
			return false, nil
		case <-tick.C:
		}
	}
}

// maxRecords bounds the work of one look at the log.
const maxRecords = 200

func (k *Kmsg) scan(text []byte) (bool, error) {
	for range maxRecords {
		n, err := unix.Read(k.fd, k.buf[:])
		switch {
		case errors.Is(err, unix.EPIPE):
			continue // records were overwritten before they were read; go on with the oldest
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN) || err == nil && n == 0:
			return false, nil
		case err != nil:
			return false, fmt.Errorf("read %s: %w", k.path, err)
		}
		k.part = append(k.part, k.buf[:n]...)
		for {
			line, rest, whole := bytes.Cut(k.part, []byte("\n"))
			if !whole {
				break
			}
			if fromKernel(line) && says(line, text) {
				k.part = k.part[:0]
				return true, nil
			}
			k.part = rest
		}
	}
	return false, nil
}

// says reports whether a record's whole message is text: a device may bring a
// name that contains it.
func says(record, text []byte) bool {
	_, message, ok := bytes.Cut(record, []byte(";"))
	return ok && bytes.Equal(message, text)
}

// fromKernel reports whether a record has facility 0. Any process that may
// write /dev/kmsg can put the text there, but never with facility 0.
func fromKernel(record []byte) bool {
	prio, _, ok := bytes.Cut(record, []byte(","))
	if !ok {
		return false
	}
	n, err := strconv.Atoi(string(prio))
	return err == nil && n>>3 == 0
}
