// SPDX-License-Identifier: GPL-2.0-only

// Package fence is fence_netsysrq, the fence agent: it reboots a node for a
// cluster manager and says that this is done only on proof.
//
// The proof is a sealed reply "accepted" that was neither a rehearsal nor a dry
// run, and after it a sealed status with another boot id. The boot id is a
// kernel's own, so the second shows that the kernel that answered the first,
// with everything that ran on it, is no more. Nothing else counts: not silence,
// which a cut cable causes too; not "accepted" alone, since the machine may yet
// hang before the reset; and not another boot id alone, where "accepted" was not
// heard. Whatever is not proved is a failure, and the manager calls again.
//
// Each call is an intent of its own, which runs at most once. A call that comes
// right after one that had to end before the proof was there goes on with it
// instead of resetting the machine a second time: see [notes].
package fence
