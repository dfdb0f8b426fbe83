// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Options describe a machine. Kernel is needed; the rest may be left out.
type Options struct {
	Kernel  *Linux
	Modules []string   // to load besides the usual: names of the kernel's own, or .ko files
	Tree    *Tree      // the guest's files, to which the bench adds its own
	Disk    string     // a raw image with ext4 (MakeDisk); the guest has it in DiskMount
	Memory  int        // MiB; 0: 512
	Append  string     // more kernel parameters
	Setup   [][]string // commands to run in the guest before it counts as set up
	// Life is how long QEMU may live, whatever happens; 0: 5 minutes.
	Life time.Duration
}

// DiskMount is where the guest has Options.Disk.
const DiskMount = "/disk"

// NICCPU is the CPU that takes the network card's interrupts. The guest has two.
const NICCPU = 1

// bootTimeout is how long a guest may take until its init says that it is set up.
const bootTimeout = 90 * time.Second

// Machine is a machine that runs, or has run.
type Machine struct {
	Console *Console
	Net     *Net
	Started time.Time
	// Firmware is how long firmware and boot loader may take, if there are any,
	// until the kernel begins.
	Firmware time.Duration
	// Faults are the lines that previous boots of it ended with, by a fault of
	// the emulator.
	Faults []string

	control  *control
	qmp      *qmp
	cancel   context.CancelFunc // ends QEMU
	panicked chan struct{}      // closed when the kernel says that it panicked
	ended    chan struct{}      // closed when QEMU has ended
	mu       sync.Mutex
	end      End
}

// Fate is how a machine ended.
type Fate string

// Fates. A kernel that panicked stands still, since panic is 0: QEMU still runs.
const (
	Reset    Fate = "reset"     // the guest reset itself
	PowerOff Fate = "power off" // the guest turned itself off
	Panic    Fate = "panic"
	Killed   Fate = "killed" // by Close, or since its life was over
)

// End tells of the end of a machine.
type End struct {
	Fate   Fate
	At     time.Time // by the host's clock
	Detail string    // QEMU's word for the reason, or the line of a panic
}

// Boot starts a machine and waits until its init says that it is set up. On an
// error the machine is returned too, if there is one, for its console.
func Boot(ctx context.Context, opt Options) (*Machine, error) {
	if err := Prepare(); err != nil {
		return nil, err
	}
	qemu, err := find("qemu-system-x86_64")
	if err != nil {
		return nil, err
	}
	// QEMU has opened its files once the guest speaks.
	dir, err := os.MkdirTemp("", "netsysrq-vm-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	initrd := filepath.Join(dir, "initrd")
	if err := writeInitramfs(ctx, dir, initrd, opt); err != nil {
		return nil, fmt.Errorf("make the initramfs: %w", err)
	}
	var faults []string
	for {
		m, err := start(qemu, arguments(initrd, opt), opt.Life)
		if err != nil {
			return nil, fmt.Errorf("start QEMU: %w", err)
		}
		err = m.AwaitReady(ctx, bootTimeout)
		m.Faults = faults
		if err == nil {
			return m, nil
		}
		m.Close()
		fault, ok := m.EmulatorFault()
		if !ok || len(faults) == maxFaults {
			return m, fmt.Errorf("boot %s: %w", opt.Kernel.Release, err)
		}
		faults = append(faults, fault)
	}
}

// maxFaults is how often a machine is booted anew after a fault of the emulator.
const maxFaults = 3

// AwaitReady waits until the guest says that it is set up.
func (m *Machine) AwaitReady(ctx context.Context, limit time.Duration) error {
	untilInit := min(limit, m.Firmware+initTimeout)
	select {
	case <-m.control.ready:
		return m.control.begun
	case <-m.ended:
		return fmt.Errorf("the machine ended: %s", m.end.Detail)
	case <-m.panicked:
		return errors.New("the kernel panicked")
	case <-time.After(untilInit):
		if !m.inited() {
			return fmt.Errorf("no init after %v", untilInit)
		}
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case <-m.control.ready:
		return m.control.begun
	case <-m.ended:
		return fmt.Errorf("the machine ended: %s", m.end.Detail)
	case <-m.panicked:
		return errors.New("the kernel panicked")
	case <-time.After(limit - untilInit):
		return fmt.Errorf("not set up after %v", limit)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// initTimeout is how long a kernel may take until it starts init. It mostly takes
// 3 s; one that stands still by then does so for good.
const initTimeout = time.Minute

// inited reports whether the kernel has started init, and so anything of ours.
func (m *Machine) inited() bool {
	for _, l := range m.Console.Since(0) {
		if strings.Contains(l.Text, "as init process") {
			return true
		}
	}
	return false
}

// int3 is an oops by a breakpoint that nobody set.
var int3 = regexp.MustCompile(`\bint3: 0000 \[#`)

// EmulatorFault reports whether the kernel died of QEMU and not of itself, and
// the line that tells. When a kernel patches its own code, as it does for static
// keys, QEMU 7.2 may let the other CPU run into the breakpoint of that after it
// was taken away. Newer kernels patch more: of 7.2 one boot in five ends so.
// A kernel that never came to its init did not even begin with anything of ours:
// on a busy host the emulator may be too late for a test that the kernel makes of
// its timers. What such a machine did proves nothing.
func (m *Machine) EmulatorFault() (line string, yes bool) {
	lines := m.Console.Since(0)
	for _, l := range lines {
		if int3.MatchString(l.Text) {
			return l.Text, true
		}
	}
	if len(lines) > 0 && !m.inited() {
		return "no init; the last line: " + lines[len(lines)-1].Text, true
	}
	return "", false
}

// socketPair returns one end for this process and one for QEMU to inherit.
func socketPair() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return conn, theirs, nil
}

// start starts QEMU, with arguments that begin with those of hardware.
func start(qemu string, args []string, life time.Duration) (*Machine, error) {
	var theirs []*os.File
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
	}()
	keep := func(f *os.File, err error) error {
		if err == nil {
			theirs = append(theirs, f)
		}
		return err
	}
	wire, f, err := newNet()
	if keep(f, err) != nil {
		return nil, err
	}
	controlConn, f, err := socketPair()
	if keep(f, err) != nil {
		wire.close()
		return nil, err
	}
	qmpConn, f, err := socketPair()
	if keep(f, err) != nil {
		wire.close()
		controlConn.Close()
		return nil, err
	}
	console, stdout, err := os.Pipe()
	if err != nil {
		wire.close()
		controlConn.Close()
		qmpConn.Close()
		return nil, err
	}
	defer stdout.Close()

	if life == 0 {
		life = 5 * time.Minute
	}
	ctx, cancel := context.WithTimeout(context.Background(), life)
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, qemu, args...)
	cmd.Stdout, cmd.Stderr = stdout, &stderr
	cmd.ExtraFiles = theirs
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}

	m := &Machine{
		Console:  newConsole(),
		Net:      wire,
		Started:  time.Now(),
		cancel:   cancel,
		panicked: make(chan struct{}),
		ended:    make(chan struct{}),
		end:      End{Fate: Killed},
	}
	started, exited := make(chan error), make(chan error, 1)
	go func() {
		// The kernel ends QEMU with the thread that started it, so that
		// thread must live for as long.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			exited <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		cancel()
		wire.close()
		controlConn.Close()
		qmpConn.Close()
		console.Close()
		return nil, err
	}
	m.control = newControl(controlConn)
	drained := make(chan struct{})
	go func() {
		m.Console.read(console, m.watch)
		console.Close()
		close(drained)
	}()
	m.qmp = newQMP(qmpConn, m.event)
	go func() {
		err := <-exited
		<-drained
		for range m.qmp.back { // until what QEMU said last is read
		}
		m.mu.Lock()
		if m.end.At.IsZero() {
			m.end.At = time.Now()
			m.end.Detail = strings.TrimSpace(fmt.Sprintf("%v %s", err, tail(stderr.Bytes(), 2000)))
		}
		m.mu.Unlock()
		wire.close()
		controlConn.Close()
		qmpConn.Close()
		cancel()
		close(m.ended)
	}()
	// QEMU says nothing on QMP before it is asked for its abilities.
	if _, err := m.qmp.do(ctx, "qmp_capabilities", nil); err != nil {
		m.Close()
		return nil, fmt.Errorf("%w: %s", err, m.end.Detail)
	}
	return m, nil
}

// hardware are the options that every machine has. QEMU's descriptors 3, 4 and 5
// are the wire, the control channel and QMP; its standard output is the console.
func hardware(memory int) []string {
	return []string{
		"-nodefaults", "-no-user-config", "-display", "none",
		"-machine", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", strconv.Itoa(memory),
		"-no-reboot",
		"-netdev", "dgram,id=wire,local.type=fd,local.str=3",
		"-device", fmt.Sprintf("virtio-net-pci,netdev=wire,mac=%s,romfile=", net.HardwareAddr(GuestMAC[:])),
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-chardev", "socket,id=control,fd=4",
		"-chardev", "socket,id=qmp,fd=5", "-mon", "chardev=qmp,mode=control",
	}
}

// kernelParameters are those that every kernel gets. panic=0: a reset is always
// one that was asked for.
const kernelParameters = "console=ttyS0 panic=0 mitigations=off audit=0 nokaslr tsc=reliable " +
	"no_timer_check random.trust_cpu=on net.ifnames=0 "

// arguments is QEMU's command line.
func arguments(initrd string, opt Options) []string {
	memory := opt.Memory
	if memory == 0 {
		memory = 512
	}
	args := append(hardware(memory),
		"-kernel", opt.Kernel.Image, "-initrd", initrd,
		"-append", KernelParameters(opt.Append),
		"-serial", "chardev:control",
	)
	if opt.Disk != "" {
		args = append(args, "-drive", "if=none,id=disk,format=raw,file="+strings.ReplaceAll(opt.Disk, ",", ",,"),
			"-device", "virtio-blk-pci,drive=disk")
	}
	return args
}

// watch looks at each line of the console.
func (m *Machine) watch(l Line) {
	if !strings.Contains(l.Text, "Kernel panic - not syncing") {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.panicked:
	default:
		m.end = End{Panic, l.At, l.Text}
		close(m.panicked)
	}
}

// event hears of what QEMU did.
func (m *Machine) event(name string, data json.RawMessage) {
	if name != "SHUTDOWN" {
		return
	}
	var why struct{ Reason string }
	if err := json.Unmarshal(data, &why); err != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.end.Fate == Panic {
		return
	}
	m.end = End{Killed, time.Now(), why.Reason}
	switch why.Reason {
	case "guest-reset":
		m.end.Fate = Reset
	case "guest-shutdown":
		m.end.Fate = PowerOff
	}
}

// Wait waits for the end of the machine, or for its panic.
func (m *Machine) Wait(ctx context.Context) (End, error) {
	select {
	case <-m.ended:
	case <-m.panicked:
	case <-ctx.Done():
		return End{}, fmt.Errorf("the machine has not ended: %w", context.Cause(ctx))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.end, nil
}

// QMP runs a command of QEMU's own, such as "stop", "cont" or "system_reset".
func (m *Machine) QMP(ctx context.Context, command string, args any) (json.RawMessage, error) {
	return m.qmp.do(ctx, command, args)
}

// Close ends the machine, if it still runs, and waits until it has ended.
func (m *Machine) Close() {
	m.cancel()
	<-m.ended
}
