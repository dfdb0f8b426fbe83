// SPDX-License-Identifier: GPL-2.0-only

package config

import (
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"netsysrq/cmd/responder/internal/hint"
)

const example = "../../../../deploy/netsysrqd.toml"

var comparePrefixes = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })

func TestExampleStatesTheDefaults(t *testing.T) {
	c, err := Load(example)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Default(), c, comparePrefixes); diff != "" {
		t.Errorf("the example differs from the defaults (-default +example):\n%s", diff)
	}
}

func TestExampleNamesEverySetting(t *testing.T) {
	data, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range kinds {
		if lineOf(data, k.name) == 0 {
			t.Errorf("the example does not set %s", k.name)
		}
	}
	set := regexp.MustCompile(`(?m)^[a-z_]+ =`).FindAll(data, -1)
	if len(set) != len(kinds) {
		t.Errorf("the example sets %d settings, %d are known", len(set), len(kinds))
	}
}

func TestEmptyFileMeansDefaults(t *testing.T) {
	c, err := parse("empty", nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Default(), c, comparePrefixes); diff != "" {
		t.Error(diff)
	}
}

func TestSettingsAreRead(t *testing.T) {
	c, err := parse("f", []byte(`
port = 4009
queue = 65534
allow_from = ["192.0.2.0/24", "2001:db8::7", "192.0.2.0/24", "0.0.0.0/0"]
dry_run = true
log.level = "debug"
user = "990:991"
`))
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Port, want.Queue, want.DryRun, want.User, want.Log.Level = 4009, 65534, true, "990:991", slog.LevelDebug
	for _, s := range []string{"192.0.2.0/24", "2001:db8::7/128", "0.0.0.0/0"} {
		want.AllowFrom = append(want.AllowFrom, netip.MustParsePrefix(s))
	}
	if diff := cmp.Diff(want, c, comparePrefixes); diff != "" {
		t.Error(diff)
	}
}

// TestMistakes: every mistake is told with file, line and setting.
func TestMistakes(t *testing.T) {
	for _, c := range []struct{ name, text, want, hint string }{
		{"typing mistake", "\nprot = 9\n", `f:2: unknown setting "prot"`, "did you mean port?"},
		{"forgotten table", "level = \"info\"", `f:1: unknown setting "level"`, "did you mean log.level?"},
		{"unknown", "\n\n[log]\ncolour = 1", `f:4: unknown setting "log.colour"`, "known settings: port, queue,"},
		{"several", "a1 = 1\nb1 = 2\nc1 = 3", `f:1: unknown setting "a1" (and 2 more)`, "known settings"},
		{"wrong kind", "queue = 9\nport = \"nine\"", "f:2: port must be a number", ""},
		{"wrong kind in table", "[log]\nlevel = 3", "f:2: log.level must be a string", ""},
		{"wrong kind of list", "allow_from = \"192.0.2.1\"", "f:1: allow_from must be a list", ""},
		{"not TOML", "port = 9\nport 9\n", "f:2: ", "lines look like"},
		{"twice", "port = 9\nport = 10\n", "f:2: port is set a second time", ""},
		{"table twice", "[log]\n[log]", "f:2: log is set a second time", ""},
		{"no table", "log = 3", "f:1: log is neither", "lines look like"},
		{"too deep", "log.level.x = 1", "f:1: log.level", ""},
		{"port 0", "# nine\nport = 0", "f:2: port: 0: a UDP port", ""},
		{"port too large", "port = 65536", "f:1: port: 65536: a UDP port", ""},
		{"queue without room", "queue = 65535", "f:1: queue: 65535:", ""},
		{"relative path", "keys_dir = \"keys\"", `f:1: keys_dir: "keys": must be a path`, ""},
		{"empty path", "trigger = \"\"", "f:1: trigger:", ""},
		{"not an address", "allow_from = [\"gw.example\"]", `f:1: allow_from: "gw.example": neither`, "write them like"},
		{"bits outside", "\nallow_from = [\"192.0.2.7/24\"]",
			`f:2: allow_from: "192.0.2.7/24": write "192.0.2.0/24" for the network or "192.0.2.7"`, ""},
		{"zone", "allow_from = [\"fe80::1%eth0\"]", "f:1: allow_from:", ""},
		{"mapped", "allow_from = [\"::ffff:192.0.2.1\"]", "f:1: allow_from:", ""},
		{"root", "user = \"root\"", "f:1: user: must not be root", ""},
		{"root by number", "user = \"0\"", "f:1: user: must not be root", ""},
		{"group root", "user = \"990:0\"", "f:1: user: must not be root", ""},
		{"no user", "user = \"\"", "f:1: user: must name a user", ""},
		{"half a user", "user = \"990:\"", "f:1: user:", ""},
		{"iptables", "iptables = \"nftables\"", `f:1: iptables: "nftables": must be one of auto, nft, legacy`, ""},
		{"deadline too short", "deadline = \"9ms\"", `f:1: deadline: "9ms": must be from 10ms to 10s`, ""},
		{"deadline without a unit", "deadline = \"250\"", "f:1: deadline:", ""},
		{"relative veto file", "veto_file = \"veto\"", "f:1: veto_file:", ""},
		{"level", "[log]\nformat = \"text\"\n  level = \"loud\"", `f:3: log.level: "loud": must be one of debug`, ""},
		{"dotted", "port = 9\nlog.format = \"xml\"", `f:2: log.format: "xml"`, ""},
		{"inline table", "log = { format = \"xml\" }", `f: log.format: "xml"`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := parse("f", []byte(c.text))
			if err == nil {
				t.Fatal("accepted")
			}
			if !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("error: %s\nwant:  %s", err, c.want)
			}
			if h := hint.Of(err); !strings.HasPrefix(h, c.hint) {
				t.Errorf("hint %q, want %q", h, c.hint)
			}
		})
	}
}

func TestMissingFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.toml")
	_, err := Load(path)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) || hint.Of(err) == "" {
		t.Errorf("error %v, hint %q", err, hint.Of(err))
	}
}

func FuzzParse(f *testing.F) {
	data, err := os.ReadFile(example)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte("port = 9\n[log]\nlevel = \"warn\""))
	f.Add([]byte("allow_from = [\"::/0\"]\nuser = \"1:\""))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parse("f", data)
		if err == nil && (c.Port == 0 || c.Queue == 65535 || c.User == "" || c.User == "root") {
			t.Errorf("accepted %+v", c)
		}
	})
}
