// SPDX-License-Identifier: GPL-2.0-only

package auth

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
)

// KeySize is the length in bytes of a master, a request key and a reply key.
const KeySize = 32

const kdfSalt = "netsysrq v1"

// Argon2id parameters of a master made from a passphrase (RFC 9106).
const (
	argonTime    = 4
	argonMemory  = 256 * 1024 // KiB
	argonThreads = 4
)

// Errors of names and labels.
var (
	ErrHostName = errors.New("host name must be 1 to 253 characters of a-z 0-9 . _ - without a dot at either end")
	ErrLabel    = errors.New("operator label must be 1 to 64 characters of a-z 0-9 . _ @ -")
)

// KeyID names a host key on the wire. It is not secret.
type KeyID [8]byte

// String returns 16 hexadecimal digits.
func (id KeyID) String() string { return hex.EncodeToString(id[:]) }

// ParseKeyID reads the form that String writes.
func ParseKeyID(s string) (id KeyID, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) {
		return id, fmt.Errorf("key id %q is not %d hexadecimal digits", s, 2*len(id))
	}
	return KeyID(b), nil
}

// Master is an operator's secret. It never leaves the operator's side.
type Master [KeySize]byte

// NewMaster returns a random master.
func NewMaster() (m Master) {
	rand.Read(m[:])
	return m
}

// MasterFromPassphrase makes a master from a passphrase and the operator's
// label. It takes 256 MiB of memory and about a second.
func MasterFromPassphrase(passphrase, label string) (m Master, err error) {
	if err := CheckLabel(label); err != nil {
		return m, err
	}
	words := strings.Join(strings.FieldsFunc(passphrase, isSpace), " ")
	if words == "" {
		return m, errors.New("the passphrase is empty")
	}
	salt := append([]byte(kdfSalt), 0)
	salt = append(salt, label...)
	return Master(argon2.IDKey([]byte(words), salt, argonTime, argonMemory, argonThreads, KeySize)), nil
}

// isSpace is ASCII white space, so that every implementation agrees on it.
func isSpace(r rune) bool { return r == ' ' || r >= '\t' && r <= '\r' }

// HostKey belongs to one operator and one host; both sides hold it.
type HostKey struct {
	ID      KeyID
	Request [KeySize]byte
	Reply   [KeySize]byte
}

// HostKey derives the key for a host. Two spellings of a name that
// NormalizeHost makes equal give the same key.
func (m *Master) HostKey(host string) (k HostKey, err error) {
	name, err := NormalizeHost(host)
	if err != nil {
		return k, err
	}
	info := "host\x00" + string([]byte{byte(len(name))}) + name
	okm, err := hkdf.Key(sha256.New, m[:], []byte(kdfSalt), info, len(k.ID)+2*KeySize)
	if err != nil {
		return k, fmt.Errorf("derive host key: %w", err)
	}
	copy(k.ID[:], okm)
	copy(k.Request[:], okm[8:])
	copy(k.Reply[:], okm[40:])
	clear(okm)
	return k, nil
}

// NormalizeHost returns the form of a host name that keys are made for, or
// ErrHostName.
func NormalizeHost(host string) (string, error) {
	b := []byte(strings.TrimSuffix(host, "."))
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	if len(b) < 1 || len(b) > 253 || b[0] == '.' || b[len(b)-1] == '.' || !only(string(b), "._-") {
		return "", fmt.Errorf("%q: %w", host, ErrHostName)
	}
	return string(b), nil
}

// CheckLabel returns nil or ErrLabel.
func CheckLabel(label string) error {
	if len(label) < 1 || len(label) > 64 || !only(label, "._@-") {
		return fmt.Errorf("%q: %w", label, ErrLabel)
	}
	return nil
}

// only reports whether s has nothing but a-z, 0-9 and the given characters.
func only(s, more string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && strings.IndexByte(more, c) < 0 {
			return false
		}
	}
	return true
}
