// SPDX-License-Identifier: GPL-2.0-only

package nfq

import (
	"strings"
	"testing"
)

func TestParseKernelStats(t *testing.T) {
	const file = "    0   7348     0 2   512     0     0        0  1\n" +
		"    9   1234    17 2   512     5     6     4711  1\n"
	tests := []struct {
		name   string
		file   string
		queue  uint16
		portID uint32
		want   KernelStats
		fails  bool
	}{
		{name: "ours", file: file, queue: 9, portID: 1234,
			want: KernelStats{Owned: true, Waiting: 17, QueueDropped: 5, UserDropped: 6, LastID: 4711}},
		{name: "another's", file: file, queue: 9, portID: 7348},
		{name: "nobody's", file: file, queue: 8, portID: 1234},
		{name: "no queues", file: "", queue: 9, portID: 1234},
		{name: "missing columns", file: "9 1234 0\n", queue: 9, portID: 1234, fails: true},
		{name: "not a number", file: "9 1234 x 2 512 0 0 0 1\n", queue: 9, portID: 1234, fails: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := parseKernelStats(strings.NewReader(test.file), test.queue, test.portID)
			if (err != nil) != test.fails {
				t.Fatalf("got error %v", err)
			}
			if got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}
