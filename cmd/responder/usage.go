// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"slices"
	"strings"
)

// topic is what help says of commands that belong together.
type topic struct {
	commands []string
	synopsis string
	text     string
}

var topics = []topic{
	{[]string{"run"}, `    netsysrqd [--config FILE] run
`, `run     is the daemon. It takes what needs root, then becomes the user of the
        configuration. SIGHUP makes it read configuration and keys again. What
        systemd runs is this.
`},
	{[]string{"check"}, `    netsysrqd [--config FILE] check [--json] [--quiet]
`, `check   says in plain words whether this host would obey: configuration, keys,
        kernel module, firewall rule, daemon, SysRq, clock. It changes nothing.
        As root it sees everything; --quiet leaves only the exit code, --json
        is for programs.
`},
	{[]string{"status"}, `    netsysrqd [--config FILE] status [--json] [--events]
`, `status  is what the kernel module says of itself: keys, daemon, packets by
        reason; --events adds its record of what it did. It needs root.
`},
	{[]string{"rules"}, `    netsysrqd [--config FILE] rules print [--ipv4 | --ipv6]
    netsysrqd [--config FILE] rules apply | remove | watch
`, `rules   are the firewall rules that hand packets to the daemon: chains of its
        own in the raw table, for IPv4 and IPv6. print shows the input of
        iptables-restore and ip6tables-restore (--noflush) that apply uses.
        apply may be run any number of times; remove takes out all of ours.
        Rules of others are never touched. Where the kernel module xt_NETSYSRQ
        is loaded they lead through it: apply again after loading it, and
        remove before unloading it. watch puts them back whenever something
        flushes them, and runs until it is ended.
`},
	{[]string{"keys"}, `    netsysrqd [--config FILE] keys add [OPERATOR] [--file FILE] [--allow KEYS]
                                       [--no-restart]
    netsysrqd [--config FILE] keys list [--json]
    netsysrqd [--config FILE] keys remove OPERATOR | KEYID [--no-restart]
`, `keys    are the operators of this host. add reads one enrolment line, which
        the operator makes with "netsysrq enroll HOST", from standard input or
        from --file (- is standard input). The line is secret: it belongs in
        no command line and no shell history. OPERATOR replaces the name in
        the line for this host and its log; --allow nsub replaces the SysRq
        keys that the line proposes. The letter L beside them lets the operator
        read the kernel log. An operator can have two keys, so that one
        can succeed the other. list shows no secrets. The kernel module, if it
        is loaded, is told at once. Under systemd the units of netsysrqd are
        then started with the first key, reloaded, or stopped with the last;
        --no-restart leaves them alone and says what to run.
`},
	{[]string{"arm", "disarm", "load-keys"}, `    netsysrqd [--config FILE] arm | disarm | load-keys
`, `arm     loads the kernel module, gives it the keys and applies the rules: all
        that a host needs to obey, but for the daemon. Without a key, or what
        else it needs, it does what it can and says so. disarm undoes it.

load-keys
        makes the kernel module xt_NETSYSRQ hold the keys of this host and no
        others, and tells it dry_run and deadline. It then obeys those keys
        whether or not a daemon runs. Keys that it holds are left alone.
`},
}

const options = `Options:
    -c, --config FILE    instead of /etc/netsysrq/netsysrqd.toml
    -h, --help           this text
    -V, --version        the version
`

// usage is the whole text.
var usage = func() string {
	var b strings.Builder
	b.WriteString("Usage:\n")
	for _, t := range topics {
		b.WriteString(t.synopsis)
	}
	b.WriteString(`    netsysrqd help [COMMAND] | version

netsysrqd lets operators with a key send Magic SysRq commands to this host over
the network, also when no login works any more.
`)
	for _, t := range topics {
		b.WriteString("\n" + t.text)
	}
	b.WriteString("\n" + options + `
Exit codes:
    0    done; check: this host would obey
    1    an error; check: this host would not obey
    2    the command line is wrong
    3    check could not tell, mostly because it did not run as root

Example:
    netsysrqd keys add --allow nsub <alice.enrol    # from "netsysrq enroll db3"
    netsysrqd check
`)
	return b.String()
}()

// usageOf is the text on one command, or all of it.
func usageOf(command string) string {
	command, _, _ = strings.Cut(command, " ")
	for _, t := range topics {
		if slices.Contains(t.commands, command) {
			return "Usage:\n" + t.synopsis + "\n" + t.text + "\n" + options
		}
	}
	return usage
}

// commands are those that help knows.
func commands() (list []string) {
	for _, t := range topics {
		list = append(list, t.commands...)
	}
	return append(list, "help", "version")
}
