// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"context"
	"fmt"
	"os"
	"os/exec"
)

// MakeDisk makes a file that is an ext4 file system, for Options.Disk.
func MakeDisk(ctx context.Context, path string, mib int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(mib << 20); err != nil {
		return err
	}
	return tool(ctx, "mkfs.ext4", "-q", "-F", path)
}

// CheckDisk fails if the file system in a file is damaged. A journal that has to
// be replayed, as after any reset, is no damage: that is done first.
func CheckDisk(ctx context.Context, path string) error {
	// Exit code 1: the journal was replayed, and nothing else was found.
	if err := tool(ctx, "e2fsck", "-E", "journal_only", "-y", path); err != nil {
		return err
	}
	return tool(ctx, "e2fsck", "-f", "-n", path)
}

func tool(ctx context.Context, name string, args ...string) error {
	path, err := find(name)
	if err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, path, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}
