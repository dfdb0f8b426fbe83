// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/exchange"
	"netsysrq/internal/version"
)

// words says in one plain line what became of the host, with hints where it
// may not be what was wanted, and gives it an exit code.
func (r *result) words() (code int, line string, hints []string) {
	code, line, hints = r.plainWords()
	if r.outcome != nil || r.many {
		line = r.host.Name + ": " + line
	}
	return code, line, hints
}

// hostName is how hints call the host. Those for many hosts are told once.
func (r *result) hostName() string {
	if r.hintsForAll() {
		return "HOST"
	}
	return r.host.Name
}

// again is another command for the same host, in a hint: by the same key, and to
// the same address.
func (r *result) again(command string) string {
	return fmt.Sprintf("netsysrq %s %s%s", command, r.hostName(), r.options.same())
}

func (r *result) hintsForAll() bool { return r.many && !r.options.json }

// plainWords are the words without the host's name.
func (r *result) plainWords() (code int, line string, hints []string) {
	o := r.outcome
	if o == nil {
		f := asFailure(r.err)
		if f.hint != "" {
			hints = []string{f.hint}
		}
		return f.code, r.err.Error(), hints
	}
	if r.follow != nil {
		return r.followedWords()
	}
	switch o.Kind {
	case exchange.Answered:
		line = statusWords(o)
		if !r.drilled.IsZero() {
			line += "; last drill " + ago(r.drilled)
		}
		return exitOK, line, nil
	case exchange.Accepted:
		code = exitOK
		if o.Reply.Flags&auth.DryRun != 0 {
			code = exitRefused // nobody asked for a rehearsal
		}
		return code, r.acceptedWords(), nil
	case exchange.Refused:
		line, hints = r.refusedWords()
		return exitRefused, line, hints
	case exchange.Rebooted:
		return exitRebooted, fmt.Sprintf("rebooted since it was asked: boot %x before, %x now, up %s; that it accepted was not heard",
			o.Before[:4], o.After[:4], duration(time.Duration(o.Reply.Uptime)*time.Second)), nil
	}
	line, hints = r.unknownWords()
	return exitUnknown, line, hints
}

// statusWords tell how a host is: always the same few facts, and of the others
// what is out of the ordinary.
func statusWords(o *exchange.Outcome) string {
	p := o.Reply
	var b strings.Builder
	fmt.Fprintf(&b, "up %s, load %.2f, %s free", duration(time.Duration(p.Uptime)*time.Second), float64(p.Load)/100, memory(p.Free))
	if p.Executor == auth.Kernel {
		b.WriteString("; the kernel answers: " + silentWords(p))
	}
	if p.Flags&auth.Armed != 0 {
		b.WriteString("; armed (kernel module)")
		if ignored := ignoredBy(p); ignored != "" {
			fmt.Fprintf(&b, "; kernel.sysrq %d ignores %s of a reboot", p.Sysrq, ignored)
		}
	} else {
		b.WriteString("; daemon only (no kernel module)")
	}
	if o.Difference.Abs() > time.Second {
		b.WriteString("; " + clockWords(o))
	}
	if p.Flags&auth.ClockTrusted == 0 {
		b.WriteString("; " + untrusted)
	}
	if p.Flags&auth.DryRun != 0 {
		b.WriteString("; dry run: it would do nothing (dry_run in its configuration)")
	}
	return b.String()
}

// untrusted is said of a clock that its host does not trust.
const untrusted = "its clock is not known to be synchronised"

// ignoredBy are the steps of a reboot that the value of kernel.sysrq forbids.
func ignoredBy(p *auth.Reply) string {
	steps, err := auth.ParseSteps(rebootSteps)
	if err != nil || p.Sysrq == auth.SysrqUnknown {
		return ""
	}
	return masked(steps, auth.Swallowed(steps, int(p.Sysrq)))
}

// memory writes a size with the precision that a person wants.
func memory(mib uint32) string {
	if mib >= 10<<10 {
		return fmt.Sprintf("%d GiB", mib>>10)
	}
	return fmt.Sprintf("%d MiB", mib)
}

// never is what Reply.Silent says of a daemon that was not heard at all.
const never = 0xffff

// silentWords is for how long the daemon has been silent.
func silentWords(p *auth.Reply) string {
	switch p.Silent {
	case never:
		return "no daemon was ever heard"
	case 0:
		return "the daemon has been silent for less than 1 s"
	}
	return "the daemon has been silent for " + duration(time.Duration(p.Silent)*time.Second)
}

// lateWords is why the daemon's word did not settle a run. One that was heard
// just before may be slow and no more.
func lateWords(p *auth.Reply) string {
	if p.Silent < 3 {
		return "the daemon did not answer in time"
	}
	return silentWords(p)
}

// clockWords compares the clocks; what is below a second matters to no one.
func clockWords(o *exchange.Outcome) string {
	d := o.Difference
	switch {
	case d > time.Second:
		return fmt.Sprintf("its clock is %s ahead of ours", duration(d))
	case d < -time.Second:
		return fmt.Sprintf("its clock is %s behind ours", duration(-d))
	}
	return "its clock agrees with ours"
}

func (r *result) acceptedWords() string {
	o, p := r.outcome, r.outcome.Reply
	steps := listSteps(r.options.steps)
	took := fmt.Sprintf("(%s)", duration(o.RoundTrip))
	if o.RoundTrip == 0 {
		took = fmt.Sprintf("(after %s)", duration(o.Elapsed))
	}
	// By whose word. With the module it is the kernel that runs it, either way.
	armed := p.Flags&auth.Armed != 0
	alone := armed && p.Executor == auth.Kernel
	by := fmt.Sprintf(" by the %v", p.Executor)
	if alone {
		by = ""
	}
	var line string
	switch {
	case r.options.command.name == "cancel":
		line = fmt.Sprintf("cancelled%s: nothing of this key runs or waits any more, and every packet made before is dead %s", by, took)
	case p.Flags&auth.Rehearsed != 0 && armed && !alone:
		line = fmt.Sprintf("rehearsed: %s would be run, taken by the daemon %s", steps, took)
	case p.Flags&auth.Rehearsed != 0:
		line = fmt.Sprintf("rehearsed: %s would be run%s %s", steps, by, took)
	case p.Flags&auth.DryRun != 0:
		line = fmt.Sprintf("dry run: the host only rehearses (dry_run in its configuration); %s not run%s %s", steps, by, took)
	case p.Mask != 0:
		line = fmt.Sprintf("accepted: %s%s, but without %s %s", steps, by, masked(r.options.steps, p.Mask), took)
	default:
		line = fmt.Sprintf("accepted: %s%s %s", steps, by, took)
	}
	if alone {
		line += "; the kernel answers: " + lateWords(p)
	}
	if o.TimeStale {
		line += fmt.Sprintf("; the one-packet form was stale, %s", clockWords(o))
	}
	return line
}

func (r *result) refusedWords() (line string, hints []string) {
	p, steps := r.outcome.Reply, r.options.steps
	causes := masked(steps, p.Mask)
	switch p.Result {
	case auth.RefPolicy:
		// Keys that are not allowed are refused first; that could have the
		// same mask, but not often.
		if p.Flags&auth.Armed == 0 && p.Mask != 0 && p.Mask == auth.AfterKill(steps) {
			return fmt.Sprintf("refused by policy: e and i end every process, the daemon too, which would not live to run %s", causes),
				[]string{"end the sequence with e or i"}
		}
		return fmt.Sprintf("refused by policy: %s not allowed for this key", isAre(causes)),
			[]string{r.allowHint(strings.ReplaceAll(causes, ", ", ""))}
	case auth.RefSysrq:
		value := fmt.Sprint(p.Sysrq)
		if p.Sysrq == auth.SysrqUnknown {
			value = "not known"
		}
		return fmt.Sprintf("refused by kernel.sysrq: its value there is %s, with which the kernel ignores %s", value, causes),
			[]string{"sysctl kernel.sysrq=1 on the host allows every key; netsysrqd check says what is missing"}
	case auth.Vetoed:
		return "vetoed: the host's daemon forbade it, or a newer request took its place",
			[]string{"netsysrqd's log on the host says which, and why"}
	case auth.Busy:
		return fmt.Sprintf("busy: %d sequences of this key are running or waiting", auth.Active),
			[]string{r.again("cancel") + " drops them"}
	case auth.Malformed:
		return "malformed: the host could open the request but not read it", []string{"its netsysrq may be another version than " + version.String()}
	}
	return r.staleWords(), []string{"without --one-packet no clock matters"}
}

// staleWords is why the host did not take the one packet.
func (r *result) staleWords() string {
	o := r.outcome
	switch {
	case o.Reply.Flags&auth.ClockTrusted == 0:
		return "stale: the host does not trust its own clock, so it takes no packet by its time; " + clockWords(o)
	case o.Difference.Abs() > auth.Window:
		return fmt.Sprintf("stale: %s, and a time is taken only within %v", clockWords(o), auth.Window)
	}
	return fmt.Sprintf("stale: the host began less than %v ago, or knows a newer request of this key; %s", auth.Window, clockWords(o))
}

// mayBeDone is what no answer means.
func (r *result) mayBeDone() string {
	if r.flags&(auth.Rehearse|auth.Drill) != 0 {
		return "it was only a rehearsal"
	}
	return "it may have been done all the same"
}

func (r *result) unknownWords() (line string, hints []string) {
	o := r.outcome
	run := r.options.command.name != "status"
	quiet := "no answer within " + duration(r.options.timeout)
	if r.err != nil {
		quiet = fmt.Sprintf("interrupted after %s without an answer", duration(o.Elapsed))
	}
	switch {
	case o.Postdated && o.TimeStale:
		return fmt.Sprintf("unknown: %s, so the one-packet form lies in its future: not taken, but a copy of it may yet be run once", clockWords(o)),
			[]string{"set the clocks right; whoever recorded the packet can have it run when the host has restarted and that time has come"}
	case o.Forgotten:
		age := time.Duration(o.Reply.Uptime) * time.Second
		who := fmt.Sprintf("what answers there began anew (same boot, up %s)", duration(age))
		if age <= o.Elapsed {
			who = fmt.Sprintf("it booted (up %s)", duration(age))
		}
		return fmt.Sprintf("unknown: %s after it was first asked and no longer knows what it did; nothing more was sent, %s", who, r.mayBeDone()),
			[]string{r.again("status") + " tells how it is now"}
	case !run && o.Reply == nil:
		line = quiet
	case !run:
		line = "no useful answer"
	case o.RunSent && o.Reply == nil:
		line = fmt.Sprintf("unknown: %s; %s", quiet, r.mayBeDone())
	case o.RunSent:
		line = fmt.Sprintf("unknown: it answered at first, but not to the run: %s; %s", quiet, r.mayBeDone())
	case o.Reply != nil:
		return "unknown: it answers, but has no challenge to give yet; the run was not sent",
			[]string{"its random generator is not ready" + r.onePacket("; --one-packet needs none")}
	default:
		line = fmt.Sprintf("unknown: %s; the run was not sent", quiet)
		if h := r.onePacket("our clock is not synchronised, so the run was not sent; --one-packet sends it all the same"); h != "" && o.Elapsed >= exchange.Patience {
			hints = append(hints, h)
		}
	}
	return line, append(hints, r.silenceHints(o)...)
}

// onePacket is a hint at --one-packet, for the commands that have it.
func (r *result) onePacket(hint string) string {
	if !slices.Contains(strings.Fields(r.options.command.flags), "one-packet") {
		return ""
	}
	return hint
}

// allowHint says where the keys that a key of ours lacks are added.
func (r *result) allowHint(keys string) string {
	id, tell := r.key.String(), ""
	if r.hintsForAll() {
		id, tell = "KEYID", " (-v tells the id)"
	}
	return fmt.Sprintf("add %s to allow in /etc/netsysrq/keys/*-%s.key on the host%s, then systemctl reload netsysrqd", keys, id, tell)
}

// silenceHints are what is known of why a host is silent, or else what it can
// be, the likely first.
func (r *result) silenceHints(o *exchange.Outcome) (hints []string) {
	switch {
	case errors.Is(o.Unreachable, syscall.ECONNREFUSED):
		return []string{"the host says that nothing listens there: netsysrq's rules are not in place, or the port is another; netsysrqd check tells"}
	case o.Unreachable != nil:
		hints = append(hints, fmt.Sprintf("the network said: %v", o.Unreachable))
	}
	if o.Reply != nil {
		return hints
	}
	port, name, id := "", fmt.Sprintf(" than %q", r.host.Enrolled), r.key.String()
	if len(r.addrs) > 0 {
		port = fmt.Sprintf(" port %d", r.addrs[0].Port())
	}
	if r.hintsForAll() {
		port, name, id = "", "", "that -v tells"
	}
	return append(hints,
		"it is down, or there is no route to it",
		"or a firewall drops UDP"+port,
		"or its processes hang, and it has no kernel module",
		fmt.Sprintf("or it was enrolled under another name%s or with another key: netsysrqd keys list there must show the key id %s", name, id),
		`docs/OPERATIONS.md, "When nothing answers", says what to try`)
}

// ago says how long ago a date was, in days.
func ago(t time.Time) string {
	switch days := int(time.Since(t) / (24 * time.Hour)); {
	case days < 1:
		return "today"
	case days == 1:
		return "1 day ago"
	default:
		return fmt.Sprintf("%d days ago", days)
	}
}

// listSteps writes steps for people.
func listSteps(steps []auth.Step) string {
	return strings.ReplaceAll(auth.FormatSteps(steps), ",", ", ")
}

// masked lists the keys of the steps in a mask.
func masked(steps []auth.Step, mask uint8) string {
	var keys []string
	for i, s := range steps {
		if mask&(1<<i) != 0 {
			keys = append(keys, string(s.Key))
		}
	}
	return strings.Join(keys, ", ")
}

func isAre(keys string) string {
	if strings.Contains(keys, ",") {
		return "keys " + keys + " are"
	}
	return "key " + keys + " is"
}

// duration writes a time with the precision that a person wants.
func duration(d time.Duration) string {
	// Rounded first, so that no 59.99 s becomes 60 s.
	switch {
	case d >= time.Minute:
		d = d.Truncate(time.Second)
	case d >= 999500*time.Microsecond:
		d = d.Round(100 * time.Millisecond)
	}
	switch {
	case d == 0:
		return "0 s"
	case d < 100*time.Microsecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Round(time.Millisecond)/time.Millisecond)
	case d < time.Minute:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", d.Seconds()), ".0") + " s"
	case d < time.Hour:
		return pair(d, time.Minute, "min", time.Second, "s")
	case d < 24*time.Hour:
		return pair(d, time.Hour, "h", time.Minute, "min")
	}
	return pair(d, 24*time.Hour, "d", time.Hour, "h")
}

func pair(d, big time.Duration, bigName string, small time.Duration, smallName string) string {
	if d%big/small == 0 {
		return fmt.Sprintf("%d %s", d/big, bigName)
	}
	return fmt.Sprintf("%d %s %d %s", d/big, bigName, d%big/small, smallName)
}
