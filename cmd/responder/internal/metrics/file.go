// SPDX-License-Identifier: GPL-2.0-only

package metrics

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// File is a file that always holds all of the newest text. It is written by a
// goroutine of its own: whoever has news never waits for a disk that may hang.
type File struct {
	path string
	log  *slog.Logger
	next chan []byte
}

// NewFile starts that goroutine.
func NewFile(path string, log *slog.Logger) *File {
	f := &File{path: path, log: log, next: make(chan []byte, 1)}
	go f.run()
	return f
}

// Put has the file written. A text that still waits to be written is dropped for
// this one. It is not safe for concurrent use.
func (f *File) Put(text []byte) {
	select {
	case <-f.next:
	default:
	}
	f.next <- text // nobody else puts anything there
}

// Close ends the goroutine once it has written what waits.
func (f *File) Close() { close(f.next) }

func (f *File) run() {
	failing := false
	for text := range f.next {
		err := replace(f.path, text)
		if err != nil && !failing {
			f.log.Warn("metrics not written", "file", f.path, "err", err)
		}
		failing = err != nil
	}
}

// replace puts a new file in the place of the old one. Anyone may read it, and
// nobody sees half of it.
func replace(path string, text []byte) error {
	// node_exporter reads no file with such a name.
	draft := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := write(draft, text); err != nil {
		os.Remove(draft)
		return err
	}
	if err := os.Rename(draft, path); err != nil {
		return fmt.Errorf("replace: %w", err)
	}
	return nil
}

func write(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Chmod(0o644) // whatever the umask is
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
