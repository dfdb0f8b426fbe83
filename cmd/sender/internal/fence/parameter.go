// SPDX-License-Identifier: GPL-2.0-only

package fence

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"netsysrq/auth"
	"netsysrq/internal/exchange"
)

// Where the agent looks for what is not named.
const (
	defaultKey   = "/etc/netsysrq/fence.key"
	defaultHosts = "/etc/netsysrq/hosts.toml"
)

// options are what a call says.
type options struct {
	action                     string
	plug, node                 string
	ip                         string
	port                       uint16
	ipv4, ipv6                 bool
	key, hosts                 string // empty: the defaults
	steps                      string
	loginTimeout, powerTimeout time.Duration
	silenceAsOff               time.Duration
	delay                      time.Duration
	quiet, verbose             bool
	help, version              bool
}

// parameter is one that the agent takes, on standard input and as a flag.
type parameter struct {
	name     string
	flag     string // empty: on standard input alone
	short    string
	kind     string // string, integer, second, boolean
	standard string // the value if it is not given
	replaces string // the older name of the same
	replaced bool   // it is an older name
	hidden   bool   // not in the metadata: the manager sets it by itself
	text     string
	value    func(*options) any
}

// parameters are all of them, with the names that the fence agents of others
// have.
var parameters = []parameter{
	{name: "action", flag: "action", short: "o", kind: "string", standard: "reboot",
		text: "What to do: reboot, off, status, monitor, list, validate-all, metadata", value: func(o *options) any { return &o.action }},
	{name: "plug", flag: "plug", short: "n", kind: "string", replaces: "port",
		text: "Name of the node: that of the list of hosts, or else the one under which it was enrolled", value: func(o *options) any { return &o.plug }},
	{name: "port", kind: "string", replaced: true,
		text: "Older name of plug", value: func(o *options) any { return &o.plug }},
	{name: "nodename", kind: "string", hidden: true, value: func(o *options) any { return &o.node }},
	{name: "ip", flag: "ip", short: "a", kind: "string", replaces: "ipaddr",
		text: "Address of the node, in place of that of the list of hosts", value: func(o *options) any { return &o.ip }},
	{name: "ipaddr", kind: "string", replaced: true,
		text: "Older name of ip", value: func(o *options) any { return &o.ip }},
	{name: "ipport", flag: "ipport", short: "u", kind: "integer",
		text: "UDP port of the node, in place of that of the list of hosts or 9", value: func(o *options) any { return &o.port }},
	{name: "inet4_only", flag: "inet4-only", short: "4", kind: "boolean",
		text: "Use IPv4 addresses only", value: func(o *options) any { return &o.ipv4 }},
	{name: "inet6_only", flag: "inet6-only", short: "6", kind: "boolean",
		text: "Use IPv6 addresses only", value: func(o *options) any { return &o.ipv6 }},
	{name: "key_file", flag: "key-file", short: "k", kind: "string",
		text: "File of the master key, as netsysrq keygen writes it, in place of that of the list of hosts or " + defaultKey, value: func(o *options) any { return &o.key }},
	{name: "hosts_file", flag: "hosts-file", kind: "string", standard: defaultHosts,
		text: "List of hosts; only one that is named here must be there", value: func(o *options) any { return &o.hosts }},
	{name: "steps", flag: "steps", kind: "string", standard: "n,s:2s,u:2s,b",
		text: "SysRq keys for reboot, with bounds for s and u; the last one is b, or c for a crash dump", value: func(o *options) any { return &o.steps }},
	{name: "login_timeout", flag: "login-timeout", kind: "second", standard: "10",
		text: "Seconds to wait until the node has accepted", value: func(o *options) any { return &o.loginTimeout }},
	{name: "power_timeout", flag: "power-timeout", kind: "second", standard: "600",
		text: "Seconds to wait, once the node has accepted, until it answers with another boot id: more than it takes to boot. Pacemaker ends the agent after pcmk_reboot_timeout, 60 seconds unless that is set: it must be longer than a boot too", value: func(o *options) any { return &o.powerTimeout }},
	{name: "silence_as_off", flag: "silence-as-off", kind: "second", standard: "0",
		text: "Seconds, 30 at least, of silence after which a node that has accepted off is called off. This is no proof: see the description. 0: off fails, and nothing is sent", value: func(o *options) any { return &o.silenceAsOff }},
	{name: "delay", flag: "delay", kind: "second", standard: "0",
		text: "Seconds to wait before reboot and off are begun", value: func(o *options) any { return &o.delay }},
	{name: "quiet", flag: "quiet", short: "q", kind: "boolean",
		text: "Write nothing to standard error", value: func(o *options) any { return &o.quiet }},
	{name: "verbose", flag: "verbose", short: "v", kind: "boolean",
		text: "Tell of every packet on standard error", value: func(o *options) any { return &o.verbose }},
	{name: "version", flag: "version", short: "V", kind: "boolean",
		text: "Print the version", value: func(o *options) any { return &o.version }},
	{name: "help", flag: "help", short: "h", kind: "boolean",
		text: "Print the options", value: func(o *options) any { return &o.help }},
}

// newOptions returns the defaults.
func newOptions() *options {
	o := &options{}
	for _, p := range parameters {
		if p.standard == "" || p.name == "hosts_file" { // one that is named must be there
			continue
		}
		if err := p.set(o, p.standard); err != nil {
			panic(err) // the table is wrong
		}
	}
	return o
}

// set takes a value.
func (p *parameter) set(o *options, value string) error {
	var err error
	switch v := p.value(o).(type) {
	case *string:
		*v = value
	case *bool:
		*v, err = parseBool(value)
	case *uint16:
		var n uint64
		n, err = strconv.ParseUint(value, 10, 16)
		*v = uint16(n)
		if err != nil || n == 0 {
			err = errors.New("it must be 1 to 65535")
		}
	case *time.Duration:
		*v, err = parseSeconds(value)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	return nil
}

func parseBool(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "1", "yes", "on", "true":
		return true, nil
	case "0", "no", "off", "false":
		return false, nil
	}
	return false, errors.New("it must be 1 or 0")
}

// parseSeconds reads seconds, with or without their unit.
func parseSeconds(s string) (time.Duration, error) {
	const most = 24 * 60 * 60
	n, err := strconv.ParseFloat(strings.TrimSuffix(s, "s"), 64)
	if err != nil || !(n >= 0 && n <= most) {
		return 0, fmt.Errorf("it must be a number of seconds, at most %d", most)
	}
	return time.Duration(n * float64(time.Second)), nil
}

// parseFlags reads a command line.
func parseFlags(args []string) (*options, error) {
	o := newOptions()
	f := pflag.NewFlagSet(Name, pflag.ContinueOnError)
	f.Usage = func() {}
	for i := range parameters {
		p := &parameters[i]
		if p.flag == "" {
			continue
		}
		f.VarP(&flagValue{p, o}, p.flag, p.short, "")
		if p.kind == "boolean" {
			f.Lookup(p.flag).NoOptDefVal = "1"
		}
	}
	if err := f.Parse(args); err != nil {
		return nil, fmt.Errorf("%w; %s --help lists the options", err, Name)
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("there is nothing to be named but by options; %s --help lists them", Name)
	}
	return o, nil
}

// flagValue makes a flag of a parameter.
type flagValue struct {
	*parameter
	o *options
}

func (v *flagValue) String() string     { return v.standard }
func (v *flagValue) Type() string       { return v.kind }
func (v *flagValue) Set(s string) error { return v.set(v.o, s) }

// maxInput bounds what is read of standard input.
const maxInput = 1 << 20

// parseInput reads lines name=value, as cluster managers write them. What it
// does not know is ignored: a manager may give an agent more than it asked for.
// warn is told the names, never the values, which may be secrets.
func parseInput(r io.Reader, warn func(format string, args ...any)) (*options, error) {
	o := newOptions()
	lines := bufio.NewScanner(io.LimitReader(r, maxInput))
	lines.Buffer(nil, maxInput)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			warn("line %d of the options is ignored: it has no =", n)
			continue
		}
		name = strings.ReplaceAll(strings.TrimSpace(name), "-", "_")
		value = strings.TrimSpace(value)
		if len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"' {
			value = value[1 : len(value)-1]
		}
		i := slices.IndexFunc(parameters, func(p parameter) bool { return p.name == name })
		switch {
		case i < 0:
			warn("option %.40q is ignored: it is not known", name)
		case value == "" && parameters[i].kind != "string":
			warn("option %s is ignored: it has no value", name)
		default:
			if err := parameters[i].set(o, value); err != nil {
				return nil, err
			}
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the options: %w", err)
	}
	return o, nil
}

// leastSilence is how long a node that was told to power off must be silent, at
// least: it may take its time to do so.
const leastSilence = 30 * time.Second

// check refuses what can't be meant.
func (o *options) check() error {
	switch {
	case o.ipv4 && o.ipv6:
		return errors.New("inet4_only and inet6_only exclude each other")
	case o.loginTimeout < exchange.MinTimeout || o.loginTimeout > exchange.MaxTimeout:
		return errors.New("login_timeout: it must be 0.1 to 3600")
	case o.powerTimeout < time.Second:
		return errors.New("power_timeout: it must be 1 or more")
	case o.silenceAsOff != 0 && o.silenceAsOff < leastSilence:
		return errors.New("silence_as_off: it must be 0, or 30 or more: a node takes its time to power off")
	}
	_, err := o.sequence()
	return err
}

// sequence is what reboot runs, and off with o in place of the last step.
func (o *options) sequence() ([]auth.Step, error) {
	steps, err := auth.ParseSteps(o.steps)
	if err != nil {
		return nil, fmt.Errorf("steps: %w", err)
	}
	last := len(steps) - 1
	for i, s := range steps {
		if restarts := strings.IndexByte("bco", s.Key) >= 0; restarts != (i == last) || s.Key == 'o' {
			return nil, errors.New("steps: b, or c for a crash dump, must be the last one and the only one that stops the machine")
		}
	}
	if o.action == "off" {
		steps[last] = auth.Step{Key: 'o'}
	}
	return steps, nil
}
