// SPDX-License-Identifier: GPL-2.0-only

package rules

import (
	"strings"
	"testing"
)

// listing is what nft 1.0.6 prints of deploy/netsysrq.nft, without what is alike
// for IPv6.
const listing = `table inet netsysrq {
	set sources4 {
		type ipv4_addr
		size 65535
		flags dynamic,timeout
		timeout 2s
	}

	chain request {
		ip frag-off & 16383 != 0 drop
		udp length != 136 drop
		update @sources4 { ip saddr limit rate 64/second burst 64 packets } queue to 9
		queue to 10
	}

	chain prerouting {
		type filter hook prerouting priority -310; policy accept;
		udp dport 9 fib daddr type 2 goto request
	}
}
`

func TestListed(t *testing.T) {
	set := Set{Port: 9, Queue: 9}
	for _, c := range []struct {
		name, listing string
		set           Set
		want          bool
	}{
		{"ours", listing, set, true},
		{"as older versions print it", strings.ReplaceAll(listing, "queue to", "queue num"), set, true},
		{"another port", listing, Set{Port: 90, Queue: 9}, false},
		{"a port that begins alike", strings.ReplaceAll(listing, "dport 9 ", "dport 90 "), set, false},
		{"other queues", listing, Set{Port: 9, Queue: 10}, false},
		{"no second queue", strings.ReplaceAll(listing, "queue to 10", "drop"), set, false},
		{"no hook", strings.ReplaceAll(listing, "type filter hook prerouting", "#"), set, false},
		{"nothing", "", set, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.set.listed(c.listing); got != c.want {
				t.Errorf("it is %v, want %v", got, c.want)
			}
		})
	}
}
