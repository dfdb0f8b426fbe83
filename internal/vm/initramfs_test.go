// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// list reads the names and modes in an archive.
func list(t *testing.T, b []byte) (names []string) {
	t.Helper()
	align := func(n int) int { return (n + 3) &^ 3 }
	at := 0
	for {
		const header = 110
		if string(b[at:at+6]) != "070701" {
			t.Fatalf("no header at %d", at)
		}
		field := func(i int) int {
			n, err := strconv.ParseUint(string(b[at+6+8*i:at+14+8*i]), 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			return int(n)
		}
		mode, size, nameSize := field(1), field(6), field(11)
		name := string(b[at+header : at+header+nameSize-1])
		content := align(at + header + nameSize)
		if name == "TRAILER!!!" {
			return names
		}
		names = append(names, strconv.FormatInt(int64(mode), 8)+" "+name+" "+string(b[content:content+size]))
		at = align(content + size)
	}
}

func TestArchive(t *testing.T) {
	tree := NewTree()
	tree.Write("/etc/x/hello", 0o640, []byte("hello"))
	tree.Link("/bin/sh", "busybox")
	tree.Dir("/proc")
	tree.device("/dev/null", 1, 3)
	b, err := tree.archive()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"40755 bin ", "120777 bin/sh busybox", "40755 dev ", "20600 dev/null ", "40755 etc ",
		"40755 etc/x ", "100640 etc/x/hello hello", "40755 proc "}
	if got := list(t, b); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestProgramBringsItsLibraries(t *testing.T) {
	shell, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		t.Skip("no /bin/sh")
	}
	needs, err := libraries(shell)
	if err != nil {
		t.Fatal(err)
	}
	tree := NewTree()
	tree.Program(shell)
	for _, path := range append(needs, shell) {
		if _, ok := tree.entries[path]; !ok {
			t.Errorf("%s is missing", path)
		}
	}
	if tree.err != nil {
		t.Error(tree.err)
	}
	if tree.Program("/nonexistent"); tree.err == nil {
		t.Error("a program that is not there was added")
	}
}

func TestModuleOrder(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"modules.dep": "k/a.ko.xz: k/b-c.ko.xz k/d.ko.xz\nk/b-c.ko.xz: k/d.ko.xz\nk/d.ko.xz:\n",
		// In the kernel itself:
		"modules.builtin": "k/e.ko\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	d, err := readDependencies(dir)
	if err != nil {
		t.Fatal(err)
	}
	files, err := d.order([]string{"a", "e", "b_c", "missing?", "e?"})
	if want := "k/d.ko.xz k/b-c.ko.xz k/a.ko.xz"; err != nil || strings.Join(files, " ") != want {
		t.Errorf("got %q %v, want %q", files, err, want)
	}
	if _, err := d.order([]string{"missing"}); err == nil {
		t.Error("a module that is not there was found")
	}
}
