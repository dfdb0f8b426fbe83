// SPDX-License-Identifier: GPL-2.0-only

// Package drills remembers when the last successful drill of each host was. A
// line of the file is a date and the name of a host:
//
//	2026-01-31T04:05:06Z web1
package drills

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"netsysrq/auth"
)

// Dates are when the last successful drill of each host was.
type Dates map[string]time.Time

// Read returns what the file at path holds; a file that is not there holds
// nothing.
func Read(path string) (Dates, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Dates{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the record of drills: %w", err)
	}
	d := Dates{}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		date, name, _ := strings.Cut(line, " ")
		at, err := time.Parse(time.RFC3339, date)
		host, err2 := auth.NormalizeHost(name)
		if err := errors.Join(err, err2); err != nil {
			return nil, fmt.Errorf("read the record of drills: %s:%d: not a date and the name of a host", path, n)
		}
		d[host] = at
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the record of drills: %s: %w", path, err)
	}
	return d, nil
}

// Record adds drills that were successful at a time. Others may do so at the
// same moment.
func Record(path string, hosts []string, at time.Time) error {
	if err := record(path, hosts, at); err != nil {
		return fmt.Errorf("write the record of drills: %w", err)
	}
	return nil
}

func record(path string, hosts []string, at time.Time) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	// A lock of its own, since the file is replaced.
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	d, err := Read(path)
	if err != nil {
		return err
	}
	for _, h := range hosts {
		d[h] = at
	}
	var b bytes.Buffer
	for _, h := range slices.Sorted(maps.Keys(d)) {
		fmt.Fprintf(&b, "%s %s\n", d[h].UTC().Format(time.RFC3339), h)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(b.Bytes())
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
