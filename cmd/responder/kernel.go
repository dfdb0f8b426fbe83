// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"errors"
	"os"
	"strings"
	"time"

	"netsysrq/auth"
	"netsysrq/cmd/responder/internal/module"
	"netsysrq/internal/clock"
	"netsysrq/kmod-fallback/kmod"
)

const (
	// attachEvery is how often a module is looked for that was not there.
	attachEvery = 5 * time.Second
	// eventsSoon is how soon after a request the module's events are read, as
	// long as there are some.
	eventsSoon = 50 * time.Millisecond
)

// settings are what the kernel module is to know.
func (d *daemon) settings() module.Settings {
	s := module.Settings{Boot: d.boot, DryRun: d.cfg.DryRun, Deadline: d.cfg.Deadline, Complete: d.keysComplete}
	for i := range d.keys {
		k := &d.keys[i]
		s.Keys = append(s.Keys, module.Key{Operator: k.Operator, Allowed: k.Allow, Host: &k.Key})
	}
	return s
}

// tellSettings tells the module of keys and settings. Until that succeeds it is
// tried with every beat: the module may hold a key that was removed.
func (d *daemon) tellSettings() {
	err := d.link.Set(d.settings())
	if err != nil && !d.untold {
		d.log.Error("kernel module not told of keys and settings, trying on", "err", err)
	}
	d.untold = err != nil
}

// attach leaves the work to the kernel module, if there is one that holds keys.
// It logs what it finds when that is something new.
func (d *daemon) attach() {
	d.attachAgain = time.Now().Add(attachEvery)
	client, err := d.link.Attach(d.settings())
	if err == nil {
		d.attachState, d.looked, d.untold = "", false, false
		d.gate.SetModule(client)
		d.log.Info("attached to the kernel module: it answers and acts, also when this host's processes hang", "deadline", d.cfg.Deadline)
		// So that it trusts the clock at once. The next beat sees what is wrong.
		asked, synchronised := d.gate.Sample()
		d.link.Beat(synchronised, asked, time.Now())
		return
	}
	if !d.armed() {
		// Nobody else would answer. Where it is armed nobody else may.
		d.gate.SetModule(nil)
	}
	news := err.Error() != d.attachState
	d.attachState = err.Error()
	switch {
	case !news:
	case errors.Is(err, kmod.ErrNotLoaded):
		d.log.Warn("no kernel module: the daemon answers and acts alone, and nothing does while this host's processes hang")
	case errors.Is(err, module.ErrNotArmed):
		d.log.Warn("the kernel module holds no keys: the daemon answers and acts alone, and nothing does while this host's processes hang; " +
			"netsysrqd check tells why")
	default:
		d.log.Error("not attached to the kernel module", "err", err)
	}
}

// leaveModule ends the work with a module that does not answer or act.
func (d *daemon) leaveModule(err error) {
	d.link.Detach()
	switch {
	case errors.Is(err, module.ErrNotArmed):
	case d.armed():
		// It goes on without us.
		d.log.Error("connection to the kernel module lost", "err", err)
	default:
		d.attachState = kmod.ErrNotLoaded.Error()
		d.log.Warn("the kernel module is gone: the daemon answers and acts alone", "err", err)
	}
	d.attach()
}

// beat shows the module that the daemon lives and whether the clock is
// disciplined; a daemon whose read loops hang keeps silent.
func (d *daemon) beat(well bool, asked auth.Instant, synchronised bool) {
	if !d.link.Attached() {
		if time.Now().After(d.attachAgain) {
			d.attach()
		}
		return
	}
	if !well {
		return
	}
	if d.untold {
		d.tellSettings()
	}
	switch err := d.link.Beat(synchronised, asked, time.Now()); {
	case errors.Is(err, module.ErrNotArmed):
		d.disarmed()
	case err != nil:
		d.leaveModule(err)
	default:
		d.looked = false
	}
}

// disarmed goes on alone while the module holds no key, but with no key that was
// removed: the module is told of that at once, the daemon later.
func (d *daemon) disarmed() {
	switch {
	case len(d.keys) == 0: // nobody has orders to give
	case !d.looked:
		d.read(false)
	default:
		d.leaveModule(module.ErrNotArmed)
	}
}

// events logs what the module did. It reports whether there was anything.
func (d *daemon) events() bool {
	if !d.link.Attached() {
		return false
	}
	some, err := d.link.Events(time.Now(), time.Duration(clock.Boot()))
	if err != nil {
		d.leaveModule(err)
	}
	return some
}

// modulePackets is what the module counted since the last summary; nil where
// the daemon counts.
func (d *daemon) modulePackets() *[auth.NumReasons]uint64 {
	if !d.link.Attached() {
		return nil
	}
	counts, err := d.link.Packets()
	if err != nil {
		d.leaveModule(err)
		return nil
	}
	return &counts
}

// maxVetoReason bounds what is logged of the veto file.
const maxVetoReason = 200

// vetoed says whether the veto file is there, and its first line.
func (d *daemon) vetoed() (reason string, yes bool) {
	path := *d.vetoFile.Load()
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", false
	}
	if err != nil {
		return err.Error(), true // it is there, and not for us to read
	}
	defer f.Close()
	b := make([]byte, maxVetoReason)
	n, _ := f.Read(b)
	line, _, _ := strings.Cut(string(b[:n]), "\n")
	if line = strings.TrimSpace(line); line == "" {
		line = path
	}
	return line, true
}
