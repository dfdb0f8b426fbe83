// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"netsysrq/auth"
	"netsysrq/cmd/responder/internal/config"
	"netsysrq/cmd/responder/internal/module"
	"netsysrq/cmd/responder/internal/rules"
)

func (c *command) rules(ctx context.Context, args []string) error {
	name, args, err := c.subcommand("rules", args, "print", "apply", "remove", "watch")
	if err != nil {
		return err
	}
	switch name {
	case "print":
		return c.rulesPrint(args)
	case "watch":
		return c.rulesWatch(ctx, args)
	}
	if _, err := c.parse(newFlags("rules "+name), args, 0); err != nil {
		return err
	}
	if name == "apply" {
		_, err := c.applyRules(ctx)
		return err
	}
	return c.removeRules(ctx)
}

// applyRules puts the rules in place. It reports whether they lead past the
// kernel module, which then holds no keys: the daemon answers nothing that an
// armed module is there for.
func (c *command) applyRules(ctx context.Context) (past bool, err error) {
	set, err := c.ruleSet()
	if err != nil {
		return false, err
	}
	applied, err := set.Apply(ctx)
	c.tell(applied, "in place now")
	err = asRoot(err)
	if slices.ContainsFunc(applied, func(r rules.Result) bool { return r.Past }) {
		past = true
		removed, derr := disarmModule()
		if len(removed) > 0 {
			fmt.Fprintln(c.stderr, "netsysrqd: no rule leads to the kernel module: its keys were taken out, the daemon answers and acts alone")
		}
		err = errors.Join(err, derr)
	}
	return past, err
}

// disarmModule takes all keys out of the kernel module.
func disarmModule() ([]auth.KeyID, error) {
	m, err := dialModule()
	if err != nil {
		return nil, err
	}
	defer m.Close()
	removed, _, err := module.ReplaceKeys(m, nil, true)
	return removed, err
}

func (c *command) removeRules(ctx context.Context) error {
	set, err := c.ruleSet()
	if err != nil {
		// What is to be removed does not depend on the configuration, and a
		// broken one must not keep a rule in place.
		set = rules.Set{Backend: "auto", Path: c.getenv("PATH")}
	}
	removed, err := set.Remove(ctx)
	c.tell(removed, "removed")
	return asRoot(err)
}

// rulesLeadPast reports whether the rules in place keep packets from the kernel
// module. Where that cannot be found out they do not.
func (c *command) rulesLeadPast(ctx context.Context) bool {
	set, err := c.ruleSet()
	if err != nil || !set.Kernel {
		return false
	}
	past, err := set.LeadPast(ctx)
	return err == nil && past
}

func (c *command) ruleSet() (rules.Set, error) {
	cfg, err := config.Load(c.config)
	if err != nil {
		return rules.Set{}, err
	}
	return rulesOf(cfg, c.getenv("PATH")), nil
}

// rulesOf are the rules that a configuration asks for on this host as it is.
func rulesOf(cfg *config.Config, path string) rules.Set {
	return rules.Set{Port: cfg.Port, Queue: cfg.Queue, AllowFrom: cfg.AllowFrom, Backend: cfg.Iptables,
		Kernel: rules.ModuleLoaded(), Path: path}
}

func (c *command) tell(results []rules.Result, done string) {
	for _, r := range results {
		where := fmt.Sprintf("%v (iptables-%s)", r.Family, r.Backend)
		switch {
		case r.Changed:
			fmt.Fprintf(c.stdout, "%s: %s\n", where, done)
		case r.Warning == "":
			fmt.Fprintf(c.stdout, "%s: was in place already\n", where)
		}
		if r.Warning != "" {
			fmt.Fprintf(c.stderr, "netsysrqd: %s: warning: %s\n", where, r.Warning)
		}
	}
}

func (c *command) rulesPrint(args []string) error {
	flags := newFlags("rules print")
	only4 := flags.BoolP("ipv4", "4", false, "")
	only6 := flags.BoolP("ipv6", "6", false, "")
	if _, err := c.parse(flags, args, 0); err != nil {
		return err
	}
	if *only4 && *only6 {
		return usageError{errors.New("rules print: --ipv4 and --ipv6 exclude each other")}
	}
	set, err := c.ruleSet()
	if err != nil {
		return err
	}
	if !*only6 {
		fmt.Fprintf(c.stdout, "# iptables-restore --noflush\n%s", set.Text(rules.IPv4))
	}
	if !*only4 {
		fmt.Fprintf(c.stdout, "# ip6tables-restore --noflush\n%s", set.Text(rules.IPv6))
	}
	return nil
}
