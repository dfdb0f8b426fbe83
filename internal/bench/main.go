// SPDX-License-Identifier: GPL-2.0-only

// Bench measures netsysrqd against the plainest C program that could stand in
// its place, and prints a table of ratios.
//
//	go run ./internal/bench [-quick] [-strict] [-reference DIR]
//
// It needs root, iproute2, iptables, gcc and libnetfilter-queue-dev. All that
// it makes is in three network namespaces of its own and a temporary directory:
//
//	                            ┌─────────────────────────────────────┐
//	┌─────────────────────┐  ┌──┤ host: netsysrqd with its real rules │
//	│ client              ├──┘  └─────────────────────────────────────┘
//	│  requests, floods   ├──┐  ┌─────────────────────────────────────┐
//	└─────────────────────┘  └──┤ reference: cnfq with the same rules │
//	                            └─────────────────────────────────────┘
//
// What is compared is measured in turns, A B A B, in one run; absolute times
// say more about the machine than about the program. A row that misses its bar
// is "noisy" if some of its repetitions met it. Bars do not make the program
// fail unless -strict is given.
//
// That a rejected packet costs no allocation is not measured here but tested,
// by testing.AllocsPerRun in packages nfq, auth and gate. Here the daemon's
// garbage collections are counted instead.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are what the command line says.
type options struct {
	reference string // directory of the C programs
	responder string // binary to measure; "": build it
	only      string // stages, separated by commas; "": all
	rate      int    // packets a second of a flood
	realtime  int    // SCHED_FIFO priority of the daemon in the floods, as its unit gives it
	quick     bool
	strict    bool
}

// limit bounds the whole run.
func (o *options) limit() time.Duration {
	if o.quick {
		return 3 * time.Minute
	}
	return 8 * time.Minute
}

func main() {
	if len(os.Args) > 1 {
		child(os.Args[1], os.Args[2:])
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.reference, "reference", "", "directory of cnfq.c and lat.c (default ../shared/bench beside the repository)")
	flags.StringVar(&o.responder, "responder", "", "netsysrqd binary to measure (default: build ./cmd/responder)")
	flags.StringVar(&o.only, "only", "", "run these stages, separated by commas, of: "+strings.Join(stageNames, ", "))
	flags.IntVar(&o.rate, "rate", 100_000, "packets a second of a flood")
	flags.IntVar(&o.realtime, "realtime", 10, "SCHED_FIFO priority of the daemon in the floods, as its unit gives it, 0: without")
	flags.BoolVar(&o.quick, "quick", false, "fewer repetitions and requests")
	flags.BoolVar(&o.strict, "strict", false, "exit with 1 if a bar is missed")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil || flags.NArg() > 0 {
		return 2
	}
	ctx, cancel := context.WithTimeout(ctx, o.limit())
	defer cancel()
	go orphaned(cancel)

	t := &table{}
	err := measure(ctx, &o, t, stderr)
	t.print(stdout)
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	if o.strict && missed(t.rows) > 0 {
		return 1
	}
	return 0
}

// orphaned ends the run when its parent has gone: `go run` does not pass
// every signal on.
func orphaned(cancel func()) {
	for parent := os.Getppid(); os.Getppid() == parent; {
		time.Sleep(time.Second)
	}
	cancel()
}

// bench is one run of the program.
type bench struct {
	*options
	lab        *lab
	references *references
	daemon     *daemon
	table      *table
	progress   io.Writer
}

// say tells what goes on, beside the table.
func (b *bench) say(format string, a ...any) { fmt.Fprintf(b.progress, format+"\n", a...) }

// measure makes everything, runs the stages and takes everything away.
func measure(ctx context.Context, o *options, t *table, progress io.Writer) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces and NFQUEUE need root")
	}
	root := ""
	if o.reference == "" || o.responder == "" {
		if root, err = repository(ctx); err != nil {
			return err
		}
	}
	if o.reference == "" {
		o.reference = filepath.Join(root, "..", "shared", "bench")
	}
	dir, err := os.MkdirTemp("", "netsysrq-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	t.note("Linux %s, %d CPUs; the clock is the real one, but adjtimex answers the daemon that it is synchronised", kernel(), runtime.NumCPU())
	if o.realtime > 0 {
		t.note("in the floods the daemon has SCHED_FIFO %d, as a unit gives it; -realtime 0 measures without", o.realtime)
	}
	b := &bench{options: o, table: t, progress: progress}
	b.say("bench: building")
	if b.references, err = compile(ctx, o.reference, dir); err != nil {
		return err
	}
	if o.responder == "" {
		if o.responder, err = build(ctx, root, dir); err != nil {
			return err
		}
	}
	if b.lab, err = newLab(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.lab.close()) }()
	if b.daemon, err = startDaemon(ctx, b, dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.daemon.stop()) }()

	stages := []func(context.Context) error{b.cost, b.latency, b.misshapen, b.few, b.random}
	for i, name := range stageNames {
		if o.only != "" && !slices.Contains(strings.Split(o.only, ","), name) {
			continue
		}
		b.say("bench: %s", name)
		if err := stages[i](ctx); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return b.memory()
}

// stageNames are the stages in their order; memory is always read at the end.
var stageNames = []string{"cost", "latency", "misshapen", "few", "random"}
