// SPDX-License-Identifier: GPL-2.0-only

package rules

import (
	"os"

	"netsysrq/kmod-fallback/kmod"
)

// moduleDir is there while the kernel module is loaded.
const moduleDir = "/sys/module/xt_NETSYSRQ"

// ModuleLoaded reports whether rules can lead through the kernel module: it is
// loaded, and the caller is in the network namespace that it serves. Neither
// /proc/net/ip_tables_targets, which the nft backend does without, nor the
// folder in /sys, which every namespace sees, tells both.
func ModuleLoaded() bool {
	// Asked for a family that is not there, the kernel runs modprobe.
	if _, err := os.Stat(moduleDir); err != nil {
		return false
	}
	c, err := kmod.Dial()
	if err != nil {
		return false
	}
	c.Close()
	return true
}
