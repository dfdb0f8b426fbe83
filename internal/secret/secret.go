// SPDX-License-Identifier: GPL-2.0-only

// Package secret reads and writes files that hold keys.
package secret

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// ErrExposed is wrapped when a file could be read or changed by others.
var ErrExposed = errors.New("others can read or change it")

// maxSize bounds what is read: every file of keys is far smaller.
const maxSize = 64 << 10

// ReadFile reads a regular file that belongs to root or the caller and that
// others have no access to. Members of group may read it; -1 is no group.
func ReadFile(path string, group int) ([]byte, error) {
	// O_NONBLOCK keeps a FIFO in the file's place from blocking the caller.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := private(info, group); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err == nil && len(b) > maxSize {
		err = fmt.Errorf("%s: larger than %d bytes: not a key file", path, maxSize)
	}
	return b, err
}

func private(info fs.FileInfo, group int) error {
	if !info.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	st := info.Sys().(*syscall.Stat_t)
	if int(st.Uid) != os.Geteuid() && st.Uid != 0 {
		return fmt.Errorf("%w: it belongs to uid %d", ErrExposed, st.Uid)
	}
	open, mend := info.Mode().Perm()&0o077, "chmod 600"
	if group >= 0 {
		if int(st.Gid) == group {
			open &^= 0o040
		}
		mend = fmt.Sprintf("chgrp %d and chmod 640", group)
	}
	if open != 0 {
		return fmt.Errorf("%w: mode %04o; run %s on it", ErrExposed, info.Mode().Perm(), mend)
	}
	return nil
}

// WriteFile creates path with the given content, owner group (-1: the
// caller's) and mode, so that at every moment it is absent or whole. It fails
// with fs.ErrExist if path is there already.
func WriteFile(path string, data []byte, group int, mode fs.FileMode) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".netsysrq-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		f.Close()
		os.Remove(f.Name())
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if group >= 0 {
		if err := f.Chown(-1, group); err != nil {
			return err
		}
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	// A link, unlike a rename, never replaces.
	if err := os.Link(f.Name(), path); err != nil {
		return err
	}
	// The file is there now; that its name survives a crash is tried for.
	if d, err := os.Open(dir); err == nil {
		d.Sync()
		d.Close()
	}
	return nil
}
