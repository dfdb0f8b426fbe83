// SPDX-License-Identifier: GPL-2.0-only

//go:build install

package system_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"netsysrq/internal/system"
	"netsysrq/internal/vm"
)

// bridge answers the connection plugin of testdata/ansible: it is Ansible's way into
// a machine.
type bridge struct {
	m    *system.Machine
	path string // of the socket
}

// bridgeRequest is a file to be written, or a command to be run.
type bridgeRequest struct {
	Path    string
	Command string
	Data    []byte // the file's content, the command's input
}

type bridgeAnswer struct {
	Error string `json:"error,omitempty"`
	Code  int    `json:"code"`
	Out   []byte `json:"out"`
	Err   []byte `json:"err"`
}

// newBridge listens until the test ends.
func newBridge(t *testing.T, m *system.Machine) *bridge {
	t.Helper()
	b := &bridge{m: m, path: filepath.Join(t.TempDir(), "bridge")}
	l, err := net.Listen("unix", b.path)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	t.Cleanup(func() {
		l.Close()
		<-served
	})
	go func() {
		defer close(served)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			b.serve(t.Context(), conn)
		}
	}()
	return b
}

// serve answers one request.
func (b *bridge) serve(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, compile)
	defer cancel()
	var r bridgeRequest
	var a bridgeAnswer
	err := json.NewDecoder(conn).Decode(&r)
	switch {
	case err != nil:
	case r.Path != "":
		err = b.m.WriteFile(ctx, r.Path, 0o600, r.Data)
	default:
		a, err = b.run(ctx, r)
	}
	if err != nil {
		a.Error = err.Error()
	}
	json.NewEncoder(conn).Encode(a) // ansible-playbook may be gone
}

// run runs a command. The control channel does not tell its output from its errors,
// and is given large input in pieces.
func (b *bridge) run(ctx context.Context, r bridgeRequest) (a bridgeAnswer, err error) {
	const in, errors = "/run/bridge.in", "/run/bridge.err"
	if err := b.m.WriteFile(ctx, in, 0o600, r.Data); err != nil {
		return a, err
	}
	out, code, err := b.m.Exec(ctx, nil, "sh", "-c", `exec sh -c "$1" <`+in+" 2>"+errors, "sh", r.Command)
	if err != nil {
		return a, err
	}
	a = bridgeAnswer{Code: code, Out: []byte(out)}
	a.Err, err = b.m.ReadFile(ctx, errors)
	return a, err
}

// playbook is the example of deploy/ansible.
const playbook = "../../deploy/ansible/netsysrq.yml"

// ansible runs ansible-playbook as an operator and returns what it printed.
func (o *operator) ansible(t *testing.T, args ...string) string {
	t.Helper()
	command, err := vm.Find("ansible-playbook")
	vm.Check(t, err)
	plugins, err := filepath.Abs("testdata/ansible/connection")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(vm.Within(t, 2*compile), command, append(args, playbook)...)
	cmd.WaitDelay = time.Second
	cmd.Env = []string{
		"HOME=" + o.home, "USER=alice", "LC_ALL=C.UTF-8",
		"PATH=" + filepath.Dir(o.bin) + ":/usr/bin:/bin",
		"ANSIBLE_CONNECTION_PLUGINS=" + plugins, "ANSIBLE_PIPELINING=1", "ANSIBLE_NOCOLOR=1",
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("ansible-playbook %v: %v: %s", args, err, &out)
	}
	return out.String()
}

// changed is what the end of a run says of a host.
var changed = regexp.MustCompile(`(?m)^web1 .*\bchanged=(\d+) +unreachable=0 +failed=0 `)

// The role makes a host obey that has nothing of ours, and then finds nothing more
// to do. Debian 12 has an Ansible that knows no Python as new as Debian 13's.
func TestAnsible(t *testing.T) {
	t.Parallel()
	m := system.New(t, system.NewImage(t, system.Bookworm), system.Options{})
	o := newOperator(t, m)
	hosts := fmt.Sprintf("[hosts.web1]\naddress = \"127.0.0.1\"\nport = %d\n", o.relay.Port())
	if err := os.WriteFile(filepath.Join(o.home, ".config/netsysrq/hosts.toml"), []byte(hosts), 0o600); err != nil {
		t.Fatal(err)
	}
	var packages string
	for _, path := range debs(t, version) {
		packages = filepath.Dir(path)
	}
	inventory := filepath.Join(o.home, "inventory.json")
	b, err := json.Marshal(map[string]any{"all": map[string]any{"hosts": map[string]any{"web1": map[string]any{
		"ansible_connection": "bench", "ansible_host": newBridge(t, m).path, "ansible_user": "root",
		"ansible_python_interpreter": "/usr/bin/python3",
		"netsysrq_packages":          packages,
		"netsysrq_sysctl":            map[string]int{"kernel.panic": 10},
	}}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(inventory, b, 0o600); err != nil {
		t.Fatal(err)
	}

	o.ansible(t, "-i", inventory, "--syntax-check")
	done := phase(t, "first run")
	first := o.ansible(t, "-i", inventory, "-vvv")
	done()
	if n := changed.FindStringSubmatch(first); n == nil || n[1] == "0" {
		t.Errorf("the first run changed nothing: %s", first)
	}
	done = phase(t, "second run")
	second := o.ansible(t, "-i", inventory)
	done()
	if n := changed.FindStringSubmatch(second); n == nil || n[1] != "0" {
		t.Errorf("the second run is to change nothing: %s", second)
	}
	if got := m.Sh(t, time.Minute, "cat /proc/sys/kernel/panic"); got != "10\n" {
		t.Errorf("kernel.panic is %q", got)
	}
	o.must(t, "drill", "web1")

	line, err := o.try(t.Context(), time.Minute, "enroll", "web1", "--quiet")
	if err != nil || line.code != 0 {
		t.Fatalf("enroll: %v, %d", err, line.code)
	}
	secret := strings.Fields(line.out)[5]
	if journal := m.Sh(t, time.Minute, "journalctl --boot --no-pager"); strings.Contains(journal, secret) {
		t.Error("the host's log has the key")
	}
	if strings.Contains(first+second, secret) {
		t.Error("Ansible prints the key")
	}
}
