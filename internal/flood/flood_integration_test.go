// SPDX-License-Identifier: GPL-2.0-only

//go:build integration

package flood_test

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"netsysrq/internal/flood"
	"netsysrq/internal/netlab"
)

// TestEverythingSentArrives compares what a flood says with what the other end
// of the wire counted.
func TestEverythingSentArrives(t *testing.T) {
	lab := netlab.New(t)
	in := func(fn func() error) error { return lab.Do(lab.Client, fn) }
	var peer net.HardwareAddr
	err := lab.Do(lab.Server, func() error {
		dev, err := net.InterfaceByName(netlab.Device)
		if err == nil {
			peer = dev.HardwareAddr
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	rules := strings.Fields("-t raw -A PREROUTING -p udp --dport 9 -j DROP")
	for _, command := range []string{"iptables", "ip6tables"} {
		if _, err := lab.Run(lab.Server, command, rules...); err != nil {
			t.Skip(err)
		}
	}
	count := func(command string) uint64 {
		out, err := lab.Run(lab.Server, command, "-t", "raw", "-vnxL", "PREROUTING")
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.ParseUint(strings.Fields(strings.Split(out, "\n")[2])[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for _, c := range []struct{ command, to, sources string }{
		{"iptables", "192.0.2.2:9", "198.18.0.0/15"},
		{"ip6tables", "[2001:db8::2]:9", "2001:db8:f000::/36"},
	} {
		to := netip.MustParseAddrPort(c.to)
		load := flood.Load{Payloads: [][]byte{make([]byte, 128)}, VaryFrom: 16, VaryTo: 128, For: 300 * time.Millisecond}
		before := count(c.command)
		sent, err := flood.UDP(context.Background(), in, to, 4, load)
		if got := count(c.command) - before; err != nil || got != sent.Packets || got == 0 {
			t.Errorf("UDP to %v: %v, arrived %d: %v", to, sent, got, err)
		}
		t.Logf("UDP to %v: %v", to, sent)
		wire := flood.Wire{Device: netlab.Device, Peer: peer, To: to, Sources: []netip.Prefix{netip.MustParsePrefix(c.sources)}}
		before = count(c.command)
		sent, err = flood.Spoofed(context.Background(), in, wire, load)
		if got := count(c.command) - before; err != nil || got != sent.Packets || got == 0 {
			t.Errorf("spoofed to %v: %v, arrived %d: %v", to, sent, got, err)
		}
		t.Logf("spoofed to %v: %v", to, sent)
		load.Rate, load.For = 1000, 500*time.Millisecond
		sent, err = flood.Spoofed(context.Background(), in, wire, load)
		if err != nil || sent.Packets < 100 || sent.Packets > 501 {
			t.Errorf("half a second of 1000 a second: %v: %v", sent, err)
		}
		load.Rate, load.Count = 0, 77
		if sent, err = flood.UDP(context.Background(), in, to, 1, load); err != nil || sent.Packets != 77 {
			t.Errorf("77 packets: %v: %v", sent, err)
		}
	}
}
