// SPDX-License-Identifier: GPL-2.0-only

package config

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"netsysrq/cmd/responder/internal/hint"
	"netsysrq/internal/typo"
)

// kinds says for every setting what its value looks like. It is also the list
// of known settings, in the order of the documented example.
var kinds = []struct{ name, kind string }{
	{"port", "a number"},
	{"queue", "a number"},
	{"allow_from", `a list such as ["192.0.2.0/24"]`},
	{"iptables", "a string"},
	{"deadline", "a string"},
	{"veto_file", "a string"},
	{"metrics", "a string"},
	{"keys_dir", "a string"},
	{"machine_id", "a string"},
	{"user", "a string"},
	{"trigger", "a string"},
	{"kmsg", "a string"},
	{"dry_run", "true or false"},
	{"log.format", "a string"},
	{"log.level", "a string"},
}

// explain turns an error of the TOML package into one that names file, line
// and setting.
func explain(path string, err error) error {
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) {
		return unknown(path, strict.Errors)
	}
	var de *toml.DecodeError
	if !errors.As(err, &de) {
		return fmt.Errorf("%s: %w", path, err)
	}
	line, _ := de.Position()
	name := strings.Join(de.Key(), ".")
	text := strings.TrimPrefix(de.Error(), "toml: ")
	if strings.Contains(text, "already") {
		return fmt.Errorf("%s: %s is set a second time", place(path, line), name)
	}
	for _, k := range kinds {
		if k.name == name {
			return fmt.Errorf("%s: %s must be %s", place(path, line), name, k.kind)
		}
	}
	if strings.HasPrefix(text, "cannot decode") { // tells of Go types
		text = fmt.Sprintf("%s is neither the name of a setting nor a table written as [log]", name)
	}
	return hint.Add(fmt.Errorf("%s: %s", place(path, line), text), `lines look like: port = 9, or: user = "netsysrq"`)
}

func unknown(path string, missing []toml.DecodeError) error {
	first := &missing[0]
	line, _ := first.Position()
	name := strings.Join(first.Key(), ".")
	err := fmt.Errorf("%s: unknown setting %q", place(path, line), name)
	if n := len(missing) - 1; n > 0 {
		err = fmt.Errorf("%w (and %d more)", err, n)
	}
	var all, near []string
	for _, k := range kinds {
		all = append(all, k.name)
		_, last, ok := strings.Cut(k.name, ".")
		if !ok {
			last = k.name
		}
		if typo.Distance(name, k.name) <= 2 || typo.Distance(name, last) <= 1 {
			near = append(near, k.name)
		}
	}
	if near != nil {
		return hint.Add(err, "did you mean "+strings.Join(near, " or ")+"?")
	}
	return hint.Add(err, "known settings: "+strings.Join(all, ", "))
}

func place(path string, line int) string {
	if line == 0 {
		return path
	}
	return fmt.Sprintf("%s:%d", path, line)
}

// lineOf finds the line that sets a setting, 0 if it is written in a way that
// this simple search does not see.
func lineOf(data []byte, setting string) int {
	table, name, nested := strings.Cut(setting, ".")
	if !nested {
		name, table = setting, ""
	}
	dotted := regexp.MustCompile(`^\s*` + regexp.QuoteMeta(setting) + `\s*=`)
	plain := regexp.MustCompile(`^\s*` + regexp.QuoteMeta(name) + `\s*=`)
	header := regexp.MustCompile(`^\s*\[\s*([a-z_.]+)\s*\]`)
	current := ""
	for i, line := range strings.Split(string(data), "\n") {
		if m := header.FindStringSubmatch(line); m != nil {
			current = m[1]
		}
		if current == "" && dotted.MatchString(line) || current == table && plain.MatchString(line) {
			return i + 1
		}
	}
	return 0
}
