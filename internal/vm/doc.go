// SPDX-License-Identifier: GPL-2.0-only

// Package vm boots real kernels in QEMU, hangs them in known ways, and speaks to
// them in raw Ethernet frames. It needs no network of the host and, once its
// packages are cached, no root for kernels that the host's compiler can build
// modules for.
//
//	 test (Go)                                    QEMU, -accel tcg, 2 CPUs
//	┌──────────────────┐   Ethernet frames    ┌──────────────────────────────┐
//	│ Net    192.0.2.1 ├──────────────────────┤ eth0 192.0.2.2, 2001:db8::2  │
//	│      2001:db8::1 │  a pair of sockets   │      interrupts on CPU 1     │
//	│ Machine          ├──── control ─────────┤ ttyS1  /init (guest/), PID 1 │
//	│ Console          ├──── kernel log ──────┤ ttyS0                        │
//	│ qmp              ├──── what QEMU did ───┤                              │
//	└──────────────────┘                      └──────────────────────────────┘
//
// Everything between the two is a descriptor that QEMU inherits: no port is
// open on the host, and no path is in anybody's way.
//
//	linux, err := vm.Kernel(ctx, "6.1")       // Debian's, downloaded once
//	ko, err := vm.BuildModule(ctx, linux, "testdata/trivial")
//	m := vm.New(t, vm.Options{Kernel: linux, Modules: []string{ko}})
//	out, err := m.Run(ctx, "/bin/busybox", "uname", "-r")
//	conn, err := m.Net.Dial(ctx, vm.GuestUDP4(9)) // an exchange.Dial
//	why, err := m.Hang(ctx, vm.FIFOHogs)      // returns once it is really hung
//	end, err := m.Wait(ctx)                   // vm.Reset, vm.PowerOff or vm.Panic
//
// Times that are compared with a bar should be the guest's: an emulator on a
// busy host is late in ways that no kernel is. [Machine.Lateness] says how late.
package vm
