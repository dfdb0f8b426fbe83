// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// summary counts what became of the hosts.
type summary struct {
	Command   string         `json:"command"`
	Hosts     int            `json:"hosts"`
	Exit      int            `json:"exit"`
	States    map[string]int `json:"states"`
	Exits     map[int]int    `json:"exits"`
	Clocks    int            `json:"clocks_differ"`
	ElapsedMS float64        `json:"elapsed_ms"`
	NotAsked  []string       `json:"not_asked,omitempty"`
	StoppedAt string         `json:"stopped_at,omitempty"` // of --rolling
}

func (s *session) summarize(answers []answer, took time.Duration) *summary {
	sum := &summary{Command: s.o.command.name, Hosts: len(answers), States: map[string]int{}, Exits: map[int]int{}, ElapsedMS: milliseconds(took)}
	for i, a := range answers {
		code, _, _ := a.words()
		state := a.state()
		sum.Exit = worse(sum.Exit, code)
		sum.Exits[code]++
		sum.States[state]++
		if r, ok := a.(*result); ok && r.clockDiffers() {
			sum.Clocks++
		}
		switch {
		case state == "not asked":
			sum.NotAsked = append(sum.NotAsked, s.hosts[i].Name)
		case s.o.rolling > 0 && sum.StoppedAt == "" && code != exitOK && code != exitRebooted:
			sum.StoppedAt = s.hosts[i].Name
		}
	}
	return sum
}

// line is the summary for people.
func (sum *summary) line() string {
	var states []string
	for state := range sum.States {
		states = append(states, state)
	}
	slices.SortFunc(states, func(a, b string) int {
		if n := sum.States[b] - sum.States[a]; n != 0 {
			return n
		}
		return strings.Compare(a, b)
	})
	for i, state := range states {
		states[i] = fmt.Sprintf("%d %s", sum.States[state], state)
	}
	line := fmt.Sprintf("%s in %s: %s", count(sum.Hosts), duration(time.Duration(sum.ElapsedMS*1e6)), strings.Join(states, ", "))
	if sum.Clocks > 0 {
		line += fmt.Sprintf("; the clock differs on %d", sum.Clocks)
	}
	if sum.StoppedAt != "" && sum.NotAsked != nil {
		line += "; stopped at " + sum.StoppedAt
	}
	if sum.NotAsked != nil {
		line += "; not asked: " + strings.Join(sum.NotAsked, " ")
	}
	return line
}

func (sum *summary) json() string {
	b, err := json.Marshal(struct {
		V       int      `json:"v"`
		Summary *summary `json:"summary"`
	}{1, sum})
	if err != nil {
		panic(err) // no field can fail
	}
	return string(b)
}
