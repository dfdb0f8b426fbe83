// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"

	"netsysrq/auth"
	"netsysrq/cmd/responder/internal/config"
	"netsysrq/cmd/responder/internal/hint"
	"netsysrq/cmd/responder/internal/host"
	"netsysrq/cmd/responder/internal/keyring"
	"netsysrq/kmod-fallback/kmod"
)

// loadKeys arms the kernel module with the keys of this host, long before the
// daemon starts or without it. Keys whose files are gone are taken away.
func (c *command) loadKeys(args []string) error {
	if _, err := c.parse(newFlags("load-keys"), args, 0); err != nil {
		return err
	}
	cfg, err := config.Load(c.config)
	if err != nil {
		return err
	}
	machine, err := keyring.MachineID(cfg.MachineID)
	if err != nil {
		return err
	}
	gid := -1
	if id, err := host.Lookup(cfg.User); err == nil {
		gid = id.GID
	}
	keys, skipped, err := keyring.Load(cfg.KeysDir, machine, gid)
	if err != nil {
		return err
	}
	for _, s := range skipped {
		c.complain(fmt.Errorf("key skipped: %s: %s", s.Path, s.Reason))
	}
	boot, err := host.BootID()
	if err != nil {
		return fmt.Errorf("read boot id: %w", err)
	}
	m, err := kmod.Dial()
	if err != nil {
		return hint.Add(err, "modprobe xt_NETSYSRQ")
	}
	defer m.Close()
	if err := m.SetBootID(boot); err != nil {
		return err
	}
	if err := m.SetDryRun(cfg.DryRun); err != nil {
		return err
	}
	if err := replaceKeys(m, keys); err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "the kernel module holds %d keys\n", len(keys))
	return nil
}

// replaceKeys makes the module hold these keys and no others. What goes, goes
// first: there may be no room for what comes.
func replaceKeys(m *kmod.Client, keys []keyring.Key) error {
	status, err := m.Status()
	if err != nil {
		return err
	}
	wanted := map[auth.KeyID]bool{}
	for i := range keys {
		wanted[keys[i].Key.ID] = true
	}
	for _, held := range status.Keys {
		if !wanted[held.ID] {
			if err := m.RemoveKey(held.ID); err != nil {
				return err
			}
		}
	}
	for i := range keys {
		if err := m.InstallKey(&keys[i].Key, keys[i].Allow); err != nil {
			return err
		}
	}
	return nil
}
