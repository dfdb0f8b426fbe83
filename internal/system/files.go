// SPDX-License-Identifier: GPL-2.0-only

package system

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"netsysrq/internal/vm"
)

// FilesDir is where a machine finds Options.Files.
const FilesDir = "/run/files"

// files are what a machine is given, as a file system that it can only read.
type files struct {
	sources map[string]string
	key     string
	path    string
}

// readFiles makes a key of the content.
func readFiles(sources map[string]string) (files, error) {
	f := files{sources: sources}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(sources)) {
		b, err := os.ReadFile(sources[name])
		if err != nil {
			return f, err
		}
		parts = append(parts, name, fmt.Sprintf("%x", sha256.Sum256(b)))
	}
	f.key = digest(parts...)
	return f, nil
}

// make makes the file system.
func (f *files) make(ctx context.Context, dir *folder) error {
	tree := dir.file("files")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(tree)
	for name, source := range f.sources {
		if !filepath.IsLocal(name) {
			return fmt.Errorf("files: %q is not below a folder", name)
		}
		to := filepath.Join(tree, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		info, err := os.Stat(source)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(source)
		if err != nil {
			return err
		}
		if err := os.WriteFile(to, b, info.Mode().Perm()); err != nil {
			return err
		}
	}
	f.path = dir.file("files.raw")
	if err := os.WriteFile(f.path, nil, 0o644); err != nil {
		return err
	}
	if err := os.Truncate(f.path, fileMiB<<20); err != nil {
		return err
	}
	return vm.Tool(ctx, "mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-d", tree, f.path)
}

// mountFiles mounts what is on the disk, if anything is.
func (m *Machine) mountFiles(ctx context.Context) error {
	if len(m.files.sources) == 0 {
		return nil
	}
	_, err := m.Run(ctx, "sh", "-ec", "mkdir -p "+FilesDir+"; mount -t ext4 -o ro /dev/vdb "+FilesDir)
	return err
}

func (m *Machine) unmountFiles(ctx context.Context) error {
	if len(m.files.sources) == 0 {
		return nil
	}
	_, err := m.Run(ctx, "umount", FilesDir)
	return err
}
