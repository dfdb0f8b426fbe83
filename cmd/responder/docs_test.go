// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"netsysrq/auth"
)

const (
	manual      = "../../deploy/man/netsysrqd.8"
	completions = "../../deploy/completions"
)

// ofUnits are commands that only a unit runs: the page has them, completions
// and usage need not.
var ofUnits = words{"hand-over": true}

// words is a set of flags, with their hyphens, or of commands.
type words map[string]bool

func (w words) add(list ...string) words {
	for _, s := range list {
		w[s] = true
	}
	return w
}

func (w words) sorted() []string { return slices.Sorted(maps.Keys(w)) }

// same fails the test if got is not want.
func same(t *testing.T, what string, got, want words) {
	t.Helper()
	for _, s := range want.sorted() {
		if !got[s] {
			t.Errorf("%s: %s is missing", what, s)
		}
	}
	for _, s := range got.sorted() {
		if !want[s] {
			t.Errorf("%s: there is no %s", what, s)
		}
	}
}

// source is what the code says of commands and flags.
type source struct {
	of   map[string]words // flags of each command, in both forms; "" is none
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
	s := &source{of: map[string]words{}, long: map[string]string{}}
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
			name, flags := "", words{}
			ast.Inspect(f, func(n ast.Node) bool {
				if c, ok := n.(*ast.CaseClause); ok && f.Name.Name == "dispatch" {
					for _, command := range literals(c.List) {
						if s.of[command] == nil {
							s.of[command] = words{}
						}
					}
				}
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				args := literals(call.Args)
				if id, ok := call.Fun.(*ast.Ident); ok {
					switch {
					case id.Name == "newFlags" && args[0] != "":
						name = args[0]
					case id.Name == "subcommand":
						for _, sub := range args[2:] {
							if s.of[args[0]+" "+sub] == nil {
								s.of[args[0]+" "+sub] = words{}
							}
						}
					}
					return true
				}
				method, ok := call.Fun.(*ast.SelectorExpr)
				if !ok {
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
				flags.add("--" + args[0])
				s.long["--"+args[0]] = "--" + args[0]
				if m[3] != "" {
					flags.add("-" + args[1])
					s.long["-"+args[1]] = "--" + args[0]
				}
				return true
			})
			switch {
			case f.Name.Name == "parse":
				every = flags.sorted()
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
			s.of[name].add(every...)
		}
	}
	s.long["-h"], s.long["--help"] = "--help", "--help"
	if !s.of["keys add"]["-f"] || !s.of["run"]["--config"] || !s.of[""]["-V"] || len(s.of) < 10 {
		t.Fatalf("commands and flags not found: %v", s.of)
	}
	return s
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var macro = regexp.MustCompile(`\bFl (-?[A-Za-z0-9][A-Za-z0-9-]*)`)

// flagsIn are the flags in a line of mdoc.
func flagsIn(line string) (flags []string) {
	for _, m := range macro.FindAllStringSubmatch(line, -1) {
		flags = append(flags, "-"+m[1])
	}
	return flags
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
	everything := words{}
	for f := range s.long {
		everything.add(f)
	}
	items, described, codes := words{}, words{}, words{}
	synopsis := map[string]words{}
	var section string
	var named []string
	page := readFile(t, manual)
	for line := range strings.Lines(page) {
		line = strings.TrimSpace(line)
		name, text, _ := strings.Cut(line, " ")
		for _, f := range flagsIn(line) {
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
					synopsis[c] = words{}
				}
			}
		case section == "SYNOPSIS":
			for _, c := range named {
				for _, f := range flagsIn(line) {
					synopsis[c].add(s.long[f])
				}
			}
		case section == "COMMANDS" && name == ".It":
			described.add(strings.TrimPrefix(text, "Cm "))
		case name == ".It" && strings.HasPrefix(text, "Fl "):
			items.add(flagsIn(line)...)
		case section == "EXIT STATUS" && name == ".It":
			codes.add(text)
		}
	}
	same(t, "OPTIONS of the page", items, everything)
	names := words{}
	for c, flags := range s.of {
		if c == "" {
			continue
		}
		names.add(c)
		if synopsis[c] == nil {
			t.Errorf("SYNOPSIS of the page: %s is missing", c)
			continue
		}
		want := words{}
		for f := range flags {
			want.add(s.long[f])
		}
		same(t, "SYNOPSIS of the page: "+c, synopsis[c], want)
		if !ofUnits[c] && !strings.Contains(usage, " "+c) && !regexp.MustCompile(`netsysrqd .*\b`+strings.ReplaceAll(c, " ", `\b.*\b`)+`\b`).MatchString(usage) {
			t.Errorf("usage: %s is missing", c)
		}
	}
	same(t, "COMMANDS of the page", described, names)
	same(t, "EXIT STATUS of the page", codes, words{}.add(strconv.Itoa(exitOK), strconv.Itoa(exitNo), strconv.Itoa(exitUsage), strconv.Itoa(exitUnknown)))

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
	for line := range strings.Lines(readFile(t, "../../deploy/netsysrqd.toml")) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			table = strings.Trim(line, "[]") + "."
		}
		if name, value, ok := strings.Cut(line, " = "); ok && !strings.HasPrefix(line, "#") {
			want[table+name] = strings.ReplaceAll(value, `"`, `\(dq`)
		}
	}
	setting, wanted := "", false
	for line := range strings.Lines(readFile(t, "../../deploy/man/netsysrqd.toml.5")) {
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

// TestManualOfTheProtocol: the page has the constants of the document.
func TestManualOfTheProtocol(t *testing.T) {
	page := readFile(t, "../../deploy/man/netsysrq-protocol.7")
	_, document, _ := strings.Cut(readFile(t, "../../auth/PROTOCOL.md"), "### Constants")
	document, _, _ = strings.Cut(document, "\n## ")
	rows := regexp.MustCompile(`(?m)^\| ([A-Z_]+) \| ([^ |(]+( m?s)?)`).FindAllStringSubmatch(document, -1)
	if len(rows) < 15 {
		t.Fatalf("constants not found: %v", rows)
	}
	for _, r := range rows {
		// Sizes of the parts are in the layouts.
		if r[1] != "HEADER_SIZE" && r[1] != "BODY_SIZE" && !strings.Contains(page, ".It "+r[1]+" Ta "+r[2]+" Ta ") {
			t.Errorf("the page does not say that %s is %s", r[1], r[2])
		}
	}
	for _, c := range regexp.MustCompile(`(?m)^\.It ([A-Z_]+) Ta `).FindAllStringSubmatch(page, -1) {
		if !strings.Contains(document, "\n| "+c[1]+" | ") {
			t.Errorf("the document has no constant %s", c[1])
		}
	}
}

// output is what a shell prints.
func output(t *testing.T, shell string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(shell)
	if err != nil {
		t.Skipf("%s is not installed", shell)
	}
	c := exec.Command(path, args...)
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "LC_ALL=C.UTF-8"}
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", shell, err, out)
	}
	return string(out)
}

// TestCompletions: each shell offers the flags and commands that there are.
// The text of each file is looked at where its shell is not installed. That the
// files are sound, a test of cmd/sender sees.
func TestCompletions(t *testing.T) {
	const command = "netsysrqd"
	s := readSource(t)
	bash, zsh, fish := completions+"/bash/"+command, completions+"/zsh/_"+command, completions+"/fish/"+command+".fish"
	everything := words{}
	for _, f := range s.long {
		everything.add(strings.TrimPrefix(f, "--"))
	}
	for file, pattern := range map[string]string{bash: `--([a-z][a-z0-9-]+)`, zsh: `--([a-z][a-z0-9-]+)`, fish: `complete .* -l ([a-z0-9-]+)`} {
		found := words{}
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(readFile(t, file), -1) {
			found.add(m[1])
		}
		same(t, file, found, everything)
	}

	shells := map[string]func(t *testing.T, words, prefix string) words{
		"bash": func(t *testing.T, line, prefix string) words {
			return words{}.add(strings.Fields(output(t, "bash", "--norc", "-c", `source "$1"
				read -ra COMP_WORDS <<<"$2"
				COMP_WORDS+=("$3") COMP_CWORD=${#COMP_WORDS[@]}
				((COMP_CWORD--))
				_netsysrqd
				printf '%s\n' "${COMPREPLY[@]}"`, "bash", bash, line, prefix))...)
		},
		"zsh": func(t *testing.T, line, prefix string) words {
			found := words{}
			for l := range strings.Lines(output(t, "zsh", "-f", "-c", `
				compdef() { }
				_arguments() { state=command; [[ $1 == -C && $2 == *config* && $#words -gt 0 ]] && state=arguments; true }
				_describe() { print -rl -- ${(P)2} }
				source $1
				words=(${=2#netsysrqd})
				if [[ $3 == - ]]; then
					_netsysrqd_arguments "$words"
					print -rl -- $reply
				else
					_netsysrqd
				fi`, "zsh", zsh, line, prefix)) {
				if m := regexp.MustCompile(`^(?:\([^)]*\))?(-?-?[A-Za-z0-9][A-Za-z0-9-]*)[=:[]`).FindStringSubmatch(l); m != nil && strings.HasPrefix(m[1], prefix) {
					found.add(m[1])
				}
			}
			return found
		},
		"fish": func(t *testing.T, line, prefix string) words {
			found := words{}
			for l := range strings.Lines(output(t, "fish", "--no-config", "-c", `source $argv[1]; complete -C "$argv[2] $argv[3]"`, fish, line, prefix)) {
				word, _, _ := strings.Cut(strings.TrimSpace(l), "\t")
				found.add(word)
			}
			return found
		},
	}
	names := map[string]words{"": {}} // what may follow a word
	for c := range s.of {
		first, second, ok := strings.Cut(c, " ")
		if c == "" || ofUnits[c] {
			continue
		}
		names[""].add(first)
		if ok && names[first] == nil {
			names[first] = words{}
		}
		if ok {
			names[first].add(second)
		}
	}
	for shell, offer := range shells {
		t.Run(shell, func(t *testing.T) {
			for first, want := range names {
				same(t, "commands "+first, offer(t, strings.TrimSpace(command+" "+first), ""), want)
			}
			for name, flags := range s.of {
				if ofUnits[name] || name == "" && shell == "zsh" { // those are arguments of _arguments
					continue
				}
				want := maps.Clone(flags)
				if name != "help" && name != "version" {
					want.add("-h", "--help")
				}
				same(t, name, offer(t, strings.TrimSpace(command+" "+name), "-"), want)
			}
		})
	}
}
