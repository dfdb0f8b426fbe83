// SPDX-License-Identifier: GPL-2.0-only

//go:build install

package system_test

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"netsysrq/internal/system"
	"netsysrq/internal/vm"
)

// otherKernel is how an administrator installs the image's other kernel. An
// initramfs of Debian's would only take time, and so would it to have each of ten
// thousand headers on the disk before the next.
const otherKernel = "INITRD=No apt-get install -y -o Dpkg::Options::=--force-unsafe-io " + system.FilesDir + "/linux-*.deb"

// A new kernel gets its module when it is installed, and that of the kernel that
// runs stays.
func TestKernelUpgrade(t *testing.T) {
	onOne(t, system.Bookworm, func(t *testing.T, i *system.Image) {
		m := system.From(t, installed(t, i), system.Options{Files: i.OtherDebs})
		done := phase(t, "install another kernel")
		m.Sh(t, 10*time.Minute, otherKernel)
		done()
		for _, kernel := range []string{i.Kernel, i.Other} {
			magic := m.Sh(t, time.Minute, "modinfo -k "+kernel+" -F vermagic xt_NETSYSRQ")
			if !strings.HasPrefix(magic, kernel+" ") {
				t.Errorf("the module for %s is of %s", kernel, magic)
			}
		}
	})
}

// Where the module cannot be built the packages are installed nevertheless, the
// daemon works alone, and whoever looks is told.
func TestBuildFails(t *testing.T) {
	onOne(t, system.Trixie, func(t *testing.T, i *system.Image) {
		opt := withDebs(t, version)
		maps.Copy(opt.Files, i.OtherDebs)
		m := system.New(t, i, opt)
		m.Sh(t, time.Minute, "chmod -x $(readlink -f /usr/bin/gcc)")
		said := m.Sh(t, 10*time.Minute, install(version))
		if !strings.Contains(said, "the kernel module could not be built") {
			t.Errorf("the package does not say that its module was not built: %s", said)
		}
		allConfigured(t, m)

		o := newOperator(t, m)
		o.enroll(t, m)
		var check struct {
			Verdict, Mode string
			Findings      []struct{ Name, State, Text, Hint string }
		}
		out := m.Sh(t, time.Minute, "netsysrqd check --json")
		if err := json.Unmarshal([]byte(out), &check); err != nil {
			t.Fatal(err)
		}
		if check.Verdict != "obey" || check.Mode != "daemon" {
			t.Errorf("check: %s", out)
		}
		found := false
		for _, f := range check.Findings {
			found = found || f.Name == "kernel module" && f.State == "warn" && f.Hint != ""
		}
		if !found {
			t.Errorf("check has no advice on the kernel module: %s", out)
		}
		if s := o.awaitStatus(t, "daemon", time.Minute); s.Armed || !strings.Contains(s.Message, "daemon only") {
			t.Errorf("status: %+v", s)
		}
		if a := o.run(t, time.Minute, "drill", "web1"); a.code != 7 || !strings.Contains(a.out, "half proved: the daemon answers") {
			t.Errorf("the drill ended with %d", a.code)
		}

		// A new kernel goes the way that docs/OPERATIONS.md tells.
		if out, code, err := m.Exec(vm.Within(t, 10*time.Minute), nil, "sh", "-c", otherKernel); err != nil || code == 0 {
			t.Errorf("another kernel was installed with %d, %v: %s", code, err, out)
		}
		m.Sh(t, 10*time.Minute, "dkms remove netsysrq/"+version+" --all && INITRD=No dpkg --configure -a")
		allConfigured(t, m)
	})
}

// allConfigured fails if a package is not.
func allConfigured(t *testing.T, m *system.Machine) {
	t.Helper()
	out := m.Sh(t, time.Minute, "dpkg-query -W -f '${db:Status-Status} ${Package}\n'")
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "installed ") && !strings.HasPrefix(line, "config-files ") {
			t.Errorf("package: %s", line)
		}
	}
	if !strings.Contains(out, "installed netsysrq-dkms\n") {
		t.Error("netsysrq-dkms is not installed")
	}
}
