// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// buildTimeout bounds one build of a module.
const buildTimeout = 5 * time.Minute

//go:embed hang
var hangSource embed.FS

// BuildModule builds the out-of-tree module in a folder for a kernel, with
// warnings as errors, and returns the path of its .ko file, which must be the
// only one. It works on a copy of the folder and keeps the result in the cache,
// by the content of the files.
func BuildModule(ctx context.Context, l *Linux, dir string, args ...string) (string, error) {
	return buildModule(ctx, l, os.DirFS(dir), args...)
}

func buildModule(ctx context.Context, l *Linux, source fs.FS, args ...string) (ko string, err error) {
	key, err := digest(source, l.root, strings.Join(args, "\x00"))
	if err != nil {
		return "", err
	}
	err = locked("module-"+key, func(cache string) error {
		kept := filepath.Join(cache, "modules", l.Release, key)
		if ko, err = onlyModule(kept); err == nil {
			return nil
		}
		ko, err = l.make(ctx, source, kept, args)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("build a module for %s: %w", l.Release, err)
	}
	return ko, nil
}

// digest names a set of files by their content.
func digest(source fs.FS, more ...string) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%q\n", more)
	err := fs.WalkDir(source, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(source, path)
		fmt.Fprintf(h, "%q %d\n", path, len(b))
		h.Write(b)
		return err
	})
	return hex.EncodeToString(h.Sum(nil)[:12]), err
}

// make builds in a folder that make may write to, and moves the module to kept.
func (l *Linux) make(ctx context.Context, source fs.FS, kept string, args []string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, buildTimeout)
	defer cancel()
	parent := ""
	if l.chroot {
		parent = filepath.Join(l.root, "tmp")
	}
	tmp, err := os.MkdirTemp(parent, "module-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	if err := os.CopyFS(tmp, source); err != nil {
		return "", err
	}
	command := []string{"make", "-C", l.root + l.headers, "M=" + tmp}
	if l.chroot {
		// objtool wants a /proc; what is mounted ends with the command.
		command = []string{"unshare", "-m", "-p", "-f", "--kill-child", "--mount-proc=" + filepath.Join(l.root, "proc"),
			"chroot", l.root, "make", "-C", l.headers, "M=" + strings.TrimPrefix(tmp, l.root)}
	}
	command = append(append(command, "-j2", "KCFLAGS=-Werror", "modules"), args...)
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = append(os.Environ(), "PATH="+searchPath(), "LC_ALL=C")
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(command, " "), err, out)
	}
	if w := warnings(out); w != "" {
		return "", fmt.Errorf("make warns:\n%s", w)
	}
	built, err := onlyModule(tmp)
	if err != nil {
		return "", err
	}
	ko, err := os.ReadFile(built)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(kept, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(kept, filepath.Base(built))
	if err := os.WriteFile(path+".new", ko, 0o644); err != nil {
		return "", err
	}
	return path, os.Rename(path+".new", path)
}

var warning = regexp.MustCompile(`(?i)\bwarning:`)

// warnings are the lines of make's output that warn of something in the module:
// modpost and objtool do so without failing.
func warnings(out []byte) string {
	var found []string
	for line := range bytes.Lines(out) {
		// Compiler and pahole get updates that the kernel was not built with.
		if warning.Match(line) && !bytes.Contains(line, []byte("differs from the one used to build the kernel")) {
			found = append(found, string(line))
		}
	}
	return strings.Join(found, "")
}

func onlyModule(dir string) (string, error) {
	found, err := filepath.Glob(filepath.Join(dir, "*.ko"))
	if err != nil {
		return "", err
	}
	if len(found) != 1 {
		return "", fmt.Errorf("%d modules in %s, not one", len(found), dir)
	}
	return found[0], nil
}

// buildHang builds the helper module of the hang scenarios.
func buildHang(ctx context.Context, l *Linux) (string, error) {
	source, err := fs.Sub(hangSource, "hang")
	if err != nil {
		return "", err
	}
	return buildModule(ctx, l, source)
}

// goBuild builds a static program of this Go module into a file.
func goBuild(ctx context.Context, pkg, out string, args ...string) error {
	args = append(append([]string{"build", "-o", out}, args...), pkg)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", pkg, err, b)
	}
	return nil
}
