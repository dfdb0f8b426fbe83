// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"netsysrq/auth"
	"netsysrq/internal/clock"
	"netsysrq/internal/exchange/fakehost"
)

// underRace: the race detector makes everything slower and larger.
var underRace bool

// Of every hundred simulated hosts five are silent, and the clock of one is
// wrong.
func silent(i int) bool { return i%20 == 3 }
func stale(i int) bool  { return i%100 == 50 }

const staleBy = 40 * time.Second

// fakeFleet is "fakefleet KEYFILE N": a process that answers for N hosts, web0
// and so on, until its stdin ends. It writes its port.
func fakeFleet(args []string) {
	op, err := loadMaster(args[0])
	if err != nil {
		panic(err)
	}
	n, _ := strconv.Atoi(args[1])
	hosts := make(map[auth.KeyID]*fakehost.Host, n)
	for i := range n {
		key, err := op.master.HostKey(fmt.Sprint("web", i))
		if err != nil {
			panic(err)
		}
		skew := time.Duration(0)
		if stale(i) {
			skew = staleBy
		}
		cfg := fakehost.Config{Key: key, Allow: ^auth.KeySet(0), Synchronised: true,
			Clock: func() (uint64, uint64) { return clock.Real() + uint64(skew), 1e18 + clock.Boot() }}
		h := fakehost.New(cfg, 76*time.Hour)
		h.Mute(silent(i))
		hosts[key.ID] = h
	}
	many, err := fakehost.ListenMany(hosts)
	if err != nil {
		fmt.Println("SKIP:", err)
		return
	}
	for range 2 {
		go many.Serve()
	}
	fmt.Println(many.Port())
	io.Copy(io.Discard, os.Stdin)
}

// simulated is a fleet in a process of its own.
type simulated struct {
	home string
	port int
}

func simulate(t testing.TB, n int) *simulated {
	s := &simulated{home: t.TempDir()}
	dir := filepath.Join(s.home, ".config", "netsysrq")
	key := filepath.Join(dir, "master.key")
	if err := saveMaster(key, &operator{"alice", auth.NewMaster()}); err != nil {
		t.Fatal(err)
	}
	c := s.command("fakefleet", key, strconv.Itoa(n))
	stdin, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); c.Wait() })
	line, _ := bufio.NewReader(stdout).ReadString('\n')
	if strings.HasPrefix(line, "SKIP") {
		t.Skip(line)
	}
	if s.port, err = strconv.Atoi(strings.TrimSpace(line)); err != nil {
		t.Fatal(err)
	}
	var list bytes.Buffer
	fmt.Fprintf(&list, "[defaults]\nport = %d\n", s.port)
	for i := range n {
		fmt.Fprintf(&list, "[hosts.web%d]\naddress = \"%v\"\n", i, fakehost.Address(i))
	}
	if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), list.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// command is this test binary as one of the commands of TestMain.
func (s *simulated) command(name string, args ...string) *exec.Cmd {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	c := exec.Command(exe)
	c.Args = append([]string{name}, args...)
	c.Env = append(os.Environ(), "HOME="+s.home, "XDG_CONFIG_HOME=", "XDG_STATE_HOME=", "GORACE=atexit_sleep_ms=0")
	c.Stderr = os.Stderr
	return c
}

// Ten thousand hosts from one machine: a complete and right answer, within the
// timeout and little more, in little memory, with few sockets. The best of three
// attempts counts, and what is more than the timeout is measured in shares of
// the CPUs that others leave; what is answered must be right in each.
func TestTenThousand(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIP: -short, and this takes some seconds")
	}
	hosts := 10_000
	if underRace {
		hosts /= 10
	}
	const (
		timeout = 3 * time.Second
		slack   = 3 * time.Second
		memory  = 100_000_000 >> 10 // KiB
	)
	s := simulate(t, hosts)
	for attempt := 1; ; attempt++ {
		var out bytes.Buffer
		c := s.command("netsysrq", "status", "@all", "--json", "--timeout", timeout.String())
		c.Stdout = &out
		begun := time.Now()
		err := c.Run()
		took := time.Since(begun)
		usage := c.ProcessState.SysUsage().(*syscall.Rusage)
		t.Logf("%d hosts in %v, %d MiB, %v of CPU", hosts, took.Round(time.Millisecond), usage.Maxrss>>10,
			(c.ProcessState.UserTime() + c.ProcessState.SystemTime()).Round(time.Millisecond))
		if code := c.ProcessState.ExitCode(); code != exitUnknown {
			t.Fatalf("exit code %d, %v\n%.2000s", code, err, out.Bytes())
		}
		wrong := misjudged(t, out.Bytes(), hosts)
		if underRace {
			return
		}
		if usage.Maxrss > memory {
			t.Errorf("%d KiB of memory, at most %d", usage.Maxrss, memory)
		}
		most := timeout + time.Duration(float64(slack)*crowd())
		if took <= most && wrong == 0 {
			return
		}
		if attempt == 3 {
			t.Fatalf("%v, at most %v; %d hosts misjudged", took, most, wrong)
		}
	}
}

// crowd is how many want each CPU, by the load average, and 1 at least.
func crowd() float64 {
	var load float64
	text, _ := os.ReadFile("/proc/loadavg")
	fmt.Sscan(string(text), &load)
	return max(1, load/float64(runtime.NumCPU()))
}

// misjudged checks the lines, and counts the hosts that answer but were not
// heard: a machine that is busy for seconds loses packets.
func misjudged(t *testing.T, out []byte, hosts int) (n int) {
	t.Helper()
	lines := bytes.Split(bytes.TrimSuffix(out, []byte("\n")), []byte("\n"))
	if len(lines) != hosts+1 {
		t.Fatalf("%d lines", len(lines))
	}
	for i, line := range lines[:hosts] {
		var got struct {
			Host       string
			Outcome    string
			Exit       int
			Difference float64 `json:"clock_difference_s"`
		}
		if err := json.Unmarshal(line, &got); err != nil || got.Host != fmt.Sprint("web", i) {
			t.Fatalf("line %d: %s, %v", i, line, err)
		}
		switch off := time.Duration(got.Difference * float64(time.Second)); {
		case silent(i) && (got.Outcome != "unknown" || got.Exit != exitUnknown):
			t.Errorf("a silent host: %s", line)
		case silent(i):
		case got.Outcome == "unknown":
			n++
		case got.Outcome != "answered" || got.Exit != exitOK || (off > auth.Window) != stale(i) || off > staleBy+timeoutSlack || off < -timeoutSlack:
			t.Errorf("%s", line)
		}
	}
	var sum struct{ Summary summary }
	if err := json.Unmarshal(lines[hosts], &sum); err != nil || sum.Summary.Hosts != hosts || sum.Summary.Exit != exitUnknown ||
		sum.Summary.Exits[exitUnknown] != hosts/20+n || sum.Summary.States["no answer"] != hosts/20+n {
		t.Errorf("%s, %v", lines[hosts], err)
	}
	return n
}

// timeoutSlack is how far a clock may seem to be off when packets wait.
const timeoutSlack = 5 * time.Second

// BenchmarkTenThousand compares netsysrq with 64 workers that send one packet
// to one host at a time and wait for the answer, as nping and its like do. They
// pay for no process and no second packet, so that the ratio is at least the
// one given. Both are measured in turn, against the same responder:
//
//	go test -run '^$' -bench TenThousand -benchtime 1x ./cmd/sender
func BenchmarkTenThousand(b *testing.B) {
	const hosts, workers, timeout, rounds = 10_000, 64, 3 * time.Second, 3
	s := simulate(b, hosts)
	op, err := loadMaster(filepath.Join(s.home, ".config", "netsysrq", "master.key"))
	if err != nil {
		b.Fatal(err)
	}
	packets := make([][auth.PacketSize]byte, hosts)
	var sealers []*auth.Sealer
	for i := range packets {
		key, _ := op.master.HostKey(fmt.Sprint("web", i))
		sealers = append(sealers, auth.NewSealer(&key))
	}
	for b.Loop() {
		var ours, singles time.Duration
		for range rounds {
			c := s.command("netsysrq", "status", "@all", "--quiet", "--timeout", timeout.String())
			c.Stderr = nil
			begun := time.Now()
			c.Run()
			ours += time.Since(begun)

			for i, sealer := range sealers {
				packets[i] = sealer.SealRequest(&auth.Request{Op: auth.OpStatus, ID: auth.RequestID{1}, Time: clock.Real()})
			}
			var next, answered atomic.Int64
			var group sync.WaitGroup
			begun = time.Now()
			for range workers {
				group.Go(func() {
					for i := int(next.Add(1)) - 1; i < hosts; i = int(next.Add(1)) - 1 {
						if single(packets[i][:], netip.AddrPortFrom(fakehost.Address(i), uint16(s.port)), timeout) {
							answered.Add(1)
						}
					}
				})
			}
			group.Wait()
			singles += time.Since(begun)
			b.Logf("netsysrq %v in all so far, single packets %v (%d of %d answered)", ours, singles, answered.Load(), hosts)
		}
		b.ReportMetric(ours.Seconds()/rounds, "netsysrq_s")
		b.ReportMetric(singles.Seconds()/rounds, "singles_s")
		b.ReportMetric(singles.Seconds()/ours.Seconds(), "ratio")
	}
}

func single(packet []byte, to netip.AddrPort, timeout time.Duration) bool {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		return false
	}
	defer conn.Close()
	conn.Write(packet)
	conn.SetReadDeadline(time.Now().Add(timeout))
	n, err := conn.Read(make([]byte, auth.PacketSize))
	return err == nil && n == auth.PacketSize
}

// On a terminal the table stays within it, whatever the number of hosts, and
// ends with every host.
func TestTerminal(t *testing.T) {
	const hosts, width, height = 200, 80, 24
	s := simulate(t, hosts)
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("SKIP: no terminals here: %v", err)
	}
	defer master.Close()
	unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprint("/dev/pts/", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("SKIP: no terminals here: %v", err)
	}
	unix.IoctlSetWinsize(int(slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: height, Col: width})
	c := s.command("netsysrq", "status", "@all", "--timeout", "2s")
	c.Env = append(c.Env, "TERM=xterm")
	c.Stdout = slave
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	text, _ := io.ReadAll(master) // ends with an error when nobody has the other side
	c.Wait()

	frames := strings.Split(string(text), "\x1b[J")
	if len(frames) < 3 {
		t.Fatalf("%d frames: %q", len(frames), text)
	}
	last := len(frames) - 1
	for _, f := range frames[:last] {
		if lines := strings.Count(f, "\n"); lines >= height {
			t.Errorf("a frame of %d lines", lines)
		}
		for l := range strings.Lines(f) {
			plain := strings.NewReplacer("\x1b[K", "", "\r", "", "\n", "").Replace(l)
			if i := strings.Index(plain, "A"); strings.HasPrefix(plain, "\x1b[") && i > 0 {
				plain = plain[i+1:]
			}
			if n := len([]rune(plain)); n >= width {
				t.Errorf("%d columns: %q", n, plain)
			}
		}
	}
	if !strings.Contains(frames[last-2], "of 200 hosts") || !strings.Contains(frames[last-2], "… and 1") {
		t.Errorf("the last frame before the end: %q", frames[last-2])
	}
	if n := strings.Count(frames[last], "\n"); n != hosts+2 {
		t.Errorf("%d lines at the end: %q", n, frames[last])
	}
	if !strings.Contains(frames[last], ": 190 up, 10 no answer; the clock differs on 2") {
		t.Errorf("%q", frames[last])
	}
}
