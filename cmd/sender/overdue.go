// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/fleet/drills"
)

// overdue lists the hosts whose last successful drill with the key that they are
// asked with is longer ago than it may be. Nothing is sent.
func overdue(ctx context.Context, s *session) (int, error) {
	dates, err := readDrills(s.w)
	if err != nil {
		return 0, err
	}
	if s.keys, err = openKeyring(ctx, s.w, s.o, false); err != nil {
		return 0, err
	}
	code, late := exitOK, 0
	for _, h := range s.hosts {
		_, key, err := s.key(h)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", h.Name, err)
		}
		at, ok := dates[drills.Drill{Host: h.Name, Key: key.ID}]
		if ok && time.Since(at) <= s.o.overdue {
			continue
		}
		code = exitUnproved
		late++
		switch {
		case s.o.quiet:
		case s.o.json:
			fmt.Fprintln(s.w.stdout, overdueJSON(h.Name, key.ID, at))
		case !ok:
			fmt.Fprintf(s.w.stdout, "%s: no successful drill with this key (%v) is known\n", h.Name, key.ID)
		default:
			fmt.Fprintf(s.w.stdout, "%s: last drill %s, %s\n", h.Name, ago(at), at.UTC().Format(time.DateOnly))
		}
	}
	switch {
	case s.o.quiet:
	case s.o.json:
		fmt.Fprintf(s.w.stdout, `{"v":1,"summary":{"command":"drill","hosts":%d,"overdue":%d,"exit":%d}}`+"\n", len(s.hosts), late, code)
	default:
		fmt.Fprintf(s.w.stdout, "%d of %s overdue\n", late, count(len(s.hosts)))
	}
	return code, nil
}

func overdueJSON(name string, key auth.KeyID, at time.Time) string {
	j := struct {
		V         int    `json:"v"`
		Host      string `json:"host"`
		Key       string `json:"key_id"`
		Overdue   bool   `json:"overdue"`
		LastDrill string `json:"last_drill,omitempty"`
	}{V: 1, Host: name, Key: key.String(), Overdue: true}
	if !at.IsZero() {
		j.LastDrill = at.UTC().Format(time.RFC3339)
	}
	b, err := json.Marshal(j)
	if err != nil {
		panic(err) // no field can fail
	}
	return string(b)
}
