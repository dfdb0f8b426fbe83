// SPDX-License-Identifier: GPL-2.0-only

package rules

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"netsysrq/cmd/responder/internal/hint"
)

// Backends of iptables: two places in the kernel that rules can live in.
const (
	nft    = "nft"
	legacy = "legacy"
)

func otherBackend(b string) string {
	if b == nft {
		return legacy
	}
	return nft
}

// ErrNoIptables is wrapped when a command that is needed is not installed.
var ErrNoIptables = errors.New("iptables is not installed")

// ErrNoExtension is wrapped when iptables cannot name the kernel module's target.
var ErrNoExtension = errors.New("iptables does not know the target NETSYSRQ: its extension libxt_NETSYSRQ.so is not installed")

// commandTimeout bounds one command. -w 5 waits for another user of the tables.
const commandTimeout = 30 * time.Second

// backend returns the backend to use: what Set.Backend says or what the
// command iptables stands for.
func (s Set) backend(ctx context.Context) (string, error) {
	if s.Backend == nft || s.Backend == legacy {
		return s.Backend, nil
	}
	if plain := s.find("iptables"); plain != "" {
		return backendOf(ctx, plain)
	}
	for _, b := range []string{nft, legacy} {
		if s.find("iptables-"+b) != "" {
			return b, nil
		}
	}
	return "", hint.Add(ErrNoIptables, "apt install iptables")
}

// backendOf asks a command. Versions that do not say are older than the nft
// backend.
func backendOf(ctx context.Context, command string) (string, error) {
	out, err := run(ctx, command, "", "-V")
	if err != nil {
		return "", err
	}
	if strings.Contains(out, "(nf_tables)") {
		return nft, nil
	}
	return legacy, nil
}

// tool is iptables of one backend for one family.
type tool struct {
	family        Family
	backend       string
	save, restore string // paths
}

// tool finds the commands of a backend: by their own names, or by the plain
// names if those are of that backend.
func (s Set) tool(ctx context.Context, f Family, backend string) (*tool, error) {
	plain := "iptables"
	if f == IPv6 {
		plain = "ip6tables"
	}
	own := plain + "-" + backend
	t := &tool{f, backend, s.find(own + "-save"), s.find(own + "-restore")}
	if t.save != "" && t.restore != "" {
		return t, nil
	}
	if command := s.find(plain); command != "" {
		if b, err := backendOf(ctx, command); err == nil && b == backend {
			t.save, t.restore = s.find(plain+"-save"), s.find(plain+"-restore")
		}
	}
	if t.save == "" || t.restore == "" {
		return nil, hint.Add(fmt.Errorf("%w: no %s-save and %s-restore", ErrNoIptables, own, own), "apt install iptables")
	}
	return t, nil
}

func (s Set) find(name string) string {
	for _, dir := range append(filepath.SplitList(s.Path), "/usr/sbin", "/sbin") {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); filepath.IsAbs(dir) && err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}

// read returns the raw table.
func (t *tool) read(ctx context.Context) (*table, error) {
	out, err := run(ctx, t.save, "", "-t", "raw")
	if err != nil {
		out, err = cutAtTarget(out, err)
	}
	if err != nil {
		return nil, err
	}
	return parseSave(out), nil
}

// cutAtTarget completes what a command printed that gave up at our rule to the
// target, since it has no extension for it. All that leads to our chains comes
// before that rule.
func cutAtTarget(out string, err error) (string, error) {
	switch said := err.Error(); {
	case strings.Contains(said, "library for target `NETSYSRQ'"): // legacy
		return out + " -j NETSYSRQ\n", nil
	case strings.Contains(said, "target extension not found") && strings.HasSuffix(out, "-A "+chain+" -j "+allowChain+"\n"):
		return out + "-A " + chain + " -p udp -j NETSYSRQ\n", nil
	}
	return "", err
}

// change gives input to iptables-restore: all of it happens or nothing.
func (t *tool) change(ctx context.Context, input string) error {
	_, err := run(ctx, t.restore, input, "--noflush", "-w", "5")
	return explain(err)
}

// parse has iptables-restore read input, and the kernel not.
func (t *tool) parse(ctx context.Context, input string) error {
	_, err := run(ctx, t.restore, input, "--noflush", "--test", "-w", "5")
	return explain(err)
}

// explain says what is missing when iptables does not know our target.
func explain(err error) error {
	if err == nil || !strings.Contains(err.Error(), `unknown option "--authentic-mark"`) &&
		!strings.Contains(err.Error(), "load target `NETSYSRQ'") {
		return err
	}
	return hint.Add(ErrNoExtension, "install it (it comes with the module, in the package netsysrq-dkms), then: netsysrqd arm")
}

// loaded reports whether looking at the raw table leaves the host as it is.
// The legacy commands make the table that they look for.
func (t *tool) loaded() bool {
	if t.backend == nft {
		return true
	}
	name := "ip_tables_names"
	if t.family == IPv6 {
		name = "ip6_tables_names"
	}
	b, err := os.ReadFile(procNet + name)
	if errors.Is(err, fs.ErrPermission) {
		return true // the command will say so
	}
	return err == nil && bytes.Contains(append([]byte("\n"), b...), []byte("\nraw\n"))
}

// procNet shows the network namespace of the calling thread; /proc/net would
// be that of the process.
const procNet = "/proc/thread-self/net/"

// hasIPv6 reports whether this kernel speaks IPv6.
func hasIPv6() bool {
	_, err := os.Stat(procNet + "if_inet6")
	return !errors.Is(err, fs.ErrNotExist)
}

// run returns what a command printed, also when it failed.
func run(ctx context.Context, path, input string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin = strings.NewReader(input)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = 2 * time.Second
	err := cmd.Run()
	if err == nil {
		return stdout.String(), nil
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	said := complaint(stderr.String())
	if strings.Contains(said, "must be root") {
		return stdout.String(), hint.Add(fmt.Errorf("%s: %w", filepath.Base(path), fs.ErrPermission), "run it as root")
	}
	return stdout.String(), fmt.Errorf("%s: %w: %s", filepath.Base(path), err, said)
}

// complaint keeps of what a command said what is not advice on its usage.
func complaint(stderr string) string {
	var keep []string
	for line := range strings.Lines(stderr) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "Try `") {
			keep = append(keep, line)
		}
	}
	if keep == nil {
		return "no message"
	}
	return strings.Join(keep, "; ")
}
