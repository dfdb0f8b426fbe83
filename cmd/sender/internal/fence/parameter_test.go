// SPDX-License-Identifier: GPL-2.0-only

package fence

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestInput(t *testing.T) {
	var warned []string
	warn := func(format string, args ...any) { warned = append(warned, fmt.Sprintf(format, args...)) }
	o, err := parseInput(strings.NewReader(strings.Join([]string{
		"# a comment",
		"",
		"   action = off  ",
		"port=node2",
		`ipaddr="192.0.2.2"`,
		"ipport=99",
		"inet4-only=yes",
		"key_file=/keys/a=b",
		"power_timeout=90s",
		"login_timeout=2.5",
		"silence_as_off=60",
		"verbose=1",
		"delay=",
		"nodename=other",
		"passwd=hunter2",
		"junk \x1b]0;owned\a",
		"\x1b[2J=1",
	}, "\n")), warn)
	if err != nil {
		t.Fatal(err)
	}
	want := newOptions()
	want.action, want.plug, want.node, want.ip, want.port = "off", "node2", "other", "192.0.2.2", 99
	want.ipv4, want.verbose, want.key = true, true, "/keys/a=b"
	want.powerTimeout, want.loginTimeout, want.silenceAsOff = 90*time.Second, 2500*time.Millisecond, time.Minute
	if *o != *want {
		t.Errorf("%+v, want %+v", o, want)
	}
	wantWarned := []string{
		"option delay is ignored: it has no value",
		`option "passwd" is ignored: it is not known`,
		"line 16 of the options is ignored: it has no =",
		`option "\x1b[2J" is ignored: it is not known`,
	}
	if !slices.Equal(warned, wantWarned) {
		t.Errorf("warned: %q", warned)
	}
}

func TestInputDefaults(t *testing.T) {
	o, err := parseInput(strings.NewReader(""), t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	if o.action != "reboot" || o.steps != "n,s:2s,u:2s,b" || o.loginTimeout != 10*time.Second || o.powerTimeout != 10*time.Minute ||
		o.silenceAsOff != 0 || o.delay != 0 || o.hosts != "" || o.check() != nil {
		t.Errorf("%+v", o)
	}
}

func TestInputTooLong(t *testing.T) {
	if _, err := parseInput(strings.NewReader(strings.Repeat("x", maxInput)), t.Logf); err == nil {
		t.Error("a line without an end was read")
	}
}

func TestFlags(t *testing.T) {
	o, err := parseFlags(strings.Fields("-o status --plug node2 -a 192.0.2.2 -u 99 -k /key --hosts-file=/hosts --power-timeout 20 -4 -v"))
	if err != nil {
		t.Fatal(err)
	}
	want := newOptions()
	want.action, want.plug, want.ip, want.port, want.key, want.hosts = "status", "node2", "192.0.2.2", 99, "/key", "/hosts"
	want.powerTimeout, want.ipv4, want.verbose = 20*time.Second, true, true
	if *o != *want {
		t.Errorf("%+v, want %+v", o, want)
	}
	for _, bad := range []string{"--passwd x", "node2", "-u 70000", "--port node2"} {
		if _, err := parseFlags(strings.Fields(bad)); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

// The metadata has what there is. Whether it has the form that cluster managers
// want is for their own schema to say: package cluster.
func TestMetadata(t *testing.T) {
	var out bytes.Buffer
	if code := Run(t.Context(), []string{"--action", "metadata"}, World{Stdout: &out, Stderr: &out}); code != exitOK {
		t.Fatalf("%d: %s", code, &out)
	}
	var doc resourceAgent
	if err := xml.Unmarshal(out.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Name != Name || !strings.Contains(doc.Long, "weaker proof") || strings.Contains(out.String(), "&#x") {
		t.Errorf("%s", &out)
	}
	var got, want []string
	for _, p := range doc.Parameters {
		got = append(got, p.Name)
		if p.Getopt.Mixed == "" || p.Short.Text == "" || p.Required != 0 {
			t.Errorf("%+v", p)
		}
	}
	for _, p := range parameters {
		if !p.hidden {
			want = append(want, p.name)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("parameters %v, want %v", got, want)
	}
	for _, a := range doc.Actions {
		if a.Name == "on" {
			t.Error("on is offered")
		}
	}
}

// TestManual: the page has the parameters and actions that there are.
func TestManual(t *testing.T) {
	page, err := os.ReadFile("../../../../deploy/man/fence_netsysrq.8")
	if err != nil {
		t.Fatal(err)
	}
	items := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\.It (?:Cm|Va) (\S+)`).FindAllSubmatch(page, -1) {
		items[string(m[1])] = true
	}
	for _, a := range actions {
		if !items[a] {
			t.Errorf("the page has no action %s", a)
		}
		delete(items, a)
	}
	delete(items, "on")
	for _, p := range parameters {
		if p.hidden || p.replaced {
			continue
		}
		if !items[p.name] {
			t.Errorf("the page has no parameter %s", p.name)
		}
		delete(items, p.name)
		for _, flag := range []string{p.flag, p.short} {
			written := `Fl ` + strings.TrimPrefix("-"+flag, "-")
			if len(flag) > 1 {
				written = `Fl -` + flag
			}
			if flag != "" && !regexp.MustCompile(regexp.QuoteMeta(written)+`\b`).Match(page) {
				t.Errorf("the page has no flag %q", written)
			}
		}
		if p.standard != "" && p.standard != "0" && !bytes.Contains(page, []byte(p.standard)) {
			t.Errorf("the page does not say that %s is %s", p.name, p.standard)
		}
	}
	for name := range items {
		t.Errorf("there is no %s", name)
	}
}
