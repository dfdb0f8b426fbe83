// SPDX-License-Identifier: GPL-2.0-only

// Package exchange is the sender's way, PROTOCOL.md section 6: it asks one host
// for one thing, over however bad a network, and says how it ended. An intent
// is run at most once, whatever is lost, repeated or restarted on the way.
//
// It has no terminal, no flags and no words for people. way.go holds the rules
// and does no input or output; paths.go holds the sockets; exchange.go joins
// the two. shared.go joins many exchanges to a few sockets instead.
package exchange
