// SPDX-License-Identifier: GPL-2.0-only

package gate

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"netsysrq/auth"
	"netsysrq/cmd/responder/internal/metrics"
	"netsysrq/cmd/responder/internal/runner"
	"netsysrq/internal/promtext"
	"netsysrq/nfq"
)

// rig is a gate whose answers and jobs are kept.
type rig struct {
	*Gate
	lane    *Lane
	host    *auth.HostKey
	sealer  *auth.Sealer
	replies []auth.Reply
	to      []netip.AddrPort
	jobs    []*runner.Job
	cuts    []*runner.Job
	log     bytes.Buffer
	ids     byte
}

func hostKey(t testing.TB, name string) *auth.HostKey {
	t.Helper()
	m := auth.Master{9}
	k, err := m.HostKey(name)
	if err != nil {
		t.Fatal(err)
	}
	return &k
}

func newRig(t testing.TB, allowed string) *rig {
	t.Helper()
	r := &rig{host: hostKey(t, "web1")}
	r.sealer = auth.NewSealer(r.host)
	draws := uint64(0)
	r.Gate = New(Config{
		Ledger: auth.Config{Executor: auth.Daemon, Sysrq: -1, Random: func(b []byte) bool {
			draws++
			binary.BigEndian.PutUint64(b, draws)
			return true
		}},
		Boot:   auth.BootID{1, 2, 3},
		Submit: func(j *runner.Job) error { r.jobs = append(r.jobs, j); return nil },
		Cut: func(j *runner.Job) {
			if len(r.replies) > 0 && r.replies[len(r.replies)-1].Result == auth.Accepted {
				t.Error("cut after the reply")
			}
			r.cuts = append(r.cuts, j)
		},
		Answer: func(to, from netip.AddrPort, dev uint32, p []byte) error {
			var rep auth.Reply
			body := bytes.Clone(p)
			for _, id := range []byte{0, 1} {
				if reason, err := r.sealer.OpenReply(bytes.Clone(body), r.id(r.ids-id), &rep); reason == auth.OK && err == nil {
					break
				}
			}
			r.replies, r.to = append(r.replies, rep), append(r.to, to)
			return nil
		},
		Log:      slog.New(slog.NewJSONHandler(&r.log, nil)),
		Requests: new(metrics.Requests),
	})
	set, err := auth.ParseKeySet(allowed)
	if err != nil {
		t.Fatal(err)
	}
	r.SetKeys([]Key{{Operator: "alice", Allowed: set, Host: r.host}})
	r.lane = r.Lane()
	return r
}

func (r *rig) id(n byte) auth.RequestID { return auth.RequestID{0xaa, n} }

var (
	client = netip.MustParseAddrPort("192.0.2.1:4000")
	server = netip.MustParseAddrPort("192.0.2.2:9")
)

// counted is how many requests ended so.
func (r *rig) counted(t *testing.T, result string) float64 {
	t.Helper()
	m, err := promtext.Parse(string(metrics.Text(r.cfg.Requests.Families())))
	if err != nil {
		t.Fatal(err)
	}
	return m.Values[`netsysrqd_requests_total{result="`+result+`"}`]
}

// packet wraps a payload in UDP and IPv4, as NFQUEUE hands it over.
func packet(src, dst netip.AddrPort, payload []byte) *nfq.Packet {
	b := make([]byte, 28, 28+len(payload))
	b[0], b[8], b[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(b[2:], uint16(28+len(payload)))
	s, d := src.Addr().As4(), dst.Addr().As4()
	copy(b[12:], s[:])
	copy(b[16:], d[:])
	binary.BigEndian.PutUint16(b[20:], src.Port())
	binary.BigEndian.PutUint16(b[22:], dst.Port())
	binary.BigEndian.PutUint16(b[24:], uint16(8+len(payload)))
	b = append(b, payload...)
	return &nfq.Packet{InDev: 2, Arrived: time.Now().UnixNano(), Data: b, Len: len(b)}
}

func (r *rig) send(src netip.AddrPort, payload []byte) {
	r.lane.Handle(packet(src, server, bytes.Clone(payload)))
}

func (r *rig) seal(req auth.Request) []byte {
	r.ids++
	req.ID = r.id(r.ids)
	p := r.sealer.SealRequest(&req)
	return p[:]
}

// challenge asks for a status and returns the challenge.
func (r *rig) challenge(t *testing.T) auth.Challenge {
	t.Helper()
	r.send(client, r.seal(auth.Request{Op: auth.OpStatus, Time: uint64(time.Now().UnixNano())}))
	rep := r.last(t)
	if rep.Result != auth.Status || rep.Challenge == (auth.Challenge{}) {
		t.Fatalf("status reply %+v", rep)
	}
	return rep.Challenge
}

func (r *rig) last(t *testing.T) auth.Reply {
	t.Helper()
	if len(r.replies) == 0 {
		t.Fatal("no reply")
	}
	return r.replies[len(r.replies)-1]
}

func run(steps string, c auth.Challenge) auth.Request {
	req := auth.Request{Op: auth.OpRun, Challenge: c}
	s, err := auth.ParseSteps(steps)
	if err != nil {
		panic(err)
	}
	req.SetSteps(s)
	return req
}

func (r *rig) lines(t *testing.T) (out []map[string]any) {
	t.Helper()
	for line := range strings.Lines(r.log.String()) {
		m := map[string]any{}
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		out = append(out, m)
	}
	return out
}

func TestRunIsAnsweredThenHandedOver(t *testing.T) {
	r := newRig(t, "nsub")
	p := r.seal(run("nsub", r.challenge(t)))
	r.send(client, p)
	if rep := r.last(t); rep.Result != auth.Accepted || rep.Executor != auth.Daemon || rep.Boot != (auth.BootID{1, 2, 3}) {
		t.Errorf("reply %+v", rep)
	}
	if len(r.jobs) != 1 || auth.FormatSteps(r.jobs[0].Steps) != "n,s,u,b" {
		t.Fatalf("jobs %+v", r.jobs)
	}
	for range 3 {
		r.send(netip.AddrPortFrom(client.Addr(), 4001), p)
	}
	if rep := r.last(t); rep.Result != auth.Accepted || rep.Flags&auth.Repeat == 0 {
		t.Errorf("repeat answered by %+v", rep)
	}
	if len(r.jobs) != 1 || r.counted(t, "accepted") != 1 {
		t.Errorf("%d jobs, %v counted", len(r.jobs), r.counted(t, "accepted"))
	}
	var accepted map[string]any
	for _, m := range r.lines(t) {
		if m["msg"] == "request accepted" {
			accepted = m
		}
	}
	for name, want := range map[string]any{"key": "alice", "key_id": r.host.ID.String(), "src": "192.0.2.1:4000",
		"op": "run", "steps": "n,s,u,b", "decision": "accepted", "reason": "ok", "executor": "daemon"} {
		if accepted[name] != want {
			t.Errorf("log: %s is %v, want %v", name, accepted[name], want)
		}
	}
	if us, ok := accepted["latency_us"].(float64); !ok || us < 0 || us > 5e6 {
		t.Errorf("log: latency_us is %v", accepted["latency_us"])
	}
}

func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		steps  string
		result auth.Result
		reason string
		mask   uint8
	}{
		"not allowed": {"s,c,b", auth.RefPolicy, "not-allowed", 0b010},
		"after kill":  {"e,s,u", auth.RefPolicy, "after-kill", 0b110},
	} {
		r := newRig(t, "nsube")
		r.send(client, r.seal(run(c.steps, r.challenge(t))))
		if rep := r.last(t); rep.Result != c.result || rep.Mask != c.mask {
			t.Errorf("%s: reply %+v", name, rep)
		}
		if len(r.jobs) != 0 || r.counted(t, "policy") != 1 {
			t.Errorf("%s: handed over, or not counted", name)
		}
		if lines := r.lines(t); lines[len(lines)-1]["reason"] != c.reason {
			t.Errorf("%s: logged %v", name, lines[len(lines)-1])
		}
	}
}

// A cancel reaches the runner even if the key has nothing of its own there: it
// may cut what another key runs.
func TestCancelReachesTheRunner(t *testing.T) {
	r := newRig(t, "nsub")
	req := auth.Request{Op: auth.OpRun, Challenge: r.challenge(t), Flags: auth.Now}
	r.send(client, r.seal(req))
	if rep := r.last(t); rep.Result != auth.Accepted || len(r.cuts) != 1 || len(r.jobs) != 0 {
		t.Errorf("reply %+v, %d cuts, %d jobs", rep, len(r.cuts), len(r.jobs))
	}
	// A rehearsal cuts nothing.
	r.replies = nil
	req = auth.Request{Op: auth.OpRun, Challenge: r.challenge(t), Flags: auth.Now | auth.Rehearse}
	r.send(client, r.seal(req))
	if rep := r.last(t); rep.Result != auth.Accepted || len(r.cuts) != 1 {
		t.Errorf("reply %+v, %d cuts", rep, len(r.cuts))
	}
	if r.counted(t, "barrier") != 1 || r.counted(t, "rehearsed") != 1 || r.counted(t, "accepted") != 0 {
		t.Error("not counted as what they are")
	}
}

// A packet that waited for the lock is as late as one that waited in the queue.
func TestLateBehindTheLock(t *testing.T) {
	r := newRig(t, "nsub")
	p := packet(client, server, r.seal(run("b", r.challenge(t))))
	p.Arrived -= int64(auth.Late - 100*time.Millisecond)
	r.mu.Lock()
	done := make(chan struct{})
	go func() { defer close(done); r.lane.Handle(p) }()
	time.Sleep(200 * time.Millisecond)
	r.mu.Unlock()
	<-done
	if len(r.jobs) != 0 {
		t.Error("run")
	}
}

// Nothing that is not authentic is answered, run or logged on its own, and
// each is counted under its reason.
func TestJunk(t *testing.T) {
	r := newRig(t, "nsub")
	good := r.seal(run("b", auth.Challenge{1}))
	edit := func(i int, v byte) []byte {
		b := bytes.Clone(good)
		b[i] = v
		return b
	}
	other := auth.NewSealer(hostKey(t, "web2")).SealRequest(&auth.Request{ID: auth.RequestID{1}})
	reply := r.sealer.SealReply(&auth.Reply{ID: auth.RequestID{1}, Executor: auth.Daemon})
	for reason, payload := range map[string][]byte{
		"length": good[:127], "magic": edit(0, 'X'), "version": edit(4, 2), "type": reply[:], "reserved": edit(7, 1),
		"unknown-key": other[:], "forged": edit(127, good[127]^1),
	} {
		r.send(client, payload)
		r.expectJunk(t, reason)
	}
	for _, src := range []string{"0.0.0.0:1", "192.0.2.1:0", "224.0.0.1:1", "255.255.255.255:1", "127.0.0.1:1", "240.0.0.1:1", "0.1.2.3:4"} {
		r.send(netip.MustParseAddrPort(src), good)
		r.expectJunk(t, "source")
	}
	for _, dst := range []string{"224.0.0.5:9", "127.0.0.1:9"} {
		r.lane.Handle(packet(client, netip.MustParseAddrPort(dst), good))
		r.expectJunk(t, "source")
	}

	late := packet(client, server, good)
	late.Arrived -= int64(auth.Late + time.Second)
	r.lane.Handle(late)
	r.expectJunk(t, "late")

	short := packet(client, server, good)
	short.Data = short.Data[:40]
	r.lane.Handle(short)
	r.expectJunk(t, "datagram")

	if len(r.replies) != 0 || len(r.jobs) != 0 || r.log.Len() != 0 {
		t.Errorf("%d replies, %d jobs, log %s", len(r.replies), len(r.jobs), &r.log)
	}
}

// expectJunk checks that exactly one packet was counted, for that reason.
func (r *rig) expectJunk(t *testing.T, reason string) {
	t.Helper()
	counts, answered, _ := r.lane.junk.take()
	for i, n := range counts {
		want := uint64(0)
		if auth.Reason(i).String() == reason {
			want = 1
		}
		if n != want {
			t.Errorf("%s: counted %d as %v", reason, n, auth.Reason(i))
		}
	}
	if answered != 0 {
		t.Errorf("%s: counted as answered", reason)
	}
}

// Loopback is a source like any other when the packet came in by loopback.
func TestLoopback(t *testing.T) {
	r := newRig(t, "s")
	p := packet(netip.MustParseAddrPort("127.0.0.1:5000"), netip.MustParseAddrPort("127.0.0.1:9"),
		r.seal(auth.Request{Op: auth.OpStatus, Time: 1}))
	p.InDev = loopback
	r.lane.Handle(p)
	if len(r.replies) != 1 {
		t.Errorf("%d replies", len(r.replies))
	}
}

// However many replays come, the lines are few and every packet is counted.
func TestReplaysAreQuiet(t *testing.T) {
	r := newRig(t, "nsub")
	p := r.seal(run("b", r.challenge(t)))
	r.send(client, p)
	const n = 10000
	src := client
	for i := range n {
		src = netip.AddrPortFrom(src.Addr(), uint16(1024+i))
		r.send(src, p)
	}
	if len(r.jobs) != 1 {
		t.Errorf("%d jobs", len(r.jobs))
	}
	if answered := len(r.replies) - 2; answered > 2*auth.Budget {
		t.Errorf("%d replays answered", answered)
	}
	repeats := 0
	for _, m := range r.lines(t) {
		if m["reason"] == "repeat" {
			repeats++
		}
	}
	if repeats == 0 || repeats > lineBurst+2 {
		t.Errorf("%d lines about replays", repeats)
	}
	r.log.Reset()
	Summarise(slog.New(slog.NewJSONHandler(&r.log, nil)), []*Lane{r.lane}, 7, nil)
	lines := r.lines(t)
	if len(lines) != 1 {
		t.Fatalf("%d summary lines", len(lines))
	}
	if got := lines[0]["repeat"].(float64); int(got)+repeats != n {
		t.Errorf("%v counted and %d logged of %d", got, repeats, n)
	}
	if lines[0]["queue-full"] != 7.0 || lines[0]["packets"] != float64(n-repeats+7) {
		t.Errorf("summary %v", lines[0])
	}
	if s, _ := lines[0]["sources"].(string); !strings.HasPrefix(s, "192.0.2.1 >=") {
		t.Errorf("sources %q", s)
	}
	r.log.Reset()
	Summarise(slog.New(slog.NewJSONHandler(&r.log, nil)), []*Lane{r.lane}, 0, nil)
	if r.log.Len() != 0 {
		t.Errorf("a summary of nothing: %s", &r.log)
	}
}

// An address that both lanes saw is named once.
func TestTopSourceOfTwoLanes(t *testing.T) {
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.9")
	if got, want := top([]source{{a, 5}, {b, 6}, {a, 4}}), "192.0.2.1 >=9, 192.0.2.9 >=6"; got != want {
		t.Errorf("top %q, want %q", got, want)
	}
}

// A flood's own sender stands out, whatever else comes.
func TestTopSource(t *testing.T) {
	var j Junk
	loud := netip.MustParseAddr("203.0.113.7")
	for i := range 30000 {
		j.add(auth.ReasonForged, netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
		j.add(auth.ReasonForged, loud)
	}
	_, _, sources := j.take()
	if s := top(sources); !strings.HasPrefix(s, loud.String()) {
		t.Errorf("sources %q", s)
	}
}

func TestRemovedKeyIsDeadAtOnce(t *testing.T) {
	r := newRig(t, "nsub")
	p := r.seal(run("b", r.challenge(t)))
	r.SetKeys(nil)
	r.replies = nil
	r.send(client, p)
	if len(r.replies) != 0 || len(r.jobs) != 0 {
		t.Errorf("%d replies, %d jobs after the key was removed", len(r.replies), len(r.jobs))
	}
	set, _ := auth.ParseKeySet("nsub")
	r.SetKeys([]Key{{Operator: "alice", Allowed: set, Host: r.host}})
	r.send(client, p)
	if len(r.jobs) != 0 {
		t.Error("a challenge of before the key's removal still counts")
	}
}

func TestKeyThatStaysKeepsItsState(t *testing.T) {
	r := newRig(t, "nsub")
	c := r.challenge(t)
	set, _ := auth.ParseKeySet("s")
	r.SetKeys([]Key{{Operator: "alice", Allowed: set, Host: r.host}})
	r.send(client, r.seal(run("s", c)))
	if rep := r.last(t); rep.Result != auth.Accepted {
		t.Errorf("the challenge was lost by a reload: %+v", rep)
	}
	r.send(client, r.seal(run("b", r.challenge(t))))
	if rep := r.last(t); rep.Result != auth.RefPolicy {
		t.Errorf("the old allowed set is still in force: %+v", rep)
	}
}

func TestDryRun(t *testing.T) {
	r := newRig(t, "nsub")
	r.SetDryRun(true)
	r.send(client, r.seal(run("b", r.challenge(t))))
	if rep := r.last(t); rep.Flags&auth.DryRun == 0 || len(r.jobs) != 1 || !r.jobs[0].DryRun {
		t.Errorf("reply %+v, jobs %+v", rep, r.jobs)
	}
}

// A run that cannot be handed over must not keep its key busy for ever.
func TestSubmitFails(t *testing.T) {
	r := newRig(t, "s")
	r.cfg.Submit = func(*runner.Job) error { return errors.New("full") }
	for range 2 * auth.Active {
		r.send(client, r.seal(run("s", r.challenge(t))))
		if rep := r.last(t); rep.Result != auth.Accepted {
			t.Fatalf("reply %+v", rep)
		}
	}
	if !strings.Contains(r.log.String(), "accepted request not run") {
		t.Error("not logged")
	}
}

func TestJunkDoesNotAllocate(t *testing.T) {
	r := newRig(t, "nsub")
	good := r.seal(run("b", auth.Challenge{1}))
	forged := bytes.Clone(good)
	forged[127] ^= 1
	for name, payload := range map[string][]byte{"length": good[:100], "forged": forged} {
		p := packet(client, server, payload)
		pristine := bytes.Clone(p.Data)
		if n := testing.AllocsPerRun(1000, func() {
			copy(p.Data, pristine)
			r.lane.Handle(p)
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	// A replay beyond the budget costs no more than junk.
	r.send(client, good)
	p := packet(client, server, good)
	pristine := bytes.Clone(p.Data)
	flood := func() {
		copy(p.Data, pristine)
		r.lane.Handle(p)
	}
	for range 100 {
		flood()
	}
	if n := testing.AllocsPerRun(1000, flood); n != 0 {
		t.Errorf("replay: %v allocations", n)
	}
}

func BenchmarkForged(b *testing.B) {
	r := newRig(b, "nsub")
	payload := r.seal(run("b", auth.Challenge{1}))
	payload[127] ^= 1
	p := packet(client, server, payload)
	pristine := bytes.Clone(p.Data)
	b.ReportAllocs()
	for b.Loop() {
		copy(p.Data, pristine)
		r.lane.Handle(p)
	}
}

// FuzzHandle: no packet, whatever its bytes, is answered or run unless its
// sealing proves a key.
func FuzzHandle(f *testing.F) {
	r := newRig(f, "nsub")
	f.Add(packet(client, server, []byte("NSRQ\x01\x01\x00\x00")).Data)
	f.Add(packet(client, server, make([]byte, auth.PacketSize)).Data)
	f.Fuzz(func(t *testing.T, data []byte) {
		r.lane.Handle(&nfq.Packet{Data: data, Len: len(data)})
		if len(r.replies)+len(r.jobs) != 0 {
			t.Fatal("answered or run")
		}
	})
}
