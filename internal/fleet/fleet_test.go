// SPDX-License-Identifier: GPL-2.0-only

package fleet

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int32
		begun := time.Now()
		n := Each(t.Context(), 10, 3, 0, func(int) bool {
			most.Store(max(most.Load(), now.Add(1)))
			time.Sleep(time.Second)
			now.Add(-1)
			return true
		})
		if n != 10 || most.Load() != 3 || time.Since(begun) != 4*time.Second {
			t.Errorf("%d calls, %d at a time, in %v", n, most.Load(), time.Since(begun))
		}
	})
}

// The first that fails is the last to be begun after; others go on.
func TestEachStops(t *testing.T) {
	for range 100 {
		synctest.Test(t, func(t *testing.T) {
			var ended atomic.Int32
			n := Each(t.Context(), 10, 2, 0, func(i int) bool {
				time.Sleep(time.Duration(i+1) * time.Second)
				ended.Add(1)
				return i != 2
			})
			// 0 ends at 1 s, 1 at 2 s, 2 (which fails) at 4 s, 3 at 6 s.
			if n != 4 || ended.Load() != 4 {
				t.Errorf("%d begun, %d ended", n, ended.Load())
			}
			if n := Each(t.Context(), 10, 1, 0, func(i int) bool { return i != 2 }); n != 3 {
				t.Errorf("one at a time: %d begun", n)
			}
		})
	}
}

func TestEachInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	n := Each(ctx, 10, 1, 0, func(i int) bool {
		if i == 4 {
			cancel()
		}
		return true
	})
	if n != 5 {
		t.Errorf("%d begun", n)
	}
}

func TestEachPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		Each(t.Context(), 1001, 1000, 100*time.Microsecond, func(int) bool { return true })
		if took := time.Since(begun); took < 99*time.Millisecond || took > 101*time.Millisecond {
			t.Errorf("it took %v", took)
		}
	})
}
