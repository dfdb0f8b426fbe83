// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"netsysrq/auth"
	"netsysrq/internal/clock"
	"netsysrq/internal/exchange/fakehost"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		// netsysrq is the command; CLOCK=wrong makes its clock one that is
		// not synchronised.
		"netsysrq": func() {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
			defer stop()
			w := system()
			w.clock.Synchronised = func() bool { return os.Getenv("CLOCK") != "wrong" }
			os.Exit(run(ctx, os.Args[1:], w))
		},
		// The same binary by its other name.
		"fence_netsysrq": main,
		"fakefleet":      func() { fakeFleet(os.Args[1:]) },
		// exits CODE COMMAND... fails unless the command ends with that code.
		"exits": func() {
			c := exec.Command(os.Args[2], os.Args[3:]...)
			c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
			if err := c.Run(); c.ProcessState == nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			if code := strconv.Itoa(c.ProcessState.ExitCode()); code != os.Args[1] {
				fmt.Fprintf(os.Stderr, "exit code %s, want %s\n", code, os.Args[1])
				os.Exit(1)
			}
		},
	})
}

func TestScripts(t *testing.T) {
	var hosts hostsOfScripts
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("USER", "alice")
			e.Setenv("XDG_CONFIG_HOME", "")
			e.Setenv("XDG_STATE_HOME", "")
			e.Setenv("GORACE", "atexit_sleep_ms=0") // else each command takes a second more
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"host":  func(ts *testscript.TestScript, neg bool, args []string) { startHost(ts, &hosts, args) },
			"hosts": func(ts *testscript.TestScript, neg bool, args []string) { startHosts(ts, args) },
			// runs N fails unless the host ran N sequences so far.
			"runs": func(ts *testscript.TestScript, neg bool, args []string) {
				if got := strconv.Itoa(hosts.of(ts).Runs()); got != args[0] {
					ts.Fatalf("the host ran %s sequences, want %s", got, args[0])
				}
			},
			// seen N fails unless N packets came to the host so far.
			"seen": func(ts *testscript.TestScript, neg bool, args []string) {
				if got := strconv.Itoa(hosts.of(ts).Seen()); got != args[0] {
					ts.Fatalf("%s packets came to the host, want %s", got, args[0])
				}
			},
		},
	})
}

// startHost is "host LINE [WORD...]": a host that took the enrolment line in
// the file LINE, on loopback at port $PORT.
func startHost(ts *testscript.TestScript, hosts *hostsOfScripts, args []string) {
	e, err := auth.ParseEnrolment(ts.ReadFile(args[0]))
	ts.Check(err)
	cfg, falls := configure(ts, fakehost.Config{Key: e.Key, Allow: e.Allow}, args[1:])
	h := fakehost.New(cfg, 76*time.Hour)
	conn, err := fakehost.Loopback("127.0.0.1")
	ts.Check(err)
	ts.Defer(func() { conn.Close() })
	ts.Setenv("PORT", strconv.Itoa(int(conn.LocalAddr().(*net.UDPAddr).AddrPort().Port())))
	hosts.m.Store(ts, h)
	if falls {
		h.OnRun(func(h *fakehost.Host, _ auth.Request) { h.Fall(); h.Lose() })
	}
	equip(h, args[1:], "")
	go h.Serve(conn)
}

// equip gives a host a log, if it "logs", and has it print what it is asked to,
// if it "prints"; name stands in what it prints.
func equip(h *fakehost.Host, words []string, name string) {
	if slices.Contains(words, "logs") {
		h.Fill(100_000)
		h.Print("evil \x1b]0;owned\a\r\u202e end")
	}
	if slices.Contains(words, "hello") {
		h.Print("hello from %s", name)
	}
	if slices.Contains(words, "prints") {
		h.OnRun(func(h *fakehost.Host, r auth.Request) {
			for range r.Sequence() {
				h.Printk("sysrq: Show Blocked State")
				h.Printk("task:dd%s state:D stack:0", name)
			}
		})
	}
}

// configure makes a host as some words say, and reports whether it falls.
func configure(ts *testscript.TestScript, cfg fakehost.Config, words []string) (_ fakehost.Config, falls bool) {
	skew := time.Duration(0)
	cfg.Synchronised = true
	for _, word := range words {
		switch word {
		case "kernel": // with the module, and a daemon that was never started
			cfg.Executor, cfg.Sysrq = auth.Kernel, 438
		case "armed": // with the module, and a daemon that is well
			cfg.Executor, cfg.Sysrq, cfg.Attached = auth.Kernel, 438, fakehost.Healthy
		case "slow", "hung", "forbids": // goes with armed
			cfg.Attached = map[string]fakehost.Attached{"slow": fakehost.Slow, "hung": fakehost.Hung, "forbids": fakehost.Forbids}[word]
		case "loses-rehearsal": // the answer to it
			cfg.Lost = func(r auth.Request) bool { return r.Flags&auth.Rehearse != 0 }
		case "loses-drill":
			cfg.Lost = func(r auth.Request) bool { return r.Flags&auth.Drill != 0 }
		case "silent":
			cfg.Lost = func(auth.Request) bool { return true }
		case "dry-run":
			cfg.DryRun = true
		case "ahead": // the clock
			skew = 40 * time.Second
		case "behind":
			skew = -40 * time.Second
		case "falls": // reboots, and its reply to the run is lost
			falls = true
		case "forgets": // all but 20 records of its log
			cfg.Room = 20
		case "reader": // its operator may read the log and have it written
			cfg.Allow, _ = auth.ParseKeySet("wtL")
		case "logs", "hello", "prints": // see equip
		default:
			ts.Fatalf("host: unknown word %q", word)
		}
	}
	cfg.Clock = func() (uint64, uint64) { return clock.Real() + uint64(skew), 1e18 + clock.Boot() }
	return cfg, falls
}

// startHosts is "hosts + [WORD...] + [WORD...] ...": hosts web1, web2 and so on,
// each as the words after its + say, at addresses of their own. Each is
// enrolled by the master key of the script's home, and all are in its
// hosts.toml: the odd ones in group odd, the even ones in group even.
func startHosts(ts *testscript.TestScript, args []string) {
	op, err := parseMaster(ts.ReadFile(".config/netsysrq/master.key"))
	ts.Check(err)
	var words [][]string
	for _, arg := range args {
		if arg == "+" {
			words = append(words, nil)
			continue
		}
		words[len(words)-1] = append(words[len(words)-1], arg)
	}
	known := map[auth.KeyID]*fakehost.Host{}
	list := ""
	allow, _ := auth.ParseKeySet("nsub")
	for i, w := range words {
		name := fmt.Sprint("web", i+1)
		key, err := op.master.HostKey(name)
		ts.Check(err)
		cfg, falls := configure(ts, fakehost.Config{Key: key, Allow: allow}, w)
		h := fakehost.New(cfg, 76*time.Hour)
		if falls {
			h.OnRun(func(h *fakehost.Host, _ auth.Request) { h.Fall() })
		}
		equip(h, w, name)
		known[key.ID] = h
		list += fmt.Sprintf("[hosts.%s]\naddress = %q\ngroups = [%q]\n", name, fakehost.Address(i), [...]string{"odd", "even"}[i%2])
	}
	many, err := fakehost.ListenMany(known)
	ts.Check(err)
	ts.Defer(func() { many.Close() })
	go many.Serve()
	list = fmt.Sprintf("[defaults]\nport = %d\n", many.Port()) + list
	ts.Check(os.WriteFile(ts.MkAbs(".config/netsysrq/hosts.toml"), []byte(list), 0o600))
}

// hostsOfScripts is the newest host of every script: they run in parallel.
type hostsOfScripts struct{ m sync.Map }

func (h *hostsOfScripts) of(ts *testscript.TestScript) *fakehost.Host {
	host, ok := h.m.Load(ts)
	if !ok {
		ts.Fatalf("no host was started")
	}
	return host.(*fakehost.Host)
}
