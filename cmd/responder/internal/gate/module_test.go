// SPDX-License-Identifier: GPL-2.0-only

package gate

import (
	"errors"
	"fmt"
	"testing"

	"netsysrq/auth"
	"netsysrq/kmod-fallback/kmod"
	"netsysrq/nfq"
)

// words are what a kernel module was told; err is what it says to it.
type words struct {
	told []string
	err  error
}

func (w *words) Take(id auth.KeyID, r auth.RequestID) error {
	w.told = append(w.told, fmt.Sprintf("take %v %d", id, r[1]))
	return w.err
}

func (w *words) Veto(id auth.KeyID, r auth.RequestID) error {
	w.told = append(w.told, fmt.Sprintf("veto %v %d", id, r[1]))
	return w.err
}

// pending is a packet as the module lets it go on.
func (r *rig) pending(req auth.Request, mark uint32) *nfq.Packet {
	p := packet(client, server, r.seal(req))
	p.Mark = mark
	return p
}

const testMark, testMask = 0x4e000000, 0xff000000

func newModuleRig(t *testing.T, allowed string) (*rig, *words) {
	r, w := newRig(t, allowed), &words{}
	r.cfg.Mark, r.cfg.MarkMask = testMark, testMask
	r.SetModule(w)
	return r, w
}

func (r *rig) lastLine(t *testing.T) map[string]any {
	t.Helper()
	lines := r.lines(t)
	if len(lines) == 0 {
		t.Fatal("nothing logged")
	}
	return lines[len(lines)-1]
}

// With the module the daemon says its word, once, and neither answers nor acts.
func TestWordToTheModule(t *testing.T) {
	veto := ""
	for _, c := range []struct {
		name    string
		req     auth.Request
		mark    uint32
		veto    string
		err     error
		told    string // the verb
		message string
	}{
		{"take", run("nsub", auth.Challenge{}), testMark | 7, "", nil, "take", "request accepted"},
		{"not allowed here", run("c", auth.Challenge{}), testMark, "", nil, "veto", "request vetoed"},
		{"veto file", run("b", auth.Challenge{}), testMark, "the array rebuilds", nil, "veto", "request vetoed"},
		{"late", run("b", auth.Challenge{}), testMark, "", fmt.Errorf("take: %w", kmod.ErrLate), "take", "late: the kernel did not wait for the daemon's word"},
		{"broken", run("b", auth.Challenge{}), testMark, "", errors.New("no"), "take", "the daemon's word did not reach the kernel, which acts alone"},
		{"drill", auth.Request{Op: auth.OpRun, Flags: auth.Drill}, testMark, "", nil, "", "drill left to the kernel"},
		{"junk to the module", run("b", auth.Challenge{}), 0x3e000000, "", nil, "",
			"request not run: it did not come by the kernel module, or with a key that the module does not hold: see netsysrqd check"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, w := newModuleRig(t, "nsub")
			w.err, veto = c.err, c.veto
			r.cfg.Veto = func() (string, bool) { return veto, veto != "" }
			p := r.pending(c.req, c.mark)
			body := string(p.Data)
			r.lane.Handle(p)
			var want []string
			if c.told != "" {
				want = []string{fmt.Sprintf("%s %v %d", c.told, r.host.ID, r.ids)}
			}
			if fmt.Sprint(w.told) != fmt.Sprint(want) {
				t.Errorf("told %q, want %q", w.told, want)
			}
			line := r.lastLine(t)
			if line["msg"] != c.message || line["key"] != "alice" || line["src"] != client.String() {
				t.Errorf("logged %v", line)
			}
			if c.veto != "" && line["veto"] != c.veto {
				t.Errorf("the reason is logged as %v", line["veto"])
			}
			// Repeats that were merged with it bring no second word.
			n := len(w.told)
			copy(p.Data, body)
			r.lane.Handle(p)
			if c.told != "" && len(w.told) != n {
				t.Errorf("told again: %q", w.told)
			}
			if len(r.replies)+len(r.jobs)+len(r.cuts) != 0 {
				t.Errorf("%d replies, %d jobs, %d cuts by the daemon", len(r.replies), len(r.jobs), len(r.cuts))
			}
		})
	}
}

// What does not open is counted as ever.
func TestJunkBesideTheModule(t *testing.T) {
	r, w := newModuleRig(t, "b")
	p := r.pending(run("b", auth.Challenge{}), testMark)
	p.Data[len(p.Data)-1] ^= 1
	r.lane.Handle(p)
	r.expectJunk(t, "forged")
	if len(w.told) != 0 {
		t.Errorf("told %q", w.told)
	}
}

// Who takes over from the module has forgotten what the module ran.
func TestTakingOverFromTheModule(t *testing.T) {
	r := newRig(t, "b")
	c := r.challenge(t)
	sealed := r.seal(run("b", c))
	w := &words{}
	r.SetModule(w)
	r.SetModule(nil)
	r.send(client, sealed)
	if rep := r.last(t); rep.Result != auth.Stale || len(r.jobs) != 0 {
		t.Errorf("a challenge from before the module: %+v, %d jobs", rep, len(r.jobs))
	}
	r.SetModule(nil) // no change, so nothing is forgotten
	c = r.last(t).Challenge
	r.send(client, r.seal(run("b", c)))
	if rep := r.last(t); rep.Result != auth.Accepted || len(r.jobs) != 1 {
		t.Errorf("afterwards: %+v, %d jobs", rep, len(r.jobs))
	}
}

// A module that was armed since is the one to act.
func TestArmedMeanwhile(t *testing.T) {
	r := newRig(t, "b")
	armed := false
	r.cfg.Armed = func() bool { return armed }
	c := r.challenge(t)
	armed = true
	replies := len(r.replies)
	r.send(client, r.seal(run("b", c)))
	if len(r.jobs) != 0 || len(r.replies) != replies {
		t.Errorf("%d jobs, %d replies", len(r.jobs), len(r.replies)-replies)
	}
	if line := r.lastLine(t); line["msg"] != "request not run: the kernel module was armed meanwhile" {
		t.Errorf("logged %v", line)
	}
}

// The daemon alone answers a veto itself.
func TestVetoAlone(t *testing.T) {
	r := newRig(t, "b")
	why := "backup until 06:00"
	r.cfg.Veto = func() (string, bool) { return why, true }
	r.SetModule(&words{})
	r.SetModule(nil) // begins a ledger with the veto
	for _, flags := range []auth.RequestFlags{0, auth.Rehearse} {
		req := run("b", r.challenge(t))
		req.Flags = flags
		r.send(client, r.seal(req))
		if rep := r.last(t); rep.Result != auth.Vetoed || len(r.jobs) != 0 {
			t.Errorf("reply %+v, %d jobs", rep, len(r.jobs))
		}
		if line := r.lastLine(t); line["reason"] != "vetoed" || line["veto"] != why {
			t.Errorf("logged %v", line)
		}
	}
	// What drops sequences is never forbidden.
	req := run("b", r.challenge(t))
	req.Count, req.Steps, req.Flags = 0, [auth.MaxSteps]auth.Step{}, auth.Now
	r.send(client, r.seal(req))
	if rep := r.last(t); rep.Result != auth.Accepted {
		t.Errorf("cancel: %+v", rep)
	}
}

// What an armed module keeps is its own to answer, attached to it or not yet.
func TestKeptByTheModule(t *testing.T) {
	r := newRig(t, "b")
	c := r.challenge(t)
	r.cfg.Mark, r.cfg.MarkMask = testMark, testMask
	armed := true
	r.cfg.Armed = func() bool { return armed }
	replies := len(r.replies)
	p := r.pending(run("b", c), testMark|1)
	sealed := string(p.Data)
	r.lane.Handle(p)
	if len(r.replies) != replies || len(r.jobs) != 0 {
		t.Errorf("%d replies, %d jobs", len(r.replies)-replies, len(r.jobs))
	}
	// The bits are others' too: without a module they mean nothing.
	armed = false
	copy(p.Data, sealed)
	r.lane.Handle(p)
	if rep := r.last(t); rep.Result != auth.Accepted || len(r.jobs) != 1 {
		t.Errorf("without a module: %+v, %d jobs", rep, len(r.jobs))
	}
}
