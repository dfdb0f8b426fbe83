// SPDX-License-Identifier: GPL-2.0-only

//go:build install

package system_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"netsysrq/internal/system"
	"netsysrq/internal/vm"
)

// work has what the tests of this process share.
var work string

func TestMain(m *testing.M) {
	var err error
	if work, err = os.MkdirTemp("", "netsysrq-install-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(work)
	os.Exit(code)
}

// The versions of our packages that tests install: that of the tree, and one to
// upgrade to.
const (
	version = "0.1.0"
	newer   = "0.1.1"
)

var packages = struct {
	sync.Mutex
	built map[string]map[string]string
}{built: map[string]map[string]string{}}

// packageEnv is for build-deb. The same sources give the same packages, and so the
// same states, whenever they were committed: they are dated by the changelog. A
// newer version is a little newer, as lintian wants it.
func packageEnv(t testing.TB, version string) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "dpkg-parsechangelog", "-l", "../../deploy/debian/changelog", "-S", "Timestamp").Output()
	if err != nil {
		t.Fatalf("dpkg-parsechangelog: %v", err)
	}
	date, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	if version == newer {
		date += 60
	}
	return append(os.Environ(), "VERSION="+version, fmt.Sprintf("SOURCE_DATE_EPOCH=%d", date))
}

// debs builds the packages of this tree and returns their files by what a machine
// has them as.
func debs(t testing.TB, version string) map[string]string {
	t.Helper()
	packages.Lock()
	defer packages.Unlock()
	if files := packages.built[version]; files != nil {
		return files
	}
	dir := filepath.Join(work, "debs-"+version)
	cmd := exec.CommandContext(t.Context(), "../../deploy/build-deb", dir)
	cmd.Env = packageEnv(t, version)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build-deb: %v: %s", err, out)
	}
	files := map[string]string{}
	for _, name := range []string{"netsysrq", "netsysrq-responder", "netsysrq-dkms"} {
		path := filepath.Join(dir, name+"_"+version+"_amd64.deb")
		if _, err := os.Stat(path); err != nil {
			t.Fatal(err)
		}
		files[name+"_"+version+".deb"] = path
	}
	packages.built[version] = files
	return files
}

// withDebs are options of a machine that has the packages of some versions.
func withDebs(t testing.TB, versions ...string) system.Options {
	t.Helper()
	files := map[string]string{}
	for _, v := range versions {
		for name, path := range debs(t, v) {
			files[name] = path
		}
	}
	return system.Options{Files: files}
}

// install is the command of an administrator.
func install(version string) string {
	return fmt.Sprintf("apt-get install -y %s/*_%s.deb", system.FilesDir, version)
}

// installed is a Debian with all our packages, as apt left it: nobody has a key.
func installed(t testing.TB, i *system.Image) *system.State {
	t.Helper()
	s, err := getInstalled(t.Context(), i, withDebs(t, version))
	vm.Check(t, err)
	return s
}

func getInstalled(ctx context.Context, i *system.Image, opt system.Options) (*system.State, error) {
	booted, err := system.Booted(ctx, i)
	if err != nil {
		return nil, err
	}
	return system.Derive(ctx, booted, "installed", "with its module", opt, func(ctx context.Context, m *system.Machine) error {
		// The module is built by a compiler in an emulator.
		ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
		defer cancel()
		out, err := m.Run(ctx, "sh", "-ec", install(version))
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		if module, err := m.Run(ctx, "modinfo", "-n", "xt_NETSYSRQ"); err != nil {
			return fmt.Errorf("%w: %s: %s", err, module, out)
		}
		return m.WriteFile(ctx, "/root/apt.log", 0o644, []byte(out))
	})
}

// prepared is what came of that for each release, in this process.
var prepared = map[system.Release]error{}

// prepare makes what nearly every test begins with, of several releases side by side,
// and once: two tests that begin with the same would wait for it together, and what
// cannot be made is not tried by each of them. It is not for parallel tests.
func prepare(t *testing.T, releases []system.Release) {
	t.Helper()
	opt := withDebs(t, version)
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, r := range releases {
		if _, done := prepared[r]; done {
			continue
		}
		all.Go(func() {
			i, err := system.GetImage(t.Context(), r)
			if err == nil {
				_, err = getInstalled(t.Context(), i, opt)
			}
			mu.Lock()
			defer mu.Unlock()
			prepared[r] = err
		})
	}
	all.Wait()
}

// operator is someone with the command of the package netsysrq and a key, on this
// side of the wire.
type operator struct {
	home  string
	bin   string
	relay *vm.Relay
}

// newOperator makes one whose packets go to a machine.
func newOperator(t testing.TB, m *system.Machine) *operator {
	t.Helper()
	o := &operator{home: t.TempDir()}
	o.bin = filepath.Join(o.home, "root", "usr", "bin", "netsysrq")
	deb := debs(t, version)["netsysrq_"+version+".deb"]
	if out, err := exec.Command("dpkg-deb", "-x", deb, filepath.Join(o.home, "root")).CombinedOutput(); err != nil {
		t.Fatalf("dpkg-deb: %v: %s", err, out)
	}
	var err error
	if o.relay, err = m.Net.Relay(vm.GuestUDP4(9)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.relay.Close() })
	o.must(t, "keygen")
	return o
}

// answer is how the command ended.
type answer struct {
	out  string // what it printed, errors too
	code int
}

// run runs netsysrq within a time.
func (o *operator) run(t testing.TB, limit time.Duration, args ...string) answer {
	t.Helper()
	a, err := o.try(t.Context(), limit, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("netsysrq %s: %d: %s", strings.Join(args, " "), a.code, strings.TrimSpace(a.out))
	return a
}

// try is run, for goroutines that are not a test's own.
func (o *operator) try(ctx context.Context, limit time.Duration, args ...string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	switch args[0] {
	case "keygen", "enroll":
	default:
		args = append(args[:len(args):len(args)], "--address", "127.0.0.1", "--port", strconv.Itoa(int(o.relay.Port())))
	}
	cmd := exec.CommandContext(ctx, o.bin, args...)
	cmd.WaitDelay = time.Second
	cmd.Env = []string{"HOME=" + o.home, "USER=alice", "PATH=/usr/bin:/bin"}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.Exited() {
		return answer{out.String(), exit.ExitCode()}, nil
	}
	if err != nil {
		return answer{}, fmt.Errorf("netsysrq %v: %w: %s", args, err, &out)
	}
	return answer{out.String(), 0}, nil
}

// must is run, which is to succeed.
func (o *operator) must(t testing.TB, args ...string) string {
	t.Helper()
	a := o.run(t, time.Minute, args...)
	if a.code != 0 {
		t.Fatalf("netsysrq %v ended with %d", args, a.code)
	}
	return a.out
}

// enroll is netsysrq enroll web1 | ssh root@web1 netsysrqd keys add alice; it
// returns what the host said.
func (o *operator) enroll(t testing.TB, m *system.Machine, flags ...string) string {
	t.Helper()
	a, err := o.try(t.Context(), time.Minute, append([]string{"enroll", "web1", "--quiet"}, flags...)...)
	if err != nil || a.code != 0 {
		t.Fatalf("enroll: %v, %d", err, a.code)
	}
	out, code, err := m.Exec(vm.Within(t, 2*time.Minute), []byte(a.out), "netsysrqd", "keys", "add", "alice")
	if err != nil || code != 0 {
		t.Fatalf("keys add: %d, %v: %s", code, err, out)
	}
	t.Logf("keys add: %s", out)
	return out
}

// powerOn boots a machine and leads the operator's packets to it.
func (o *operator) powerOn(t testing.TB, m *system.Machine) {
	t.Helper()
	if err := m.PowerOn(t.Context()); err != nil {
		t.Fatal(err)
	}
	o.relay.Redirect(m.Net)
}

// actors prints what of ours acts on a host: processes, the module, rules.
const actors = `
pgrep -a netsysrqd || true
lsmod | grep NETSYSRQ || true
for save in iptables-nft-save iptables-legacy-save ip6tables-nft-save ip6tables-legacy-save; do
	$save 2>/dev/null | grep -i netsysrq || true
done
ss -Hlun 'sport = :9'
`

// An administrator has three packages and comes to a green drill with four
// commands, in none of which anything is left out.
func TestInstallToDrill(t *testing.T) {
	on(t, func(t *testing.T, i *system.Image) {
		m := system.From(t, installed(t, i), system.Options{}) // apt install ./*.deb
		o := newOperator(t, m)                                 // netsysrq keygen
		log, err := m.ReadFile(t.Context(), "/root/apt.log")
		if err != nil || !strings.Contains(string(log), "netsysrqd keys add") {
			t.Errorf("the packages do not say what to do next: %s %v", log, err)
		}
		if acts := m.Sh(t, time.Minute, actors); acts != "" {
			t.Errorf("before anybody has a key there is already: %s", acts)
		}
		out, code, err := m.Exec(vm.Within(t, time.Minute), nil, "netsysrqd", "check")
		if err != nil || code != 1 || !strings.Contains(out, "no operator has a key") || !strings.Contains(out, "netsysrqd keys add") {
			t.Errorf("check does not say what to do next: %d, %v: %s", code, err, out)
		}
		o.enroll(t, m)
		o.must(t, "drill", "web1")
	})
}

// slowly has it take longer to arm a host than an emulator on a busy machine has
// ever taken.
const slowly = `[Service]
ExecStartPre=/bin/sleep 70
`

// A host that is very slow to boot is armed all the same.
func TestArmsSlowly(t *testing.T) {
	onOne(t, system.Bookworm, func(t *testing.T, i *system.Image) {
		m := system.From(t, installed(t, i), system.Options{})
		o := newOperator(t, m)
		o.enroll(t, m)
		m.Sh(t, time.Minute, "systemctl stop netsysrq-arm; mkdir /etc/systemd/system/netsysrq-arm.service.d")
		if err := m.WriteFile(vm.Within(t, time.Minute), "/etc/systemd/system/netsysrq-arm.service.d/slowly.conf", 0o644, []byte(slowly)); err != nil {
			t.Fatal(err)
		}
		m.Sh(t, 5*time.Minute, "systemctl daemon-reload; systemctl start netsysrq-arm; systemctl is-active netsysrq-arm")
		if s := o.awaitStatus(t, "daemon", time.Minute); !s.Armed {
			t.Errorf("status: %+v", s)
		}
	})
}
