// SPDX-License-Identifier: GPL-2.0-only

package keyring

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"netsysrq/auth"
	"netsysrq/cmd/responder/internal/hint"
	"netsysrq/internal/secret"
)

// Addition is a key to be added.
type Addition struct {
	Enrolment *auth.Enrolment
	Operator  string      // the operator's name on this host; "": as in the enrolment
	Allow     auth.KeySet // 0: as the enrolment proposes
	MachineID string
	Now       time.Time
}

// Add writes the file of a new key, readable by gid (-1: by nobody but the
// owner), and returns the key. It never changes a file that is there.
func Add(dir string, a Addition, gid int) (Key, error) {
	e := a.Enrolment
	k := Key{Operator: e.Operator, Host: e.Host, Allow: e.Allow, Key: e.Key, MachineID: a.MachineID, Added: a.Now}
	if a.Operator != "" {
		k.Operator = a.Operator
	}
	if err := checkName(k.Operator); err != nil {
		return Key{}, hint.Add(fmt.Errorf("operator: %w", err),
			"give a name for this host: netsysrqd keys add OPERATOR")
	}
	if a.Allow != 0 {
		k.Allow = a.Allow
	}
	if err := makeDir(dir, gid); err != nil {
		return Key{}, fmt.Errorf("keys: %w", err)
	}
	entries, err := List(dir, a.MachineID, gid)
	if err != nil {
		return Key{}, err
	}
	if err := room(entries, &k); err != nil {
		return Key{}, err
	}
	k.Path = filepath.Join(dir, fileName(k.Operator, k.Key.ID))
	mode := fs.FileMode(0o640)
	if gid < 0 {
		mode = 0o600
	}
	if err := secret.WriteFile(k.Path, format(&k), gid, mode); err != nil {
		return Key{}, fmt.Errorf("write key: %w", err)
	}
	return k, nil
}

// room reports why k does not fit beside the keys that are there.
func room(entries []Entry, k *Key) error {
	var mine []string
	alive := 0
	for _, e := range entries {
		if e.Key.Key.ID == k.Key.ID {
			return hint.Add(fmt.Errorf("key %v is here already, in %s", k.Key.ID, e.Key.Path),
				fmt.Sprintf("an enrolment line is used once; to read it again, first run: netsysrqd keys remove %v", k.Key.ID))
		}
		if errors.Is(e.Problem, ErrMachine) {
			continue
		}
		alive++
		if e.Key.Operator == k.Operator {
			mine = append(mine, e.Key.Key.ID.String())
		}
	}
	if len(mine) >= MaxPerOperator {
		return hint.Add(fmt.Errorf("%s has %d keys on this host already: %s", k.Operator, len(mine), strings.Join(mine, ", ")),
			"remove the one that is out of use: netsysrqd keys remove "+oldest(entries, k.Operator))
	}
	if alive >= MaxKeys {
		return hint.Add(fmt.Errorf("this host has %d keys already, more are not possible", alive),
			"netsysrqd keys list shows them")
	}
	return nil
}

func oldest(entries []Entry, operator string) (id string) {
	var since time.Time
	for _, e := range entries {
		if e.Key.Operator != operator || errors.Is(e.Problem, ErrMachine) {
			continue
		}
		if id == "" || e.Key.Added.Before(since) {
			id, since = e.Key.Key.ID.String(), e.Key.Added
		}
	}
	return id
}

func makeDir(dir string, gid int) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if gid < 0 {
		return nil
	}
	if err := os.Chown(dir, -1, gid); err != nil {
		return err
	}
	return os.Chmod(dir, 0o750)
}

// contents is the key in a file, whoever may read it, or else what the file's
// name says.
func contents(path string) Key {
	data, err := os.ReadFile(path)
	if err != nil {
		return fromName(path)
	}
	k, err := parse(data)
	if err != nil {
		return fromName(path)
	}
	k.Path = path
	return k
}

func named(k Key, id string) bool {
	return k.Key.ID.String() == id && k.Key.ID != (auth.KeyID{})
}

// Remove deletes the file of a key, named by its id or, where that is clear,
// by its operator. Broken files and those of other machines can be removed too.
func Remove(dir, name string) (Key, error) {
	entries, err := List(dir, "", -1)
	if err != nil {
		return Key{}, err
	}
	var found []Key
	for _, e := range entries {
		// What the file says counts and what its name says, so that what
		// cannot be read can go, and what was renamed.
		byName, said := fromName(e.Key.Path), contents(e.Key.Path)
		if named(byName, name) || named(said, name) {
			found = []Key{said}
			break
		}
		if byName.Operator == name || said.Operator == name {
			found = append(found, said)
		}
	}
	switch len(found) {
	case 0:
		return Key{}, hint.Add(fmt.Errorf("no key named %q in %s", name, dir), "netsysrqd keys list shows what is there")
	case 1:
		k := found[0]
		if err := os.Remove(k.Path); err != nil {
			return Key{}, fmt.Errorf("remove key: %w", err)
		}
		return k, nil
	}
	var ids []string
	for _, k := range found {
		ids = append(ids, k.Key.ID.String())
	}
	return Key{}, hint.Add(fmt.Errorf("%s has %d keys: %s", name, len(ids), strings.Join(ids, ", ")),
		"say which: netsysrqd keys remove "+ids[0])
}
