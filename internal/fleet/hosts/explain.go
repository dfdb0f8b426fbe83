// SPDX-License-Identifier: GPL-2.0-only

package hosts

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Error is a mistake in the file, and where it is.
type Error struct {
	Path string
	Line int // 0: not known
	Text string
	Hint string // what to do about it; may be empty
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Path + ": " + e.Text
	}
	return fmt.Sprintf("%s:%d: %s", e.Path, e.Line, e.Text)
}

// settings says for each kind of table what it may hold, and what that looks
// like.
var settings = map[string][]struct{ name, kind string }{
	"defaults": {{"port", "a number"}, {"key", "a string"}},
	"groups":   {{"port", "a number"}, {"key", "a string"}, {"hosts", `a list such as ["db1", "db2"]`}},
	"hosts": {{"address", "a string"}, {"addresses", `a list such as ["192.0.2.7"]`}, {"name", "a string"},
		{"port", "a number"}, {"key", "a string"}, {"groups", `a list such as ["db"]`}},
}

// explain turns an error of the TOML package into one that speaks of settings.
func explain(path string, err error) error {
	if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok {
		return unknown(path, strict.Errors)
	}
	de, ok := errors.AsType[*toml.DecodeError](err)
	if !ok {
		return fmt.Errorf("%s: %w", path, err)
	}
	line, _ := de.Position()
	name := strings.Join(de.Key(), ".")
	e := &Error{Path: path, Line: line, Text: strings.TrimPrefix(de.Error(), "toml: ")}
	if strings.Contains(e.Text, "already") {
		e.Text = name + " is set a second time"
		return e
	}
	if key := de.Key(); len(key) > 0 {
		for _, s := range settings[key[0]] {
			if s.name == key[len(key)-1] && (len(key) == 3 || key[0] == "defaults") {
				e.Text = fmt.Sprintf("%s must be %s", name, s.kind)
				return e
			}
		}
	}
	if strings.HasPrefix(e.Text, "cannot decode") { // tells of Go types
		e.Text = name + " is a table, not a single value"
		e.Hint = "tables are written [defaults], [groups.NAME] and [hosts.NAME]"
	}
	return e
}

func unknown(path string, missing []toml.DecodeError) error {
	first := &missing[0]
	key := first.Key()
	e := &Error{Path: path, Text: fmt.Sprintf("unknown setting %q", strings.Join(key, "."))}
	e.Line, _ = first.Position()
	if n := len(missing) - 1; n > 0 {
		e.Text += fmt.Sprintf(" (and %d more)", n)
	}
	known := settings[key[0]]
	switch {
	case known == nil:
		e.Hint = "tables are written [defaults], [groups.NAME] and [hosts.NAME]"
	default:
		e.Hint = "known settings: " + names(known)
		if key[0] == "hosts" {
			e.Hint += `; a name with dots needs quotes: [hosts."web1.example.org"]`
		}
	}
	return e
}

func names(known []struct{ name, kind string }) string {
	var out []string
	for _, s := range known {
		out = append(out, s.name)
	}
	return strings.Join(out, ", ")
}

// lineOf finds the line that sets a setting of a table, or else that begins the
// table; 0 if they are written in a way that this simple search does not see.
func lineOf(data []byte, table, setting string) int {
	kind, name, _ := strings.Cut(table, ".")
	quoted := `["']?` + regexp.QuoteMeta(name) + `["']?`
	header := regexp.MustCompile(`^\s*\[\s*` + kind + `\s*\]`)
	inline := regexp.MustCompile(`^\s*(` + kind + `\s*\.\s*)?` + quoted + `\s*=\s*\{`)
	if name != "" {
		header = regexp.MustCompile(`^\s*\[\s*` + kind + `\s*\.\s*` + quoted + `\s*\]`)
	}
	value := regexp.MustCompile(`^\s*` + regexp.QuoteMeta(setting) + `\s*=`)
	found, within := 0, false
	for i, line := range strings.Split(string(data), "\n") {
		switch {
		case header.MatchString(line):
			found, within = i+1, true
		case strings.HasPrefix(strings.TrimSpace(line), "["):
			within = false
		case within && setting != "" && value.MatchString(line):
			return i + 1
		case name != "" && found == 0 && inline.MatchString(line):
			found = i + 1
		}
	}
	return found
}
