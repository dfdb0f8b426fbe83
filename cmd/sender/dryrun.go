// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"netsysrq/auth"
)

// packetReport is a packet, decoded. It has no key, and no sealed bytes: who
// has those can run the one-packet form, or test guesses of a passphrase.
type packetReport struct {
	Form      string       `json:"form"`
	When      string       `json:"when"`
	Magic     string       `json:"magic"`
	Version   uint8        `json:"version"`
	Type      uint8        `json:"type"`
	KeyID     string       `json:"key_id"`
	Size      int          `json:"size"`
	Time      string       `json:"time"`
	Request   string       `json:"request_id"`
	Challenge string       `json:"challenge"`
	Op        string       `json:"op"`
	Flags     string       `json:"flags"`
	Count     uint8        `json:"step_count"`
	Steps     []stepReport `json:"steps"`
}

type stepReport struct {
	Key   string `json:"key"`
	Pause uint16 `json:"pause"` // as in the packet, in 10 ms
	Means string `json:"means"`
}

// dryRun shows what would be sent to each host, and sends nothing.
func dryRun(ctx context.Context, s *session) (int, error) {
	var err error
	if s.keys, err = openKeyring(ctx, s.w, s.o, false); err != nil {
		return 0, err
	}
	worst, o := exitOK, s.o
	for _, h := range s.hosts {
		r := &result{options: s.o, host: h, many: s.many}
		var packets []packetReport
		op, key, err := s.key(h)
		if err == nil {
			r.key = key.ID
			packets, err = s.packets(auth.NewSealer(&key))
		}
		if err == nil {
			r.addrs, err = resolve(ctx, s.o, h)
		}
		if err != nil {
			r.err = err
			worst = worse(worst, s.show(r))
			continue
		}
		line := h.Name + ": dry run: nothing was sent"
		if s.o.json {
			head := r.head(exitOK, line, nil)
			head.Outcome = "dry-run"
			b, err := json.Marshal(struct {
				reportHead
				Packets []packetReport `json:"packets"`
			}{head, packets})
			if err != nil {
				panic(err) // no field can fail
			}
			fmt.Fprintln(s.w.stdout, string(b))
			continue
		}
		fmt.Fprintf(s.w.stdout, "%s; this would be, to %v, sealed with the key %v of %s:\n", line, r.addrs, r.key, op.label)
		for _, p := range packets {
			p.print(s)
		}
		if !o.onePacket && !s.w.clock.Synchronised() {
			fmt.Fprintln(s.w.stdout, "  no run with a time: our clock is not synchronised")
		}
	}
	return worst, nil
}

// packets seals what would be sent, and opens it again, so that what is shown
// is what the packets hold.
func (s *session) packets(sealer *auth.Sealer) ([]packetReport, error) {
	var id auth.RequestID
	copy(id[:], "\x01made when sent")
	flags := auth.RequestFlags(0)
	if s.o.rehearse {
		flags = auth.Rehearse
	}
	run := auth.Request{Op: auth.OpRun, ID: id, Flags: flags, Time: s.w.clock.Real()}
	run.SetSteps(s.o.steps)
	challenged := run
	challenged.Challenge = auth.Challenge(id)
	forms := []struct {
		request    auth.Request
		form, when string
	}{
		{auth.Request{Op: auth.OpStatus, ID: id, Time: run.Time}, "status", "first, again at 250 ms, 500 ms, 1 s and every second after, until a reply brings a challenge"},
		{challenged, "run with a challenge", "when a challenge has come, at the same intervals"},
		{run, "run with a time", "besides, if nothing answers for 1 s; our clock is synchronised"},
	}
	switch {
	case s.o.onePacket:
		forms = forms[2:]
		forms[0].when = "alone, and again until answered"
	case !s.w.clock.Synchronised():
		forms = forms[:2] // the last needs it
	}
	var out []packetReport
	for _, f := range forms {
		p, err := decode(sealer, f.request)
		if err != nil {
			return nil, err
		}
		p.Form, p.When = f.form, f.when
		p.Request = "random, the same in every form of the run"
		switch f.form {
		case "status":
			p.Request = "random, another each time"
		case "run with a challenge":
			p.Challenge, p.Time = "from the host's reply", "the host's clock, from its reply"
		}
		out = append(out, *p)
	}
	return out, nil
}

// decode takes a sealed request apart.
func decode(sealer *auth.Sealer, r auth.Request) (*packetReport, error) {
	packet := sealer.SealRequest(&r)
	p := &packetReport{
		Magic:   string(packet[:4]),
		Version: packet[4],
		Type:    packet[5],
		KeyID:   hex.EncodeToString(packet[8:16]),
		Size:    len(packet),
	}
	if reserved := binary.BigEndian.Uint16(packet[6:]); reserved != 0 {
		return nil, fmt.Errorf("reserved bytes are %04x", reserved)
	}
	var got auth.Request
	if reason, err := sealer.OpenRequest(packet[:], &got); reason != auth.OK {
		return nil, fmt.Errorf("%w: %v: %w", auth.ErrSteps, reason, err)
	}
	p.Time = time.Unix(0, int64(got.Time)).UTC().Format(time.RFC3339Nano)
	p.Challenge = "none (zero)"
	p.Op, p.Count = fmt.Sprintf("%d (%v)", got.Op, got.Op), got.Count
	p.Flags = fmt.Sprintf("%#02x", uint8(got.Flags))
	if words := got.Flags.String(); words != "" {
		p.Flags += " (" + words + ")"
	}
	p.Steps = []stepReport{} // not null
	for _, s := range got.Sequence() {
		means := waitWords(s)
		if means == "" {
			means = "no pause"
		}
		p.Steps = append(p.Steps, stepReport{Key: string(s.Key), Pause: s.Pause, Means: means})
	}
	return p, nil
}

func (p *packetReport) print(s *session) {
	w := s.w.stdout
	fmt.Fprintf(w, "  %s: %s\n", p.Form, p.When)
	fmt.Fprintf(w, "    header      magic %s, version %d, type %d, reserved 0, key id %s\n", p.Magic, p.Version, p.Type, p.KeyID)
	fmt.Fprintf(w, "    nonce       random, new for every packet\n")
	fmt.Fprintf(w, "    time        %s\n", p.Time)
	fmt.Fprintf(w, "    request id  %s\n", p.Request)
	fmt.Fprintf(w, "    challenge   %s\n", p.Challenge)
	fmt.Fprintf(w, "    op          %s\n", p.Op)
	fmt.Fprintf(w, "    flags       %s\n", p.Flags)
	fmt.Fprintf(w, "    step count  %d\n", p.Count)
	for i, st := range p.Steps {
		fmt.Fprintf(w, "    step %d      %s\n", i+1, strings.TrimSuffix(fmt.Sprintf("%s, pause %d: %s", st.Key, st.Pause, st.Means), ": "))
	}
	fmt.Fprintf(w, "    size        %d bytes with the tag\n", p.Size)
}
