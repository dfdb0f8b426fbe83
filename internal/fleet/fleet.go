// SPDX-License-Identifier: GPL-2.0-only

// Package fleet does one thing with many hosts. The list of hosts, the record
// of drills, the way of a machine through a reboot and the table on a terminal
// each have a package below it.
package fleet

import (
	"context"
	"sync"
	"time"
)

// Each calls do for 0 to n-1, in order, at most parallel at a time and one each
// every, until one call returns false or ctx ends; what is under way then goes
// on. It returns how many calls were begun, when all have returned.
func Each(ctx context.Context, n, parallel int, every time.Duration, do func(i int) bool) (begun int) {
	start := time.Now()
	slots := make(chan struct{}, parallel)
	stop := make(chan struct{})
	var once sync.Once
	var group sync.WaitGroup
	defer group.Wait()
	for begun < n {
		select {
		case slots <- struct{}{}:
		case <-stop:
			return begun
		case <-ctx.Done():
			return begun
		}
		// Timers are not finer than that.
		if wait := time.Until(start.Add(time.Duration(begun) * every)); wait > time.Millisecond {
			time.Sleep(wait)
		}
		// A slot may have come free by the very call that says stop.
		select {
		case <-stop:
			return begun
		case <-ctx.Done():
			return begun
		default:
		}
		i := begun
		begun++
		group.Go(func() {
			if !do(i) {
				once.Do(func() { close(stop) })
			}
			<-slots
		})
	}
	return begun
}
