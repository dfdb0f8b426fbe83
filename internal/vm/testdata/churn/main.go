// SPDX-License-Identifier: GPL-2.0-only

// Churn does to the kernel module, over netlink and on every CPU at once, all
// that its family knows, for the test on the debug kernel.
//
//	churn run DURATION     keys, verdicts, settings, dumps and junk
//	churn deadline DURATION
//	churn status           as JSON
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"

	"netsysrq/auth"
	"netsysrq/internal/clock"
	"netsysrq/kmod-fallback/kmod"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "churn:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	m, err := kmod.Dial()
	if err != nil {
		return err
	}
	defer m.Close()
	switch {
	case len(args) == 1 && args[0] == "status":
		s, err := m.Status()
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(s)
	case len(args) != 2:
		return errors.New("usage: churn run|deadline DURATION, churn status")
	}
	d, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	if args[0] == "deadline" {
		return m.SetDeadline(d)
	}
	b, err := os.ReadFile("/run/enrolment")
	if err != nil {
		return err
	}
	e, err := auth.ParseEnrolment(string(b))
	if err != nil {
		return err
	}
	return churn(e, time.Now().Add(d))
}

// churn has every worker at it at once, each with a connection of its own, and
// says how often each of them came round.
func churn(e *auth.Enrolment, end time.Time) error {
	workers := []struct {
		name string
		work func(m *kmod.Client, r *rand.Rand) error
	}{
		{"the operator's key goes and comes back", func(m *kmod.Client, r *rand.Rand) error {
			time.Sleep(time.Duration(r.IntN(60)) * time.Millisecond)
			if err := m.RemoveKey(e.Key.ID); err != nil {
				return err
			}
			return m.InstallKey(&e.Key, e.Allow)
		}},
		{"more keys than there is room for", func(m *kmod.Client, r *rand.Rand) error {
			var k auth.HostKey
			k.ID[0] = byte(r.IntN(20))
			if r.IntN(2) == 0 {
				return m.RemoveKey(k.ID)
			}
			return m.InstallKey(&k, 0)
		}},
		{"settings", func(m *kmod.Client, r *rand.Rand) error {
			now := auth.Instant{Real: clock.Real(), Boot: clock.Boot()}
			return errors.Join(
				m.SetDeadline(time.Duration(10+r.IntN(100))*time.Millisecond),
				m.SetDryRun(r.IntN(2) == 0),
				m.SetBootID(auth.BootID{1, byte(r.IntN(256))}),
				m.Synchronised(r.IntN(8) != 0, now))
		}},
		{"dumps", func(m *kmod.Client, r *rand.Rand) error {
			s, err := m.Status()
			if err != nil {
				return err
			}
			_, _, _, err = m.Events(s.NextEvent - min(s.NextEvent, uint32(r.IntN(300))))
			return err
		}},
		{"verdicts", verdicts()},
	}
	var group sync.WaitGroup
	failures := make([]error, len(workers)+2)
	for i, w := range workers {
		group.Go(func() {
			m, err := kmod.Dial()
			if err != nil {
				failures[i] = err
				return
			}
			defer m.Close()
			r, n := rand.New(rand.NewPCG(1, uint64(i))), 0
			for ; time.Now().Before(end); n++ {
				if err := w.work(m, r); err != nil && !expected(err) {
					failures[i] = fmt.Errorf("%s: %w", w.name, err)
					return
				}
			}
			fmt.Printf("%s: %d times\n", w.name, n)
		})
	}
	for i := range 2 {
		group.Go(func() { failures[len(workers)+i] = junk(rand.New(rand.NewPCG(2, uint64(i))), end) })
	}
	group.Wait()
	return errors.Join(failures...)
}

// expected reports whether an error is an answer that the module may give while
// others do what they do.
func expected(err error) bool {
	for _, e := range []error{kmod.ErrKeyExists, kmod.ErrFull, kmod.ErrUnknownKey, kmod.ErrLate, kmod.ErrPermission, kmod.ErrDrill} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// verdicts is the daemon: it registers, reads what is new, and takes or vetoes
// what it finds.
func verdicts() func(m *kmod.Client, r *rand.Rand) error {
	var seq uint32
	return func(m *kmod.Client, r *rand.Rand) error {
		if err := m.Register(); err != nil {
			return err
		}
		events, next, _, err := m.Events(seq)
		if err != nil {
			return err
		}
		seq = next
		for _, e := range events {
			if e.Kind != kmod.EventRequest {
				continue
			}
			verdict := m.Take
			if r.IntN(3) == 0 {
				verdict = m.Veto
			}
			if err := verdict(e.Key, e.Request); err != nil && !expected(err) {
				return err
			}
		}
		time.Sleep(5 * time.Millisecond)
		return nil
	}
}

// junk sends commands with attributes that may have any type and length. What
// the module answers does not matter.
func junk(r *rand.Rand, end time.Time) error {
	c, err := genetlink.Dial(nil)
	if err != nil {
		return err
	}
	defer c.Close()
	family, err := c.GetFamily("netsysrq")
	if err != nil {
		return err
	}
	// Lengths of real attributes, so that some get past the policy.
	lengths := []int{0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 200}
	n := 0
	for ; time.Now().Before(end); n++ {
		var attrs []netlink.Attribute
		for range r.IntN(6) {
			data := make([]byte, lengths[r.IntN(len(lengths))])
			for i := range data {
				data[i] = byte(r.Uint32() & r.Uint32())
			}
			attrs = append(attrs, netlink.Attribute{Type: uint16(r.IntN(26)), Data: data})
		}
		b, err := netlink.MarshalAttributes(attrs)
		if err != nil {
			return err
		}
		if r.IntN(8) == 0 && len(b) > 0 {
			b = b[:r.IntN(len(b))]
		}
		_, _ = c.Execute(genetlink.Message{
			Header: genetlink.Header{Command: uint8(r.IntN(13)), Version: uint8(r.IntN(3))}, Data: b,
		}, family.ID, netlink.Request|netlink.Acknowledge)
		if r.IntN(4) == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	fmt.Printf("junk: %d times\n", n)
	return nil
}
