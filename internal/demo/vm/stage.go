// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/vm"
	"netsysrq/internal/vm/agent"
)

// What is expected of a host with the module and a daemon that attaches to it.
const (
	healthyStatus    = "free; armed" // else the kernel's answer stands between
	hungDaemon       = "the daemon has been silent for "
	healthyDrillExit = 0
)

var healthyDrill = []string{"(taken by the daemon)", "(deadline, no daemon needed)", "both ways proved"}

// config is web1's netsysrqd.toml. The guest has no user names.
const config = `user = "65534"
iptables = "legacy"
[log]
format = "text"
`

// note is the file that is not on the disk yet when the machine hangs.
const (
	notePath = vm.DiskMount + "/note"
	note     = "written a moment before it hung\n"
)

// stage is the machine and the operator's side.
type stage struct {
	start       time.Time
	bin, source string
	dir         string // the operator's files and the disk
	linux       *vm.Linux
	tree        *vm.Tree
	module      string
	machine     *vm.Machine
	relay       *vm.Relay
	bootID      string
	port        uint16 // of the newest TCP conversation
}

func newStage(ctx context.Context, bin, source string) (*stage, error) {
	dir, err := os.MkdirTemp("", "netsysrq-demo-")
	if err != nil {
		return nil, err
	}
	s := &stage{start: time.Now(), bin: bin, source: source, dir: dir, tree: vm.NewTree(), port: 50000}
	s.bin, err = filepath.Abs(bin)
	return s, err
}

// tearDown removes what the demonstration has made. Of a failure it shows what
// the machine said last.
func (s *stage) tearDown(failed bool) error {
	if m := s.machine; m != nil {
		m.Close()
		if failed {
			lines := m.Console.Since(0)
			fmt.Println("\nThe machine's console, at its end:")
			for _, l := range lines[max(0, len(lines)-40):] {
				fmt.Println("  console |", l.Text)
			}
			if fault, yes := m.EmulatorFault(); yes {
				fmt.Printf("The kernel died of a fault of the emulator, not of its own: run it again. (%s)\n", fault)
			}
		}
	}
	if s.relay != nil {
		s.relay.Close()
	}
	return os.RemoveAll(s.dir)
}

func (s *stage) title(text string) { fmt.Println(); s.say("== " + text) }

// say prints a line with the time since the beginning.
func (s *stage) say(text string) { fmt.Printf("%6.1f s  %s\n", time.Since(s.start).Seconds(), text) }

func (s *stage) sayf(format string, args ...any) { s.say(fmt.Sprintf(format, args...)) }

// build gets kernel, module, extension and disk, and begins the guest's files.
func (s *stage) build(ctx context.Context) (err error) {
	if s.linux, err = vm.Kernel(ctx, kernel); err != nil {
		return err
	}
	if s.module, err = vm.BuildModule(ctx, s.linux, s.source); err != nil {
		return err
	}
	extension, err := vm.BuildExtension(ctx, s.source)
	if err != nil {
		return err
	}
	s.sayf("linux %s, %s, %s", s.linux.Release, filepath.Base(s.module), filepath.Base(extension))
	if err := vm.MakeDisk(ctx, s.disk(), 32); err != nil {
		return err
	}
	t := s.tree
	t.Copy("/usr/sbin/netsysrqd", filepath.Join(s.bin, "netsysrqd"))
	t.Copy(vm.ExtensionPath, extension)
	t.Write("/etc/netsysrq/netsysrqd.toml", 0o644, []byte(config))
	t.Write("/etc/machine-id", 0o644, []byte("0123456789abcdef0123456789abcdef\n"))
	t.Write("/etc/passwd", 0o644, []byte("root:*:0:0:root:/:/bin/sh\n"))
	t.Write("/etc/issue.net", 0o644, []byte("Debian GNU/Linux, to be thrown away\r\n"))
	t.Link("/bin/login", "busybox")
	t.Dir("/dev/pts")
	return t.Iptables()
}

func (s *stage) disk() string { return filepath.Join(s.dir, "disk.img") }

// enrol gives web1 its key. The line takes the way of its disk image here.
func (s *stage) enrol(ctx context.Context) error {
	line, err := s.command(ctx, "enroll", "web1", "--quiet").Output()
	if err != nil {
		return fmt.Errorf("netsysrq enroll: %w", err)
	}
	s.tree.Write("/run/enrolment", 0o600, line)
	return nil
}

// setup are the commands that make a guest an armed host, as a Debian machine is
// after its boot.
func setup() [][]string {
	var all [][]string
	for _, c := range []string{
		"/bin/busybox hostname web1",
		"/bin/busybox mkdir -p /dev/pts",
		"/bin/busybox mount -t devpts devpts /dev/pts",
		"/bin/busybox sysctl -q -w kernel.sysrq=438",
		// A disk that is in use may wait for 30 s until a file is on it. One that
		// was never written to gets it as soon as the kernel looks, every 5 s.
		"/bin/busybox sysctl -q -w vm.dirty_writeback_centisecs=3000",
		"netsysrqd keys add --file /run/enrolment",
		"netsysrqd load-keys",
		"netsysrqd rules apply",
	} {
		all = append(all, strings.Fields(c))
	}
	return all
}

// boot starts a machine, with login and daemon, and the way to it.
func (s *stage) boot(ctx context.Context) error {
	m, err := vm.Boot(ctx, vm.Options{Kernel: s.linux, Modules: []string{s.module}, Tree: s.tree, Disk: s.disk(), Setup: setup()})
	if m != nil {
		s.machine = m
	}
	if err != nil {
		return err
	}
	for _, f := range m.Faults {
		s.sayf("booted once more, after a fault of the emulator: %s", f)
	}
	boot, err := m.ReadFile(ctx, "/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	if string(boot) == s.bootID {
		return errors.New("it is the same boot as before")
	}
	s.bootID = string(boot)
	s.sayf("set up; boot id %.8s", boot)
	// As a machine is whose clock is disciplined.
	if err := m.SetClock(ctx, 0, true); err != nil {
		return err
	}
	if _, err := m.Start(ctx, "telnetd", "/bin/busybox", "telnetd", "-F", "-l", "/bin/login"); err != nil {
		return err
	}
	s.say("web1# netsysrqd run &")
	if _, err := m.Start(ctx, vm.Daemon, "netsysrqd", "run"); err != nil {
		return err
	}
	if err := s.awaitDaemon(ctx); err != nil {
		return err
	}
	if s.relay != nil {
		s.relay.Close()
	}
	s.relay, err = m.Net.Relay(vm.GuestUDP4(auth.Port))
	return err
}

// awaitDaemon waits until netsysrqd is ready.
func (s *stage) awaitDaemon(ctx context.Context) error {
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		log, err := s.machine.ReadFile(ctx, agent.LogPath(vm.Daemon))
		if err != nil {
			return err
		}
		if bytes.Contains(log, []byte("msg=ready")) {
			s.log(log, "msg=ready")
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("netsysrqd is not ready after 20 s:\n%s", log)
		}
	}
}

// log shows the daemon's lines that contain one of the texts, without their time.
func (s *stage) log(log []byte, texts ...string) (shown int) {
	for line := range strings.Lines(string(log)) {
		for _, text := range texts {
			if strings.Contains(line, text) {
				_, line, _ = strings.Cut(line, " ")
				s.say("  daemon | " + strings.TrimSpace(line))
				shown++
				break
			}
		}
	}
	return shown
}

// command is netsysrq as the operator runs it. Where packets go is added, since
// the name web1 is in no DNS.
func (s *stage) command(ctx context.Context, args ...string) *exec.Cmd {
	if name := args[0]; name != "keygen" && name != "enroll" {
		args = append(args[:len(args):len(args)], "--address", "127.0.0.1", "--port", fmt.Sprint(s.relay.Port()))
	}
	c := exec.CommandContext(ctx, filepath.Join(s.bin, "netsysrq"), args...)
	own := filepath.Join(s.dir, "operator")
	c.Env = append(os.Environ(), "XDG_CONFIG_HOME="+own, "XDG_STATE_HOME="+own)
	c.WaitDelay = time.Second
	return c
}

// netsysrq runs and shows it, and wants an exit code.
func (s *stage) netsysrq(ctx context.Context, code int, args ...string) (string, error) {
	s.say("$ netsysrq " + strings.Join(args, " "))
	out, err := s.command(ctx, args...).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		s.say("  " + strings.TrimRight(line, "\n"))
	}
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got, err = exit.ExitCode(), nil
	}
	if err == nil && got != code {
		err = fmt.Errorf("netsysrq %s: exit code %d, not %d", strings.Join(args, " "), got, code)
	}
	return string(out), err
}

func (s *stage) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	took, err := s.machine.Net.Ping(ctx, vm.GuestIPv4)
	if err != nil {
		return err
	}
	s.sayf("ping web1: answered after %.1f ms", float64(took.Microseconds())/1000)
	return nil
}

// login connects to telnetd as a person would, and wants a login or none.
func (s *stage) login(ctx context.Context, want bool) error {
	wait := 10 * time.Second
	if !want {
		wait = silence / 2
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	const prompt, telnet = "web1 login: ", 23
	s.port++
	said, err := greeting(ctx, s.machine.Net, netip.AddrPortFrom(vm.HostIPv4, s.port), netip.AddrPortFrom(vm.GuestIPv4, telnet), prompt)
	got := strings.Contains(said, prompt)
	switch {
	case err != nil:
		return fmt.Errorf("telnet web1: %w", err)
	case got != want:
		return fmt.Errorf("telnet web1: a login was offered: %v, not %v: %q", got, want, said)
	case got:
		s.sayf("telnet web1: %q", prompt)
	default:
		s.sayf("telnet web1: connected, by the kernel, but no login within %g s", wait.Seconds())
	}
	return nil
}

// freeze writes the note and stops every process.
func (s *stage) freeze(ctx context.Context) error {
	m := s.machine
	if err := m.WriteFile(ctx, notePath, 0o644, []byte(note)); err != nil {
		return err
	}
	before, err := s.states(ctx)
	if err != nil {
		return err
	}
	s.say("processes: " + before)
	if _, err := m.Hang(ctx, vm.Frozen); err != nil {
		return err
	}
	after, err := s.states(ctx)
	if err != nil {
		return err
	}
	s.say("processes: " + after)
	return nil
}

// states lists the processes but init, each with its state in words.
func (s *stage) states(ctx context.Context) (string, error) {
	list, err := s.machine.Processes(ctx)
	if err != nil {
		return "", err
	}
	words := map[string]string{"R": "runs", "S": "sleeps", "D": "waits", "T": "stopped"}
	var all []string
	for _, p := range list {
		if word := words[p.State]; !p.Kernel && p.PID != 1 && word != "" {
			all = append(all, fmt.Sprintf("%s (%d) %s", p.Name, p.PID, word))
		}
	}
	return strings.Join(all, ", "), nil
}

// reset shows what the kernel says of the steps, and wants all of it in order,
// and then the reset.
func (s *stage) reset(ctx context.Context, mark int) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	m := s.machine
	end, err := m.Wait(ctx)
	if err != nil {
		return err
	}
	wanted := []string{
		"sysrq: Nice All RT Tasks", "sysrq: Emergency Sync", "Emergency Sync complete",
		"sysrq: Emergency Remount R/O", "Emergency Remount complete", "sysrq: Resetting",
	}
	for _, l := range m.Console.Since(mark) {
		if !strings.Contains(l.Text, "ysrq: ") && !strings.Contains(l.Text, "NETSYSRQ: ") && !strings.Contains(l.Text, "Emergency ") {
			continue
		}
		fmt.Printf("%6.1f s    kernel | %s\n", l.At.Sub(s.start).Seconds(), l.Text)
		if len(wanted) > 0 && strings.Contains(l.Text, wanted[0]) {
			wanted = wanted[1:]
		}
	}
	if len(wanted) > 0 {
		return fmt.Errorf("the kernel did not say %q in its turn", wanted[0])
	}
	if end.Fate != vm.Reset {
		return fmt.Errorf("the machine ended by %s, not by a reset: %s", end.Fate, end.Detail)
	}
	fmt.Printf("%6.1f s  the machine has reset itself\n", end.At.Sub(s.start).Seconds())
	return nil
}

// onDisk wants the note to be in the disk's image, or not. The guest is not asked.
func (s *stage) onDisk(want bool) error {
	image, err := os.ReadFile(s.disk())
	if err != nil {
		return err
	}
	if got := bytes.Contains(image, []byte(note)); got != want {
		return fmt.Errorf("the file is on the disk: %v, not %v", got, want)
	}
	if want {
		s.say("the file is on the disk now")
	} else {
		s.say("the file is still in memory alone")
	}
	return nil
}

// rescued wants the disk whole and the note on it.
func (s *stage) rescued(ctx context.Context) error {
	m := s.machine
	got, err := m.ReadFile(ctx, notePath)
	if err != nil {
		return err
	}
	if string(got) != note {
		return fmt.Errorf("the file written before it hung holds %q, not %q", got, note)
	}
	for _, l := range m.Console.Since(0) {
		if strings.Contains(l.Text, "EXT4-fs (vda)") && strings.Contains(l.Text, "recovery") {
			return fmt.Errorf("the disk was not clean: %s", l.Text)
		}
	}
	s.sayf("the disk was clean, and the file is there: %q", strings.TrimSpace(note))
	return nil
}

// daemonLog shows what the daemon says of a drill.
func (s *stage) daemonLog(ctx context.Context) error {
	log, err := s.machine.ReadFile(ctx, agent.LogPath(vm.Daemon))
	if err != nil {
		return err
	}
	if s.log(log, "request accepted", "drill left to the kernel") < 2 {
		return fmt.Errorf("the daemon logged neither of the two:\n%s", log)
	}
	return nil
}
