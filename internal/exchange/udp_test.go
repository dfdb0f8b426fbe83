// SPDX-License-Identifier: GPL-2.0-only

package exchange

import (
	"errors"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/clock"
	"netsysrq/internal/exchange/fakehost"
)

// Real sockets on the loopback, both families at once.
func TestUDP(t *testing.T) {
	key, _ := new(auth.Master).HostKey("web1")
	host := fakehost.New(fakehost.Config{Key: key, Allow: ^auth.KeySet(0), Clock: func() (uint64, uint64) {
		return clock.Real(), clock.Boot()
	}}, 0)
	target := Host{Name: "web1", Sealer: auth.NewSealer(&key)}
	for _, ip := range []string{"127.0.0.1", "::1"} {
		conn, err := fakehost.Loopback(ip)
		if err != nil {
			t.Skipf("SKIP: no UDP on %s here: %v", ip, err)
		}
		defer conn.Close()
		go host.Serve(conn)
		target.Addrs = append(target.Addrs, conn.LocalAddr().(interface{ AddrPort() netip.AddrPort }).AddrPort())
	}
	o, err := Run(t.Context(), target, []auth.Step{{Key: 's'}}, 0, Options{})
	if err != nil || o.Kind != Accepted || host.Runs() != 1 || o.RoundTrip <= 0 {
		t.Fatalf("%+v, %v, %d runs", o, err, host.Runs())
	}
}

// A closed port is a hint, not an answer: the exchange waits until the timeout.
func TestConnectionRefused(t *testing.T) {
	conn, err := fakehost.Loopback("127.0.0.1")
	if err != nil {
		t.Skipf("SKIP: no UDP on the loopback here: %v", err)
	}
	addr := conn.LocalAddr().(interface{ AddrPort() netip.AddrPort }).AddrPort()
	conn.Close()
	key, _ := new(auth.Master).HostKey("web1")
	o, err := Status(t.Context(), Host{Name: "web1", Addrs: []netip.AddrPort{addr}, Sealer: auth.NewSealer(&key)},
		Options{Timeout: 600 * time.Millisecond})
	if err != nil || o.Kind != Unknown || o.Sent == 0 || !errors.Is(o.Unreachable, syscall.ECONNREFUSED) {
		t.Fatalf("%+v, %v", o, err)
	}
}
