// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"netsysrq/auth"
	"netsysrq/internal/exchange"
	"netsysrq/internal/fleet/hosts"
	"netsysrq/internal/typo"
)

// command is one word after netsysrq.
type command struct {
	name     string
	operands []string // what stands after it; in brackets what may be left out, with dots what may be repeated
	flags    string   // the flags that mean something to it
	run      func(context.Context, world, *options) (int, error)
}

const (
	keyFlags  = " key passphrase passphrase-fd operator hosts "
	hostFlags = keyFlags + " address port ipv4 ipv6 timeout parallel json quiet verbose "
	runFlags  = hostFlags + " rehearse one-packet yes dry-run wait rolling "
)

var commands = []command{
	{"keygen", nil, "key operator words count quiet", keygen},
	{"enroll", []string{"HOST"}, keyFlags + "allow quiet", enroll},
	{"status", []string{"HOST..."}, hostFlags + "watch", askHosts},
	{"send", []string{"HOST...", "STEPS"}, runFlags, askHosts},
	{"reboot", []string{"HOST..."}, runFlags, askHosts},
	{"cancel", []string{"HOST..."}, hostFlags + "one-packet", askHosts},
	{"drill", []string{"HOST...", "[STEPS]"}, hostFlags + "overdue", drillHosts},
	{"explain", []string{"[STEPS]"}, "json", explain},
	{"log", []string{"HOST..."}, hostFlags + "tail all follow", kernelLog},
	{"run", []string{"HOST...", "KEYS"}, hostFlags, dump},
	{"version", nil, "", printVersion},
}

// takes is how many operands the command takes; many is for no limit.
func (c *command) takes() (least, most int) {
	for _, name := range c.operands {
		if most++; name[0] != '[' {
			least++
		}
	}
	for _, name := range c.operands {
		if strings.HasSuffix(name, "...") {
			most = many
		}
	}
	return least, most
}

const many = 1 << 30

// rebootSteps is what reboot means, and what a drill rehearses.
const rebootSteps = "n,s,u,b"

// options is the command line, checked.
type options struct {
	command *command
	hosts   []string // names, normalized, patterns and groups
	steps   []auth.Step
	topic   string // of help
	flags   *pflag.FlagSet
	// stepsText is the steps as they were written.
	stepsText string
	// doubtful is the last operand of a drill, which may be steps or a host;
	// the list of hosts tells.
	doubtful string

	key           string
	passphrase    bool
	passphraseFD  int
	operator      string
	words         bool
	count         int
	allow         string
	hostsFile     string
	address       string
	port          uint16
	portSet       bool
	ipv4, ipv6    bool
	timeout       time.Duration
	timeoutSet    bool
	parallel      int
	watch         time.Duration // 0: once
	wait          time.Duration // 0: not
	rolling       int           // 0: not
	overdue       time.Duration // 0: drill
	rehearse      bool
	dryRun        bool
	onePacket     bool
	yes           bool
	json          bool
	quiet         bool
	verbose       bool
	tail          string
	tailBytes     int // 0: all
	all, follow   bool
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
	f.StringVar(&o.hostsFile, "hosts", "", "")
	f.StringVar(&o.address, "address", "", "")
	f.Uint16Var(&o.port, "port", auth.Port, "")
	f.BoolVarP(&o.ipv4, "ipv4", "4", false, "")
	f.BoolVarP(&o.ipv6, "ipv6", "6", false, "")
	f.DurationVar(&o.timeout, "timeout", exchange.DefaultTimeout, "")
	f.IntVar(&o.parallel, "parallel", defaultParallel, "")
	f.DurationVar(&o.watch, "watch", 0, "")
	f.Lookup("watch").NoOptDefVal = defaultWatch
	f.DurationVar(&o.wait, "wait", 0, "")
	f.Lookup("wait").NoOptDefVal = defaultWait
	f.IntVar(&o.rolling, "rolling", 0, "")
	f.Var((*days)(&o.overdue), "overdue", "")
	f.BoolVar(&o.rehearse, "rehearse", false, "")
	f.BoolVar(&o.dryRun, "dry-run", false, "")
	f.BoolVar(&o.onePacket, "one-packet", false, "")
	f.BoolVarP(&o.yes, "yes", "y", false, "")
	f.BoolVar(&o.json, "json", false, "")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "")
	f.StringVar(&o.tail, "tail", defaultTail, "")
	f.BoolVar(&o.all, "all", false, "")
	f.BoolVarP(&o.follow, "follow", "f", false, "")
	f.BoolVarP(&o.help, "help", "h", false, "")
	f.BoolVar(&o.version, "version", false, "")
	if err := f.Parse(joined(args)); err != nil {
		return nil, flagError(f, err)
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
		known := []string{"help"}
		for _, c := range commands {
			known = append(known, c.name)
		}
		return nil, usageError(fmt.Errorf("unknown command %q", args[0]), cmp.Or(typo.Hint(args[0], known), "netsysrq --help lists the commands"))
	}
	o.command = &commands[i]
	return o, o.check(f, args[1:])
}

// flagError explains a flag that cannot be read.
func flagError(f *pflag.FlagSet, err error) error {
	if e, ok := errors.AsType[*pflag.NotExistError](err); ok {
		var known []string
		f.VisitAll(func(fl *pflag.Flag) { known = append(known, "--"+fl.Name) })
		return usageError(err, cmp.Or(typo.Hint("--"+e.GetSpecifiedName(), known), "netsysrq --help lists the flags"))
	}
	e, ok := errors.AsType[*pflag.InvalidValueError](err)
	if !ok {
		return usageError(err, "netsysrq --help lists the flags")
	}
	name, value := e.GetFlag().Name, e.GetValue()
	_, notNumber := strconv.Atoi(value)
	switch kind := e.GetFlag().Value.Type(); {
	case name == "passphrase":
		// The value would be the passphrase.
		return usageError(errors.New("--passphrase takes no value: it is asked for"),
			"what stands on a command line is in its history and in the list of processes; choose another passphrase")
	case name == "port":
		return usageError(errPort, "netsysrq --help lists the flags")
	case kind == "duration" && notNumber == nil:
		return unitError(name, value)
	}
	return usageError(err, "netsysrq --help lists the flags")
}

var errPort = errors.New("--port must be 1 to 65535")

// unitError refuses a time without a unit.
func unitError(flag, number string) error {
	units := number + "m or " + number + "s"
	if flag == "overdue" {
		units = number + "d or " + number + "h"
	}
	return usageError(fmt.Errorf("--%s %s: %s of what?", flag, number, number), "write "+units)
}

// check takes the operands and refuses flags that would be ignored.
func (o *options) check(f *pflag.FlagSet, operands []string) error {
	c := o.command
	o.flags = f
	o.portSet, o.timeoutSet = f.Changed("port"), f.Changed("timeout")
	if least, most := c.takes(); !f.Changed("overdue") && len(operands) < least || len(operands) > most {
		want := strings.Join(append([]string{"netsysrq", c.name}, c.operands...), " ")
		number := fmt.Sprint(most)
		switch {
		case most == many:
			number = fmt.Sprintf("%d or more", least)
		case least < most:
			number = fmt.Sprintf("%d to %d", least, most)
		}
		if number += " operands"; most == 1 {
			number = strings.TrimSuffix(number, "s")
		}
		return usageError(fmt.Errorf("%s takes %s, not %d", c.name, number, len(operands)), "write: "+want)
	}
	var err error
	known := strings.Fields(c.flags)
	f.Visit(func(fl *pflag.Flag) {
		if err == nil && !slices.Contains(known, fl.Name) {
			err = usageError(fmt.Errorf("%s has no --%s", c.name, fl.Name), "netsysrq help "+c.name)
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
		err = errPort
	case o.timeout < exchange.MinTimeout || o.timeout > exchange.MaxTimeout:
		err = errors.New("--timeout must be 100ms to 1h")
	default:
		if err = o.checkMany(f); err == nil {
			err = o.checkTail(f)
		}
	}
	if err != nil {
		return usageError(err, "netsysrq help "+c.name)
	}
	if o.operator != "" {
		if err := auth.CheckLabel(o.operator); err != nil {
			return usageError(err, "")
		}
	}
	if err := o.take(operands); err != nil {
		if o.passphrase && len(operands) > 1 {
			return errPassphraseShown
		}
		return err
	}
	return nil
}

// errPassphraseShown is told in place of an error that would show an operand
// where that may be the passphrase.
var errPassphraseShown = usageError(errors.New("an operand is neither a host of the list nor steps"), "--passphrase takes no value: it is asked for")

// same are the flags of this command line that lead another one to the same
// hosts by the same key, written for a shell.
func (o *options) same() (out string) {
	o.flags.Visit(func(f *pflag.Flag) {
		switch f.Name {
		case "operator":
			if o.command.name == "keygen" {
				return // the file has it from then on
			}
		case "key", "passphrase", "passphrase-fd", "hosts", "address", "port", "ipv4", "ipv6", "allow":
		default:
			return
		}
		out += " --" + f.Name
		if f.NoOptDefVal == "" {
			out += " " + quoted(f.Value.String())
		}
	})
	return out
}

// quoted writes a word so that a shell takes it as it is.
func quoted(word string) string {
	if word != "" && strings.Trim(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:@%+,") == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// checkMany refuses what can't be meant of the flags for many hosts and for
// waiting.
func (o *options) checkMany(f *pflag.FlagSet) error {
	switch {
	case f.Changed("hosts") && o.hostsFile == "":
		return errors.New("--hosts needs a file name")
	case o.parallel < 1 || o.parallel > 1_000_000:
		return errors.New("--parallel must be 1 or more")
	case f.Changed("watch") && (o.watch < 100*time.Millisecond || o.watch > 24*time.Hour):
		return errors.New("--watch must be 100ms to 24h")
	case f.Changed("wait") && (o.wait < time.Second || o.wait > 24*time.Hour):
		return errors.New("--wait must be 1s to 24h")
	case f.Changed("rolling") && o.rolling < 1:
		return errors.New("--rolling must be 1 or more: at most N hosts at once")
	case f.Changed("rolling") && f.Changed("parallel"):
		return errors.New("--rolling and --parallel exclude each other")
	case o.follow && f.Changed("parallel"):
		return errors.New("--follow and --parallel exclude each other: all hosts are read at once")
	case (f.Changed("wait") || f.Changed("rolling")) && o.rehearse:
		return errors.New("--rehearse reboots nothing that --wait or --rolling could wait for")
	}
	if logs := o.command.name == "log" || o.command.name == "run"; logs && !f.Changed("parallel") {
		o.parallel = logParallel
	}
	if f.Changed("rolling") && o.wait == 0 {
		o.wait, _ = time.ParseDuration(defaultWait)
	}
	return nil
}

// checkTail finds out how much of a log is wanted.
func (o *options) checkTail(f *pflag.FlagSet) (err error) {
	if o.all {
		if f.Changed("tail") {
			return errors.New("--all and --tail exclude each other")
		}
		return nil
	}
	o.tailBytes, err = parseSize(o.tail)
	return err
}

// take takes the operands.
func (o *options) take(operands []string) (err error) {
	named := false // steps are
	switch o.command.name {
	case "keygen", "version":
		return nil
	case "explain":
		if len(operands) == 0 {
			return nil
		}
		o.stepsText, operands, named = operands[0], nil, true
	case "send", "run":
		o.stepsText, operands, named = operands[len(operands)-1], operands[:len(operands)-1], true
	case "reboot":
		o.stepsText, named = rebootSteps, true
	case "drill":
		if o.overdue > 0 {
			break
		}
		o.stepsText, named = rebootSteps, true
		if last := len(operands) - 1; last >= 1 && (operands[last] == "" || strings.ContainsAny(operands[last], ",:")) {
			o.stepsText, operands = operands[last], operands[:last]
		} else if last >= 1 && isSteps(operands[last]) {
			o.doubtful, operands = operands[last], operands[:last]
		}
	}
	for _, host := range operands {
		if hosts.IsOne(host) {
			name, err := auth.NormalizeHost(host)
			if err != nil {
				hint := ""
				if strings.Contains(host, ":") {
					hint = fmt.Sprintf("a key is made for a name: give the name under which the host was enrolled, and --address %s", host)
				}
				return usageError(err, hint)
			}
			host = name
		} else if o.command.name == "enroll" {
			return usageError(errors.New("enroll takes one name: each line is for one host"), "")
		}
		o.hosts = append(o.hosts, host)
	}
	if o.address != "" && !o.single() {
		return usageError(errors.New("--address is for one host; the list of hosts has the addresses of many"), "")
	}
	if named {
		if o.steps, err = parseSteps(o.stepsText); err != nil {
			return err
		}
	}
	if o.command.name == "run" {
		return checkDumps(o.steps)
	}
	if o.wait > 0 && !slices.ContainsFunc(o.steps, func(s auth.Step) bool { return s.Key == 'b' || s.Key == 'c' }) {
		return usageError(errors.New("--wait and --rolling wait for a machine that restarts: the steps need b or c"), "netsysrq explain b,c,o")
	}
	return nil
}

// single reports whether one host is named, rather than a pattern, a group or
// several.
func (o *options) single() bool { return len(o.hosts) == 1 && hosts.IsOne(o.hosts[0]) }

const (
	// defaultParallel is how many hosts are asked at once. Each costs a few
	// kilobytes and a packet a second, and sockets are shared.
	defaultParallel = 10_000
	defaultWatch    = "2s"
	defaultWait     = "10m"
	defaultTail     = "64K"
)

// joined joins --watch and --wait with a duration that follows them, so that
// both forms of writing work though the duration may be left out. A number is
// joined too: it lacks a unit, and must not become a host.
func joined(args []string) (out []string) {
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			return append(out, args[i:]...)
		}
		if (arg == "--watch" || arg == "--wait") && i+1 < len(args) {
			_, notTime := time.ParseDuration(args[i+1])
			_, notNumber := strconv.Atoi(args[i+1])
			if notTime == nil || notNumber == nil {
				i++
				arg += "=" + args[i]
			}
		}
		out = append(out, arg)
	}
	return out
}

// days is a time.Duration that can also be written in days: 30d.
type days time.Duration

func (d *days) String() string { return time.Duration(*d).String() }
func (d *days) Type() string   { return "duration" }

// Set reads a flag.
func (d *days) Set(s string) error {
	var v time.Duration
	var err error
	if n, ok := strings.CutSuffix(s, "d"); ok {
		var whole int
		whole, err = strconv.Atoi(n)
		v = time.Duration(min(whole, 100_000)) * 24 * time.Hour
	} else {
		v, err = time.ParseDuration(s)
	}
	if err != nil || v <= 0 {
		return errors.New("write it like 30d or 12h")
	}
	*d = days(v)
	return nil
}
