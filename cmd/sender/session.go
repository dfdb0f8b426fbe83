// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/exchange"
	"netsysrq/internal/fleet/drills"
	"netsysrq/internal/fleet/hosts"
)

// session is one command for one or many hosts.
type session struct {
	w     world
	o     *options
	hosts []*hosts.Host
	// many: the hosts are told of together, with a summary. One that is named
	// alone is told of alone.
	many    bool
	keys    *keyring
	keyLock sync.Mutex
	shared  *exchange.Shared // if many
	flags   auth.RequestFlags
	drills  drills.Dates
}

// chosen is whom the command line means, before any key is read.
func chosen(w world, o *options) (*session, error) {
	list, err := loadHosts(w, o)
	if err != nil {
		return nil, err
	}
	// A name that is not listed is looked up, and shown; a passphrase that was
	// written after its flag must be neither.
	if names := append(slices.Clone(o.hosts), o.doubtful); o.passphrase && len(o.hosts) > 1 {
		for _, name := range names {
			if name != "" && hosts.IsOne(name) && !list.Knows(name) {
				return nil, errPassphraseShown
			}
		}
	}
	if (o.command.name == "send" || o.command.name == "run") && list.Knows(o.stepsText) {
		return nil, usageError(fmt.Errorf("%q is a host, and the steps are missing", o.stepsText), "write steps with commas: n,s,u,b")
	}
	if err := o.checkNames(list); err != nil {
		return nil, err
	}
	switch d := o.doubtful; {
	case d == "":
	case list.Knows(d):
		o.hosts = append(o.hosts, strings.ToLower(d))
	case o.single():
		if o.steps, err = parseSteps(d); err != nil {
			return nil, err
		}
	default:
		return nil, usageError(fmt.Errorf("is %q a host or the steps? The list of hosts does not have it", d),
			"write steps with commas: n,s,u,b")
	}
	if err := checkOrder(o.steps); err != nil {
		return nil, err
	}
	s := &session{w: w, o: o, many: !o.single() || o.watch > 0}
	if s.hosts, err = list.Select(o.hosts); err != nil {
		if o.passphrase && len(o.hosts) > 1 {
			return nil, errPassphraseShown
		}
		hint := "see the list of hosts, " + hostsPath(w, o)
		switch groups := list.Groups(); {
		case list.Len() == 0:
			if hint = "there is no list of hosts at " + hostsPath(w, o); list.Read() {
				hint = hostsPath(w, o) + " lists no host"
			}
			hint += "; " + hintList
		case errors.Is(err, hosts.ErrGroup):
			hint = "groups: @" + strings.Join(append(groups, hosts.All), " @")
		}
		return nil, usageError(err, hint)
	}
	return s, nil
}

// open reads the keys and makes ready to send.
func (s *session) open(ctx context.Context) (err error) {
	if s.keys, err = openKeyring(ctx, s.w, s.o, false); err != nil {
		return err
	}
	if s.many {
		// Memory for ten thousand hosts on a laptop counts more than the
		// moments that it takes to collect what is not in use.
		debug.SetGCPercent(50)
		s.shared = exchange.NewShared(s.w.sockets)
	}
	if s.o.rehearse {
		s.flags |= auth.Rehearse
	}
	if s.o.command.name == "cancel" {
		s.flags |= auth.Now
	}
	if s.drills, err = readDrills(s.w); err != nil {
		s.w.note("%v", err) // beside the point of most commands
	}
	return nil
}

func (s *session) close() {
	if s.shared != nil {
		s.shared.Close()
	}
}

// options are how every host is asked.
func (s *session) options(timeout time.Duration) exchange.Options {
	opt := exchange.Options{Timeout: timeout, OnePacket: s.o.onePacket, Clock: s.w.clock, Dial: s.w.dial, Shared: s.shared}
	if s.o.verbose {
		opt.Trace = s.w.trace
	}
	return opt
}

// hostsPath is where the list of hosts is; empty without a home directory.
func hostsPath(w world, o *options) string {
	if o.hostsFile != "" {
		return o.hostsFile
	}
	if dir := w.userDir("XDG_CONFIG_HOME", ".config"); dir != "" {
		return filepath.Join(dir, "hosts.toml")
	}
	return ""
}

// loadHosts reads the list of hosts. Only one that was named must be there.
func loadHosts(w world, o *options) (*hosts.File, error) {
	path := hostsPath(w, o)
	if path == "" {
		return &hosts.File{}, nil
	}
	list, err := hosts.Load(path, w.getenv("HOME"))
	if o.hostsFile == "" && errors.Is(err, fs.ErrNotExist) {
		return &hosts.File{}, nil
	}
	if e, ok := errors.AsType[*hosts.Error](err); ok {
		return nil, &failure{exitError, err, e.Hint}
	}
	if err != nil {
		return nil, &failure{exitError, err, hintList}
	}
	return list, nil
}

const hintList = "netsysrq help hosts shows one"

// drillsPath is where drills are recorded; empty without a home directory.
func drillsPath(w world) string {
	dir := w.userDir("XDG_STATE_HOME", filepath.Join(".local", "state"))
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, "drills")
}

func readDrills(w world) (drills.Dates, error) {
	path := drillsPath(w)
	if path == "" {
		return drills.Dates{}, nil
	}
	return drills.Read(path)
}
