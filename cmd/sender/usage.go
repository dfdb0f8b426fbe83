// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"netsysrq/internal/typo"
)

const usage = `netsysrq asks a host to perform Magic SysRq steps, such as syncing its disks
and rebooting, when nothing else of it answers any more.

    netsysrq keygen [--words]         make your master key, once
    netsysrq enroll HOST              print the line that makes HOST know you
    netsysrq status HOST...           ask how hosts are; changes nothing
    netsysrq send   HOST... n,s,u,b   run SysRq keys; a pause is written s:2s
    netsysrq reboot HOST...           the same as send HOST... n,s,u,b
    netsysrq cancel HOST...           drop what hosts still have of yours to do
    netsysrq drill  HOST... [n,s,u,b] rehearse, by the daemon and by the kernel
    netsysrq explain [n,s,u,b]        what SysRq keys do and cost
    netsysrq log    HOST...           print the end of HOST's kernel log
    netsysrq run    HOST... w         run a SysRq key, and print what it prints
    netsysrq help   COMMAND           explain a command
    netsysrq version                  print the version

HOST is the name under which the host was enrolled, which is also where packets
go unless --address or the list of hosts says otherwise. A wrong name looks like
a dead host, and so does a wrong key: a host answers nothing that it can't open.
With a list of hosts (netsysrq help hosts) HOST is also a pattern such as
'web*', a group such as @db, @all, or an exception such as '!web3'.

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
      --hosts FILE           the list of hosts; the default is
                             $XDG_CONFIG_HOME/netsysrq/hosts.toml, or else
                             ~/.config/netsysrq/hosts.toml
      --address ADDR         an address or another name of HOST
      --port PORT            UDP port (default 9)
  -4, --ipv4                 use IPv4 only
  -6, --ipv6                 use IPv6 only
      --timeout DURATION     how long to try, 100ms to 1h (default 10s)
      --parallel N           at most N hosts at once (default 10000; of log and
                             run 64)

What to do:
      --rehearse             everything but the act
      --one-packet           send nothing but the one packet that needs a clock
                             and no answer; see netsysrq help send
      --dry-run              show the packets, decoded, and send nothing
      --wait [DURATION]      follow the machine until it is back (default 10m)
      --rolling N            at most N hosts at once, and stop at the first
                             that does not come back; it implies --wait
      --watch [INTERVAL]     ask again and again (default 2s)
      --overdue AGE          list hosts without a drill for so long, such as 30d
  -y, --yes                  do not ask before steps that stop the machine
      --tail SIZE            how much of a log, such as 64K (default) or 1M
      --all                  all of it that is still there
  -f, --follow               and then what comes, until ^C

What to say:
      --json                 one JSON object a line for each host, with "v":1,
                             and for many a last one with a summary
  -q, --quiet                nothing if it went well
  -v, --verbose              tell of every packet
      --version
  -h, --help

Exit code 0 is success, 2 wrong use, 3 refused, 5 no answer; netsysrq help
exit-codes has them all.
`

// topics is what netsysrq help COMMAND says.
var topics = map[string]string{
	"help": `netsysrq help [COMMAND | hosts | exit-codes]

Explains a command, the list of hosts, or the exit codes. netsysrq COMMAND --help
is the same. Without a word it lists the commands and flags.
`,
	"version": `netsysrq version

Prints the version of netsysrq and that of the protocol, as --version does.
`,
	"exit-codes": `The exit code says what became of a host:

    0  accepted, or a status was answered; a rehearsal counts; of a drill: both
       ways were proved; of a log or run: what there is was printed
    1  an error on this side, such as no network; the host was asked nothing
    2  the command was wrongly used, or not confirmed; nothing was sent
    3  refused: by policy or kernel.sysrq, vetoed, busy, stale or malformed;
       or accepted by a host whose configuration says dry_run
    4  rebooted: not known to be accepted, but the host has booted since
    5  unknown: no answer. That is never proof that nothing was done, unless
       the line says that the run was not sent
    6  a problem with a key or passphrase; nothing was sent
    7  a drill was answered, but did not prove both ways: the daemon did not
       take it, or there is no kernel module; or drills are overdue
    8  waited for: it came back, but the daemon has not; the kernel answers
    9  waited for: it did not come back in time, or never went down

Of many hosts the worst one counts, from bad to worse: 4 7 1 6 3 8 5 9.
`,
	"keygen": `netsysrq keygen [--operator LABEL] [--key FILE]
netsysrq keygen --words [--count N]

Makes your master key, from which the key of every host is derived. It never
leaves your side: a host only ever gets its own.

Without --words it is random and written to a file that only you can read.
keygen never replaces a file.

With --words it prints a passphrase of six words (--count: 5 to 12), and saves
nothing. --passphrase --operator LABEL makes the same key from it on any machine,
if both are the same every time. Let keygen choose the words: anyone who holds one
captured packet can test guesses at leisure.
`,
	"enroll": `netsysrq enroll HOST [--allow KEYS]

Prints one line, with the key of HOST, for netsysrqd keys add to read:

    netsysrq enroll web1 | ssh root@web1 netsysrqd keys add alice

The line is secret: anyone who holds it can do to HOST what you can. --allow
proposes the SysRq keys that you may use there (default nsub), with or without
commas; the letter L beside them, as in nsubwL, also lets you read its kernel log.

HOST is part of the key. Use one name for a host, here and in every command.
`,
	"hosts": `The list of hosts, ~/.config/netsysrq/hosts.toml or --hosts FILE:

    [defaults]
    port = 9                        # for all hosts
    key = "~/keys/master.key"       # or beside the list: key = "master.key"

    [groups.db]                     # @db
    port = 99
    hosts = ["db3", "db4"]          # that need no table of their own

    [hosts.db1]
    address = "192.0.2.7"           # or addresses = ["192.0.2.7", "2001:db8::7"]
    groups = ["db"]

    [hosts.web1]
    name = "web1.example.org"       # it was enrolled under this name

A host without an address is found by its name. What a host does not set, its
groups do, or else the defaults; --port and --key go before them all. Mistakes
are told with their line.

HOST on the command line is a name, listed or not; a pattern with * ? [ ]; a
group; @all; or any of these after !, which takes hosts away again. Quote those
that the shell would change: netsysrq status @all '!db*'.

Many hosts are asked at once and told in one line each, in the order in which
they were named; those of a pattern or group by name. On a terminal the lines
are a table that keeps itself up to date. The last line counts. With --json it is
    {"v":1,"summary":{"command":...,"hosts":...,"exit":...,"states":{...},...}}
`,
	"status": `netsysrq status HOST... [--watch [INTERVAL]]

Asks HOST how it is, and prints one line: how long it is up, its load and free
memory, whether it is armed, and when its last successful drill from here with
this key was. It changes nothing and needs no clock. What is out of the ordinary
is said too: the kernel answers, not the daemon; kernel.sysrq forbids a step of a
reboot; the clocks are more than a second apart; it does not know its own to be
synchronised, so it takes no packet of --one-packet; dry run. --json has
everything. --watch asks again and again, until it is interrupted; an answer is then
waited for as long as INTERVAL, unless --timeout says otherwise.

Armed: the host has the kernel module, which answers also when every process
hangs. Where the daemon was not heard for 3 s, the line says that the kernel
answers, and for how long the daemon has been silent. Daemon only: there is no
module, and a host whose processes hang answers nothing.
`,
	"send": `netsysrq send HOST... STEPS [--rehearse] [--one-packet] [--yes]
                             [--dry-run] [--wait [DURATION]] [--rolling N]

Asks HOST to perform up to seven SysRq keys in order: n,s,u,b or nsub. A time
after a key is a pause: t:500ms,b. After s and u it is the longest time to wait
until the disks are synced or remounted, 10 s if none is given. Pauses add up to
60 s at most.

STEPS is the last word, and one word. Refused, with nothing sent: no steps; words
such as reboot or sync, whose letters are other keys; steps behind b, c or o that
would never be run (behind o:10s they are, where o does nothing); and a name that
could be a step, unless it stands first or is listed. Before steps that stop
several machines, every name that is not listed is looked up: if one is not found,
nothing is sent to any.

Steps that stop the machine or end processes are confirmed by typing the host's
name, or the number of many hosts; --yes confirms them in scripts. --rehearse goes
all the way but the act. --dry-run sends nothing and shows what would be sent.

A status goes first and brings a challenge, so that no clock matters. If nothing
answers for a second, the same intent also goes out with the time instead, which
needs no answer but a clock on both sides that is within 15 s of the other.
--one-packet sends that form alone, even if our own clock is not known to be
right. Where that clock is ahead of the host's, the packet is not run; but anyone
who recorded it could have it run, once, when the host's clock has come that far.

Everything is repeated until an answer or the timeout, and runs once at most.

Accepted means that it runs as soon as its turn comes: a host runs one sequence
at a time. netsysrq cancel drops what your key has there.

--wait follows a machine that restarts until it is back, for 10 min or DURATION.
Only a sealed reply with another boot id proves that. If the kernel module
answers first, its daemon is waited for a minute more. --rolling N does that with
N hosts at a time: as soon as one is not back with its daemon, no other is begun,
and the last line names those that were not asked.
`,
	"reboot": `netsysrq reboot HOST... [--rehearse] [--one-packet] [--yes] [--dry-run]
                        [--wait [DURATION]] [--rolling N]

The same as netsysrq send HOST n,s,u,b: make real-time tasks ordinary, so that
they can't hold up the rest; sync the disks; remount them read-only; reboot.
`,
	"cancel": `netsysrq cancel HOST... [--one-packet]

Drops what your key has running or waiting there, and what is left of another
key's running sequence if you may use every SysRq key in it. Every packet that
you sent before becomes worthless, also to anyone who recorded it.
`,
	"drill": `netsysrq drill HOST... [STEPS]
netsysrq drill --overdue AGE [HOST...]

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

Many hosts have a line each. With several, write STEPS with commas. The date of a
drill with exit code 0 is kept with the id of its key, in
$XDG_STATE_HOME/netsysrq/drills, or else ~/.local/state/netsysrq/drills. --overdue
30d sends nothing, lists the hosts whose last one with the present key is longer
ago, or not known, and ends with 7 if there are any; without HOST it looks at all
that are listed. It needs the key, or the passphrase, to know which one that is.
`,
	"explain": `netsysrq explain [STEPS] [--json]

Says what each SysRq key of STEPS does and what it costs, whether it ends the
machine, whether kernel.sysrq as distributions set it lets it through, and what
is remarkable about the steps together. Without STEPS it lists all keys. Nothing
is sent. The source is the kernel's Documentation/admin-guide/sysrq.rst.
`,
	"log": `netsysrq log HOST... [--tail SIZE | --all] [--follow]

Prints the end of HOST's kernel log, as dmesg does, also when every process of
HOST hangs: the kernel module reads it. Without the module netsysrqd does, as long
as it lives.

--tail takes a number of bytes, with K or M behind it; --all prints what is still
there. --follow goes on with what comes, until ^C, and asks once a second.

Many hosts are printed as each is complete, one after the other, each below a
line ==> HOST <==; with --follow, of up to 1000 hosts, every line begins with
the host's name. Only logs are on stdout: what went wrong, and a last line that
counts, are on stderr.

--json prints an object for each host, with its lines. With --follow, and of a
log above 1 MiB, they come in several objects; all but the last have "more":true.

What is lost on the way is asked for again. If the host has overwritten something
before it could be read, a line says how many records are missing there. Control
characters are printed as \x1b, so that nothing in a log can play with a terminal.

The key needs the letter L in its allowed set on HOST, since a kernel log tells
addresses, names and devices: netsysrq enroll HOST --allow nsubL proposes it.
`,
	"run": `netsysrq run HOST... KEYS

Runs SysRq keys that print something, and prints what the kernel writes from then
on, until it is silent for a second:

    d  locks that are held           q  timers and clock devices
    l  what active CPUs do           t  all tasks
    m  memory                        w  blocked tasks, in state D
    p  registers of this CPU         z  the kernel's trace buffer

The blocked tasks of a server that hangs: netsysrq run HOST w. The key needs both
the SysRq key and the letter L in its allowed set on HOST; if it may not read the
log, nothing is run. Where kernel.sysrq forbids the key, HOST says so.

Only what the kernel writes is on stdout, of many hosts as log has it. What became
of each run is on stderr.
`,
}

// help prints the usage text or that of a command.
func (w world) help(o *options) int {
	text := usage
	if o.topic != "" {
		var ok bool
		if text, ok = topics[o.topic]; !ok {
			return w.fail(usageError(fmt.Errorf("no help on %q", o.topic),
				cmp.Or(typo.Hint(o.topic, slices.Collect(maps.Keys(topics))), "netsysrq --help lists the commands")))
		}
	}
	fmt.Fprint(w.stdout, text)
	return exitOK
}

func usageError(err error, hint string) error { return &failure{exitUsage, err, hint} }

var errNoCommand = errors.New("no command")
