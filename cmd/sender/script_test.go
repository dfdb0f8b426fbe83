// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
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
			w := system()
			w.clock.Synchronised = func() bool { return os.Getenv("CLOCK") != "wrong" }
			os.Exit(run(context.Background(), os.Args[1:], w))
		},
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
			e.Setenv("GORACE", "atexit_sleep_ms=0") // else each command takes a second more
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"host": func(ts *testscript.TestScript, neg bool, args []string) { startHost(ts, &hosts, args) },
			// runs N fails unless the host ran N sequences so far.
			"runs": func(ts *testscript.TestScript, neg bool, args []string) {
				if got := strconv.Itoa(hosts.of(ts).Runs()); got != args[0] {
					ts.Fatalf("the host ran %s sequences, want %s", got, args[0])
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
	skew := time.Duration(0)
	falls := false
	cfg := fakehost.Config{Key: e.Key, Allow: e.Allow, Synchronised: true}
	for _, word := range args[1:] {
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
		case "dry-run":
			cfg.DryRun = true
		case "ahead": // the clock
			skew = 40 * time.Second
		case "behind":
			skew = -40 * time.Second
		case "falls": // reboots, and its reply to the run is lost
			falls = true
		default:
			ts.Fatalf("host: unknown word %q", word)
		}
	}
	cfg.Clock = func() (uint64, uint64) { return clock.Real() + uint64(skew), 1e18 + clock.Boot() }
	h := fakehost.New(cfg, 76*time.Hour)
	conn, err := fakehost.Loopback("127.0.0.1")
	ts.Check(err)
	ts.Defer(func() { conn.Close() })
	ts.Setenv("PORT", strconv.Itoa(int(conn.LocalAddr().(*net.UDPAddr).AddrPort().Port())))
	hosts.m.Store(ts, h)
	if falls {
		h.OnRun(func(h *fakehost.Host, _ auth.Request) { h.Fall(); h.Lose() })
	}
	go h.Serve(conn)
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
