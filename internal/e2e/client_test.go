// SPDX-License-Identifier: GPL-2.0-only

//go:build integration

package e2e_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/exchange"
)

// peer is a socket in the client's namespace, connected to the host.
type peer struct {
	*host
	conn net.Conn
}

func (h *host) peer(f family) *peer {
	h.Helper()
	c, err := h.dial(netip.AddrPortFrom(netip.MustParseAddr(f.server), auth.Port))
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { c.Close() })
	return &peer{h, c}
}

func (h *host) dial(to netip.AddrPort) (c net.Conn, err error) {
	err = h.lab.Do(h.lab.Client, func() error {
		c, err = net.Dial("udp", to.String())
		return err
	})
	return c, err
}

// asker is how package exchange reaches the host from the test's own process.
func (h *host) asker(f family) (exchange.Host, exchange.Options) {
	to := netip.AddrPortFrom(netip.MustParseAddr(f.server), auth.Port)
	return exchange.Host{Name: hostName, Addrs: []netip.AddrPort{to}, Sealer: h.alice}, exchange.Options{
		Dial: func(_ context.Context, to netip.AddrPort) (io.ReadWriteCloser, error) { return h.dial(to) },
	}
}

// send sends a payload. What ICMP says of an earlier one is no matter here.
func (p *peer) send(payload []byte) {
	p.Helper()
	for range 3 {
		if _, err := p.conn.Write(payload); err == nil {
			return
		}
	}
	p.Fatal("packet not sent")
}

// receive returns the next reply to a request with one of the given ids.
func (p *peer) receive(s *auth.Sealer, within time.Duration, ids ...auth.RequestID) (*auth.Reply, bool) {
	p.Helper()
	deadline := time.Now().Add(within)
	buf := make([]byte, 2048)
	for {
		p.conn.SetReadDeadline(deadline)
		n, err := p.conn.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, false
		}
		if err != nil {
			continue
		}
		for _, id := range ids {
			var r auth.Reply
			again := append([]byte(nil), buf[:n]...)
			if reason, _ := s.OpenReply(again, id, &r); reason == auth.OK {
				return &r, true
			}
		}
	}
}

// ask sends a request until its answer comes.
func (p *peer) ask(s *auth.Sealer, r auth.Request) *auth.Reply {
	p.Helper()
	packet := s.SealRequest(&r)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		p.send(packet[:])
		if reply, ok := p.receive(s, time.Second, r.ID); ok {
			return reply
		}
	}
	p.Fatalf("no answer to %v", r.Op)
	return nil
}

func newID() (id auth.RequestID) {
	rand.Read(id[:])
	return id
}

// now is the time that the host takes it to be.
func (h *host) now() uint64 { return uint64(time.Now().Add(h.ahead).UnixNano()) }

// status is a well-formed status of this moment.
func (h *host) status() auth.Request {
	return auth.Request{Op: auth.OpStatus, ID: newID(), Time: h.now()}
}

// challenge gets a challenge by a status.
func (p *peer) challenge(s *auth.Sealer) auth.Challenge {
	p.Helper()
	c := p.ask(s, p.status()).Challenge
	if c == (auth.Challenge{}) {
		p.Fatal("no challenge")
	}
	return c
}

// run makes a run with steps such as "n,s:2s".
func (h *host) runOf(steps string, flags auth.RequestFlags, c auth.Challenge) auth.Request {
	h.Helper()
	r := auth.Request{Op: auth.OpRun, ID: newID(), Flags: flags, Challenge: c}
	if steps != "-" {
		list, err := auth.ParseSteps(steps)
		if err != nil {
			h.Fatal(err)
		}
		r.SetSteps(list)
	}
	return r
}

// do gets a challenge and sends a run with it.
func (p *peer) do(s *auth.Sealer, steps string, flags auth.RequestFlags) *auth.Reply {
	p.Helper()
	return p.ask(s, p.runOf(steps, flags, p.challenge(s)))
}

// report is what the sender's --json says.
type report struct {
	*result
	Outcome   string `json:"outcome"`
	Message   string `json:"message"`
	Forgotten bool   `json:"forgotten"`
	OnePacket bool   `json:"one_packet"`
	RunSent   bool   `json:"run_sent"`
	Before    string `json:"boot_before"`
	After     string `json:"boot_after"`
	Reply     *struct {
		Result       string `json:"result"`
		Executor     string `json:"executor"`
		Repeat       bool   `json:"repeat"`
		Rehearsed    bool   `json:"rehearsed"`
		DryRun       bool   `json:"dry_run"`
		ClockTrusted bool   `json:"clock_trusted"`
		NotRun       string `json:"steps_not_run"`
		Causes       string `json:"refused_for"`
		BootID       string `json:"boot_id"`
	} `json:"reply"`
	ElapsedMS float64 `json:"elapsed_ms"`
}

// netsysrq runs the sender in the client's namespace, as alice unless
// --key says otherwise, over one family. The clock is that of the file, if the binary is clocked.
func (h *host) netsysrq(f family, clock string, args ...string) *report {
	h.Helper()
	if !slices.Contains(args, "--key") {
		args = append(args, "--key", h.master)
	}
	args = append(args, "--address", f.server, "--json")
	env := []string(nil)
	if clock != "" {
		env = append(env, "NETSYSRQ_TEST_CLOCK="+clock)
	}
	r := &report{result: h.runWith(nil, env, h.lab.Client, h.bin.sender, args...)}
	if err := json.Unmarshal([]byte(r.stdout), r); err != nil {
		h.Errorf("%v: %v", r.result, err)
	}
	return r
}

// want compares the outcome and the exit code of the sender.
func (h *host) want(r *report, outcome string, code int) *report {
	h.Helper()
	if r.Outcome != outcome || r.code != code {
		h.Fatalf("want %s, exit code %d: %v", outcome, code, r.result)
	}
	return r
}

// advance moves the host's clock forward by steps too small to count as steps
// of the clock, so that it stays trusted. The peer's statuses make the ledger look.
func (h *host) advance(p *peer, by time.Duration) {
	h.Helper()
	for end := h.ahead + by; h.ahead < end; {
		h.setClock(min(h.ahead+900*time.Millisecond, end), true)
		p.ask(h.alice, h.status())
	}
}

const (
	stopSignal     = syscall.SIGSTOP
	continueSignal = syscall.SIGCONT
)

// tap shows every payload that is written to the sockets of a Dial.
func tap(dial exchange.Dial, show func([]byte)) exchange.Dial {
	return func(ctx context.Context, to netip.AddrPort) (io.ReadWriteCloser, error) {
		c, err := dial(ctx, to)
		return &tapped{c, show}, err
	}
}

type tapped struct {
	io.ReadWriteCloser
	show func([]byte)
}

func (t *tapped) Write(b []byte) (int, error) {
	t.show(slices.Clone(b))
	return t.ReadWriteCloser.Write(b)
}

// robbed is a connection of which a thief takes some packets.
type robbed struct {
	io.ReadWriteCloser
	take func([]byte) bool
}

func (r *robbed) Write(b []byte) (int, error) {
	if r.take(slices.Clone(b)) {
		return len(b), nil
	}
	return r.ReadWriteCloser.Write(b)
}
