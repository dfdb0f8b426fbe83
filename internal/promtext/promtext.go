// SPDX-License-Identifier: GPL-2.0-only

// Package promtext reads the text-based exposition format of Prometheus, version
// 0.0.4, for tests: what it takes, Prometheus takes, and much that Prometheus
// takes it does not.
package promtext

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Metrics are what a text holds.
type Metrics struct {
	Types  map[string]string  // by name
	Help   map[string]string  // by name
	Values map[string]float64 // by name and labels as they are written
}

var (
	comment = regexp.MustCompile(`^# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.+)$`)
	sample  = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*"(?:,[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*")*\})? ([^ ]+)$`)
	escape  = regexp.MustCompile(`\\(.?)`)
)

// Parse reads a text. Each metric must have its HELP, its TYPE and then its
// samples, together and in that order; counters are called _total and are not
// negative; nothing comes twice.
func Parse(text string) (*Metrics, error) {
	m := &Metrics{map[string]string{}, map[string]string{}, map[string]float64{}}
	if text != "" && !strings.HasSuffix(text, "\n") {
		return nil, errors.New("the last line does not end")
	}
	current, samples := "", 1
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if err := m.line(line, &current, &samples); err != nil {
			return nil, fmt.Errorf("%w: %q", err, line)
		}
	}
	if samples == 0 {
		return nil, fmt.Errorf("%s has no samples", current)
	}
	return m, nil
}

func (m *Metrics) line(line string, current *string, samples *int) error {
	if c := comment.FindStringSubmatch(line); c != nil {
		name, said := c[2], c[3]
		if c[1] == "HELP" {
			if _, twice := m.Help[name]; twice || *samples == 0 {
				return errors.New("a HELP too many")
			}
			*current, *samples = name, 0
			for _, e := range escape.FindAllStringSubmatch(said, -1) {
				if e[1] != `\` && e[1] != "n" {
					return errors.New("unknown escape in HELP")
				}
			}
			m.Help[name] = strings.NewReplacer(`\\`, `\`, `\n`, "\n").Replace(said)
			return nil
		}
		if _, twice := m.Types[name]; twice || name != *current {
			return errors.New("TYPE does not follow its HELP")
		}
		if said != "counter" && said != "gauge" {
			return errors.New("unknown TYPE")
		}
		if (said == "counter") != strings.HasSuffix(name, "_total") {
			return errors.New("counters and nothing else are called _total")
		}
		m.Types[name] = said
		return nil
	}
	s := sample.FindStringSubmatch(line)
	if s == nil {
		return errors.New("neither HELP nor TYPE nor a sample")
	}
	kind, known := m.Types[s[1]]
	if !known || s[1] != *current {
		return errors.New("a sample that is not below its TYPE")
	}
	if _, twice := m.Values[s[1]+s[2]]; twice {
		return errors.New("a sample that was there before")
	}
	v, err := strconv.ParseFloat(s[3], 64)
	if err != nil || kind == "counter" && v < 0 {
		return errors.New("not such a number")
	}
	m.Values[s[1]+s[2]] = v
	*samples++
	return nil
}
