// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	clientAddr = "192.0.2.1"
	serverAddr = "192.0.2.2"
	port       = "9"
)

// stage is the two namespaces and what runs in them.
type stage struct {
	ctx            context.Context
	dir, bin       string
	client, server string // names of namespaces
	daemon         *exec.Cmd
	logRead        int
	triggered      int
	stopKernel     func()
	capture        *capture
}

func newStage(ctx context.Context, bin string) (*stage, error) {
	bin, err := filepath.Abs(bin)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "netsysrq-demo-")
	if err != nil {
		return nil, err
	}
	suffix := fmt.Sprint(os.Getpid())
	d := &stage{ctx: ctx, dir: dir, bin: bin, client: "nsrq-op-" + suffix, server: "nsrq-web1-" + suffix, stopKernel: func() {}}
	// The daemon reads its keys after it has given up root.
	if err := os.Chmod(dir, 0o755); err != nil {
		return d, err
	}
	files := map[string]string{
		"trigger": "", "kmsg": "", "log": "",
		"machine-id": strings.Repeat("0123456789abcdef", 2) + "\n",
		"netsysrqd.toml": fmt.Sprintf("keys_dir = %q\ntrigger = %q\nkmsg = %q\nmachine_id = %q\nuser = \"nobody\"\n[log]\nformat = \"text\"\n",
			filepath.Join(dir, "keys"), filepath.Join(dir, "trigger"), filepath.Join(dir, "kmsg"), filepath.Join(dir, "machine-id")),
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			return d, err
		}
	}
	for _, args := range [][]string{
		{"netns", "add", d.client}, {"netns", "add", d.server},
		{"link", "add", "eth0", "netns", d.client, "type", "veth", "peer", "name", "eth0", "netns", d.server},
		{"-n", d.client, "addr", "add", clientAddr + "/24", "dev", "eth0"},
		{"-n", d.server, "addr", "add", serverAddr + "/24", "dev", "eth0"},
		{"-n", d.client, "link", "set", "eth0", "up"}, {"-n", d.server, "link", "set", "eth0", "up"},
		{"-n", d.server, "link", "set", "lo", "up"},
	} {
		if out, err := exec.CommandContext(ctx, "ip", args...).CombinedOutput(); err != nil {
			return d, fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
		}
	}
	kctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { d.playKernel(kctx) })
	d.stopKernel = func() { cancel(); wg.Wait() }
	return d, nil
}

func (d *stage) tearDown() error {
	d.endCapture()
	d.stopKernel()
	errs := []error{d.stopDaemon()}
	for _, ns := range []string{d.client, d.server} {
		if _, err := os.Stat("/run/netns/" + ns); err != nil {
			continue
		}
		if out, err := exec.Command("ip", "netns", "del", ns).CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("remove namespace %s: %w: %s", ns, err, out))
		}
	}
	return errors.Join(append(errs, os.RemoveAll(d.dir))...)
}

func (d *stage) title(s string) { fmt.Printf("\n== %s\n", s) }

// command makes a command within a namespace.
func (d *stage) command(ns, name string, args ...string) *exec.Cmd {
	full := append([]string{"netns", "exec", ns, filepath.Join(d.bin, name)}, d.withFlags(name, args)...)
	c := exec.CommandContext(d.ctx, "ip", full...)
	own := filepath.Join(d.dir, "operator")
	c.Env = append(os.Environ(), "XDG_CONFIG_HOME="+own, "XDG_STATE_HOME="+own)
	c.WaitDelay = time.Second
	return c
}

// withFlags adds what a real installation has in its usual places.
func (d *stage) withFlags(name string, args []string) []string {
	switch {
	case name == "netsysrqd":
		return append([]string{"--config", filepath.Join(d.dir, "netsysrqd.toml")}, args...)
	case args[0] == "keygen":
		return append(args, "--operator", "alice")
	case args[0] == "enroll":
		return args
	}
	return append(args, "--address", serverAddr)
}

// operator runs netsysrq and shows it.
func (d *stage) operator(args ...string) error {
	fmt.Printf("$ netsysrq %s\n", strings.Join(args, " "))
	return d.show(d.command(d.client, "netsysrq", args...))
}

// host runs netsysrqd on the host and shows it.
func (d *stage) host(stdin []byte, args ...string) error {
	if stdin == nil {
		fmt.Printf("web1# netsysrqd %s\n", strings.Join(args, " "))
	}
	c := d.command(d.server, "netsysrqd", args...)
	c.Stdin = bytes.NewReader(stdin)
	return d.show(c)
}

func (d *stage) output(ns, name string, args ...string) ([]byte, error) {
	c := d.command(ns, name, args...)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", name, args[0], err, &stderr)
	}
	return out, nil
}

// show runs a command and shows its output, without what withFlags has added.
func (d *stage) show(c *exec.Cmd) error {
	b, err := c.CombinedOutput()
	out := strings.ReplaceAll(string(b), " -c "+filepath.Join(d.dir, "netsysrqd.toml"), "")
	for line := range strings.Lines(out) {
		fmt.Print("  ", line)
	}
	return err
}

func (d *stage) startDaemon() error {
	log, err := os.OpenFile(filepath.Join(d.dir, "log"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer log.Close()
	fmt.Println("web1# netsysrqd run &")
	d.daemon = d.command(d.server, "netsysrqd", "run")
	d.daemon.Stdout, d.daemon.Stderr = log, log
	if err := d.daemon.Start(); err != nil {
		return err
	}
	for range 500 {
		if b, _ := os.ReadFile(log.Name()); bytes.Contains(b, []byte("msg=ready")) {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	d.logged()
	return errors.New("the daemon did not become ready within 5 s")
}

func (d *stage) stopDaemon() error {
	if d.daemon == nil {
		return nil
	}
	c := d.daemon
	d.daemon = nil
	if err := c.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	if err := c.Wait(); err != nil {
		return fmt.Errorf("the daemon ended badly: %w", err)
	}
	return nil
}

// logged prints what the daemon has logged since the last call.
func (d *stage) logged() {
	b, err := os.ReadFile(filepath.Join(d.dir, "log"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return
	}
	for line := range strings.Lines(string(b[d.logRead:])) {
		_, line, _ = strings.Cut(line, " ") // the time
		fmt.Print("  log | ", line)
	}
	d.logRead = len(b)
}

// playKernel says in the kernel log what a kernel says some time after s and u.
func (d *stage) playKernel(ctx context.Context) {
	done := map[byte]string{'s': "Emergency Sync complete", 'u': "Emergency Remount complete"}
	seen := 0
	for ctx.Err() == nil {
		time.Sleep(5 * time.Millisecond)
		b, err := os.ReadFile(filepath.Join(d.dir, "trigger"))
		if err != nil {
			return
		}
		for ; seen < len(b); seen++ {
			text, ok := done[b[seen]]
			if !ok {
				continue
			}
			time.Sleep(40 * time.Millisecond)
			f, err := os.OpenFile(filepath.Join(d.dir, "kmsg"), os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				return
			}
			fmt.Fprintf(f, "4,%d,%d,-;%s\n", seen, time.Now().UnixMicro(), text)
			f.Close()
		}
	}
}

// inside calls fn on a thread of the client's namespace.
func (d *stage) inside(fn func() error) error {
	result := make(chan error, 1)
	go func() {
		// Not unlocked: the thread ends with its goroutine.
		runtime.LockOSThread()
		result <- func() error {
			ns, err := os.Open("/run/netns/" + d.client)
			if err != nil {
				return err
			}
			defer ns.Close()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return err
			}
			return fn()
		}()
	}()
	return <-result
}

// send sends each payload so many times, from a port of its own.
func (d *stage) send(payloads [][]byte, times int) error {
	return d.inside(func() error {
		c, err := net.Dial("udp4", net.JoinHostPort(serverAddr, port))
		if err != nil {
			return err
		}
		defer c.Close()
		for range times {
			for _, p := range payloads {
				if _, err := c.Write(p); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// capture records what the client sends to the host, as anyone on the path can.
type capture struct {
	fd       int
	packets  [][]byte
	stop     context.CancelFunc
	finished chan struct{}
}

func (d *stage) startCapture() error {
	c := &capture{finished: make(chan struct{})}
	err := d.inside(func() (err error) {
		const allProtocols = 0x0300 // htons(ETH_P_ALL)
		c.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, allProtocols)
		return err
	})
	if err != nil {
		return err
	}
	tv := unix.NsecToTimeval(int64(50 * time.Millisecond))
	if err := unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(d.ctx)
	c.stop = cancel
	d.capture = c
	go c.read(ctx)
	return nil
}

func (c *capture) read(ctx context.Context) {
	defer close(c.finished)
	defer unix.Close(c.fd)
	buf := make([]byte, 2048)
	for ctx.Err() == nil {
		n, from, err := unix.Recvfrom(c.fd, buf, 0)
		if sa, ok := from.(*unix.SockaddrLinklayer); err != nil || !ok || sa.Pkttype != unix.PACKET_OUTGOING {
			if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
				return
			}
			continue
		}
		const headers = 20 + 8 // IPv4 without options, UDP
		if p := buf[:n]; n > headers && p[0] == 0x45 && p[9] == unix.IPPROTO_UDP {
			c.packets = append(c.packets, bytes.Clone(p[headers:]))
		}
	}
}

func (d *stage) endCapture() [][]byte {
	c := d.capture
	if c == nil {
		return nil
	}
	d.capture = nil
	c.stop()
	<-c.finished
	return c.packets
}
