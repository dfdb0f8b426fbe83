// SPDX-License-Identifier: GPL-2.0-only

package rules

import (
	"context"
	"fmt"
	"strings"
)

// Nft reports whether the rules for hosts without iptables, deploy/netsysrq.nft, are
// in place and are those of these settings. They look after themselves: neither
// Apply nor Remove knows them.
func (s Set) Nft(ctx context.Context) bool {
	command := s.find("nft")
	if command == "" {
		return false
	}
	out, err := run(ctx, command, "", "-n", "list", "table", "inet", "netsysrq")
	return err == nil && s.listed(out)
}

// listed reports whether what nft prints of the table are rules of these settings.
func (s Set) listed(out string) bool {
	// Versions of nft differ in the word between queue and its number.
	words := strings.NewReplacer("queue num ", "queue to ", "\n", " ").Replace(out) + " "
	for _, part := range []string{
		"hook prerouting",
		fmt.Sprintf("udp dport %d ", s.Port),
		fmt.Sprintf("queue to %d ", s.Queue),
		fmt.Sprintf("queue to %d ", s.Queue+1),
	} {
		if !strings.Contains(words, part) {
			return false
		}
	}
	return true
}
