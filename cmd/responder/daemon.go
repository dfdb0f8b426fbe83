// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mdlayher/sdnotify"
	"golang.org/x/sys/unix"

	"netsysrq/auth"
	"netsysrq/cmd/responder/internal/config"
	"netsysrq/cmd/responder/internal/gate"
	"netsysrq/cmd/responder/internal/host"
	"netsysrq/cmd/responder/internal/keyring"
	"netsysrq/cmd/responder/internal/klog"
	"netsysrq/cmd/responder/internal/logging"
	"netsysrq/cmd/responder/internal/module"
	"netsysrq/cmd/responder/internal/rules"
	"netsysrq/cmd/responder/internal/runner"
	"netsysrq/nfq"
)

const (
	sampleEvery = time.Second
	// A read loop that has not begun anew for so long hangs: systemd is then
	// no longer told that all is well.
	stuckAfter = 5 * time.Second
	reopenWait = time.Second
	flushWait  = time.Second
	rulesWait  = 3 * time.Second
	// processors is two read loops, the runner and one to spare, however many
	// CPUs there are. A thread that returns from a system call runs Go code
	// only when one of these is free, and one is taken away from another only
	// after up to 10 ms: with two, a flooded busy lane holds up quiet lane and
	// runner, whatever their priority. Each costs memory for its caches.
	processors = 4
	// The heap is a few hundred KiB; collecting rarely costs little memory,
	// and a limit keeps the whole process small.
	memoryLimit = 9 << 20
)

// daemon is netsysrqd run: the packet path and what keeps it honest.
type daemon struct {
	cfg        *config.Config
	configPath string
	identity   host.Identity
	machineID  string
	log        *logging.Log
	lost       uint64 // log records already reported as lost
	keys       []keyring.Key
	// keysComplete reports that no key file was left out because of a mistake.
	keysComplete bool
	boot         auth.BootID
	level        *slog.LevelVar
	gate         *gate.Gate
	runner       *runner.Runner
	klog         *klog.Log // nil: cannot be read
	lanes        []*lane
	link         *module.Link
	judged       chan struct{} // a word was said to the kernel module
	// When a module is looked for again, and what came of it the last time.
	attachAgain time.Time
	attachState string
	vetoFile    atomic.Pointer[string]
	statistics  *os.File // the kernel's list of queues, which root alone may open
	notify      *sdnotify.Notifier
}

// lane is one queue and what reads it.
type lane struct {
	*gate.Lane
	name   string
	number uint16
	queue  atomic.Pointer[nfq.Queue] // nil while it is lost
	// Packets that the kernel dropped: those of queues that are closed, and
	// how many a summary has named.
	gone       atomic.Uint64
	summarised uint64
}

// runDaemon runs until the context ends. It returns an error only for what
// keeps it from starting; later troubles are logged and mended.
func runDaemon(ctx context.Context, cfg *config.Config, configPath string, stderr io.Writer) error {
	// Whoever reads the log may end; that must not end the daemon.
	signal.Ignore(syscall.SIGPIPE)
	d, err := startDaemon(cfg, configPath, stderr)
	if err != nil {
		return err
	}
	defer d.log.Flush(flushWait)
	return d.run(ctx)
}

// startDaemon takes all that needs root, then gives root up.
func startDaemon(cfg *config.Config, configPath string, stderr io.Writer) (*daemon, error) {
	debug.SetMemoryLimit(memoryLimit)
	runtime.GOMAXPROCS(processors)
	d := &daemon{cfg: cfg, configPath: configPath, level: new(slog.LevelVar), judged: make(chan struct{}, 1)}
	d.vetoFile.Store(&cfg.VetoFile)
	d.level.Set(cfg.Log.Level)
	var err error
	if d.log, err = logging.New(cfg.Log.Format, stderr, d.level); err != nil {
		return nil, err
	}
	if d.identity, err = host.Become(cfg.User); err != nil {
		return nil, err
	}
	inherited := host.Inherit()
	if d.machineID, err = keyring.MachineID(cfg.MachineID); err != nil {
		return nil, err
	}
	if d.boot, err = host.BootID(); err != nil {
		return nil, fmt.Errorf("read boot id: %w", err)
	}
	kmsg, err := openKmsg(inherited, cfg.Kmsg)
	if err != nil {
		d.log.Warn("kernel log cannot be read: s and u will wait for their whole bound", "err", err)
	}
	var readLog func(*klog.Grant) bool
	if fd, err := inherited.Open(host.LogFile, cfg.Kmsg, unix.O_RDONLY); err != nil {
		d.log.Warn("kernel log cannot be read: no operator gets it from this daemon", "err", err)
	} else {
		d.klog = klog.New(fd, cfg.Kmsg)
		readLog = d.klog.Answer
	}
	trigger, err := inherited.Open(host.TriggerFile, cfg.Trigger, runner.TriggerFlags)
	if err != nil {
		return nil, fmt.Errorf("open trigger: %w", err)
	}
	d.runner = runner.New(trigger, cfg.Trigger, kmsg, func(id auth.KeyID, request auth.RequestID) { d.gate.Finished(id, request) })
	answerer, err := host.NewAnswerer(inherited, cfg.Port)
	if err != nil {
		return nil, err
	}
	d.gate = gate.New(gate.Config{
		Ledger: auth.Config{
			Executor: auth.Daemon,
			Sysrq:    -1, // /proc/sysrq-trigger does not obey kernel.sysrq
			DryRun:   cfg.DryRun,
			Random:   func(b []byte) bool { rand.Read(b); return true },
		},
		Boot:    d.boot,
		Submit:  d.runner.Submit,
		Cut:     d.runner.Cut,
		Answer:  answerer.Send,
		ReadLog: readLog,
		Log:     d.log.Logger,
		Veto:    d.vetoed,
		Armed:   module.Armed,
		Mark:    rules.AuthenticMark, MarkMask: rules.MarkMask,
		Judged: func() {
			select {
			case d.judged <- struct{}{}:
			default:
			}
		},
	})
	d.link = &module.Link{Dial: module.Dial, Log: d.log.Logger}
	if err := d.loadKeys(); err != nil {
		// One bad file must not lock everyone out.
		d.log.Error("keys cannot all be taken", "err", err)
		if err := d.loadSoundKeys(); err != nil {
			return nil, err
		}
	}
	d.attach()
	if os.Geteuid() == 0 {
		d.warnOfRules() // else a unit of its own watches them
	}
	d.lanes = []*lane{
		{Lane: d.gate.Lane(), name: "quiet", number: cfg.Queue},
		{Lane: d.gate.Lane(), name: "busy", number: cfg.Queue + 1},
	}
	statistics, err := inherited.Open(host.StatisticsFile, nfq.StatisticsPath, unix.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("open the kernel's list of queues: %w", err)
	}
	d.statistics = os.NewFile(uintptr(statistics), nfq.StatisticsPath)
	for _, l := range d.lanes {
		if err := d.open(l); err != nil {
			return nil, err
		}
	}
	if d.notify, err = sdnotify.New(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open the notification socket: %w", err)
	}
	if err := host.ProtectMemory(); err != nil {
		d.log.Warn("memory is not wholly protected: the daemon may be swapped out or killed when memory is short", "err", err)
	}
	if err := host.Drop(d.identity); err != nil {
		return nil, fmt.Errorf("give up root: %w", err)
	}
	return d, nil
}

func openKmsg(inherited host.Inherited, path string) (*runner.Kmsg, error) {
	fd, err := inherited.Open(host.KmsgFile, path, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	return runner.NewKmsg(fd, path)
}

// open binds a lane's queue.
func (d *daemon) open(l *lane) error {
	q, err := nfq.Open(nfq.Config{
		Queue:      l.number,
		Handler:    l.Handle,
		OnStart:    func() error { return d.demote(l) },
		Statistics: d.statistics,
		Logger:     d.log.With("lane", l.name),
	})
	if err != nil {
		return err
	}
	l.queue.Store(q)
	return nil
}

// demote takes real-time scheduling, which the unit may give to every thread,
// from the lane that a flood can keep busy. It gets no less than an ordinary
// thread: it may hold a lock that the quiet lane waits for, and among its
// packets are those of an operator whose address is spoofed.
func (d *daemon) demote(l *lane) error {
	if l == d.lanes[0] {
		return nil
	}
	return unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_BATCH}, 0)
}

// loadKeys puts the key files in force, or changes nothing.
func (d *daemon) loadKeys() error {
	if _, err := os.Stat(d.cfg.KeysDir); err != nil && len(d.keys) > 0 {
		return fmt.Errorf("keys: %w", err) // not mounted, rather than emptied
	}
	files, skipped, err := keyring.Load(d.cfg.KeysDir, d.machineID, d.identity.GID)
	if err != nil {
		return err
	}
	for _, s := range skipped {
		d.log.Warn("key skipped", "file", s.Path, "reason", s.Reason)
	}
	for _, f := range files {
		d.log.Info("key in force", "key", f.Operator, "key_id", f.Key.ID.String(), "host", f.Host, "allowed", f.Allow.String())
	}
	if len(files) == 0 {
		d.log.Warn("no keys: every packet is junk until one is added with netsysrqd keys add")
	}
	d.keysComplete = true
	d.setKeys(files)
	return nil
}

// loadSoundKeys puts those key files in force that nothing is wrong with.
func (d *daemon) loadSoundKeys() error {
	entries, err := keyring.List(d.cfg.KeysDir, d.machineID, d.identity.GID)
	if err != nil {
		return err
	}
	var sound []keyring.Key
	seen := map[auth.KeyID]bool{}
	for _, e := range entries {
		if e.Problem != nil || seen[e.Key.Key.ID] || len(sound) == keyring.MaxKeys {
			d.log.Error("key not in force", "file", e.Key.Path, "problem", e.Problem)
			continue
		}
		seen[e.Key.Key.ID] = true
		sound = append(sound, e.Key)
		d.log.Info("key in force", "key", e.Key.Operator, "key_id", e.Key.Key.ID.String(), "host", e.Key.Host, "allowed", e.Key.Allow.String())
	}
	d.keysComplete = false
	d.setKeys(sound)
	return nil
}

// warnOfRules says if no packet can come, since the daemon itself would only
// wait for one.
func (d *daemon) warnOfRules() {
	ctx, cancel := context.WithTimeout(context.Background(), rulesWait)
	defer cancel()
	set := rules.Set{Port: d.cfg.Port, Queue: d.cfg.Queue, AllowFrom: d.cfg.AllowFrom, Backend: d.cfg.Iptables, Path: os.Getenv("PATH"),
		Kernel: rules.ModuleLoaded()}
	found, err := set.Status(ctx)
	if err != nil {
		d.log.Warn("firewall rules cannot be looked at", "err", err)
		return
	}
	for _, f := range found {
		switch f.State {
		case rules.Present, rules.NoFamily:
		default:
			d.log.Warn("firewall rules are not as they should be: run netsysrqd rules apply", "family", f.Family.String(), "rules", f.State.String())
		}
	}
}

func (d *daemon) setKeys(files []keyring.Key) {
	d.keys = files
	keys := make([]gate.Key, len(files))
	for i := range files {
		f := &files[i]
		keys[i] = gate.Key{Operator: f.Operator, Allowed: f.Allow, Host: &f.Key}
	}
	d.gate.SetKeys(keys)
	if err := d.link.Set(d.settings()); err != nil {
		d.log.Error("kernel module not told of the keys", "err", err)
	}
}

// dropRemoved takes keys out of force whose files are gone. It is what a reload
// does even if nothing else of it can be done: who removed a key must be able
// to rely on it, whatever is wrong with another file.
func (d *daemon) dropRemoved() {
	if _, err := os.Stat(d.cfg.KeysDir); err != nil {
		return
	}
	var kept []keyring.Key
	for _, k := range d.keys {
		if _, err := os.Lstat(k.Path); errors.Is(err, fs.ErrNotExist) {
			d.log.Info("key removed", "key", k.Operator, "key_id", k.Key.ID.String())
			if err := d.link.Remove(k.Key.ID); err != nil {
				d.log.Error("key not taken out of the kernel module", "key_id", k.Key.ID.String(), "err", err)
			}
			continue
		}
		kept = append(kept, k)
	}
	if len(kept) < len(d.keys) {
		d.setKeys(kept)
	}
}

func (d *daemon) run(ctx context.Context) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)

	var wg sync.WaitGroup
	for _, l := range d.lanes {
		wg.Go(func() { d.serve(ctx, l) })
	}
	if d.klog != nil {
		wg.Go(func() { d.klog.Run(ctx) })
	}
	// The runner ends after the lanes, so that what they accept last is run.
	rctx, stopRunner := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRunner()
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		d.runner.Run(rctx)
	}()

	mode := auth.Daemon
	if d.link.Attached() {
		mode = auth.Kernel
	}
	d.log.Info("ready", "mode", mode.String(), "port", d.cfg.Port, "queues", fmt.Sprintf("%d,%d", d.lanes[0].number, d.lanes[1].number),
		"trigger", d.cfg.Trigger, "dry_run", d.cfg.DryRun, "uid", os.Getuid())
	d.tell(sdnotify.Ready)

	sample := time.NewTicker(sampleEvery)
	defer sample.Stop()
	summary := time.NewTicker(gate.SummaryEvery)
	defer summary.Stop()
	events := time.NewTimer(0)
	defer events.Stop()
loop:
	for {
		select {
		case <-ctx.Done():
			break loop
		case <-hup:
			d.reload()
		case <-summary.C:
			d.summarise()
		case <-d.judged:
			events.Reset(eventsSoon)
		case <-events.C:
			if d.events() {
				events.Reset(eventsSoon)
			}
		case <-sample.C:
			asked, synchronised := d.gate.Sample()
			d.beat(d.feedWatchdog(), asked, synchronised)
			events.Reset(0)
		}
	}
	d.tell("STOPPING=1")
	if !d.runner.Idle() {
		d.log.Warn("stopping after the sequence that runs")
	}
	wg.Wait()
	stopRunner()
	<-ran
	d.summarise()
	d.log.Info("stopped")
	return nil
}

// serve reads a lane's queue for ever. A queue that is lost is opened anew.
func (d *daemon) serve(ctx context.Context, l *lane) {
	for {
		q := l.queue.Load()
		err := q.Run(ctx)
		last, _ := q.KernelStats()
		l.queue.Store(nil)
		if cerr := q.Close(); cerr != nil && ctx.Err() == nil {
			d.log.Warn("queue not closed", "lane", l.name, "err", cerr)
		}
		l.gone.Add(kernelDrops(last) + uint64(last.Waiting))
		if ctx.Err() != nil {
			return
		}
		d.log.Error("queue lost", "lane", l.name, "queue", l.number, "err", err)
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(reopenWait):
			}
			if err = d.open(l); err == nil {
				d.log.Info("queue opened again", "lane", l.name, "queue", l.number)
				break
			}
			d.log.Error("queue not opened", "lane", l.name, "queue", l.number, "err", err)
		}
	}
}

// feedWatchdog tells systemd that all is well, if every read loop turns. That
// the ledger's lock is not stuck was just shown by the gate's sample.
func (d *daemon) feedWatchdog() bool {
	for _, l := range d.lanes {
		q := l.queue.Load()
		if q == nil {
			continue // serve opens it again, and says how that goes
		}
		if since := time.Since(q.Stats().LastTick); since > stuckAfter {
			d.log.Error("read loop hangs", "lane", l.name, "since", since)
			return false
		}
	}
	d.tell("WATCHDOG=1")
	return true
}

func (d *daemon) summarise() {
	lanes := make([]*gate.Lane, len(d.lanes))
	var dropped uint64
	for i, l := range d.lanes {
		lanes[i] = l.Lane
		var ks nfq.KernelStats
		if q := l.queue.Load(); q != nil {
			var err error
			if ks, err = q.KernelStats(); err != nil {
				d.log.Warn("kernel's queue statistics cannot be read", "lane", l.name, "err", err)
				continue
			}
		}
		if n := l.gone.Load() + kernelDrops(ks); n > l.summarised {
			dropped += n - l.summarised
			l.summarised = n
		}
	}
	gate.Summarise(d.log.Logger, lanes, dropped, d.modulePackets())
	if n := d.log.Lost(); n > d.lost {
		d.log.Warn("log records lost: nobody read them in time", "records", n-d.lost)
		d.lost = n
	}
}

func kernelDrops(ks nfq.KernelStats) uint64 {
	return uint64(ks.QueueDropped) + uint64(ks.UserDropped)
}

// reload takes keys, dry_run and log level from the files again. On any error
// everything stays as it was.
func (d *daemon) reload() {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err == nil {
		d.tell(sdnotify.Reloading, fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/1000))
	}
	status := "STATUS="
	defer func() { d.tell(sdnotify.Ready, status) }()
	next, err := config.Load(d.configPath)
	if err != nil {
		d.log.Error("reload: configuration not taken, the old one stays", "err", err)
		status += "reload failed: " + err.Error()
		d.dropRemoved()
		return
	}
	old := *d.cfg
	d.cfg.KeysDir, d.cfg.DryRun, d.cfg.Deadline = next.KeysDir, next.DryRun, next.Deadline
	if err := d.loadKeys(); err != nil {
		d.cfg.KeysDir, d.cfg.DryRun, d.cfg.Deadline = old.KeysDir, old.DryRun, old.Deadline
		d.log.Error("reload: keys not taken, the old ones stay", "err", err)
		status += "reload failed: " + err.Error()
		d.dropRemoved()
		return
	}
	d.gate.SetDryRun(next.DryRun)
	d.vetoFile.Store(&next.VetoFile)
	d.cfg.Log.Level = next.Log.Level
	d.level.Set(next.Log.Level)
	if next.Port != old.Port || next.Queue != old.Queue || next.Trigger != old.Trigger || next.Kmsg != old.Kmsg ||
		next.User != old.User || next.MachineID != old.MachineID || next.Log.Format != old.Log.Format {
		d.log.Warn("reload: port, queue, trigger, kmsg, user, machine_id and log.format take effect after a restart")
	}
	if !slices.Equal(next.AllowFrom, old.AllowFrom) || next.Iptables != old.Iptables {
		d.log.Warn("reload: allow_from and iptables take effect with netsysrqd rules apply")
	}
	d.cfg.AllowFrom, d.cfg.Iptables = next.AllowFrom, next.Iptables
	d.log.Info("reloaded", "dry_run", next.DryRun)
}

func (d *daemon) tell(state ...string) {
	if d.notify == nil {
		return
	}
	if err := d.notify.Notify(state...); err != nil {
		d.log.Warn("systemd not notified", "err", err)
	}
}
