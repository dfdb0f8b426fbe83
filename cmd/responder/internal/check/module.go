// SPDX-License-Identifier: GPL-2.0-only

package check

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"netsysrq/auth"
	"netsysrq/kmod-fallback/kmod"
)

// moduleStatus asks the module of this host.
func moduleStatus() (kmod.Status, error) {
	c, err := kmod.Dial()
	if err != nil {
		return kmod.Status{}, err
	}
	defer c.Close()
	return c.Status()
}

// askModule asks the module what it holds.
func (c *checker) askModule() {
	status, err := c.Module()
	c.loaded, c.moduleErr = !errors.Is(err, kmod.ErrNotLoaded), err
	if err == nil {
		c.module = &status
	}
}

// alone is what it means that the module does not answer.
const alone = "daemon-only mode, nothing answers when this host's processes hang"

// kernelModule looks whether the module would answer, with which keys and when.
func (c *checker) kernelModule() {
	const name, load = "kernel module", "as root: netsysrqd load-keys"
	switch {
	case !c.loaded:
		text, next := c.whyNotLoaded()
		c.add(name, Warn, text+": "+alone, next)
		return
	case errors.Is(c.moduleErr, kmod.ErrPermission):
		c.add(name, Unknown, "loaded, but only root sees what it holds", "run this as root")
		return
	case c.moduleErr != nil:
		c.add(name, Unknown, c.moduleErr.Error(), "")
		return
	}
	status := c.module
	wrong := c.wrongKeys()
	switch {
	case c.files && len(c.keys)+len(status.Keys) == 0:
		c.add(name, Warn, "loaded, but it holds no keys, since there are none", "")
		return
	case c.past != nil && len(status.Keys) == 0:
		c.add(name, Warn, "loaded, but without keys, since no rule leads to it: "+alone+": "+c.past.Error(), hintOf(c.past, "netsysrqd arm"))
		return
	case c.files && len(status.Keys) == 0:
		c.add(name, Fail, "loaded, but not armed: it holds no keys", load)
		return
	case wrong != nil:
		c.add(name, Fail, "its keys are not those of the files: "+strings.Join(wrong, "; "), load)
		return
	}
	state := Warn
	if status.DryRun {
		state, c.inert = Fail, name
	}
	if other := c.otherSettings(); other != nil {
		c.add(name, state, "armed, but "+strings.Join(other, "; "), load)
		return
	}
	if status.DryRun {
		c.add(name, state, "armed, but dry_run is on: requests are judged and answered, and nothing is done",
			"set dry_run = false, then: netsysrqd load-keys; "+c.reload())
		return
	}
	c.add(name, OK, fmt.Sprintf("armed: answers when the daemon cannot; %s, deadline %v, %s",
		plural(len(status.Keys), "key"), status.Deadline, attached(status)), "")
}

// wrongKeys says in what the module's keys differ from those of the files.
func (c *checker) wrongKeys() (list []string) {
	if !c.files {
		return nil
	}
	held := map[auth.KeyID]auth.KeySet{}
	for _, k := range c.module.Keys {
		held[k.ID] = k.Allowed
	}
	for i := range c.keys {
		k := &c.keys[i]
		switch allowed, ok := held[k.Key.ID]; {
		case !ok:
			list = append(list, k.Operator+"'s key "+k.Key.ID.String()+" is missing")
		case allowed != k.Allow:
			list = append(list, fmt.Sprintf("%s may use %v, by the file %v", k.Operator, orNothing(allowed), k.Allow))
		}
		delete(held, k.Key.ID)
	}
	for _, k := range c.module.Keys {
		if _, extra := held[k.ID]; extra {
			list = append(list, "of key "+k.ID.String()+" there is no file")
		}
	}
	return list
}

func orNothing(set auth.KeySet) string {
	if set == 0 {
		return "nothing"
	}
	return set.String()
}

// otherSettings says in what the module's settings differ from the
// configuration.
func (c *checker) otherSettings() (list []string) {
	if c.module.Deadline != c.cfg.Deadline {
		list = append(list, fmt.Sprintf("its deadline is %v, in the configuration %v", c.module.Deadline, c.cfg.Deadline))
	}
	if c.module.DryRun != c.cfg.DryRun {
		list = append(list, fmt.Sprintf("its dry_run is %v, in the configuration %v", c.module.DryRun, c.cfg.DryRun))
	}
	return list
}

// longSilence is the most that the module tells.
const longSilence = 65535 * time.Second

func attached(s *kmod.Status) string {
	text := "daemon attached"
	if s.Daemon == 0 {
		text = "daemon not attached"
	}
	// It speaks every second.
	if s.Silent > 2*time.Second && s.Silent < longSilence {
		text += fmt.Sprintf(" (silent for %v)", s.Silent)
	}
	return text
}

// deadline is how long a request waits for the daemon's word.
func (c *checker) deadline() time.Duration {
	if c.module != nil {
		return c.module.Deadline
	}
	return c.cfg.Deadline
}

// kernelConfiguration looks for what moves the work of interrupts to threads
// or to other CPUs: of such kernels it is not known which hangs they survive.
func (c *checker) kernelConfiguration() {
	if !c.loaded {
		return
	}
	var list []string
	if strings.Contains(c.text(c.Proc, "sys/kernel/version"), "PREEMPT_RT") || c.text(c.Sys, "kernel/realtime") == "1" {
		list = append(list, "PREEMPT_RT")
	}
	if slices.Contains(strings.Fields(c.text(c.Proc, "cmdline")), "threadirqs") {
		list = append(list, "threadirqs")
	}
	devices, _ := filepath.Glob(filepath.Join(c.Sys, "class/net/*"))
	for _, d := range devices {
		if t := c.text(d, "threaded"); t != "" && t != "0" {
			list = append(list, "threaded NAPI on "+filepath.Base(d))
		}
		queues, _ := filepath.Glob(filepath.Join(d, "queues/rx-*/rps_cpus"))
		if slices.ContainsFunc(queues, func(q string) bool { return strings.Trim(c.text(q, ""), "0,") != "" }) {
			list = append(list, "RPS on "+filepath.Base(d))
		}
	}
	if list == nil {
		c.add("kernel configuration", OK, "packets are received in interrupts of the CPU that they come to", "")
		return
	}
	c.add("kernel configuration", Warn, strings.Join(list, ", ")+": the kernel may be silent in hangs in which it answers without",
		"turn off what you do not need; do not count on more than netsysrq drill has shown")
}

// text is a file's content, or nothing.
func (c *checker) text(dir, name string) string {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
