// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"debug/elf"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Tree is the guest's file system: the content of its initramfs. Paths begin
// with a slash; folders are made as needed.
type Tree struct {
	entries map[string]entry
	err     error // of the first Copy or Program that failed
}

type entry struct {
	mode         uint32 // with the type
	major, minor uint32
	content      []byte // of a link: its target
}

// NewTree returns an empty tree.
func NewTree() *Tree { return &Tree{entries: map[string]entry{}} }

// Write puts a file there.
func (t *Tree) Write(name string, mode uint32, content []byte) {
	t.put(name, entry{mode: typeFile | mode, content: content})
}

// Link puts a symbolic link there.
func (t *Tree) Link(name, target string) {
	t.put(name, entry{mode: typeLink | 0o777, content: []byte(target)})
}

// Dir makes a folder.
func (t *Tree) Dir(name string) { t.put(name, entry{mode: typeDir | 0o755}) }

func (t *Tree) device(name string, major, minor uint32) {
	t.put(name, entry{mode: typeDevice | 0o600, major: major, minor: minor})
}

func (t *Tree) put(name string, e entry) {
	name = path.Clean("/" + name)
	for dir := path.Dir(name); dir != "/"; dir = path.Dir(dir) {
		if _, ok := t.entries[dir]; !ok {
			t.entries[dir] = entry{mode: typeDir | 0o755}
		}
	}
	t.entries[name] = e
}

// Copy puts a file of the host there, with its permissions.
func (t *Tree) Copy(name, from string) {
	info, err := os.Stat(from)
	var b []byte
	if err == nil {
		b, err = os.ReadFile(from)
	}
	if err != nil {
		t.err = errors.Join(t.err, err)
		return
	}
	t.Write(name, uint32(info.Mode().Perm()), b)
}

// Program puts a program of the host there, under its own path, with the
// libraries that it is linked with. One that is not a program but a library,
// such as an extension of iptables, gets the same.
func (t *Tree) Program(file string) {
	if _, ok := t.entries[file]; ok || t.err != nil {
		return
	}
	t.Copy(file, file)
	needs, err := libraries(file)
	if err != nil {
		t.err = errors.Join(t.err, err)
		return
	}
	for _, n := range needs {
		t.Program(n)
	}
}

// Where Debian keeps libraries.
var libraryDirs = []string{
	"/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu", "/usr/lib64", "/lib64", "/usr/lib", "/lib",
}

// libraries returns the files that an ELF file names: its interpreter and the
// libraries that it is linked with directly.
func libraries(file string) (paths []string, err error) {
	f, err := elf.Open(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			b := make([]byte, p.Filesz)
			if _, err := p.ReadAt(b, 0); err != nil {
				return nil, fmt.Errorf("%s: interpreter: %w", file, err)
			}
			paths = append(paths, strings.TrimRight(string(b), "\x00"))
		}
	}
	names, err := f.ImportedLibraries()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	for _, n := range names {
		at := slices.IndexFunc(libraryDirs, func(dir string) bool {
			_, err := os.Stat(filepath.Join(dir, n))
			return err == nil
		})
		if at < 0 {
			return nil, fmt.Errorf("%s: library %s is not installed", file, n)
		}
		paths = append(paths, filepath.Join(libraryDirs[at], n))
	}
	return paths, nil
}

// archive returns the tree as the kernel wants it.
func (t *Tree) archive() ([]byte, error) {
	if t.err != nil {
		return nil, t.err
	}
	var c cpio
	for _, name := range slices.Sorted(maps.Keys(t.entries)) {
		e := t.entries[name]
		c.add(strings.TrimPrefix(name, "/"), e.mode, e.major, e.minor, e.content)
	}
	c.end()
	return c.Bytes(), nil
}
