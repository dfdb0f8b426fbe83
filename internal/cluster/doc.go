// SPDX-License-Identifier: GPL-2.0-only

// Package cluster has tests of the fence agent in a real Pacemaker cluster of two
// nodes:
//
//	  node1: namespaces of this host          node2: a machine of package system
//	┌────────────────────────────────┐      ┌────────────────────────────────────┐
//	│ corosync, pacemaker            │      │ corosync, pacemaker                │
//	│ fence_netsysrq of our package  │      │ netsysrqd and the kernel module    │
//	│ tap0  192.0.2.1/24             ├──────┤ eth0  192.0.2.2/24                 │
//	└────────────────────────────────┘ pump └────────────────────────────────────┘
//
// The pump carries frames between the machine's wire and a TAP device, and may
// lose some of them.
package cluster
