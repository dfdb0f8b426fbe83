// SPDX-License-Identifier: GPL-2.0-only

package fence

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/exchange"
	"netsysrq/internal/fleet/hosts"
	"netsysrq/internal/fleet/lookup"
	"netsysrq/internal/version"
)

// Name is the name that the command is called by as a fence agent.
const Name = "fence_netsysrq"

// Exit codes, those of the fence agents.
const (
	exitOK      = 0
	exitFailure = 1
)

// World is what the agent touches outside itself.
type World struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Master reads a file with a master key.
	Master func(path string) (auth.Master, error)
	Home   string         // stands for ~ in the list of hosts
	State  string         // folder for what a call leaves to the next one
	Clock  exchange.Clock // zero: exchange.SystemClock
	Dial   exchange.Dial  // nil: exchange.DialUDP
}

// agent is one call.
type agent struct {
	w World
	o *options
}

// Run is the command, and returns its exit code.
func Run(ctx context.Context, args []string, w World) int {
	a := &agent{w: w, o: newOptions()}
	var err error
	if len(args) > 0 {
		a.o, err = parseFlags(args)
	} else {
		a.o, err = parseInput(w.Stdin, a.note)
	}
	if err == nil {
		err = a.run(ctx)
	}
	if err != nil {
		if a.o == nil {
			a.o = newOptions()
		}
		a.note("%v", err)
		return exitFailure
	}
	return exitOK
}

// note tells something on standard error, where managers look for it.
func (a *agent) note(format string, args ...any) {
	if !a.o.quiet {
		fmt.Fprintf(a.w.Stderr, Name+": "+format+"\n", args...)
	}
}

func (a *agent) say(line string) { fmt.Fprintln(a.w.Stdout, line) }

func (a *agent) run(ctx context.Context) error {
	o := a.o
	o.action = strings.ToLower(o.action)
	switch {
	case o.help:
		printHelp(a.w.Stdout)
		return nil
	case o.version:
		a.say(Name + " " + version.String())
		return nil
	case o.action == "metadata" || o.action == "meta-data":
		return printMetadata(a.w.Stdout)
	case o.action == "on":
		return errors.New("on is not possible: nothing listens on a machine that is off")
	}
	if err := o.check(); err != nil {
		return err
	}
	list, err := a.hosts()
	if err != nil {
		return err
	}
	switch o.action {
	case "reboot":
		return a.withTarget(ctx, list, a.reboot)
	case "off":
		if o.silenceAsOff == 0 {
			return errors.New("off is not tried: a machine that is off cannot prove it; use reboot, or see silence_as_off in " + Name + "(8)")
		}
		return a.withTarget(ctx, list, a.off)
	case "status":
		return a.withTarget(ctx, list, a.status)
	case "monitor", "validate-all":
		return a.validate(list)
	case "list":
		return a.list(list)
	}
	return fmt.Errorf("unknown action %.20q: it is one of %s", o.action, strings.Join(actions, ", "))
}

// hosts reads the list of hosts. Only one that was named must be there.
func (a *agent) hosts() (*hosts.File, error) {
	list, err := hosts.Load(cmp.Or(a.o.hosts, defaultHosts), a.w.Home)
	if a.o.hosts == "" && errors.Is(err, fs.ErrNotExist) {
		return &hosts.File{}, nil
	}
	return list, err
}

// list prints the nodes that there are, and for each the name under which it was
// enrolled.
func (a *agent) list(list *hosts.File) error {
	if list.Len() == 0 {
		return fmt.Errorf("there are no hosts in %s: write it, or name the nodes by pcmk_host_list or pcmk_host_map", cmp.Or(a.o.hosts, defaultHosts))
	}
	all, err := list.Select([]string{"@" + hosts.All})
	if err != nil {
		return err
	}
	for _, h := range all {
		a.say(h.Name + "," + h.Enrolled)
	}
	return nil
}

// keyPath is the file with the master key for a host.
func (a *agent) keyPath(h *hosts.Host) string { return cmp.Or(a.o.key, h.Key, defaultKey) }

// validate looks at everything on this side, for one node or for all. It asks
// nobody: the device must not fail with the node that it is for.
func (a *agent) validate(list *hosts.File) error {
	targets := []*hosts.Host{{}} // the default key
	switch {
	case a.node() != "":
		h, err := a.host(list)
		if err != nil {
			return err
		}
		targets = []*hosts.Host{h}
	case list.Len() > 0:
		all, err := list.Select([]string{"@" + hosts.All})
		if err != nil {
			return err
		}
		targets = all
	}
	checked := map[string]bool{}
	for _, h := range targets {
		path := a.keyPath(h)
		if checked[path] {
			continue
		}
		checked[path] = true
		if _, err := a.w.Master(path); err != nil {
			return err
		}
	}
	return nil
}

// node is the name of the node that is meant; empty: none was named.
func (a *agent) node() string { return cmp.Or(a.o.plug, a.o.node) }

func (a *agent) host(list *hosts.File) (*hosts.Host, error) {
	h, err := list.Host(a.node())
	if err != nil {
		return nil, fmt.Errorf("plug %.80q: %w", a.node(), err)
	}
	return h, nil
}

// target is the node and the way to it.
type target struct {
	exchange.Host
	key auth.KeyID
}

// withTarget does something to the node that is named.
func (a *agent) withTarget(ctx context.Context, list *hosts.File, do func(context.Context, *target) error) error {
	if a.node() == "" {
		return errors.New("plug is missing: the name of the node")
	}
	h, err := a.host(list)
	if err != nil {
		return err
	}
	master, err := a.w.Master(a.keyPath(h))
	if err != nil {
		return err
	}
	key, err := master.HostKey(h.Enrolled)
	clear(master[:])
	if err != nil {
		return err
	}
	names := h.Addresses
	switch {
	case a.o.ip != "":
		names = []string{a.o.ip}
	case len(names) == 0:
		names = []string{h.Enrolled}
	}
	family := lookup.Any
	switch {
	case a.o.ipv4:
		family = lookup.IPv4
	case a.o.ipv6:
		family = lookup.IPv6
	}
	if a.o.action != "status" {
		sleep(ctx, a.o.delay)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	addrs, err := lookup.Addresses(ctx, names, cmp.Or(a.o.port, h.Port, auth.Port), family, a.o.loginTimeout)
	if err != nil {
		return err
	}
	return do(ctx, &target{exchange.Host{Name: h.Name, Addrs: addrs, Sealer: auth.NewSealer(&key)}, key.ID})
}

// exchange is how the node is asked.
func (a *agent) exchange(timeout time.Duration) exchange.Options {
	opt := exchange.Options{Timeout: timeout, Clock: a.w.Clock, Dial: a.w.Dial}
	if a.o.verbose {
		opt.Trace = a.trace
	}
	return opt
}

// trace tells of one packet.
func (a *agent) trace(e exchange.Event) {
	switch at := e.At.Seconds(); {
	case e.Sent && e.Err != nil:
		a.note("%.3f s: %v not sent to %v: %v", at, e.Form, e.Addr, e.Err)
	case e.Sent:
		a.note("%.3f s: %v sent to %v", at, e.Form, e.Addr)
	case e.Err != nil:
		a.note("%.3f s: %v: %v", at, e.Addr, e.Err)
	case e.Reply != nil:
		a.note("%.3f s: %v answers %v, boot %s", at, e.Addr, e.Reply.Result, short(e.Reply.Boot))
	default:
		a.note("%.3f s: packet from %v ignored: %v", at, e.Addr, e.Reason)
	}
}

// status says on of a node that answers. Of one that does not, nothing is known.
func (a *agent) status(ctx context.Context, t *target) error {
	out, err := exchange.Status(ctx, t.Host, a.exchange(a.o.loginTimeout))
	switch {
	case err != nil:
		return err
	case out.Kind != exchange.Answered:
		return fmt.Errorf("%s: no answer within %v: it is not known whether it is on", t.Name, a.o.loginTimeout)
	}
	a.say("Status: ON")
	return nil
}

// short is the beginning of a boot id, as people compare it.
func short(b auth.BootID) string { return fmt.Sprintf("%x", b[:4]) }
