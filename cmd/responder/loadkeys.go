// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"

	"netsysrq/cmd/responder/internal/config"
	"netsysrq/cmd/responder/internal/hint"
	"netsysrq/cmd/responder/internal/host"
	"netsysrq/cmd/responder/internal/keyring"
	"netsysrq/cmd/responder/internal/module"
	"netsysrq/kmod-fallback/kmod"
)

// loadKeys arms the kernel module with the keys of this host, long before the
// daemon starts or without it. Keys whose files are gone are taken away.
func (c *command) loadKeys(ctx context.Context, args []string) error {
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
	m, err := dialModule()
	if err != nil {
		return err
	}
	defer m.Close()
	if err := m.SetBootID(boot); err != nil {
		return err
	}
	if err := m.SetDryRun(cfg.DryRun); err != nil {
		return err
	}
	if err := m.SetDeadline(cfg.Deadline); err != nil {
		return err
	}
	if err := replaceKeys(m, keys); err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "the kernel module holds %d keys\n", len(keys))
	if len(keys) > 0 && c.rulesLeadPast(ctx) {
		fmt.Fprintln(c.stderr, c.advice("netsysrqd: the firewall rules lead past the kernel module, so nobody answers: now run netsysrqd rules apply"))
	}
	return nil
}

// dialModule connects to the kernel module.
func dialModule() (*kmod.Client, error) {
	m, err := kmod.Dial()
	if errors.Is(err, kmod.ErrNotLoaded) {
		err = hint.Add(err, "modprobe xt_NETSYSRQ")
	}
	return m, err
}

// replaceKeys makes the module hold these keys and no others.
func replaceKeys(m module.Holder, keys []keyring.Key) error {
	var list []module.Key
	for i := range keys {
		list = append(list, module.Key{Operator: keys[i].Operator, Allowed: keys[i].Allow, Host: &keys[i].Key})
	}
	_, refused, err := module.ReplaceKeys(m, list, true)
	if err == nil && len(refused) > 0 {
		err = fmt.Errorf("kernel module: install key %v: %w", refused[0].Host.ID, kmod.ErrPermission)
	}
	return err
}

// tellModule tells the kernel module of one key at once, if it is loaded, and
// reports whether it is. The key files are in order by then, and the command
// that reads them mends what goes wrong here.
func tellModule(what string, tell func(*kmod.Client) error) (loaded bool, err error) {
	m, err := dialModule()
	if errors.Is(err, kmod.ErrNotLoaded) {
		return false, nil
	}
	if err == nil {
		defer m.Close()
		err = tell(m)
	}
	if err != nil {
		err = hint.Add(fmt.Errorf("%s: %w", what, err), "run as root: netsysrqd load-keys")
	}
	return true, err
}
