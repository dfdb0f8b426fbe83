// SPDX-License-Identifier: GPL-2.0-only

//go:build install

package system_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"netsysrq/internal/system"
	"netsysrq/internal/vm"
)

// inventory prints what a host has, a fact a line: files by name, kind, mode and
// owner, those of /etc by content too; users, rules of both backends, modules,
// units, packages. Left out is what every use of apt changes: logs, what is only
// kept for a while, what dpkg remembers, and the copies that tools for users make of
// their files, and kernel headers, which are many. /var/lib/dkms/mok.* is of dkms, not
// ours, /root/apt.log of the tests.
const inventory = `
find / -xdev \( -path /tmp -o -path /var/tmp -o -path /var/log -o -path /var/cache -o -path /var/lib/apt -o -path /var/lib/dpkg \
	-o -path /etc/passwd- -o -path /etc/group- -o -path /etc/shadow- -o -path /etc/gshadow- -o -path '/var/lib/dkms/mok.*' -o -path /root/apt.log -o -path '/usr/src/linux-*' \) -prune \
	-o -printf 'file %p %y %m %u:%g %l\n'
find /etc -xdev -type f ! -name '*-' -exec sha256sum {} + | sed 's/^/content /'
getent passwd | sed 's/^/user /'
getent group | sed 's/^/group /'
for save in iptables-legacy-save ip6tables-legacy-save iptables-nft-save ip6tables-nft-save; do
	$save | grep -v '^#' | sed "s/^/$save /"
done
nft list ruleset | sed 's/^/nft /'
lsmod | sed '1d; s/ .*//; s/^/module /'
systemctl list-unit-files --no-legend | sed 's/  */ /g; s/^/unit file /'
systemctl list-units --all --full --no-legend --plain '*netsysrq*' | sed 's/^/unit /'
dpkg-query -W -f '${Package} ${db:Status-Abbrev}\n' | sed 's/^/package /'
pgrep -l netsysrq | sed 's/^/process /' || true
sysctl -n kernel.sysrq | sed 's/^/kernel.sysrq /'
systemctl is-system-running | sed 's/^/system /'
`

func take(t *testing.T, m *system.Machine) []string {
	t.Helper()
	const path = "/run/inventory"
	m.Sh(t, 5*time.Minute, "{ "+inventory+"} >"+path)
	list, err := m.ReadFile(vm.Within(t, 5*time.Minute), path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(list)), "\n")
	slices.Sort(lines)
	if len(lines) < 5000 {
		t.Fatalf("an inventory of %d lines only", len(lines))
	}
	return lines
}

// changes are the lines that only the first or only the second list has, both
// sorted, after - and +.
func changes(before, after []string) (list []string) {
	for len(before) > 0 || len(after) > 0 {
		switch {
		case len(after) == 0 || len(before) > 0 && before[0] < after[0]:
			list = append(list, "-"+before[0])
			before = before[1:]
		case len(before) == 0 || after[0] < before[0]:
			list = append(list, "+"+after[0])
			after = after[1:]
		default:
			before, after = before[1:], after[1:]
		}
	}
	return list
}

// wanted fails unless the changes of an inventory are those that patterns allow.
func wanted(t *testing.T, when string, list []string, allowed ...string) {
	t.Helper()
	for _, line := range list {
		if !slices.ContainsFunc(allowed, func(p string) bool { return regexp.MustCompile(p).MatchString(line) }) {
			t.Errorf("%s: %s", when, line)
		}
	}
}

const allPackages = " netsysrq netsysrq-responder netsysrq-dkms"

// A purge leaves the host as it was before the packages were installed, whether or
// not it was ever armed. A removal leaves keys and configuration and nothing that
// acts; with those the host obeys as before when the daemon is installed again.
func TestPurge(t *testing.T) {
	on(t, func(t *testing.T, i *system.Image) {
		m := system.New(t, i, system.Options{})
		before := take(t, m)
		m.Close()

		if everything || i.Release == system.Bookworm {
			m = system.From(t, installed(t, i), system.Options{})
			m.Sh(t, 10*time.Minute, "apt-get purge -y"+allPackages)
			wanted(t, "purged", changes(before, take(t, m)))
			m.Close()
		}

		m = system.From(t, installed(t, i), withDebs(t, version))
		o := newOperator(t, m)
		o.enroll(t, m)
		m.Sh(t, 10*time.Minute, "apt-get remove -y"+allPackages)
		unloadOthers(t, m, before)
		removed := changes(before, take(t, m))
		wanted(t, "removed", removed, kept...)
		for _, want := range []string{`/etc/netsysrq/keys/alice-\w+\.key f 640 root:netsysrq`, `/etc/netsysrq/netsysrqd\.toml f 644`} {
			if !slices.ContainsFunc(removed, regexp.MustCompile(want).MatchString) {
				t.Errorf("removed, the host has no %s", want)
			}
		}

		m.Sh(t, 10*time.Minute, "apt-get install -y "+system.FilesDir+"/netsysrq-responder_"+version+".deb")
		if a := o.run(t, time.Minute, "send", "web1", "n", "--rehearse"); a.code != 0 {
			t.Errorf("installed again, the host does not obey: %d", a.code)
		}
		m.Sh(t, 10*time.Minute, "apt-get purge -y"+allPackages)
		unloadOthers(t, m, before)
		wanted(t, "armed, then purged", changes(before, take(t, m)))
	})
}

// kept is what a removal may leave: keys, configuration, the user that the keys
// belong to, and what dpkg and systemd know of it: that the units are enabled, too,
// as with all packages of Debian.
var kept = []string{
	`^\+(file|content \w+ ) ?/etc/netsysrq(/|$| )`,
	`^[+-]content \w+  /etc/(passwd|shadow|group|gshadow)$`,
	`^\+(user|group) netsysrq:`,
	`^\+package netsysrq(-responder|-dkms)? rc`,
	`^\+file /var/lib/systemd/deb-systemd-helper-`,
	`^\+file /etc/systemd/system/[\w.-]+\.wants/netsysrq[\w-]*\.service l `,
	`^\+unit netsysrq[\w-]*\.service +not-found inactive dead `,
}

// unloadOthers unloads the modules of the kernel's own that iptables and ours have
// had loaded since: nothing of ours uses them any more, or they stay.
func unloadOthers(t *testing.T, m *system.Machine, before []string) {
	t.Helper()
	for range 5 { // those that others use come later
		var more []string
		for name := range strings.Lines(m.Sh(t, 5*time.Minute, "lsmod | sed '1d; s/ .*//'")) {
			name = strings.TrimSpace(name)
			if _, found := slices.BinarySearch(before, "module "+name); !found && name != "xt_NETSYSRQ" {
				more = append(more, name)
			}
		}
		if more == nil {
			return
		}
		// What cannot be unloaded shows in the inventory.
		if _, _, err := m.Exec(vm.Within(t, 5*time.Minute), nil, append([]string{"rmmod"}, more...)...); err != nil {
			t.Fatal(err)
		}
	}
}
