// SPDX-License-Identifier: GPL-2.0-only

package vm

// timestamp is the host's time stamp counter.
func timestamp() uint64
