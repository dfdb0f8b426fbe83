// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// ExtensionPath is where iptables, of the host and so of the guest, looks for
// the extension of the NETSYSRQ target.
const ExtensionPath = "/usr/lib/x86_64-linux-gnu/xtables/libxt_NETSYSRQ.so"

// BuildExtension compiles the iptables extension libxt_NETSYSRQ.c of a folder,
// with warnings as errors, and returns the path of the library in the cache,
// where it is kept by the content of the folder.
func BuildExtension(ctx context.Context, dir string) (so string, err error) {
	compiler, err := find("gcc")
	if err != nil {
		return "", err
	}
	flags, err := exec.CommandContext(ctx, "pkg-config", "--cflags", "xtables").Output()
	if err != nil {
		return "", fmt.Errorf("%w: the iptables extension needs the packages libxtables-dev and pkg-config: %w", ErrUnavailable, err)
	}
	key, err := digest(os.DirFS(dir), string(flags))
	if err != nil {
		return "", err
	}
	err = locked("extension-"+key, func(cache string) error {
		so = filepath.Join(cache, "extensions", key, filepath.Base(ExtensionPath))
		if _, err := os.Stat(so); err == nil {
			return nil
		}
		if err := os.MkdirAll(filepath.Dir(so), 0o755); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		args := append([]string{"-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-o", so + ".new",
			filepath.Join(dir, "libxt_NETSYSRQ.c")}, strings.Fields(string(flags))...)
		if b, err := exec.CommandContext(ctx, compiler, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%w\n%s", err, b)
		}
		return os.Rename(so+".new", so)
	})
	if err != nil {
		return "", fmt.Errorf("build %s: %w", filepath.Base(ExtensionPath), err)
	}
	return so, nil
}
