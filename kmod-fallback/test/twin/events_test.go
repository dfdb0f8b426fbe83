package twin_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"netsysrq/auth"
)

const nKeys = 3

// judged is a request as it was sent, to be sent again.
type judged struct {
	key       uint64
	req       auth.Request
	malformed bool
	source    auth.Source
}

// world makes up events, tells them to auth and to C, and compares.
type world struct {
	*peer
	r          *rand.Rand
	ledger     *auth.Ledger
	executor   auth.Executor
	real, boot uint64
	burst      bool
	draws      uint64
	ready      bool // the random generator
	ids        uint64
	sent       []judged
	last       judged
	issued     [nKeys + 2][]auth.Challenge
}

// TestEvents compares decisions, floors and clock_ok after every event.
func TestEvents(t *testing.T) {
	n, r := rounds(t)
	w := &world{r: r, real: 1767225600e9, boot: 60e9}
	w.peer = start(t, func(answer string) string {
		f := strings.Split(first(answer), "/")
		if len(f) < 11 {
			return f[0]
		}
		kind := f[0]
		for i, word := range []string{"silent", "pending", "run", "cut", "pieces"} {
			if f[1+i] == "1" {
				kind += " " + word
			}
		}
		return kind + " " + (auth.Result(f[6][0] - '0')).String()
	})
	w.begin()
	for i := uint64(1); i <= nKeys; i++ {
		w.install(i)
	}
	for range n {
		w.time()
		w.event()
	}
	w.finish("late", "unknown-key silent status", "ok status", "budget silent status", "stale stale", "stale silent stale",
		"repeat accepted", "repeat silent accepted", "repeat vetoed", "repeat busy", "repeat policy", "repeat masked",
		"pending silent status", "not-allowed policy", "after-kill policy", "masked masked", "busy busy",
		"ok silent pending run accepted", "ok silent pending accepted", "ok run accepted", "ok accepted",
		"ok run cut accepted", "ok cut accepted", "ok silent pending run cut accepted", "vetoed vetoed",
		"malformed malformed", "malformed silent malformed", "ok pieces status")
}

func (w *world) now() auth.Instant { return auth.Instant{Real: w.real, Boot: w.boot} }

func (w *world) random(b []byte) bool {
	if w.ready {
		w.draws++
		clear(b)
		binary.BigEndian.PutUint64(b[8:], w.draws)
	}
	return w.ready
}

func keyID(n uint64) (id auth.KeyID) {
	binary.BigEndian.PutUint64(id[:], n)
	return id
}

func number16(n uint64) (b [16]byte) {
	binary.BigEndian.PutUint64(b[8:], n)
	return b
}

// tell sends an event and compares the state after it.
func (w *world) tell(command, decision string, key uint64, id auth.RequestID) {
	want := fmt.Sprintf("%s %d %d", decision, bit(w.ledger.ClockTrusted()), bit(key > 0 && w.ledger.Final(keyID(key), id)))
	for i := uint64(1); i <= nKeys; i++ {
		want += fmt.Sprintf(" %d", w.ledger.Floor(keyID(i)))
	}
	w.ask(command, want)
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

func words(d *auth.Decision) string {
	return fmt.Sprintf("%v/%d/%d/%d/%d/%d/%d/%d/%d/%d/%d/%d", d.Reason, bit(d.Silent || d.Pending), bit(d.Pending), bit(d.Run), bit(d.Cut), bit(d.Pieces),
		d.Result, d.Flags, d.Mask, d.By, binary.BigEndian.Uint64(d.Challenge[8:]), d.Age)
}

func (w *world) begin() {
	w.executor = pick(w.r, auth.Daemon, auth.Kernel)
	sysrq := pick(w.r, -1, -1, 1, 0, 438, 72, w.r.IntN(512))
	dry := w.r.IntN(4) == 0
	w.ledger = auth.NewLedger(auth.Config{Executor: w.executor, Sysrq: sysrq, DryRun: dry, Random: w.random}, w.now())
	w.tell(fmt.Sprintf("b %d %d %d %d %d", w.real, w.boot, w.executor, sysrq, bit(dry)), "-", 0, auth.RequestID{})
}

func (w *world) install(key uint64) {
	set := pick(w.r, 0, 1<<36-1, 1<<37-1, 1<<37-1, w.r.Uint64()&(1<<37-1))
	w.ledger.Install(w.now(), keyID(key), auth.KeySet(set))
	w.tell(fmt.Sprintf("i %d %d %d %d", w.real, w.boot, key, set), "-", 0, auth.RequestID{})
}

// time lets time pass: in a burst next to none, else little at once, and often
// to the edge of a rule.
func (w *world) time() {
	d := uint64(0)
	if w.r.IntN(200) == 0 {
		w.burst = !w.burst
	}
	switch x := w.r.IntN(1000); {
	case x < 500:
	case w.burst:
		d = w.r.Uint64N(3e6)
	case x < 800:
		d = w.r.Uint64N(60e6)
	case x < 900:
		d = pick(w.r, 1, uint64(auth.Refill)-1, uint64(auth.Refill), uint64(auth.Refill)+1)
	case x < 980:
		d = w.r.Uint64N(3e9)
	case x < 995:
		d = pick(w.r, uint64(auth.Renew), uint64(auth.Window)) + pick(w.r, 0, 1, ^uint64(0))
	default:
		d = pick(w.r, uint64(auth.ChallengeTTL), uint64(auth.ChallengeTTL)-1, 120e9, 65535e9, 65536e9, 1e15)
	}
	if w.r.IntN(20000) == 0 && w.boot < 1<<62 {
		d = w.r.Uint64N(1 << 62)
	}
	w.boot += d
	w.real = saturate(w.real, d)
	switch w.r.IntN(3000) { // the clock is set
	case 0:
		w.real = saturate(w.real, uint64(auth.ClockStep)+w.r.Uint64N(2))
	case 1:
		w.real -= min(w.real, uint64(auth.ClockStep)+w.r.Uint64N(2))
	case 2:
		w.real = saturate(w.real, w.r.Uint64N(60e9))
	case 3:
		w.real -= min(w.real, w.r.Uint64N(60e9))
	case 4:
		w.real = pick(w.r, 0, 1, w.boot, w.r.Uint64N(100e9), math.MaxUint64, math.MaxUint64-w.r.Uint64N(60e9))
	}
}

func saturate(a, d uint64) uint64 {
	if a+d < a {
		return math.MaxUint64
	}
	return a + d
}

func (w *world) event() {
	r := w.r
	key := 1 + r.Uint64N(nKeys)
	at := fmt.Sprintf("%d %d", w.real, w.boot)
	var id auth.RequestID
	if len(w.sent) > 0 {
		old := w.last
		if r.IntN(2) == 0 {
			old = w.sent[r.IntN(len(w.sent))]
		}
		key, id = old.key, old.req.ID
	}
	switch x := r.IntN(1000); {
	case x < 2:
		if r.IntN(4) == 0 {
			w.boot = pick(r, 1e9, 1+r.Uint64N(60e9))
		}
		if r.IntN(2) == 0 {
			w.real = 1767225600e9 + w.boot
		}
		w.begin()
		for i := uint64(1); i <= nKeys; i++ {
			w.install(i)
		}
	case x < 3:
		w.ledger.Remove(w.now(), keyID(key))
		w.tell(fmt.Sprintf("x %s %d", at, key), "-", 0, id)
	case x < 10:
		w.install(1 + r.Uint64N(nKeys))
	case x < 13:
		dry := r.IntN(3) == 0
		w.ledger.SetDryRun(dry)
		w.tell(fmt.Sprintf("d %d", bit(dry)), "-", 0, id)
	case x < 60:
		yes := r.IntN(8) > 0
		asked := w.now()
		asked.Real += pick(r, 0, 0, 0, 0, 1e9, 1e9+1, ^uint64(1e9-1), ^uint64(1e9), r.Uint64())
		w.ledger.Synchronised(w.now(), yes, asked)
		w.tell(fmt.Sprintf("y %s %d %d", at, bit(yes), asked.Real-asked.Boot), "-", 0, id)
	case x < 180:
		how := auth.Settlement(r.IntN(3))
		decision := "late"
		if d, ok := w.ledger.Settle(w.now(), keyID(key), id, how); ok {
			decision = words(&d)
		}
		w.tell(fmt.Sprintf("e %s %d %d %d", at, key, binary.BigEndian.Uint64(id[8:]), how), decision, key, id)
	case x < 330:
		w.ledger.Finish(w.now(), keyID(key), id)
		w.tell(fmt.Sprintf("f %s %d %d", at, key, binary.BigEndian.Uint64(id[8:])), "-", key, id)
	default:
		w.request()
	}
}

func (w *world) request() {
	r := w.r
	var j judged
	if len(w.sent) > 0 && r.IntN(3) == 0 {
		j = w.sent[r.IntN(len(w.sent))] // as it was
		if r.IntN(2) == 0 {
			j.source = auth.Source(r.IntN(3))
		}
	} else {
		j = w.newRequest()
		if len(w.sent) < 60 {
			w.sent = append(w.sent, j)
		} else {
			w.sent[r.IntN(len(w.sent))] = j
		}
	}
	w.last = j
	w.ready = r.IntN(30) > 0
	draw := uint64(0)
	if w.ready {
		draw = w.draws + 1
	}
	steps := "-"
	if j.req.Count > 0 {
		steps = ""
		for _, s := range j.req.Sequence() {
			steps += string(s.Key)
		}
	}
	command := fmt.Sprintf("j %d %d %d %d %d %d %d %d %d %s %d %d", w.real, w.boot, j.key, binary.BigEndian.Uint64(j.req.ID[8:]), bit(j.malformed),
		j.req.Op, j.req.Flags, j.req.Time, binary.BigEndian.Uint64(j.req.Challenge[8:]), steps, j.source, draw)
	var d auth.Decision
	if j.malformed {
		d = w.ledger.JudgeMalformed(w.now(), keyID(j.key), &j.req)
	} else {
		d = w.ledger.Judge(w.now(), keyID(j.key), &j.req, j.source)
	}
	if d.Challenge != (auth.Challenge{}) {
		known := w.issued[j.key]
		w.issued[j.key] = append(known[max(0, len(known)-3):], d.Challenge)
	}
	w.tell(command, words(&d), j.key, j.req.ID)
}

func (w *world) newRequest() judged {
	r := w.r
	w.ids++
	j := judged{key: 1 + r.Uint64N(nKeys), source: auth.Source(r.IntN(3)), malformed: r.IntN(30) == 0}
	if r.IntN(1000) == 0 {
		j.key = 4 // never installed
	}
	j.req.ID = number16(w.ids)
	if len(w.sent) > 0 && r.IntN(12) == 0 {
		j.req.ID = w.sent[r.IntN(len(w.sent))].req.ID // another form, or a mistake
	}
	window := uint64(auth.Window)
	floor := w.ledger.Floor(keyID(j.key))
	switch r.IntN(32) {
	case 0:
		j.req.Time = pick(r, w.real+window, w.real+window+1, w.real+window-1)
	case 1:
		j.req.Time = pick(r, w.real-window, w.real-window+1, w.real-window-1)
	case 2:
		start := w.real - w.boot + window
		j.req.Time = pick(r, start, start+1, start-1)
	case 3:
		j.req.Time = w.real + r.Uint64N(2*window) - window
	case 4, 5, 6:
		j.req.Time = pick(r, floor, floor-1)
	case 7, 8, 9, 10, 11, 12:
		j.req.Time = floor + 1
	case 13, 14, 15, 16, 17, 18:
		j.req.Time = w.real
	}
	if r.IntN(5000) == 0 {
		j.req.Time = math.MaxUint64
	}
	if r.IntN(4) == 0 {
		return j // a status
	}
	j.req.Op = auth.OpRun
	if issued := w.issued[j.key]; len(issued) > 0 && (j.req.Time == 0 || r.IntN(8) == 0) {
		j.req.Challenge = issued[len(issued)-1]
		switch r.IntN(10) {
		case 0:
			j.req.Challenge = number16(1 << 60)
		case 1, 2, 3:
			j.req.Challenge = issued[r.IntN(len(issued))]
		}
	}
	if j.req.Challenge != (auth.Challenge{}) && r.IntN(3) == 0 {
		j.req.Op, j.req.Pieces = auth.OpLog, auth.MaxPieces
		return j
	}
	if r.IntN(3) == 0 {
		j.req.Flags = auth.RequestFlags(r.IntN(8))
	}
	all := pick(r, "s", "nsub", "eisub", "0123456789abcdefghijklmnopqrstuvwxyz")
	for range pick(r, 0, 1, 1, 2, 4, r.IntN(auth.MaxSteps+1)) {
		j.req.Steps[j.req.Count] = auth.Step{Key: all[r.IntN(len(all))]}
		j.req.Count++
	}
	return j
}
