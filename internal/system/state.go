// SPDX-License-Identifier: GPL-2.0-only

package system

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"netsysrq/internal/vm"
)

// State is a machine at one moment, that any number of machines can go on from:
// its disk, its memory and its devices.
type State struct {
	image *Image
	from  *State // the one that its disk is a change of, or nil
	dir   string
	key   string
}

func (s *State) disk() string   { return filepath.Join(s.dir, "disk.qcow2") }
func (s *State) memory() string { return filepath.Join(s.dir, "memory.zst") }

// use notes that the state is used, and those below it.
func (s *State) use() error {
	for ; s != nil; s = s.from {
		if err := touch(s.dir); err != nil {
			return err
		}
	}
	return nil
}

// Image is what the machine was first booted from.
func (s *State) Image() *Image { return s.image }

// qemuVersion is part of a state's key: only the QEMU that saved it is known to be
// able to go on from it.
var qemuVersion = sync.OnceValues(func() (string, error) {
	qemu, err := vm.Find("qemu-system-x86_64")
	if err != nil {
		return "", err
	}
	out, err := exec.Command(qemu, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("QEMU's version: %w", err)
	}
	version, _, _ := strings.Cut(string(out), "\n")
	return version, nil
})

// Booted returns the state of an image that was booted until systemd said that it
// runs, out of the cache or by doing that.
func Booted(ctx context.Context, i *Image) (*State, error) {
	version, err := qemuVersion()
	if err != nil {
		return nil, err
	}
	initrd, err := i.initrd(ctx)
	if err != nil {
		return nil, fmt.Errorf("make the initramfs: %w", err)
	}
	key := digest(i.key, version, string(initrd), fmt.Sprint(memory, fileMiB, hardware, vm.KernelParameters()))
	return cached(i, nil, "booted", key, func(dir string) error {
		m, err := boot(ctx, i, i.disk(), "raw", Options{})
		if m != nil {
			defer m.Close()
		}
		if err != nil {
			return err
		}
		return m.save(ctx, dir)
	})
}

// Derive returns the state of a machine that went on from another one and was
// changed by a test, out of the cache or by doing that. The name says what it was
// changed to, the key what has gone into it besides opt.Files, which count too:
// another key is another state. Not more than two of a name are kept.
func Derive(ctx context.Context, from *State, name, key string, opt Options, change func(ctx context.Context, m *Machine) error) (*State, error) {
	f, err := readFiles(opt.Files)
	if err != nil {
		return nil, err
	}
	return cached(from.image, from, name, digest(from.key, name, key, f.key), func(dir string) error {
		m, err := Resume(ctx, from, opt)
		if m != nil {
			defer m.Close()
		}
		if err != nil {
			return err
		}
		if err := change(ctx, m); err != nil {
			return errors.Join(err, m.consoleError())
		}
		return m.save(ctx, dir)
	})
}

// cached returns a state out of the cache, or has it saved to a folder.
func cached(i *Image, from *State, name, key string, save func(dir string) error) (*State, error) {
	s := &State{image: i, from: from, key: key}
	prefix := string(i.Release) + "-" + name + "-"
	err := vm.Locked("system-"+prefix+key, func(cache string) error {
		states := filepath.Join(cache, "system", "states")
		s.dir = filepath.Join(states, prefix+key)
		if _, err := os.Stat(filepath.Join(s.dir, "state.json")); err == nil {
			return s.use()
		}
		if err := os.MkdirAll(states, 0o755); err != nil {
			return err
		}
		if err := prune(states, prefix+"*", 1); err != nil {
			return err
		}
		// The disk of a state may be named by those of others: it is saved
		// under the name that it keeps.
		if err := os.RemoveAll(s.dir); err != nil {
			return err
		}
		if err := os.Mkdir(s.dir, 0o755); err != nil {
			return err
		}
		if err := save(s.dir); err != nil {
			os.RemoveAll(s.dir)
			return err
		}
		b, err := json.Marshal(map[string]any{"image": i.key, "saved": time.Now().UTC().Format(time.RFC3339)})
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(s.dir, "state.json"), b, 0o644)
	})
	if err != nil {
		return nil, fmt.Errorf("state %q of %s: %w", name, i.Release, err)
	}
	return s, nil
}

// save ends the machine and keeps it: the disk is moved, the memory written.
func (m *Machine) save(ctx context.Context, dir string) error {
	if err := m.unmountFiles(ctx); err != nil {
		return err
	}
	if _, err := m.Run(ctx, "sync"); err != nil {
		return err
	}
	s := &State{dir: dir}
	if _, err := m.QMP(ctx, "stop", nil); err != nil {
		return err
	}
	if _, err := m.QMP(ctx, "migrate-set-parameters", map[string]any{"max-bandwidth": int64(1) << 40}); err != nil {
		return err
	}
	to := "exec:zstd -q -1 -f -o " + quote(s.memory())
	if _, err := m.QMP(ctx, "migrate", map[string]any{"uri": to}); err != nil {
		return err
	}
	err := m.poll(ctx, "query-migrate", func(status string) (bool, error) {
		if status == "failed" || status == "cancelled" {
			return false, fmt.Errorf("saving the machine: %s", status)
		}
		return status == "completed", nil
	})
	if err != nil {
		return err
	}
	if _, err := m.QMP(ctx, "quit", nil); err != nil {
		return err
	}
	if _, err := m.Wait(ctx); err != nil {
		return err
	}
	if info, err := os.Stat(s.memory()); err != nil || info.Size() == 0 {
		return fmt.Errorf("saving the machine: nothing was written (%w)", err)
	}
	return moveFile(m.overlay(), s.disk())
}

// poll asks QEMU for a status until it is what is waited for.
func (m *Machine) poll(ctx context.Context, command string, done func(status string) (bool, error)) error {
	for {
		b, err := m.QMP(ctx, command, nil)
		if err != nil {
			return err
		}
		var now struct{ Status string }
		if err := json.Unmarshal(b, &now); err != nil {
			return err
		}
		ok, err := done(now.Status)
		if ok || err != nil {
			return err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%s: still %q: %w", command, now.Status, context.Cause(ctx))
		}
	}
}

// quote makes a path one word for the shell that QEMU runs.
func quote(path string) string { return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'" }

// moveFile renames a file, or copies it to another file system.
func moveFile(from, to string) error {
	if os.Rename(from, to) == nil {
		return nil
	}
	if out, err := exec.Command("cp", "--sparse=always", from, to).CombinedOutput(); err != nil {
		return fmt.Errorf("keep %s: %w: %s", to, err, out)
	}
	return os.Remove(from)
}
