// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Attempt is one try to get a hung machine back: a line of a results file.
type Attempt struct {
	Kernel   string `json:"kernel"`
	Release  string `json:"release"`
	Scenario string `json:"scenario"`
	Number   int    `json:"attempt"`
	Outcome  string `json:"outcome"`
	Error    string `json:"error,omitempty"` // why it failed
	Proof    string `json:"proof"`           // that it was hung

	// Late is how late timer interrupts and threads were at most with nothing
	// hung. Times of a bench that is late itself, or gets late, are not judged.
	Late   Late `json:"late_ns"`
	Judged bool `json:"judged"`

	Reply    int64  `json:"reply_ms"` // first packet to sealed reply, by the host's clock
	Executor string `json:"executor"` // whose word let it run: daemon or kernel
	First    int64  `json:"first_ms"` // arrival to first step, by the guest's clock; -1: not known
	Bar      int64  `json:"bar_ms"`   // the most that First may be
	By       string `json:"by"`       // who took the steps: t thread, i timer interrupt
	Reset    int64  `json:"reset_ms"` // reply to reset, by the host's clock
	// Unconfirmed are the steps whose work the kernel did not report as complete.
	Unconfirmed string `json:"unconfirmed,omitempty"`
}

// Outcomes of an attempt.
const (
	WasReset      = "reset"
	WasNotReset   = "failed"
	EmulatorBroke = "emulator fault" // says nothing of the kernel
)

// LateLimit is the Late beyond which times of the guest are not judged.
const LateLimit = 50 * time.Millisecond

// Write writes the attempt as a line of a results file.
func (a *Attempt) Write(w io.Writer) error {
	b, err := json.Marshal(a)
	if err == nil {
		_, err = w.Write(append(b, '\n'))
	}
	return err
}

// ReadAttempts reads a results file.
func ReadAttempts(r io.Reader) (all []Attempt, err error) {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for n := 1; s.Scan(); n++ {
		var a Attempt
		d := json.NewDecoder(strings.NewReader(s.Text()))
		d.DisallowUnknownFields()
		if err := d.Decode(&a); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		all = append(all, a)
	}
	return all, s.Err()
}

// caveats is what a row says besides its scenario.
var caveats = map[string]string{
	ForkBomb.Name: "in a control group of its own",
	Memory.Name:   "before the kernel panics; `kernel.panic=10` is for when it does",
}

// Summary is what README.md says of attempts, in Markdown.
func Summary(attempts []Attempt) string {
	var kernels []string
	scenarios := map[string]bool{}
	tried, reset := 0, 0
	for _, v := range Versions {
		some := false
		for _, a := range attempts {
			if a.Kernel != v || a.Outcome == EmulatorBroke {
				continue
			}
			some, scenarios[a.Scenario] = true, true
			tried++
			if a.Outcome == WasReset {
				reset++
			}
		}
		if some {
			kernels = append(kernels, v)
		}
	}
	list := strings.Join(kernels, ", ")
	if i := strings.LastIndex(list, ", "); i >= 0 {
		list = list[:i] + " and" + list[i+1:]
	}
	count := fmt.Sprintf("All %d", tried)
	if reset < tried {
		count = fmt.Sprintf("**%d of %d**", reset, tried)
	}
	return fmt.Sprintf("Virtual machines with Debian's kernels %s were hung on purpose in %d ways, and then sent what\n"+
		"one `netsysrq reboot` sends. %s attempts brought a sealed reply and then the kernel's own reset.\n", list, len(scenarios), count)
}

// Table is what docs/RELIABILITY.md says of attempts, in Markdown.
func Table(attempts []Attempt) string {
	var b strings.Builder
	b.WriteString(introduction)
	b.WriteString("\n| hung |")
	line := "\n|---|"
	var kernels, releases []string
	for _, v := range Versions {
		at := slices.IndexFunc(attempts, func(a Attempt) bool { return a.Kernel == v })
		if at >= 0 {
			kernels, releases = append(kernels, v), append(releases, attempts[at].Release)
			fmt.Fprintf(&b, " %s |", v)
			line += "---|"
		}
	}
	b.WriteString(line + "\n")
	for _, s := range Scenarios {
		b.WriteString("| " + s.What)
		if c := caveats[s.Name]; c != "" {
			b.WriteString(" (" + c + ")")
		}
		b.WriteString(" |")
		for _, k := range kernels {
			b.WriteString(" " + cell(attempts, k, s.Name) + " |")
		}
		b.WriteString("\n")
	}
	b.WriteString("\n" + legend(attempts, releases))
	return b.String()
}

const introduction = "Each kernel is hung on purpose, and then sent what one `netsysrq reboot` sends, its repeats included. A cell says how\n" +
	"many attempts brought a sealed reply and then the kernel's own reset; the longest time from the packet's arrival to the\n" +
	"first step, by the guest's clock; and the longest time from the reply to the reset.\n"

// cell sums attempts up: how many there were, the longest times, and marks for
// what the legend explains.
func cell(attempts []Attempt, kernel, scenario string) string {
	tried, reset, first, last := 0, 0, int64(-1), int64(0)
	daemon, unconfirmed := false, false
	for _, a := range attempts {
		if a.Kernel != kernel || a.Scenario != scenario || a.Outcome == EmulatorBroke {
			continue
		}
		tried++
		if a.Outcome != WasReset {
			continue
		}
		reset++
		last = max(last, a.Reset)
		if a.Judged {
			first = max(first, a.First)
		}
		daemon = daemon || a.Executor == "daemon"
		unconfirmed = unconfirmed || a.Unconfirmed != ""
	}
	switch {
	case tried == 0:
		return "not tried"
	case reset == 0:
		return fmt.Sprintf("**0 of %d**", tried)
	}
	text := fmt.Sprintf("%d of %d", reset, tried)
	if reset < tried {
		text = "**" + text + "**"
	}
	if first < 0 {
		text += ", not timed"
	} else {
		text += fmt.Sprintf(", %d ms", first)
	}
	text += fmt.Sprintf(", %.1f s", float64(last)/1000)
	if daemon {
		text += " ¹"
	}
	if unconfirmed {
		text += " ²"
	}
	return text
}

// legend explains the table, and only what is in it.
func legend(attempts []Attempt, releases []string) string {
	var daemon, unconfirmed bool
	var broken, late int
	var where []string
	for _, a := range attempts {
		if a.Outcome == EmulatorBroke {
			broken++
			if !slices.Contains(where, a.Kernel) {
				where = append(where, a.Kernel)
			}
			continue
		}
		if a.Outcome == WasReset && !a.Judged {
			late++
		}
		daemon = daemon || a.Executor == "daemon"
		unconfirmed = unconfirmed || a.Unconfirmed != ""
	}
	var notes []string
	note := func(yes bool, format string, args ...any) {
		if yes {
			notes = append(notes, fmt.Sprintf(format, args...))
		}
	}
	note(daemon, "¹ In one attempt at least the daemon still ran, and said so in time. Wherever it did not, the kernel waited 250 ms\n"+
		"for it and then acted by itself.")
	note(unconfirmed, "² In one attempt at least the kernel did not report that the work of `s` or `u` was done. It was given 10 s, then the\n"+
		"next step came: what had not reached the disk by then may be lost.")
	note(late > 0, "Times left out, since others kept the emulator from the host's CPUs: %d.", late)
	note(broken > 0, "Attempts not counted, since a fault of the emulator ended them: %d (%s).", broken, strings.Join(where, ", "))
	note(len(releases) > 0, "Measured in QEMU 7.2 without hardware acceleration, with two CPUs, on Debian's\n%s.", strings.Join(releases, ", "))
	return strings.Join(notes, "\n\n") + "\n"
}
