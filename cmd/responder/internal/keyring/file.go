// SPDX-License-Identifier: GPL-2.0-only

package keyring

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"netsysrq/auth"
	"netsysrq/cmd/responder/internal/hint"
	"netsysrq/internal/secret"
)

// suffix is the end of the name of every key file: OPERATOR-KEYID.key.
const suffix = ".key"

func fileName(operator string, id auth.KeyID) string {
	return operator + "-" + id.String() + suffix
}

// fromName tells what the name of a key file says about its key.
func fromName(path string) (k Key) {
	k.Path = path
	name := strings.TrimSuffix(filepath.Base(path), suffix)
	k.Operator = name
	if i := strings.LastIndexByte(name, '-'); i > 0 {
		if id, err := auth.ParseKeyID(name[i+1:]); err == nil {
			k.Operator, k.Key.ID = name[:i], id
		}
	}
	return k
}

// document is a key file as TOML sees it. Every field must be there.
type document struct {
	Operator   string    `toml:"operator"`
	Host       string    `toml:"host"`
	KeyID      string    `toml:"key_id"`
	RequestKey string    `toml:"request_key"`
	ReplyKey   string    `toml:"reply_key"`
	Allow      string    `toml:"allow"`
	MachineID  string    `toml:"machine_id"`
	Added      time.Time `toml:"added"`
}

func format(k *Key) []byte {
	var b bytes.Buffer
	b.WriteString("# SECRET: who reads this file can do to this host what its operator can.\n")
	b.WriteString("# netsysrqd keys add wrote it; netsysrqd keys remove deletes it.\n")
	fmt.Fprintf(&b, "operator    = %q\n", k.Operator)
	fmt.Fprintf(&b, "host        = %q\n", k.Host)
	fmt.Fprintf(&b, "allow       = %q\n", k.Allow)
	fmt.Fprintf(&b, "machine_id  = %q\n", k.MachineID)
	fmt.Fprintf(&b, "added       = %s\n", k.Added.UTC().Format(time.RFC3339))
	fmt.Fprintf(&b, "key_id      = %q\n", k.Key.ID)
	fmt.Fprintf(&b, "request_key = %q\n", base64.StdEncoding.EncodeToString(k.Key.Request[:]))
	fmt.Fprintf(&b, "reply_key   = %q\n", base64.StdEncoding.EncodeToString(k.Key.Reply[:]))
	return b.Bytes()
}

// read reads a key file. On error the key is what the file's name says.
func read(path string, gid int) (Key, error) {
	data, err := secret.ReadFile(path, gid)
	if errors.Is(err, secret.ErrExposed) {
		return fromName(path), hint.Add(err,
			"treat the key as known to others: remove it and enrol the operator anew")
	}
	if err != nil {
		return fromName(path), err
	}
	k, err := parse(data)
	if err != nil {
		return fromName(path), hint.Add(fmt.Errorf("%s: %w", path, err),
			"remove the file and enrol the operator anew")
	}
	k.Path = path
	return k, nil
}

// parse reads the content of a key file. Its errors hold no part of it, since
// any part may be secret.
func parse(data []byte) (Key, error) {
	var doc document
	err := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(&doc)
	if err != nil {
		return Key{}, scrub(err)
	}
	k := Key{Operator: doc.Operator, MachineID: doc.MachineID, Added: doc.Added}
	if checkName(doc.Operator) != nil {
		return Key{}, errors.New("operator: not the name of an operator")
	}
	if k.Host, err = auth.NormalizeHost(doc.Host); err != nil {
		return Key{}, errors.New("host: not the name of a host")
	}
	if k.Key.ID, err = auth.ParseKeyID(doc.KeyID); err != nil {
		return Key{}, errors.New("key_id: not 16 hexadecimal digits")
	}
	if k.Allow, err = auth.ParseKeySet(doc.Allow); err != nil {
		return Key{}, errors.New("allow: not a set of SysRq keys such as \"nsub\"")
	}
	if !isMachineID(doc.MachineID) {
		return Key{}, errors.New("machine_id: not the id of a machine")
	}
	if doc.Added.IsZero() {
		return Key{}, errors.New("added: missing")
	}
	if k.Key.Request, err = parseSecret(doc.RequestKey); err != nil {
		return Key{}, fmt.Errorf("request_key: %w", err)
	}
	if k.Key.Reply, err = parseSecret(doc.ReplyKey); err != nil {
		return Key{}, fmt.Errorf("reply_key: %w", err)
	}
	if k.Key.Request == k.Key.Reply {
		return Key{}, errors.New("request_key and reply_key are the same")
	}
	return k, nil
}

func parseSecret(s string) (key [auth.KeySize]byte, err error) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != len(key) {
		return key, fmt.Errorf("not %d bytes in base64", len(key))
	}
	return [auth.KeySize]byte(b), nil
}

// scrub keeps the line of a TOML error and drops its text.
func scrub(err error) error {
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) {
		line, _ := strict.Errors[0].Position()
		return fmt.Errorf("line %d: unknown setting", line)
	}
	var de *toml.DecodeError
	if errors.As(err, &de) {
		line, _ := de.Position()
		return fmt.Errorf("line %d: not what a key file holds", line)
	}
	return errors.New("not a key file")
}

// checkName checks an operator's name on this host, which is also the
// beginning of a file name: files that begin with a dot are not read, and what
// begins with a hyphen looks like an option.
func checkName(name string) error {
	if err := auth.CheckLabel(name); err != nil {
		return err
	}
	if name[0] == '.' || name[0] == '-' {
		return fmt.Errorf("%q: a name on this host begins with neither a dot nor a hyphen", name)
	}
	return nil
}
