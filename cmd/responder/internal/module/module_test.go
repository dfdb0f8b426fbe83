// SPDX-License-Identifier: GPL-2.0-only

package module

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"netsysrq/auth"
	"netsysrq/cmd/responder/internal/metrics"
	"netsysrq/internal/promtext"
	"netsysrq/kmod-fallback/kmod"
)

// fake is a kernel module in memory.
type fake struct {
	status        kmod.Status
	events        []kmod.Event                // numbered from 1
	more          func(seq uint32) kmod.Event // or else without end
	calls         []string
	unrooted      bool // keys cannot be installed
	registered    bool
	registrations int
	beats         int
	closed        bool
}

func (f *fake) call(format string, a ...any) error {
	f.calls = append(f.calls, fmt.Sprintf(format, a...))
	return nil
}

func (f *fake) Take(auth.KeyID, auth.RequestID) error { return nil }
func (f *fake) Veto(auth.KeyID, auth.RequestID) error { return nil }
func (f *fake) InstallKey(k *auth.HostKey, s auth.KeySet) error {
	if f.unrooted {
		return fmt.Errorf("install: %w", kmod.ErrPermission)
	}
	f.status.Keys = slices.DeleteFunc(f.status.Keys, func(held kmod.Key) bool { return held.ID == k.ID })
	f.status.Keys = append(f.status.Keys, kmod.Key{ID: k.ID, Allowed: s})
	return f.call("install %v %v", k.ID, s)
}
func (f *fake) RemoveKey(id auth.KeyID) error {
	n := len(f.status.Keys)
	f.status.Keys = slices.DeleteFunc(f.status.Keys, func(held kmod.Key) bool { return held.ID == id })
	if len(f.status.Keys) == n {
		return kmod.ErrUnknownKey
	}
	return f.call("remove %v", id)
}
func (f *fake) SetBootID(id auth.BootID) error        { f.status.Boot = id; return nil }
func (f *fake) SetDryRun(on bool) error               { f.status.DryRun = on; return nil }
func (f *fake) SetDeadline(d time.Duration) error     { f.status.Deadline = d; return nil }
func (f *fake) Synchronised(bool, auth.Instant) error { f.beats++; return nil }
func (f *fake) Register() error {
	f.registered, f.status.Daemon = true, f.Port()
	f.registrations++
	return nil
}
func (f *fake) Port() uint32                 { return 4242 }
func (f *fake) Status() (kmod.Status, error) { return f.status, nil }
func (f *fake) Close() error                 { f.closed = true; return nil }

func (f *fake) Events(seq uint32) (events []kmod.Event, next, lost uint32, err error) {
	if f.more != nil {
		return []kmod.Event{f.more(seq)}, seq + 1, 0, nil
	}
	const room = 2 // in one reply
	for _, e := range f.events {
		if e.Seq >= seq && len(events) < room {
			events = append(events, e)
			seq = e.Seq + 1
		}
	}
	return events, seq, 0, nil
}

func key(n byte, allowed string) Key {
	set, err := auth.ParseKeySet(allowed)
	if err != nil {
		panic(err)
	}
	return Key{Operator: fmt.Sprintf("op%d", n), Allowed: set, Host: &auth.HostKey{ID: auth.KeyID{n}}}
}

func held(k Key) kmod.Key { return kmod.Key{ID: k.Host.ID, Allowed: k.Allowed} }

func newLink(f *fake) (*Link, *bytes.Buffer) {
	log := new(bytes.Buffer)
	return &Link{
		Dial: func() (Client, error) { return f, nil },
		Log:  slog.New(slog.NewJSONHandler(log, nil)),
	}, log
}

// Attaching brings the module what it lacks and leaves the rest alone: a key
// that stays keeps its ledger.
func TestAttach(t *testing.T) {
	same, wider, gone, fresh := key(1, "sub"), key(2, "subw"), key(3, "s"), key(4, "b")
	narrow := wider
	narrow.Allowed = same.Allowed
	settings := Settings{Boot: auth.BootID{7}, DryRun: true, Deadline: time.Second, Keys: []Key{same, wider, fresh}, Complete: true}
	for _, c := range []struct {
		name     string
		complete bool
		unrooted bool
		want     []string
	}{
		{"as root", true, false, []string{"remove 0300000000000000", "install 0200000000000000 bsuw", "install 0400000000000000 b"}},
		{"a file cannot be read", false, false, []string{"install 0200000000000000 bsuw", "install 0400000000000000 b"}},
		{"without root", true, true, []string{"remove 0300000000000000"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &fake{unrooted: c.unrooted}
			f.status.Keys = []kmod.Key{held(same), held(narrow), held(gone)}
			l, log := newLink(f)
			s := settings
			s.Complete = c.complete
			client, err := l.Attach(s)
			if err != nil || client == nil || !f.registered || !l.Attached() {
				t.Fatalf("attach: %v, registered %v", err, f.registered)
			}
			if !slices.Equal(f.calls, c.want) {
				t.Errorf("calls %q, want %q", f.calls, c.want)
			}
			if f.status.Boot != s.Boot || !f.status.DryRun || f.status.Deadline != time.Second {
				t.Errorf("settings %+v", f.status)
			}
			if said := strings.Count(log.String(), "run netsysrqd load-keys"); c.unrooted != (said == 2) {
				t.Errorf("hints: %d\n%s", said, log)
			}
		})
	}
}

// Another client that becomes the module's daemon has its place for a second.
// One that insists has it for a minute at a time, and the log one line a minute.
func TestBeatTakesTheDaemonsPlaceBack(t *testing.T) {
	f := &fake{}
	f.status.Keys = []kmod.Key{held(key(1, "b"))}
	l, log := newLink(f)
	if _, err := l.Attach(Settings{Keys: []Key{key(1, "b")}}); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	beat := func(second int, daemon uint32) {
		t.Helper()
		f.status.Daemon = daemon
		if err := l.Beat(true, auth.Instant{}, start.Add(time.Duration(second)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	const other = 77
	for _, c := range []struct {
		second               int
		daemon               uint32
		registrations, lines int
	}{
		{1, f.Port(), 1, 0}, {2, other, 2, 1}, {3, f.Port(), 2, 1}, {4, other, 2, 1}, {61, other, 2, 1}, {62, other, 3, 2},
		{63, other, 3, 2}, {64, 0, 4, 2}, // it has gone
	} {
		beat(c.second, c.daemon)
		if lines := strings.Count(log.String(), "registered with the kernel module again"); f.registrations != c.registrations || lines != c.lines {
			t.Errorf("second %d: registered %d times with %d lines, want %d and %d", c.second, f.registrations, lines, c.registrations, c.lines)
		}
	}
}

// A module whose keys were taken away lets nothing through.
func TestBeatOfADisarmedModule(t *testing.T) {
	f := &fake{}
	f.status.Keys = []kmod.Key{held(key(1, "b"))}
	l, _ := newLink(f)
	if _, err := l.Attach(Settings{Keys: []Key{key(1, "b")}}); err != nil {
		t.Fatal(err)
	}
	f.status.Keys = nil
	if err := l.Beat(true, auth.Instant{}, time.Now()); !errors.Is(err, ErrNotArmed) || f.beats != 1 {
		t.Errorf("beat %d: %v", f.beats, err)
	}
}

func TestAttachNotArmed(t *testing.T) {
	f := &fake{unrooted: true}
	l, log := newLink(f)
	if _, err := l.Attach(Settings{Keys: []Key{key(1, "b")}}); !errors.Is(err, ErrNotArmed) || l.Attached() || f.registered || !f.closed {
		t.Errorf("attach: %v, registered %v, closed %v", err, f.registered, f.closed)
	}
	if log.Len() > 0 { // it is tried every few seconds
		t.Errorf("logged %s", log)
	}
	l.Dial = func() (Client, error) { return nil, kmod.ErrNotLoaded }
	if _, err := l.Attach(Settings{}); !errors.Is(err, kmod.ErrNotLoaded) {
		t.Errorf("attach: %v", err)
	}
}

// Events are logged once, in their order, with the time at which they happened,
// those from before the daemon came back too.
func TestEvents(t *testing.T) {
	alice := key(1, "nsub")
	base := kmod.Event{Key: alice.Host.ID, Request: auth.RequestID{0xab}, Steps: "sb", From: netip.MustParseAddrPort("192.0.2.1:4000"),
		Result: auth.Accepted}
	event := func(seq uint32, kind kmod.Kind, change func(*kmod.Event)) kmod.Event {
		e := base
		e.Seq, e.Kind, e.Boot = seq, kind, time.Duration(seq)*time.Second
		if change != nil {
			change(&e)
		}
		return e
	}
	f := &fake{events: []kmod.Event{
		event(1, kmod.EventBegin, nil),
		event(2, kmod.EventRequest, nil), // logged for debugging only
		event(3, kmod.EventSettled, func(e *kmod.Event) { e.By, e.Took = kmod.ByDeadline, 250*time.Millisecond }),
		event(4, kmod.EventStep, func(e *kmod.Event) { e.By = kmod.ByTick }),
		event(5, kmod.EventUnconfirmed, func(e *kmod.Event) { e.Took = 10 * time.Second }),
		event(6, kmod.EventRequest, func(e *kmod.Event) { e.Result, e.Reason, e.Key = auth.RefPolicy, auth.ReasonNotAllowed, auth.KeyID{9} }),
		event(7, kmod.EventSettled, func(e *kmod.Event) { e.By = kmod.ByTake }), // the daemon logged that
		event(8, kmod.EventDone, nil),
		event(9, kmod.EventRead, func(e *kmod.Event) { e.Steps = "" }),
	}}
	f.status.Keys, f.status.NextUnread = []kmod.Key{held(alice)}, 2
	l, log := newLink(f)
	if _, err := l.Attach(Settings{Keys: []Key{alice}}); err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 1, 2, 3, 4, 15, 0, time.UTC)
	if some, err := l.Events(now, 15*time.Second); !some || err != nil {
		t.Errorf("events: %v %v", some, err)
	}
	if some, err := l.Events(now, 15*time.Second); some || err != nil {
		t.Errorf("events again: %v %v", some, err)
	}
	type line struct {
		At, Level, Msg, Key, Src, Request, Steps, Step, By, Reason string
		Number                                                     int
		TookMS                                                     int `json:"took_ms"`
	}
	var got []line
	for text := range strings.Lines(log.String()) {
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatal(err)
		}
		got = append(got, l)
	}
	const id = "ab000000000000000000000000000000"
	want := []line{
		{"2026-01-02T03:04:03Z", "WARN", "request run by the kernel: no word from the daemon in time", "op1", "192.0.2.1:4000", id, "s,b", "", "", "ok", 0, 250},
		{"2026-01-02T03:04:04Z", "INFO", "step run", "op1", "192.0.2.1:4000", id, "s,b", "s", "tick", "", 1, 0},
		{"2026-01-02T03:04:05Z", "WARN", "step not confirmed", "op1", "192.0.2.1:4000", id, "s,b", "s", "nobody", "", 1, 10000},
		{"2026-01-02T03:04:06Z", "WARN", "request refused", "(removed)", "192.0.2.1:4000", id, "s,b", "", "", "not-allowed", 0, 0},
		{"2026-01-02T03:04:08Z", "INFO", "sequence finished", "op1", "192.0.2.1:4000", id, "s,b", "", "", "", 0, 0},
		{"2026-01-02T03:04:09Z", "INFO", "kernel log read", "op1", "192.0.2.1:4000", id, "-", "", "", "", 0, 0},
	}
	if !slices.Equal(got, want) {
		t.Errorf("logged\n%+v\nwant\n%+v", got, want)
	}
}

// A request is counted once, with the event that decides on it.
func TestEventsAreCounted(t *testing.T) {
	list := []kmod.Event{
		{Kind: kmod.EventBegin},
		{Kind: kmod.EventRequest, Steps: "sb"},           // pending
		{Kind: kmod.EventRequest, Asked: auth.Rehearse},  // pending
		{Kind: kmod.EventRequest, Result: auth.Accepted}, // a barrier
		{Kind: kmod.EventRequest, Steps: "c", Result: auth.RefPolicy, Reason: auth.ReasonNotAllowed},
		{Kind: kmod.EventStale, Steps: "b", Result: auth.Stale, Reason: auth.ReasonStale},
		{Kind: kmod.EventSettled, Steps: "b", Result: auth.Accepted, By: kmod.ByTake},
		{Kind: kmod.EventSettled, Steps: "b", Result: auth.Accepted, By: kmod.ByDeadline},
		{Kind: kmod.EventSettled, Steps: "b", Result: auth.Accepted, Flags: auth.Rehearsed, Asked: auth.Drill, By: kmod.ByDeadline},
		{Kind: kmod.EventStep, Steps: "b", Result: auth.Accepted},
		{Kind: kmod.EventDone, Steps: "b", Result: auth.Accepted},
	}
	for i := range list {
		list[i].Seq = uint32(i + 1)
	}
	f := &fake{events: list}
	f.status.Keys, f.status.NextUnread = []kmod.Key{held(key(1, "b"))}, 1
	l, _ := newLink(f)
	l.Requests = new(metrics.Requests)
	if _, err := l.Attach(Settings{Keys: []Key{key(1, "b")}}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Events(time.Now(), 0); err != nil {
		t.Fatal(err)
	}
	got, err := promtext.Parse(string(metrics.Text(l.Requests.Families())))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]float64{"accepted": 2, "rehearsed": 1, "barrier": 1, "policy": 1, "stale": 1, "vetoed": 0} {
		if n := got.Values[`netsysrqd_requests_total{result="`+name+`"}`]; n != want {
			t.Errorf("%s: %v, want %v", name, n, want)
		}
	}
	if n := got.Values["netsysrqd_requests_unattended_total"]; n != 1 {
		t.Errorf("%v without the daemon", n)
	}
}

// A module that has more to tell each time it is asked does not keep the caller.
func TestEventsWithoutEnd(t *testing.T) {
	f := &fake{}
	f.status.Keys, f.status.NextUnread = []kmod.Key{held(key(1, "b"))}, 1
	l, _ := newLink(f)
	if _, err := l.Attach(Settings{Keys: []Key{key(1, "b")}}); err != nil {
		t.Fatal(err)
	}
	asked := 0
	f.more = func(seq uint32) kmod.Event {
		if asked++; asked > 1000 {
			t.Fatal("Events does not return")
		}
		return kmod.Event{Seq: seq, Kind: kmod.EventStep}
	}
	if some, err := l.Events(time.Now(), 0); !some || err != nil {
		t.Errorf("events: %v %v", some, err)
	}
	before := asked
	if some, err := l.Events(time.Now(), 0); !some || err != nil || asked == before {
		t.Errorf("events that are left: %v %v", some, err)
	}
}

// Every kind that the module knows has words.
func TestEveryKindHasWords(t *testing.T) {
	for k := kmod.EventBegin; k.String() != "unknown"; k++ {
		if level, text := words(&kmod.Event{Kind: k}); text == "" || level < slog.LevelDebug {
			t.Errorf("%v: level %v, %q", k, level, text)
		}
	}
}

func TestPackets(t *testing.T) {
	f := &fake{}
	f.status.Keys = []kmod.Key{held(key(1, "b"))}
	f.status.Packets[auth.ReasonForged] = 100
	l, _ := newLink(f)
	if _, err := l.Attach(Settings{Keys: []Key{key(1, "b")}}); err != nil {
		t.Fatal(err)
	}
	for _, n := range []uint64{0, 7, 0} {
		f.status.Packets[auth.ReasonForged] += n
		if counts, err := l.Packets(); err != nil || counts[auth.ReasonForged] != n {
			t.Errorf("counted %d %v, want %d", counts[auth.ReasonForged], err, n)
		}
	}
	// A module that was loaded anew counts from 0.
	f.status.Packets[auth.ReasonForged] = 3
	if counts, _ := l.Packets(); counts[auth.ReasonForged] != 0 {
		t.Errorf("counted %d", counts[auth.ReasonForged])
	}
}
