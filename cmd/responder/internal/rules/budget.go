// SPDX-License-Identifier: GPL-2.0-only

package rules

import "time"

// So many mendings within mendWindow, and the next waits until the last of them is
// that old: somebody takes the rules away on purpose. From then on each mending is
// followed by such a pause, until one of them has lasted.
const (
	mendBurst  = 5
	mendWindow = time.Minute
)

// budget says when the rules may be put back, so that nobody is fought in a loop.
type budget struct {
	mended  []time.Time // within mendWindow
	refused bool        // since the last of them
	fight   bool        // it had to wait
}

// take is called when the rules are lost. It returns how long they are to stay so;
// none means that they are put back. first is true once in each fight.
func (b *budget) take(now time.Time) (wait time.Duration, first bool) {
	for len(b.mended) > 0 && now.Sub(b.mended[0]) >= mendWindow {
		b.mended = b.mended[1:]
	}
	limit := mendBurst
	if b.fight || b.refused {
		limit = 1
	}
	if n := len(b.mended); n >= limit {
		first = !b.fight && !b.refused
		b.refused = true
		return b.mended[n-1].Add(mendWindow).Sub(now), first
	}
	b.fight, b.refused = b.refused, false
	b.mended = append(b.mended, now)
	return 0, false
}

// giveBack says that what was taken last was not used.
func (b *budget) giveBack() { b.mended = b.mended[:len(b.mended)-1] }
