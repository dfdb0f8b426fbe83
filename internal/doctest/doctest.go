// SPDX-License-Identifier: GPL-2.0-only

// Package doctest holds manual pages and shell completions against the code that
// they describe. It is for tests.
package doctest

import (
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"testing"
)

// Words is a set of flags, with their hyphens, or of commands.
type Words map[string]bool

// Set makes one.
func Set(list ...string) Words { return Words{}.Add(list...) }

// Add adds to it, and returns it.
func (w Words) Add(list ...string) Words {
	for _, s := range list {
		w[s] = true
	}
	return w
}

// Sorted lists it.
func (w Words) Sorted() []string { return slices.Sorted(maps.Keys(w)) }

// Same fails the test if got is not want.
func Same(t testing.TB, what string, got, want Words) {
	t.Helper()
	for _, s := range want.Sorted() {
		if !got[s] {
			t.Errorf("%s: %s is missing", what, s)
		}
	}
	for _, s := range got.Sorted() {
		if !want[s] {
			t.Errorf("%s: there is no %s", what, s)
		}
	}
}

// Read returns a file's text.
func Read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var flagMacro = regexp.MustCompile(`\bFl (-?[A-Za-z0-9][A-Za-z0-9-]*)`)

// Flags are the flags in a line of mdoc(7).
func Flags(line string) (flags []string) {
	for _, m := range flagMacro.FindAllStringSubmatch(line, -1) {
		flags = append(flags, "-"+m[1])
	}
	return flags
}

// Output is what a program prints, in an empty home that is also where its
// configuration is. Where the program is not installed the test is skipped, but
// not in continuous integration.
func Output(t testing.TB, program string, args ...string) string {
	t.Helper()
	return OutputAt(t, t.TempDir(), program, args...)
}

// OutputAt is Output in a given home.
func OutputAt(t testing.TB, home, program string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	switch {
	case err != nil && os.Getenv("CI") == "":
		t.Skipf("%s is not installed", program)
	case err != nil:
		t.Fatal(err)
	}
	c := exec.Command(path, args...)
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "XDG_CONFIG_HOME=" + home, "LC_ALL=C.UTF-8"}
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", program, err, out)
	}
	return string(out)
}
