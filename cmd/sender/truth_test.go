// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
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

// stage is hosts behind a faked network, and the command before it, all on the
// clock of a bubble.
type stage struct {
	world   world
	host    *fakehost.Host   // web1
	hosts   []*fakehost.Host // web1, web2 and so on
	network *fakehost.Network
	sealer  *auth.Sealer
	out     bytes.Buffer
}

// isRun reports whether a packet asks for a run.
func (s *stage) isRun(packet []byte) bool {
	var r auth.Request
	reason, _ := s.sealer.OpenRequest(slices.Clone(packet), &r)
	return reason == auth.OK && r.Op == auth.OpRun
}

// isAnswer reports whether a packet answers a run.
func (s *stage) isAnswer(packet []byte) bool {
	var r auth.Reply
	s.sealer.OpenReply(slices.Clone(packet), auth.RequestID{}, &r)
	return r.Result != auth.Status
}

// dies has the machine fall silent when it runs something, and come back as
// told: after a time, its daemon later; 0: never.
func (s *stage) dies(kernel, daemon time.Duration) {
	dies(s.host, kernel, daemon)
}

func dies(h *fakehost.Host, kernel, daemon time.Duration) {
	h.OnRun(func(h *fakehost.Host, _ auth.Request) {
		time.AfterFunc(100*time.Millisecond, func() { h.Mute(true) })
		if kernel > 0 {
			time.AfterFunc(kernel, func() { h.Reboot(); h.Attach(fakehost.Absent); h.Mute(false) })
		}
		if daemon > 0 {
			time.AfterFunc(daemon, func() { h.Attach(fakehost.Healthy) })
		}
	})
}

func newStage(t *testing.T, n int, change func(*fakehost.Config)) *stage {
	home := t.TempDir()
	op := &operator{"alice", auth.NewMaster()}
	if err := saveMaster(filepath.Join(home, "netsysrq", "master.key"), op); err != nil {
		t.Fatal(err)
	}
	stderr, err := os.Create(filepath.Join(home, "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stderr.Close() })
	stdin, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close() })

	started := time.Now()
	real := func() uint64 { return uint64(time.Now().UnixNano()) }
	boot := func() uint64 { return uint64(time.Since(started) + 24*time.Hour) }
	allow, _ := auth.ParseKeySet("nsubt")
	s := &stage{network: &fakehost.Network{Latency: 5 * time.Millisecond}}
	list := ""
	for i := range n {
		name, addr := fmt.Sprint("web", i+1), fakehost.Address(i)
		key, _ := op.master.HostKey(name)
		cfg := fakehost.Config{Key: key, Allow: allow, Executor: auth.Kernel, Sysrq: 438, Attached: fakehost.Healthy,
			Synchronised: true, Clock: func() (uint64, uint64) { return real(), boot() }}
		if change != nil {
			change(&cfg)
		}
		h := fakehost.New(cfg, time.Hour)
		s.hosts = append(s.hosts, h)
		s.network.Add(netip.AddrPortFrom(addr, auth.Port), h)
		list += fmt.Sprintf("[hosts.%s]\naddress = \"%v\"\n", name, addr)
		if i == 0 {
			s.host, s.sealer = h, auth.NewSealer(&key)
		}
	}
	if err := os.WriteFile(filepath.Join(home, "netsysrq", "hosts.toml"), []byte(list), 0o600); err != nil {
		t.Fatal(err)
	}
	s.world = world{
		stdin: stdin, stdout: &s.out, stderr: stderr,
		getenv:  func(name string) string { return map[string]string{"XDG_CONFIG_HOME": home, "HOME": home}[name] },
		clock:   exchange.Clock{Real: real, Boot: boot, Synchronised: func() bool { return true }},
		dial:    s.network.Dial,
		sockets: func(bool) (exchange.Socket, error) { return s.network.Open(), nil },
	}
	return s
}

// What the command says happened is what happened: the line, the JSON and the
// exit code, of one host alone and of one of many.
func TestTruth(t *testing.T) {
	const steps = `n, s, u, b`
	for _, c := range []struct {
		name    string
		command string
		config  func(*fakehost.Config)
		stage   func(*stage)
		code    int
		outcome string // in JSON
		line    string // a regular expression, after the host's name
		state   string // in the summary
		runs    int
		phase   string // in JSON, if it was waited for
	}{
		{name: "executed", command: "send web1 s", code: 0, outcome: "accepted", line: `accepted: s by the daemon \(10 ms\)`, state: "accepted", runs: 1},
		{name: "executed by the kernel", command: "reboot web1 --yes", config: func(c *fakehost.Config) { c.Attached = fakehost.Hung },
			code: 0, outcome: "accepted", line: `accepted: ` + steps + ` \(10 ms\); the kernel answers: the daemon has been silent for 8 s`, state: "accepted", runs: 1},
		{name: "refused", command: "send web1 s,o --yes",
			code: 3, outcome: "refused", line: `refused by policy: key o is not allowed for this key`, state: "refused"},
		{name: "vetoed", command: "reboot web1 --yes", config: func(c *fakehost.Config) { c.Attached = fakehost.Forbids },
			code: 3, outcome: "refused", line: `vetoed: the host's daemon forbade it, or .*`, state: "vetoed"},
		{name: "masked", command: "reboot web1 --yes", config: func(c *fakehost.Config) { c.Sysrq = 176 },
			code: 3, outcome: "refused", line: `refused by kernel.sysrq: its value there is 176, with which the kernel ignores n`, state: "masked"},
		{name: "stale", command: "reboot web1 --yes --one-packet", config: func(c *fakehost.Config) {
			before := c.Clock
			c.Clock = func() (uint64, uint64) { r, b := before(); return r + 40e9, b }
		}, code: 3, outcome: "refused", line: `stale: its clock is 40 s ahead of ours, and a time is taken only within 15s`, state: "stale"},
		{name: "lost reply", command: "send web1 s", stage: func(s *stage) {
			s.network.Down = func(_ int, _ netip.AddrPort, p []byte) bool { return !s.isAnswer(p) }
		}, code: 5, outcome: "unknown", line: `unknown: it answered at first, but not to the run: no answer within 10 s; it may have been done all the same`, state: "unknown", runs: 1},
		{name: "lost reply of a machine that rebooted", command: "reboot web1 --yes", stage: func(s *stage) {
			s.host.OnRun(func(h *fakehost.Host, _ auth.Request) { h.Lose(); h.Fall() })
		}, code: 4, outcome: "rebooted", line: `rebooted since it was asked: boot [0-9a-f]{8} before, [0-9a-f]{8} now, up 0 s; that it accepted was not heard`, state: "rebooted", runs: 1},
		{name: "lost request", command: "reboot web1 --yes", stage: func(s *stage) {
			s.network.Up = func(_ int, _ netip.AddrPort, p []byte) bool { return !s.isRun(p) }
		}, code: 5, outcome: "unknown", line: `unknown: it answered at first, but not to the run: no answer within 10 s; it may have been done all the same`, state: "unknown"},
		{name: "everything is lost", command: "reboot web1 --yes", stage: func(s *stage) { s.host.Mute(true) },
			code: 5, outcome: "unknown", line: `unknown: no answer within 10 s; it may have been done all the same`, state: "unknown"},
		{name: "a status is not answered", command: "status web1", stage: func(s *stage) { s.host.Mute(true) },
			code: 5, outcome: "unknown", line: `no answer within 10 s`, state: "no answer"},

		{name: "came back", command: "reboot web1 --yes --wait", stage: func(s *stage) { s.dies(40*time.Second, 50*time.Second) },
			code: 0, outcome: "accepted", line: `came back by its daemon after 5[0-9.]+ s \(silent after .*, its kernel answered after 4[0-9.]+ s, boot [0-9a-f]{8} before, [0-9a-f]{8} now\); accepted: ` + steps + ` by the daemon \(10 ms\)`,
			state: "back", runs: 1, phase: "back"},
		{name: "came back, and its answer was lost", command: "reboot web1 --yes --wait 2m", stage: func(s *stage) {
			s.network.Down = func(_ int, _ netip.AddrPort, p []byte) bool { return !s.isAnswer(p) }
			s.dies(40*time.Second, 41*time.Second)
		}, code: 4, outcome: "unknown", line: `came back by its daemon after .*; that it accepted was not heard`, state: "back", runs: 1, phase: "back"},
		{name: "came back without its daemon", command: "reboot web1 --yes --wait 2m", stage: func(s *stage) { s.dies(40*time.Second, 0) },
			code: 8, outcome: "accepted", line: `came back after 4[0-9.]+ s, the daemon not yet: the kernel answers, no daemon was ever heard \(silent after .*\); accepted: .*`,
			state: "back, no daemon", runs: 1, phase: "kernel"},
		{name: "died between reply and step", command: "reboot web1 --yes --wait 2m", stage: func(s *stage) { s.dies(0, 0) },
			code: 9, outcome: "accepted", line: `did not come back in 2 min: silent from [0-9.]+ m?s on; accepted: .*`, state: "not back", runs: 1, phase: "gone"},
		{name: "accepted and never went", command: "send web1 s,b --yes --wait 30s",
			code: 9, outcome: "accepted", line: `did not come back in 30.*s: it never went down, and answers with the boot that it had \([0-9a-f]{8}\); accepted: .*`, state: "never went", runs: 1, phase: "running"},
		{name: "lost request, waited for", command: "reboot web1 --yes --wait", stage: func(s *stage) {
			s.network.Up = func(_ int, _ netip.AddrPort, p []byte) bool { return !s.isRun(p) }
		}, code: 5, outcome: "unknown", line: `unknown: it did not go down in 35.*s, and answers with the boot that it had \([0-9a-f]{8}\); that it accepted was not heard`, state: "never went", phase: "running"},
		{name: "refused, and not waited for", command: "send web1 o:10ms,b --yes --wait",
			code: 3, outcome: "refused", line: `refused by policy: key o is not allowed for this key`, state: "refused"},
		{name: "only rehearsed by its configuration", command: "reboot web1 --yes --wait", config: func(c *fakehost.Config) { c.DryRun = true },
			code: 3, outcome: "accepted", line: `dry run: the host only rehearses .*`, state: "dry run"},
	} {
		check := func(t *testing.T, args []string, look func(*testing.T, []string)) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, 1, c.config)
				if c.stage != nil {
					c.stage(s)
				}
				if code := run(t.Context(), args, s.world); code != c.code {
					t.Errorf("exit code %d, want %d", code, c.code)
				}
				if got := s.host.Runs(); got != c.runs {
					t.Errorf("run %d times, want %d", got, c.runs)
				}
				look(t, strings.Split(strings.TrimSuffix(s.out.String(), "\n"), "\n"))
			})
		}
		args := strings.Fields(c.command)
		line := regexp.MustCompile(`^web1: ` + c.line + `$`)
		object := func(t *testing.T, text string) {
			var got struct {
				V       int
				Host    string
				Outcome string
				Exit    int
				Message string
				Wait    *struct {
					Phase      string
					BootBefore string   `json:"boot_before"`
					BootAfter  string   `json:"boot_after"`
					BackS      *float64 `json:"back_s"`
				}
			}
			if err := json.Unmarshal([]byte(text), &got); err != nil {
				t.Fatalf("%v: %s", err, text)
			}
			if got.V != 1 || got.Host != "web1" || got.Outcome != c.outcome || got.Exit != c.code || !line.MatchString(got.Message) {
				t.Errorf("%+v", got)
			}
			if (got.Wait != nil) != (c.phase != "") {
				t.Fatalf("waited: %+v", got.Wait)
			}
			if got.Wait == nil {
				return
			}
			back := c.phase == "back" || c.phase == "kernel"
			if w := got.Wait; w.Phase != c.phase || w.BootBefore == "" || (w.BootAfter != "") != back || (w.BackS != nil) != back || w.BootAfter == w.BootBefore {
				t.Errorf("%+v", w)
			}
		}
		t.Run(c.name, func(t *testing.T) {
			check(t, args, func(t *testing.T, out []string) {
				if len(out) != 1 || !line.MatchString(out[0]) {
					t.Errorf("%q\nwant %s", out, line)
				}
			})
		})
		t.Run(c.name+", JSON", func(t *testing.T) {
			check(t, append(args, "--json"), func(t *testing.T, out []string) {
				if len(out) != 1 {
					t.Fatalf("%q", out)
				}
				object(t, out[0])
			})
		})
		// Twice the same is one of many.
		many := slices.Insert(slices.Clone(args), 1, "web1")
		t.Run(c.name+", one of many", func(t *testing.T) {
			check(t, many, func(t *testing.T, out []string) {
				if len(out) != 2 || !line.MatchString(out[0]) || !strings.Contains(out[1], ": 1 "+c.state) {
					t.Errorf("%q\nwant %s and %s", out, line, c.state)
				}
			})
		})
		t.Run(c.name+", JSON of many", func(t *testing.T) {
			check(t, append(many, "--json"), func(t *testing.T, out []string) {
				if len(out) != 2 {
					t.Fatalf("%q", out)
				}
				object(t, out[0])
				var sum struct {
					V       int
					Summary summary
				}
				if err := json.Unmarshal([]byte(out[1]), &sum); err != nil || sum.V != 1 || sum.Summary.Exit != c.code ||
					sum.Summary.Hosts != 1 || sum.Summary.States[c.state] != 1 || sum.Summary.Exits[c.code] != 1 {
					t.Errorf("%s, %v", out[1], err)
				}
			})
		})
	}
}

// One after the other, and no further than the first that does not come back.
func TestRolling(t *testing.T) {
	for _, c := range []struct {
		flags   string
		dead    int // host that does not come back; 0: none
		code    int
		asked   int
		summary string
	}{
		{"--rolling 1", 0, 0, 6, `^6 hosts in 4 min.*: 6 back$`},
		{"--rolling 3", 0, 0, 6, `^6 hosts in 1 min 2.*: 6 back$`},
		{"--rolling 1", 3, 9, 3, `^6 hosts in .*: 3 not asked, 2 back, 1 not back; stopped at web3; not asked: web4 web5 web6$`},
		{"--rolling 2 --wait 50s", 1, 9, 3, `^6 hosts in .*: 3 not asked, 2 back, 1 not back; stopped at web1; not asked: web4 web5 web6$`},
	} {
		t.Run(fmt.Sprintf("%s, %d", c.flags, c.dead), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, 6, nil)
				for i, h := range s.hosts {
					if dies(h, 30*time.Second, 40*time.Second); i+1 == c.dead {
						dies(h, 0, 0)
					}
				}
				code := run(t.Context(), append([]string{"reboot", "@all", "--yes"}, strings.Fields(c.flags)...), s.world)
				out := strings.Split(strings.TrimSuffix(s.out.String(), "\n"), "\n")
				if last := out[len(out)-1]; code != c.code || len(out) != 7 || !regexp.MustCompile(c.summary).MatchString(last) {
					t.Errorf("exit code %d\n%s\nwant %d: %s", code, s.out.String(), c.code, c.summary)
				}
				for i, h := range s.hosts {
					if want := i < c.asked; (h.Runs() == 1) != want || (h.Seen() > 0) != want {
						t.Errorf("web%d: %d packets, %d runs", i+1, h.Seen(), h.Runs())
					}
					if notAsked := strings.HasSuffix(out[i], ": not asked"); notAsked != (i >= c.asked) {
						t.Errorf("%s", out[i])
					}
				}
			})
		})
	}
}
