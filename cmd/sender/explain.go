// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"netsysrq/auth"
	"netsysrq/internal/sysrq"
)

// explain tells what SysRq keys do and cost: those of a sequence, or all.
// Nothing is sent.
func explain(_ context.Context, w world, o *options) (int, error) {
	keys := sysrq.All()
	if o.steps != nil {
		keys = nil
		for _, s := range o.steps {
			keys = append(keys, sysrq.Of(s.Key))
		}
	}
	if o.json {
		fmt.Fprintln(w.stdout, explainJSON(o.steps, keys))
		return exitOK, nil
	}
	for i, k := range keys {
		name := string(k.Key)
		if o.steps == nil && k.Key == '0' {
			name = "0-9"
		}
		fmt.Fprintf(w.stdout, "%-4s%s: %s\n", name, k.Name, k.Does)
		fmt.Fprintf(w.stdout, "    cost: %s\n", k.Costs)
		if k.Ends == sysrq.Machine {
			fmt.Fprintln(w.stdout, "    ends the machine: no step after it is run")
		}
		if o.steps != nil {
			if text := waitWords(o.steps[i]); text != "" {
				fmt.Fprintf(w.stdout, "    then: %s\n", text)
			}
		}
		var values []string
		for _, c := range sysrq.Common {
			yes := "ignored"
			if k.Allowed(c.Value) {
				yes = "allowed"
			}
			values = append(values, fmt.Sprintf("%s by %d (%s)", yes, c.Value, c.Of))
		}
		fmt.Fprintf(w.stdout, "    kernel.sysrq: %s\n", strings.Join(values, ", "))
	}
	for _, l := range sequenceWords(o.steps) {
		fmt.Fprintln(w.stdout, l)
	}
	if o.steps == nil {
		fmt.Fprintln(w.stdout, "\nkernel.sysrq matters only where the kernel module runs the keys; 1 allows all, 0 none.")
	}
	return exitOK, nil
}

// waitWords is what is waited for after a step.
func waitWords(s auth.Step) string {
	switch {
	case s.Bounded():
		return fmt.Sprintf("waits until that is done, %s at most", duration(s.Wait()))
	case s.Pause > 0:
		return fmt.Sprintf("waits %s", duration(s.Wait()))
	}
	return ""
}

// sequenceWords are remarks about the steps as a whole.
func sequenceWords(steps []auth.Step) (out []string) {
	if mask := auth.AfterKill(steps); mask != 0 {
		out = append(out, fmt.Sprintf("needs the kernel module: e and i end the daemon too, which would not live to run %s", masked(steps, mask)))
	}
	if i := lost(steps); i >= 0 {
		out = append(out, fmt.Sprintf("never run: %s, after %c; send refuses that", masked(steps, behind(steps, i)), steps[i].Key))
	}
	for i, s := range steps {
		if s.EndsMachine() && !strings.Contains(masked(steps, uint8(1<<i-1)), "s") {
			out = append(out, fmt.Sprintf("no s before %c: what is not yet on the disks is lost", s.Key))
			break
		}
	}
	for _, c := range sysrq.Common {
		if mask := auth.Swallowed(steps, c.Value); mask != 0 {
			out = append(out, fmt.Sprintf("refused by a host with the kernel module and kernel.sysrq %d, which ignores %s; sysctl kernel.sysrq=1 allows all", c.Value, masked(steps, mask)))
		}
	}
	if auth.Destructive(steps) {
		out = append(out, "stops the machine or ends processes: send asks for confirmation first")
	}
	return out
}

// keyReport is the JSON form of a key.
type keyReport struct {
	Key     string       `json:"key"`
	Name    string       `json:"name"`
	Does    string       `json:"does"`
	Costs   string       `json:"costs"`
	Ends    string       `json:"ends"` // nothing, processes, machine
	Allowed map[int]bool `json:"allowed_by_kernel_sysrq"`
	WaitMS  *float64     `json:"wait_ms,omitempty"` // after it, at most
}

func explainJSON(steps []auth.Step, keys []sysrq.Key) string {
	j := struct {
		V       int         `json:"v"`
		Steps   string      `json:"steps,omitempty"`
		Keys    []keyReport `json:"keys"`
		Remarks []string    `json:"remarks,omitempty"`
	}{V: 1, Remarks: sequenceWords(steps)}
	if steps != nil {
		j.Steps = auth.FormatSteps(steps)
	}
	for i, k := range keys {
		r := keyReport{Key: string(k.Key), Name: k.Name, Does: k.Does, Costs: k.Costs, Ends: k.Ends.String(), Allowed: map[int]bool{}}
		for _, c := range sysrq.Common {
			r.Allowed[c.Value] = k.Allowed(c.Value)
		}
		if steps != nil && steps[i].Wait() > 0 {
			r.WaitMS = new(milliseconds(steps[i].Wait()))
		}
		j.Keys = append(j.Keys, r)
	}
	b, err := json.Marshal(j)
	if err != nil {
		panic(err) // no field can fail
	}
	return string(b)
}
