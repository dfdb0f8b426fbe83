// SPDX-License-Identifier: GPL-2.0-only

package doctest

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Shells are those that have completions.
var Shells = []string{"bash", "zsh", "fish"}

// Completion are the completions of a command.
type Completion struct {
	Command string
	Dir     string // with a folder for each shell
}

// File is that of a shell.
func (c *Completion) File(shell string) string {
	name := map[string]string{"bash": c.Command, "zsh": "_" + c.Command, "fish": c.Command + ".fish"}[shell]
	return filepath.Join(c.Dir, shell, name)
}

var longFlag = map[string]*regexp.Regexp{
	"bash": regexp.MustCompile(`--([a-z][a-z0-9-]+)`),
	"zsh":  regexp.MustCompile(`--([a-z][a-z0-9-]+)`),
	"fish": regexp.MustCompile(`complete .* -l ([a-z0-9-]+)`),
}

// LongFlags are those that a shell's file names, without their hyphens.
func (c *Completion) LongFlags(t testing.TB, shell string) Words {
	t.Helper()
	found := Words{}
	for _, m := range longFlag[shell].FindAllStringSubmatch(Read(t, c.File(shell)), -1) {
		found.Add(m[1])
	}
	return found
}

// Offer is what a shell offers after a line for a word that begins with prefix.
func (c *Completion) Offer(t testing.TB, shell, line, prefix string) Words {
	t.Helper()
	switch shell {
	case "bash":
		return Set(strings.Fields(Output(t, "bash", "--norc", "-c", `source "$1"
			read -ra COMP_WORDS <<<"$2"
			COMP_WORDS+=("$3") COMP_LINE="$2 $3"
			COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMP_POINT=${#COMP_LINE}
			"_$4"
			printf '%s\n' "${COMPREPLY[@]}"`, "bash", c.File(shell), line, prefix, c.Command))...)
	case "zsh":
		return c.offerZsh(t, line, prefix)
	}
	found := Words{}
	script := `source $argv[1]; complete -C "$argv[2] $argv[3]"`
	for l := range strings.Lines(Output(t, shell, "--no-config", "-c", script, c.File(shell), line, prefix)) {
		word, _, _ := strings.Cut(strings.TrimSpace(l), "\t")
		found.Add(word)
	}
	return found
}

var zshOffer = regexp.MustCompile(`^(?:\([^)]*\))?(-?-?[A-Za-z0-9][A-Za-z0-9-]*)[=:[]`)

// offerZsh has the file's own functions tell what they hand to zsh, whose line
// editor needs a terminal.
func (c *Completion) offerZsh(t testing.TB, line, prefix string) Words {
	t.Helper()
	const script = `
		compdef() { }
		_arguments() { state=command; [[ $1 == -C && $2 == *config* && $#words -gt 0 ]] && state=arguments; true }
		_describe() { print -rl -- ${(P)2} }
		source $1
		words=(${=2#$4})
		if [[ $3 == - ]]; then
			_${4}_arguments "$words"
			print -rl -- $reply
		else
			_${4}
		fi`
	found := Words{}
	for l := range strings.Lines(Output(t, "zsh", "-f", "-c", script, "zsh", c.File("zsh"), line, prefix, c.Command)) {
		if m := zshOffer.FindStringSubmatch(l); m != nil && strings.HasPrefix(m[1], prefix) {
			found.Add(m[1])
		}
	}
	return found
}
