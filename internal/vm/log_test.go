// SPDX-License-Identifier: GPL-2.0-only

//go:build vm

package vm_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/exchange"
	"netsysrq/internal/vm"
	"netsysrq/internal/vm/agent"
)

// logHost is a host whose kernel log can be read: by alice, who may also have
// the kernel print things, while bob may only do the latter.
type logHost struct {
	*testing.T
	*vm.Machine
	master     auth.Master // alice's
	alice, bob *auth.Sealer
}

const logSysrqKeys = "lmpqtwz"

// newLogHost boots one, with the module or without.
func newLogHost(t *testing.T, module bool) *logHost {
	t.Helper()
	l := vm.NewKernel(t, vm.TestKernel())
	h := &logHost{T: t, master: auth.NewMaster()}
	tree := vm.NewTree()
	tree.Copy("/usr/sbin/netsysrqd", build(t, "netsysrq/cmd/responder"))
	tree.Write("/etc/netsysrq/netsysrqd.toml", 0o644, []byte(config))
	tree.Write("/etc/machine-id", 0o644, []byte("0123456789abcdef0123456789abcdef\n"))
	opt := vm.Options{Kernel: l, Tree: tree, Append: "printk.devkmsg=on log_buf_len=1M"}
	if l.Version == vm.DebugVersion {
		opt.Memory = 1024
	}
	setup := func(command ...string) { opt.Setup = append(opt.Setup, command) }
	for _, o := range []struct {
		name, allowed string
		sealer        **auth.Sealer
		master        auth.Master
	}{{"alice", logSysrqKeys + "L", &h.alice, h.master}, {"bob", logSysrqKeys, &h.bob, auth.NewMaster()}} {
		key, err := o.master.HostKey(hostName)
		if err != nil {
			t.Fatal(err)
		}
		allow, err := auth.ParseKeySet(o.allowed)
		if err != nil {
			t.Fatal(err)
		}
		e := auth.Enrolment{Operator: o.name, Host: hostName, Allow: allow, Key: key}
		tree.Write("/run/"+o.name, 0o600, []byte(e.Line()+"\n"))
		setup("netsysrqd", "keys", "add", "--file", "/run/"+o.name)
		*o.sealer = auth.NewSealer(&key)
	}
	vm.Check(t, tree.Iptables())
	if module {
		so, err := vm.BuildExtension(t.Context(), "../../kmod-fallback")
		vm.Check(t, err)
		ko, err := vm.BuildModule(t.Context(), l, "../../kmod-fallback")
		vm.Check(t, err)
		tree.Copy(vm.ExtensionPath, so)
		opt.Modules = []string{ko}
		opt.Disk = filepath.Join(t.TempDir(), "disk")
		if err := vm.MakeDisk(t.Context(), opt.Disk, 64); err != nil {
			t.Fatal(err)
		}
		setup("netsysrqd", "load-keys")
		setup("/bin/busybox", "sysctl", "-w", "kernel.sysrq=1")
	}
	setup("netsysrqd", "rules", "apply")
	h.Machine = vm.New(t, opt)
	if l.Version == vm.DebugVersion {
		t.Cleanup(func() {
			for _, line := range h.Console.Since(0) {
				if complaints.MatchString(line.Text) {
					t.Errorf("the kernel complains: %s", line.Text)
				}
			}
		})
	}
	return h
}

func (h *logHost) with(t *testing.T) *logHost {
	g := *h
	g.T = t
	return &g
}

func (h *logHost) asked(s *auth.Sealer, to netip.AddrPort) exchange.Host {
	return exchange.Host{Name: hostName, Addrs: []netip.AddrPort{to}, Sealer: s}
}

// fill logs more than so many bytes, as any process with the right may. The
// lines are for debugging, so that the console does not print them.
func (h *logHost) fill(size int) {
	h.Helper()
	script := fmt.Sprintf(`i=0; while [ $i -lt %d ]; do echo "<7>filler $i: the quick brown fox jumps over the lazy dog, and so on" > /dev/kmsg; i=$((i+1)); done`, size/80)
	if _, err := h.Machine.Run(vm.Within(h, 100*time.Second), "/bin/busybox", "sh", "-c", script); err != nil {
		h.Fatal(err)
	}
}

// wire is the way to the guest, which loses, counts and keeps what passes.
type wire struct {
	dial     exchange.Dial
	loss     float64
	mu       sync.Mutex
	rand     *rand.Rand
	longest  int
	pieces   int
	requests [][]byte
}

func (w *wire) lost() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rand.Float64() < w.loss
}

func (h *logHost) wire(loss float64) *wire {
	return &wire{dial: h.Net.Dial, loss: loss, rand: rand.New(rand.NewPCG(1, 2))}
}

func (w *wire) Dial(ctx context.Context, to netip.AddrPort) (io.ReadWriteCloser, error) {
	c, err := w.dial(ctx, to)
	return &lossy{c, w}, err
}

type lossy struct {
	io.ReadWriteCloser
	wire *wire
}

func (l *lossy) Write(b []byte) (int, error) {
	l.wire.mu.Lock()
	l.wire.requests = append(l.wire.requests, bytes.Clone(b))
	l.wire.mu.Unlock()
	if l.wire.lost() {
		return len(b), nil
	}
	return l.ReadWriteCloser.Write(b)
}

func (l *lossy) Read(b []byte) (int, error) {
	for {
		n, err := l.ReadWriteCloser.Read(b)
		if err != nil {
			return n, err
		}
		l.wire.mu.Lock()
		l.wire.longest = max(l.wire.longest, n)
		if auth.IsPiece(b[:n]) {
			l.wire.pieces++
		}
		l.wire.mu.Unlock()
		if !l.wire.lost() {
			return n, nil
		}
	}
}

// read reads all of the log, and wants nothing of it to be missing.
func (h *logHost) read(w *wire, to netip.AddrPort) (text string, took time.Duration) {
	h.Helper()
	start := time.Now()
	l, err := exchange.NewLog(h.Context(), h.asked(h.alice, to), exchange.Options{Dial: w.Dial, Timeout: 20 * time.Second})
	if err != nil {
		h.Fatal(err)
	}
	defer l.Close()
	var b strings.Builder
	if _, err = l.Tail(h.Context(), 0, func(r exchange.Records) {
		if r.Lost || r.Cut {
			h.Errorf("records %d to %d: %+v", r.First, r.Next, r)
		}
		b.Write(r.Text)
	}); err != nil {
		h.Fatalf("%v: %+v", err, l.Outcome())
	}
	if w.longest > auth.PieceSize {
		h.Errorf("a packet of %d bytes", w.longest)
	}
	return b.String(), time.Since(start)
}

// dmesg is the log as the guest's own kernel gives it to a process.
func (h *logHost) dmesg() string {
	h.Helper()
	out, err := h.Machine.Run(vm.Within(h, 20*time.Second), "/bin/busybox", "dmesg", "-r", "-s", "4000000")
	if err != nil {
		h.Fatal(err)
	}
	return out
}

// wantWhole compares what was read with what the guest says.
func (h *logHost) wantWhole(text string) {
	h.Helper()
	truth := h.dmesg()
	if !strings.HasPrefix(truth, text) || len(text) < 64<<10 || !strings.Contains(text, "Linux version") {
		i := 0
		for i < len(text) && i < len(truth) && text[i] == truth[i] {
			i++
		}
		h.Fatalf("read %d bytes, the guest has %d; they differ from byte %d on: %.120q, %.120q", len(text), len(truth), i, text[i:], truth[min(i, len(truth)):])
	}
}

// TestLog reads the kernel log of a machine whose userspace is stopped, with
// writers that are stuck in a frozen file system.
func TestLog(t *testing.T) {
	h := newLogHost(t, true)
	h.fill(70 << 10)
	proof, err := h.Hang(t.Context(), vm.DiskFrozen)
	if err != nil {
		t.Fatal(err)
	}
	stopped, err := h.Freeze(vm.Within(t, 20*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("hung: %s; %d processes stopped", proof, stopped)
	to := vm.GuestUDP4(auth.Port)

	t.Run("run w", func(t *testing.T) { h.with(t).dump(to) })
	for _, a := range []struct {
		name string
		to   netip.AddrPort
	}{{"IPv4", to}, {"IPv6", vm.GuestUDP6(auth.Port)}} {
		t.Run("whole/"+a.name, func(t *testing.T) {
			h := h.with(t)
			w := h.wire(0)
			text, took := h.read(w, a.to)
			h.wantWhole(text)
			h.Logf("%d bytes in %v, %d packets sent, %d pieces, the longest packet %d bytes", len(text), took.Round(time.Millisecond), len(w.requests), w.pieces, w.longest)
		})
	}
	t.Run("lossy", func(t *testing.T) {
		h := h.with(t)
		w := h.wire(0.2)
		text, took := h.read(w, to)
		h.wantWhole(text)
		h.Logf("%d bytes through 20 %% loss each way in %v, %d packets sent, %d pieces", len(text), took.Round(time.Millisecond), len(w.requests), w.pieces)
	})
	t.Run("replay", func(t *testing.T) { h.with(t).replays(to) })
	t.Run("not allowed", func(t *testing.T) { h.with(t).refused(to) })
	t.Run("events", func(t *testing.T) { h.with(t).events() })
	t.Run("command", func(t *testing.T) { h.with(t).command(to) })
}

// TestLogOfHogs reads the log while real-time hogs leave no CPU to anyone.
func TestLogOfHogs(t *testing.T) {
	h := newLogHost(t, true)
	h.fill(70 << 10)
	truth := h.dmesg()
	proof, err := h.Hang(t.Context(), vm.FIFOHogs)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("hung: %s", proof)
	w := h.wire(0.2)
	text, took := h.read(w, vm.GuestUDP4(auth.Port))
	if !strings.HasPrefix(text, truth) {
		t.Errorf("read %d bytes, before it hung there were %d", len(text), len(truth))
	}
	t.Logf("%d bytes through 20 %% loss each way in %v, %d packets sent, %d pieces", len(text), took.Round(time.Millisecond), len(w.requests), w.pieces)
}

// TestLogByDaemon is daemon-only mode: netsysrqd reads /dev/kmsg.
func TestLogByDaemon(t *testing.T) {
	h := newLogHost(t, false)
	h.fill(70 << 10)
	d := &host{t, h.Machine, h.alice}
	d.start()
	to := vm.GuestUDP4(auth.Port)
	for _, loss := range []float64{0, 0.2} {
		w := h.wire(loss)
		text, took := h.read(w, to)
		h.wantWhole(text)
		t.Logf("%d bytes through a loss of %v in %v, %d packets sent, %d pieces", len(text), loss, took.Round(time.Millisecond), len(w.requests), w.pieces)
	}
	h.replays(to)
	h.refused(to)
	steps, _ := auth.ParseSteps("w")
	var text strings.Builder
	out, err := exchange.RunLog(t.Context(), h.asked(h.alice, to), steps, exchange.Options{Dial: h.Net.Dial, Timeout: 20 * time.Second},
		func(r exchange.Records) { text.Write(r.Text) })
	if err != nil || out.Run.Kind != exchange.Accepted || out.Run.Reply.Executor != auth.Daemon || !out.Ended || !strings.Contains(text.String(), "sysrq: Show Blocked State") {
		t.Errorf("%v %+v\n%s", err, out, text.String())
	}
}

// dump has the kernel list its blocked tasks, and reads what it says.
func (h *logHost) dump(to netip.AddrPort) {
	w := h.wire(0)
	start := time.Now()
	steps, _ := auth.ParseSteps("w")
	var text strings.Builder
	d, err := exchange.RunLog(h.Context(), h.asked(h.alice, to), steps, exchange.Options{Dial: w.Dial, Timeout: 20 * time.Second},
		func(r exchange.Records) { text.Write(r.Text) })
	if err != nil || d.Run.Kind != exchange.Accepted || d.Run.Reply.Executor != auth.Kernel || !d.Ended {
		h.Fatalf("%v %+v", err, d)
	}
	blocked := agent.HogName("write")
	if out := text.String(); !strings.Contains(out, "sysrq: Show Blocked State") || !strings.Contains(out, "task:"+blocked) {
		h.Errorf("no %s is named:\n%s", blocked, out)
	} else {
		lines := strings.Split(out, "\n")
		h.Logf("%d lines in %v, such as\n%s", len(lines), time.Since(start).Round(time.Millisecond), strings.Join(lines[:min(len(lines), 12)], "\n"))
	}
}

// replays sends captured requests again: no recording brings pieces, and all of
// them together bring less than they are.
func (h *logHost) replays(to netip.AddrPort) {
	w := h.wire(0)
	h.read(w, to)
	conn, err := h.Net.Dial(h.Context(), to)
	if err != nil {
		h.Fatal(err)
	}
	var got, pieces, packets atomic.Int64
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b := make([]byte, 2048)
		for {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			got.Add(int64(n))
			packets.Add(1)
			if auth.IsPiece(b[:n]) {
				pieces.Add(1)
			}
		}
	}()
	sent := 0
	for range 20 {
		for _, r := range w.requests {
			if _, err := conn.Write(r); err != nil {
				h.Fatal(err)
			}
			sent += len(r)
		}
		time.Sleep(20 * time.Millisecond)
	}
	time.Sleep(time.Second)
	conn.Close()
	<-ended
	h.Logf("%d bytes in %d recorded requests brought %d bytes in %d packets", sent, sent/auth.PacketSize, got.Load(), packets.Load())
	if pieces.Load() > 0 || got.Load() > int64(sent) || packets.Load() == 0 {
		h.Errorf("%d pieces", pieces.Load())
	}
	// Meanwhile and after, who seals a request now is heard.
	text, _ := h.read(h.wire(0), to)
	h.wantWhole(text)
}

func (h *logHost) refused(to netip.AddrPort) {
	w := h.wire(0)
	l, err := exchange.NewLog(h.Context(), h.asked(h.bob, to), exchange.Options{Dial: w.Dial})
	if err != nil {
		h.Fatal(err)
	}
	defer l.Close()
	_, err = l.Bounds(h.Context())
	if o := l.Outcome(); !errors.Is(err, exchange.ErrLog) || o.Kind != exchange.Refused || o.Reply.Result != auth.RefPolicy || w.pieces > 0 {
		h.Errorf("%v %+v", err, o)
	}
}

// events wants the module to have said once that alice reads, however often she
// did, and that bob was refused; both for whoever looks into it later.
func (h *logHost) events() {
	out, err := h.Machine.Run(vm.Within(h, 10*time.Second), "netsysrqd", "status", "--events")
	if err != nil {
		h.Fatal(err)
	}
	read, refused := 0, 0
	for line := range strings.Lines(out) {
		switch {
		case strings.Contains(line, ": read by") && strings.Contains(line, "key "+h.alice.ID().String()):
			read++
		case strings.Contains(line, ": request by") && strings.Contains(line, "key "+h.bob.ID().String()) && strings.HasSuffix(line, "policy\n"):
			refused++
		}
	}
	if read != 1 || refused != 1 {
		h.Errorf("%d events of reading, %d of a refusal:\n%s", read, refused, out)
	}
}

// command is what the operator types, through a relay that loses every fifth packet.
func (h *logHost) command(to netip.AddrPort) {
	dir := h.TempDir()
	key := filepath.Join(dir, "master.key")
	line := fmt.Sprintf("netsysrq-master-1 alice %s\n", base64.RawStdEncoding.EncodeToString(h.master[:]))
	if err := os.WriteFile(key, []byte(line), 0o600); err != nil {
		h.Fatal(err)
	}
	port := h.relay(h.wire(0.2), to)
	netsysrq := build(h.T, "netsysrq/cmd/sender")
	run := func(args ...string) (stdout, stderr string) {
		h.Helper()
		args = append(args, "--key", key, "--address", "127.0.0.1", "--port", fmt.Sprint(port))
		cmd := exec.CommandContext(h.Context(), netsysrq, args...)
		var o, e strings.Builder
		cmd.Stdout, cmd.Stderr = &o, &e
		if err := cmd.Run(); err != nil {
			h.Fatalf("netsysrq %v: %v\n%s", args, err, e.String())
		}
		return o.String(), e.String()
	}
	out, _ := run("log", hostName, "--tail", "64K")
	if len(out) < 58<<10 || len(out) > 64<<10 || !strings.HasPrefix(out, "[") {
		h.Errorf("netsysrq log: %d bytes: %.200s", len(out), out)
	}
	out, said := run("run", hostName, "w")
	if !strings.Contains(out, "sysrq: Show Blocked State") || !strings.Contains(out, "task:"+agent.HogName("write")) {
		h.Errorf("netsysrq run w:\n%s%s", out, said)
	}
	h.Logf("netsysrq run %s w\n%s%s", hostName, out[:min(len(out), 1500)], said)
}

// relay carries packets between a UDP port of this machine and the guest.
func (h *logHost) relay(w *wire, to netip.AddrPort) int {
	h.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { conn.Close() })
	ways := map[netip.AddrPort]io.ReadWriteCloser{}
	go func() {
		b := make([]byte, 2048)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			way := ways[from]
			if way == nil {
				if way, err = w.Dial(context.Background(), to); err != nil {
					return
				}
				ways[from] = way
				go func() {
					b := make([]byte, 2048)
					for {
						n, err := way.Read(b)
						if err != nil {
							return
						}
						conn.WriteToUDPAddrPort(b[:n], from)
					}
				}()
			}
			way.Write(b[:n])
		}
	}()
	return conn.LocalAddr().(*net.UDPAddr).Port
}
