// SPDX-License-Identifier: GPL-2.0-only

package hosts

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

const example = `
[defaults]
port = 9
key = "master.key"

[groups.db]
port = 99
hosts = ["db3", "DB10"]

[groups.eu]
key = "~/eu.key"

[hosts.db1]
address = "192.0.2.7"
groups = ["db", "eu"]

[hosts]
web2 = { addresses = ["192.0.2.8", "2001:db8::8"], port = 7 }
web10 = {}

[hosts."web1.example.org"]
groups = ["eu"]
key = "/keys/special"

[hosts.gate]
name = "Gate.example.org"
`

func read(t *testing.T, text string) *File {
	t.Helper()
	f, err := parse("/etc/x/hosts.toml", "/home/alice", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestInheritance(t *testing.T) {
	f := read(t, example)
	for _, want := range []Host{
		{Name: "db1", Enrolled: "db1", Addresses: []string{"192.0.2.7"}, Port: 99, Key: "/home/alice/eu.key"},
		{Name: "db3", Enrolled: "db3", Port: 99, Key: "/etc/x/master.key"},
		{Name: "db10", Enrolled: "db10", Port: 99, Key: "/etc/x/master.key"},
		{Name: "web2", Enrolled: "web2", Addresses: []string{"192.0.2.8", "2001:db8::8"}, Port: 7, Key: "/etc/x/master.key"},
		{Name: "web10", Enrolled: "web10", Port: 9, Key: "/etc/x/master.key"},
		{Name: "web1.example.org", Enrolled: "web1.example.org", Port: 9, Key: "/keys/special"},
		{Name: "gate", Enrolled: "gate.example.org", Port: 9, Key: "/etc/x/master.key"},
	} {
		h, err := f.Host(want.Name)
		if err != nil || !h.Listed || h.Name != want.Name || h.Enrolled != want.Enrolled || h.Port != want.Port || h.Key != want.Key ||
			!slices.Equal(h.Addresses, want.Addresses) {
			t.Errorf("%+v, %v\nwant %+v", h, err, want)
		}
	}
	if h, err := f.Host("Other."); err != nil || h.Listed || h.Name != "other" || h.Port != 0 || h.Key != "" {
		t.Errorf("a host that is not listed: %+v, %v", h, err)
	}
}

func TestSelect(t *testing.T) {
	f := read(t, example)
	for _, c := range []struct{ operands, want string }{
		{"db1", "db1"},
		{"WEB10 db1 web10", "web10 db1"},
		{"web*", "web1.example.org web2 web10"},
		{"web?", "web2"},
		{"@db", "db1 db3 db10"},
		{"@DB web2", "db1 db3 db10 web2"},
		{"@eu", "db1 web1.example.org"},
		{"@all", "db1 db3 db10 gate web1.example.org web2 web10"},
		{"@all !web* !db3", "db1 db10 gate"},
		{"@all !@db gate", "gate web1.example.org web2 web10"},
		{"new1 web[12]*", "new1 web1.example.org web2 web10"},
	} {
		hosts, err := f.Select(strings.Fields(c.operands))
		var names []string
		for _, h := range hosts {
			names = append(names, h.Name)
		}
		if got := strings.Join(names, " "); err != nil || got != c.want {
			t.Errorf("%s: %s, %v; want %s", c.operands, got, err, c.want)
		}
	}
	for operands, want := range map[string]error{
		"@none": ErrGroup, "x*": ErrNoMatch, "web[": ErrPattern, "db1 !db1": ErrNobody,
	} {
		if _, err := f.Select(strings.Fields(operands)); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", operands, err, want)
		}
	}
	if _, err := new(File).Select([]string{"web1"}); err != nil {
		t.Errorf("without a file: %v", err)
	}
}

func TestMistakes(t *testing.T) {
	for _, c := range []struct{ text, want, hint string }{
		{"[defaults]\nprot = 9", `hosts.toml:2: unknown setting "defaults.prot"`, "known settings: port, key"},
		{"[hosts.a]\n\nadress = \"x\"", `hosts.toml:3: unknown setting "hosts.a.adress"`, "address, addresses"},
		{"[hosts.web1.example.org]\nport = 9", `hosts.toml:1: unknown setting "hosts.web1.example.org"`, "needs quotes"},
		{"[host.a]", `unknown setting "host`, "[hosts.NAME]"},
		{"[hosts.a]\nport = \"9\"", `hosts.toml:2: hosts.a.port must be a number`, ""},
		{"[hosts.a]\nport = 70000", `hosts.toml:2: hosts.a.port: 70000: a UDP port`, ""},
		{"[hosts.a]\ngroups = \"db\"", `hosts.toml:2: hosts.a.groups must be a list`, ""},
		{"[hosts]\na = \"192.0.2.7\"", `hosts.toml:2: hosts.a is a table`, "[hosts.NAME]"},
		{"[hosts.a]\nport = 1\nport = 2", `hosts.toml:3: port is set a second time`, ""},
		{"[hosts.a]\n[hosts.A]", `the host is set a second time`, "upper and lower"},
		{"[hosts.a]\naddress = \"192.0.2.7:9\"", `hosts.toml:2: hosts.a.address: "192.0.2.7:9" is neither`, "port = 9"},
		{"[hosts.a]\naddress = \"b\"\naddresses = [\"c\"]", `exclude each other`, ""},
		{"[hosts.\"a b\"]", `hosts.toml:1: hosts.a b: "a b": host name must be`, ""},
		{"[groups.all]", `hosts.toml:1: groups.all: the name is taken`, ""},
		{"[groups.a]\nport = 1\n[groups.b]\nport = 2\n[hosts.c]\ngroups = [\"a\", \"b\"]", `hosts.toml:4: groups.b.port: c gets another port from group a`, "for the host itself"},
		{"[groups.a]\nkey = \"x\"\n[groups.b]\nkey = \"y\"\n[hosts.c]\ngroups = [\"a\", \"b\"]", `groups.b.key: c gets another key from group a`, "for the host itself"},
		{"x", `hosts.toml:1: `, ""},
	} {
		_, err := parse("hosts.toml", "", []byte(c.text))
		e, ok := errors.AsType[*Error](err)
		if !ok || !strings.Contains(e.Error(), c.want) || !strings.Contains(e.Hint, c.hint) {
			t.Errorf("%q\n%v\nwant %s (%s)", c.text, err, c.want, c.hint)
		}
	}
}

func TestNatural(t *testing.T) {
	sorted := []string{"a", "a1", "a01", "a2", "a2b", "a10", "a10b2", "a10b11", "b"}
	for i := range sorted {
		for j := range sorted {
			if got := natural(sorted[i], sorted[j]); (got < 0) != (i < j) || (got > 0) != (i > j) {
				t.Errorf("%s and %s: %d", sorted[i], sorted[j], got)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(example)
	f.Add("[hosts.a]\nport = 70000")
	f.Fuzz(func(t *testing.T, text string) {
		file, err := parse("hosts.toml", "/", []byte(text))
		if err != nil {
			return
		}
		if hosts, err := file.Select([]string{"@all"}); err == nil && len(hosts) != file.Len() {
			t.Errorf("%d of %d hosts", len(hosts), file.Len())
		}
	})
}
