// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"netsysrq/auth"
	"netsysrq/internal/fleet/hosts"
	"netsysrq/internal/sysrq"
)

// parseSteps reads steps as the command line has them. A word such as reboot or
// sync would be a sequence of its letters, some of which stop the machine: that
// is refused, and so is nothing at all, which a script may have meant for steps.
func parseSteps(text string) ([]auth.Step, error) {
	if text == "" {
		return nil, usageError(errors.New("no steps"), "write for example n,s,u,b")
	}
	letters := strings.Join(strings.Split(text, ""), ",")
	if topics[text] != "" {
		return nil, usageError(fmt.Errorf("%q is a word of netsysrq, not steps", text),
			fmt.Sprintf("netsysrq help %s; the steps of its letters are written %s", text, letters))
	}
	if key, ok := sysrq.Named(text); ok {
		return nil, usageError(fmt.Errorf("%q is a word, not steps", text),
			fmt.Sprintf("%s is the SysRq key %c; the steps of its letters are written %s", text, key, letters))
	}
	steps, err := auth.ParseSteps(text)
	if err == nil {
		return steps, nil
	}
	plain := strings.ToLower(strings.Join(strings.Fields(text), ""))
	hint := "netsysrq help send"
	if isSteps(plain) {
		switch {
		case strings.ToLower(text) == plain:
			hint = "write steps in small letters: " + plain
		case strings.ToLower(text) != text:
			hint = "write steps without spaces and in small letters: " + plain
		default:
			hint = "write steps without spaces: " + plain
		}
	}
	return nil, usageError(err, hint)
}

func isSteps(s string) bool {
	_, err := auth.ParseSteps(s)
	return err == nil
}

// lost returns the first step that leaves no time for those behind it; -1 if
// each gets its turn. b and c never return. o only asks for the power to go:
// with a pause, what is behind it runs where the machine has no such power.
func lost(steps []auth.Step) int {
	for i, s := range steps[:max(len(steps)-1, 0)] {
		if s.EndsMachine() && (s.Key != 'o' || s.Pause == 0) {
			return i
		}
	}
	return -1
}

// checkOrder refuses steps that are never run: whoever wrote them meant
// something else.
func checkOrder(steps []auth.Step) error {
	i := lost(steps)
	if i < 0 {
		return nil
	}
	hint := fmt.Sprintf("let %c be the last: %s", steps[i].Key, auth.FormatSteps(steps[:i+1]))
	if steps[i].Key == 'o' {
		hint += "; or give it time, for where it does nothing: o:10s," + auth.FormatSteps(steps[i+1:])
	}
	return usageError(fmt.Errorf("%s would never be run: %c ends the machine", masked(steps, behind(steps, i)), steps[i].Key), hint)
}

// behind is the mask of the steps behind one.
func behind(steps []auth.Step, i int) uint8 {
	return uint8(1<<len(steps)-1) &^ uint8(1<<(i+1)-1)
}

// checkNames refuses a name that is rather a step: netsysrq send web1 s u b
// would reboot web1 without the sync, since only the last word is the steps. A
// name that is listed is a host's, and so is the first.
func (o *options) checkNames(list *hosts.File) error {
	switch o.command.name {
	case "send", "run", "drill":
	default:
		return nil
	}
	i := 1
	for ; i < len(o.hosts); i++ {
		if name := o.hosts[i]; hosts.IsOne(name) && !list.Knows(name) && isSteps(name) {
			break
		}
	}
	if i >= len(o.hosts) {
		return nil
	}
	words := append(slices.Clone(o.hosts[i:]), cmp.Or(o.doubtful, o.stepsText))
	write := "HOST... s,u,b"
	if steps := strings.Join(words, ","); isSteps(steps) {
		write = strings.Join(o.hosts[:i], " ") + " " + steps
	}
	return usageError(fmt.Errorf("is %q a host or a step? The list of hosts does not have it; nothing was sent", o.hosts[i]),
		fmt.Sprintf("write steps with commas, as one word: netsysrq %s %s; a host of such a name stands first, or in the list: netsysrq help hosts",
			o.command.name, write))
}
