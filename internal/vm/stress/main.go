// SPDX-License-Identifier: GPL-2.0-only

// Stress is a program for the bench's guest. It makes requests over loopback, as
// many operators at once, while the daemon is stopped, continued, killed and
// started, another client takes its place, keys and the module go and come back,
// and the clock is stepped; it reads every event of the module, and then says
// whether what must hold has held. The last line that it prints is a Report.
package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"netsysrq/auth"
	"netsysrq/internal/clock"
)

// Report is what came of it.
type Report struct {
	Rounds  int
	Seconds float64
	Counts  counts
	Tally   tally
	// Daemon is how many requests the daemon accepted without the module.
	Daemon   int
	Outcomes map[string]int // of the sender's way
	Faults   []string
}

// Letters that an operator's key may have. The module's interrupt handler takes
// only some of them.
const alphabet = "0123456789bcefhijklmnopqrstuwxz"

func main() {
	rounds := flag.Int("rounds", 10000, "requests to make, or a few more")
	seed := flag.Uint64("seed", 1, "of all that is chosen at random")
	enrolments := flag.String("enrolments", "", "file with an enrolment line for each operator")
	flag.Parse()
	debug.SetGCPercent(400)
	// Whoever returns from a system call goes on at once.
	runtime.GOMAXPROCS(16)
	if err := giveWay(); err != nil {
		fmt.Fprintln(os.Stderr, "stress:", err)
		os.Exit(1)
	}
	report, err := stress(*rounds, *seed, *enrolments)
	if err != nil {
		fmt.Fprintln(os.Stderr, "stress:", err)
		os.Exit(1)
	}
	b, err := json.Marshal(report)
	if err != nil {
		fmt.Fprintln(os.Stderr, "stress:", err)
		os.Exit(1)
	}
	fmt.Printf("%s\n", b)
}

// giveWay lowers the priority of this program, all its threads, once.
func giveWay() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if n, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err != nil || n == 20-niceness { // as the system call has it
		return err
	}
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, niceness); err != nil {
		return err
	}
	return unix.Exec("/proc/self/exe", os.Args, os.Environ())
}

func enrolmentFile(n int) string { return fmt.Sprintf("/run/stress-%d.enrolment", n) }

// newWorld reads the operators' keys.
func newWorld(seed uint64, enrolments string) (*world, error) {
	b, err := os.ReadFile(enrolments)
	if err != nil {
		return nil, err
	}
	w := &world{byKey: map[auth.KeyID]*operator{}, base: clock.Real() - clock.Boot()}
	var ids []auth.KeyID
	for line := range strings.Lines(string(b)) {
		e, err := auth.ParseEnrolment(line)
		if err != nil {
			return nil, err
		}
		n := len(w.operators)
		o := &operator{
			world: w, n: n, label: e.Operator, key: e.Key, sealer: auth.NewSealer(&e.Key),
			random: rand.New(rand.NewPCG(seed, uint64(n+1))), status: make(chan auth.Reply, 16),
		}
		// One may do all that the others may, which matters for the flag now.
		perm := o.random.Perm(len(alphabet) - 1)
		size := 4 + o.random.IntN(12)
		if n == 0 {
			size = len(perm)
		}
		for _, i := range perm[:size] {
			o.letters += alphabet[i : i+1]
		}
		o.never = alphabet[len(alphabet)-1]
		if size < len(perm) {
			o.never = alphabet[perm[len(perm)-1]]
		}
		if err := os.WriteFile(enrolmentFile(n), []byte(line), 0o600); err != nil {
			return nil, err
		}
		w.operators = append(w.operators, o)
		w.byKey[o.key.ID] = o
		ids = append(ids, o.key.ID)
	}
	w.history = newHistory(ids)
	return w, nil
}

func stress(rounds int, seed uint64, enrolments string) (*Report, error) {
	begun := time.Now()
	w, err := newWorld(seed, enrolments)
	if err != nil {
		return nil, err
	}
	d := &disturber{world: w, random: rand.New(rand.NewPCG(seed, 0))}
	const notify = "/run/stress.notify"
	if d.ready, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"}); err != nil {
		return nil, err
	}
	// As systemd's: the daemon tells it as a user of its own.
	if err := os.Chmod(notify, 0o777); err != nil {
		return nil, err
	}
	if err := d.setUp(); err != nil {
		return nil, err
	}
	progress("set up after %.1f s", time.Since(begun).Seconds())

	var left atomic.Int64
	left.Store(int64(rounds))
	var operators, others sync.WaitGroup
	for _, o := range w.operators {
		operators.Go(func() {
			for left.Add(-1) >= 0 {
				o.settle()
				o.round()
				// Else the machine would be so busy that the daemon is always late.
				time.Sleep(time.Duration(o.random.Int64N(int64(maxRest))))
			}
		})
	}
	go w.watch()
	done := make(chan struct{})
	others.Go(func() { d.replays(done, rand.New(rand.NewPCG(seed, 1<<33))) })
	others.Go(func() { d.junk(done, rand.New(rand.NewPCG(seed, 1<<32))) })
	failed := make(chan error, 1)
	go func() { failed <- d.disturb(&left, rounds, done) }()
	operators.Wait()
	close(done)
	others.Wait()
	if err := <-failed; err != nil {
		return nil, err
	}
	if err := d.well(); err != nil {
		return nil, err
	}
	if err := d.endLedger(true); err != nil {
		return nil, err
	}
	w.ended.Store(true)
	progress("%d rounds after %.1f s", rounds, time.Since(begun).Seconds())
	if err := w.readDaemonLog(); err != nil {
		return nil, err
	}
	r := &Report{Rounds: rounds, Counts: d.counts, Daemon: len(w.daemonRuns), Outcomes: map[string]int{}}
	c := w.check()
	r.Faults, r.Tally = c.faults, c.tally
	for _, q := range w.order {
		if q.outcome != nil {
			r.Outcomes[q.outcome.Kind.String()]++
		}
	}
	r.Seconds = time.Since(begun).Seconds()
	return r, nil
}

func progress(format string, args ...any) {
	fmt.Printf("%.1f "+format+"\n", append([]any{float64(clock.Boot()) / 1e9}, args...)...)
}

// setUp arms the machine and starts the daemon.
func (d *disturber) setUp() error {
	if err := d.open(6); err != nil {
		return err
	}
	if err := os.MkdirAll("/run/netsysrq", 0o755); err != nil {
		return err
	}
	if err := d.setClock(0, true); err != nil {
		return err
	}
	for _, o := range d.operators {
		if err := run("netsysrqd", "keys", "add", "--file", enrolmentFile(o.n), "--allow", o.letters); err != nil {
			return err
		}
	}
	if err := d.load(); err != nil {
		return err
	}
	if left, err := leftBehind(); err != nil || left == "" {
		return fmt.Errorf("nothing tells that the module is there: %w", err)
	}
	if err := run("netsysrqd", "rules", "apply"); err != nil {
		return err
	}
	return d.start()
}

// maxRest is how long an operator rests at most between two rounds.
const maxRest = 150 * time.Millisecond

// roundsPerReload is how many rounds there are for each reload of the module.
const roundsPerReload = 1000

// disturb does one thing after the other until all rounds are made.
func (d *disturber) disturb(left *atomic.Int64, rounds int, done chan struct{}) error {
	next := rounds - roundsPerReload/2
	told := time.Now()
	for {
		select {
		case <-done:
			return nil
		default:
		}
		now := int(left.Load())
		if now <= 0 {
			// The last rounds wait for what is over soon.
			if err := d.well(); err != nil {
				return err
			}
			<-done
			return nil
		}
		what := d.once
		if now < next {
			next -= roundsPerReload
			what = d.reloadModule
		}
		if err := what(); err != nil {
			// Nobody would wait for rounds that can't end.
			log, _ := os.ReadFile(daemonLog)
			fmt.Printf("stress: %v\nthe daemon's log ends:\n%s\n", err, log[max(0, len(log)-4000):])
			os.Exit(1)
		}
		if time.Since(told) > 5*time.Second {
			told = time.Now()
			d.Lock()
			progress("%d rounds left, %d requests made, %d faults", now, len(d.order), len(d.faults))
			d.Unlock()
		}
	}
}

// replays sends old packets, all the time.
func (d *disturber) replays(done chan struct{}, random *rand.Rand) {
	for {
		select {
		case <-done:
			return
		case <-time.After(time.Duration(random.IntN(30)) * time.Millisecond):
		}
		o := d.operators[random.IntN(len(d.operators))]
		all := o.packets.Load()
		if all == nil {
			continue
		}
		d.pace()
		for range 1 + random.IntN(4) {
			d.replay(&(*all)[random.IntN(len(*all))], d.anySocket(random), o.to)
		}
	}
}

// junk sends what nobody sealed, for which no answer may come.
func (d *disturber) junk(done chan struct{}, random *rand.Rand) {
	s := d.sockets[len(d.sockets)-1]
	strange, err := strangeSealer()
	if err != nil {
		d.fault(err.Error())
		return
	}
	for {
		select {
		case <-done:
			return
		case <-time.After(time.Duration(random.IntN(40)) * time.Millisecond):
		}
		o := d.operators[random.IntN(len(d.operators))]
		all := o.packets.Load()
		if all == nil {
			continue
		}
		p := (*all)[random.IntN(len(*all))].packet
		b := p[:]
		switch random.IntN(5) {
		case 0:
			b[random.IntN(len(b))] ^= 1 << random.IntN(8)
		case 1:
			b = b[:random.IntN(len(b))]
		case 2:
			b = append(b, byte(random.Uint32()))
		case 3: // under the id of a key that is there, and sealed with another
			r := auth.Request{Op: auth.OpStatus, ID: auth.RequestID{1}, Time: clock.Real()}
			p = strange.SealRequest(&r)
			copy(p[8:16], o.key.ID[:])
		case 4: // a reply
			p = strange.SealReply(&auth.Reply{ID: auth.RequestID{1}})
		}
		d.counts.Junk++
		s.write(b, o.to)
	}
}

// strangeSealer is that of a key which the host does not hold.
func strangeSealer() (*auth.Sealer, error) {
	master := auth.NewMaster()
	key, err := master.HostKey("elsewhere.example.org")
	return auth.NewSealer(&key), err
}

// readDaemonLog notes what the daemon accepted without the module.
func (w *world) readDaemonLog() error {
	b, err := os.ReadFile(daemonLog)
	if err != nil {
		return err
	}
	w.Lock()
	defer w.Unlock()
	for line := range bytes.Lines(b) {
		var r struct{ Msg, Executor, Request, Decision, Flags, Level string }
		if bytes.Contains(line, []byte("panic:")) || bytes.Contains(line, []byte("fatal error:")) {
			w.faults = append(w.faults, "the daemon: "+string(line))
		}
		if !bytes.Contains(line, []byte(`"request accepted"`)) || json.Unmarshal(line, &r) != nil {
			continue
		}
		if r.Msg != "request accepted" || r.Executor != "daemon" || strings.Contains(r.Flags, "rehearse") || strings.Contains(r.Flags, "drill") {
			continue
		}
		var id auth.RequestID
		if _, err := hex.Decode(id[:], []byte(r.Request)); err == nil {
			w.daemonRuns[id]++
		}
	}
	return nil
}
