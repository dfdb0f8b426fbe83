// SPDX-License-Identifier: GPL-2.0-only

package system

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"netsysrq/internal/vm"
)

//go:embed scripts
var scripts embed.FS

// Release is a release of Debian, by its name.
type Release string

// The releases that there are images of.
const (
	Bookworm Release = "bookworm" // 12
	Trixie   Release = "trixie"   // 13
)

// Releases are all of them.
var Releases = []Release{Bookworm, Trixie}

// Image is a Debian that nobody has booted yet.
type Image struct {
	Release Release
	Kernel  string // as uname -r says
	// Other is another kernel of the release, which is not installed, and its
	// packages, with the headers to build modules, as files of the host by
	// their names: a test of what happens when one is installed gives them to
	// its machine.
	Other     string
	OtherDebs map[string]string

	dir string
	key string // of the recipe
}

func (i *Image) disk() string    { return filepath.Join(i.dir, "root.raw") }
func (i *Image) vmlinuz() string { return filepath.Join(i.dir, "vmlinuz") }

// Prepare installs, once in a process, what this package needs on the host.
var Prepare = sync.OnceValue(func() error {
	if err := vm.Prepare(); err != nil {
		return err
	}
	return vm.Locked("deps", func(string) error {
		_, err := vm.Script(context.Background(), "system", scripts, "deps.sh")
		return err
	})
})

// GetImage returns an image out of the cache, or makes it first, which needs root
// and takes one to three minutes. What is in the cache is made anew when its recipe
// changes, not when Debian does; remove its folder for that.
func GetImage(ctx context.Context, r Release) (*Image, error) {
	if !slices.Contains(Releases, r) {
		return nil, fmt.Errorf("release %q: known are %v", r, Releases)
	}
	if err := Prepare(); err != nil {
		return nil, err
	}
	recipe := []string{string(r)}
	for _, name := range []string{"image.sh", "otherkernel.sh"} {
		b, err := fs.ReadFile(scripts, "scripts/"+name)
		if err != nil {
			return nil, err
		}
		recipe = append(recipe, string(b))
	}
	i := &Image{Release: r, key: digest(recipe...)}
	err := vm.Locked("system-"+string(r), func(cache string) error {
		images := filepath.Join(cache, "system", "images")
		i.dir = filepath.Join(images, string(r)+"-"+i.key)
		if _, err := os.Stat(filepath.Join(i.dir, "image.json")); err == nil {
			return nil
		}
		if err := os.MkdirAll(images, 0o755); err != nil {
			return err
		}
		if _, err := vm.Script(ctx, "system", scripts, "image.sh", string(r), i.dir); err != nil {
			return err
		}
		// Those of former recipes are of no use to a newer bench.
		return prune(images, string(r)+"-*", 1)
	})
	if err != nil {
		return nil, fmt.Errorf("image of %s: %w", r, err)
	}
	b, err := os.ReadFile(filepath.Join(i.dir, "image.json"))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, i); err != nil {
		return nil, fmt.Errorf("%s: %w", i.dir, err)
	}
	i.OtherDebs = map[string]string{}
	debs, err := filepath.Glob(filepath.Join(i.dir, "other", "*.deb"))
	if err != nil {
		return nil, err
	}
	for _, d := range debs {
		i.OtherDebs[filepath.Base(d)] = d
	}
	return i, touch(i.dir)
}

// digest makes a short name of anything.
func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d %s\n", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:10])
}

// touch notes that something of the cache is used.
func touch(dir string) error {
	now := time.Now()
	return os.Chtimes(dir, now, now)
}

// unused is how long nobody must have begun to use something that is pruned: a
// machine may still run from it.
const unused = 2 * time.Hour

// prune removes the folders of a pattern, but for those that were used last.
func prune(dir, pattern string, keep int) error {
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		return err
	}
	used := map[string]time.Time{}
	for _, f := range found {
		if info, err := os.Stat(f); err == nil {
			used[f] = info.ModTime()
		}
	}
	slices.SortFunc(found, func(a, b string) int { return used[b].Compare(used[a]) })
	for _, f := range found[min(keep, len(found)):] {
		if time.Since(used[f]) > unused {
			if err := os.RemoveAll(f); err != nil {
				return err
			}
		}
	}
	return nil
}
