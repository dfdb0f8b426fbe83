// SPDX-License-Identifier: GPL-2.0-only

// Package kmod speaks to the kernel module xt_NETSYSRQ over its generic netlink
// family. What each command does and which error it gives is written in
// ../netlink/specs/netsysrq.yaml.
//
// It lives in a folder of its own because Go does not take a package beside C
// files that are not its own.
package kmod
