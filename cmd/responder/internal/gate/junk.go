// SPDX-License-Identifier: GPL-2.0-only

package gate

import (
	"cmp"
	"context"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"netsysrq/auth"
)

// Junk counts the packets of a lane that got no line of their own. Counting
// costs the same for every packet and never allocates, whatever the flood.
type Junk struct {
	mu       sync.Mutex
	reasons  [auth.NumReasons]uint64
	answered uint64 // status requests beyond the key's lines
	sources  [64]source
}

// source is a bucket of a majority sketch: of all addresses that fall into it,
// the one that sent most of the packets keeps it.
type source struct {
	addr  netip.Addr
	count uint64 // at most what the address sent
}

var junkSeed = maphash.MakeSeed()

func (j *Junk) add(r auth.Reason, from netip.Addr) {
	b := maphash.Comparable(junkSeed, from) % uint64(len(j.sources))
	j.mu.Lock()
	defer j.mu.Unlock()
	j.reasons[r]++
	switch s := &j.sources[b]; {
	case s.addr == from:
		s.count++
	case s.count == 0:
		*s = source{from, 1}
	default:
		s.count--
	}
}

func (j *Junk) addAnswered() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.answered++
}

// take returns the counts and begins anew.
func (j *Junk) take() (reasons [auth.NumReasons]uint64, answered uint64, sources []source) {
	j.mu.Lock()
	defer j.mu.Unlock()
	reasons, answered = j.reasons, j.answered
	for _, s := range j.sources {
		if s.count > 0 && s.addr.IsValid() {
			sources = append(sources, s)
		}
	}
	j.reasons, j.answered, j.sources = [auth.NumReasons]uint64{}, 0, [64]source{}
	return reasons, answered, sources
}

// SummaryEvery is the time between two summaries.
const SummaryEvery = 10 * time.Second

// topSources is how many addresses a summary names.
const topSources = 3

// Summarise logs one line about what the lanes counted, if they counted
// anything. Dropped is what the kernel dropped before a lane could see it. Where
// the kernel module counts, its counts are exact, and those of the lanes, which
// see a sample, only tell of the sources. It returns the counts by reason.
func Summarise(log *slog.Logger, lanes []*Lane, dropped uint64, module *[auth.NumReasons]uint64) (total [auth.NumReasons]uint64) {
	var answered, sum uint64
	var sources []source
	for _, l := range lanes {
		r, a, s := l.junk.take()
		for i, n := range r {
			total[i] += n
			sum += n
		}
		answered += a
		sources = append(sources, s...)
	}
	if module != nil {
		total, sum, dropped = *module, 0, 0
		for i := range total {
			if r := auth.Reason(i); r == auth.OK || r >= auth.ReasonNotAllowed {
				total[i] = 0 // these have lines of their own
			}
			sum += total[i]
		}
	}
	if answered > 0 {
		log.Info("status requests answered without a line of their own", "requests", answered)
	}
	if sum+dropped == 0 {
		return total
	}
	attrs := []slog.Attr{slog.Uint64("packets", sum+dropped)}
	for i, n := range total {
		if n > 0 && auth.Reason(i) != auth.OK {
			attrs = append(attrs, slog.Uint64(auth.Reason(i).String(), n))
		}
	}
	if dropped > 0 {
		attrs = append(attrs, slog.Uint64("queue-full", dropped))
	}
	if len(sources) > 0 {
		attrs = append(attrs, slog.String("sources", top(sources)))
	}
	log.LogAttrs(context.Background(), slog.LevelWarn, "packets ignored", attrs...)
	return total
}

// top words the addresses that sent most, each with a lower bound.
func top(sources []source) string {
	sum := map[netip.Addr]uint64{}
	for _, s := range sources {
		sum[s.addr] += s.count
	}
	sources = sources[:0]
	for addr, n := range sum {
		sources = append(sources, source{addr, n})
	}
	slices.SortFunc(sources, func(a, b source) int {
		return cmp.Or(cmp.Compare(b.count, a.count), a.addr.Compare(b.addr))
	})
	var words []string
	for _, s := range sources[:min(topSources, len(sources))] {
		words = append(words, fmt.Sprintf("%v >=%d", s.addr, s.count))
	}
	return strings.Join(words, ", ")
}

// lineBudget bounds the log lines of one key's packets that can be replayed.
type lineBudget struct {
	tokens uint64
	refill uint64 // CLOCK_BOOTTIME
}

const (
	lineBurst  = 5
	lineRefill = uint64(2 * time.Second)
)

func newLineBudget() *lineBudget { return &lineBudget{tokens: lineBurst} }

func (b *lineBudget) take(boot uint64) bool {
	if n := (boot - min(boot, b.refill)) / lineRefill; n > 0 {
		b.refill += n * lineRefill
		b.tokens = min(lineBurst, b.tokens+n)
	}
	if b.tokens == 0 {
		return false
	}
	b.tokens--
	return true
}
