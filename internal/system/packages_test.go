// SPDX-License-Identifier: GPL-2.0-only

//go:build install

package system_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The same tree gives the same packages, wherever and by whomever they are built:
// with other paths, another time zone, language and umask. Nothing is left behind,
// and the tree is as it was.
func TestPackagesReproducible(t *testing.T) {
	t.Parallel()
	tree := func() string {
		out, err := exec.Command("git", "status", "--porcelain", "--ignored").CombinedOutput()
		if err != nil {
			t.Fatalf("git: %v: %s", err, out)
		}
		return string(out)
	}
	first, before := debs(t, version), tree()
	target, tmp := filepath.Join(t.TempDir(), "an other", "place"), t.TempDir()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `umask 077; exec ../../deploy/build-deb "$0"`, target)
	cmd.Env = append(packageEnv(t, version), "TMPDIR="+tmp, "TZ=Pacific/Kiritimati", "LC_ALL=C", "USER=nobody")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build-deb: %v: %s", err, out)
	}
	if after := tree(); after != before {
		t.Errorf("the tree was changed: %s", after)
	}
	left, err := os.ReadDir(tmp)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	for name, path := range first {
		again := filepath.Join(target, filepath.Base(path))
		if !bytes.Equal(read(t, path), read(t, again)) {
			t.Errorf("%s: another build has other bytes; the first:\n%sthe second:\n%s", name, contents(t, path), contents(t, again))
		}
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// contents is the list of a package's files.
func contents(t *testing.T, deb string) string {
	t.Helper()
	out, err := exec.Command("dpkg-deb", "-c", deb).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// Everything in a package belongs to root, and nobody else may write it.
func TestPackagesOwnership(t *testing.T) {
	t.Parallel()
	for name, path := range debs(t, version) {
		files := 0
		for line := range strings.Lines(contents(t, path)) {
			f := strings.Fields(line)
			if len(f) < 6 {
				t.Fatalf("%s: not understood: %q", name, line)
			}
			mode, owner := f[0], f[1]
			wide := mode[0] != 'l' && (mode[5] != '-' || mode[8] != '-')
			if owner != "root/root" || wide || strings.ContainsAny(mode, "sSt") {
				t.Errorf("%s: %s", name, line)
			}
			files++
		}
		if files < 5 {
			t.Errorf("%s: %d files only", name, files)
		}
	}
}
