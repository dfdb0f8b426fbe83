// SPDX-License-Identifier: GPL-2.0-only

//go:build integration

package e2e_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/netlab"
)

const (
	hostName  = "web01.example.org"
	allowAll  = "0123456789abcdefghijklmnopqrstuvwxyz"
	patience  = 10 * time.Second // for what should take milliseconds
	nobody    = 65534
	otherBoot = "00112233-4455-4677-8899-aabbccddeeff\n"
)

// family is a version of IP and the addresses of the lab in it.
type family struct{ name, client, server, flag, iptables string }

var (
	v4       = family{"IPv4", netlab.ClientIPv4, netlab.ServerIPv4, "-4", "iptables"}
	v6       = family{"IPv6", netlab.ClientIPv6, netlab.ServerIPv6, "-6", "ip6tables"}
	families = []family{v4, v6}
)

// host is one lab with one daemon, and the operator alice with her key.
type host struct {
	*testing.T
	lab *netlab.Lab
	bin binaries
	dir string

	// Files in dir.
	config, trigger, kmsg, log, clock, boot, keys, master string

	settings map[string]string // of the configuration, beyond the usual
	alice    *auth.Sealer
	owner    auth.Master
	daemon   *exec.Cmd
	exited   chan struct{} // closed when daemon has ended
	began    int           // where in the log this daemon begins

	ahead    time.Duration // what setClock set
	stderr   *os.File      // where the log goes instead of the file log, if set
	fakeBoot bool          // the daemon reads its boot id from the file boot
	niced    bool          // the daemon is started with less than an ordinary priority

	mu      sync.Mutex
	confirm bool // the kernel confirms s and u
	acts    []act
}

// act is a key that the kernel got.
type act struct {
	key byte
	at  time.Time
}

// newHost makes a lab with rules in place and alice enrolled for every SysRq
// key. The daemon does not run yet.
func newHost(t *testing.T, bin binaries) *host {
	t.Helper()
	lab := netlab.New(t)
	if _, err := exec.LookPath("iptables"); err != nil {
		t.Skip("the firewall rules need iptables")
	}
	// t.TempDir is closed to the daemon's user.
	dir, err := os.MkdirTemp("", "netsysrq-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := &host{T: t, lab: lab, bin: bin, dir: dir, settings: map[string]string{}, confirm: true}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]*string{"config": &h.config, "trigger": &h.trigger, "kmsg": &h.kmsg, "log": &h.log,
		"clock": &h.clock, "boot": &h.boot, "keys": &h.keys, "master": &h.master} {
		*path = filepath.Join(dir, name)
	}
	h.write(h.trigger, "", 0o200)
	h.write(h.kmsg, "6,0,0,-;Linux version 6.1\n", 0o600)
	h.write(filepath.Join(dir, "machine-id"), "0123456789abcdef0123456789abcdef\n", 0o644)
	h.write(h.boot, otherBoot, 0o644)
	h.setClock(0, true)
	h.configure("", "")

	h.must(h.run(lab.Client, bin.sender, "keygen", "--key", h.master, "--operator", "alice"))
	h.owner = h.readMaster(h.master)
	line := h.must(h.run(lab.Client, bin.sender, "enroll", hostName, "--key", h.master, "--allow", allowAll)).stdout
	h.enrol("alice", line)
	h.alice = h.sealer(hostName)
	h.must(h.run(lab.Server, bin.responder, "--config", h.config, "rules", "apply"))

	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		h.playKernel(stop)
	}()
	t.Cleanup(func() {
		close(stop)
		<-done
		h.kill()
		if t.Failed() {
			b, _ := os.ReadFile(h.log)
			t.Logf("trigger: %q, log:\n%s", h.triggered(), tail(b, 6000))
		}
	})
	return h
}

func tail(b []byte, n int) []byte { return b[max(0, len(b)-n):] }

func (h *host) write(path, text string, mode os.FileMode) {
	h.Helper()
	// Readers never see half of it.
	tmp := path + ".new"
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		h.Fatal(err)
	}
	if err := os.Chmod(tmp, mode); err != nil {
		h.Fatal(err)
	}
	if err := os.Rename(tmp, path); err != nil {
		h.Fatal(err)
	}
}

// configure writes the configuration, with one setting changed.
func (h *host) configure(setting, value string) {
	h.Helper()
	if setting != "" {
		h.settings[setting] = value
	}
	text := fmt.Sprintf("keys_dir = %q\nmachine_id = %q\nuser = \"%d\"\ntrigger = %q\nkmsg = %q\n",
		h.keys, filepath.Join(h.dir, "machine-id"), nobody, h.trigger, h.kmsg)
	for k, v := range h.settings {
		text += k + " = " + v + "\n"
	}
	h.write(h.config, text+"[log]\nformat = \"json\"\n", 0o644)
}

// setClock sets the host's clock, if its binary is clocked, to so much ahead.
func (h *host) setClock(ahead time.Duration, synchronised bool) {
	h.Helper()
	h.ahead = ahead
	writeClock(h, h.clock, ahead, synchronised)
}

func writeClock(h *host, path string, ahead time.Duration, synchronised bool) {
	h.Helper()
	yes := 0
	if synchronised {
		yes = 1
	}
	h.write(path, fmt.Sprintf("%d %d\n", ahead, yes), 0o644)
}

// readMaster reads what keygen wrote.
func (h *host) readMaster(path string) (m auth.Master) {
	h.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		h.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "netsysrq-master-1" {
			key, err := base64.RawStdEncoding.DecodeString(f[2])
			if err != nil || len(key) != len(m) {
				h.Fatalf("master key of %d bytes: %v", len(key), err)
			}
			return auth.Master(key)
		}
	}
	h.Fatalf("no master key in %s", path)
	return m
}

// sealer returns alice's key for a host of that name.
func (h *host) sealer(name string) *auth.Sealer {
	h.Helper()
	k, err := h.owner.HostKey(name)
	if err != nil {
		h.Fatal(err)
	}
	return auth.NewSealer(&k)
}

// enrol installs a key. The daemon learns of it at its next start or reload.
func (h *host) enrol(operator, line string) {
	h.Helper()
	h.must(h.runWith(strings.NewReader(line), nil, h.lab.Server, h.bin.responder, "--config", h.config, "keys", "add", operator))
}

// masterOf is the file of the master key of an operator that enrolNew made.
func (h *host) masterOf(operator string) string { return filepath.Join(h.dir, operator+".master") }

// enrolNew makes an operator with the given allowed set.
func (h *host) enrolNew(operator, allow string) (*auth.Sealer, auth.KeyID) {
	h.Helper()
	m := auth.NewMaster()
	h.write(h.masterOf(operator), fmt.Sprintf("netsysrq-master-1 %s %s\n", operator, base64.RawStdEncoding.EncodeToString(m[:])), 0o600)
	k, err := m.HostKey(hostName)
	if err != nil {
		h.Fatal(err)
	}
	set, err := auth.ParseKeySet(allow)
	if err != nil {
		h.Fatal(err)
	}
	h.enrol(operator, (&auth.Enrolment{Operator: operator, Host: hostName, Allow: set, Key: k}).Line())
	return auth.NewSealer(&k), k.ID
}

// result is how a command ended.
type result struct {
	args           []string
	code           int
	stdout, stderr string
	err            error
}

func (r *result) String() string {
	return fmt.Sprintf("%s: exit code %d %v\nstdout: %s\nstderr: %s", strings.Join(r.args, " "), r.code, r.err, r.stdout, r.stderr)
}

func (h *host) must(r *result) *result {
	h.Helper()
	if r.code != 0 {
		h.Fatal(r)
	}
	return r
}

func (h *host) run(ns, name string, args ...string) *result {
	return h.runWith(nil, nil, ns, name, args...)
}

func (h *host) runWith(stdin *strings.Reader, env []string, ns, name string, args ...string) *result {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := h.lab.Command(ctx, ns, name, args...)
	var stdout, stderr bytes.Buffer
	if stdin != nil {
		cmd.Stdin = stdin
	}
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// Whatever clock is in force for the host is for a command too, unless
	// env says otherwise.
	cmd.Env = append(append(os.Environ(), "NETSYSRQ_TEST_CLOCK="+h.clock), env...)
	err := cmd.Run()
	r := &result{args: append([]string{filepath.Base(name)}, args...), stdout: stdout.String(), stderr: stderr.String()}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		r.code = exit.ExitCode()
	case err != nil:
		r.code, r.err = -1, err
	}
	return r
}

// start starts the daemon and waits until it is ready.
func (h *host) start() {
	h.Helper()
	if err := h.tryStart(); err != nil {
		h.Fatal(err)
	}
}

func (h *host) tryStart() error {
	log, err := os.OpenFile(h.log, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	info, err := log.Stat()
	if err != nil {
		return err
	}
	h.began = int(info.Size())
	// ip netns exec has a mount namespace of its own, so that the bind mount
	// is seen by the daemon alone.
	args := []string{h.bin.responder, "--config", h.config, "run"}
	if h.fakeBoot {
		args = append([]string{"sh", "-c", `mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"`, h.boot}, args...)
	}
	if h.niced {
		args = append([]string{"nice", "-n", "3"}, args...)
	}
	cmd := exec.Command("ip", append([]string{"netns", "exec", h.lab.Server}, args...)...)
	cmd.Stderr = log
	if h.stderr != nil {
		cmd.Stderr = h.stderr
	}
	cmd.Env = append(os.Environ(), "NETSYSRQ_TEST_CLOCK="+h.clock)
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() {
		cmd.Wait()
		close(exited)
	}()
	h.daemon, h.exited = cmd, exited
	if h.stderr != nil {
		return nil // who asks it will see when it is ready
	}
	for deadline := time.Now().Add(2 * patience); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		b, err := os.ReadFile(h.log)
		if err != nil {
			return err
		}
		if bytes.Contains(b[min(h.began, len(b)):], []byte(`"msg":"ready"`)) {
			return nil
		}
		select {
		case <-exited:
			return fmt.Errorf("daemon ended: %v", cmd.ProcessState)
		default:
		}
	}
	return errors.New("daemon is not ready")
}

func (h *host) signal(s syscall.Signal) {
	h.Helper()
	if err := h.daemon.Process.Signal(s); err != nil {
		h.Fatalf("signal daemon: %v", err)
	}
}

// kill ends the daemon as a crash would, if it runs.
func (h *host) kill() {
	if h.daemon == nil {
		return
	}
	h.daemon.Process.Kill()
	<-h.exited
	h.daemon = nil
}

// stop ends the daemon in the ordinary way.
func (h *host) stop() {
	h.Helper()
	h.signal(syscall.SIGTERM)
	select {
	case <-h.exited:
	case <-time.After(2 * patience):
		h.Fatal("daemon does not stop")
	}
	if !h.daemon.ProcessState.Success() {
		h.Errorf("daemon ended with %v", h.daemon.ProcessState)
	}
	h.daemon = nil
}

// alive fails the test if the daemon has ended.
func (h *host) alive() {
	h.Helper()
	select {
	case <-h.exited:
		h.Fatalf("daemon ended: %v", h.daemon.ProcessState)
	default:
	}
}

// reload sends SIGHUP and waits until the daemon has logged message.
func (h *host) reload(message string) {
	h.Helper()
	before := len(h.lines(message))
	h.signal(syscall.SIGHUP)
	h.wait("log line "+strconv.Quote(message), func() bool { return len(h.lines(message)) > before })
}

// wait waits until something holds.
func (h *host) wait(what string, holds func() bool) {
	h.Helper()
	for deadline := time.Now().Add(2 * patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			h.Fatalf("not in time: %s", what)
		}
	}
}

// triggered is what the daemons have written to the trigger.
func (h *host) triggered() string {
	b, err := os.ReadFile(h.trigger)
	if err != nil {
		h.Error(err)
	}
	return string(b)
}

// wantTriggered waits until the trigger holds exactly this.
func (h *host) wantTriggered(want string) {
	h.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		got := h.triggered()
		if got == want {
			return
		}
		if !strings.HasPrefix(want, got) || time.Now().After(deadline) {
			h.Fatalf("trigger holds %q, want %q", got, want)
		}
	}
}

// playKernel notes when keys arrive and, if it is to, says that s and u are done.
func (h *host) playKernel(stop chan struct{}) {
	seen := 0
	for {
		select {
		case <-stop:
			return
		case <-time.After(2 * time.Millisecond):
		}
		got := h.triggered()
		h.mu.Lock()
		for ; seen < len(got); seen++ {
			h.acts = append(h.acts, act{got[seen], time.Now()})
			if text := map[byte]string{'s': "Emergency Sync complete", 'u': "Emergency Remount complete"}[got[seen]]; text != "" && h.confirm {
				h.appendKmsg("6,1,1,-;" + text + "\n")
			}
		}
		h.mu.Unlock()
	}
}

func (h *host) appendKmsg(text string) {
	f, err := os.OpenFile(h.kmsg, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		h.Error(err)
		return
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		h.Error(err)
	}
}

func (h *host) setConfirm(yes bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.confirm = yes
}

// actsSince returns the keys that came after the first n, with their times.
func (h *host) actsSince(n, want int) []act {
	h.Helper()
	var acts []act
	h.wait(fmt.Sprintf("%d keys", n+want), func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		acts = append([]act(nil), h.acts[min(n, len(h.acts)):]...)
		return len(acts) >= want
	})
	return acts
}

// line is one log record.
type line map[string]any

func (l line) text(key string) string {
	s, _ := l[key].(string)
	return s
}

// allLines returns the log since the daemon that runs, or ran last, was started.
func (h *host) allLines() (lines []line) {
	h.Helper()
	b, err := os.ReadFile(h.log)
	if err != nil {
		h.Fatal(err)
	}
	for raw := range bytes.Lines(b[min(h.began, len(b)):]) {
		var l line
		if bytes.HasSuffix(raw, []byte("\n")) {
			if err := json.Unmarshal(raw, &l); err != nil {
				h.Fatalf("log line %q: %v", raw, err)
			}
			lines = append(lines, l)
		}
	}
	return lines
}

func (h *host) lines(message string) (lines []line) {
	h.Helper()
	for _, l := range h.allLines() {
		if l.text("msg") == message {
			lines = append(lines, l)
		}
	}
	return lines
}

// wantLines waits for so many lines with a message. The daemon writes its log
// when it has nothing better to do.
func (h *host) wantLines(message string, n int) {
	h.Helper()
	h.wait(fmt.Sprintf("%d lines %q", n, message), func() bool { return len(h.lines(message)) >= n })
	if got := len(h.lines(message)); got != n {
		h.Errorf("%d lines %q, want %d", got, message, n)
	}
}

// requestLines are the lines that one authentic request each has got.
func (h *host) requestLines() (lines []line) {
	h.Helper()
	for _, l := range h.allLines() {
		if strings.HasPrefix(l.text("msg"), "request ") {
			lines = append(lines, l)
		}
	}
	return lines
}

// counted sums up the summaries, by reason; "packets" is the total of what was
// ignored. It is complete once the daemon has stopped.
func (h *host) counted() map[string]uint64 {
	h.Helper()
	sum := map[string]uint64{}
	for _, l := range h.lines("packets ignored") {
		for k, v := range l {
			if n, ok := v.(float64); ok {
				sum[k] += uint64(n)
			}
		}
	}
	for _, l := range h.lines("status requests answered without a line of their own") {
		n, _ := l["requests"].(float64)
		sum["answered"] += uint64(n)
	}
	return sum
}

// wantCounted compares the sums with what is wanted, exactly.
func (h *host) wantCounted(want map[string]uint64) {
	h.Helper()
	got := h.counted()
	var total uint64
	for reason, n := range want {
		if reason != "answered" {
			total += n
		}
		if got[reason] != n {
			h.Errorf("counted %d packets as %s, want %d", got[reason], reason, n)
		}
	}
	if got["packets"] != total {
		h.Errorf("counted %d packets, want %d: %v", got["packets"], total, got)
	}
}

// settled waits until every packet in the host's queues has its verdict. Those
// that were answered have been so before that.
func (h *host) settled() {
	h.Helper()
	h.wait("empty queues", func() bool {
		out, err := h.lab.Run(h.lab.Server, "cat", "/proc/net/netfilter/nfnetlink_queue")
		if err != nil {
			h.Fatal(err)
		}
		for l := range strings.Lines(out) {
			if f := strings.Fields(l); len(f) > 2 && f[2] != "0" {
				return false
			}
		}
		return true
	})
}

// ruleCounters are packet counters of the firewall, both families together.
type ruleCounters struct{ arrived, queued uint64 }

func (h *host) ruleCounters() (c ruleCounters) {
	h.Helper()
	for _, f := range families {
		out, err := h.lab.Run(h.lab.Server, f.iptables, "-t", "raw", "-vnxL")
		if err != nil {
			h.Fatal(err)
		}
		for l := range strings.Lines(out) {
			w := strings.Fields(l)
			if len(w) < 3 {
				continue
			}
			n, err := strconv.ParseUint(w[0], 10, 64)
			if err != nil {
				continue
			}
			switch w[2] {
			case "netsysrq":
				c.arrived += n
			case "NFQUEUE":
				c.queued += n
			}
		}
	}
	return c
}

// firewall changes the rules of a namespace.
func (h *host) firewall(ns string, f family, args string) {
	h.Helper()
	if _, err := h.lab.Run(ns, f.iptables, strings.Fields("-w 5 "+args)...); err != nil {
		h.Fatal(err)
	}
}

// queueEverything replaces the daemon's rules by one that hands over every UDP
// packet, whatever it looks like.
func (h *host) queueEverything() {
	h.Helper()
	h.must(h.run(h.lab.Server, h.bin.responder, "--config", h.config, "rules", "remove"))
	for _, f := range families {
		h.firewall(h.lab.Server, f, "-t raw -A PREROUTING -p udp -j NFQUEUE --queue-num 9")
	}
}
