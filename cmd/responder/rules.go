// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"

	"netsysrq/cmd/responder/internal/config"
	"netsysrq/cmd/responder/internal/rules"
)

func (c *command) rules(ctx context.Context, args []string) error {
	name, args, err := subcommand("rules", args, "print", "apply", "remove", "watch")
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
	set, err := c.ruleSet()
	if name == "remove" && err != nil {
		// What is to be removed does not depend on the configuration, and a
		// broken one must not keep a rule in place.
		set, err = rules.Set{Backend: "auto", Path: c.getenv("PATH")}, nil
	}
	if err != nil {
		return err
	}
	if name == "remove" {
		removed, err := set.Remove(ctx)
		c.tell(removed, "removed")
		return asRoot(err)
	}
	applied, err := set.Apply(ctx)
	c.tell(applied, "in place now")
	return asRoot(err)
}

func (c *command) ruleSet() (rules.Set, error) {
	cfg, err := config.Load(c.config)
	if err != nil {
		return rules.Set{}, err
	}
	return rules.Set{Port: cfg.Port, Queue: cfg.Queue, AllowFrom: cfg.AllowFrom, Backend: cfg.Iptables,
		Kernel: rules.ModuleLoaded(), Path: c.getenv("PATH")}, nil
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
