// SPDX-License-Identifier: GPL-2.0-only

package auth

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// Enrolment carries one host key from the operator to the host, as one line
// of text. The line is secret.
type Enrolment struct {
	Operator string // label of the operator
	Host     string // normalized name of the host
	Allow    KeySet // proposed allowed set; the host decides
	Key      HostKey
}

const enrolmentVersion = "netsysrq-enrol-1"

// ErrEnrolment is wrapped by every error of ParseEnrolment. No error contains
// any part of a key.
var ErrEnrolment = errors.New("not an enrolment line (it is what `netsysrq enroll HOST` prints)")

// Line returns the line, without a line feed.
func (e *Enrolment) Line() string {
	secret := make([]byte, 0, 2*KeySize)
	secret = append(secret, e.Key.Request[:]...)
	secret = append(secret, e.Key.Reply[:]...)
	line := fmt.Sprintf("%s %s %s %s %v %s", enrolmentVersion, e.Operator, e.Host, e.Allow, e.Key.ID,
		base64.RawStdEncoding.EncodeToString(secret))
	return line + " " + checksum(line)
}

// checksum tells a damaged line from a whole one: a wrong key would look like
// a dead host.
func checksum(line string) string {
	sum := sha256.Sum256([]byte(line))
	return hex.EncodeToString(sum[:4])
}

// ParseEnrolment reads a line that Line wrote; white space around and between
// its fields does not matter.
func ParseEnrolment(line string) (*Enrolment, error) {
	f := strings.Fields(line)
	if len(f) != 7 || f[0] != enrolmentVersion {
		return nil, ErrEnrolment
	}
	if checksum(strings.Join(f[:6], " ")) != f[6] {
		return nil, fmt.Errorf("%w: it is damaged, its checksum does not fit", ErrEnrolment)
	}
	e := &Enrolment{Operator: f[1]}
	if err := CheckLabel(e.Operator); err != nil {
		return nil, fmt.Errorf("%w: operator: %w", ErrEnrolment, err)
	}
	var err error
	if e.Host, err = NormalizeHost(f[2]); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEnrolment, err)
	}
	if e.Allow, err = ParseKeySet(f[3]); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEnrolment, err)
	}
	if e.Key.ID, err = ParseKeyID(f[4]); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEnrolment, err)
	}
	secret, err := base64.RawStdEncoding.Strict().DecodeString(f[5])
	if err != nil || len(secret) != 2*KeySize {
		return nil, fmt.Errorf("%w: the key has another length", ErrEnrolment)
	}
	copy(e.Key.Request[:], secret)
	copy(e.Key.Reply[:], secret[KeySize:])
	clear(secret)
	return e, nil
}
