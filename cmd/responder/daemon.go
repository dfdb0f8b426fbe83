// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"netsysrq/auth"
	"netsysrq/cmd/responder/internal/config"
	"netsysrq/cmd/responder/internal/gate"
	"netsysrq/cmd/responder/internal/host"
	"netsysrq/cmd/responder/internal/keyring"
	"netsysrq/cmd/responder/internal/klog"
	"netsysrq/cmd/responder/internal/logging"
	"netsysrq/cmd/responder/internal/metrics"
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
	untold      bool        // the module does not know all that it should
	looked      bool        // which keys are gone, since the module was found without any
	armed       func() bool // module.Armed, or a test's
	// Files are read beside the loop: one reading at a time.
	readings   chan reading
	reads      bool
	readsAgain bool // when that is done
	reloaded   bool // the last reload changed what it should
	vetoFile   atomic.Pointer[string]
	statistics *os.File // the kernel's list of queues, which root alone may open
	notify     *host.Notifier
	notified   error // what came of it the last time
	// What the metrics tell.
	metricsFile  *metrics.File // nil: there is none
	started      time.Time
	requests     *metrics.Requests
	ignored      [auth.NumReasons]uint64
	synchronised bool
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
	d := &daemon{cfg: cfg, configPath: configPath, level: new(slog.LevelVar), judged: make(chan struct{}, 1),
		readings: make(chan reading, 1), reloaded: true, armed: module.Armed, started: time.Now(), requests: new(metrics.Requests)}
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
	if cfg.Trigger != config.Trigger {
		d.log.Warn("trigger is not the kernel's: what this daemon accepts is answered as if it were run, and nothing is done", "trigger", cfg.Trigger)
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
		Armed:   d.armed,
		Mark:    rules.AuthenticMark, MarkMask: rules.MarkMask,
		Requests: d.requests,
		Judged: func() {
			select {
			case d.judged <- struct{}{}:
			default:
			}
		},
	})
	d.link = &module.Link{Dial: module.Dial, Log: d.log.Logger, Requests: d.requests}
	if err := d.loadKeys(); err != nil {
		return nil, err
	}
	// Without root a unit of its own watches them, and only root could arm a
	// module that they lead past.
	if os.Geteuid() == 0 && d.rulesLeadPast() {
		d.log.Warn("firewall rules lead past the kernel module: the daemon gives it no keys")
		d.attachAgain = time.Now().Add(attachEvery)
	} else {
		d.attach()
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
	if d.notify, err = host.NewNotifier(); err != nil && !errors.Is(err, host.ErrNoManager) {
		return nil, fmt.Errorf("open the notification socket: %w", err)
	}
	for _, err := range host.ProtectMemory() {
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

// rulesLeadPast looks at the firewall rules, and says if no packet can come,
// since the daemon itself would only wait for one. It reports whether they lead
// past a module that is loaded.
func (d *daemon) rulesLeadPast() (past bool) {
	ctx, cancel := context.WithTimeout(context.Background(), rulesWait)
	defer cancel()
	set := rulesOf(d.cfg, os.Getenv("PATH"))
	found, err := set.Status(ctx)
	if err != nil {
		d.log.Warn("firewall rules cannot be looked at", "err", err)
		return false
	}
	for _, f := range found {
		switch f.State {
		case rules.Present, rules.NoFamily:
		default:
			d.log.Warn("firewall rules are not as they should be: run netsysrqd rules apply", "family", f.Family.String(), "rules", f.State.String())
		}
		past = past || set.Kernel && f.State == rules.Outdated
	}
	return past
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
	d.tell("READY=1")
	if d.cfg.Metrics != "" {
		d.metricsFile = metrics.NewFile(d.cfg.Metrics, d.log.Logger)
		defer d.metricsFile.Close()
		_, d.synchronised = d.gate.Sample()
		d.putMetrics()
	}

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
			d.read(true)
		case r := <-d.readings:
			d.take(r)
		case <-summary.C:
			d.summarise()
			d.putMetrics()
		case <-d.judged:
			events.Reset(eventsSoon)
		case <-events.C:
			if d.events() {
				events.Reset(eventsSoon)
			}
		case <-sample.C:
			asked, synchronised := d.gate.Sample()
			d.synchronised = synchronised
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

// tell tells the service manager, and the log when that has begun to fail.
func (d *daemon) tell(state ...string) {
	err := d.notify.Tell(state...)
	if err != nil && d.notified == nil {
		d.log.Warn("systemd not notified", "err", err)
	}
	d.notified = err
}
