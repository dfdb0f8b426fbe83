// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"netsysrq/kmod-fallback/kmod"
)

// record is a module that does something whenever it is asked what it did.
type record struct{ next uint32 }

func (r *record) Events(seq uint32) ([]kmod.Event, uint32, uint32, error) {
	r.next++
	e := kmod.Event{Seq: seq, Kind: kmod.EventBegin}
	if seq > 1 {
		e.Kind, e.From = kmod.EventStale, netip.MustParseAddrPort("192.0.2.1:4000")
	}
	return []kmod.Event{e}, seq + 1, 1, nil
}

// The record as it was when it was asked for, however fast it grows.
func TestReadEvents(t *testing.T) {
	all, lost, err := readEvents(&record{next: 5}, 5)
	if err != nil || len(all) != 4 || lost != 4 {
		t.Fatalf("%d events, %d lost, %v", len(all), lost, err)
	}
	if all[0].From != "" || all[1].From != "192.0.2.1:4000" || all[3].Number != 4 {
		t.Errorf("%+v", all)
	}
}

func TestStatusOfAModuleWithoutKeys(t *testing.T) {
	var out bytes.Buffer
	c := &command{stdout: &out}
	c.printStatus(&moduleReport{DeadlineMS: 250})
	if !strings.Contains(out.String(), "not armed: it holds no keys; waits 250 ms") {
		t.Error(out.String())
	}
}
