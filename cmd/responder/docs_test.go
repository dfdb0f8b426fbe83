// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"netsysrq/auth"
	"netsysrq/internal/doctest"
)

const manual = "../../deploy/man/netsysrqd.8"

// ofUnits are commands that only a unit runs: the page has them, completions
// and usage need not.
var ofUnits = doctest.Words{"hand-over": true}

// source is what the code says of commands and flags.
type source struct {
	of   map[string]doctest.Words // flags of each command, in both forms; "" is none
	long map[string]string
}

func literals(args []ast.Expr) (list []string) {
	for _, a := range args {
		s := ""
		if l, ok := a.(*ast.BasicLit); ok && l.Kind == token.STRING {
			s, _ = strconv.Unquote(l.Value)
		}
		list = append(list, s)
	}
	return list
}

// readSource takes commands from dispatch and calls of subcommand, and flags
// from the function that calls newFlags with the name of their command.
func readSource(t *testing.T) *source {
	t.Helper()
	paths, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	s := &source{of: map[string]doctest.Words{}, long: map[string]string{}}
	var every []string // flags of every command
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			name, flags := "", doctest.Words{}
			ast.Inspect(f, func(n ast.Node) bool {
				if c, ok := n.(*ast.CaseClause); ok && f.Name.Name == "dispatch" {
					for _, command := range literals(c.List) {
						if s.of[command] == nil {
							s.of[command] = doctest.Words{}
						}
					}
				}
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				args := literals(call.Args)
				if id, ok := call.Fun.(*ast.Ident); ok {
					if id.Name == "newFlags" && args[0] != "" {
						name = args[0]
					}
					return true
				}
				method, ok := call.Fun.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				if method.Sel.Name == "subcommand" {
					for _, sub := range args[2:] {
						if s.of[args[0]+" "+sub] == nil {
							s.of[args[0]+" "+sub] = doctest.Words{}
						}
					}
					return true
				}
				if on, ok := method.X.(*ast.Ident); !ok || on.Name != "flags" {
					return true
				}
				m := regexp.MustCompile(`^(Bool|String|Int|Duration|StringSlice)(Var)?(P)?$`).FindStringSubmatch(method.Sel.Name)
				if m == nil {
					return true
				}
				if m[2] != "" {
					args = args[1:]
				}
				flags.Add("--" + args[0])
				s.long["--"+args[0]] = "--" + args[0]
				if m[3] != "" {
					flags.Add("-" + args[1])
					s.long["-"+args[1]] = "--" + args[0]
				}
				return true
			})
			switch {
			case f.Name.Name == "parse":
				every = flags.Sorted()
			case f.Name.Name == "dispatch":
				s.of[""] = flags
			case len(flags) > 0:
				s.of[name] = flags
			}
		}
	}
	delete(s.of, "rules")
	delete(s.of, "keys")
	for name := range s.of {
		if name != "help" && name != "version" {
			s.of[name].Add(every...)
		}
	}
	s.long["-h"], s.long["--help"] = "--help", "--help"
	if !s.of["keys add"]["-f"] || !s.of["run"]["--config"] || !s.of[""]["-V"] || len(s.of) < 10 {
		t.Fatalf("commands and flags not found: %v", s.of)
	}
	return s
}

// commandsIn are the commands that a line such as "rules apply | remove" names.
func commandsIn(text string) (list []string) {
	group := ""
	for i, name := range strings.Split(text, " | ") {
		if g, _, ok := strings.Cut(name, " "); ok && i == 0 {
			group = g + " "
		} else {
			name = group + name
		}
		list = append(list, name)
	}
	return list
}

// TestManual: the page has the commands, flags, exit codes and reasons that
// there are.
func TestManual(t *testing.T) {
	s := readSource(t)
	everything := doctest.Words{}
	for f := range s.long {
		everything.Add(f)
	}
	items, described, codes := doctest.Words{}, doctest.Words{}, doctest.Words{}
	synopsis := map[string]doctest.Words{}
	var section string
	var named []string
	page := doctest.Read(t, manual)
	for line := range strings.Lines(page) {
		line = strings.TrimSpace(line)
		name, text, _ := strings.Cut(line, " ")
		for _, f := range doctest.Flags(line) {
			if !everything[f] {
				t.Errorf("%s: there is no %s", manual, f)
			}
		}
		switch {
		case name == ".Sh":
			section = text
		case section == "SYNOPSIS" && name == ".Cm":
			named = commandsIn(text)
			for _, c := range named {
				if synopsis[c] == nil {
					synopsis[c] = doctest.Words{}
				}
			}
		case section == "SYNOPSIS":
			for _, c := range named {
				for _, f := range doctest.Flags(line) {
					synopsis[c].Add(s.long[f])
				}
			}
		case section == "COMMANDS" && name == ".It":
			described.Add(strings.TrimPrefix(text, "Cm "))
		case name == ".It" && strings.HasPrefix(text, "Fl "):
			items.Add(doctest.Flags(line)...)
		case section == "EXIT STATUS" && name == ".It":
			codes.Add(text)
		}
	}
	doctest.Same(t, "OPTIONS of the page", items, everything)
	long := doctest.Words{}
	for _, f := range s.long {
		long.Add(f)
	}
	inUsage := doctest.Set(regexp.MustCompile(`--[a-z][a-z0-9-]+`).FindAllString(usage, -1)...)
	delete(inUsage, "--noflush") // of iptables-restore
	doctest.Same(t, "usage", inUsage, long)
	names := doctest.Words{}
	for c, flags := range s.of {
		if c == "" {
			continue
		}
		names.Add(c)
		if synopsis[c] == nil {
			t.Errorf("SYNOPSIS of the page: %s is missing", c)
			continue
		}
		want := doctest.Words{}
		for f := range flags {
			want.Add(s.long[f])
		}
		doctest.Same(t, "SYNOPSIS of the page: "+c, synopsis[c], want)
		if !ofUnits[c] && !strings.Contains(usage, " "+c) && !regexp.MustCompile(`netsysrqd .*\b`+strings.ReplaceAll(c, " ", `\b.*\b`)+`\b`).MatchString(usage) {
			t.Errorf("usage: %s is missing", c)
		}
	}
	doctest.Same(t, "COMMANDS of the page", described, names)
	doctest.Same(t, "EXIT STATUS of the page", codes, doctest.Set(strconv.Itoa(exitOK), strconv.Itoa(exitNo), strconv.Itoa(exitUsage), strconv.Itoa(exitUnknown)))

	_, diagnostics, _ := strings.Cut(page, ".Sh DIAGNOSTICS")
	for r := range auth.NumReasons {
		if r == auth.OK || r == auth.ReasonOtherRequest { // the latter is a sender's
			continue
		}
		if !regexp.MustCompile(`(?m)^\.(It|Ql) (.* )?` + r.String() + `( |$)`).MatchString(diagnostics) {
			t.Errorf("DIAGNOSTICS of the page: %v is missing", r)
		}
	}
}

// TestManualOfConfiguration: the page has the settings of the documented
// example, with their defaults.
func TestManualOfConfiguration(t *testing.T) {
	want, got := map[string]string{}, map[string]string{}
	table := ""
	for line := range strings.Lines(doctest.Read(t, "../../deploy/netsysrqd.toml")) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			table = strings.Trim(line, "[]") + "."
		}
		if name, value, ok := strings.Cut(line, " = "); ok && !strings.HasPrefix(line, "#") {
			want[table+name] = strings.ReplaceAll(value, `"`, `\(dq`)
		}
	}
	setting, wanted := "", false
	for line := range strings.Lines(doctest.Read(t, "../../deploy/man/netsysrqd.toml.5")) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, ".It Va "):
			setting = strings.TrimPrefix(line, ".It Va ")
			got[setting] = ""
		case line == "The default is" || line == "The default,":
			wanted = true
			continue
		case strings.HasPrefix(line, "The default is "):
			got[setting] = strings.TrimSuffix(strings.TrimPrefix(line, "The default is "), ".")
		case wanted && got[setting] == "":
			got[setting] = strings.TrimRight(strings.TrimPrefix(line, ".Li "), " .,")
		}
		wanted = false
	}
	if len(want) < 10 || !maps.Equal(got, want) {
		t.Errorf("the page says %v\nthe example %v", got, want)
	}
}

// completion has the files that complete the command.
var completion = doctest.Completion{Command: "netsysrqd", Dir: "../../deploy/completions"}

// TestCompletions: each shell offers the flags and commands that there are.
// The text of each file is looked at where its shell is not installed.
func TestCompletions(t *testing.T) {
	s := readSource(t)
	everything := doctest.Words{}
	for _, f := range s.long {
		everything.Add(strings.TrimPrefix(f, "--"))
	}
	for _, shell := range doctest.Shells {
		doctest.Same(t, completion.File(shell), completion.LongFlags(t, shell), everything)
	}
	names := map[string]doctest.Words{"": {}} // what may follow a word
	for c := range s.of {
		first, second, ok := strings.Cut(c, " ")
		if c == "" || ofUnits[c] {
			continue
		}
		names[""].Add(first)
		if ok && names[first] == nil {
			names[first] = doctest.Words{}
		}
		if ok {
			names[first].Add(second)
		}
	}
	names["help"] = maps.Clone(names[""])
	delete(names["help"], "help")
	delete(names["help"], "version")
	for _, shell := range doctest.Shells {
		t.Run(shell, func(t *testing.T) {
			for first, want := range names {
				doctest.Same(t, "commands "+first, completion.Offer(t, shell, strings.TrimSpace(completion.Command+" "+first), ""), want)
			}
			for name, flags := range s.of {
				if ofUnits[name] || name == "" && shell == "zsh" { // those are arguments of _arguments
					continue
				}
				want := maps.Clone(flags)
				if name != "help" && name != "version" {
					want.Add("-h", "--help")
				}
				doctest.Same(t, name, completion.Offer(t, shell, strings.TrimSpace(completion.Command+" "+name), "-"), want)
			}
		})
	}
}
