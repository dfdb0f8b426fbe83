// SPDX-License-Identifier: GPL-2.0-only

//go:build vm

package vm_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"netsysrq/internal/vm"
)

// TestScenarios begins every scenario and wants its proof. Those that leave init
// alone share a machine. Whether ping is answered is told, not judged: that
// differs between kernels.
func TestScenarios(t *testing.T) {
	if testing.Short() {
		t.Skip("boots seven machines")
	}
	l := vm.NewKernel(t, vm.TestKernel())
	disk := filepath.Join(t.TempDir(), "disk")
	if err := vm.MakeDisk(t.Context(), disk, 64); err != nil {
		t.Fatal(err)
	}
	t.Run("init lives", func(t *testing.T) {
		h := newHost(t, vm.Options{Kernel: l, Disk: disk})
		h.hang(vm.DaemonNever)
		h.start()
		h.hang(vm.DaemonStopped)
		h.hang(vm.DaemonKilled)
		h.hang(vm.Conntrack)
		h.hang(vm.Frozen)
		h.hang(vm.DiskFrozen)
		h.Close()
		if err := vm.CheckDisk(t.Context(), disk); err != nil {
			t.Error(err)
		}
	})
	for _, s := range vm.Scenarios {
		if s.Gone {
			t.Run(s.Name, func(t *testing.T) {
				h := newHost(t, vm.Options{Kernel: l})
				h.start()
				h.hang(s)
			})
		}
	}
}

func (h *host) hang(s vm.Scenario) {
	h.Helper()
	// The control: how late everything is with nothing hung.
	if _, err := h.Lateness(vm.Within(h, 10*time.Second)); err != nil {
		h.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond)
	late, err := h.Lateness(vm.Within(h, 10*time.Second))
	if err != nil {
		h.Fatal(err)
	}
	start := time.Now()
	proof, err := h.Hang(h.Context(), s)
	if err != nil {
		h.Fatal(err)
	}
	h.Logf("%s, hung after %.1f s: %s", s.Name, time.Since(start).Seconds(), proof)
	h.Logf("lateness before it: %v", late)
	answered := 0
	const pings = 3
	for range pings {
		ctx, cancel := context.WithTimeout(h.Context(), time.Second)
		if _, err := h.Net.Ping(ctx, vm.GuestIPv6); err == nil {
			answered++
		}
		cancel()
	}
	h.Logf("%d of %d pings answered", answered, pings)
}
