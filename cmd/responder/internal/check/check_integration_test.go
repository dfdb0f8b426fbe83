// SPDX-License-Identifier: GPL-2.0-only

//go:build integration

package check

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"netsysrq/auth"
	"netsysrq/cmd/responder/internal/rules"
	"netsysrq/internal/netlab"
	"netsysrq/nfq"
)

// TestRealHost sets a host up step by step, in a namespace with real rules and
// real queues; the check names what is still missing. This process stands for
// the daemon.
func TestRealHost(t *testing.T) {
	for _, backend := range []string{"nft", "legacy"} {
		t.Run(backend, func(t *testing.T) {
			lab := netlab.New(t)
			f := newFake(t)
			f.configure(fmt.Sprintf("iptables = %q\n", backend))
			f.remove("keys")
			f.Host = This()
			in := func(fn func(context.Context) error) {
				t.Helper()
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				if err := lab.Do(lab.Server, func() error { return fn(ctx) }); err != nil {
					t.Fatal(err)
				}
			}
			look := func(missing string) *Report {
				t.Helper()
				var r *Report
				in(func(ctx context.Context) error {
					r = f.Host.Run(ctx, f.config, os.Getenv("PATH"))
					return nil
				})
				want := "this host would NOT obey: " + missing + ", trigger"
				if missing == "" {
					want = "this host would NOT obey: trigger: it would answer requests from alice and do nothing"
				}
				if got := r.Sentence(); got != want {
					t.Errorf("%s\nwant %s\n%+v", got, want, r.Findings)
				}
				return r
			}

			look("keys, rule IPv4, rule IPv6, daemon")
			f.key("alice", "nsub", machine)
			look("rule IPv4, rule IPv6, daemon")
			set := rules.Set{Port: 9, Queue: 9, Backend: backend, Path: os.Getenv("PATH")}
			in(func(ctx context.Context) error {
				_, err := set.Apply(ctx)
				return err
			})
			look("daemon")
			var quiet *nfq.Queue
			for _, number := range []uint16{9, 10} {
				in(func(context.Context) error {
					q, err := nfq.Open(nfq.Config{Queue: number, Handler: func(*nfq.Packet) nfq.Verdict { return nfq.Drop }})
					if err == nil {
						t.Cleanup(func() { q.Close() })
					}
					if number == 9 {
						quiet = q
					}
					return err
				})
				if number == 9 {
					look("daemon")
				}
			}
			in(func(context.Context) error {
				c, err := net.ListenPacket("udp", ":9")
				if err == nil {
					t.Cleanup(func() { c.Close() })
				}
				return err
			})
			r := look("")
			want := fmt.Sprintf("(process %d) reads queue 9 and 10", os.Getpid())
			for _, x := range r.Findings {
				if x.Name == "daemon" && !strings.Contains(x.Text, want) {
					t.Errorf("daemon: %s, want %s", x.Text, want)
				}
				if x.Name == "port" && x.State != OK {
					t.Errorf("port: %+v", x)
				}
			}

			in(func(context.Context) error {
				c, err := net.Dial("udp", netlab.ServerIPv4+":9")
				if err != nil {
					return err
				}
				defer c.Close()
				// Junk that the rules take for a request.
				_, err = c.Write(append([]byte("NSRQ"), make([]byte, auth.PacketSize-4)...))
				return err
			})
			look("daemon") // nothing reads the packet, though the queue is held
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- quiet.Run(ctx) }()
			look("")
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}

			in(func(ctx context.Context) error {
				_, err := set.Remove(ctx)
				return err
			})
			look("rule IPv4, rule IPv6")
		})
	}
}
