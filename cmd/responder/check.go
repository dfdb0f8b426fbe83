// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"fmt"

	"netsysrq/cmd/responder/internal/check"
)

func (c *command) check(ctx context.Context, args []string) error {
	flags := newFlags("check")
	asJSON := flags.Bool("json", false, "")
	quiet := flags.BoolP("quiet", "q", false, "")
	if _, err := c.parse(flags, args, 0); err != nil {
		return err
	}
	report := check.This().Run(ctx, c.config, c.getenv("PATH"))
	switch {
	case *quiet:
	case *asJSON:
		err := c.printJSON(struct {
			V int `json:"v"`
			*check.Report
			Text string `json:"text"`
		}{1, report, report.Sentence()})
		if err != nil {
			return err
		}
	default:
		for _, f := range report.Findings {
			fmt.Fprintf(c.stdout, "%-7s  %-20s  %s\n", f.State, f.Name, f.Text)
			if f.Hint != "" && f.State != check.OK {
				fmt.Fprintf(c.stdout, "%31s %s\n", "->", f.Hint)
			}
		}
		fmt.Fprintln(c.stdout, report.Sentence())
	}
	switch report.Verdict {
	case check.Obey:
		return nil
	case check.NoIdea:
		return exit(exitUnknown)
	}
	return exit(exitNo)
}
