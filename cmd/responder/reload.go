// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"netsysrq/auth"
	"netsysrq/cmd/responder/internal/config"
	"netsysrq/cmd/responder/internal/gate"
	"netsysrq/cmd/responder/internal/keyring"
)

// reading is what was read of configuration and keys. It is done beside the loop
// of the daemon: a disk that hangs must not stop what beats and feeds the
// watchdog.
type reading struct {
	reload  bool
	config  *config.Config
	keys    []keyring.Key
	skipped []keyring.Skipped
	err     error
	// Keys in force whose files are gone.
	gone []keyring.Key
}

// read begins a reading, of which there is one at a time. Without reload it only
// looks which keys are gone.
func (d *daemon) read(reload bool) {
	if d.reads {
		d.readsAgain = d.readsAgain || reload
		return
	}
	d.reads = true
	if reload {
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err == nil {
			d.tell("RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/1000))
		}
	}
	r := reading{reload: reload}
	path, dir, keys := d.configPath, d.cfg.KeysDir, slices.Clone(d.keys)
	go func() {
		if reload {
			r.files(path, d.machineID, d.identity.GID, len(keys) > 0)
		}
		r.gone = gone(dir, keys)
		d.readings <- r
	}()
}

// files reads configuration and keys. Where there are keys in force, a directory
// that is not there is one that is not mounted, rather than emptied.
func (r *reading) files(path, machineID string, gid int, inForce bool) {
	if r.config, r.err = config.Load(path); r.err != nil {
		return
	}
	if _, err := os.Stat(r.config.KeysDir); err != nil && inForce {
		r.err = fmt.Errorf("keys: %w", err)
		return
	}
	r.keys, r.skipped, r.err = keyring.Load(r.config.KeysDir, machineID, gid)
}

// gone are the keys whose files are not there, unless all of dir is not.
func gone(dir string, keys []keyring.Key) (list []keyring.Key) {
	if _, err := os.Stat(dir); err != nil {
		return nil
	}
	for _, k := range keys {
		if _, err := os.Lstat(k.Path); errors.Is(err, fs.ErrNotExist) {
			list = append(list, k)
		}
	}
	return list
}

// take puts in force what was read. On any error everything stays as it was, but
// for keys whose files are gone: who removed a key must be able to rely on it,
// whatever is wrong with another file.
func (d *daemon) take(r reading) {
	d.reads = false
	switch {
	case r.reload:
		status := "STATUS="
		if r.err != nil {
			status += "reload failed: " + r.err.Error()
		}
		d.reload(r)
		d.tell("READY=1", status)
	default:
		d.drop(r.gone)
		d.looked = true
	}
	if d.readsAgain {
		d.readsAgain = false
		d.read(true)
	}
}

func (d *daemon) reload(r reading) {
	d.reloaded = r.err == nil
	if r.config == nil {
		d.log.Error("reload: configuration not taken, the old one stays", "err", r.err)
		d.drop(r.gone)
		return
	}
	if r.err != nil {
		d.log.Error("reload: keys not taken, the old ones stay", "err", r.err)
		d.drop(r.gone)
		return
	}
	next, old := r.config, *d.cfg
	d.cfg.KeysDir, d.cfg.DryRun, d.cfg.Deadline = next.KeysDir, next.DryRun, next.Deadline
	d.keysComplete = true
	d.setKeys(r.keys)
	d.sayKeys(r.skipped)
	d.gate.SetDryRun(next.DryRun)
	d.vetoFile.Store(&next.VetoFile)
	d.cfg.Log.Level = next.Log.Level
	d.level.Set(next.Log.Level)
	if next.Port != old.Port || next.Queue != old.Queue || next.Trigger != old.Trigger || next.Kmsg != old.Kmsg ||
		next.User != old.User || next.MachineID != old.MachineID || next.Metrics != old.Metrics || next.Log.Format != old.Log.Format {
		d.log.Warn("reload: port, queue, trigger, kmsg, user, machine_id, metrics and log.format take effect after a restart")
	}
	if !slices.Equal(next.AllowFrom, old.AllowFrom) || next.Iptables != old.Iptables {
		d.log.Warn("reload: allow_from and iptables take effect with netsysrqd rules apply")
	}
	d.cfg.AllowFrom, d.cfg.Iptables = next.AllowFrom, next.Iptables
	d.log.Info("reloaded", "dry_run", next.DryRun)
	if !d.link.Attached() {
		d.attach() // what asks for a reload may have armed the module
	}
}

// loadKeys puts the key files in force, as the daemon starts. One bad file must
// not lock everyone out.
func (d *daemon) loadKeys() error {
	keys, skipped, err := keyring.Load(d.cfg.KeysDir, d.machineID, d.identity.GID)
	if d.keysComplete = err == nil; !d.keysComplete {
		d.log.Error("keys cannot all be taken", "err", err)
		if keys, err = d.soundKeys(); err != nil {
			return err
		}
	}
	d.setKeys(keys)
	d.sayKeys(skipped)
	return nil
}

// soundKeys are those that nothing is wrong with.
func (d *daemon) soundKeys() (sound []keyring.Key, err error) {
	entries, err := keyring.List(d.cfg.KeysDir, d.machineID, d.identity.GID)
	if err != nil {
		return nil, err
	}
	seen := map[auth.KeyID]bool{}
	for _, e := range entries {
		if e.Problem != nil || seen[e.Key.Key.ID] || len(sound) == keyring.MaxKeys {
			d.log.Error("key not in force", "file", e.Key.Path, "problem", e.Problem)
			continue
		}
		seen[e.Key.Key.ID] = true
		sound = append(sound, e.Key)
	}
	return sound, nil
}

func (d *daemon) sayKeys(skipped []keyring.Skipped) {
	for _, s := range skipped {
		d.log.Warn("key skipped", "file", s.Path, "reason", s.Reason)
	}
	for _, k := range d.keys {
		d.log.Info("key in force", "key", k.Operator, "key_id", k.Key.ID.String(), "host", k.Host, "allowed", k.Allow.String())
	}
	if len(d.keys) == 0 {
		d.log.Warn("no keys: every packet is junk until one is added with netsysrqd keys add")
	}
}

func (d *daemon) setKeys(files []keyring.Key) {
	d.keys = files
	keys := make([]gate.Key, len(files))
	for i := range files {
		f := &files[i]
		keys[i] = gate.Key{Operator: f.Operator, Allowed: f.Allow, Host: &f.Key}
	}
	d.gate.SetKeys(keys)
	d.tellSettings()
}

// drop takes keys out of force.
func (d *daemon) drop(gone []keyring.Key) {
	var kept []keyring.Key
	for _, k := range d.keys {
		if !slices.ContainsFunc(gone, func(g keyring.Key) bool { return g.Path == k.Path }) {
			kept = append(kept, k)
			continue
		}
		d.log.Info("key removed", "key", k.Operator, "key_id", k.Key.ID.String())
		if err := d.link.Remove(k.Key.ID); err != nil {
			d.log.Error("key not taken out of the kernel module", "key_id", k.Key.ID.String(), "err", err)
		}
	}
	if len(kept) < len(d.keys) {
		d.setKeys(kept)
	}
}
