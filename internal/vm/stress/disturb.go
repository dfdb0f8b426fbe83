// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"netsysrq/auth"
	"netsysrq/internal/clock"
	"netsysrq/kmod-fallback/kmod"
)

const (
	daemonLog  = "/run/netsysrqd.log"
	vetoFile   = "/run/netsysrq/veto"
	moduleName = "xt_NETSYSRQ"
	moduleFile = "/root/xt_NETSYSRQ.ko"
)

// disturber is everything that goes wrong on the machine, one thing at a time.
type disturber struct {
	*world
	random *rand.Rand
	counts counts

	daemon  *exec.Cmd
	ready   *net.UnixConn // what the daemon tells systemd
	stopped bool
	turns   []func() error
	passes  int
}

// counts is what was done.
type counts struct {
	Starts, Stops, Kills, Hangups, Vetoes, Usurpations int
	Steps, KeyChanges, Reloads, AloneSpells, Replays   int
	Junk                                               int
}

func (d *disturber) within(low, high time.Duration) time.Duration {
	return low + time.Duration(d.random.Int64N(int64(high-low)))
}

func (d *disturber) sleep(low, high time.Duration) { time.Sleep(d.within(low, high)) }

// niceness is that of the test itself; what it disturbs comes first.
const niceness = 10

// startFirst starts a command with precedence over the requests, which take all
// the time there is. It must be waited for.
func startFirst(cmd *exec.Cmd) error {
	failed := make(chan error)
	go func() {
		// A child inherits from the thread that makes it, which then ends.
		runtime.LockOSThread()
		err := unix.Setpriority(unix.PRIO_PROCESS, 0, -10)
		if err == nil {
			err = cmd.Start()
		}
		failed <- err
	}()
	return <-failed
}

// run runs a command to its end.
func run(args ...string) error {
	var out bytes.Buffer
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := startFirst(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return fmt.Errorf("%v: %w: %s", args, err, out.Bytes())
	}
	return nil
}

// start starts the daemon and waits until it is ready.
func (d *disturber) start() error {
	if d.daemon != nil {
		return nil
	}
	log, err := os.OpenFile(daemonLog, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	d.daemon = exec.Command("netsysrqd", "run")
	d.daemon.Stdout, d.daemon.Stderr = log, log
	d.daemon.Env = append(os.Environ(), "NOTIFY_SOCKET="+d.ready.LocalAddr().String())
	if err := startFirst(d.daemon); err != nil {
		return err
	}
	d.stopped = false
	d.counts.Starts++
	return d.awaitReady()
}

// readyWait is by the guest's clock, which an emulator on a busy machine may let
// run too fast.
const readyWait = 3 * time.Minute

// awaitReady waits until the daemon says that it is ready.
func (d *disturber) awaitReady() error {
	if err := d.ready.SetReadDeadline(time.Now().Add(readyWait)); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	for {
		n, err := d.ready.Read(buf)
		if err != nil {
			log, _ := os.ReadFile(daemonLog)
			return fmt.Errorf("the daemon is not ready: %w; its log ends with:\n%s", err, log[max(0, len(log)-4096):])
		}
		if bytes.Contains(buf[:n], []byte("READY=1")) {
			return nil
		}
	}
}

func (d *disturber) signal(s syscall.Signal) error {
	if d.daemon == nil {
		return nil
	}
	switch s {
	case syscall.SIGSTOP:
		d.stopped = true
		d.counts.Stops++
	case syscall.SIGCONT:
		d.stopped = false
	}
	return d.daemon.Process.Signal(s)
}

// kill ends the daemon without a word.
func (d *disturber) kill() error {
	if d.daemon == nil {
		return nil
	}
	d.counts.Kills++
	if err := d.daemon.Process.Kill(); err != nil {
		return err
	}
	_ = d.daemon.Wait() // that it was killed is no news
	d.daemon, d.stopped = nil, false
	// What it said last is not about the next.
	if err := d.ready.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		return err
	}
	for buf := make([]byte, 4096); ; {
		if _, err := d.ready.Read(buf); err != nil {
			return nil
		}
	}
}

// well brings the daemon back, whatever state it is in.
func (d *disturber) well() error {
	if d.stopped {
		return d.signal(syscall.SIGCONT)
	}
	return d.start()
}

// reload has the daemon read its files again, if it can.
func (d *disturber) reload() error {
	if d.daemon == nil || d.stopped {
		return nil
	}
	d.counts.Hangups++
	if err := d.signal(syscall.SIGHUP); err != nil {
		return err
	}
	return d.awaitReady()
}

// once does one thing. All have their turn, in an order that changes.
func (d *disturber) once() error {
	if len(d.turns) == 0 {
		d.turns = []func() error{
			d.flutter, d.changeKey, d.restart, d.usurp, d.pause, d.stepClock, d.veto, d.reload,
			d.maskSysrq, d.flutter, d.changeKey, d.rest, d.usurp, d.pause, d.flutter, d.rest,
		}
		if d.passes++; d.passes > 1 { // a short run has only one
			d.random.Shuffle(len(d.turns), func(i, j int) { d.turns[i], d.turns[j] = d.turns[j], d.turns[i] })
		}
	}
	next := d.turns[0]
	d.turns = d.turns[1:]
	return next()
}

// rest leaves the daemon in peace.
func (d *disturber) rest() error {
	d.sleep(50*time.Millisecond, 500*time.Millisecond)
	return d.well()
}

// pause stops the daemon for many deadlines.
func (d *disturber) pause() error {
	if err := d.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	d.sleep(20*time.Millisecond, 300*time.Millisecond)
	return d.signal(syscall.SIGCONT)
}

// flutter stops it again and again, so that its word comes at any time about
// the deadline.
func (d *disturber) flutter() error {
	for range 10 + d.random.IntN(20) {
		err := d.signal(syscall.SIGSTOP)
		d.sleep(0, 2*deadline)
		if err = errors.Join(err, d.signal(syscall.SIGCONT)); err != nil {
			return err
		}
		d.sleep(0, 2*deadline)
	}
	return nil
}

// restart kills the daemon and starts it again.
func (d *disturber) restart() error {
	if err := d.kill(); err != nil {
		return err
	}
	d.sleep(0, 300*time.Millisecond)
	return d.start()
}

// veto has the daemon forbid what it hears of.
func (d *disturber) veto() error {
	d.counts.Vetoes++
	if err := os.WriteFile(vetoFile, []byte("a test\n"), 0o644); err != nil {
		return err
	}
	d.sleep(200*time.Millisecond, time.Second)
	return os.Remove(vetoFile)
}

// maskSysrq has kernel.sysrq forbid some of the steps.
func (d *disturber) maskSysrq() error {
	const file = "/proc/sys/kernel/sysrq"
	value := "0"
	if d.random.IntN(2) == 0 {
		value = "438"
	}
	if err := os.WriteFile(file, []byte(value), 0); err != nil {
		return err
	}
	d.sleep(20*time.Millisecond, 200*time.Millisecond)
	return os.WriteFile(file, []byte("1"), 0)
}

// usurp kills the daemon, and gives its place to the second client for a while.
// That client goes on talking when the daemon is back, and nothing comes of it.
func (d *disturber) usurp() error {
	d.counts.Usurpations++
	if err := d.kill(); err != nil {
		return err
	}
	c, err := kmod.Dial()
	if err != nil {
		return err
	}
	defer func() {
		d.second.Store(nil)
		d.speaking.Lock() // until the last word is said
		defer d.speaking.Unlock()
		c.Close()
	}()
	if d.random.IntN(6) > 0 {
		if err := c.Register(); err != nil {
			return err
		}
	}
	begin := clock.Boot()
	d.second.Store(c)
	d.sleep(300*time.Millisecond, 1500*time.Millisecond)
	d.Lock()
	d.usurped = append(d.usurped, span{begin, clock.Boot()})
	d.Unlock()
	err = d.start()
	d.sleep(0, 200*time.Millisecond)
	return err
}

// disturbing marks the keys of some operators as perhaps not there.
func disturbing(some []*operator) {
	for _, o := range some {
		o.changes.Add(1)
	}
}

// changeKey removes a key and adds it again, with other rights.
func (d *disturber) changeKey() error {
	o := d.operators[d.random.IntN(len(d.operators))]
	d.counts.KeyChanges++
	disturbing([]*operator{o})
	defer disturbing([]*operator{o})
	if err := d.remove(o); err != nil {
		return err
	}
	d.sleep(0, 2*onItsWay)
	d.replayAll(o)
	// And what only the owner of the key can seal.
	q := auth.Request{Op: auth.OpStatus, ID: auth.RequestID{1, byte(d.counts.KeyChanges), byte(d.counts.KeyChanges >> 8)}, Time: d.trueTime()}
	d.noteStatus(q.ID, o)
	packet := o.sealer.SealRequest(&q)
	d.anySocket(d.random).write(packet[:], o.to)
	d.sleep(0, 50*time.Millisecond)
	if d.random.IntN(2) == 0 {
		if err := d.reload(); err != nil {
			return err
		}
	}
	if err := d.install(o); err != nil {
		return err
	}
	// What was recorded before is above no floor and answers no challenge now.
	d.replayAll(o)
	if d.random.IntN(2) == 0 {
		return d.reload()
	}
	return nil
}

func (d *disturber) remove(o *operator) error {
	removing := clock.Boot()
	d.Lock()
	in := &d.installations[o.n][len(d.installations[o.n])-1]
	in.removing = removing
	d.Unlock()
	err := run("netsysrqd", "keys", "remove", o.label)
	gone := clock.Boot()
	d.Lock()
	in.gone = gone
	d.Unlock()
	return err
}

func (d *disturber) install(o *operator) error {
	allowed := o.letters
	if d.random.IntN(2) == 0 { // one less
		at := d.random.IntN(len(allowed))
		allowed = allowed[:at] + allowed[at+1:]
	}
	set, err := auth.ParseKeySet(allowed)
	if err != nil {
		return err
	}
	asked := clock.Boot()
	d.Lock()
	d.installations[o.n] = append(d.installations[o.n], installation{asked: asked, done: 1<<64 - 1, allowed: set, allowedIsSteady: true})
	d.Unlock()
	err = run("netsysrqd", "keys", "add", "--file", enrolmentFile(o.n), "--allow", allowed)
	done := clock.Boot()
	d.Lock()
	d.installations[o.n][len(d.installations[o.n])-1].done = done
	d.Unlock()
	return err
}

// replayAll sends every packet that an operator has ever sent.
func (d *disturber) replayAll(o *operator) {
	all := o.packets.Load()
	if all == nil {
		return
	}
	for n, i := range d.random.Perm(len(*all)) {
		if n%8 == 0 {
			d.pace()
		}
		d.counts.Replays++
		d.replay(&(*all)[i], d.anySocket(d.random), o.to)
	}
}

// stepClock sets the clock wrong, and right again.
func (d *disturber) stepClock() error {
	d.counts.Steps++
	offset := d.within(-wrong, wrong)
	synchronised := true // whoever disciplines it is off by less than W
	switch d.random.IntN(3) {
	case 0:
		offset, synchronised = -d.within(time.Minute, 24*time.Hour), false
	case 1:
		offset, synchronised = d.within(0, 20*time.Second), false
	}
	if err := d.setClock(offset, synchronised); err != nil {
		return err
	}
	d.sleep(100*time.Millisecond, 2*time.Second)
	if d.random.IntN(4) == 0 && synchronised {
		return nil
	}
	return d.setClock(0, true)
}

// setClock sets the clock so far off, and says whether it is disciplined. A step
// makes the kernel forget that it was.
func (d *disturber) setClock(offset time.Duration, synchronised bool) error {
	ts := unix.NsecToTimespec(int64(d.trueTime()) + int64(offset))
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
		return fmt.Errorf("step the clock: %w", err)
	}
	if !synchronised {
		return nil
	}
	const status, maxError, estimatedError = 0x10, 0x4, 0x8 // ADJ_*
	_, err := unix.Adjtimex(&unix.Timex{Modes: status | maxError | estimatedError, Maxerror: 1000, Esterror: 1000})
	if err != nil {
		return fmt.Errorf("say that the clock is disciplined: %w", err)
	}
	return nil
}

// reloadModule takes the module out and puts it back, quietly or with requests
// under way, and perhaps with the daemon alone in between.
func (d *disturber) reloadModule() error {
	d.counts.Reloads++
	quiet := d.random.IntN(2) == 0
	alone := d.random.IntN(3) == 0
	disturbing(d.operators)
	defer disturbing(d.operators)
	removing := clock.Boot()
	d.Lock()
	for _, all := range d.installations {
		all[len(all)-1].removing = removing
	}
	d.Unlock()
	if err := run("netsysrqd", "rules", "remove"); err != nil {
		return err
	}
	if err := d.endLedger(quiet); err != nil {
		return err
	}
	if err := run("/bin/busybox", "rmmod", moduleName); err != nil {
		return err
	}
	gone := clock.Boot()
	d.closeLedger(gone)
	d.Lock()
	for _, all := range d.installations {
		all[len(all)-1].gone = gone
	}
	d.Unlock()
	if err := checkUnloaded(); err != nil {
		d.fault(err.Error())
	}
	if alone {
		if err := d.alone(); err != nil {
			return err
		}
	}
	if err := d.load(); err != nil {
		return err
	}
	if err := run("netsysrqd", "rules", "apply"); err != nil {
		return err
	}
	for _, o := range d.operators {
		d.replayAll(o)
	}
	if d.random.IntN(2) == 0 { // it looks for a module every 5 s
		if err := d.kill(); err != nil {
			return err
		}
	}
	return d.well()
}

// load loads the module and gives it its keys.
func (d *disturber) load() error {
	loaded := clock.Boot()
	if err := run("/bin/busybox", "insmod", moduleFile); err != nil {
		return err
	}
	if err := d.beginLedger(loaded); err != nil {
		return err
	}
	asked := clock.Boot()
	d.Lock()
	for i, all := range d.installations {
		set := auth.KeySet(0)
		if len(all) > 0 {
			set = all[len(all)-1].allowed
		} else if s, err := auth.ParseKeySet(d.operators[i].letters); err == nil {
			set = s
		}
		d.installations[i] = append(all, installation{asked: asked, done: 1<<64 - 1, allowed: set, allowedIsSteady: true})
	}
	d.Unlock()
	if err := run("netsysrqd", "load-keys"); err != nil {
		return err
	}
	done := clock.Boot()
	d.Lock()
	for _, all := range d.installations {
		all[len(all)-1].done = done
	}
	d.Unlock()
	return nil
}

// alone has the daemon do the work without the module for a while.
func (d *disturber) alone() error {
	d.counts.AloneSpells++
	if err := d.kill(); err != nil {
		return err
	}
	if err := errors.Join(run("netsysrqd", "rules", "apply"), d.start()); err != nil {
		return err
	}
	for _, o := range d.operators {
		d.replayAll(o)
	}
	disturbing(d.operators) // there is somebody who answers
	d.sleep(time.Second, 2*time.Second)
	disturbing(d.operators)
	return nil
}

// checkUnloaded looks for what a module could leave behind.
func checkUnloaded() error {
	if left, err := leftBehind(); err != nil || left != "" {
		return fmt.Errorf("left behind by rmmod: %s %w", left, err)
	}
	return nil
}

// leftBehind names traces of the module.
func leftBehind() (string, error) {
	for _, file := range []string{"/proc/modules", "/proc/timer_list", "/proc/kallsyms", "/sys/devices/system/cpu/hotplug/states", "/proc/net/ip_tables_targets"} {
		b, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		for line := range strings.Lines(string(b)) {
			if strings.Contains(line, moduleName) || strings.Contains(line, "netsysrq:") || strings.TrimSpace(line) == "NETSYSRQ" {
				return file + ": " + strings.TrimSpace(line), nil
			}
		}
	}
	names, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return "", err
	}
	for _, n := range names {
		// The daemon's is another.
		if b, err := os.ReadFile(n); err == nil && strings.TrimSpace(string(b)) == "netsysrq" {
			return n, nil
		}
	}
	return "", nil
}
