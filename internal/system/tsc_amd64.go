// SPDX-License-Identifier: GPL-2.0-only

package system

// timestamp is the host's time stamp counter.
func timestamp() uint64
