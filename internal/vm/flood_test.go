// SPDX-License-Identifier: GPL-2.0-only

//go:build vm

package vm_test

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/exchange"
	"netsysrq/internal/vm"
)

// floodRate is the packets per second of the flood. The emulator takes some ten
// times as long for each as a real processor.
func floodRate() int {
	if n, err := strconv.Atoi(os.Getenv("FLOOD")); err == nil {
		return n
	}
	return 10_000
}

// flood sends packets that are right in length, magic and key id, from many
// sources, until the context ends. It returns how many it sent.
func (h *host) flood(ctx context.Context, id auth.KeyID, rate int) <-chan int {
	const different = 4096
	random := rand.New(rand.NewPCG(3, 4))
	frames := make([][]byte, different)
	for i := range frames {
		p := make([]byte, auth.PacketSize)
		for j := range p {
			p[j] = byte(random.Uint32())
		}
		copy(p, "NSRQ\x01\x01\x00\x00")
		copy(p[8:], id[:])
		var from [4]byte
		binary.BigEndian.PutUint32(from[:], 198<<24|18<<16|random.Uint32N(1<<17)) // 198.18.0.0/15, RFC 2544
		frames[i] = vm.UDPFrame(netip.AddrPortFrom(netip.AddrFrom4(from), uint16(1024+random.IntN(60000))), vm.GuestUDP4(auth.Port), p)
	}
	done := make(chan int, 1)
	go func() {
		sent := 0
		defer func() { done <- sent }()
		for start := time.Now(); ctx.Err() == nil; time.Sleep(time.Millisecond) {
			for due := int(time.Since(start).Seconds() * float64(rate)); sent < due; sent++ {
				if h.Net.SendFrame(frames[sent%different]) != nil {
					return // the machine has ended
				}
			}
		}
	}()
	return done
}

// TestFloodOfTheModule is a flood that only the seal tells from the real thing:
// no request is lost, and an answer takes no more than three times as long.
func TestFloodOfTheModule(t *testing.T) {
	const requests, bar = 200, 3
	h := newAttachedHost(t, "h")
	// Sources have to be such as a reply could go to.
	if out, err := h.Machine.Run(vm.Within(t, 10*time.Second), "/usr/sbin/ip", "route", "replace", "default", "via", sender4.Addr().String()); err != nil {
		t.Fatal(err, out)
	}
	var id auth.KeyID
	for _, k := range h.module().Keys {
		parsed, err := auth.ParseKeyID(k.ID)
		if err != nil {
			t.Fatal(err)
		}
		id = parsed
	}
	ask := func() (all []time.Duration) {
		for i := range requests {
			start := time.Now()
			out := h.exchange("h", auth.Rehearse)
			if out.Kind != exchange.Accepted {
				t.Fatalf("request %d: %v", i, out.Kind)
			}
			took := time.Since(start)
			if took > 200*time.Millisecond {
				t.Logf("request %d took %v: by the %v, %d packets sent, %d replies", i, took, out.Reply.Executor, out.Sent, out.Replies)
			}
			all = append(all, took)
		}
		return all
	}
	ask() // everything is warm
	quiet := ask()
	before := h.module().Packets["forged"]
	ctx, stop := context.WithCancel(t.Context())
	sent := h.flood(ctx, id, floodRate())
	time.Sleep(500 * time.Millisecond)
	start := time.Now()
	flooded := ask()
	took := time.Since(start)
	stop()
	n := <-sent
	judged := h.module().Packets["forged"] - before
	ratio := float64(quantile(flooded, 0.5)) / float64(quantile(quiet, 0.5))
	t.Logf("%d of %d requests lost under %d packets/s (%d sent, %d judged); status and run: median %v, p99 %v, largest %v; unflooded %v, %v, %v; ratio of the medians %.2f, of p99 %.2f; took %v",
		requests-len(flooded), requests, floodRate(), n, judged, quantile(flooded, 0.5), quantile(flooded, 0.99), quantile(flooded, 1),
		quantile(quiet, 0.5), quantile(quiet, 0.99), quantile(quiet, 1), ratio, float64(quantile(flooded, 0.99))/float64(quantile(quiet, 0.99)), took)
	if judged < uint64(n)*9/10 {
		t.Errorf("the module judged %d of %d packets: the flood did not come through", judged, n)
	}
	if ratio > bar {
		t.Errorf("an answer takes %.2f times as long, the bar is %d", ratio, bar)
	}
}
