// SPDX-License-Identifier: GPL-2.0-only

package fence

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/exchange"
	"netsysrq/internal/exchange/fakehost"
)

// stage is a node behind a faked network, and the agent before it, on the clock
// of a bubble.
type stage struct {
	world    World
	node     *fakehost.Host
	network  *fakehost.Network
	sealer   *auth.Sealer
	folder   string
	out, err bytes.Buffer
}

func newStage(t *testing.T, change func(*fakehost.Config)) *stage {
	t.Helper()
	started := time.Now()
	clock := exchange.Clock{
		Real:         func() uint64 { return uint64(time.Now().UnixNano()) },
		Boot:         func() uint64 { return uint64(time.Since(started) + 24*time.Hour) },
		Synchronised: func() bool { return true },
	}
	master := auth.NewMaster()
	key, err := master.HostKey("node2.example.org")
	if err != nil {
		t.Fatal(err)
	}
	allow, _ := auth.ParseKeySet("nsubco")
	cfg := fakehost.Config{Key: key, Allow: allow, Executor: auth.Kernel, Sysrq: 438, Attached: fakehost.Hung,
		Synchronised: true, Clock: func() (uint64, uint64) { return clock.Real(), clock.Boot() }}
	if change != nil {
		change(&cfg)
	}
	s := &stage{folder: t.TempDir(), sealer: auth.NewSealer(&key), node: fakehost.New(cfg, time.Hour),
		network: &fakehost.Network{Latency: 5 * time.Millisecond}}
	s.network.Add(netip.MustParseAddrPort("192.0.2.2:9"), s.node)
	s.write(t, "hosts.toml", "[hosts.node2]\nname = \"node2.example.org\"\naddress = \"192.0.2.2\"\nkey = \"fence.key\"\n")
	s.world = World{Stdout: &s.out, Stderr: &s.err, State: filepath.Join(s.folder, "state"), Clock: clock, Dial: s.network.Dial,
		Master: func(path string) (auth.Master, error) {
			if path != filepath.Join(s.folder, "fence.key") {
				return auth.Master{}, fmt.Errorf("read master key: %s: %w", path, os.ErrNotExist)
			}
			return master, nil
		}}
	return s
}

func (s *stage) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.folder, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// call runs the agent as a cluster manager does.
func (s *stage) call(ctx context.Context, action string, lines ...string) int {
	s.out.Reset()
	s.err.Reset()
	lines = append([]string{"action=" + action, "plug=node2", "hosts_file=" + filepath.Join(s.folder, "hosts.toml")}, lines...)
	s.world.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	return Run(ctx, nil, s.world)
}

// expect fails the test unless the agent ended and said so.
func (s *stage) expect(t *testing.T, code, want int, said string) {
	t.Helper()
	if code != want || !regexp.MustCompile(said).MatchString(s.err.String()) {
		t.Errorf("exit code %d, want %d, and %q:\n%s", code, want, said, &s.err)
	}
	if fenced := strings.Contains(s.out.String(), "Success"); fenced != (want == exitOK) {
		t.Errorf("exit code %d, and on standard output %q", want, &s.out)
	}
}

// dies has the node fall silent when it runs something, and come back after a
// time, as another boot; 0: never.
func (s *stage) dies(back time.Duration) {
	s.node.OnRun(func(h *fakehost.Host, _ auth.Request) {
		time.AfterFunc(100*time.Millisecond, func() { h.Mute(true) })
		if back > 0 {
			time.AfterFunc(back, func() { h.Reboot(); h.Attach(fakehost.Absent); h.Mute(false) })
		}
	})
}

// request opens a packet to the node.
func (s *stage) request(packet []byte) (r auth.Request) {
	s.sealer.OpenRequest(slices.Clone(packet), &r)
	return r
}

func (s *stage) isRun(packet []byte) bool { return s.request(packet).Op == auth.OpRun }

// isAnswer reports whether a packet answers a run.
func (s *stage) isAnswer(packet []byte) bool {
	var r auth.Reply
	s.sealer.OpenReply(slices.Clone(packet), auth.RequestID{}, &r)
	return r.Result != auth.Status
}

func TestReboot(t *testing.T) {
	type addr = netip.AddrPort
	for _, c := range []struct {
		name   string
		lines  []string
		config func(*fakehost.Config)
		stage  func(*stage)
		code   int
		said   string
		runs   int
		least  time.Duration // it takes
		most   time.Duration
	}{
		{name: "it comes back by its kernel alone", stage: func(s *stage) { s.dies(90 * time.Second) },
			said: `node2 accepted n,s:2s,u:2s,b, by the kernel, (?s:.*)is silent(?s:.*)node2 is fenced: it accepted, and answers with another boot id`, runs: 1, least: 90 * time.Second, most: 95 * time.Second},
		{name: "so fast that it was never silent", stage: func(s *stage) {
			s.node.OnRun(func(h *fakehost.Host, _ auth.Request) { time.AfterFunc(time.Second, h.Reboot) })
		}, said: `node2 is fenced`, runs: 1, most: 5 * time.Second},
		{name: "by its daemon", config: func(c *fakehost.Config) { c.Executor, c.Sysrq = auth.Daemon, 0 }, stage: func(s *stage) { s.dies(30 * time.Second) },
			said: `by the daemon(?s:.*)node2 is fenced`, runs: 1, most: 35 * time.Second},
		{name: "other steps", lines: []string{"steps=c"}, config: func(c *fakehost.Config) { c.Sysrq = 1 }, stage: func(s *stage) { s.dies(30 * time.Second) },
			said: `accepted c, (?s:.*)is fenced`, runs: 1, most: 35 * time.Second},
		{name: "a delay", lines: []string{"delay=60"}, stage: func(s *stage) { s.dies(10 * time.Second) },
			said: `is fenced`, runs: 1, least: 70 * time.Second, most: 75 * time.Second},
		{name: "packets are lost", stage: func(s *stage) {
			s.network.Up = func(n int, _ addr, _ []byte) bool { return n%3 == 0 }
			s.dies(30 * time.Second)
		}, said: `is fenced`, runs: 1, most: 40 * time.Second},

		{name: "accepted, and never back", stage: func(s *stage) { s.dies(0) },
			code: 1, said: `node2 is not fenced: it accepted, and has not answered with another boot id than [0-9a-f]{8} for 10m0s`, runs: 1, least: 10 * time.Minute, most: 611 * time.Second},
		{name: "accepted, and back too late", lines: []string{"power_timeout=60"}, stage: func(s *stage) { s.dies(70 * time.Second) },
			code: 1, said: `not fenced: it accepted, and has not answered`, runs: 1, most: 65 * time.Second},
		{name: "accepted, and never gone", code: 1, said: `not fenced: it accepted, and still answers with boot id [0-9a-f]{8} after 2[0-9]s`, runs: 1, most: 30 * time.Second},
		{name: "accepted, and back as it was", stage: func(s *stage) {
			s.node.OnRun(func(h *fakehost.Host, _ auth.Request) {
				time.AfterFunc(time.Second, func() { h.Mute(true) })
				time.AfterFunc(time.Minute, func() { h.Mute(false) })
			})
		}, code: 1, said: `not fenced: it accepted, and still answers with boot id`, runs: 1, most: 65 * time.Second},
		{name: "accepted, and then the network is cut", stage: func(s *stage) {
			s.node.OnRun(func(h *fakehost.Host, _ auth.Request) {
				time.AfterFunc(time.Second, func() { h.Mute(true) })
			})
		}, code: 1, said: `not fenced: it accepted, and has not answered`, runs: 1, most: 611 * time.Second},
		{name: "silence", stage: func(s *stage) { s.node.Mute(true) }, code: 1, said: `not fenced: no answer within 10s`, most: 11 * time.Second},
		{name: "it answers, and the run is lost", stage: func(s *stage) {
			s.network.Up = func(_ int, _ addr, p []byte) bool { return !s.isRun(p) }
		}, code: 1, said: `not fenced: it answered, but that it accepted was not heard within 10s`, most: 11 * time.Second},
		{name: "the answer is lost, and it goes on", stage: func(s *stage) {
			s.network.Down = func(_ int, _ addr, p []byte) bool { return !s.isAnswer(p) }
		}, code: 1, said: `not fenced: it answered, but that it accepted was not heard within 10s`, runs: 1, most: 11 * time.Second},
		{name: "the answer is lost, and it reboots", stage: func(s *stage) {
			s.node.OnRun(func(h *fakehost.Host, _ auth.Request) { h.Lose(); h.Fall() })
		}, code: 1, said: `not fenced: it has another boot id, [0-9a-f]{8} instead of [0-9a-f]{8}, but that it accepted was not heard`, runs: 1, most: 11 * time.Second},
		{name: "it reboots by itself", stage: func(s *stage) {
			fell := false
			s.network.Up = func(_ int, _ addr, p []byte) bool {
				if !s.isRun(p) || fell {
					return true
				}
				fell = true
				s.node.Reboot()
				return false
			}
		}, code: 1, said: `not fenced: it has another boot id`, most: 11 * time.Second},
		{name: "a key is not allowed", config: func(c *fakehost.Config) { c.Allow, _ = auth.ParseKeySet("su") },
			code: 1, said: `not fenced: it refused, because of n, b: `, most: time.Second},
		{name: "kernel.sysrq", config: func(c *fakehost.Config) { c.Sysrq = 176 },
			code: 1, said: `not fenced: it refused, because of n: `, most: time.Second},
		{name: "vetoed", config: func(c *fakehost.Config) { c.Attached = fakehost.Forbids }, code: 1, said: `not fenced: it refused: vetoed`, most: time.Second},
		{name: "dry run", config: func(c *fakehost.Config) { c.DryRun = true }, code: 1, said: `not fenced: it only rehearses: dry_run`, most: time.Second},
		{name: "another key", stage: func(s *stage) { s.world.Master = func(string) (auth.Master, error) { return auth.NewMaster(), nil } },
			code: 1, said: `not fenced: no answer within 10s`, most: 11 * time.Second},
		{name: "no network of this side", stage: func(s *stage) { s.world.Dial = noNetwork }, code: 1, said: `not fenced: .*nothing could be sent`, least: 10 * time.Second, most: 11 * time.Second},
		{name: "the network of this side comes back", stage: func(s *stage) {
			s.dies(30 * time.Second)
			dial, begun := s.world.Dial, time.Now()
			s.world.Dial = func(ctx context.Context, to netip.AddrPort) (io.ReadWriteCloser, error) {
				if time.Since(begun) < 5*time.Second {
					return noNetwork(ctx, to)
				}
				return dial(ctx, to)
			}
		}, said: `is fenced`, runs: 1, most: 40 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, c.config)
				if c.stage != nil {
					c.stage(s)
				}
				begun := time.Now()
				code := s.call(t.Context(), "reboot", c.lines...)
				took := time.Since(begun)
				s.expect(t, code, c.code, c.said)
				if took < c.least || took > c.most {
					t.Errorf("it took %v, not %v to %v", took, c.least, c.most)
				}
				if got := s.node.Runs(); got != c.runs {
					t.Errorf("run %d times, want %d", got, c.runs)
				}
				if left, _ := filepath.Glob(filepath.Join(s.world.State, "*")); len(left) > 0 {
					t.Errorf("left behind: %v", left)
				}
				if strings.Contains(s.err.String(), "Success") || s.out.Len() > 0 && s.out.String() != "Success: Rebooted\n" {
					t.Errorf("standard output %q, standard error %q", &s.out, &s.err)
				}
			})
		})
	}
}

func noNetwork(context.Context, netip.AddrPort) (io.ReadWriteCloser, error) {
	return nil, errors.New("network is unreachable")
}

// What a host says of a run, beside what the stage can make it say.
func TestAccepted(t *testing.T) {
	steps, _ := auth.ParseSteps("n,s:2s,u:2s,b")
	boot := auth.BootID{1}
	for _, c := range []struct {
		reply auth.Reply
		said  string // empty: accepted
	}{
		{auth.Reply{Boot: boot}, ""},
		{auth.Reply{Boot: boot, Mask: 0b0110}, ""},
		{auth.Reply{Boot: boot, Flags: auth.Repeat | auth.Armed}, ""},
		{auth.Reply{Boot: boot, Mask: 0b1000}, "it accepted, but will not run b"},
		{auth.Reply{Boot: boot, Flags: auth.Rehearsed, Mask: 0b1111}, "it only rehearsed"},
		{auth.Reply{Boot: boot, Flags: auth.DryRun, Mask: 0b1111}, "it only rehearses: dry_run is set in its configuration"},
		{auth.Reply{}, "it accepted, but has no boot id to prove a reboot by"},
	} {
		c.reply.Result = auth.Accepted
		err := accepted(&exchange.Outcome{Kind: exchange.Accepted, Reply: &c.reply}, steps, time.Second)
		if got := fmt.Sprint(err); err == nil && c.said != "" || err != nil && got != c.said {
			t.Errorf("%+v: %v, want %q", c.reply, err, c.said)
		}
	}
}

// A node that answers without a boot id proves nothing by that.
func TestNoBootID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, nil)
		s.dies(0)
		dial := s.world.Dial
		s.world.Dial = func(ctx context.Context, to netip.AddrPort) (io.ReadWriteCloser, error) {
			c, err := dial(ctx, to)
			return &nameless{ReadWriteCloser: c, s: s}, err
		}
		code := s.call(t.Context(), "reboot", "power_timeout=30")
		s.expect(t, code, exitFailure, `not fenced: it accepted, and has not answered with another boot id`)
	})
}

// nameless answers each status, once the node has run something, without a boot
// id.
type nameless struct {
	io.ReadWriteCloser
	s *stage
}

func (n *nameless) Write(p []byte) (int, error) {
	if r := n.s.request(p); n.s.node.Runs() > 0 && r.Op == auth.OpStatus {
		reply := n.s.sealer.SealReply(&auth.Reply{ID: r.ID, Executor: auth.Kernel, Time: r.Time})
		n.ReadWriteCloser.(*fakehost.Wire).Inject(netip.MustParseAddrPort("192.0.2.2:9"), reply[:])
	}
	return n.ReadWriteCloser.Write(p)
}

func TestOff(t *testing.T) {
	for _, c := range []struct {
		name  string
		lines []string
		stage func(*stage)
		code  int
		said  string
		runs  int
		sent  bool
		least time.Duration
	}{
		{name: "not asked for", code: 1, said: `off is not tried: a machine that is off cannot prove it`},
		{name: "too short a silence", lines: []string{"silence_as_off=5"}, code: 1, said: `silence_as_off: it must be 0, or 30 or more`},
		{name: "silent", lines: []string{"silence_as_off=60"}, stage: func(s *stage) { s.dies(0) },
			said: `accepted n,s:2s,u:2s,o(?s:.*)node2 is called off: .*this is no proof`, runs: 1, sent: true, least: time.Minute},
		{name: "silent, and there again in time", lines: []string{"silence_as_off=60", "power_timeout=120"}, stage: func(s *stage) {
			s.node.OnRun(func(h *fakehost.Host, _ auth.Request) {
				time.AfterFunc(time.Second, func() { h.Mute(true) })
				time.AfterFunc(50*time.Second, func() { h.Mute(false) })
			})
		}, code: 1, said: `not off: it accepted, and still answers after 2m`, runs: 1, sent: true},
		{name: "silent, after it has answered for long", lines: []string{"silence_as_off=60"}, stage: func(s *stage) {
			s.node.OnRun(func(h *fakehost.Host, _ auth.Request) { time.AfterFunc(2*time.Minute, func() { h.Mute(true) }) })
		}, said: `called off`, runs: 1, sent: true, least: 3 * time.Minute},
		{name: "it reboots instead", lines: []string{"silence_as_off=60"}, stage: func(s *stage) { s.dies(50 * time.Second) },
			code: 1, said: `not off: it answers with another boot id`, runs: 1, sent: true},
		{name: "it accepts nothing", lines: []string{"silence_as_off=60"}, stage: func(s *stage) { s.node.Mute(true) },
			code: 1, said: `not fenced: no answer within 10s`, sent: true},
		{name: "the network of this side fails", lines: []string{"silence_as_off=60"}, stage: func(s *stage) {
			s.dies(0)
			dial := s.world.Dial
			s.world.Dial = func(ctx context.Context, to netip.AddrPort) (io.ReadWriteCloser, error) {
				if s.node.Runs() > 0 {
					return noNetwork(ctx, to)
				}
				return dial(ctx, to)
			}
		}, code: 1, said: `not fenced: it accepted, but this side cannot ask it any more`, runs: 1, sent: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, nil)
				if c.stage != nil {
					c.stage(s)
				}
				begun := time.Now()
				s.expect(t, s.call(t.Context(), "off", c.lines...), c.code, c.said)
				if took := time.Since(begun); took < c.least {
					t.Errorf("it took %v, not %v", took, c.least)
				}
				if s.node.Runs() != c.runs || (s.network.Sent() > 0) != c.sent {
					t.Errorf("run %d times, %d packets", s.node.Runs(), s.network.Sent())
				}
			})
		})
	}
}

// A manager that ends the agent too early and calls it again gets its proof, and
// the machine is reset once.
func TestCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, nil)
		s.dies(100 * time.Second)
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			code := s.call(ctx, "reboot")
			cancel()
			s.expect(t, code, exitFailure, `not fenced: interrupted after 30s(?s:.*)pcmk_reboot_timeout`)
			time.Sleep(2 * time.Second)
		}
		s.expect(t, s.call(t.Context(), "reboot"), exitOK, `accepted 1m3[0-9]s ago, in a call that ended too early(?s:.*)node2 is fenced`)
		if got := s.node.Runs(); got != 1 {
			t.Errorf("run %d times", got)
		}
		// What happens after that is another matter.
		s.dies(20 * time.Second)
		s.expect(t, s.call(t.Context(), "reboot"), exitOK, `node2 accepted(?s:.*)node2 is fenced`)
		if got := s.node.Runs(); got != 2 {
			t.Errorf("run %d times", got)
		}
	})
}

// A call that was cut off counts for a moment only: a node that has come back and
// has failed again is to be reset.
func TestCutOffLongAgo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, nil)
		s.dies(40 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		s.call(ctx, "reboot")
		cancel()
		time.Sleep(20 * time.Second)
		s.expect(t, s.call(t.Context(), "reboot"), exitOK, `node2 accepted(?s:.*)node2 is fenced`)
		if got := s.node.Runs(); got != 2 {
			t.Errorf("run %d times", got)
		}
	})
}

// A note that is damaged, from the future, or somebody else's is none.
func TestNotes(t *testing.T) {
	now := uint64(1000e9)
	clock := exchange.Clock{Boot: func() uint64 { return now }}
	key := auth.KeyID{1, 2, 3}
	for _, c := range []struct {
		text string
		mode os.FileMode
		ok   bool
	}{
		{"0102030405060708 980000000000 990000000000\n", 0o600, true},
		{"0102030405060708 980000000000 990000000000\n", 0o644, false},
		{"0102030405060708 980000000000 984000000000\n", 0o600, false},
		{"0102030405060708 980000000000 1000000000001\n", 0o600, false},
		{"0102030405060708 995000000000 990000000000\n", 0o600, false},
		{"01020304050607 980000000000 990000000000\n", 0o600, false},
		{"0102030405060708 980000000000\n", 0o600, false},
		{"", 0o600, false},
	} {
		n := notesFor(t.TempDir(), key, clock)
		if err := os.WriteFile(n.path, []byte(c.text), c.mode); err != nil {
			t.Fatal(err)
		}
		boot, ago, ok := n.read()
		if ok != c.ok || ok && (boot != auth.BootID{1, 2, 3, 4, 5, 6, 7, 8} || ago != 20*time.Second) {
			t.Errorf("%q: %x, %v, %v", c.text, boot, ago, ok)
		}
	}
	n := notesFor(filepath.Join(t.TempDir(), "new"), key, clock)
	n.begin(auth.BootID{9})
	now += 5e9
	if boot, ago, ok := notesFor(filepath.Dir(n.path), key, clock).read(); !ok || boot != (auth.BootID{9}) || ago != 5*time.Second {
		t.Errorf("%x, %v, %v", boot, ago, ok)
	}
	n.remove()
	if _, _, ok := n.read(); ok {
		t.Error("it is still there")
	}
}

func TestStatus(t *testing.T) {
	for _, c := range []struct {
		name  string
		stage func(*stage)
		code  int
		out   string
		said  string
	}{
		{"it answers", func(*stage) {}, exitOK, "Status: ON\n", `^$`},
		{"it does not", func(s *stage) { s.node.Mute(true) }, exitFailure, "", `no answer within 10s: it is not known whether it is on`},
		{"nothing can be sent", func(s *stage) { s.world.Dial = noNetwork }, exitFailure, "", `nothing could be sent`},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, nil)
				c.stage(s)
				code := s.call(t.Context(), "status")
				if code != c.code || s.out.String() != c.out || !regexp.MustCompile(c.said).MatchString(s.err.String()) || s.node.Runs() > 0 {
					t.Errorf("%d, %q, %q", code, &s.out, &s.err)
				}
			})
		})
	}
}

// What looks at the configuration asks nobody.
func TestConfiguration(t *testing.T) {
	for _, c := range []struct {
		name   string
		action string
		lines  []string
		hosts  string
		code   int
		out    string
		said   string
	}{
		{name: "one node", action: "monitor"},
		{name: "all nodes", action: "monitor", lines: []string{"plug="}},
		{name: "no key", action: "monitor", lines: []string{"key_file=/nonexistent"}, code: 1, said: `read master key: /nonexistent`},
		{name: "no key of another node", action: "monitor", lines: []string{"plug="}, hosts: "[hosts.node1]\n[hosts.node2]\nkey = \"fence.key\"\n", code: 1, said: `/etc/netsysrq/fence.key`},
		{name: "no key of another node does not matter", action: "monitor", hosts: "[hosts.node1]\n[hosts.node2]\nkey = \"fence.key\"\n"},
		{name: "a typing mistake", action: "validate-all", hosts: "[host.node2]\n", code: 1, said: `hosts.toml:1: unknown setting`},
		{name: "no list", action: "validate-all", lines: []string{"hosts_file=/nonexistent"}, code: 1, said: `/nonexistent`},
		{name: "no reset", action: "validate-all", lines: []string{"steps=n,s"}, code: 1, said: `steps: b, or c for a crash dump, must be the last one`},
		{name: "a reset too early", action: "validate-all", lines: []string{"steps=b,s,b"}, code: 1, said: `steps: b, or c`},
		{name: "power off as a reboot", action: "validate-all", lines: []string{"steps=s,o"}, code: 1, said: `steps: b, or c`},
		{name: "no steps", action: "validate-all", lines: []string{"steps=n,?"}, code: 1, said: `steps: bad sequence`},
		{name: "a bad time", action: "validate-all", lines: []string{"power_timeout=soon"}, code: 1, said: `power_timeout: it must be a number of seconds`},
		{name: "a bad port", action: "validate-all", lines: []string{"ipport=0"}, code: 1, said: `ipport: it must be 1 to 65535`},
		{name: "both families", action: "validate-all", lines: []string{"inet4_only=1", "inet6_only=yes"}, code: 1, said: `exclude each other`},
		{name: "a bad name", action: "validate-all", lines: []string{"plug=node1,node2"}, code: 1, said: `plug "node1,node2"`},
		{name: "no name", action: "reboot", lines: []string{"plug="}, code: 1, said: `plug is missing`},
		{name: "list", action: "list", out: "node2,node2.example.org\n"},
		{name: "list of nobody", action: "list", hosts: "[defaults]\nport = 9\n", code: 1, said: `there are no hosts in`},
		{name: "on", action: "on", code: 1, said: `on is not possible`},
		{name: "another action", action: "dance", code: 1, said: `unknown action "dance"`},
		{name: "no action", action: "", code: 1, said: `unknown action ""`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t, nil)
			if c.hosts != "" {
				s.write(t, "hosts.toml", c.hosts)
			}
			code := s.call(t.Context(), c.action, c.lines...)
			if code != c.code || s.out.String() != c.out || !regexp.MustCompile(c.said).MatchString(s.err.String()) || (s.err.Len() > 0) != (c.said != "") {
				t.Errorf("%d, %q, %q", code, &s.out, &s.err)
			}
			if n := s.network.Sent(); n > 0 {
				t.Errorf("%d packets were sent", n)
			}
		})
	}
}
