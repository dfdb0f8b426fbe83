// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"errors"
	"fmt"
)

const usage = `netsysrq asks a host to perform Magic SysRq steps, such as syncing its disks
and rebooting, when nothing else of it answers any more.

    netsysrq keygen [--words]         make your master key, once
    netsysrq enroll HOST              print the line that makes HOST know you
    netsysrq status HOST              ask how HOST is; changes nothing
    netsysrq send   HOST n,s,u,b      run SysRq keys; a pause is written s:2s
    netsysrq reboot HOST              the same as send HOST n,s,u,b
    netsysrq cancel HOST              drop what HOST still has of yours to do
    netsysrq drill  HOST [n,s,u,b]    rehearse, by the daemon and by the kernel
    netsysrq help   COMMAND           say more about a command

HOST is the name under which the host was enrolled, which is also where packets
go unless --address says otherwise. A wrong name looks like a dead host, and so
does a wrong key: a host answers nothing that it can't open.

Flags may stand anywhere.

Which key:
      --key FILE             your master key; the default is
                             $XDG_CONFIG_HOME/netsysrq/master.key, or else
                             ~/.config/netsysrq/master.key
      --passphrase           ask for a passphrase on the terminal instead
      --passphrase-fd N      read it from file descriptor N, one line
      --operator LABEL       your label, which a passphrase needs; the default
                             is your user name

Where to:
      --address ADDR         an address or another name of HOST
      --port PORT            UDP port (default 9)
  -4, --ipv4                 use IPv4 only
  -6, --ipv6                 use IPv6 only
      --timeout DURATION     how long to try, 100ms to 1h (default 10s)

What to do:
      --rehearse             everything but the act
      --one-packet           send nothing but the one packet that needs a clock
                             and no answer; see netsysrq help send
  -y, --yes                  do not ask before steps that stop the machine

What to say:
      --json                 one JSON object for the host, with "v":1
  -q, --quiet                nothing if it went well
  -v, --verbose              tell of every packet
      --version
  -h, --help

Exit codes:
    0  accepted, or a status was answered; a rehearsal counts; of a drill: both
       ways were proved
    1  an error on this side, such as no network; the host was asked nothing
    2  the command was wrongly used, or not confirmed; nothing was sent
    3  refused: by policy or kernel.sysrq, vetoed, busy, stale or malformed;
       or accepted by a host whose configuration says dry_run
    4  rebooted: not known to be accepted, but the host has booted since
    5  unknown: no answer. That is never proof that nothing was done, unless
       the line says that the run was not sent
    6  a problem with a key or passphrase; nothing was sent
    7  a drill was answered, but did not prove both ways: the daemon did not
       take it, or there is no kernel module
`

// topics is what netsysrq help COMMAND says.
var topics = map[string]string{
	"keygen": `netsysrq keygen [--operator LABEL] [--key FILE]
netsysrq keygen --words [--count N]

Makes your master key, from which the key of every host is derived. It never
leaves your side: a host only ever gets its own.

Without --words it is random and written to a file that only you can read.
keygen never replaces a file.

With --words it prints a passphrase of six words (--count: 5 to 12), and saves
nothing. --passphrase --operator LABEL makes the same key from it on any machine,
if both are the same every time. Let keygen choose the words: who holds one
captured packet can test guesses at leisure.
`,
	"enroll": `netsysrq enroll HOST [--allow KEYS]

Prints one line, with the key of HOST, for netsysrqd keys add to read:

    netsysrq enroll web1 | ssh root@web1 netsysrqd keys add alice

The line is secret: who holds it can do to HOST what you can. --allow proposes
the SysRq keys that you may use there (default nsub).

HOST is part of the key. Use one name for a host, here and in every command.
`,
	"status": `netsysrq status HOST

Asks HOST how it is, and prints one line: how long it is up, its load and free
memory, who answered, kernel.sysrq, and whether its clock agrees with ours.
It changes nothing and needs no clock.

Armed: the host has the kernel module, which answers also when every process
hangs. Where the daemon was not heard for 3 s, the line says that the kernel
answered, and for how long the daemon has been silent. Daemon only: there is no
module, and a host whose processes hang answers nothing.
`,
	"send": `netsysrq send HOST STEPS [--rehearse] [--one-packet] [--yes]

Asks HOST to perform up to seven SysRq keys in order: n,s,u,b or nsub. A time
after a key is a pause: t:500ms,b. After s and u it is the longest time to wait
until the disks are synced or remounted, 10 s if none is given. Pauses add up to
60 s at most.

Steps that stop the machine or end processes are confirmed by typing the host's
name; --yes confirms them in scripts. --rehearse goes all the way but the act.

A status goes first and brings a challenge, so that no clock matters. If nothing
answers for a second, the same intent also goes out with the time instead, which
needs no answer but a clock on both sides that is within 15 s of the other.
--one-packet sends that form alone, even if our own clock is not known to be
right. Where that clock is ahead of the host's, the packet is not run; but who
recorded it could have it run, once, when the host's clock has come that far.

Everything is repeated until an answer or the timeout, and runs once at most.

Accepted means that it runs as soon as its turn comes: a host runs one sequence
at a time. netsysrq cancel drops what your key has there.
`,
	"reboot": `netsysrq reboot HOST [--rehearse] [--one-packet] [--yes]

The same as netsysrq send HOST n,s,u,b: make real-time tasks ordinary, so that
they can't hold up the rest; sync the disks; remount them read-only; reboot.
`,
	"cancel": `netsysrq cancel HOST [--one-packet]

Drops what your key has running or waiting there, and what is left of another
key's running sequence if you may use every SysRq key in it. Every packet that
you sent before becomes worthless, also to who recorded it.
`,
	"drill": `netsysrq drill HOST [STEPS]

Asks HOST twice to rehearse STEPS (default n,s,u,b): all but the act. Nothing is
run, so nothing has to be confirmed.

The first time is the daemon's way: the daemon, if it is well, takes the request.
The second time is the kernel's way, as if every process of HOST hung: the daemon
leaves the request alone, and the kernel module answers when its deadline is over.
Each has a line that says how it ended and how long it took from the first packet
of the run to the answer; a third line says what that proves.

The exit code is 0 only if both ways are proved. 7: HOST answered, but its daemon
did not take the first, or there is no kernel module to answer the second. The
other codes are those of every command. If the first fails in a way in which the
second would fail too, the second is not tried.
`,
}

// help prints the usage text or that of a command.
func (w world) help(o *options) int {
	text := usage
	if o.topic != "" {
		var ok bool
		if text, ok = topics[o.topic]; !ok {
			return w.fail(usageError(fmt.Errorf("no help on %q", o.topic), "netsysrq --help lists the commands"))
		}
	}
	fmt.Fprint(w.stdout, text)
	return exitOK
}

func usageError(err error, hint string) error { return &failure{exitUsage, err, hint} }

var errNoCommand = errors.New("no command")
