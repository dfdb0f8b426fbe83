// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"netsysrq/auth"
)

const (
	port        = auth.Port
	queue       = 9    // and the next one
	latencyPort = 4009 // of the reference, for lat
	latencyQ    = queue + 10
	settle      = auth.Window + time.Second // until a daemon takes one-packet requests
)

// allowed are the SysRq keys of the requests: those that nothing waits for.
const allowed = "0123456789adfghjklmnpqrtvwxyz"

// daemon is netsysrqd as it is shipped, in the namespace of the host.
type daemon struct {
	key     auth.HostKey
	cmd     *exec.Cmd
	exited  chan error
	started time.Time
	log     string // file
	trigger int    // reading end of the FIFO
}

// startDaemon configures and starts the daemon, with its real rules. The
// reference gets the same rules.
func startDaemon(ctx context.Context, b *bench, dir string) (d *daemon, err error) {
	d = &daemon{log: filepath.Join(dir, "log"), trigger: -1, exited: make(chan error, 1)}
	configuration, err := d.configure(ctx, b, dir)
	if err != nil {
		return nil, err
	}
	for _, ns := range []string{b.lab.host, b.lab.reference} {
		if _, err := output(b.lab.command(ctx, ns, b.responder, "rules", "apply", "--config", configuration)); err != nil {
			return nil, err
		}
	}
	log, err := os.Create(d.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	d.cmd = b.lab.command(ctx, b.lab.host, self, synchronisedChild, "0", b.responder, "run", "--config", configuration)
	d.cmd.Env = append(os.Environ(), "GODEBUG=gctrace=1")
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.Cancel = func() error { return d.cmd.Process.Signal(syscall.SIGTERM) }
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	d.started = time.Now()
	go func() { d.exited <- d.cmd.Wait() }()
	defer func() {
		if err != nil {
			d.stop()
		}
	}()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		text, err := os.ReadFile(d.log)
		if err != nil {
			return nil, err
		}
		if bytes.Contains(text, []byte(`"msg":"ready"`)) {
			return d, nil
		}
		select {
		case err := <-d.exited:
			d.exited <- err
			return nil, fmt.Errorf("the daemon did not start: %w: %s", err, text)
		default:
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("the daemon is not ready: %s", text)
		}
	}
}

// configure writes what the daemon reads and returns the configuration's path.
func (d *daemon) configure(ctx context.Context, b *bench, dir string) (string, error) {
	path := func(name string) string { return filepath.Join(dir, name) }
	text := fmt.Sprintf(`port = %d
queue = %d
keys_dir = %q
machine_id = %q
user = "nobody"
trigger = %q
kmsg = %q
[log]
format = "json"
`, port, queue, path("keys"), path("machine-id"), path("trigger"), path("kmsg"))
	master := auth.NewMaster()
	var err error
	if d.key, err = master.HostKey("bench.example"); err != nil {
		return "", err
	}
	set, err := auth.ParseKeySet(allowed)
	if err != nil {
		return "", err
	}
	line := (&auth.Enrolment{Operator: "bench", Host: "bench.example", Allow: set, Key: d.key}).Line()
	for name, content := range map[string]string{
		"netsysrqd.toml": text, "machine-id": "0123456789abcdef0123456789abcdef\n", "kmsg": "", "enrolment": line + "\n",
	} {
		if err := os.WriteFile(path(name), []byte(content), 0o600); err != nil {
			return "", err
		}
	}
	if err := os.Mkdir(path("keys"), 0o750); err != nil {
		return "", err
	}
	if err := unix.Mkfifo(path("trigger"), 0o600); err != nil {
		return "", err
	}
	// The daemon can open the FIFO only while somebody reads it.
	if d.trigger, err = unix.Open(path("trigger"), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err != nil {
		return "", err
	}
	_, err = output(exec.CommandContext(ctx, b.responder, "keys", "add", "--config", path("netsysrqd.toml"),
		"--file", path("enrolment"), "--allow", allowed))
	return path("netsysrqd.toml"), err
}

// realtime gives the daemon's threads SCHED_FIFO. A thread that took another
// policy than the ordinary one did so of its own will and keeps it.
func (d *daemon) realtime(priority int) error {
	if priority == 0 {
		return nil
	}
	tasks := fmt.Sprintf("/proc/%d/task", d.pid())
	entries, err := os.ReadDir(tasks)
	if err != nil {
		return err
	}
	for _, e := range entries {
		tid, err := strconv.Atoi(e.Name())
		if err != nil {
			return err
		}
		attr, err := unix.SchedGetAttr(tid, 0)
		if err != nil {
			return err
		}
		if attr.Policy != unix.SCHED_NORMAL {
			continue
		}
		if err := unix.SchedSetAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: uint32(priority)}, 0); err != nil {
			return fmt.Errorf("give the daemon real-time priority: %w", err)
		}
	}
	return nil
}

// pid is the daemon's process id.
func (d *daemon) pid() int { return d.cmd.Process.Pid }

// stop ends the daemon and waits for it.
func (d *daemon) stop() error {
	if d.trigger >= 0 {
		defer unix.Close(d.trigger)
	}
	d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-d.exited:
		if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("the daemon ended: %w", err)
		}
		return nil
	case <-time.After(5 * time.Second):
		d.cmd.Process.Kill()
		return errors.New("the daemon did not stop and was killed")
	}
}

// settled waits until the daemon is old enough to take one-packet requests.
func (d *daemon) settled(ctx context.Context) error { return sleep(ctx, settle-time.Since(d.started)) }

// collections counts the garbage collections so far.
func (d *daemon) collections() (n int, err error) {
	text, err := os.ReadFile(d.log)
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "gc ") {
			n++
		}
	}
	return n, err
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
