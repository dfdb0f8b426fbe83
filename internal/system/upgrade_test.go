// SPDX-License-Identifier: GPL-2.0-only

//go:build install

package system_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/system"
	"netsysrq/internal/vm"
)

// load are requests that an operator makes one after the other until it is ended.
type load struct {
	stop, done chan struct{}

	mu  sync.Mutex
	all []report
	err error
}

// pause is that between two requests: a compiler in an emulator needs its time.
const pause = 600 * time.Millisecond

// begin begins a load of steps that do no harm.
func (o *operator) begin(ctx context.Context, steps string) *load {
	l := &load{stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(l.done)
		for {
			select {
			case <-l.stop:
				return
			case <-time.After(pause):
			}
			r, err := o.ask(ctx, time.Minute, "send", "web1", steps, "--timeout", "30s")
			l.mu.Lock()
			l.all, l.err = append(l.all, r), err
			l.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return l
}

// count is how many requests are over.
func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.all)
}

// end returns all of them.
func (l *load) end(t *testing.T) []report {
	t.Helper()
	close(l.stop)
	<-l.done
	if l.err != nil {
		t.Fatal(l.err)
	}
	return l.all
}

// answers counts, on the wire, the host's answers to runs, but those that say
// themselves that they are repeats.
type answers struct {
	capture *vm.Capture
	done    chan map[auth.RequestID]int
}

// answers begins to count those to the operator.
func (o *operator) answers(t *testing.T, m *system.Machine) *answers {
	t.Helper()
	a, err := o.try(t.Context(), time.Minute, "enroll", "web1", "--quiet")
	if err != nil {
		t.Fatal(err)
	}
	e, err := auth.ParseEnrolment(strings.TrimSpace(a.out))
	if err != nil {
		t.Fatal(err)
	}
	sealer := auth.NewSealer(&e.Key)
	c := &answers{m.Net.Capture(), make(chan map[auth.RequestID]int, 1)}
	t.Cleanup(c.capture.Close)
	go func() {
		count := map[auth.RequestID]int{}
		for f := range c.capture.Frames() {
			_, _, payload, ok := vm.ParseUDP(f.Data)
			if !ok || len(payload) != auth.PacketSize {
				continue
			}
			var r auth.Reply
			reason, _ := sealer.OpenReply(payload, auth.RequestID{}, &r)
			if reason == auth.ReasonOtherRequest && r.Result == auth.Accepted && r.Flags&auth.Repeat == 0 {
				count[r.ID]++
			}
		}
		c.done <- count
	}()
	return c
}

// end returns how many there were, by request.
func (a *answers) end(t *testing.T) map[auth.RequestID]int {
	t.Helper()
	a.capture.Close()
	if lost := a.capture.Lost(); lost > 0 {
		t.Errorf("%d frames were not captured", lost)
	}
	return <-a.done
}

// Packages are upgraded and the daemon is restarted under load. Every request is
// accepted, answered once and run once, and the module is never disarmed.
func TestUpgradeUnderLoad(t *testing.T) {
	const requests = 200
	onOne(t, system.Bookworm, func(t *testing.T, i *system.Image) {
		opt := withDebs(t, version, newer)
		opt.Life = 25 * time.Minute // the module is built while others want the CPU
		m := system.From(t, installed(t, i), opt)
		o := newOperator(t, m)
		o.enroll(t, m, "--allow", "nsub9")
		o.awaitStatus(t, "daemon", time.Minute)

		mark, wire := m.Console.Mark(), o.answers(t, m)
		n := heard(t, m, 0)
		l := o.begin(t.Context(), "9")
		done := phase(t, "upgrade")
		m.Sh(t, 20*time.Minute, install(newer))
		done()
		n = heard(t, m, n)
		upgraded := l.count()
		if upgraded < 20 {
			t.Errorf("there were only %d requests during the upgrade", upgraded)
		}
		// And what an administrator does by hand.
		for times := 0; l.count() < requests || times < 3; times++ {
			m.Sh(t, 5*time.Minute, "systemctl restart netsysrqd; sleep 1; systemctl reload netsysrqd")
			n = heard(t, m, n)
			// Long enough for the kernel to have to do without.
			m.Sh(t, 5*time.Minute, "systemctl stop netsysrqd; sleep 2; systemctl start netsysrqd; sleep 1")
			n = heard(t, m, n)
		}
		sent := l.end(t)
		executors := map[string]int{}
		for _, r := range sent {
			if r.Outcome != "accepted" || !r.Armed {
				t.Errorf("%+v", r)
			}
			executors[r.Executor]++
		}
		t.Logf("%d requests, %d of them while packages were upgraded, by: %v", len(sent), upgraded, executors)
		if executors["kernel"] == 0 || executors["daemon"] == 0 {
			t.Error("only one of the two was ever needed")
		}

		answered := wire.end(t)
		ran := map[string]int{}
		for _, id := range runs.FindAllStringSubmatch(m.Sh(t, time.Minute, "sleep 2; journalctl --no-pager -o cat -u netsysrqd"), -1) {
			ran[id[1]]++
		}
		for _, r := range sent {
			if n := ran[r.Request]; n != 1 {
				t.Errorf("request %s ran %d times, by the daemon's log", r.Request, n)
			}
			var id auth.RequestID
			if _, err := hex.Decode(id[:], []byte(r.Request)); err != nil {
				t.Fatal(err)
			}
			if n := answered[id]; n != 1 {
				t.Errorf("request %s was answered %d times", r.Request, n)
			}
		}
		if len(ran) != len(sent) || len(answered) != len(sent) {
			t.Errorf("of %d requests %d were run, %d answered", len(sent), len(ran), len(answered))
		}
		stepped := 0
		for _, line := range m.Console.Since(mark) {
			if strings.Contains(line.Text, "sysrq: Loglevel set to 9") {
				stepped++
			}
		}
		if stepped != len(sent) {
			t.Errorf("the kernel ran %d steps for %d requests", stepped, len(sent))
		}
		checkUpgraded(t, m)
		o.awaitDrill(t)
	})
}

// awaitDrill wants a drill green. Of an emulator on a busy host the daemon may be
// late, now and then.
func (o *operator) awaitDrill(t *testing.T) {
	t.Helper()
	for range 5 {
		if a := o.run(t, time.Minute, "drill", "web1"); a.code == 0 {
			return
		}
	}
	t.Error("no drill was green")
}

// runs are the daemon's lines about steps that were run.
var runs = regexp.MustCompile(`(?m)^step run .*\brequest=([0-9a-f]+)`)

// checkUpgraded fails unless the daemon that runs, and the module that the next boot
// loads, are of the version to which the packages were upgraded.
func checkUpgraded(t *testing.T, m *system.Machine) {
	t.Helper()
	versions := m.Sh(t, time.Minute, "dpkg-query -W -f '${Version}\n' 'netsysrq*' | sort -u; netsysrqd version; dkms status netsysrq")
	for line := range strings.Lines(versions) {
		if !strings.Contains(line, newer) || strings.Contains(line, version) {
			t.Errorf("after the upgrade: %s", line)
		}
	}
	if out, code, err := m.Exec(vm.Within(t, time.Minute), nil, "sh", "-c", "ls -l /proc/[0-9]*/exe 2>/dev/null | grep netsysrqd.*deleted"); err != nil || code != 1 {
		t.Errorf("still runs from before the upgrade: %s %v", out, err)
	}
}

// heard is how many packets have come to the module since it was loaded. One that was
// loaded anew has counted anew, and one that was without keys has met a key that it
// does not know: it fails on these. Before there were so many.
func heard(t *testing.T, m *system.Machine, before uint64) (all uint64) {
	t.Helper()
	var status struct{ Packets map[string]uint64 }
	out := m.Sh(t, time.Minute, "netsysrqd status --json")
	if err := json.Unmarshal([]byte(out), &status); err != nil {
		t.Fatalf("netsysrqd status: %v: %s", err, out)
	}
	for _, n := range status.Packets {
		all += n
	}
	if all <= before || status.Packets[auth.ReasonUnknownKey.String()] > 0 {
		t.Errorf("the module had heard %d packets, and now %d: %v", before, all, status.Packets)
	}
	return all
}
