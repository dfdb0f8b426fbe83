// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// Linux is a Debian kernel in the cache.
type Linux struct {
	Version string // as Kernel was asked, such as 6.1
	Release string // as uname -r says
	Image   string // vmlinuz
	Modules string // the folder of its modules, with modules.dep

	root    string // the packages, unpacked
	headers string // below root, where modules are built
	chroot  bool   // root is a system with a compiler, to be entered for that
}

// Versions are the kernels that Kernel knows: Debian's in the order of their
// age, and DebugVersion.
var Versions = []string{"5.10", "6.1", "6.12", "7.2", DebugVersion}

// DebugVersion is a 6.1 with the kernel's own checks: KASAN, UBSAN, lockdep and
// more. See scripts/debugkernel.config.
const DebugVersion = "debug"

// Kernel returns a kernel out of the cache, or downloads it first: 10 s for
// those that the host can build modules for, a minute for newer ones, which
// come with a small Debian of their own and need root. DebugVersion is built here,
// in 15 minutes of CPU time. What is in the cache is not updated; remove its
// folder for that.
func Kernel(ctx context.Context, version string) (*Linux, error) {
	if !slices.Contains(Versions, version) {
		return nil, fmt.Errorf("kernel %q: known are %v", version, Versions)
	}
	if err := Prepare(); err != nil {
		return nil, err
	}
	var l *Linux
	err := locked("kernel-"+version, func(cache string) error {
		cache = filepath.Join(cache, "kernels")
		dir, err := newest(filepath.Join(cache, version))
		if err == nil && dir == "" {
			if version == DebugVersion {
				dir, err = script(ctx, "debugkernel.sh", cache)
			} else {
				dir, err = script(ctx, "kernel.sh", version, cache)
			}
		}
		if err == nil {
			l, err = readKernel(version, dir)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("kernel %s: %w", version, err)
	}
	return l, nil
}

// newest returns the version that was downloaded last, or nothing.
func newest(dir string) (string, error) {
	found, err := filepath.Glob(filepath.Join(dir, "*", "kernel.json"))
	if err != nil {
		return "", err
	}
	var best os.FileInfo
	var path string
	for _, f := range found {
		info, err := os.Stat(f)
		if err != nil {
			return "", err
		}
		if best == nil || info.ModTime().After(best.ModTime()) {
			best, path = info, filepath.Dir(f)
		}
	}
	return path, nil
}

func readKernel(version, dir string) (*Linux, error) {
	b, err := os.ReadFile(filepath.Join(dir, "kernel.json"))
	if err != nil {
		return nil, err
	}
	var k struct {
		Release, Vmlinuz, Modules, Headers string
		Chroot                             bool
	}
	if err := json.Unmarshal(b, &k); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return &Linux{
		Version: version,
		Release: k.Release,
		Image:   filepath.Join(dir, k.Vmlinuz),
		Modules: filepath.Join(dir, k.Modules),
		root:    filepath.Join(dir, "root"),
		headers: k.Headers,
		chroot:  k.Chroot,
	}, nil
}
