// SPDX-License-Identifier: GPL-2.0-only

// Package module attaches the daemon to the kernel module, which then keeps
// the ledger, answers and acts: it brings keys and settings in, shows that the
// daemon lives, and writes what the module did to the daemon's log.
package module

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"netsysrq/auth"
	"netsysrq/cmd/responder/internal/metrics"
	"netsysrq/kmod-fallback/kmod"
)

// Client is what is needed of a connection to the module. *kmod.Client is one.
type Client interface {
	Take(auth.KeyID, auth.RequestID) error
	Veto(auth.KeyID, auth.RequestID) error
	Holder
	SetBootID(auth.BootID) error
	SetDryRun(bool) error
	SetDeadline(time.Duration) error
	Synchronised(bool, auth.Instant) error
	Register() error
	Port() uint32
	Events(uint32) ([]kmod.Event, uint32, uint32, error)
	Close() error
}

// Key is a key that the module is to hold.
type Key struct {
	Operator string
	Allowed  auth.KeySet
	Host     *auth.HostKey
}

// Settings are what the module is told. It keeps them when the daemon is gone.
type Settings struct {
	Boot     auth.BootID
	DryRun   bool
	Deadline time.Duration
	Keys     []Key
	// Complete reports that there are no keys but these, so that others are
	// taken away. It is false while a key file cannot be read.
	Complete bool
}

// ErrNotArmed is returned by Attach when the module holds no key and may be
// given none by this process, and by Beat when its keys were taken away: it lets
// no request through.
var ErrNotArmed = errors.New("the kernel module holds no keys")

// Link is the daemon's end. It is not safe for concurrent use; the client that
// Attach returns is.
type Link struct {
	Dial     func() (Client, error)
	Log      *slog.Logger
	Requests *metrics.Requests // counts what the module decided; nil: nothing does

	client Client
	names  map[auth.KeyID]string
	next   uint32 // event
	counts [auth.NumReasons]uint64
	// Before that the daemon's place is left to whoever has taken it.
	yields time.Time
	lost   uint64 // events
}

// Dial connects to the module of this host.
func Dial() (Client, error) {
	c, err := kmod.Dial()
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Armed reports whether the module holds keys, so that it acts. Where that
// cannot be found out it does: two must not act.
func Armed() bool {
	c, err := kmod.Dial()
	if err != nil {
		return !errors.Is(err, kmod.ErrNotLoaded)
	}
	defer c.Close()
	status, err := c.Status()
	return err != nil || len(status.Keys) > 0
}

// Attach makes this process the module's daemon. It returns kmod.ErrNotLoaded
// where there is no module.
func (l *Link) Attach(s Settings) (Client, error) {
	c, err := l.Dial()
	if err != nil {
		return nil, err
	}
	if err := l.attach(c, s); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (l *Link) attach(c Client, s Settings) error {
	refused, err := l.set(c, s)
	if err != nil {
		return err
	}
	status, err := c.Status()
	if err != nil {
		return err
	}
	if len(status.Keys) == 0 {
		return ErrNotArmed
	}
	if err := c.Register(); err != nil {
		return err
	}
	l.client, l.next, l.counts = c, status.NextUnread, status.Packets
	l.complain(refused)
	return nil
}

// Attached reports whether the module does the work.
func (l *Link) Attached() bool { return l.client != nil }

// Detach ends it.
func (l *Link) Detach() {
	if l.client != nil {
		l.client.Close()
		l.client = nil
	}
}

// Set tells the module new settings.
func (l *Link) Set(s Settings) error {
	if l.client == nil {
		return nil
	}
	refused, err := l.set(l.client, s)
	if err == nil {
		l.complain(refused)
	}
	return err
}

func (l *Link) set(c Client, s Settings) (refused []Key, err error) {
	l.names = map[auth.KeyID]string{}
	for _, k := range s.Keys {
		l.names[k.Host.ID] = k.Operator
	}
	if err := errors.Join(c.SetBootID(s.Boot), c.SetDryRun(s.DryRun), c.SetDeadline(s.Deadline)); err != nil {
		return nil, err
	}
	removed, refused, err := ReplaceKeys(c, s.Keys, s.Complete)
	for _, id := range removed {
		l.Log.Info("key taken out of the kernel module", "key_id", id.String())
	}
	return refused, err
}

// complain is for keys that only root may install.
func (l *Link) complain(refused []Key) {
	for _, k := range refused {
		l.Log.Warn("the kernel module does not know this key as the file has it, and only root may tell it: run netsysrqd load-keys",
			"key", k.Operator, "key_id", k.Host.ID.String())
	}
}

// Holder is the module as far as it holds keys.
type Holder interface {
	Status() (kmod.Status, error)
	InstallKey(*auth.HostKey, auth.KeySet) error
	RemoveKey(auth.KeyID) error
}

// ReplaceKeys makes the module hold these keys and, if they are complete, no
// others. What goes, goes first: there may be no room for what comes. What it
// holds as it should stays untouched, with its ledger. It returns what it
// removed, and what this process may not install.
func ReplaceKeys(c Holder, keys []Key, complete bool) (removed []auth.KeyID, refused []Key, err error) {
	status, err := c.Status()
	if err != nil {
		return nil, nil, err
	}
	wanted := map[auth.KeyID]bool{}
	for _, k := range keys {
		wanted[k.Host.ID] = true
	}
	held := map[auth.KeyID]auth.KeySet{}
	for _, k := range status.Keys {
		if wanted[k.ID] || !complete {
			held[k.ID] = k.Allowed
			continue
		}
		// Somebody else may have been faster.
		if err := c.RemoveKey(k.ID); err != nil && !errors.Is(err, kmod.ErrUnknownKey) {
			return removed, nil, err
		}
		removed = append(removed, k.ID)
	}
	for _, k := range keys {
		if allowed, ok := held[k.Host.ID]; ok && allowed == k.Allowed {
			continue
		}
		err := c.InstallKey(k.Host, k.Allowed)
		switch {
		case errors.Is(err, kmod.ErrPermission):
			refused = append(refused, k)
		case err != nil:
			return removed, refused, err
		}
	}
	return removed, refused, nil
}

// Remove takes a key out of the module at once.
func (l *Link) Remove(id auth.KeyID) error {
	if l.client == nil {
		return nil
	}
	err := l.client.RemoveKey(id)
	if errors.Is(err, kmod.ErrUnknownKey) {
		return nil
	}
	return err
}

// Beat tells the module that the daemon lives, and whether the clock is
// disciplined as it was when asked. It also looks whether the module still
// listens to this daemon, and takes care that it does.
func (l *Link) Beat(synchronised bool, asked auth.Instant, now time.Time) error {
	if err := l.client.Synchronised(synchronised, asked); err != nil {
		return err
	}
	status, err := l.client.Status()
	if err != nil {
		return err
	}
	if len(status.Keys) == 0 {
		return ErrNotArmed
	}
	if status.Daemon == l.client.Port() {
		return nil
	}
	return l.register(status.Daemon, now)
}

// yieldFor is how long another client keeps the daemon's place after it was
// taken back once: two daemons would take it from each other for ever.
const yieldFor = time.Minute

// register makes this process the module's daemon again, which another client
// has become, or was.
func (l *Link) register(other uint32, now time.Time) error {
	yield := now.Before(l.yields)
	if yield && other != 0 {
		return nil
	}
	if err := l.client.Register(); err != nil {
		return err
	}
	if !yield {
		l.yields = now.Add(yieldFor)
		l.Log.Warn("registered with the kernel module again: another program had taken the daemon's place, and the module heard nobody else",
			"netlink_port", other)
	}
	return nil
}

// Packets returns how many packets the module judged since it was last asked,
// by reason.
func (l *Link) Packets() (counts [auth.NumReasons]uint64, err error) {
	status, err := l.client.Status()
	if err != nil {
		return counts, err
	}
	for i := range counts {
		counts[i] = status.Packets[i] - min(status.Packets[i], l.counts[i])
	}
	l.counts = status.Packets
	return counts, nil
}

// eventBatch is how many replies of the module are read at once. Each holds
// about a dozen events, and whoever floods it may make them as fast as they are
// read: the caller has a watchdog to feed.
const eventBatch = 8

// Events logs what the module did since it was last asked. now is the time at
// which CLOCK_BOOTTIME shows boot. It reports whether there was anything, since
// there may be more then.
func (l *Link) Events(now time.Time, boot time.Duration) (some bool, err error) {
	for range eventBatch {
		events, next, lost, err := l.client.Events(l.next)
		if err != nil {
			return some, err
		}
		if lost > 0 {
			l.lost += uint64(lost)
			l.Log.Warn("events of the kernel module lost: more happened than it keeps", "events", lost)
		}
		for i := range events {
			at := now.Add(events[i].Boot - boot)
			l.count(&events[i], at)
			l.event(&events[i], at)
		}
		l.next = next
		if len(events) == 0 {
			break
		}
		some = true
	}
	return some, nil
}

// Lost is how many events the module did not keep until they were read.
func (l *Link) Lost() uint64 { return l.lost }

// count counts a request with the event that decides on it.
func (l *Link) count(e *kmod.Event, at time.Time) {
	rehearsal := e.Asked&(auth.Rehearse|auth.Drill) != 0
	switch e.Kind {
	case kmod.EventRequest:
		if e.Reason == auth.OK && (e.Steps != "" || rehearsal) {
			return // pending
		}
	case kmod.EventStale:
	case kmod.EventSettled:
		if e.By == kmod.ByDeadline && e.Asked&auth.Drill == 0 {
			l.Requests.Unattended()
		}
	default:
		return
	}
	l.Requests.Count(e.Result, e.Flags, len(e.Steps), at)
}

// event writes one line.
func (l *Link) event(e *kmod.Event, at time.Time) {
	level, message := words(e)
	if level < slog.LevelDebug {
		return
	}
	log := l.Log.With("executor", auth.Kernel.String(), "event", e.Seq, "at", at.UTC().Format(time.RFC3339Nano))
	if e.Kind == kmod.EventBegin {
		log.Log(context.Background(), level, message)
		return
	}
	name, known := l.names[e.Key]
	if !known {
		name = "(removed)"
	}
	log = log.With("key", name, "key_id", e.Key.String(), "src", e.From.String(), "request", fmt.Sprintf("%x", e.Request[:]),
		"steps", spell(e.Steps))
	if f := e.Asked.String(); f != "" {
		log = log.With("flags", f)
	}
	switch e.Kind {
	case kmod.EventStep, kmod.EventSkipped, kmod.EventConfirmed, kmod.EventUnconfirmed:
		if e.Step < len(e.Steps) {
			log = log.With("step", e.Steps[e.Step:e.Step+1])
		}
		log = log.With("number", e.Step+1, "by", e.By.String())
	case kmod.EventRequest, kmod.EventStale, kmod.EventSettled:
		log = log.With("decision", e.Result.String(), "reason", e.Reason.String())
		if f := e.Flags.String(); f != "" {
			log = log.With("qualified", f)
		}
	}
	if e.Kind != kmod.EventRequest && e.Kind != kmod.EventStale && e.Kind != kmod.EventRead {
		log = log.With("took_ms", e.Took.Milliseconds())
	}
	log.Log(context.Background(), level, message)
}

// words says what an event means. A level below debug: nothing that the
// daemon does not log itself.
func words(e *kmod.Event) (slog.Level, string) {
	const none = slog.LevelDebug - 1
	switch e.Kind {
	case kmod.EventBegin:
		return slog.LevelInfo, "the kernel module began a ledger"
	case kmod.EventRequest:
		switch {
		case e.Reason != auth.OK:
			return slog.LevelWarn, "request refused"
		case e.Steps == "" && e.Asked&(auth.Rehearse|auth.Drill) == 0:
			return slog.LevelInfo, "barrier accepted"
		}
		return slog.LevelDebug, "request pending"
	case kmod.EventStale:
		if e.Reason == auth.ReasonMalformed {
			return slog.LevelWarn, "request malformed"
		}
		return slog.LevelWarn, "request stale"
	case kmod.EventSettled:
		switch {
		case e.By != kmod.ByDeadline:
			return slog.LevelDebug, "request settled by the daemon"
		case e.Asked&auth.Drill != 0:
			return slog.LevelInfo, "drill answered by the kernel"
		}
		return slog.LevelWarn, "request run by the kernel: no word from the daemon in time"
	case kmod.EventUnsaid:
		return slog.LevelWarn, "answer not sent in time"
	case kmod.EventStep:
		if e.Flags&auth.DryRun != 0 {
			return slog.LevelInfo, "step left out: dry run"
		}
		return slog.LevelInfo, "step run"
	case kmod.EventSkipped:
		return slog.LevelWarn, "step left out: too long for an interrupt, and the thread is stuck"
	case kmod.EventConfirmed:
		return slog.LevelInfo, "step completed"
	case kmod.EventUnconfirmed:
		return slog.LevelWarn, "step not confirmed"
	case kmod.EventDone:
		return slog.LevelInfo, "sequence finished"
	case kmod.EventRead:
		return slog.LevelInfo, "kernel log read"
	case kmod.EventCut:
		if e.By == kmod.ByRemoved {
			return slog.LevelWarn, "request dropped: its key was removed"
		}
		return slog.LevelWarn, "sequence cut"
	}
	return none, ""
}

// spell writes SysRq keys as auth.FormatSteps does.
func spell(steps string) string {
	if steps == "" {
		return "-"
	}
	return strings.Join(strings.Split(steps, ""), ",")
}
