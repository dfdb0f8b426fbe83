// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"netsysrq/auth"
	"netsysrq/cmd/responder/internal/config"
	"netsysrq/cmd/responder/internal/gate"
	"netsysrq/cmd/responder/internal/host"
	"netsysrq/cmd/responder/internal/keyring"
	"netsysrq/cmd/responder/internal/logging"
	"netsysrq/cmd/responder/internal/metrics"
	"netsysrq/cmd/responder/internal/module"
	"netsysrq/kmod-fallback/kmod"
	"netsysrq/nfq"
)

// stubModule is a connection to a kernel module in memory, which this process
// may not give keys to.
type stubModule struct {
	status kmod.Status
	err    error // of every beat
	setErr error // of being told
	dryRun bool
}

func (f *stubModule) Take(auth.KeyID, auth.RequestID) error { return nil }
func (f *stubModule) Veto(auth.KeyID, auth.RequestID) error { return nil }
func (f *stubModule) InstallKey(*auth.HostKey, auth.KeySet) error {
	return fmt.Errorf("install: %w", kmod.ErrPermission)
}
func (f *stubModule) RemoveKey(auth.KeyID) error            { f.status.Keys = nil; return nil }
func (f *stubModule) SetBootID(auth.BootID) error           { return nil }
func (f *stubModule) SetDryRun(on bool) error               { f.dryRun = on; return f.setErr }
func (f *stubModule) SetDeadline(time.Duration) error       { return nil }
func (f *stubModule) Synchronised(bool, auth.Instant) error { return f.err }
func (f *stubModule) Register() error                       { return nil }
func (f *stubModule) Port() uint32                          { return 0 }
func (f *stubModule) Status() (kmod.Status, error)          { return f.status, nil }
func (f *stubModule) Close() error                          { return nil }
func (f *stubModule) Events(seq uint32) ([]kmod.Event, uint32, uint32, error) {
	return nil, seq, 0, nil
}

// rig is a daemon without queues, with alice's key.
type rig struct {
	*daemon
	t       *testing.T
	module  *stubModule
	dialErr error
	isArmed bool
	sealer  *auth.Sealer
	replies int
	id      byte
	text    *buffer
}

// buffer may be written to and read at once.
type buffer struct {
	sync.Mutex
	bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.Lock()
	defer b.Unlock()
	return b.Buffer.Write(p)
}

func newDaemonRig(t *testing.T) *rig {
	t.Helper()
	dir := t.TempDir()
	r := &rig{t: t, module: &stubModule{}, dialErr: kmod.ErrNotLoaded, text: new(buffer)}
	log, err := logging.New("json", r.text, slog.LevelInfo)
	if err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	cfg.KeysDir = filepath.Join(dir, "keys")
	r.daemon = &daemon{cfg: cfg, configPath: filepath.Join(dir, "etc.toml"), identity: host.Identity{UID: os.Geteuid(), GID: -1},
		machineID: "0123456789abcdef0123456789abcdef", log: log, requests: new(metrics.Requests), level: new(slog.LevelVar), readings: make(chan reading, 1),
		armed: func() bool { return r.isArmed }}
	r.gate = gate.New(gate.Config{
		Ledger: auth.Config{Executor: auth.Daemon, Sysrq: -1, Random: func([]byte) bool { return true }},
		Answer: func(to, from netip.AddrPort, dev uint32, packet []byte) error { r.replies++; return nil },
		Log:    log.Logger,
		Armed:  r.armed,
	})
	r.link = &module.Link{Log: log.Logger, Dial: func() (module.Client, error) {
		if r.dialErr != nil {
			return nil, r.dialErr
		}
		return r.module, nil
	}}
	r.configure(cfg.KeysDir)
	m := auth.Master{7}
	key, err := m.HostKey("db3")
	if err != nil {
		t.Fatal(err)
	}
	set, err := auth.ParseKeySet("nsub")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keyring.Add(cfg.KeysDir, keyring.Addition{Enrolment: &auth.Enrolment{Operator: "alice", Host: "db3", Allow: set, Key: key},
		MachineID: r.machineID, Now: time.Now()}, -1); err != nil {
		t.Fatal(err)
	}
	r.sealer = auth.NewSealer(&key)
	r.module.status.Keys = []kmod.Key{{ID: key.ID, Allowed: set}}
	if err := r.loadKeys(); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) configure(keys string) {
	r.t.Helper()
	if err := os.WriteFile(r.configPath, fmt.Appendf(nil, "keys_dir = %q\n", keys), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// answers reports whether the daemon answers a status by itself.
func (r *rig) answers() bool {
	r.t.Helper()
	r.id++
	sealed := r.sealer.SealRequest(&auth.Request{ID: auth.RequestID{r.id}, Time: uint64(time.Now().UnixNano())})
	b := make([]byte, 28, 28+len(sealed))
	b[0], b[8], b[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(b[2:], uint16(28+len(sealed)))
	copy(b[12:], []byte{192, 0, 2, 1, 192, 0, 2, 2, 15, 160, 0, 9})
	binary.BigEndian.PutUint16(b[24:], uint16(8+len(sealed)))
	b = append(b, sealed[:]...)
	before := r.replies
	r.gate.Lane().Handle(&nfq.Packet{InDev: 2, Data: b, Len: len(b)})
	return r.replies > before
}

// second is one turn of the loop.
func (r *rig) second() {
	r.attachAgain = time.Time{}
	asked, synchronised := r.gate.Sample()
	r.beat(true, asked, synchronised)
}

// await takes the reading that has begun.
func (r *rig) await() {
	r.t.Helper()
	select {
	case got := <-r.readings:
		r.take(got)
	case <-time.After(10 * time.Second):
		r.t.Fatal("nothing was read")
	}
}

func (r *rig) logged(text string) int {
	r.log.Flush(10 * time.Second)
	r.text.Lock()
	defer r.text.Unlock()
	return strings.Count(r.text.String(), text)
}

func (r *rig) arm() {
	r.t.Helper()
	r.dialErr, r.isArmed = nil, true
	r.second()
	if !r.link.Attached() || r.answers() {
		r.t.Fatal("not attached")
	}
}

// A module that can't be reached for a while, and is gone after that, leaves the
// daemon to answer.
func TestModuleLostThenGone(t *testing.T) {
	r := newDaemonRig(t)
	if !r.answers() {
		t.Fatal("no answer without a module")
	}
	r.arm()
	r.module.err = errors.New("no memory")
	r.dialErr = errors.New("no memory")
	r.second()
	if r.link.Attached() || r.answers() {
		t.Error("the module is armed, and the daemon acts beside it")
	}
	r.dialErr, r.isArmed = kmod.ErrNotLoaded, false
	r.second()
	if !r.answers() {
		t.Error("nobody answers")
	}
}

// What the module was not told once it is told again.
func TestModuleIsToldAgain(t *testing.T) {
	r := newDaemonRig(t)
	r.arm()
	r.cfg.DryRun = true
	r.module.setErr = errors.New("no memory")
	r.setKeys(r.keys)
	for range 3 {
		r.second()
	}
	r.module.dryRun, r.module.setErr = false, nil
	r.second()
	if !r.module.dryRun || r.untold {
		t.Error("the module was not told again")
	}
	if n := r.logged("kernel module not told"); n != 1 {
		t.Errorf("logged %d times", n)
	}
}

// A module that fails at every beat does not make the daemon run in circles.
func TestModuleThatFailsAtEveryBeat(t *testing.T) {
	r := newDaemonRig(t)
	r.arm()
	r.module.err = errors.New("no memory")
	for range 3 {
		r.second()
	}
	if n := r.logged("connection to the kernel module lost"); n != 3 {
		t.Errorf("lost %d times", n)
	}
}

// Keys that are taken out of the module, and not from the host, leave the daemon
// alone.
func TestModuleDisarmed(t *testing.T) {
	r := newDaemonRig(t)
	r.arm()
	r.module.status.Keys, r.isArmed = nil, false
	r.second()
	r.await()
	if r.answers() {
		t.Error("the daemon acts at the first sign")
	}
	for range 3 {
		r.second()
	}
	if r.link.Attached() || !r.answers() {
		t.Error("nobody answers")
	}
	if n := r.logged("the kernel module holds no keys"); n != 1 {
		t.Errorf("logged %d times", n)
	}
	r.module.status.Keys = []kmod.Key{{ID: r.keys[0].Key.ID}}
	r.arm()
}

// A removed key stays out of force, though the daemon was not told yet.
func TestModuleDisarmedByRemoval(t *testing.T) {
	r := newDaemonRig(t)
	r.arm()
	if err := os.Remove(r.keys[0].Path); err != nil {
		t.Fatal(err)
	}
	r.module.status.Keys = nil
	for range 3 {
		r.second()
		if r.reads {
			r.await()
		}
	}
	r.isArmed = false
	if len(r.keys) != 0 || r.answers() {
		t.Error("a removed key is in force")
	}
}

// A disk that hangs does not stop the loop, and one that comes back is read.
func TestReloadDoesNotWaitForADisk(t *testing.T) {
	r := newDaemonRig(t)
	if err := os.Remove(r.configPath); err != nil {
		t.Fatal(err)
	}
	// Who opens a FIFO waits for the other end.
	if err := syscall.Mkfifo(r.configPath, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.read(true)
		r.read(true)
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("a reload waits for the disk")
	}
	write := func() {
		f, err := os.OpenFile(r.configPath, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(f, "keys_dir = %q\ndry_run = true\n", r.cfg.KeysDir)
		f.Close()
	}
	write()
	r.await()
	if !r.cfg.DryRun || !r.reads {
		t.Errorf("dry run %v, read again %v", r.cfg.DryRun, r.reads)
	}
	write()
	r.await()
	if r.reads || r.logged(`"reloaded"`) != 2 {
		t.Error("what came while it read was not done")
	}
}
