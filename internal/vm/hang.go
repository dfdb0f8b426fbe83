// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"netsysrq/internal/vm/agent"
)

// Scenario is a way to hang. Machine.Hang begins it.
type Scenario struct {
	Name string // short, for tables
	What string // in words
	// Gone reports that no ordinary process runs any more, or not to be relied
	// on, so that the control channel is of no use.
	Gone  bool
	begin func(ctx context.Context, m *Machine) error
	// proof waits until it is really hung and says how that was seen.
	proof func(ctx context.Context, m *Machine, mark int) (string, error)
}

// Daemon is the name under which the scenarios look for netsysrqd: Start it so.
const Daemon = "netsysrqd"

// The scenarios. The network card's interrupts are on NICCPU; the other CPU of
// the two is 0.
var (
	DaemonStopped = Scenario{
		Name: "daemon-stopped", What: "the daemon is stopped (SIGSTOP)",
		begin: signalDaemon(syscall.SIGSTOP), proof: daemonIs("T"),
	}
	DaemonKilled = Scenario{
		Name: "daemon-killed", What: "the daemon was killed",
		begin: signalDaemon(syscall.SIGKILL), proof: daemonIs(""),
	}
	DaemonNever = Scenario{
		Name: "daemon-never", What: "the daemon was never started",
		begin: nothing, proof: daemonIs(""),
	}
	ForkBomb = Scenario{
		Name: "fork-bomb", What: "a fork bomb, 1500 processes", Gone: true,
		begin: shell("hog-fork-bomb", forkBomb), proof: both(crowded, sluggish),
	}
	Memory = Scenario{
		Name: "memory", What: "memory is exhausted", Gone: true,
		begin: exhaustMemory, proof: both(killing, sluggish),
	}
	FIFOHogs = Scenario{
		Name: "fifo-hogs", What: "FIFO-99 hogs on all CPUs, rt_runtime -1", Gone: true,
		begin: inGuest("fifo"), proof: both(threadsSilent(0, 1), slow),
	}
	PreemptNIC = Scenario{
		Name: "preempt-nic", What: "preemption off on the network card's CPU", Gone: true,
		begin: inGuest("spin", "preempt", strconv.Itoa(NICCPU)), proof: threadsSilent(NICCPU),
	}
	PreemptAll = Scenario{
		Name: "preempt-all", What: "preemption off on all CPUs", Gone: true,
		begin: inGuest("spin", "preempt", "all"), proof: both(threadsSilent(0, 1), silent),
	}
	IRQsOther = Scenario{
		Name: "irqs-other", What: "interrupts off on the other CPU", Gone: true,
		begin: inGuest("spin", "irqs", strconv.Itoa(1-NICCPU)), proof: tickSilent(1 - NICCPU),
	}
	Frozen = Scenario{
		Name: "frozen", What: "every process but init is frozen",
		begin: freezeAll, proof: allStopped,
	}
	Conntrack = Scenario{
		Name: "conntrack", What: "the connection tracking table is full",
		begin: inGuest("conntrack"), proof: refusesPing,
	}
	DiskFrozen = Scenario{
		Name: "disk-frozen", What: "the file system is frozen, with writers stuck in it",
		begin: inGuest("freeze-fs", DiskMount), proof: writersStuck,
	}

	// Scenarios are all of them, as they are numbered in the project's tables.
	Scenarios = []Scenario{
		DaemonStopped, DaemonKilled, DaemonNever, ForkBomb, Memory, FIFOHogs,
		PreemptNIC, PreemptAll, IRQsOther, Frozen, Conntrack, DiskFrozen,
	}
)

// hangTimeout bounds the proof that a scenario has come true.
const hangTimeout = 40 * time.Second

// Hang begins a scenario and returns once the machine is really hung, with what
// showed that. DiskFrozen needs Options.Disk, Conntrack Tree.Iptables.
func (m *Machine) Hang(ctx context.Context, s Scenario) (proof string, err error) {
	ctx, cancel := context.WithTimeout(ctx, hangTimeout)
	defer cancel()
	mark := m.Console.Mark()
	if err := s.begin(ctx, m); err != nil {
		return "", fmt.Errorf("begin %s: %w", s.Name, err)
	}
	if proof, err = s.proof(ctx, m, mark); err != nil {
		return "", fmt.Errorf("%s: not seen to hang: %w", s.Name, err)
	}
	return proof, nil
}

func nothing(context.Context, *Machine) error { return nil }

func inGuest(name string, args ...string) func(context.Context, *Machine) error {
	return func(ctx context.Context, m *Machine) error {
		_, err := m.control.do(ctx, agent.Request{Op: agent.Hang, Name: name, Args: args})
		return err
	}
}

// shell starts a script in the guest.
func shell(name, script string) func(context.Context, *Machine) error {
	return func(ctx context.Context, m *Machine) error {
		_, err := m.Start(ctx, name, "/bin/sh", "-c", script)
		return err
	}
}

// forkBomb is the classic one. Its limit is its own, so that init, which dies
// of a thread that it cannot have, lives. It starts again when it has died out:
// a shell that cannot fork ends.
const forkBomb = `
	sleep 1
	mkdir -p /run/cgroup && mount -t cgroup2 cgroup /run/cgroup &&
	echo +pids > /run/cgroup/cgroup.subtree_control && mkdir /run/cgroup/bomb &&
	echo 1500 > /run/cgroup/bomb/pids.max || exit
	while :; do
		/bin/sh -c 'echo $$ > /run/cgroup/bomb/cgroup.procs; b() { b | b & }; b'
		sleep 1
	done`

// exhaustMemory has many fight for what little is left: with few of them, other
// programs still get on.
func exhaustMemory(ctx context.Context, m *Machine) error {
	// The shell is a child of the agent, whose program has the hogs too.
	const fight = `for i in $(seq 40); do /proc/$PPID/exe memory-fight $i & done; wait`
	if err := shell("hog-memory-crowd", fight)(ctx, m); err != nil {
		return err
	}
	return inGuest("memory")(ctx, m)
}

func signalDaemon(s syscall.Signal) func(context.Context, *Machine) error {
	return func(ctx context.Context, m *Machine) error { return m.Signal(ctx, Daemon, s) }
}

func freezeAll(ctx context.Context, m *Machine) error {
	_, err := m.Freeze(ctx)
	return err
}

type proof = func(ctx context.Context, m *Machine, mark int) (string, error)

// both wants two proofs.
func both(a, b proof) proof {
	return func(ctx context.Context, m *Machine, mark int) (string, error) {
		first, err := a(ctx, m, mark)
		if err != nil {
			return "", err
		}
		second, err := b(ctx, m, mark)
		return first + "; " + second, err
	}
}

// until asks again and again until holds says so.
func until(ctx context.Context, holds func() (string, bool, error)) (string, error) {
	last := "nothing"
	for {
		what, ok, err := holds()
		switch {
		case ctx.Err() != nil:
			return "", fmt.Errorf("%s was seen last: %w", last, context.Cause(ctx))
		case ok || err != nil:
			return what, err
		}
		last = what
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// daemonIs waits until the daemon's process has a state; empty: until there is
// none, or but a zombie.
func daemonIs(state string) proof {
	return func(ctx context.Context, m *Machine, _ int) (string, error) {
		return until(ctx, func() (string, bool, error) {
			list, err := m.Processes(ctx)
			if err != nil {
				return "", false, err
			}
			got := ""
			for _, p := range list {
				if p.Name == Daemon && p.State != "Z" {
					got = p.State
				}
			}
			if got == "" {
				return "there is no process " + Daemon, state == "", nil
			}
			return fmt.Sprintf("process %s is in state %s", Daemon, got), got == state, nil
		})
	}
}

// crowded waits until processes abound, or the guest's init is not heard of
// among them.
func crowded(ctx context.Context, m *Machine, _ int) (string, error) {
	const many = 1000
	return until(ctx, func() (string, bool, error) {
		asked, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		list, err := m.Processes(asked)
		if errors.Is(err, ErrSilent) {
			return "init did not answer for 5 s", true, nil
		}
		return fmt.Sprintf("%d processes", len(list)), len(list) >= many, err
	})
}

// killing waits until the kernel has ended a few processes for want of memory.
func killing(ctx context.Context, m *Machine, mark int) (string, error) {
	const few = 5
	return until(ctx, func() (string, bool, error) {
		n := 0
		for _, l := range m.Console.Since(mark) {
			if strings.Contains(l.Text, "Out of memory: Killed process") {
				n++
			}
		}
		return fmt.Sprintf("%d processes killed for want of memory", n), n >= few, nil
	})
}

// sluggish waits until a new program, as a login would be, takes long to start
// or is killed at that.
func sluggish(ctx context.Context, m *Machine, _ int) (string, error) {
	const long = 500 * time.Millisecond
	return until(ctx, func() (string, bool, error) {
		asked, cancel := context.WithTimeout(ctx, 4*time.Second)
		defer cancel()
		start := time.Now()
		_, err := m.Run(asked, "/bin/sh", "-c", "echo 0 > /proc/self/oom_score_adj; exec /bin/busybox true")
		took := time.Since(start)
		switch {
		case errors.Is(err, ErrSilent):
			return "a new program did not start for 4 s", true, nil
		case err != nil:
			return fmt.Sprintf("a new program failed: %v", err), true, nil
		}
		return fmt.Sprintf("a new program took %v to run", took.Round(time.Millisecond)), took >= long, nil
	})
}

// slow tells how long the guest's init takes to answer, if it does. From 6.12 on,
// ordinary processes get 50 ms of each second from real-time hogs.
func slow(ctx context.Context, m *Machine, _ int) (string, error) {
	asked, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	took, err := m.Ping(asked)
	if errors.Is(err, ErrSilent) {
		return "init did not answer for 3 s", nil
	}
	return fmt.Sprintf("init answered after %v", took.Round(time.Millisecond)), err
}

// silent wants the guest's init to say nothing.
func silent(ctx context.Context, m *Machine, _ int) (string, error) {
	const d = 2 * time.Second
	if !m.Silent(ctx, d) {
		return "", errors.New("init answers")
	}
	return fmt.Sprintf("init did not answer for %v", d), nil
}

// threadsSilent waits until the helper module misses its threads on CPUs.
func threadsSilent(cpus ...int) proof {
	return func(ctx context.Context, m *Machine, mark int) (string, error) {
		var lines []string
		for _, cpu := range cpus {
			l, err := m.Console.Await(ctx, mark, fmt.Sprintf("hang: cpu %d: tick silent", cpu))
			if err != nil {
				return "", err
			}
			lines = append(lines, l.Text)
		}
		return strings.Join(lines, "; "), nil
	}
}

// tickSilent waits until the helper module misses its tick on a CPU.
func tickSilent(cpu int) proof {
	return func(ctx context.Context, m *Machine, mark int) (string, error) {
		return until(ctx, func() (string, bool, error) {
			for _, l := range m.Console.Since(mark) {
				_, rest, ok := strings.Cut(l.Text, fmt.Sprintf("hang: cpu %d: tick silent for ", cpu))
				if !ok {
					continue
				}
				ms, err := strconv.Atoi(strings.Fields(rest)[0])
				if err == nil && ms >= 500 {
					return l.Text, true, nil
				}
			}
			return fmt.Sprintf("CPU %d ticks", cpu), false, nil
		})
	}
}

func allStopped(ctx context.Context, m *Machine, _ int) (string, error) {
	return until(ctx, func() (string, bool, error) {
		list, err := m.Processes(ctx)
		if err != nil {
			return "", false, err
		}
		stopped := 0
		for _, p := range list {
			switch {
			case p.Kernel || p.PID == 1 || p.State == "Z":
			case p.State == "T":
				stopped++
			default:
				return fmt.Sprintf("process %s is in state %s", p.Name, p.State), false, nil
			}
		}
		return fmt.Sprintf("all %d processes but init are stopped", stopped), true, nil
	})
}

// refusesPing waits until the table is full and a new conversation is refused
// for that.
func refusesPing(ctx context.Context, m *Machine, mark int) (string, error) {
	return until(ctx, func() (string, bool, error) {
		asked, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if _, err := m.Net.Ping(asked, GuestIPv4); err == nil {
			return "ping is answered", false, nil
		}
		l, err := m.Console.Await(asked, mark, "nf_conntrack: table full, dropping packet")
		if err != nil {
			return "ping is not answered, but not for the table", false, nil
		}
		return "ping is not answered; " + l.Text, true, nil
	})
}

// writersStuck waits until the writers are in uninterruptible sleep and stay
// there.
func writersStuck(ctx context.Context, m *Machine, _ int) (string, error) {
	since := time.Now()
	return until(ctx, func() (string, bool, error) {
		list, err := m.Processes(ctx)
		if err != nil {
			return "", false, err
		}
		stuck, writers := 0, 0
		for _, p := range list {
			if p.Name != agent.HogName("write") {
				continue
			}
			writers++
			if p.State == "D" {
				stuck++
			}
		}
		if writers == 0 || stuck < writers {
			since = time.Now()
		}
		what := fmt.Sprintf("%d of %d writers are stuck for %v", stuck, writers, time.Since(since).Round(time.Millisecond))
		return what, time.Since(since) >= time.Second, nil
	})
}

// Late is how late a CPU was at most: its timer interrupt, and an ordinary thread.
type Late struct{ Tick, Thread time.Duration }

// Lateness returns, for each CPU, how late it was at most since the last call:
// what the emulator and its host add to every time that is measured in the guest.
func (m *Machine) Lateness(ctx context.Context) ([]Late, error) {
	b, err := m.ReadFile(ctx, "/sys/module/hang/parameters/late")
	if err != nil {
		return nil, err
	}
	var all []Late
	for line := range strings.Lines(string(b)) {
		var cpu, tick, thread int64
		if _, err := fmt.Sscan(line, &cpu, &tick, &thread); err != nil {
			return nil, fmt.Errorf("lateness: %q: %w", line, err)
		}
		all = append(all, Late{time.Duration(tick) * time.Microsecond, time.Duration(thread) * time.Microsecond})
	}
	return all, nil
}
