// SPDX-License-Identifier: GPL-2.0-only

// Package runner runs the SysRq steps of accepted requests: one sequence at a
// time, in the order accepted, each step at its time.
package runner

import (
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"netsysrq/auth"
)

// ErrFull is returned when more sequences wait than a ledger can have accepted.
var ErrFull = errors.New("too many sequences wait")

// maxWaiting is the most that all keys together can have accepted.
const maxWaiting = 16 * auth.Active

// Job is an accepted request.
type Job struct {
	Key     auth.KeyID
	Allowed auth.KeySet // of the key, to judge whose sequence it may cut
	ID      auth.RequestID
	Steps   []auth.Step
	Now     bool // cut what runs, if allowed
	DryRun  bool // wait as if, but do not write
	Replied time.Time
	Source  netip.AddrPort // for the log, as is Log, which knows the key
	Log     *slog.Logger

	cut bool // guarded by the runner's lock
}

// logger is made when it is needed: before that, the first step is waited for.
func (j *Job) logger() *slog.Logger {
	return j.Log.With("src", j.Source.String(), "request", hex.EncodeToString(j.ID[:]))
}

// Runner owns the trigger.
type Runner struct {
	trigger  int // file descriptor
	path     string
	kmsg     *Kmsg // nil: s and u wait for their whole bound
	finished func(auth.KeyID, auth.RequestID)

	mu      sync.Mutex
	waiting []*Job
	running *Job
	cut     context.CancelFunc // of running
	wake    chan struct{}
}

// TriggerFlags are those that the trigger is to be opened with.
const TriggerFlags = unix.O_WRONLY | unix.O_APPEND

// New makes a runner of a trigger that is open. The path is for messages. The
// kmsg may be nil. Finished is called when nothing more will be run for a job.
func New(trigger int, path string, kmsg *Kmsg, finished func(auth.KeyID, auth.RequestID)) *Runner {
	return &Runner{trigger: trigger, path: path, kmsg: kmsg, finished: finished, wake: make(chan struct{}, 1)}
}

// Submit hands over a job and returns without waiting for it. A job with Now
// goes before those without.
func (r *Runner) Submit(j *Job) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.waiting) >= maxWaiting {
		return ErrFull
	}
	at := len(r.waiting)
	if j.Now {
		at = 0
		for at < len(r.waiting) && r.waiting[at].Now {
			at++
		}
	}
	r.waiting = slices.Insert(r.waiting, at, j)
	select {
	case r.wake <- struct{}{}:
	default:
	}
	return nil
}

// Cut drops what an accepted request with the flag now may drop: what its own
// key has running and waiting, and what is left of the running sequence if its
// key is allowed every SysRq key in it. Once it
// has returned, at most the one step begins of them that was about to.
func (r *Runner) Cut(by *Job) {
	r.mu.Lock()
	defer r.mu.Unlock()
	kept := r.waiting[:0]
	for _, w := range r.waiting {
		if w.Key != by.Key {
			kept = append(kept, w)
			continue
		}
		w.logger().Warn("sequence cut before it began", "by_request", hex.EncodeToString(by.ID[:]))
	}
	r.waiting = kept
	if r.running != nil && (r.running.Key == by.Key || by.Allowed.HasAll(r.running.Steps)) {
		r.running.cut = true
		r.cut()
	}
}

// Idle reports whether nothing runs or waits.
func (r *Runner) Idle() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.running == nil && len(r.waiting) == 0
}

// Run runs jobs until the context ends; what runs or waits then is brought
// to its end, so that an order to stop the daemon does not stop a reboot.
func (r *Runner) Run(ctx context.Context) error {
	for {
		j, jctx, done := r.next()
		if j == nil {
			select {
			case <-r.wake:
				continue
			case <-ctx.Done():
				if r.Idle() {
					return nil
				}
				continue
			}
		}
		r.sequence(jctx, j)
		done()
	}
}

func (r *Runner) next() (*Job, context.Context, func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.waiting) == 0 {
		return nil, nil, nil
	}
	j := r.waiting[0]
	r.waiting = r.waiting[1:]
	ctx, cancel := context.WithCancel(context.Background())
	r.running, r.cut = j, cancel
	return j, ctx, func() {
		cancel()
		r.mu.Lock()
		r.running, r.cut = nil, nil
		r.mu.Unlock()
		r.finished(j.Key, j.ID)
	}
}

// sequence runs the steps of a job until it is cut.
func (r *Runner) sequence(ctx context.Context, j *Job) {
	start := time.Now()
	for i, st := range j.Steps {
		if st.EndsMachine() {
			sleep(ctx, auth.Grace-time.Since(j.Replied))
		}
		switch err := r.step(ctx, j, i); {
		case err == errCut:
			j.logger().Warn("sequence cut", "steps_run", i, "steps_not_run", auth.FormatSteps(j.Steps[i:]))
			return
		case err != nil:
			j.logger().Error("sequence stopped", "steps_run", i, "steps_not_run", auth.FormatSteps(j.Steps[i:]),
				"trigger", r.path, "err", err)
			return
		}
	}
	j.logger().Info("sequence finished", "steps", auth.FormatSteps(j.Steps), "dry_run", j.DryRun, "took", time.Since(start))
}

var errCut = errors.New("cut")

// step runs one step and waits for what must be waited for after it. It
// returns errCut if the job was cut before, or why the step could not be given
// to the kernel.
func (r *Runner) step(ctx context.Context, j *Job, i int) error {
	st := j.Steps[i]
	confirmable := st.Bounded() && r.kmsg != nil && !j.DryRun
	var kmsgErr error
	if confirmable {
		kmsgErr = r.kmsg.skip()
		confirmable = kmsgErr == nil
	}
	if !r.current(j) {
		return errCut
	}
	start := time.Now()
	if !j.DryRun {
		if _, err := unix.Write(r.trigger, []byte{st.Key}); err != nil {
			return err
		}
	}
	took := time.Since(start)
	log := j.logger().With("step", string(st.Key), "number", i+1)
	if kmsgErr != nil {
		log.Warn("kernel log cannot be read", "err", kmsgErr)
	}
	switch {
	case j.DryRun:
		log.Info("step left out", "reason", "dry_run")
		if !st.Bounded() {
			sleep(ctx, st.Wait())
		}
	case confirmable:
		wctx, cancel := context.WithTimeout(ctx, st.Wait())
		defer cancel()
		done, err := r.kmsg.await(wctx, completions[st.Key])
		if err != nil {
			log.Warn("kernel log cannot be read", "err", err)
			<-wctx.Done()
		}
		if done {
			log.Info("step completed", "confirmed", true, "took", time.Since(start))
		} else {
			log.Warn("step not confirmed", "confirmed", false, "waited", time.Since(start))
		}
	default:
		log.Info("step run", "took", took)
		sleep(ctx, st.Wait())
	}
	return nil
}

// current reports whether a job runs and has not been cut. It is asked right
// before a step is given to the kernel: what takes long is the kernel's work on
// it, during which a cut comes too late anyhow.
func (r *Runner) current(j *Job) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.running == j && !j.cut
}

// sleep waits until the time is over or the context ends.
func sleep(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
