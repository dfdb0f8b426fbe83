// SPDX-License-Identifier: GPL-2.0-only

// Package check finds out whether this host would obey a request, and says so
// in plain words. It changes nothing.
package check

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"netsysrq/auth"
	"netsysrq/cmd/responder/internal/config"
	"netsysrq/cmd/responder/internal/hint"
	"netsysrq/cmd/responder/internal/host"
	"netsysrq/cmd/responder/internal/keyring"
	"netsysrq/cmd/responder/internal/rules"
	"netsysrq/internal/clock"
	"netsysrq/kmod-fallback/kmod"
)

// State says how one thing stands.
type State string

// States.
const (
	OK      State = "ok"
	Warn    State = "warn"    // the host would obey, but not as well or as widely as it could
	Fail    State = "fail"    // the host would not obey, or only rehearse
	Unknown State = "unknown" // this caller may not see it
)

// Finding is one thing that was looked at.
type Finding struct {
	Name  string `json:"name"`
	State State  `json:"state"`
	Text  string `json:"text"`
	Hint  string `json:"hint,omitempty"` // what to do next
}

// Verdict is the answer to the question.
type Verdict string

// Verdicts.
const (
	Obey     Verdict = "obey"
	Rehearse Verdict = "rehearse" // it would answer, but is told to do nothing
	Refuse   Verdict = "refuse"
	NoIdea   Verdict = "unknown"
)

// Mode says who answers and acts.
type Mode string

// Modes.
const (
	KernelMode Mode = "kernel" // the module, with or without the daemon's word
	DaemonMode Mode = "daemon" // the daemon alone
)

// Report is all that was found.
type Report struct {
	Verdict   Verdict   `json:"verdict"`
	Mode      Mode      `json:"mode,omitempty"` // empty: the configuration cannot be read
	Operators []string  `json:"operators"`      // whose requests count
	Findings  []Finding `json:"findings"`
}

// Host is where a check looks. Fields are there for tests to replace.
type Host struct {
	Proc         string // where proc is mounted
	Sys          string // and sysfs
	Etc          string // where saved firewall rules are
	Modules      string // where those of each kernel are
	Source       string // where dkms finds the source of its modules
	Dkms         string // where it builds
	Units        string // the configuration of systemd's units; empty: systemd does not run
	Root         bool   // the caller is root and can see everything
	Synchronised func() bool
	Rules        func(context.Context, rules.Set) ([]rules.Status, error)
	Try          func(context.Context, rules.Set, rules.Family) error
	Nft          func(context.Context, rules.Set) bool
	Module       func() (kmod.Status, error) // kmod.ErrNotLoaded: there is none
	Sleep        func(time.Duration)
}

// This is the host that the check runs on.
func This() Host {
	units := ""
	if host.Systemd() {
		units = config.DefaultPath
	}
	return Host{
		Units:        units,
		Proc:         "/proc",
		Sys:          "/sys",
		Etc:          "/etc",
		Modules:      "/lib/modules",
		Source:       "/usr/src",
		Dkms:         "/var/lib/dkms",
		Root:         os.Geteuid() == 0,
		Synchronised: clock.Synchronised,
		Rules:        func(ctx context.Context, s rules.Set) ([]rules.Status, error) { return s.Status(ctx) },
		Try:          func(ctx context.Context, s rules.Set, f rules.Family) error { return s.Try(ctx, f) },
		Nft:          func(ctx context.Context, s rules.Set) bool { return s.Nft(ctx) },
		Module:       moduleStatus,
		Sleep:        time.Sleep,
	}
}

// checker gathers findings.
type checker struct {
	Host
	path      string // of the configuration
	cfg       *config.Config
	report    Report
	keys      []keyring.Key // that count
	files     bool          // all key files were read
	allowed   auth.KeySet   // what the operators may use, all together
	loaded    bool          // the kernel module is
	module    *kmod.Status  // nil: not loaded or not seen
	moduleErr error         // of asking it
	tables    []table       // where rules belong
	tablesErr error         // of looking at them
	nft       bool          // those of a host without iptables are in place
	past      error         // why the rules lead past the module that is loaded
	through   bool          // a rule leads through the kernel module
	inert     string        // what makes every request a rehearsal, by name; empty: nothing
	read      bool          // something reads both queues
	daemon    int           // the process that does, 0: not seen
}

func (c *checker) add(name string, state State, text, next string) {
	if c.path != config.DefaultPath {
		next = hint.WithConfig(next, c.path)
	}
	c.report.Findings = append(c.report.Findings, Finding{name, state, text, next})
}

// units reports whether systemd runs the daemon with this configuration.
func (c *checker) units() bool { return c.path == c.Units }

func (c *checker) start() string {
	if c.units() {
		return "systemctl start netsysrqd"
	}
	return "netsysrqd run"
}

func (c *checker) restart() string {
	switch {
	case c.units():
		return "systemctl restart netsysrqd"
	case c.daemon != 0:
		return fmt.Sprintf("kill -KILL %d, then: netsysrqd run", c.daemon)
	}
	return "end what reads the queue, then: netsysrqd run"
}

func (c *checker) reload() string {
	if c.units() {
		return "systemctl reload netsysrqd"
	}
	return "SIGHUP to the daemon"
}

// Run looks at everything. path is the configuration file; rulesPath is $PATH.
func (h Host) Run(ctx context.Context, path, rulesPath string) *Report {
	c := &checker{Host: h, path: path}
	c.report.Operators = []string{}
	if c.configuration() {
		c.keyFiles()
		c.askModule()
		c.readRules(ctx, c.set(rulesPath))
		c.kernelModule()
		c.firewall()
		c.savedRules()
		c.report.Mode = c.mode()
		c.queues()
		c.port()
		c.trigger()
		c.sysrq()
		c.kernelConfiguration()
		c.clock()
		c.memory()
	}
	c.report.Verdict = c.verdict()
	return &c.report
}

func (c *checker) set(path string) rules.Set {
	return rules.Set{Port: c.cfg.Port, Queue: c.cfg.Queue, AllowFrom: c.cfg.AllowFrom, Backend: c.cfg.Iptables,
		Kernel: c.loaded, Path: path}
}

// mode is the kernel's where the module holds keys and a rule leads through it.
// A module that cannot be looked at is taken to hold some.
func (c *checker) mode() Mode {
	if c.loaded && c.through && (c.module == nil || len(c.module.Keys) > 0) {
		return KernelMode
	}
	return DaemonMode
}

// withoutDaemon is the state of what keeps the daemon from its work.
func (c *checker) withoutDaemon() State {
	if c.report.Mode == KernelMode {
		return Warn
	}
	return Fail
}

func (c *checker) verdict() Verdict {
	has := func(s State) bool {
		return slices.ContainsFunc(c.report.Findings, func(f Finding) bool { return f.State == s && f.Name != c.inert })
	}
	switch {
	case has(Fail):
		return Refuse
	case has(Unknown):
		return NoIdea
	case c.inert != "":
		return Rehearse
	}
	return Obey
}

// Sentence is the verdict in plain words.
func (r *Report) Sentence() string {
	who := strings.Join(r.Operators, ", ")
	names := func(s State) string {
		var list []string
		for _, f := range r.Findings {
			if f.State == s {
				list = append(list, f.Name)
			}
		}
		return strings.Join(list, ", ")
	}
	switch r.Verdict {
	case Obey:
		if r.Mode == KernelMode {
			who += "; also while its processes hang"
		}
		return "this host would obey requests from: " + who
	case Rehearse:
		return "this host would NOT obey: " + names(Fail) + ": it would answer requests from " + who + " and do nothing"
	case Refuse:
		return "this host would NOT obey: " + names(Fail)
	}
	return "could not tell whether this host would obey: not seen: " + names(Unknown)
}

func (c *checker) configuration() bool {
	cfg, err := config.Load(c.path)
	if err != nil {
		state := Fail
		if isPermission(err) {
			state = Unknown
		}
		next := "man netsysrqd.toml"
		if state == Unknown {
			next = "run this as root"
		}
		c.add("configuration", state, err.Error(), hintOf(err, next))
		return false
	}
	c.cfg = cfg
	if _, err := host.Lookup(cfg.User); err != nil {
		c.add("configuration", Fail, err.Error(), "useradd --system --shell /usr/sbin/nologin "+cfg.User)
		return true
	}
	c.add("configuration", OK, c.path+" is in order", "")
	return true
}

func (c *checker) keyFiles() {
	machine, err := keyring.MachineID(c.cfg.MachineID)
	if err != nil {
		c.add("keys", Fail, err.Error(), hintOf(err, ""))
		return
	}
	gid := -1
	if id, err := host.Lookup(c.cfg.User); err == nil {
		gid = id.GID
	}
	keys, skipped, err := keyring.Load(c.cfg.KeysDir, machine, gid)
	switch {
	case isPermission(err):
		c.add("keys", Unknown, err.Error(), "run this as root")
		return
	case err != nil:
		c.add("keys", Fail, err.Error()+"; a daemon that runs keeps the keys it has, a new one goes without this one", hintOf(err, ""))
		return
	}
	c.keys, c.files = keys, true
	var list []string
	for _, k := range keys {
		c.allowed |= k.Allow
		if !slices.Contains(c.report.Operators, k.Operator) {
			c.report.Operators = append(c.report.Operators, k.Operator)
		}
		list = append(list, k.Operator+" may use "+k.Allow.String())
	}
	const enrol = "the operator runs `netsysrq enroll HOST`, this host `netsysrqd keys add`"
	if len(keys) == 0 && len(skipped) == 0 {
		c.add("keys", Fail, "no operator has a key for this host", enrol)
		return
	}
	if len(keys) == 0 {
		c.add("keys", Fail, plural(len(skipped), "key")+" here, but added on another machine: this one was cloned",
			"remove them with `netsysrqd keys remove`, then: "+enrol)
		return
	}
	if len(skipped) > 0 {
		c.add("keys", Warn, strings.Join(list, ", ")+"; not counted, because added on another machine: "+
			plural(len(skipped), "key"), "netsysrqd keys list shows which")
		return
	}
	c.add("keys", OK, strings.Join(list, ", "), "")
}

func (c *checker) clock() {
	if c.Synchronised() {
		c.add("clock", OK, "synchronised: requests in one packet work too", "")
		return
	}
	c.add("clock", Warn, "not synchronised: requests work as long as an answer of this host reaches the operator; "+
		"those in one packet do not", "install an NTP client such as chrony or systemd-timesyncd")
}
