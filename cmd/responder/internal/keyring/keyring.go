// SPDX-License-Identifier: GPL-2.0-only

// Package keyring keeps the host keys of this host, one file each.
//
// A key belongs to one operator and works on one machine: the file records the
// machine id, so that the clone of a disk image does not answer for its twin.
package keyring

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"netsysrq/auth"
	"netsysrq/cmd/responder/internal/hint"
	"netsysrq/internal/secret"
)

// Limits of a keyring.
const (
	MaxKeys        = 16 // the kernel module has as many slots
	MaxPerOperator = 2  // the key in use and its successor
)

// Key is a host key with what this host knows about it.
type Key struct {
	Operator  string      // the operator's name on this host
	Host      string      // the name that the operator calls this host by
	Allow     auth.KeySet // SysRq keys that the operator may use
	Key       auth.HostKey
	Added     time.Time
	MachineID string
	Path      string
}

// Format keeps the secret halves of a key out of messages.
func (k Key) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "%s (key %v)", k.Operator, k.Key.ID) }

// LogValue keeps them out of logs.
func (k Key) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(k)) }

// Skipped is a key that does not count, and why.
type Skipped struct {
	Path, Operator, Reason string
}

// Entry is one key file. If Problem is not nil, Key holds no more than what
// the name of the file says.
type Entry struct {
	Key     Key
	Problem error
}

// ErrMachine is the problem of a key that was added on another machine.
var ErrMachine = errors.New("added on another machine")

// Load returns the keys that count on this machine. Members of gid may read
// the files; -1 is no group. Whatever else is wrong with any file is an error
// that names it: a keyring is used whole or not at all.
func Load(dir, machineID string, gid int) (keys []Key, skipped []Skipped, err error) {
	entries, err := List(dir, machineID, gid)
	if err != nil {
		return nil, nil, err
	}
	files := map[auth.KeyID]string{}
	for _, e := range entries {
		k := e.Key
		if errors.Is(e.Problem, ErrMachine) {
			skipped = append(skipped, Skipped{k.Path, k.Operator, e.Problem.Error()})
			continue
		}
		if e.Problem != nil {
			return nil, nil, e.Problem
		}
		if other, ok := files[k.Key.ID]; ok {
			return nil, nil, hint.Add(fmt.Errorf("%s and %s hold the same key, %v", other, k.Path, k.Key.ID),
				"delete one of the two files")
		}
		files[k.Key.ID] = k.Path
		keys = append(keys, k)
	}
	if len(keys) > MaxKeys {
		return nil, nil, hint.Add(fmt.Errorf("%s holds %d keys, at most %d are possible", dir, len(keys), MaxKeys),
			"remove some with: netsysrqd keys remove OPERATOR")
	}
	return keys, skipped, nil
}

// List returns every key file in the order of their names, broken ones too.
// The error is of the directory itself; a directory that is not there is empty.
func List(dir, machineID string, gid int) ([]Entry, error) {
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	if err := guarded(dir); err != nil {
		return nil, err
	}
	var entries []Entry
	for _, f := range files {
		if strings.HasPrefix(f.Name(), ".") || !strings.HasSuffix(f.Name(), suffix) {
			continue
		}
		path := filepath.Join(dir, f.Name())
		k, err := read(path, gid)
		if err == nil && k.MachineID != machineID {
			err = ErrMachine
		}
		entries = append(entries, Entry{k, err})
	}
	return entries, nil
}

// guarded makes sure that nobody but root and the caller can add keys.
func guarded(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("keys: %w", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s: %w: it belongs to another user", dir, secret.ErrExposed)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return hint.Add(fmt.Errorf("%s: %w: mode %04o", dir, secret.ErrExposed, info.Mode().Perm()),
			"chmod 0750 "+dir)
	}
	return nil
}

// MachineID reads the file that tells this machine from its clones:
// /etc/machine-id, or another that holds such a name.
func MachineID(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("machine id: %w", err)
	}
	id := strings.TrimSpace(string(data))
	if !isMachineID(id) {
		return "", hint.Add(fmt.Errorf("machine id: %s does not name this machine", path),
			"systemd-machine-id-setup makes an id")
	}
	return id, nil
}

// isMachineID refuses what a machine holds before it has an id, too.
func isMachineID(id string) bool {
	for _, c := range []byte(id) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return len(id) >= 8 && len(id) <= 64 && id != "uninitialized" && strings.Trim(id, "0-") != ""
}
