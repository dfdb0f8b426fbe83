// SPDX-License-Identifier: GPL-2.0-only

package metrics

import (
	"sync/atomic"
	"time"

	"netsysrq/auth"
)

// Outcomes that are no results of their own in a reply.
const (
	rehearsed = auth.Malformed + 1 + iota // accepted, and nothing done
	barrier                               // accepted, and nothing to do
	outcomes
)

func outcome(i auth.Result) string {
	switch i {
	case rehearsed:
		return "rehearsed"
	case barrier:
		return "barrier"
	}
	return i.String()
}

// Requests counts what became of requests to run something, each once. Its
// methods may be called from any goroutine. A nil *Requests counts nothing.
type Requests struct {
	counts     [outcomes]atomic.Uint64
	last       [outcomes]atomic.Int64 // ns since 1970
	unattended atomic.Uint64
}

// Count counts a request that was decided on. One without steps is a barrier.
func (r *Requests) Count(result auth.Result, flags auth.ReplyFlags, steps int, at time.Time) {
	if r == nil || result >= outcomes {
		return
	}
	if result == auth.Accepted {
		switch {
		case flags&(auth.Rehearsed|auth.DryRun) != 0:
			result = rehearsed
		case steps == 0:
			result = barrier
		}
	}
	r.counts[result].Add(1)
	r.last[result].Store(at.UnixNano())
}

// Unattended counts a request that the kernel module ran without the daemon.
func (r *Requests) Unattended() {
	if r != nil {
		r.unattended.Add(1)
	}
}

// Families are what was counted.
func (r *Requests) Families() []Family {
	counts := Family{Name: "netsysrqd_requests_total", Kind: Counter, Label: "result",
		Help: "Authentic requests to run something, by what became of them. Repeats and what was only counted are not among them."}
	last := Family{Name: "netsysrqd_last_request_timestamp_seconds", Kind: Gauge, Label: "result",
		Help: "When such a request came last, in seconds since 1970."}
	for i := auth.Accepted; i < outcomes; i++ {
		counts.Samples = append(counts.Samples, Sample{outcome(i), float64(r.counts[i].Load())})
		if at := r.last[i].Load(); at != 0 {
			last.Samples = append(last.Samples, Sample{outcome(i), float64(at/1e6) / 1e3})
		}
	}
	return []Family{counts, last, {Name: "netsysrqd_requests_unattended_total", Kind: Counter,
		Help:    "Requests that the kernel module ran because the daemon said nothing in time.",
		Samples: One(r.unattended.Load())}}
}
