// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"encoding/json"
	"fmt"
	"time"
)

// overdue lists the hosts whose last successful drill is longer ago than it
// may be. Nothing is sent.
func overdue(s *session) (int, error) {
	dates, err := readDrills(s.w)
	if err != nil {
		return 0, err
	}
	code, late := exitOK, 0
	for _, h := range s.hosts {
		at, ok := dates[h.Name]
		if ok && time.Since(at) <= s.o.overdue {
			continue
		}
		code = exitUnproved
		late++
		switch {
		case s.o.quiet:
		case s.o.json:
			fmt.Fprintln(s.w.stdout, overdueJSON(h.Name, at))
		case !ok:
			fmt.Fprintf(s.w.stdout, "%s: no successful drill is known\n", h.Name)
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

func overdueJSON(name string, at time.Time) string {
	j := struct {
		V         int    `json:"v"`
		Host      string `json:"host"`
		Overdue   bool   `json:"overdue"`
		LastDrill string `json:"last_drill,omitempty"`
	}{V: 1, Host: name, Overdue: true}
	if !at.IsZero() {
		j.LastDrill = at.UTC().Format(time.RFC3339)
	}
	b, err := json.Marshal(j)
	if err != nil {
		panic(err) // no field can fail
	}
	return string(b)
}
