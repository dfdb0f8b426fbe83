// SPDX-License-Identifier: GPL-2.0-only

package kmod

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"netsysrq/auth"
)

// spec reads the names of netsysrq.yaml, in order, under the prefix that they
// have in C. It knows the few shapes in which that file is written.
func spec(t *testing.T) map[string][]string {
	t.Helper()
	b, err := os.ReadFile("../netlink/specs/netsysrq.yaml")
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`^\s+(?:- \{)?name: ([a-z-]+)`)
	prefix := regexp.MustCompile(`^\s+name-prefix: ([a-z-]+)`)
	sets := map[string][]string{}
	var current, part string
	for line := range strings.Lines(string(b)) {
		if line[0] >= 'a' && line[0] <= 'z' {
			part, current = strings.TrimSuffix(strings.TrimSpace(line), ":"), ""
		}
		if m := prefix.FindStringSubmatch(line); m != nil {
			current = m[1]
			continue
		}
		m := name.FindStringSubmatch(line)
		switch {
		case m == nil:
		case part == "definitions" && !strings.Contains(line, "{"):
			current = "netsysrq-" + m[1] + "-"
		case part == "attribute-sets" && !strings.Contains(line, "{"):
		case current != "":
			sets[current] = append(sets[current], m[1])
		}
	}
	return sets
}

func TestHeaderFollowsSpec(t *testing.T) {
	b, err := os.ReadFile("../netsysrq_uapi.h")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile(`(?s)enum[a-z_ ]*\{(.*?)\}`).FindAllStringSubmatch(string(b), -1)
	constant := regexp.MustCompile(`(?m)^\t(NETSYSRQ_[A-Z_]+)(?: = 1)?,$`)
	var header [][]string
	for _, block := range blocks {
		var names []string
		for _, m := range constant.FindAllStringSubmatch(block[1], -1) {
			names = append(names, m[1])
		}
		header = append(header, names)
	}
	sets := spec(t)
	if len(sets) != 7 || len(header) != len(sets) {
		t.Fatalf("spec has %d sets %v, header has %d enums", len(sets), slices.Sorted(maps.Keys(sets)), len(header))
	}
	for prefix, names := range sets {
		var want []string
		for _, n := range names {
			want = append(want, strings.ToUpper(strings.ReplaceAll(prefix+n, "-", "_")))
		}
		if !slices.ContainsFunc(header, func(h []string) bool { return slices.Equal(h, want) }) {
			t.Errorf("no enum of the header has exactly %v", want)
		}
	}
}

func TestConstantsFollowSpec(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "constants.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	blocks := map[string]bool{}
	for _, decl := range file.Decls {
		g, ok := decl.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST || len(g.Specs) < 2 {
			continue
		}
		var names []string
		for _, s := range g.Specs {
			names = append(names, strings.ToLower(s.(*ast.ValueSpec).Names[0].Name))
		}
		blocks[strings.Join(names, " ")] = true
	}
	goPrefix := map[string]string{
		"netsysrq-cmd-": "cmd", "netsysrq-a-": "a", "netsysrq-a-account-": "aaccount", "netsysrq-a-event-": "aevent",
		"netsysrq-a-count-": "acount", "netsysrq-event-": "event", "netsysrq-by-": "by",
	}
	for prefix, names := range spec(t) {
		if prefix == "netsysrq-a-count-" { // the first are auth's
			for r := auth.ReasonDatagram; r < aCountOK; r++ {
				if names[r-1] != r.String() {
					t.Errorf("counter %d is %s, reason is %s", r, names[r-1], r)
				}
			}
			names = names[aCountOK-1:]
		}
		var want []string
		for _, n := range names {
			want = append(want, goPrefix[prefix]+strings.ReplaceAll(n, "-", ""))
		}
		if !blocks[strings.Join(want, " ")] {
			t.Errorf("no block of constants.go has exactly %v", want)
		}
	}
}

func TestNamesFollowSpec(t *testing.T) {
	sets := spec(t)
	if !slices.Equal(kindNames, sets["netsysrq-event-"]) || !slices.Equal(byNames, sets["netsysrq-by-"]) {
		t.Error("names of kinds and bys differ from the spec")
	}
}
