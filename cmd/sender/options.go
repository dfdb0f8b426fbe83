// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"netsysrq/auth"
	"netsysrq/internal/exchange"
)

// command is one word after netsysrq.
type command struct {
	name     string
	operands []string // what stands after it; in brackets what may be left out
	flags    string   // the flags that mean something to it
	run      func(context.Context, world, *options) (int, error)
}

const (
	keyFlags  = " key passphrase passphrase-fd operator "
	hostFlags = keyFlags + " address port ipv4 ipv6 timeout json quiet verbose "
	runFlags  = hostFlags + " rehearse one-packet yes "
)

var commands = []command{
	{"keygen", nil, "key operator words count quiet", keygen},
	{"enroll", []string{"HOST"}, keyFlags + "allow quiet", enroll},
	{"status", []string{"HOST"}, hostFlags, askHost},
	{"send", []string{"HOST", "STEPS"}, runFlags, askHost},
	{"reboot", []string{"HOST"}, runFlags, askHost},
	{"cancel", []string{"HOST"}, hostFlags + "one-packet", askHost},
	{"drill", []string{"HOST", "[STEPS]"}, hostFlags, drill},
}

// takes is how many operands the command takes.
func (c *command) takes() (least, most int) {
	for _, name := range c.operands {
		if most++; name[0] != '[' {
			least++
		}
	}
	return least, most
}

// rebootSteps is what reboot means, and what a drill rehearses.
const rebootSteps = "n,s,u,b"

// options is the command line, checked.
type options struct {
	command *command
	host    string // normalized
	steps   []auth.Step
	topic   string // of help

	key           string
	passphrase    bool
	passphraseFD  int
	operator      string
	words         bool
	count         int
	allow         string
	address       string
	port          uint16
	ipv4, ipv6    bool
	timeout       time.Duration
	rehearse      bool
	onePacket     bool
	yes           bool
	json          bool
	quiet         bool
	verbose       bool
	help, version bool
}

func parse(args []string) (*options, error) {
	o := &options{}
	f := pflag.NewFlagSet("netsysrq", pflag.ContinueOnError)
	f.Usage = func() {}
	f.SortFlags = false
	f.StringVar(&o.key, "key", "", "")
	f.BoolVar(&o.passphrase, "passphrase", false, "")
	f.IntVar(&o.passphraseFD, "passphrase-fd", -1, "")
	f.StringVar(&o.operator, "operator", "", "")
	f.BoolVar(&o.words, "words", false, "")
	f.IntVar(&o.count, "count", 6, "")
	f.StringVar(&o.allow, "allow", "nsub", "")
	f.StringVar(&o.address, "address", "", "")
	f.Uint16Var(&o.port, "port", auth.Port, "")
	f.BoolVarP(&o.ipv4, "ipv4", "4", false, "")
	f.BoolVarP(&o.ipv6, "ipv6", "6", false, "")
	f.DurationVar(&o.timeout, "timeout", exchange.DefaultTimeout, "")
	f.BoolVar(&o.rehearse, "rehearse", false, "")
	f.BoolVar(&o.onePacket, "one-packet", false, "")
	f.BoolVarP(&o.yes, "yes", "y", false, "")
	f.BoolVar(&o.json, "json", false, "")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "")
	f.BoolVarP(&o.help, "help", "h", false, "")
	f.BoolVar(&o.version, "version", false, "")
	if err := f.Parse(args); err != nil {
		// The value given to --passphrase would be the passphrase.
		if e, ok := errors.AsType[*pflag.InvalidValueError](err); ok && e.GetFlag().Name == "passphrase" {
			return nil, usageError(errors.New("--passphrase takes no value: it is asked for"),
				"what stands on a command line is in its history and in the list of processes; choose another passphrase")
		}
		return nil, usageError(err, "netsysrq --help lists the flags")
	}
	args = f.Args()
	if o.help || o.version || len(args) > 0 && args[0] == "help" {
		if len(args) > 0 && args[0] == "help" {
			o.help, args = true, args[1:]
		}
		if len(args) > 0 {
			o.topic = args[0]
		}
		return o, nil
	}
	if len(args) == 0 {
		return nil, usageError(errNoCommand, "netsysrq --help tells what there is")
	}
	i := slices.IndexFunc(commands, func(c command) bool { return c.name == args[0] })
	if i < 0 {
		if o.passphrase {
			// Perhaps that is it.
			return nil, usageError(errors.New("unknown command"), "--passphrase takes no value: it is asked for")
		}
		return nil, usageError(fmt.Errorf("unknown command %q", args[0]), "netsysrq --help lists the commands")
	}
	o.command = &commands[i]
	return o, o.check(f, args[1:])
}

// check takes the operands and refuses flags that would be ignored.
func (o *options) check(f *pflag.FlagSet, operands []string) error {
	c := o.command
	if least, most := c.takes(); len(operands) < least || len(operands) > most {
		want := strings.Join(append([]string{"netsysrq", c.name}, c.operands...), " ")
		many := fmt.Sprint(most)
		if least < most {
			many = fmt.Sprintf("%d to %d", least, most)
		}
		return usageError(fmt.Errorf("%s takes %s operands, not %d", c.name, many, len(operands)), "write: "+want)
	}
	var err error
	known := strings.Fields(c.flags)
	f.Visit(func(fl *pflag.Flag) {
		if err == nil && !slices.Contains(known, fl.Name) {
			err = usageError(fmt.Errorf("--%s means nothing to %s", fl.Name, c.name), "netsysrq help "+c.name)
		}
	})
	if err != nil {
		return err
	}

	byPassphrase := o.passphrase || f.Changed("passphrase-fd")
	switch {
	case o.passphrase && f.Changed("passphrase-fd"):
		err = errors.New("--passphrase and --passphrase-fd exclude each other")
	case f.Changed("passphrase-fd") && o.passphraseFD < 0:
		err = errors.New("--passphrase-fd needs a file descriptor, such as 3 with 3<file")
	case byPassphrase && f.Changed("key"):
		err = errors.New("--key and a passphrase exclude each other")
	case f.Changed("key") && o.key == "":
		err = errors.New("--key needs a file name")
	case f.Changed("operator") && !byPassphrase && c.name != "keygen":
		err = errors.New("--operator goes with a passphrase; a key file has its own label")
	case o.words && (f.Changed("key") || f.Changed("operator")):
		err = errors.New("--words saves nothing and is for any label: it goes with neither --key nor --operator")
	case f.Changed("count") && !o.words:
		err = errors.New("--count goes with --words")
	case o.count < 5 || o.count > 12:
		err = errors.New("--count must be 5 to 12: fewer words can be guessed")
	case o.ipv4 && o.ipv6:
		err = errors.New("--ipv4 and --ipv6 exclude each other")
	case o.port == 0:
		err = errors.New("--port must be 1 to 65535")
	case o.timeout < exchange.MinTimeout || o.timeout > exchange.MaxTimeout:
		err = errors.New("--timeout must be 100ms to 1h")
	}
	if err != nil {
		return usageError(err, "netsysrq help "+c.name)
	}
	if o.operator != "" {
		if err := auth.CheckLabel(o.operator); err != nil {
			return usageError(err, "")
		}
	}
	if len(operands) > 0 {
		if o.host, err = auth.NormalizeHost(operands[0]); err != nil {
			hint := ""
			if strings.Contains(operands[0], ":") {
				hint = fmt.Sprintf("a key is made for a name: give the name under which the host was enrolled, and --address %s", operands[0])
			}
			return usageError(err, hint)
		}
	}
	switch c.name {
	case "send", "drill":
		steps := rebootSteps
		if len(operands) > 1 {
			steps = operands[1]
		}
		o.steps, err = auth.ParseSteps(steps)
	case "reboot":
		o.steps, err = auth.ParseSteps(rebootSteps)
	}
	if err != nil {
		return usageError(err, "netsysrq help send")
	}
	return nil
}
