// SPDX-License-Identifier: GPL-2.0-only

//go:build vm

package vm_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/exchange"
	"netsysrq/internal/vm"
)

// Times that a run may take on a hung machine.
const (
	deadline  = 250 // ms that the kernel waits for the daemon
	replyTime = 20 * time.Second
	resetTime = 25 * time.Second // two bounds of 10 s, and some
)

// expectation is what a scenario may do to a run.
type expectation struct {
	bar         int64  // ms from arrival to the first step
	unconfirmed string // keys of steps whose work may never be done
	daemon      bool   // the daemon still runs, and may be the one who answers
}

var expected = map[string]expectation{
	vm.DaemonStopped.Name: {bar: deadline + 50},
	vm.DaemonKilled.Name:  {bar: deadline + 50},
	vm.DaemonNever.Name:   {bar: deadline + 50},
	vm.ForkBomb.Name:      {bar: deadline + 500, daemon: true, unconfirmed: "su"}, // the kernel's worker is one of 1500
	vm.Memory.Name:        {bar: deadline + 500, daemon: true, unconfirmed: "su"},
	vm.FIFOHogs.Name:      {bar: deadline + 500, daemon: true},                   // from 6.12 on it gets its 50 ms of a second
	vm.PreemptNIC.Name:    {bar: deadline + 500, daemon: true, unconfirmed: "u"}, // the kernel waits for what that CPU is to do for it
	vm.PreemptAll.Name:    {bar: deadline + 500, unconfirmed: "su"},
	vm.IRQsOther.Name:     {bar: deadline + 500, daemon: true, unconfirmed: "su"},
	vm.Frozen.Name:        {bar: deadline + 50},
	vm.Conntrack.Name:     {bar: deadline + 50, daemon: true},
	vm.DiskFrozen.Name:    {bar: deadline + 50, daemon: true, unconfirmed: "su"},
}

// TestRescue hangs a machine in every way, and wants it back by one reboot: a
// sealed answer, and then the kernel's own reset. $ATTEMPTS is how often each,
// $RESULTS a file that gets a line an attempt.
func TestRescue(t *testing.T) {
	if testing.Short() {
		t.Skip("boots twelve machines")
	}
	attempts := 1
	if v := os.Getenv("ATTEMPTS"); v != "" {
		var err error
		if attempts, err = strconv.Atoi(v); err != nil || attempts < 1 {
			t.Fatalf("ATTEMPTS=%q", v)
		}
	}
	name := os.Getenv("RESULTS")
	if name == "" {
		name = filepath.Join(t.TempDir(), "results.jsonl")
	}
	results, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer results.Close()
	a := newArms(t, "nsub")
	for _, s := range vm.Scenarios {
		t.Run(s.Name, func(t *testing.T) {
			const most = 5 // attempts that the emulator may break
			for n, faults := 1, 0; n <= attempts+faults; n++ {
				r := vm.Attempt{Kernel: a.linux.Version, Release: a.linux.Release, Scenario: s.Name, Number: n,
					Outcome: vm.WasNotReset, First: -1, Bar: expected[s.Name].bar}
				t.Run(strconv.Itoa(n), func(t *testing.T) {
					defer func() {
						if err := r.Write(results); err != nil {
							t.Error(err)
						}
					}()
					a.rescue(t, s, &r)
				})
				// It proves nothing of the kernel, so another follows.
				if r.Outcome == vm.EmulatorBroke {
					if faults++; faults > most {
						t.Fatal("the emulator breaks every attempt")
					}
				}
			}
		})
	}
}

// rescue is one attempt.
func (a *arms) rescue(t *testing.T, s vm.Scenario, r *vm.Attempt) {
	disk := filepath.Join(t.TempDir(), "disk")
	if err := vm.MakeDisk(t.Context(), disk, 64); err != nil {
		t.Fatal(err)
	}
	h := newArmedHost(t, a, armed{disk: disk, daemon: s.Name != vm.DaemonNever.Name})
	err := h.WriteFile(vm.Within(t, 10*time.Second), vm.DiskMount+"/unsynced", 0o644, []byte(unsynced))
	if err == nil {
		err = h.rescue(s, r)
	}
	if line, yes := h.EmulatorFault(); err != nil && yes {
		r.Outcome, r.Error = vm.EmulatorBroke, line
		t.Skipf("the emulator broke this attempt, another follows: %v: %s", err, line)
	}
	if err == nil {
		err = checkDisk(t.Context(), disk, !strings.Contains(r.Unconfirmed, "s"))
	}
	if err != nil {
		r.Error = err.Error()
		t.Fatal(err)
	}
	r.Outcome = vm.WasReset
}

// rescue hangs the machine and gets it back.
func (h *host) rescue(s vm.Scenario, r *vm.Attempt) error {
	late, err := h.control()
	if err != nil {
		return err
	}
	r.Late, r.Judged = late, max(late.Tick, late.Thread) <= vm.LateLimit
	if r.Proof, err = h.Hang(h.Context(), s); err != nil {
		return err
	}
	h.Logf("hung: %s", r.Proof)

	mark := h.Console.Mark()
	defer func() { h.Logf("console since the request:\n%s", h.Console.Text(mark, h.Started)) }()
	reboot, err := auth.ParseSteps("n,s,u,b")
	if err != nil {
		return err
	}
	opt := exchange.Options{Dial: h.Net.Dial, Timeout: replyTime}
	before := starved()
	out, err := exchange.Run(h.Context(), h.asked(vm.GuestUDP4(auth.Port)), reboot, 0, opt)
	answered := time.Now()
	kept := starved().since(before)
	switch {
	case err != nil:
		return err
	case out.Kind != exchange.Accepted:
		return fmt.Errorf("the request: %v after %v: %+v", out.Kind, out.Elapsed, out.Reply)
	}
	r.Reply, r.Executor = out.Elapsed.Milliseconds(), out.Reply.Executor.String()

	ctx, cancel := context.WithTimeout(h.Context(), resetTime)
	defer cancel()
	end, err := h.Wait(ctx)
	switch {
	case err != nil:
		return err
	case end.Fate != vm.Reset:
		return fmt.Errorf("not a reset but a %s: %s", end.Fate, end.Detail)
	}
	r.Reset = end.At.Sub(answered).Milliseconds()
	log, err := readLog(h.Console.Since(mark))
	if err != nil {
		return err
	}
	if len(log.claims) > 0 {
		r.First, r.By = log.claims[0].ms, log.by()
	}
	if err := log.judge("nsub", expected[s.Name].unconfirmed); err != nil {
		return err
	}
	r.Unconfirmed = log.unconfirmed
	timing := fmt.Sprintf("first step %d ms after the arrival, at most %d", r.First, r.Bar)
	h.Logf("attempt %d: %s: answered by the %s after %d ms; %s; reset %.1f s after the answer; not confirmed: %q; "+
		"late before it: tick %v, thread %v; kept from the host's CPUs during it: %v",
		r.Number, s.Name, r.Executor, r.Reply, timing, float64(r.Reset)/1000, r.Unconfirmed, late.Tick, late.Thread, kept)
	switch {
	case !expected[s.Name].daemon && out.Reply.Executor != auth.Kernel:
		return fmt.Errorf("answered by the %v, which cannot be", out.Reply.Executor)
	case !r.Judged:
		h.Logf("SKIP the time: the emulator was late before the machine hung")
	case r.First > r.Bar && kept > vm.LateLimit:
		r.Judged = false
		h.Logf("SKIP the time: others kept the emulator from the host's CPUs")
	case r.First > r.Bar:
		r.Outcome = vm.WasReset // but late
		return errors.New(timing)
	}
	return nil
}

// control is how late the machine is at most while nothing hangs.
func (h *host) control() (most vm.Late, err error) {
	if _, err := h.Lateness(vm.Within(h, 10*time.Second)); err != nil {
		return most, err
	}
	time.Sleep(time.Second)
	list, err := h.Lateness(vm.Within(h, 10*time.Second))
	for _, l := range list {
		most.Tick, most.Thread = max(most.Tick, l.Tick), max(most.Thread, l.Thread)
	}
	return most, err
}

// starvation is for how long each thread of this process's emulator has been
// ready to run on the host without a CPU.
type starvation map[string]time.Duration

func starved() starvation {
	all := starvation{}
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range processes {
		b, _ := os.ReadFile(p + "/stat")
		_, stat, _ := strings.Cut(string(b), ") ")
		if f := strings.Fields(stat); len(f) < 2 || f[1] != strconv.Itoa(os.Getpid()) {
			continue
		}
		threads, _ := filepath.Glob(p + "/task/*/schedstat")
		for _, file := range threads {
			var ran, waited int64
			b, _ := os.ReadFile(file)
			if _, err := fmt.Sscan(string(b), &ran, &waited); err == nil {
				all[file] = time.Duration(waited)
			}
		}
	}
	return all
}

// since is what the thread that got the least has waited since before.
func (s starvation) since(before starvation) (most time.Duration) {
	for thread, waited := range s {
		most = max(most, waited-before[thread])
	}
	return most
}

// claim is a step that the module has taken, as it told the kernel's log.
type claim struct {
	key  byte
	by   string // thread or tick
	ms   int64  // since the packet's arrival, by the guest's clock
	line int
}

// kernelLog is what the kernel said of a run.
type kernelLog struct {
	lines       []vm.Line
	claims      []claim
	unconfirmed string // keys whose work the kernel did not report
}

var claimed = regexp.MustCompile(`: key [0-9a-f]{16}: step (\d) of ([0-9a-z]+), by the (thread|tick), (\d+) ms after the request`)

func readLog(lines []vm.Line) (*kernelLog, error) {
	log := &kernelLog{lines: lines}
	for i, l := range lines {
		m := claimed.FindStringSubmatch(l.Text)
		if m == nil {
			continue
		}
		step, _ := strconv.Atoi(m[1])
		ms, err := strconv.ParseInt(m[4], 10, 64)
		if err != nil || step < 1 || step > len(m[2]) {
			return nil, fmt.Errorf("kernel log: %q", l.Text)
		}
		log.claims = append(log.claims, claim{m[2][step-1], m[3], ms, i})
	}
	return log, nil
}

// by has a letter a step: t, the thread took it, or i, an interrupt.
func (log *kernelLog) by() (all string) {
	for _, c := range log.claims {
		all += map[string]string{"thread": "t", "tick": "i"}[c.by]
	}
	return all
}

// find returns the first line in a range that contains text, or -1.
func (log *kernelLog) find(text string, from, to int) int {
	for i := from; i < to; i++ {
		if strings.Contains(log.lines[i].Text, text) {
			return i
		}
	}
	return -1
}

// complete is what the kernel says when the work of a step is done, and what
// the module then says.
var complete = map[byte]string{'s': "Emergency Sync complete", 'u': "Emergency Remount complete"}

// bound is how long a step is waited for that never completes.
const bound = auth.DefaultBound * int64(auth.PauseUnit/time.Millisecond)

// judge wants each step once and in order, the last a reset; the work of s and u
// complete before the next step, or else, if that may fail, the whole bound
// between the two.
func (log *kernelLog) judge(keys, mayFail string) error {
	got := ""
	for _, c := range log.claims {
		got += string(c.key)
	}
	if got != keys {
		return fmt.Errorf("the steps taken were %q, not %q", got, keys)
	}
	for i, c := range log.claims[:len(log.claims)-1] {
		next := log.claims[i+1]
		text := complete[c.key]
		if text == "" {
			continue
		}
		done := log.find(text, c.line, next.line) >= 0
		said := log.find(fmt.Sprintf("step %d of %s: confirmed", i+1, keys), c.line, next.line) >= 0
		denied := log.find(fmt.Sprintf("step %d of %s: not confirmed", i+1, keys), c.line, next.line) >= 0
		waited := next.ms - c.ms
		switch {
		case done && said && !denied:
			continue
		case done || said || !denied:
			return fmt.Errorf("step %c: complete: %v, called confirmed: %v, not confirmed: %v", c.key, done, said, denied)
		case strings.IndexByte(mayFail, c.key) < 0:
			return fmt.Errorf("step %c was not complete before the next", c.key)
		case waited < bound || waited > bound*12/10:
			return fmt.Errorf("step %c was not complete, and given %d ms", c.key, waited)
		}
		log.unconfirmed += string(c.key)
	}
	if log.find("sysrq: Resetting", log.claims[len(log.claims)-1].line, len(log.lines)) < 0 {
		return errors.New("the kernel did not say that it resets")
	}
	return nil
}

// unsynced is what a file contains that nobody has synced before the hang.
const unsynced = "was on its way to the disk\n"

// checkDisk wants a disk that is consistent and, if it was synced, has what was
// written before.
func checkDisk(ctx context.Context, disk string, synced bool) error {
	if err := vm.CheckDisk(ctx, disk); err != nil || !synced {
		return err
	}
	out, err := exec.CommandContext(ctx, "/sbin/debugfs", "-R", "cat /unsynced", disk).Output()
	if err != nil || string(out) != unsynced {
		return fmt.Errorf("synced, but the disk has %q: %w", out, err)
	}
	return nil
}
