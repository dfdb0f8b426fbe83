// SPDX-License-Identifier: GPL-2.0-only

//go:build vm

package vm_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/vm"
	"netsysrq/internal/vm/agent"
)

// stressReport is what the program in the guest says of its run.
type stressReport struct {
	Rounds   int
	Seconds  float64
	Counts   map[string]int
	Tally    map[string]int
	Daemon   int
	Outcomes map[string]int
	Faults   []string
}

// number is a setting in the environment, or what stands for it.
func number(t *testing.T, name string, otherwise uint64) uint64 {
	v := os.Getenv(name)
	if v == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		t.Fatalf("%s=%q: %v", name, v, err)
	}
	return n
}

// TestStress makes requests while everything around the module goes wrong, again
// and again, and wants every request run exactly as often as it must be.
// $STRESS_ROUNDS is how many requests, $STRESS_SEED what is chosen at random.
func TestStress(t *testing.T) {
	const operators = 12
	rounds := number(t, "STRESS_ROUNDS", 10000)
	seed := number(t, "STRESS_SEED", rand.Uint64())
	t.Logf("to repeat this run: STRESS_SEED=%d STRESS_ROUNDS=%d", seed, rounds)

	a := newArms(t, "h")
	a.tree.Write("/etc/netsysrq/netsysrqd.toml", 0o644, []byte("dry_run = true\ndeadline = \"15ms\"\n"+config))
	a.tree.Copy("/usr/bin/stress", build(t, "netsysrq/internal/vm/stress"))
	var lines bytes.Buffer
	for i := range operators {
		master := auth.NewMaster()
		key, err := master.HostKey(hostName)
		if err != nil {
			t.Fatal(err)
		}
		e := auth.Enrolment{Operator: fmt.Sprintf("op%02d", i), Host: hostName, Allow: 1, Key: key}
		fmt.Fprintln(&lines, e.Line())
	}
	a.tree.Write("/run/enrolments", 0o600, lines.Bytes())
	life := 3*time.Minute + time.Duration(rounds)*100*time.Millisecond
	m := vm.New(t, vm.Options{Kernel: a.linux, Tree: a.tree, Memory: 768, Life: life, Setup: [][]string{
		{"/bin/busybox", "sysctl", "-w", "kernel.sysrq=1"},
	}})
	const name = "stress"
	mark := m.Console.Mark()
	_, err := m.Start(vm.Within(t, 10*time.Second), name, "/usr/bin/stress", "-rounds", fmt.Sprint(rounds), "-seed", fmt.Sprint(seed), "-enrolments", "/run/enrolments")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(vm.Within(t, life))
	defer cancel(nil)
	go func() {
		if end, err := m.Wait(ctx); err == nil {
			cancel(fmt.Errorf("the machine ended with a %s: %s", end.Fate, end.Detail))
		}
	}()
	code, err := m.WaitFor(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	text, err := m.ReadFile(vm.Within(t, time.Minute), agent.LogPath(name))
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	var r stressReport
	if err := json.Unmarshal([]byte(all[len(all)-1]), &r); err != nil || code != 0 {
		t.Fatalf("exit code %d:\n%s", code, text)
	}
	t.Logf("progress:\n%s", strings.Join(all[:len(all)-1], "\n"))
	t.Logf("%d rounds in %.0f s: %v\n%v\naccepted by the daemon alone: %d, outcomes of the sender's way: %v",
		r.Rounds, r.Seconds, r.Counts, r.Tally, r.Daemon, r.Outcomes)
	for _, f := range r.Faults {
		t.Error(f)
	}
	// It was a dry run, so the kernel has not been asked for anything.
	for _, l := range m.Console.Since(mark) {
		if strings.Contains(l.Text, "sysrq: ") || strings.Contains(l.Text, "BUG:") || strings.Contains(l.Text, "WARNING:") || strings.Contains(l.Text, "Oops") {
			t.Errorf("the kernel said: %s", l.Text)
		}
	}
	// What did not happen has proved nothing, and a short run is not long enough.
	if rounds < 2000 {
		return
	}
	for _, what := range []string{"ByTake", "ByVeto", "ByDeadline", "Refused", "Stale", "ByTime", "Barriers", "Cut", "Repeats", "WordsTaken", "WordsLate"} {
		if r.Tally[what] == 0 {
			t.Errorf("in the whole run: no %s", what)
		}
	}
	for _, what := range []string{"Stops", "Kills", "KeyChanges", "Reloads", "Steps"} {
		if r.Counts[what] == 0 {
			t.Errorf("in the whole run: no %s", what)
		}
	}
}
