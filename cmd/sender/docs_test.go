// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"netsysrq/internal/doctest"
)

const manual = "../../deploy/man/netsysrq.1"

// flagNames are the flags that parse knows, by their long names, with both
// forms of each.
func flagNames(t *testing.T) map[string][]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "options.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		method, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || !regexp.MustCompile(`Var(P)?$`).MatchString(method.Sel.Name) {
			return true
		}
		name := literal(t, call.Args[1])
		all[name] = []string{"--" + name}
		if strings.HasSuffix(method.Sel.Name, "P") {
			all[name] = append(all[name], "-"+literal(t, call.Args[2]))
		}
		return true
	})
	if len(all) < 10 || all["json"] == nil || len(all["quiet"]) != 2 {
		t.Fatalf("flags not found: %v", all)
	}
	return all
}

func literal(t *testing.T, e ast.Expr) string {
	t.Helper()
	l, ok := e.(*ast.BasicLit)
	if !ok {
		t.Fatalf("%T instead of a literal", e)
	}
	s, err := strconv.Unquote(l.Value)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// flagsOf are the flags of each command in both forms, without --help, which
// every command has. The command "" is none.
func flagsOf(t *testing.T) map[string]doctest.Words {
	t.Helper()
	all := flagNames(t)
	of := map[string]doctest.Words{"": doctest.Set("--version"), "help": {}}
	for _, c := range commands {
		of[c.name] = doctest.Words{}
		for _, f := range strings.Fields(c.flags) {
			of[c.name].Add(all[f]...)
		}
	}
	return of
}

func commandNames() doctest.Words {
	names := doctest.Set("help")
	for _, c := range commands {
		names.Add(c.name)
	}
	return names
}

// TestManual: the page has the commands, flags and exit codes that there are.
func TestManual(t *testing.T) {
	want, everything := flagsOf(t), doctest.Words{}
	for _, names := range flagNames(t) {
		everything.Add(names...)
	}

	items, groups, synopsis := doctest.Words{}, map[string]doctest.Words{}, map[string]doctest.Words{}
	described, codes := doctest.Words{}, doctest.Words{}
	var section, sub, command string
	for line := range strings.Lines(doctest.Read(t, manual)) {
		line = strings.TrimSpace(line)
		name, text, _ := strings.Cut(line, " ")
		for _, f := range doctest.Flags(line) {
			if !everything[f] {
				t.Errorf("%s: there is no %s", manual, f)
			}
		}
		switch {
		case name == ".Sh":
			section, sub = text, ""
		case name == ".Ss":
			sub = strings.ReplaceAll(strings.ToLower(text), " ", "-")
			groups[sub] = doctest.Words{}
		case section == "SYNOPSIS" && name == ".Nm":
			command = ""
		case section == "SYNOPSIS":
			if name == ".Cm" {
				command = text
			}
			if synopsis[command] == nil {
				synopsis[command] = doctest.Words{}
			}
			synopsis[command].Add(doctest.Flags(line)...)
			if group, ok := strings.CutPrefix(text, "Ar "); ok && strings.HasSuffix(group, "-options") {
				synopsis[command].Add(group)
			}
		case name == ".It" && strings.HasPrefix(text, "Fl "):
			items.Add(doctest.Flags(line)...)
			groups[sub].Add(doctest.Flags(line)...)
		case section == "COMMANDS" && name == ".It":
			described.Add(strings.TrimPrefix(text, "Cm "))
		case section == "EXIT STATUS" && name == ".It":
			codes.Add(text)
		}
	}
	doctest.Same(t, "options of the page", items, everything)
	doctest.Same(t, "COMMANDS of the page", described, commandNames())
	for command, got := range synopsis {
		for name := range got {
			if group := groups[name]; group != nil {
				delete(got, name)
				got.Add(slices.Collect(maps.Keys(group))...)
			}
		}
		// The synopsis has one form of each flag.
		for _, names := range flagNames(t) {
			if len(names) == 2 && (got[names[0]] || got[names[1]]) {
				got.Add(names...)
			}
		}
		doctest.Same(t, "SYNOPSIS of the page: "+command, got, want[command])
	}
	for command := range want {
		if synopsis[command] == nil {
			t.Errorf("SYNOPSIS of the page: %q is missing", command)
		}
	}
	exits := doctest.Set(strconv.Itoa(exitUsage)) // of one host and of many
	for _, code := range severity {
		exits.Add(strconv.Itoa(code))
	}
	doctest.Same(t, "EXIT STATUS of the page", codes, exits)
}

// completion has the files that complete the command.
var completion = doctest.Completion{Command: "netsysrq", Dir: "../../deploy/completions"}

// TestCompletions: each shell offers the flags and commands that there are.
// The text of each file is looked at where its shell is not installed.
func TestCompletions(t *testing.T) {
	everything := doctest.Words{}
	for name := range flagNames(t) {
		everything.Add(name)
	}
	for _, shell := range doctest.Shells {
		doctest.Same(t, completion.File(shell), completion.LongFlags(t, shell), everything)
	}
	of := flagsOf(t)
	for _, shell := range doctest.Shells {
		t.Run(shell, func(t *testing.T) {
			doctest.Same(t, "commands", completion.Offer(t, shell, completion.Command, ""), commandNames())
			for name, want := range of {
				if name == "" && shell == "zsh" {
					continue // these are arguments of _arguments
				}
				doctest.Same(t, name, completion.Offer(t, shell, strings.TrimSpace(completion.Command+" "+name), "-"), maps.Clone(want).Add("-h", "--help"))
			}
		})
	}
}

// TestHostsAreCompleted: from the list of hosts, as every shell reads it.
func TestHostsAreCompleted(t *testing.T) {
	const list = `[groups.db]	# two
hosts = ["db3", # one
	'db4']
[hosts.db1]
groups = ["db"]
[hosts."web1.example.org"]
address = "192.0.2.1"
`
	for shell, script := range map[string]string{
		"bash": `source ../../deploy/completions/bash/netsysrq; _netsysrq_hosts`,
		"zsh":  `compdef() { }; compadd() { print -rl -- $names }; source ../../deploy/completions/zsh/_netsysrq; _netsysrq_host`,
		"fish": `source ../../deploy/completions/fish/netsysrq.fish; __netsysrq_hosts`,
	} {
		t.Run(shell, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Mkdir(dir+"/netsysrq", 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(dir+"/netsysrq/hosts.toml", []byte(list), 0o600); err != nil {
				t.Fatal(err)
			}
			out := doctest.OutputAt(t, dir, shell, "-c", script)
			doctest.Same(t, shell, doctest.Set(strings.Fields(out)...), doctest.Set("@all", "@db", "db1", "db3", "db4", "web1.example.org"))
		})
	}
}
