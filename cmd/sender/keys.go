// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"golang.org/x/term"

	"netsysrq/auth"
	"netsysrq/internal/fleet/hosts"
	"netsysrq/internal/secret"
)

const masterVersion = "netsysrq-master-1"

var errMaster = errors.New("not a master key (it is what `netsysrq keygen` writes)")

// operator is who sends: a label and a master key.
type operator struct {
	label  string
	master auth.Master
}

func keyError(err error, hint string) error { return &failure{exitKey, err, hint} }

// keyring has the master keys that hosts are asked with, each read, or made
// from a passphrase, once.
type keyring struct {
	w     world
	o     *options
	typed *operator
	files map[string]loaded
}

type loaded struct {
	op  *operator
	err error
}

// openKeyring makes the key of a passphrase, if there is one. If confirm is
// set, that is typed twice: a mistyped one makes a key like any other.
func openKeyring(ctx context.Context, w world, o *options, confirm bool) (*keyring, error) {
	k := &keyring{w: w, o: o, files: map[string]loaded{}}
	if !o.passphrase && o.passphraseFD < 0 {
		return k, nil
	}
	label, err := operatorLabel(w, o)
	if err != nil {
		return nil, err
	}
	var passphrase string
	if o.passphrase {
		passphrase, err = askPassphrase(ctx, confirm)
	} else {
		passphrase, err = readPassphrase(ctx, o.passphraseFD)
	}
	if err != nil {
		return nil, err
	}
	if term.IsTerminal(int(w.stderr.Fd())) {
		w.note("making the key from the passphrase…")
	}
	m, err := auth.MasterFromPassphrase(passphrase, label)
	if err != nil {
		return nil, keyError(err, "")
	}
	k.typed = &operator{label, m}
	return k, nil
}

// of returns the master key for a host: of the passphrase, of --key, of the
// list of hosts, or the default.
func (k *keyring) of(h *hosts.Host) (*operator, error) {
	if k.typed != nil {
		return k.typed, nil
	}
	path := h.Key
	if k.o.key != "" || path == "" {
		var err error
		if path, err = masterPath(k.w, k.o); err != nil {
			return nil, err
		}
	}
	l, ok := k.files[path]
	if !ok {
		l.op, l.err = loadMaster(path)
		k.files[path] = l
	}
	return l.op, l.err
}

// operatorLabel is --operator, or else the user's name if it can be a label.
func operatorLabel(w world, o *options) (string, error) {
	if o.operator != "" {
		return o.operator, nil
	}
	label := strings.ToLower(w.getenv("USER"))
	if label == "" {
		if u, err := user.Current(); err == nil {
			label = strings.ToLower(u.Username)
		}
	}
	if err := auth.CheckLabel(label); err != nil {
		return "", usageError(fmt.Errorf("your user name is no label: %w", err), "choose one with --operator LABEL")
	}
	return label, nil
}

// masterPath is --key or its default.
func masterPath(w world, o *options) (string, error) {
	if o.key != "" {
		return o.key, nil
	}
	dir := w.userDir("XDG_CONFIG_HOME", ".config")
	if dir == "" {
		return "", keyError(errors.New("no home directory to look for the master key in"), "name the file with --key FILE")
	}
	return filepath.Join(dir, "master.key"), nil
}

// userDir is the command's directory of a kind, as the XDG specification has
// it; empty if there is no home directory either.
func (w world) userDir(variable, fallback string) string {
	dir := w.getenv(variable)
	if !filepath.IsAbs(dir) { // the specification: ignore it then
		home := w.getenv("HOME")
		if home == "" {
			return ""
		}
		dir = filepath.Join(home, fallback)
	}
	return filepath.Join(dir, "netsysrq")
}

func loadMaster(path string) (*operator, error) {
	text, err := secret.ReadFile(path, -1)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, keyError(fmt.Errorf("read master key: %w", err),
			"make one with netsysrq keygen, or use --key FILE or --passphrase")
	case errors.Is(err, secret.ErrExposed):
		return nil, keyError(fmt.Errorf("read master key: %w", err),
			"if others may have read it, make a new one and enroll every host again")
	case err != nil:
		return nil, keyError(fmt.Errorf("read master key: %w", err), "")
	}
	defer clear(text)
	op, err := parseMaster(string(text))
	if err != nil {
		return nil, keyError(fmt.Errorf("read master key: %s: %w", path, err), "name the right file with --key FILE, or make one with netsysrq keygen --key FILE")
	}
	return op, nil
}

// parseMaster reads what formatMaster wrote. No error holds any part of a key.
func parseMaster(text string) (*operator, error) {
	var line string
	for l := range strings.Lines(text) {
		l = strings.TrimSpace(l)
		if l == "" || l[0] == '#' {
			continue
		}
		if line != "" {
			return nil, fmt.Errorf("%w: it has more than one line", errMaster)
		}
		line = l
	}
	f := strings.Fields(line)
	if len(f) != 3 || f[0] != masterVersion {
		return nil, errMaster
	}
	op := &operator{label: f[1]}
	if err := auth.CheckLabel(op.label); err != nil {
		return nil, fmt.Errorf("%w: operator: %w", errMaster, err)
	}
	key, err := base64.RawStdEncoding.Strict().DecodeString(f[2])
	if err != nil || len(key) != auth.KeySize {
		return nil, fmt.Errorf("%w: the key has another length", errMaster)
	}
	copy(op.master[:], key)
	clear(key)
	return op, nil
}

func formatMaster(op *operator) []byte {
	return fmt.Appendf(nil, "# The master key of a netsysrq operator. It is secret: anyone who holds it\n"+
		"# can do to every host that was enrolled with it what its owner can.\n%s %s %s\n",
		masterVersion, op.label, base64.RawStdEncoding.EncodeToString(op.master[:]))
}

// saveMaster writes a new key file, and its folder if need be.
func saveMaster(path string, op *operator) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return keyError(fmt.Errorf("write master key: %w", err), "")
	}
	text := formatMaster(op)
	defer clear(text)
	err := secret.WriteFile(path, text, -1, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return keyError(fmt.Errorf("%s is there already, and keygen never replaces a key", path),
			"hosts enrolled with it know no other; use --key FILE for a second one, or move it away")
	}
	if err != nil {
		return keyError(fmt.Errorf("write master key: %w", err), "")
	}
	return nil
}
