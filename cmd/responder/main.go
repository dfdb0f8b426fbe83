// SPDX-License-Identifier: GPL-2.0-only

// Netsysrqd takes sealed requests for Magic SysRq from the network and carries
// them out. See usage.go, or run it without arguments.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"netsysrq/cmd/responder/internal/config"
	"netsysrq/cmd/responder/internal/hint"
	"netsysrq/internal/typo"
	"netsysrq/internal/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Exit codes. The usage text lists them.
const (
	exitOK      = 0
	exitNo      = 1 // an error, or this host would not obey
	exitUsage   = 2
	exitUnknown = 3 // check could not tell
)

// exit ends the command with a code and without a message.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// usageError is a mistake on the command line.
type usageError struct{ error }

func usagef(format string, a ...any) error { return usageError{fmt.Errorf(format, a...)} }

// command is one run of netsysrqd.
type command struct {
	config string // path of the configuration
	getenv func(string) string
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
}

func run(ctx context.Context, args []string, getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) int {
	c := &command{config.DefaultPath, getenv, stdin, stdout, stderr}
	err := c.dispatch(ctx, args)
	var code exit
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &usage):
		c.complain(err)
		if hint.Of(err) == "" {
			fmt.Fprintln(stderr, "hint: netsysrqd help")
		}
		return exitUsage
	}
	c.complain(err)
	return exitNo
}

// complain says what is wrong and, where that is known, what to do about it.
func (c *command) complain(err error) {
	fmt.Fprintf(c.stderr, "netsysrqd: %v\n", err)
	if text := hint.Of(err); text != "" {
		fmt.Fprintf(c.stderr, "hint: %s\n", c.advice(text))
	}
}

// advice is a text with the commands of netsysrqd that it names made to read
// the configuration that this one reads.
func (c *command) advice(text string) string {
	if c.config == config.DefaultPath {
		return text
	}
	return hint.WithConfig(text, c.config)
}

func (c *command) dispatch(ctx context.Context, args []string) error {
	// What follows the subcommand is the subcommand's.
	flags := pflag.NewFlagSet("netsysrqd", pflag.ContinueOnError)
	flags.SetInterspersed(false)
	showVersion := flags.BoolP("version", "V", false, "")
	args, err := c.parse(flags, args, -1)
	if err != nil {
		return err
	}
	if *showVersion {
		args = []string{"version"}
	}
	if len(args) == 0 {
		fmt.Fprint(c.stderr, usage)
		return exit(exitUsage)
	}
	name, args := args[0], args[1:]
	switch name {
	case "run":
		return c.daemon(ctx, args)
	case "check":
		return c.check(ctx, args)
	case "rules":
		return c.rules(ctx, args)
	case "keys":
		return c.keys(ctx, args)
	case "arm":
		return c.arm(ctx, args)
	case "disarm":
		return c.disarm(ctx, args)
	case "hand-over":
		return c.handOver(args)
	case "status":
		return c.status(args)
	case "load-keys":
		return c.loadKeys(ctx, args)
	case "help":
		return c.help(args)
	case "version":
		fmt.Fprintln(c.stdout, "netsysrqd", version.String())
		return nil
	}
	return unknown(usagef("unknown command %q", name), name, commands())
}

// help prints what there is to know of a command, or of all of them.
func (c *command) help(args []string) error {
	if len(args) == 0 {
		fmt.Fprint(c.stdout, usage)
		return nil
	}
	if !slices.Contains(commands(), args[0]) {
		return unknown(usagef("help: unknown command %q", args[0]), args[0], commands())
	}
	fmt.Fprint(c.stdout, usageOf(args[0]))
	return nil
}

// unknown adds to an error what may have been meant.
func unknown(err error, word string, known []string) error {
	if meant := typo.Hint(word, known); meant != "" {
		return hint.Add(err, meant)
	}
	return err
}

// parse reads flags, among them those that every command has, and returns what
// is left: at most so many arguments, or any number for -1.
func (c *command) parse(flags *pflag.FlagSet, args []string, most int) ([]string, error) {
	flags.StringVarP(&c.config, "config", "c", c.config, "")
	flags.Usage = func() {}
	err := flags.Parse(args)
	var missing *pflag.NotExistError
	switch {
	case errors.Is(err, pflag.ErrHelp):
		fmt.Fprint(c.stdout, usageOf(flags.Name()))
		return nil, exit(exitOK)
	case errors.As(err, &missing):
		var known []string
		flags.VisitAll(func(f *pflag.Flag) { known = append(known, "--"+f.Name) })
		return nil, unknown(usageError{err}, "--"+missing.GetSpecifiedName(), known)
	case err != nil:
		return nil, usageError{err}
	}
	if most >= 0 && flags.NArg() > most {
		return nil, usagef("%s: unexpected argument %q", flags.Name(), flags.Arg(most))
	}
	return flags.Args(), nil
}

func newFlags(name string) *pflag.FlagSet { return pflag.NewFlagSet(name, pflag.ContinueOnError) }

// daemon runs until the context ends.
func (c *command) daemon(ctx context.Context, args []string) error {
	if _, err := c.parse(newFlags("run"), args, 0); err != nil {
		return err
	}
	cfg, err := config.Load(c.config)
	if err != nil {
		return err
	}
	return runDaemon(ctx, cfg, c.config, c.stderr)
}

// subcommand splits "keys add ..." and the like.
func (c *command) subcommand(name string, args []string, known ...string) (string, []string, error) {
	flags := newFlags(name)
	flags.SetInterspersed(false)
	args, err := c.parse(flags, args, -1)
	if err != nil {
		return "", nil, err
	}
	list := strings.Join(known, ", ")
	if len(args) == 0 {
		return "", nil, usagef("%s: say which: %s", name, list)
	}
	if !slices.Contains(known, args[0]) {
		return "", nil, unknown(usagef("%s: unknown command %q, known are: %s", name, args[0], list), args[0], known)
	}
	return args[0], args[1:], nil
}
