// SPDX-License-Identifier: GPL-2.0-only

// Package system boots a whole Debian, with systemd and everything that our
// packages depend on, in the machines of package vm. It is for tests of what is
// installed: a [Machine] is a [vm.Machine] with a disk that stays when the machine
// is reset and booted again.
//
//	image := system.NewImage(t, system.Bookworm)     // made once, a minute and a half
//	m := system.New(t, image, system.Options{Files: debs})
//	m.Sh(t, time.Minute, "apt-get install -y "+system.FilesDir+"/*.deb")
//	conn, err := m.Net.Dial(ctx, vm.GuestUDP4(9))    // as of vm
//	end, err := m.Wait(ctx)                          // vm.Reset
//	err = m.Boot(ctx)                                // again, from the same disk
//
// A machine is not booted but resumed: once for each image and each change of the
// bench, one is booted, stopped when systemd says that it runs, and kept in the
// cache as a [State], from which all others begin in a second or two. A test can
// make states of its own, such as one with our packages installed, and share it
// among its cases: [Derive]. Whatever a machine does to its disk goes to a file of
// its own, and is lost with it.
//
// With Secure Boot a machine boots by firmware, shim and GRUB, as Debian signs them,
// from the disk of a state: [NewFromDisk]. Its variables live as long as it does.
//
// The guest has no network but the test's frames. It is given files as a disk,
// which is mounted on [FilesDir].
//
// What is resumed has the boot id, the random numbers and the uptime of the
// machine that was saved. The clock is set anew. Linux 6.12 is told by the machine
// (VMGENID) that it is a copy, 6.1 has no ear for that.
package system
