// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"netsysrq/cmd/responder/internal/config"
	"netsysrq/cmd/responder/internal/hint"
	"netsysrq/cmd/responder/internal/host"
	"netsysrq/cmd/responder/internal/keyring"
	"netsysrq/cmd/responder/internal/logging"
	"netsysrq/cmd/responder/internal/rules"
)

// moduleName is that of the kernel module.
const moduleName = "xt_NETSYSRQ"

const (
	modprobeTimeout = 30 * time.Second
	unloadTimeout   = 3 * time.Second
)

// arm makes the host obey as far as that goes without a daemon: module, rules,
// keys. A host without the module gets the rules of the daemon alone; one
// without keys stays as it is.
func (c *command) arm(ctx context.Context, args []string) error {
	if _, err := c.parse(newFlags("arm"), args, 0); err != nil {
		return err
	}
	cfg, err := config.Load(c.config)
	if err != nil {
		return err
	}
	some, err := hasKeys(cfg)
	if err != nil {
		return err
	}
	if !some {
		fmt.Fprintln(c.stdout, "no operator has a key: nothing to arm")
		return nil
	}
	// What does not work here leaves the daemon alone to answer, and check
	// says why.
	if err := load(ctx, rules.ModuleLoaded, modprobe); err != nil {
		c.complain(hint.Add(fmt.Errorf("no kernel module, so nothing answers while this host's processes hang: %w", err),
			"netsysrqd check tells what is missing"))
	}
	past, err := c.applyRules(ctx)
	if rules.ModuleLoaded() && !past {
		if err := c.loadKeys(ctx, nil); err != nil {
			c.complain(err)
		}
	}
	return err
}

// disarm undoes it.
func (c *command) disarm(ctx context.Context, args []string) error {
	if _, err := c.parse(newFlags("disarm"), args, 0); err != nil {
		return err
	}
	// The module stays loaded as long as a rule leads to it.
	err := c.removeRules(ctx)
	if rules.ModuleLoaded() {
		err = errors.Join(err, unload())
	}
	return err
}

func hasKeys(cfg *config.Config) (bool, error) {
	machine, err := keyring.MachineID(cfg.MachineID)
	if err != nil {
		return false, err
	}
	entries, err := keyring.List(cfg.KeysDir, machine, -1)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, err
	}
	return len(entries) > 0, nil
}

// load loads the module unless that is done. The file of one that is loaded may
// be gone: an upgrade of the kernel takes it along.
func load(ctx context.Context, loaded func() bool, modprobe func(context.Context, string) error) error {
	if loaded() {
		return nil
	}
	return modprobe(ctx, moduleName)
}

// unload takes the module out, whether or not modprobe(8) would find its file.
// The kernel lets go of rules some time after they were removed.
func unload() (err error) {
	for end := time.Now().Add(unloadTimeout); ; time.Sleep(50 * time.Millisecond) {
		err = unix.DeleteModule(moduleName, unix.O_NONBLOCK)
		if !errors.Is(err, unix.EAGAIN) || time.Now().After(end) {
			break
		}
	}
	switch {
	case err == nil, errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.EAGAIN):
		return hint.Add(fmt.Errorf("the kernel module stays loaded: %w", err), "a rule of somebody else leads to it: iptables-save -t raw")
	}
	return fmt.Errorf("unload the kernel module: %w", err)
}

func modprobe(ctx context.Context, module string) error {
	ctx, cancel := context.WithTimeout(ctx, modprobeTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/sbin/modprobe", module)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	if said := strings.TrimSpace(string(out)); said != "" {
		return errors.New(strings.ReplaceAll(said, "\n", "; "))
	}
	return fmt.Errorf("modprobe: %w", err)
}

// rulesWatch keeps the rules in place until it is told to end.
func (c *command) rulesWatch(ctx context.Context, args []string) error {
	if _, err := c.parse(newFlags("rules watch"), args, 0); err != nil {
		return err
	}
	cfg, err := config.Load(c.config)
	if err != nil {
		return err
	}
	log, err := logging.New(cfg.Log.Format, c.stderr, cfg.Log.Level)
	if err != nil {
		return err
	}
	defer log.Flush(flushWait)
	manager, err := host.NewNotifier()
	if err != nil && !errors.Is(err, host.ErrNoManager) {
		return fmt.Errorf("open the notification socket: %w", err)
	}
	defer manager.Close()
	w := &rules.Watcher{
		Set: c.ruleSet,
		Log: log.Logger,
		Past: func() {
			removed, err := disarmModule()
			if len(removed) > 0 {
				log.Warn("no rule leads to the kernel module: its keys are taken out, the daemon answers and acts alone", "keys", len(removed))
			}
			if err != nil {
				log.Error("no rule leads to the kernel module, and its keys are not taken out: nobody answers", "err", err)
			}
		},
		Ready: func() error {
			err := manager.Tell("READY=1")
			if err != nil {
				log.Warn("systemd not notified", "err", err)
			}
			return err
		},
	}
	return w.Run(ctx)
}
