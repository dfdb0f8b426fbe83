// SPDX-License-Identifier: GPL-2.0-only

package rules

import (
	"slices"
	"testing"
	"time"
)

func TestBudget(t *testing.T) {
	every := func(d time.Duration, times int) (list []time.Duration) {
		for i := range times {
			list = append(list, time.Duration(i)*d)
		}
		return list
	}
	for _, c := range []struct {
		name   string
		lost   []time.Duration // when
		mended []time.Duration
		said   []time.Duration // that there is a pause
	}{
		{"now and then", every(13*time.Second, 100), every(13*time.Second, 100), nil},
		{"a few at once", every(time.Second, 5), every(time.Second, 5), nil},
		{"again after a minute", append(every(time.Second, 5), 65*time.Second, 66*time.Second),
			append(every(time.Second, 5), 65*time.Second, 66*time.Second), nil},
		{"a fight of four minutes", every(time.Second, 240),
			append(every(time.Second, 5), 64*time.Second, 124*time.Second, 184*time.Second), []time.Duration{5 * time.Second}},
		{"two fights", append(every(time.Second, 100), 124*time.Second, 200*time.Second, 201*time.Second, 202*time.Second, 203*time.Second, 204*time.Second, 205*time.Second),
			append(every(time.Second, 5), 64*time.Second, 124*time.Second, 200*time.Second, 201*time.Second, 202*time.Second, 203*time.Second, 204*time.Second),
			[]time.Duration{5 * time.Second, 205 * time.Second}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b budget
			var mended, said []time.Duration
			begin := time.Unix(1e9, 0)
			for _, at := range c.lost {
				wait, first := b.take(begin.Add(at))
				switch {
				case wait == 0:
					mended = append(mended, at)
				case first:
					said = append(said, at)
				}
				if wait < 0 || wait > mendWindow {
					t.Errorf("at %v the pause is %v", at, wait)
				}
			}
			if !slices.Equal(mended, c.mended) {
				t.Errorf("mended at %v, want %v", mended, c.mended)
			}
			if !slices.Equal(said, c.said) {
				t.Errorf("said at %v, want %v", said, c.said)
			}
		})
	}
}
