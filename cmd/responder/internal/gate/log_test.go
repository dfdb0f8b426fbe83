// SPDX-License-Identifier: GPL-2.0-only

package gate

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"netsysrq/auth"
	"netsysrq/cmd/responder/internal/klog"
)

// logRig is a rig whose grants and packets are kept.
type logRig struct {
	*rig
	grants  []*klog.Grant
	packets [][]byte
}

func newLogRig(t *testing.T, allowed string) *logRig {
	r := &logRig{rig: newRig(t, allowed)}
	answer := r.cfg.Answer
	r.cfg.Answer = func(to, from netip.AddrPort, dev uint32, p []byte) error {
		r.packets = append(r.packets, bytes.Clone(p))
		return answer(to, from, dev, p)
	}
	r.cfg.ReadLog = func(g *klog.Grant) bool { r.grants = append(r.grants, g); return true }
	return r
}

func aLog(c auth.Challenge, from uint64) auth.Request {
	return auth.Request{Op: auth.OpLog, Challenge: c, From: from, Pieces: 5, Time: uint64(time.Now().UnixNano())}
}

func TestLogGranted(t *testing.T) {
	r := newLogRig(t, "sL")
	packet := r.seal(aLog(r.challenge(t), 77))
	before := len(r.packets)
	r.send(client, packet)
	if len(r.grants) != 1 || len(r.packets) != before {
		t.Fatalf("%d grants, %d replies", len(r.grants), len(r.packets)-before)
	}
	g := r.grants[0]
	if g.From != 77 || g.Pieces != 5 || g.Base.ID != r.id(r.ids) || g.Base.Boot != r.cfg.Boot || g.Base.Challenge == (auth.Challenge{}) {
		t.Errorf("grant %+v", g)
	}
	sent := g.Base
	sent.Text = []byte("<6>[    0.000000] text\n")
	if err := g.Send(&sent); err != nil {
		t.Fatal(err)
	}
	var p auth.Piece
	if reason, err := r.sealer.OpenPiece(r.packets[before], &p); reason != auth.OK || p.ID != g.Base.ID || p.Challenge != g.Base.Challenge || r.to[before] != client {
		t.Errorf("%v %v %+v to %v", reason, err, p, r.to[before])
	}

	// Recordings bring no pieces, and soon nothing at all.
	before = len(r.packets)
	for range 100 {
		r.send(client, packet)
	}
	if n := len(r.packets) - before; len(r.grants) != 1 || n == 0 || n > auth.Budget+5 || r.last(t).Result != auth.Stale {
		t.Errorf("a hundred recordings: %d grants, %d replies, %v", len(r.grants), n, r.last(t).Result)
	}
	// The challenge that the pieces bring is good for the next.
	r.send(client, r.seal(aLog(g.Base.Challenge, 78)))
	if len(r.grants) != 2 || r.grants[1].From != 78 || r.grants[1].Base.Challenge == g.Base.Challenge {
		t.Errorf("%d grants", len(r.grants))
	}
	if len(r.jobs) != 0 || len(r.cuts) != 0 {
		t.Error("something is run")
	}
	lines := r.lines(t)
	if l := lines[1]; l["msg"] != "request answered" || l["op"] != "log" || l["steps"] != nil {
		t.Errorf("logged %v", l)
	}
}

// Following a log must not fill the host's own log.
func TestLogLines(t *testing.T) {
	r := newLogRig(t, "L")
	c := r.challenge(t)
	for range 200 {
		r.send(client, r.seal(aLog(c, auth.LogEnd)))
		c = r.grants[len(r.grants)-1].Base.Challenge
	}
	if len(r.grants) != 200 {
		t.Fatalf("%d grants", len(r.grants))
	}
	if n := len(r.lines(t)); n > 100 {
		t.Errorf("%d lines for 200 logs", n)
	}
}

func TestLogRefused(t *testing.T) {
	for _, c := range []struct {
		name, allowed string
		unreadable    bool
	}{{"without L", "0123456789abcdefghijklmnopqrstuvwxyz", false}, {"a log that cannot be read", "L", true}} {
		t.Run(c.name, func(t *testing.T) {
			r := newLogRig(t, c.allowed)
			if c.unreadable {
				r.cfg.ReadLog = nil
			}
			r.send(client, r.seal(aLog(r.challenge(t), 0)))
			if rep := r.last(t); len(r.grants) != 0 || rep.Result != auth.RefPolicy || rep.Mask != 0 || rep.Challenge != (auth.Challenge{}) {
				t.Errorf("%d grants, %+v", len(r.grants), rep)
			}
			lines := r.lines(t)
			if l := lines[len(lines)-1]; l["msg"] != "request refused" || l["reason"] != "not-allowed" || l["op"] != "log" {
				t.Errorf("logged %v", l)
			}
		})
	}
}

func TestLogBusy(t *testing.T) {
	r := newLogRig(t, "L")
	r.cfg.ReadLog = func(*klog.Grant) bool { return false }
	r.send(client, r.seal(aLog(r.challenge(t), 0)))
	lines := r.lines(t)
	if l := lines[len(lines)-1]; l["reply_err"] == nil {
		t.Errorf("logged %v", l)
	}
}
