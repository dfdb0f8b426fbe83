// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"netsysrq/cmd/responder/internal/hint"
)

// fakeManager is systemd with units that do what they are told, unless they are
// skipped for a condition that does not hold.
type fakeManager struct {
	units   map[string]unitState
	skipped []string
	retried string // fails, and is started again after a while
	fail    string // verb
	calls   []string
}

func (f *fakeManager) systemctl(_ context.Context, args ...string) (string, error) {
	if args[0] == "show" {
		var blocks []string
		for _, u := range units {
			s := f.units[u]
			blocks = append(blocks, fmt.Sprintf("Id=%s\nLoadState=%s\nActiveState=%s\nUnitFileState=%s\n", u, s.Load, s.Active, s.File))
		}
		return strings.Join(blocks, "\n"), nil
	}
	f.calls = append(f.calls, strings.Join(short(append([]string{args[0]}, args[2:]...)), " "))
	if args[0] == f.fail {
		return "", errors.New("systemctl: no")
	}
	for _, u := range args[2:] {
		s := f.units[u]
		switch args[0] {
		case "start":
			switch {
			case u == f.retried:
				s.Active = "activating"
			case !slices.Contains(f.skipped, u):
				s.Active = "active"
			}
		case "stop":
			s.Active = "inactive"
		}
		f.units[u] = s
	}
	return "", nil
}

func newFakeManager(active, file string) *fakeManager {
	f := &fakeManager{units: map[string]unitState{}}
	for _, u := range units {
		f.units[u] = unitState{"loaded", active, file}
	}
	return f
}

// follow tells the fake of a change and returns what was said.
func (f *fakeManager) follow(t *testing.T, some bool) (stdout, stderr string, err error) {
	t.Helper()
	s := &systemd{f.systemctl}
	states, err := s.states(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out, errout bytes.Buffer
	c := &command{stdout: &out, stderr: &errout}
	err = c.follow(t.Context(), s, states, some)
	return out.String(), errout.String(), err
}

// The units start with the first key, learn of the next ones, and end with the
// last.
func TestUnitsFollowKeys(t *testing.T) {
	f := newFakeManager("inactive", "enabled")
	for _, c := range []struct {
		what  string
		some  bool
		calls []string
		says  string
	}{
		{"first key", true, []string{"start netsysrq-arm netsysrq-rules netsysrqd"}, "started: netsysrq-arm, netsysrq-rules, netsysrqd\n"},
		{"second key", true, []string{"reload netsysrqd"}, "reloaded: netsysrqd\n"},
		{"one removed", true, []string{"reload netsysrqd"}, "reloaded: netsysrqd\n"},
		{"last removed", false, []string{"stop netsysrqd netsysrq-rules netsysrq-arm"}, "stopped: netsysrqd, netsysrq-rules, netsysrq-arm\n"},
		{"removed while stopped", false, nil, ""},
	} {
		f.calls = nil
		stdout, stderr, err := f.follow(t, c.some)
		if err != nil || stderr != "" || stdout != c.says || !slices.Equal(f.calls, c.calls) {
			t.Errorf("%s: %q %q %v, calls %q", c.what, stdout, stderr, err, f.calls)
		}
	}
}

func TestUnitsPartly(t *testing.T) {
	daemonStopped := newFakeManager("active", "enabled")
	daemonStopped.units[daemonUnit] = unitState{"loaded", "failed", "enabled"}
	rulesStopped := newFakeManager("active", "enabled")
	rulesStopped.units[rulesUnit] = unitState{"loaded", "inactive", "enabled"}
	noDaemon := newFakeManager("active", "enabled")
	noDaemon.units[daemonUnit] = unitState{"loaded", "inactive", "disabled"}
	forced := newFakeManager("active", "disabled")
	masked := newFakeManager("inactive", "enabled")
	masked.units[armUnit] = unitState{"masked", "inactive", "masked"}
	masked.units[rulesUnit] = unitState{"masked", "inactive", "masked-runtime"}
	for _, c := range []struct {
		what   string
		f      *fakeManager
		calls  []string
		stderr string
	}{
		{"daemon failed", daemonStopped, []string{"start netsysrqd"}, ""},
		{"rules stopped", rulesStopped, []string{"start netsysrq-rules", "reload netsysrqd"}, ""},
		{"without a daemon", noDaemon, []string{"reload netsysrq-arm"}, "netsysrqd.service is disabled: left alone\n"},
		{"disabled, but running", forced, []string{"reload netsysrqd"}, ""},
		{"masked", masked, []string{"start netsysrqd"},
			"netsysrq-arm.service is masked: left alone\nnetsysrq-rules.service is masked: left alone\n"},
	} {
		_, stderr, err := c.f.follow(t, true)
		if err != nil || stderr != c.stderr || !slices.Equal(c.f.calls, c.calls) {
			t.Errorf("%s: %q %v, calls %q", c.what, stderr, err, c.f.calls)
		}
	}
}

// A unit whose condition does not hold is skipped, and systemctl says nothing.
func TestUnitsNotStarted(t *testing.T) {
	f := newFakeManager("inactive", "enabled")
	f.skipped = []string{daemonUnit}
	stdout, _, err := f.follow(t, true)
	if err == nil || err.Error() != "not started: netsysrqd" || hint.Of(err) != "systemctl status netsysrqd.service" {
		t.Errorf("error %v, hint %q", err, hint.Of(err))
	}
	if stdout != "started: netsysrq-arm, netsysrq-rules\n" {
		t.Errorf("said %q", stdout)
	}
	f = newFakeManager("inactive", "enabled")
	f.retried = daemonUnit
	if stdout, _, err := f.follow(t, true); err == nil || stdout != "started: netsysrq-arm, netsysrq-rules\n" {
		t.Errorf("a daemon that fails and is tried again: %q %v", stdout, err)
	}
	f = newFakeManager("active", "enabled")
	f.fail = "reload"
	if stdout, _, err := f.follow(t, true); err == nil || stdout != "" {
		t.Errorf("a reload that failed: %q %v", stdout, err)
	}
}
