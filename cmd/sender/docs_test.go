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
)

const (
	manual      = "../../deploy/man/netsysrq.1"
	completions = "../../deploy/completions"
)

// words is a set of flags, with their hyphens, or of commands.
type words map[string]bool

func (w words) add(list ...string) words {
	for _, s := range list {
		w[s] = true
	}
	return w
}

// same fails the test if got is not want.
func same(t *testing.T, what string, got, want words) {
	t.Helper()
	for _, s := range slices.Sorted(maps.Keys(want)) {
		if !got[s] {
			t.Errorf("%s: %s is missing", what, s)
		}
	}
	for _, s := range slices.Sorted(maps.Keys(got)) {
		if !want[s] {
			t.Errorf("%s: there is no %s", what, s)
		}
	}
}

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
func flagsOf(t *testing.T) map[string]words {
	t.Helper()
	all := flagNames(t)
	of := map[string]words{"": words{}.add("--version"), "help": {}}
	for _, c := range commands {
		of[c.name] = words{}
		for _, f := range strings.Fields(c.flags) {
			of[c.name].add(all[f]...)
		}
	}
	return of
}

func commandNames() words {
	names := words{}.add("help")
	for _, c := range commands {
		names.add(c.name)
	}
	return names
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

// TestManual: the page has the commands, flags and exit codes that there are.
func TestManual(t *testing.T) {
	want, everything := flagsOf(t), words{}
	for _, names := range flagNames(t) {
		everything.add(names...)
	}

	items, groups, synopsis := words{}, map[string]words{}, map[string]words{}
	described, codes := words{}, words{}
	var section, sub, command string
	for line := range strings.Lines(readFile(t, manual)) {
		line = strings.TrimSpace(line)
		name, text, _ := strings.Cut(line, " ")
		for _, f := range flagsIn(line) {
			if !everything[f] {
				t.Errorf("%s: there is no %s", manual, f)
			}
		}
		switch {
		case name == ".Sh":
			section, sub = text, ""
		case name == ".Ss":
			sub = strings.ReplaceAll(strings.ToLower(text), " ", "-")
			groups[sub] = words{}
		case section == "SYNOPSIS" && name == ".Nm":
			command = ""
		case section == "SYNOPSIS":
			if name == ".Cm" {
				command = text
			}
			if synopsis[command] == nil {
				synopsis[command] = words{}
			}
			synopsis[command].add(flagsIn(line)...)
			if group, ok := strings.CutPrefix(text, "Ar "); ok && strings.HasSuffix(group, "-options") {
				synopsis[command].add(group)
			}
		case name == ".It" && strings.HasPrefix(text, "Fl "):
			items.add(flagsIn(line)...)
			groups[sub].add(flagsIn(line)...)
		case section == "COMMANDS" && name == ".It":
			described.add(strings.TrimPrefix(text, "Cm "))
		case section == "EXIT STATUS" && name == ".It":
			codes.add(text)
		}
	}
	same(t, "options of the page", items, everything)
	same(t, "COMMANDS of the page", described, commandNames())
	for command, got := range synopsis {
		for name := range got {
			if group := groups[name]; group != nil {
				delete(got, name)
				got.add(slices.Collect(maps.Keys(group))...)
			}
		}
		// The synopsis has one form of each flag.
		for _, names := range flagNames(t) {
			if len(names) == 2 && (got[names[0]] || got[names[1]]) {
				got.add(names...)
			}
		}
		same(t, "SYNOPSIS of the page: "+command, got, want[command])
	}
	for command := range want {
		if synopsis[command] == nil {
			t.Errorf("SYNOPSIS of the page: %q is missing", command)
		}
	}
	exits := words{}.add(strconv.Itoa(exitUsage)) // of one host and of many
	for _, code := range severity {
		exits.add(strconv.Itoa(code))
	}
	same(t, "EXIT STATUS of the page", codes, exits)
}

// output is what a shell prints.
func output(t *testing.T, shell string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(shell)
	if err != nil {
		t.Skipf("%s is not installed", shell)
	}
	c := exec.Command(path, args...)
	home := t.TempDir()
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "XDG_CONFIG_HOME=" + home, "LC_ALL=C.UTF-8"}
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", shell, err, out)
	}
	return string(out)
}

// TestCompletions: each shell offers the flags and commands that there are.
// The text of each file is looked at where its shell is not installed.
func TestCompletions(t *testing.T) {
	const command = "netsysrq"
	bash, zsh, fish := completions+"/bash/"+command, completions+"/zsh/_"+command, completions+"/fish/"+command+".fish"
	everything := words{}
	for name := range flagNames(t) {
		everything.add(name)
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
				COMP_WORDS+=("$3") COMP_LINE="$2 $3"
				COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMP_POINT=${#COMP_LINE}
				_netsysrq
				printf '%s\n' "${COMPREPLY[@]}"`, "bash", bash, line, prefix))...)
		},
		"zsh": func(t *testing.T, line, prefix string) words {
			found := words{}
			for l := range strings.Lines(output(t, "zsh", "-f", "-c", `
				compdef() { }
				_arguments() { state=command }
				_describe() { print -rl -- ${(P)2} }
				source $1
				if [[ $3 == - ]]; then
					_netsysrq_arguments ${2#netsysrq }
					print -rl -- $reply
				else
					_netsysrq
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
	of := flagsOf(t)
	for shell, offer := range shells {
		t.Run(shell, func(t *testing.T) {
			same(t, "commands", offer(t, command, ""), commandNames())
			for name, want := range of {
				if name == "" && shell == "zsh" {
					continue // these are arguments of _arguments
				}
				same(t, name, offer(t, strings.TrimSpace(command+" "+name), "-"), maps.Clone(want).add("-h", "--help"))
			}
		})
	}
}

// TestDocumentsAreSound: mandoc and the shells find nothing wrong.
func TestDocumentsAreSound(t *testing.T) {
	pages, err := filepath.Glob("../../deploy/man/*.[1-9]")
	if err != nil || len(pages) != 4 {
		t.Fatalf("%v, %v: want 4 pages", pages, err)
	}
	for _, page := range pages {
		t.Run(filepath.Base(page), func(t *testing.T) {
			if out := output(t, "mandoc", "-Tlint", "-Wwarning", page); out != "" {
				t.Error(out)
			}
		})
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		files, err := filepath.Glob(completions + "/" + shell + "/*")
		if err != nil || len(files) != 2 {
			t.Fatalf("%v, %v: want 2 files", files, err)
		}
		for _, file := range files {
			t.Run(shell+"/"+filepath.Base(file), func(t *testing.T) {
				if out := output(t, shell, "-n", file); out != "" {
					t.Error(out)
				}
			})
		}
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
			path, err := exec.LookPath(shell)
			if err != nil {
				t.Skipf("%s is not installed", shell)
			}
			c := exec.Command(path, "-c", script)
			c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "XDG_CONFIG_HOME=" + dir}
			out, err := c.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			same(t, shell, words{}.add(strings.Fields(string(out))...), words{}.add("@all", "@db", "db1", "db3", "db4", "web1.example.org"))
		})
	}
}
