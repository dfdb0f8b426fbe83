// SPDX-License-Identifier: GPL-2.0-only

//go:build install

package cluster_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"netsysrq/internal/netlab"
	"netsysrq/internal/system"
	"netsysrq/internal/vm"
)

//go:embed scripts
var scripts embed.FS

// prepare installs what this package needs on the host, once.
var prepare = sync.OnceValue(func() error {
	return vm.Locked("deps", func(string) error {
		_, err := vm.Script(context.Background(), "cluster", scripts, "deps.sh")
		return err
	})
})

// release is that of this host, whose Pacemaker is one node: the other one is to
// have the same.
func release(t testing.TB) system.Release {
	t.Helper()
	b, err := os.ReadFile("/etc/os-release")
	if err != nil {
		t.Skip(err)
	}
	for _, r := range system.Releases {
		if bytes.Contains(b, []byte("VERSION_CODENAME="+string(r)+"\n")) {
			return r
		}
	}
	t.Skipf("this host is neither of %v", system.Releases)
	return ""
}

const corosyncConf = `totem {
	version: 2
	cluster_name: test
	transport: knet
	crypto_cipher: none
	crypto_hash: none
	# An emulated node on a busy host is slow to answer, and not lost.
	token: 10000
}
nodelist {
	node {
		name: node1
		nodeid: 1
		ring0_addr: 192.0.2.1
	}
	node {
		name: node2
		nodeid: 2
		ring0_addr: 192.0.2.2
	}
}
quorum {
	provider: corosync_votequorum
	two_node: 1
}
logging {
	to_stderr: yes
	to_syslog: yes
}
`

const hostsTOML = `[hosts.node1]
address = "192.0.2.1"

[hosts.node2]
address = "192.0.2.2"
`

// debs builds the packages of this tree: that of the command, and those for hosts.
func debs(t testing.TB) (command string, host []string) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.CommandContext(vm.Within(t, 10*time.Minute), "../../deploy/build-deb", dir)
	// The same bytes, and so the same state, for each commit that leaves the
	// hosts' part as it is.
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1000000000")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build-deb: %v: %s", err, out)
	}
	found, err := filepath.Glob(filepath.Join(dir, "netsysrq*.deb"))
	if err != nil || len(found) != 3 {
		t.Fatalf("packages: %v, %v", found, err)
	}
	for _, deb := range found {
		if strings.HasPrefix(filepath.Base(deb), "netsysrq_") {
			command = deb
		} else {
			host = append(host, deb)
		}
	}
	return command, host
}

// foreign returns Debian's packages that an image lacks for a node of a cluster.
func foreign(t testing.TB, booted *system.State) []string {
	t.Helper()
	m := system.From(t, booted, system.Options{})
	defer m.Close()
	ctx := vm.Within(t, 10*time.Minute)
	status, err := m.ReadFile(ctx, "/var/lib/dpkg/status")
	if err != nil {
		t.Fatal(err)
	}
	var dir string
	err = vm.Locked("cluster-debs", func(cache string) error {
		dir = filepath.Join(cache, "cluster", fmt.Sprintf("%x", sha256.Sum256(status))[:20])
		if _, err := os.Stat(dir); err == nil {
			return nil
		}
		file := filepath.Join(t.TempDir(), "status")
		if err := os.WriteFile(file, status, 0o644); err != nil {
			return err
		}
		// What was downloaded for other images is of no use any more.
		if err := os.RemoveAll(filepath.Dir(dir)); err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
			return err
		}
		_, err := vm.Script(ctx, "cluster", scripts, "debs.sh", file, dir)
		return err
	})
	vm.Check(t, err)
	found, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(found) == 0 {
		t.Fatalf("no packages in %s: %v", dir, err)
	}
	return found
}

// newState is a machine with our packages and the cluster's, which does not run.
func newState(t testing.TB, host []string) *system.State {
	t.Helper()
	booted := system.NewBooted(t, system.NewImage(t, release(t)))
	opt := system.Options{Files: map[string]string{}, Life: 25 * time.Minute}
	for _, deb := range append(host, foreign(t, booted)...) {
		opt.Files[filepath.Base(deb)] = deb
	}
	return system.NewState(t, booted, "cluster", corosyncConf, opt, func(ctx context.Context, m *system.Machine) error {
		// The module is built by a compiler in an emulator.
		ctx, cancel := context.WithTimeout(ctx, 20*time.Minute)
		defer cancel()
		out, err := m.Run(ctx, "sh", "-ec", "export DEBIAN_FRONTEND=noninteractive; apt-get install -y --no-install-recommends "+system.FilesDir+"/*.deb; "+
			"systemctl stop pacemaker corosync; rm -rf /var/lib/pacemaker/cib/* /var/lib/corosync/*; systemctl enable corosync pacemaker")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return m.WriteFile(ctx, "/etc/corosync/corosync.conf", 0o644, []byte(corosyncConf))
	})
}

// cluster is two nodes: node1, in namespaces of this host, and node2, a machine.
type cluster struct {
	node1  *exec.Cmd
	pid    int // of the first process of its namespaces
	node2  *system.Machine
	bridge *bridge
}

// newCluster starts a cluster with a fence device on node1, whose calls may take so
// many seconds, and a resource on node2.
func newCluster(t *testing.T, timeout int) *cluster {
	vm.Check(t, system.Prepare())
	vm.Check(t, prepare())
	command, host := debs(t)
	state := newState(t, host)
	lab := netlab.New(t)
	c := &cluster{bridge: newBridge(t, lab, lab.Client)}
	c.node2 = system.From(t, state, system.Options{Life: 25 * time.Minute})
	c.bridge.connect(c.node2.Net)

	folder := t.TempDir()
	// The command and the agent, as their package has them.
	if out, err := exec.Command("dpkg-deb", "-x", command, folder).CombinedOutput(); err != nil {
		t.Fatalf("dpkg-deb: %v: %s", err, out)
	}
	etc := filepath.Join(folder, "etc")
	for name, text := range map[string]string{"corosync/corosync.conf": corosyncConf, "netsysrq/hosts.toml": hostsTOML} {
		path := filepath.Join(etc, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c.enrol(t, filepath.Join(folder, "usr/bin/netsysrq"), filepath.Join(etc, "netsysrq/fence.key"))
	c.start(t, lab, folder)
	c.node2.Sh(t, 3*time.Minute, "systemctl start corosync pacemaker")
	c.await(t, 4*time.Minute, "both nodes are online", func() bool {
		return c.online(t, "node1") && c.online(t, "node2")
	})

	for _, option := range []struct{ kind, name, value string }{
		{"rsc_defaults", "resource-stickiness", "1000"},
		{"crm_config", "stonith-max-attempts", "1000"}, // each try counts, on however slow a host
	} {
		c.must(t, "crm_attribute", "--type", option.kind, "--name", option.name, "--update", option.value)
	}
	for _, object := range []struct{ scope, text string }{
		{"resources", `<primitive id="netsysrq" class="stonith" type="fence_netsysrq">` +
			fmt.Sprintf(`<instance_attributes id="netsysrq-params"><nvpair id="netsysrq-timeout" name="pcmk_reboot_timeout" value="%d"/></instance_attributes>`, timeout) +
			`<operations><op id="netsysrq-monitor" name="monitor" interval="60s"/></operations></primitive>`},
		{"constraints", `<rsc_location id="elsewhere" rsc="netsysrq" node="node2" score="-INFINITY"/>`},
		{"resources", `<primitive id="dummy" class="ocf" provider="pacemaker" type="Dummy">` +
			`<operations><op id="dummy-monitor" name="monitor" interval="10s" timeout="60s"/></operations></primitive>`},
		{"constraints", `<rsc_location id="first" rsc="dummy" node="node2" score="100"/>`},
	} {
		c.must(t, "cibadmin", "--create", "--scope", object.scope, "--xml-text", object.text)
	}
	c.await(t, 2*time.Minute, "device and resource run", func() bool {
		return c.runsOn(t, "netsysrq", "node1") && c.runsOn(t, "dummy", "node2")
	})
	return c
}

// enrol gives the cluster a key, and node2 its part of it.
func (c *cluster) enrol(t testing.TB, netsysrq, key string) {
	t.Helper()
	if out, err := exec.Command(netsysrq, "keygen", "--operator", "cluster", "--key", key).CombinedOutput(); err != nil {
		t.Fatalf("keygen: %v: %s", err, out)
	}
	line, err := exec.Command(netsysrq, "enroll", "node2", "--quiet", "--key", key).Output()
	if err != nil {
		t.Fatalf("enroll: %v", err)
	}
	out, code, err := c.node2.Exec(vm.Within(t, 2*time.Minute), line, "netsysrqd", "keys", "add", "cluster")
	if err != nil || code != 0 {
		t.Fatalf("keys add: %d, %v: %s", code, err, out)
	}
}

// start starts node1.
func (c *cluster) start(t testing.TB, lab *netlab.Lab, folder string) {
	t.Helper()
	script, err := filepath.Abs("scripts/node.sh")
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(folder, "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	c.node1 = lab.Command(context.Background(), lab.Client, "unshare", "-m", "-u", "-i", "-p", "--fork", "--kill-child", "--mount-proc", script, folder)
	c.node1.Stdout, c.node1.Stderr = log, log
	if err := c.node1.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.node1.Process.Kill() // its child is killed with it, and all below
		c.node1.Wait()
		if t.Failed() {
			t.Logf("node1:\n%s", tail(filepath.Join(folder, "log"), 40))
			t.Logf("pacemaker of node1:\n%s", tail(filepath.Join(folder, "state/log/pacemaker/pacemaker.log"), 100))
		}
	})
	c.await(t, 20*time.Second, "node1 is started", func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", c.node1.Process.Pid))
		if err != nil {
			return false
		}
		_, err = fmt.Sscan(string(b), &c.pid)
		return err == nil
	})
}

// tail returns the end of a log, without most of what is of no weight.
func tail(path string, lines int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := slices.DeleteFunc(strings.Split(strings.TrimSpace(string(b)), "\n"), func(line string) bool {
		return strings.Contains(line, "info: ") && !strings.Contains(line, "netsysrq")
	})
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// await waits until something is so.
func (c *cluster) await(t testing.TB, limit time.Duration, what string, is func() bool) {
	t.Helper()
	begun := time.Now()
	for !is() {
		if time.Since(begun) > limit {
			t.Fatalf("after %v it is not so that %s", limit, what)
		}
		time.Sleep(500 * time.Millisecond)
	}
	t.Logf("%s: %.1f s", what, time.Since(begun).Seconds())
}

// run runs a command on node1.
func (c *cluster) run(t testing.TB, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"-t", fmt.Sprint(c.pid), "-m", "-u", "-i", "-n", "-p", "--"}, args...)...)
	cmd.WaitDelay = time.Second
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%v: %w: %s", args, err, &stderr)
	}
	return out.String(), nil
}

func (c *cluster) must(t testing.TB, args ...string) string {
	t.Helper()
	out, err := c.run(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// status is what node1 knows of the cluster.
type status struct {
	Nodes []struct {
		Name    string `xml:"name,attr"`
		Online  bool   `xml:"online,attr"`
		Unclean bool   `xml:"unclean,attr"`
		Pending bool   `xml:"pending,attr"`
	} `xml:"nodes>node"`
	Resources []struct {
		ID    string `xml:"id,attr"`
		Role  string `xml:"role,attr"`
		Nodes []struct {
			Name string `xml:"name,attr"`
		} `xml:"node"`
	} `xml:"resources>resource"`
}

// look asks node1. Nothing is known before it is up.
func (c *cluster) look(t testing.TB) (s status) {
	t.Helper()
	out, err := c.run(t, "crm_mon", "-1", "--output-as", "xml")
	if err != nil {
		return s
	}
	if err := xml.Unmarshal([]byte(out), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// online reports whether node1 takes a node for one that is there, and well.
func (c *cluster) online(t testing.TB, name string) bool {
	for _, n := range c.look(t).Nodes {
		if n.Name == name {
			return n.Online && !n.Unclean && !n.Pending
		}
	}
	return false
}

// runsOn reports whether a resource has been started on a node, and on no other.
func (c *cluster) runsOn(t testing.TB, resource, node string) bool {
	for _, r := range c.look(t).Resources {
		if r.ID == resource {
			return r.Role == "Started" && len(r.Nodes) == 1 && r.Nodes[0].Name == node
		}
	}
	return false
}

// fencings counts how often Pacemaker has tried to reboot node2, by how that
// ended.
func (c *cluster) fencings(t testing.TB) map[string]int {
	t.Helper()
	out := c.must(t, "stonith_admin", "--history", "node2", "--verbose", "--output-as", "xml")
	count := map[string]int{}
	for _, m := range regexp.MustCompile(`<fence_event [^>]*action="reboot"[^>]* status="(\w+)"`).FindAllStringSubmatch(out, -1) {
		count[m[1]]++
	}
	return count
}

// freeze stops every process of node2, and waits until node1 has lost it.
func (c *cluster) freeze(t testing.TB) {
	t.Helper()
	n, err := c.node2.Freeze(vm.Within(t, time.Minute))
	if err != nil || n < 10 {
		t.Fatalf("freeze: %d processes, %v", n, err)
	}
	c.await(t, 2*time.Minute, "node2 is lost", func() bool { return !c.online(t, "node2") })
}

// awaitReset waits until node2 has reset itself.
func (c *cluster) awaitReset(t testing.TB, mark int) {
	t.Helper()
	end, err := c.node2.Wait(vm.Within(t, 2*time.Minute))
	if err != nil || end.Fate != vm.Reset {
		t.Fatalf("node2 ended with %+v, %v", end, err)
	}
	if _, err := c.node2.Console.Await(vm.Within(t, time.Minute), mark, "sysrq: Resetting"); err != nil {
		t.Error(err)
	}
}

// powerOn boots node2 again.
func (c *cluster) powerOn(t testing.TB) {
	t.Helper()
	if err := c.node2.PowerOn(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.bridge.connect(c.node2.Net)
}

func (c *cluster) boot(t testing.TB) string {
	t.Helper()
	b, err := c.node2.ReadFile(vm.Within(t, time.Minute), "/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A node whose processes are frozen is fenced when its kernel has really been
// reset and has booted again, and not before; then its resource moves, and the
// node rejoins.
func TestPacemakerFences(t *testing.T) {
	c := newCluster(t, 300)
	before := c.boot(t)
	mark := c.node2.Console.Mark()
	c.freeze(t)
	c.awaitReset(t, mark)

	// It has accepted and is down. That is no proof yet.
	time.Sleep(10 * time.Second)
	if f := c.fencings(t); f["success"] > 0 || f["failed"] > 0 || !c.runsOn(t, "dummy", "node2") {
		t.Fatalf("before node2 has booted: fencings %v, resource moved: %v", f, c.runsOn(t, "dummy", "node1"))
	}
	c.powerOn(t)
	c.await(t, 4*time.Minute, "the fencing is proved", func() bool { return c.fencings(t)["success"] == 1 })
	if after := c.boot(t); after == before {
		t.Errorf("node2 has boot id %s as before", after)
	}
	c.await(t, time.Minute, "the resource has moved", func() bool { return c.runsOn(t, "dummy", "node1") })
	c.await(t, 4*time.Minute, "node2 has rejoined", func() bool { return c.online(t, "node2") })
	if f := c.fencings(t); f["success"] != 1 || f["failed"] > 0 || !c.runsOn(t, "dummy", "node1") {
		t.Errorf("in the end: fencings %v", f)
	}
}

// A node that does not answer is not called fenced, and its resource stays, for as
// long as that is so.
func TestPacemakerKeepsWhatIsSilent(t *testing.T) {
	c := newCluster(t, 300)
	c.bridge.cut.Store(true)
	c.freeze(t)
	c.await(t, 2*time.Minute, "fencing has failed twice", func() bool { return c.fencings(t)["failed"] >= 2 })
	if f := c.fencings(t); f["success"] > 0 || !c.runsOn(t, "dummy", "node2") {
		t.Errorf("fencings %v, resource moved: %v", f, c.runsOn(t, "dummy", "node1"))
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if end, err := c.node2.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("node2 has ended: %+v, %v", end, err)
	}
}

// A node that boots for longer than Pacemaker lets the agent wait is fenced all the
// same, and reset once.
func TestPacemakerEndsTheAgent(t *testing.T) {
	c := newCluster(t, 20)
	mark := c.node2.Console.Mark()
	c.freeze(t)
	c.awaitReset(t, mark)
	c.await(t, 3*time.Minute, "the agent was ended twice", func() bool { return c.fencings(t)["failed"] >= 2 })
	if f := c.fencings(t); f["success"] > 0 || !c.runsOn(t, "dummy", "node2") {
		t.Fatalf("before node2 has booted: fencings %v", f)
	}
	c.powerOn(t)
	c.await(t, 4*time.Minute, "the fencing is proved", func() bool { return c.fencings(t)["success"] == 1 })
	c.await(t, time.Minute, "the resource has moved", func() bool { return c.runsOn(t, "dummy", "node1") })
	// A second reset would have ended the machine before it could do this.
	c.await(t, 4*time.Minute, "node2 has rejoined", func() bool { return c.online(t, "node2") })
}

// The cluster's own schema says that the metadata is well formed.
func TestMetadata(t *testing.T) {
	vm.Check(t, prepare())
	dir := t.TempDir()
	agent := filepath.Join(dir, "fence_netsysrq")
	if out, err := exec.Command("go", "build", "-o", agent, "netsysrq/cmd/sender").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	metadata, err := exec.Command(agent, "-o", "metadata").Output()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("xmllint", "--noout", "--relaxng", "/usr/share/cluster/relaxng/metadata.rng", "-")
	cmd.Stdin = bytes.NewReader(metadata)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
