// SPDX-License-Identifier: GPL-2.0-only

//go:build install

package system_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"netsysrq/internal/system"
	"netsysrq/internal/vm"
)

// compile is the time that a compiler in an emulator is given for the module.
const compile = 8 * time.Minute

// commands returns the blocks of commands in a section of a document of ours.
func commands(t *testing.T, file, section string) (blocks []string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(string(b), "\n## "+section+"\n")
	if !found {
		t.Fatalf("%s has no section %q", file, section)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	block := ""
	for line := range strings.Lines(text + "\n") {
		if command, ok := strings.CutPrefix(line, "       "); ok {
			block += command
		} else if block != "" {
			blocks = append(blocks, block)
			block = ""
		}
	}
	return blocks
}

// verdict is what netsysrqd check says of a host.
type verdict struct {
	Verdict, Mode string
	Findings      []struct{ Name, State, Text, Hint string }
}

// checked returns it.
func checked(t *testing.T, m *system.Machine) (v verdict) {
	t.Helper()
	out, _, err := m.Exec(vm.Within(t, time.Minute), nil, "netsysrqd", "check", "--json")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("check: %s", out)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// refused fails unless the kernel refuses the module and netsysrqd check says so
// of a host that obeys by its daemon, with what to do.
func refused(t *testing.T, m *system.Machine, want string) {
	t.Helper()
	out, code, err := m.Exec(vm.Within(t, time.Minute), nil, "modprobe", "xt_NETSYSRQ")
	if err != nil || code == 0 || !strings.Contains(out, "Key was rejected by service") {
		t.Errorf("modprobe of a module that %s: %d, %v: %s", want, code, err, out)
	}
	v := checked(t, m)
	if v.Verdict != "obey" || v.Mode != "daemon" {
		t.Errorf("the verdict is %q, in mode %q", v.Verdict, v.Mode)
	}
	for _, f := range v.Findings {
		if f.Name == "kernel module" {
			if f.State != "warn" || !strings.Contains(f.Text, "Secure Boot") || !strings.Contains(f.Hint, "secure-boot.md") {
				t.Errorf("of a module that %s, check says %+v", want, f)
			}
			return
		}
	}
	t.Errorf("check says nothing of a module that %s", want)
}

// unsign takes the signature off the module that is installed, as if dkms had
// found no openssl.
const unsign = `
file=$(modinfo -n xt_NETSYSRQ)
case $file in
*.xz) xz -dc "$file" >/run/bare.ko; strip --strip-debug /run/bare.ko; xz --check=crc32 -c /run/bare.ko >"$file" ;;
*) strip --strip-debug "$file" ;;
esac
test -z "$(modinfo -F signer xt_NETSYSRQ)"
`

// An administrator of a host with Secure Boot does what deploy/secure-boot.md says.
// Until then the host obeys by its daemon alone; from then on, under lockdown, by
// its kernel too.
func TestSecureBoot(t *testing.T) {
	const section = "Once for each host"
	steps := commands(t, "../../deploy/secure-boot.md", section)
	if len(steps) != 5 {
		t.Fatalf("%q has %d blocks of commands: %q", section, len(steps), steps)
	}
	signer, build, enrol, reboot, look := steps[0], strings.ReplaceAll(steps[1], "VERSION", version), steps[2], steps[3], steps[4]

	onOne(t, system.Trixie, func(t *testing.T, i *system.Image) {
		s := installed(t, i)
		done := phase(t, "boot")
		m := system.NewFromDisk(t, s, system.Options{SecureBoot: true, Append: "module.sig_enforce=1"})
		done()
		state := m.Sh(t, time.Minute, "mokutil --sb-state; cat /sys/kernel/security/lockdown /sys/module/module/parameters/sig_enforce")
		if state != "SecureBoot enabled\nnone [integrity] confidentiality\nY\n" {
			t.Fatalf("the system says of Secure Boot, lockdown and sig_enforce: %q", state)
		}

		if out := m.Sh(t, time.Minute, signer); !strings.HasSuffix(out, "\nDKMS module signing key\n") {
			t.Errorf("the module was signed by: %s", out)
		}
		o := newOperator(t, m)
		o.enroll(t, m)
		refused(t, m, "was signed by a key that is not enrolled")
		// A build is a minute's work for a compiler in an emulator.
		if i.Release == system.Trixie {
			m.Sh(t, time.Minute, unsign)
			refused(t, m, "was not signed")
			done = phase(t, "DKMS build")
			m.Sh(t, compile, build+signer)
			done()
			refused(t, m, "was built anew, and signed by a key that is not enrolled")
		}
		o.must(t, "status", "web1")
		if a := o.run(t, time.Minute, "drill", "web1"); a.code != 7 || !strings.Contains(a.out, "half proved: the daemon answers") {
			t.Errorf("the drill without the module ended with %d", a.code)
		}

		// What the administrator types at the prompts, twice, and at the MOK manager.
		const password = "once"
		m.Sh(t, time.Minute, fmt.Sprintf("printf '%s\\n%[1]s\\n' | { %s }", password, enrol))
		if _, _, err := m.Exec(vm.Within(t, time.Minute), nil, "sh", "-ec", reboot); err != nil {
			t.Logf("reboot: %v", err) // the agent may be the first to go
		}
		if end, err := m.Wait(vm.Within(t, 2*time.Minute)); err != nil || end.Fate != vm.Reset {
			t.Fatalf("reboot: %+v, %v", end, err)
		}
		done = phase(t, "MOK manager")
		if err := m.EnrollMOK(t.Context(), password); err != nil {
			t.Fatal(err)
		}
		done()
		o.powerOn(t, m)
		if err := m.AwaitRunning(t.Context()); err != nil {
			t.Fatal(err)
		}

		// mokutil exits with 1 for a key that is enrolled.
		out, _, err := m.Exec(vm.Within(t, time.Minute), nil, "sh", "-c", look)
		if err != nil || !strings.Contains(out, "is already enrolled") || !strings.Contains(out, "this host would obey") {
			t.Errorf("with the key enrolled: %v: %s", err, out)
		}
		if v := checked(t, m); v.Verdict != "obey" || v.Mode != "kernel" {
			t.Errorf("with the key enrolled, the verdict is %q, in mode %q", v.Verdict, v.Mode)
		}
		if got := m.Sh(t, time.Minute, "cat /sys/kernel/security/lockdown"); got != "none [integrity] confidentiality\n" {
			t.Errorf("with the key enrolled, lockdown is %q", got)
		}
		o.must(t, "drill", "web1")

		// Nothing but the kernel is left to answer, and to reset the machine.
		if _, err := m.Freeze(vm.Within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
		o.must(t, "reboot", "web1", "--yes")
		if end, err := m.Wait(vm.Within(t, time.Minute)); err != nil || end.Fate != vm.Reset {
			t.Errorf("asked to reboot under lockdown, the machine ended with %+v, %v", end, err)
		}
	})
}
