// SPDX-License-Identifier: GPL-2.0-only

// Package drills remembers when the last successful drill of each host was, and
// with which key: another key proves nothing of this one. The file begins with
// its version; then a line is a date, the name of a host and the id of a key:
//
//	netsysrq-drills-2
//	2026-01-31T04:05:06Z web1 600e2d5a91c4b7f3
//
// Version 1 has neither the first line nor keys, so its drills count for none.
package drills

import (
	"bytes"
	"cmp"
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

const version = "netsysrq-drills-2"

// Drill is what a drill proved: that a host obeys a key.
type Drill struct {
	Host string
	Key  auth.KeyID
}

// Dates are when the last successful drills were.
type Dates map[Drill]time.Time

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
	d, n, err := parse(string(data))
	if err != nil {
		return nil, fmt.Errorf("read the record of drills: %s:%d: %w", path, n, err)
	}
	return d, nil
}

// parse reads a file; n is the line of an error.
func parse(text string) (d Dates, n int, err error) {
	d = Dates{}
	begun, old := false, false
	for line := range strings.Lines(text) {
		n++
		f := strings.Fields(line)
		if len(f) == 0 || f[0][0] == '#' {
			continue
		}
		if !begun {
			begun, old = true, len(f) == 2
			if !old && line != version+"\n" {
				return nil, n, fmt.Errorf("not %s: another file, or that of a newer netsysrq", version)
			}
			if !old {
				continue
			}
		}
		if old {
			f = append(f, (auth.KeyID{}).String())
		}
		drill, at, err := parseLine(f)
		if err != nil {
			return nil, n, errors.New("not a date, the name of a host and the id of a key")
		}
		if !old {
			d[drill] = at
		}
	}
	return d, n, nil
}

func parseLine(f []string) (d Drill, at time.Time, err error) {
	if len(f) != 3 {
		return d, at, errors.New("not three words")
	}
	at, err = time.Parse(time.RFC3339, f[0])
	if err == nil {
		d.Host, err = auth.NormalizeHost(f[1])
	}
	if err == nil {
		d.Key, err = auth.ParseKeyID(f[2])
	}
	return d, at, err
}

// Record adds drills that were successful at a time. Others may do so at the
// same moment.
func Record(path string, proved []Drill, at time.Time) error {
	if err := record(path, proved, at); err != nil {
		return fmt.Errorf("write the record of drills: %w", err)
	}
	return nil
}

func record(path string, proved []Drill, at time.Time) error {
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
	for _, p := range proved {
		d[p] = at
	}
	var b bytes.Buffer
	fmt.Fprintln(&b, version)
	for _, p := range slices.SortedFunc(maps.Keys(d), compare) {
		fmt.Fprintf(&b, "%s %s %v\n", d[p].UTC().Format(time.RFC3339), p.Host, p.Key)
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

func compare(a, b Drill) int {
	return cmp.Or(strings.Compare(a.Host, b.Host), bytes.Compare(a.Key[:], b.Key[:]))
}
