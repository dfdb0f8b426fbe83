// SPDX-License-Identifier: GPL-2.0-only

package check

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"netsysrq/auth"
	"netsysrq/cmd/responder/internal/config"
)

// trigger opens the file for writing as the daemon does, and writes nothing.
func (c *checker) trigger() {
	path := c.cfg.Trigger
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err == nil {
		f.Close()
	}
	switch {
	case isPermission(err) && !c.Root:
		c.add("trigger", Unknown, "only root can tell whether "+path+" can be written to", "run this as root")
		return
	case errors.Is(err, fs.ErrNotExist) && path == config.Trigger:
		c.add("trigger", Fail, path+" is not there: this kernel was built without SysRq",
			"use a kernel with CONFIG_MAGIC_SYSRQ; in a container nothing helps")
		return
	case err != nil:
		c.add("trigger", c.withoutDaemon(), "cannot be written to: "+err.Error(), "")
		return
	case c.report.Mode == KernelMode && path != config.Trigger:
		c.add("trigger", Warn, path+" is not used: the kernel module acts by itself, and for real",
			"leave trigger out of the configuration")
		return
	case c.report.Mode == KernelMode:
		c.add("trigger", OK, "not used: the kernel module acts by itself", "")
		return
	case c.cfg.DryRun:
		c.inert = "trigger"
		c.add("trigger", Fail, "dry_run is on: requests are judged and answered, and nothing is done",
			"set dry_run = false, then: "+c.reload())
		return
	case path != config.Trigger:
		c.inert = "trigger"
		c.add("trigger", Fail, path+" can be written to, but the kernel obeys nothing but "+config.Trigger+
			": requests are answered as if they were run, and nothing is done", "leave trigger out of the configuration")
		return
	}
	c.add("trigger", OK, path+" can be written to", "")
}

// sysrq looks at kernel.sysrq. The kernel module and the keyboard are bound by
// it; the daemon alone is not, since /proc/sysrq-trigger is not.
func (c *checker) sysrq() {
	const name, next = "kernel.sysrq", "sysctl kernel.sysrq=1, and for the next boot: " +
		"echo kernel.sysrq=1 >/etc/sysctl.d/60-netsysrq.conf"
	value, err := c.sysrqValue()
	if errors.Is(err, fs.ErrNotExist) {
		c.add(name, Warn, "this kernel does not have it", "")
		return
	}
	if err != nil {
		c.add(name, Warn, err.Error(), "")
		return
	}
	lost := swallowed(c.allowed, value)
	reboot := strings.ContainsAny(lost, rebootKeys)
	switch {
	case lost == "":
		c.add(name, OK, fmt.Sprintf("%d: forbids nothing that operators may use", value), "")
	case c.report.Mode != KernelMode:
		c.add(name, Warn, fmt.Sprintf("%d: the daemon is not bound by it, but the kernel module would refuse: %s", value, lost), next)
	case reboot:
		c.add(name, Fail, fmt.Sprintf("%d: of what operators may use it forbids: %s; netsysrq reboot would be refused by kernel.sysrq",
			value, lost), next)
	default:
		c.add(name, Warn, fmt.Sprintf("%d: of what operators may use it forbids: %s", value, lost), next)
	}
}

// rebootKeys are what netsysrq reboot asks for.
const rebootKeys = "nsub"

// sysrqValue is kernel.sysrq; the module sees what is in force, which a kernel
// command line with sysrq_always_enabled decides.
func (c *checker) sysrqValue() (int, error) {
	if c.module != nil {
		return c.module.Sysrq, nil
	}
	b, err := os.ReadFile(filepath.Join(c.Proc, "sys/kernel/sysrq"))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// swallowed are the keys of a set that a value of kernel.sysrq forbids.
func swallowed(set auth.KeySet, value int) (keys string) {
	for _, k := range []byte((set &^ auth.ReadLog).String()) {
		if auth.Swallowed([]auth.Step{{Key: k}}, value) != 0 {
			keys += string(k)
		}
	}
	return keys
}

// memory looks whether the daemon can be swapped out or killed for want of
// memory: what lies on a disk that hangs does not answer.
func (c *checker) memory() {
	if c.daemon == 0 {
		c.memoryToCome()
		return
	}
	dir := filepath.Join(c.Proc, strconv.Itoa(c.daemon))
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		c.add("memory", Unknown, err.Error(), "")
		return
	}
	var wrong, needs []string
	kb := statusField(string(status), "VmLck")
	switch {
	case kb == "" || strings.HasPrefix(kb, "0 "):
		wrong, needs = append(wrong, "is not locked: it may be swapped out when it is needed"), append(needs, "LimitMEMLOCK=infinity")
	case !unlimited.MatchString(c.text(dir, "limits")):
		wrong, needs = append(wrong, "is locked only as far as it was mapped at first: the rest may be swapped out when it is needed"),
			append(needs, "LimitMEMLOCK=infinity")
	}
	if c.text(dir, "oom_score_adj") != "-1000" {
		wrong, needs = append(wrong, "is not out of the OOM killer's reach: it may be killed when memory is short"), append(needs, "OOMScoreAdjust=-1000")
	}
	if wrong != nil {
		c.add("memory", Warn, "the daemon's memory "+strings.Join(wrong, "; it "),
			"the unit needs "+strings.Join(needs, " and ")+"; without a unit the daemon needs root with CAP_SYS_RESOURCE")
		return
	}
	c.add("memory", OK, "the daemon's memory is locked, and out of the OOM killer's reach", "")
}

// unlimited is a line of /proc/PID/limits.
var unlimited = regexp.MustCompile(`(?m)^Max locked memory +unlimited `)

// memoryToCome looks whether a daemon could lock its memory.
func (c *checker) memoryToCome() {
	if !c.Root || c.read {
		c.add("memory", Unknown, "the daemon is not seen, so neither is its memory", "run this as root, outside of containers")
		return
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		c.add("memory", Unknown, err.Error(), "")
		return
	}
	if limit.Max == unix.RLIM_INFINITY || c.hasCapability(unix.CAP_SYS_RESOURCE) {
		c.add("memory", OK, "a daemon started from here can lock all of its memory", "")
		return
	}
	c.add("memory", Warn, "a daemon started from here cannot lock all of its memory", "it needs LimitMEMLOCK=infinity in its unit, or CAP_SYS_RESOURCE")
}

func (c *checker) hasCapability(capability uint) bool {
	b, err := os.ReadFile(filepath.Join(c.Proc, "self/status"))
	if err != nil {
		return false
	}
	effective, err := strconv.ParseUint(statusField(string(b), "CapEff"), 16, 64)
	return err == nil && effective>>capability&1 == 1
}

// statusField is a field of /proc/PID/status.
func statusField(text, name string) string {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
