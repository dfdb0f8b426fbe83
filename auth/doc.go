// SPDX-License-Identifier: GPL-2.0-only

// Package auth is the netsysrq protocol: packets, their sealing and opening,
// keys, the ledger that decides what is fresh, and the policy of a key.
//
// It knows bytes and time only. Time and randomness are passed in; there are
// no sockets, no files and no logs. PROTOCOL.md in this folder is the
// specification; names here are spelled as there.
package auth
