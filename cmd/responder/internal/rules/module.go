// SPDX-License-Identifier: GPL-2.0-only

package rules

import "netsysrq/kmod-fallback/kmod"

// ModuleLoaded reports whether rules can lead through the kernel module: it is
// loaded, and the caller is in the network namespace that it serves. Neither
// /proc/net/ip_tables_targets, which the nft backend does without, nor the
// folder in /sys, which every namespace sees, tells both.
func ModuleLoaded() bool {
	c, err := kmod.Dial()
	if err != nil {
		return false
	}
	c.Close()
	return true
}
