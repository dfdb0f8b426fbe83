// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"slices"
	"strings"
	"time"

	"netsysrq/cmd/responder/internal/check"
	"netsysrq/cmd/responder/internal/config"
	"netsysrq/cmd/responder/internal/hint"
	"netsysrq/cmd/responder/internal/host"
)

// The units of deploy/systemd. They start where there is a key, and the last
// key takes them along.
const (
	armUnit    = "netsysrq-arm.service"   // module, keys and rules; reload does all of it anew
	rulesUnit  = "netsysrq-rules.service" // puts the rules back
	daemonUnit = "netsysrqd.service"      // its reload includes that of armUnit
)

// units are in the order in which they start.
var units = []string{armUnit, rulesUnit, daemonUnit}

// systemctlTimeout is longer than what the units allow themselves.
const systemctlTimeout = 2 * time.Minute

// checkTimeout bounds the look at the result.
const checkTimeout = 30 * time.Second

// systemd is the service manager. A field is there for tests to replace.
type systemd struct {
	// systemctl runs that command and returns what it printed.
	systemctl func(ctx context.Context, args ...string) (string, error)
}

// unitState is what systemd knows of a unit.
type unitState struct {
	Load   string // loaded, not-found, masked
	Active string // active, inactive, failed, reloading
	File   string // enabled, disabled, masked
}

func (s unitState) running() bool {
	return s.Active == "active" || s.Active == "reloading" || s.Active == "activating"
}

// wanted reports whether the owner of the host has left it to us to start it.
func (s unitState) wanted() bool {
	return s.Load == "loaded" && s.File != "disabled" && !strings.HasPrefix(s.File, "masked")
}

// booted returns the service manager of this host, nil if it is not systemd.
func booted() *systemd {
	if !host.Systemd() {
		return nil
	}
	return &systemd{systemctl}
}

func systemctl(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, systemctlTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "systemctl", args...)
	cmd.WaitDelay = time.Second
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err == nil {
		return string(out), nil
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("no end within %v", systemctlTimeout)
	}
	said := strings.Join(strings.Fields(stderr.String()), " ")
	if said == "" {
		said = "no message"
	}
	return string(out), fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, said)
}

// states returns what systemd knows of our units.
func (s *systemd) states(ctx context.Context) (map[string]unitState, error) {
	out, err := s.systemctl(ctx, append([]string{"show", "--property=Id,LoadState,ActiveState,UnitFileState", "--"}, units...)...)
	if err != nil {
		return nil, err
	}
	states := map[string]unitState{}
	for block := range strings.SplitSeq(out, "\n\n") {
		name, state := "", unitState{}
		for line := range strings.Lines(block) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			switch key {
			case "Id":
				name = value
			case "LoadState":
				state.Load = value
			case "ActiveState":
				state.Active = value
			case "UnitFileState":
				state.File = value
			}
		}
		if slices.Contains(units, name) {
			states[name] = state
		}
	}
	return states, nil
}

// job is a call of systemctl.
type job struct {
	verb  string
	units []string
}

func (j job) String() string { return "systemctl " + j.verb + " " + strings.Join(short(j.units), " ") }

// short leaves out what goes without saying.
func short(units []string) (list []string) {
	for _, u := range units {
		list = append(list, strings.TrimSuffix(u, ".service"))
	}
	return list
}

// plan returns what is to be done after a change of the keys, of which some are
// left or none.
func plan(states map[string]unitState, some bool) (jobs []job) {
	var start, stop []string
	alive := false
	for _, u := range units {
		s := states[u]
		alive = alive || s.running()
		switch {
		case some && s.wanted() && !s.running():
			start = append(start, u)
		case !some && s.Load == "loaded":
			stop = append([]string{u}, stop...)
		}
	}
	if !alive {
		// Else all of them: one that is between two attempts to start looks
		// as if it were stopped.
		stop = nil
	}
	if start != nil {
		jobs = append(jobs, job{"start", start})
	}
	if stop != nil {
		jobs = append(jobs, job{"stop", stop})
	}
	switch {
	case !some:
	case states[daemonUnit].running():
		jobs = append(jobs, job{"reload", []string{daemonUnit}})
	case states[armUnit].running() && !slices.Contains(start, daemonUnit):
		jobs = append(jobs, job{"reload", []string{armUnit}})
	}
	return jobs
}

// keysChanged lets the units know, or says what to run. Changing them is left to
// the owner of the host if that is what they want, if the units have another
// configuration than this command, and where there are none. until is what the
// daemon does with the key until it has read the keys again.
func (c *command) keysChanged(ctx context.Context, cfg *config.Config, manual bool, until string) error {
	some, err := hasKeys(cfg)
	if err != nil {
		return err
	}
	var states map[string]unitState
	s := booted()
	if s != nil && c.config == config.DefaultPath {
		if states, err = s.states(ctx); err != nil {
			err = fmt.Errorf("the units of netsysrqd are not told: %w", err)
		}
	}
	daemon, derr := check.This().Daemon(cfg)
	runs := !errors.Is(derr, fs.ErrNotExist)
	if !slices.ContainsFunc(units, func(u string) bool { return states[u].Load == "loaded" }) {
		c.sayWhatToRun(daemon, runs, some, until)
		return err
	}
	if manual {
		if runs {
			fmt.Fprintln(c.stderr, behind(daemon, until))
		}
		for _, j := range plan(states, some) {
			fmt.Fprintf(c.stderr, "now run: %v\n", j)
		}
		return nil
	}
	if err = c.follow(ctx, s, states, some); err != nil && runs {
		fmt.Fprintln(c.stderr, behind(daemon, until))
	}
	if !some {
		// Whoever armed the host: nothing would be left that may give it orders.
		return errors.Join(err, c.disarm(ctx, nil))
	}
	c.judge(ctx)
	return err
}

// behind says what a daemon that was not told does.
func behind(daemon int, until string) string {
	who := "a daemon that runs"
	if daemon != 0 {
		who = fmt.Sprintf("the running daemon (process %d)", daemon)
	}
	return fmt.Sprintf("%s %s until it reads the keys again", who, until)
}

// sayWhatToRun is for hosts on which nothing is to be started by us.
func (c *command) sayWhatToRun(daemon int, runs, some bool, until string) {
	switch {
	case runs && daemon != 0:
		fmt.Fprintf(c.stderr, "%s: kill -HUP %d\n", behind(daemon, until), daemon)
	case runs:
		fmt.Fprintf(c.stderr, "%s: send it SIGHUP\n", behind(daemon, until))
	case some:
		fmt.Fprintln(c.stderr, c.advice("no daemon runs; next: netsysrqd arm, then netsysrqd run"))
	}
	if !some {
		fmt.Fprintln(c.stderr, c.advice("no operator has a key any more; to take out rules and module: netsysrqd disarm"))
	}
}

// follow does what is planned and says so.
func (c *command) follow(ctx context.Context, s *systemd, states map[string]unitState, some bool) error {
	for _, u := range units {
		if st := states[u]; some && !st.running() && !st.wanted() {
			fmt.Fprintf(c.stderr, "%s is %s: left alone\n", u, left(st))
		}
	}
	var errs []error
	for _, j := range plan(states, some) {
		_, err := s.systemctl(ctx, append([]string{j.verb, "--"}, j.units...)...)
		done := j.units
		if j.verb == "start" {
			// A unit may also be skipped, which is no error to systemctl.
			var missing []string
			if done, missing = s.split(ctx, j.units); missing != nil {
				err = errors.Join(err, hint.Add(fmt.Errorf("not started: %s", strings.Join(short(missing), ", ")),
					"systemctl status "+missing[0]))
			}
		} else if err != nil {
			done = nil
		}
		if done != nil {
			fmt.Fprintf(c.stdout, "%s: %s\n", past[j.verb], strings.Join(short(done), ", "))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

var past = map[string]string{"start": "started", "stop": "stopped", "reload": "reloaded"}

func left(s unitState) string {
	if s.Load != "loaded" {
		return s.Load
	}
	return s.File
}

// split tells those units that run from the others.
func (s *systemd) split(ctx context.Context, units []string) (running, others []string) {
	states, err := s.states(ctx)
	for _, u := range units {
		// What is still activating has failed and will be tried again.
		if s := states[u].Active; err == nil && s != "active" && s != "reloading" {
			others = append(others, u)
			continue
		}
		running = append(running, u)
	}
	return running, others
}

// judge says whether this host would obey now.
func (c *command) judge(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	report := check.This().Run(ctx, c.config, c.getenv("PATH"))
	fmt.Fprintln(c.stdout, report.Sentence())
	if report.Verdict != check.Obey {
		fmt.Fprintln(c.stderr, c.advice("hint: netsysrqd check"))
	}
}
