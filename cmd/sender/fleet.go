// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"netsysrq/internal/exchange"
	"netsysrq/internal/fleet"
	"netsysrq/internal/fleet/hosts"
)

// work does what the command is for to one host.
type work func(context.Context, *hosts.Host, *progress) answer

// run does it to every host, tells of them and returns the exit code.
func (s *session) run(ctx context.Context, do work) int {
	if !s.many {
		p := s.alone()
		a := do(ctx, s.hosts[0], p)
		p.end()
		return s.show(a)
	}
	b := newBoard(ctx, s)
	defer b.close()
	if s.o.watch > 0 {
		return s.repeat(ctx, b, do)
	}
	code := s.round(ctx, b, do)
	b.close()
	s.hints(b.answers)
	return code
}

// round asks every host once.
func (s *session) round(ctx context.Context, b *board, do work) int {
	parallel := min(s.o.parallel, len(s.hosts))
	if s.o.rolling > 0 {
		parallel = s.o.rolling
	}
	b.begin()
	begun := fleet.Each(ctx, len(s.hosts), parallel, exchange.StartEvery, func(i int) bool {
		a := do(ctx, s.hosts[i], &progress{board: b, i: i})
		code, _, _ := a.words()
		b.set(i, a)
		return s.o.rolling == 0 || code == exitOK || code == exitRebooted
	})
	for i := begun; i < len(s.hosts); i++ {
		b.set(i, s.notAsked(i))
	}
	return b.finish()
}

// notAsked is what became of a host that was not reached before the end.
func (s *session) notAsked(i int) *result {
	return &result{options: s.o, host: s.hosts[i], many: true, err: errNotAsked}
}

// hints tells each hint once: those of many hosts name none.
func (s *session) hints(answers []answer) {
	if s.o.json {
		return
	}
	var list []string
	for _, a := range answers {
		_, _, hints := a.words()
		for _, h := range hints {
			if !slices.Contains(list, h) && len(list) < 10 {
				list = append(list, h)
			}
		}
	}
	s.w.hints(list)
}

func (w world) hints(list []string) {
	for _, h := range list {
		fmt.Fprintf(w.stderr, "hint: %s\n", h)
	}
}

// repeat asks every host again and again until ctx ends. The exit code is that
// of the last round that was whole.
func (s *session) repeat(ctx context.Context, b *board, do work) (code int) {
	if !s.o.timeoutSet {
		s.o.timeout = min(max(s.o.watch, time.Second), s.o.timeout)
	}
	for {
		next := time.After(s.o.watch)
		now := s.round(ctx, b, do)
		if ctx.Err() != nil {
			return code
		}
		code = now
		select {
		case <-next:
		case <-ctx.Done():
			return code
		}
	}
}
