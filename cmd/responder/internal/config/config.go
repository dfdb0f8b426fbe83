// SPDX-License-Identifier: GPL-2.0-only

// Package config reads the settings of netsysrqd from a TOML file.
//
// Every setting has a default and an unknown one is an error, so that a typing
// mistake never leaves a host with a setting that its owner believes changed.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"netsysrq/auth"
	"netsysrq/cmd/responder/internal/hint"
)

// DefaultPath is where the configuration is read from unless told otherwise.
const DefaultPath = "/etc/netsysrq/netsysrqd.toml"

// Trigger is the kernel's own file; any other value of Config.Trigger means
// that keys are written where nothing obeys them.
const Trigger = "/proc/sysrq-trigger"

// Config holds the settings, checked. deploy/netsysrqd.toml explains each.
type Config struct {
	Port      uint16         // UDP port
	Queue     uint16         // quiet sources; busy ones go to Queue+1
	KeysDir   string         // directory of host keys
	AllowFrom []netip.Prefix // sources that are listened to; none: all
	Trigger   string         // file that SysRq keys are written to
	Kmsg      string         // kernel log, to see when s and u are complete
	DryRun    bool           // all but writing to Trigger
	User      string         // name, uid or uid:gid that the daemon becomes
	MachineID string         // file that tells this machine from its clones
	Iptables  string         // auto, nft or legacy
	Deadline  time.Duration  // for the daemon's word, before the kernel module acts alone
	VetoFile  string         // while it exists, requests are vetoed
	Metrics   string         // file for node_exporter; empty: none
	Log       Log
}

// Log says how the daemon logs.
type Log struct {
	Format string // auto, journald, text or json
	Level  slog.Level
}

// Default returns the settings of an empty file.
func Default() *Config {
	return &Config{
		Port:      auth.Port,
		Queue:     9,
		KeysDir:   "/etc/netsysrq/keys",
		Trigger:   Trigger,
		Kmsg:      "/dev/kmsg",
		User:      "netsysrq",
		MachineID: "/etc/machine-id",
		Iptables:  "auto",
		Deadline:  250 * time.Millisecond,
		VetoFile:  "/run/netsysrq/veto",
		Log:       Log{Format: "auto"},
	}
}

// document is the file as TOML sees it: wider types than Config, so that what
// does not fit is reported in the words of this package.
type document struct {
	Port      int64    `toml:"port"`
	Queue     int64    `toml:"queue"`
	KeysDir   string   `toml:"keys_dir"`
	AllowFrom []string `toml:"allow_from"`
	Trigger   string   `toml:"trigger"`
	Kmsg      string   `toml:"kmsg"`
	DryRun    bool     `toml:"dry_run"`
	User      string   `toml:"user"`
	MachineID string   `toml:"machine_id"`
	Iptables  string   `toml:"iptables"`
	Deadline  string   `toml:"deadline"`
	VetoFile  string   `toml:"veto_file"`
	Metrics   string   `toml:"metrics"`
	Log       struct {
		Format string `toml:"format"`
		Level  string `toml:"level"`
	} `toml:"log"`
}

// Load reads the file at path. Its errors name the file and, where there is
// one, the line.
func Load(path string) (*Config, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, hint.Add(fmt.Errorf("configuration: %w", err),
			"every setting has a default, so an empty file will do; --config names another file")
	}
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return parse(path, data)
}

func parse(path string, data []byte) (*Config, error) {
	c := Default()
	doc := document{
		Port: int64(c.Port), Queue: int64(c.Queue), KeysDir: c.KeysDir, Trigger: c.Trigger, Kmsg: c.Kmsg,
		User: c.User, MachineID: c.MachineID, Iptables: c.Iptables,
		Deadline: c.Deadline.String(), VetoFile: c.VetoFile,
	}
	doc.Log.Format, doc.Log.Level = c.Log.Format, "info"

	dec := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields()
	if err := dec.Decode(&doc); err != nil {
		return nil, explain(path, err)
	}
	k := checker{path: path, data: data}
	c.Port = k.number("port", doc.Port, 1, 65535, "a UDP port is a number from 1 to 65535")
	c.Queue = k.number("queue", doc.Queue, 0, 65534,
		"a queue is a number from 0 to 65534; the one after it is used too")
	c.KeysDir = k.file("keys_dir", doc.KeysDir)
	c.Trigger = k.file("trigger", doc.Trigger)
	c.Kmsg = k.file("kmsg", doc.Kmsg)
	c.MachineID = k.file("machine_id", doc.MachineID)
	c.AllowFrom = k.prefixes("allow_from", doc.AllowFrom)
	c.DryRun = doc.DryRun
	c.User = doc.User
	if err := checkUser(doc.User); err != nil {
		k.fail("user", err)
	}
	c.Iptables = k.word("iptables", doc.Iptables, "auto", "nft", "legacy")
	c.Deadline = k.duration("deadline", doc.Deadline, 10*time.Millisecond, 10*time.Second)
	c.VetoFile = k.file("veto_file", doc.VetoFile)
	if doc.Metrics != "" {
		c.Metrics = k.file("metrics", doc.Metrics)
	}
	c.Log.Format = k.word("log.format", doc.Log.Format, "auto", "journald", "text", "json")
	level := k.word("log.level", doc.Log.Level, "debug", "info", "warn", "error")
	if err := c.Log.Level.UnmarshalText([]byte(level)); err != nil {
		k.fail("log.level", err)
	}
	if k.err != nil {
		return nil, k.err
	}
	return c, nil
}

// checker checks values and keeps the first error.
type checker struct {
	path string
	data []byte
	err  error
}

func (k *checker) fail(setting string, err error) {
	if k.err != nil {
		return
	}
	text := hint.Of(err)
	k.err = fmt.Errorf("%s: %s: %w", place(k.path, lineOf(k.data, setting)), setting, err)
	if text != "" {
		k.err = hint.Add(k.err, text)
	}
}

func (k *checker) number(setting string, v, least, most int64, why string) uint16 {
	if v < least || v > most {
		k.fail(setting, fmt.Errorf("%d: %s", v, why))
		return 0
	}
	return uint16(v)
}

func (k *checker) duration(setting, v string, least, most time.Duration) time.Duration {
	d, err := time.ParseDuration(v)
	if err != nil || d < least || d > most || d%time.Millisecond != 0 {
		k.fail(setting, fmt.Errorf("%q: must be from %v to %v in whole milliseconds, such as \"250ms\"", v, least, most))
	}
	return d
}

func (k *checker) file(setting, v string) string {
	if !filepath.IsAbs(v) {
		k.fail(setting, fmt.Errorf("%q: must be a path that begins with /", v))
	}
	return filepath.Clean(v)
}

func (k *checker) word(setting, v string, known ...string) string {
	if !slices.Contains(known, v) {
		k.fail(setting, fmt.Errorf("%q: must be one of %s", v, strings.Join(known, ", ")))
	}
	return v
}

func (k *checker) prefixes(setting string, list []string) (out []netip.Prefix) {
	for _, s := range list {
		p, err := parsePrefix(s)
		if err != nil {
			k.fail(setting, err)
			continue
		}
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// parsePrefix reads an address or a network. Bits outside the network are an
// error: it is not clear whether the host or the network is meant.
func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" && !a.Is4In6() {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		return p, hint.Add(fmt.Errorf("%q: neither an address nor a network", s),
			`write them like "192.0.2.7", "192.0.2.0/24" or "2001:db8::/32"`)
	}
	if p != p.Masked() {
		return p, fmt.Errorf("%q: write %q for the network or %q for the one host", s, p.Masked(), p.Addr())
	}
	return p, nil
}
