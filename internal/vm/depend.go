// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// dependencies is what depmod found out about a kernel's modules.
type dependencies struct {
	dir     string
	file    map[string]string   // by name: below dir
	needs   map[string][]string // by name
	builtin map[string]bool
}

// moduleName makes one name of the two spellings, and of a path.
func moduleName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".")
	return strings.ReplaceAll(name, "-", "_")
}

func readDependencies(dir string) (*dependencies, error) {
	d := &dependencies{dir, map[string]string{}, map[string][]string{}, map[string]bool{}}
	dep, err := os.ReadFile(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(dep)) {
		file, needs, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		name := moduleName(file)
		d.file[name] = file
		for _, n := range strings.Fields(needs) {
			d.needs[name] = append(d.needs[name], moduleName(n))
		}
	}
	builtin, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(builtin)) {
		d.builtin[moduleName(strings.TrimSpace(line))] = true
	}
	return d, nil
}

// order returns the files to load for modules and all that they need, in an
// order that works. A name that ends in "?" is left out where the kernel does
// not have it.
func (d *dependencies) order(names []string) (files []string, err error) {
	done := map[string]bool{}
	var visit func(name string) error
	visit = func(name string) error {
		if done[name] || d.builtin[name] {
			return nil
		}
		done[name] = true
		file, ok := d.file[name]
		if !ok {
			return fmt.Errorf("the kernel has no module %s", name)
		}
		for _, n := range d.needs[name] {
			if err := visit(n); err != nil {
				return err
			}
		}
		files = append(files, file)
		return nil
	}
	for _, n := range names {
		name := moduleName(strings.TrimSuffix(n, "?"))
		if name != moduleName(n) && d.file[name] == "" {
			continue
		}
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// read returns a module, unpacked: a guest's kernel may not be able to do that.
func (d *dependencies) read(ctx context.Context, file string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(d.dir, file))
	if err != nil {
		return nil, err
	}
	var tool string
	switch path.Ext(file) {
	case ".ko":
		return b, nil
	case ".xz":
		tool = "xz"
	case ".zst":
		tool = "zstd"
	case ".gz":
		tool = "gzip"
	}
	cmd := exec.CommandContext(ctx, tool, "-dc")
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("unpack %s: %w", file, err)
	}
	return out, nil
}
