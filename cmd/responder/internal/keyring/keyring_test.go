// SPDX-License-Identifier: GPL-2.0-only

package keyring

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"netsysrq/auth"
	"netsysrq/cmd/responder/internal/hint"
	"netsysrq/internal/secret"
)

const (
	here      = "0123456789abcdef0123456789abcdef"
	elsewhere = "fedcba9876543210fedcba9876543210"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// enrolment makes a key that is the same in every run.
func enrolment(t testing.TB, operator, host string) *auth.Enrolment {
	t.Helper()
	var m auth.Master
	copy(m[:], operator)
	key, err := m.HostKey(host)
	if err != nil {
		t.Fatal(err)
	}
	allow, err := auth.ParseKeySet("nsub")
	if err != nil {
		t.Fatal(err)
	}
	return &auth.Enrolment{Operator: operator, Host: host, Allow: allow, Key: key}
}

// add adds a key; each is a second younger than the one before.
func add(t testing.TB, dir, operator, host string) Key {
	t.Helper()
	noon = noon.Add(time.Second)
	k, err := Add(dir, Addition{Enrolment: enrolment(t, operator, host), MachineID: here, Now: noon}, os.Getegid())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func load(t testing.TB, dir string) []Key {
	t.Helper()
	keys, _, err := Load(dir, here, os.Getegid())
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func wantError(t *testing.T, err error, text, hintText string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("error: %v\nwant:  %s", err, text)
	}
	if h := hint.Of(err); !strings.Contains(h, hintText) {
		t.Errorf("hint: %q\nwant: %s", h, hintText)
	}
}

func TestAddedKeyIsLoaded(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etc", "keys")
	e := enrolment(t, "alice", "db3")
	allow, _ := auth.ParseKeySet("sh")
	k, err := Add(dir, Addition{Enrolment: e, Operator: "alice-nb", Allow: allow, MachineID: here, Now: noon}, os.Getegid())
	if err != nil {
		t.Fatal(err)
	}
	want := Key{"alice-nb", "db3", allow, e.Key, noon, here, filepath.Join(dir, "alice-nb-"+e.Key.ID.String()+".key")}
	if diff := cmp.Diff(want, k); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]Key{want}, load(t, dir)); diff != "" {
		t.Error(diff)
	}
}

func TestModesAndOwner(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	gid := os.Getegid()
	if os.Geteuid() == 0 {
		gid = 65534
	}
	k, err := Add(dir, Addition{Enrolment: enrolment(t, "alice", "db3"), MachineID: here, Now: noon}, gid)
	if err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{dir: 0o750, k.Path: 0o640} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		st := info.Sys().(*syscall.Stat_t)
		if info.Mode().Perm() != mode || int(st.Gid) != gid || int(st.Uid) != os.Geteuid() {
			t.Errorf("%s: %d:%d %v", path, st.Uid, st.Gid, info.Mode())
		}
	}
	if _, _, err := Load(dir, here, gid); err != nil {
		t.Error(err)
	}
}

func TestThirdKeyOfAnOperator(t *testing.T) {
	dir := t.TempDir()
	first := add(t, dir, "alice", "db3")
	add(t, dir, "alice", "db3.example")
	add(t, dir, "bob", "db3")
	_, err := Add(dir, Addition{Enrolment: enrolment(t, "alice", "db"), MachineID: here, Now: noon}, os.Getegid())
	wantError(t, err, "alice has 2 keys on this host already: ", "keys remove "+first.Key.ID.String())
	if n := len(load(t, dir)); n != 3 {
		t.Errorf("%d keys", n)
	}
}

func TestSameKeyTwice(t *testing.T) {
	dir := t.TempDir()
	k := add(t, dir, "alice", "db3")
	_, err := Add(dir, Addition{Enrolment: enrolment(t, "alice", "db3"), Operator: "al", MachineID: here, Now: noon}, os.Getegid())
	wantError(t, err, "is here already, in "+k.Path, "keys remove "+k.Key.ID.String())

	// A copy under another name is found too.
	data, err := os.ReadFile(k.Path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "copy.key"), data, 0o600)
	_, _, err = Load(dir, here, os.Getegid())
	wantError(t, err, "hold the same key", "delete one")
}

func TestSixteenKeysAndNoMore(t *testing.T) {
	dir := t.TempDir()
	for i := range MaxKeys {
		add(t, dir, fmt.Sprintf("op%02d", i), "db3")
	}
	if n := len(load(t, dir)); n != MaxKeys {
		t.Errorf("%d keys", n)
	}
	_, err := Add(dir, Addition{Enrolment: enrolment(t, "one-more", "db3"), MachineID: here, Now: noon}, os.Getegid())
	wantError(t, err, "16 keys already", "keys list")

	k := Key{Operator: "zoe", Host: "db3", Allow: 1, Key: enrolment(t, "zoe", "db3").Key, MachineID: here, Added: noon}
	write(t, filepath.Join(dir, "zoe.key"), format(&k), 0o600)
	_, _, err = Load(dir, here, os.Getegid())
	wantError(t, err, "holds 17 keys, at most 16", "keys remove")
}

func TestNamesOnThisHost(t *testing.T) {
	for _, name := range []string{".hidden", "-rf", "../../root", "UPPER", "a b"} {
		_, err := Add(t.TempDir(), Addition{Enrolment: enrolment(t, "alice", "db3"), Operator: name, MachineID: here}, -1)
		if err == nil {
			t.Errorf("%q: accepted", name)
		}
	}
}

// TestCloneDoesNotAnswer: a key of another machine is skipped, and takes no
// room from those of this one.
func TestCloneDoesNotAnswer(t *testing.T) {
	dir := t.TempDir()
	add(t, dir, "alice", "db3")
	add(t, dir, "alice", "db3.example")
	keys, skipped, err := Load(dir, elsewhere, os.Getegid())
	if err != nil || len(keys) != 0 || len(skipped) != 2 {
		t.Fatalf("%d keys, %v, %v", len(keys), skipped, err)
	}
	if s := skipped[0]; s.Operator != "alice" || s.Reason != "added on another machine" {
		t.Errorf("skipped: %+v", s)
	}
	_, err = Add(dir, Addition{Enrolment: enrolment(t, "alice", "db4"), MachineID: elsewhere, Now: noon}, os.Getegid())
	if err != nil {
		t.Errorf("the keys of the other machine are in the way: %v", err)
	}
}

// TestBrokenFileIsNamed: one bad file fails the whole keyring, so that the
// caller keeps the set that it has.
func TestBrokenFileIsNamed(t *testing.T) {
	good := Key{Operator: "alice", Host: "db3", Allow: 1 << 3, Key: enrolment(t, "alice", "db3").Key, MachineID: here, Added: noon}
	secretText := base64.StdEncoding.EncodeToString(good.Key.Request[:])
	text := string(format(&good))
	for _, c := range []struct{ name, old, new, want string }{
		{"empty", text, "", "operator: "},
		{"truncated", text[len(text)-20:], "", "line 10: "},
		{"unknown setting", "\nhost ", "\nhast ", "line 4: unknown setting"},
		{"secret as a name", "operator    = ", secretText + " = ", "line 3: "},
		{"operator", `"alice"`, `".alice"`, "operator: "},
		{"host", `"db3"`, `"d b"`, "host: "},
		{"key id", good.Key.ID.String(), "12", "key_id: "},
		{"machine id", here, "uninitialized", "machine_id: "},
		{"added", good.Added.Format(time.RFC3339), "yesterday", "line 7: "},
		{"short secret", secretText, secretText[4:], "request_key: not 32 bytes"},
		{"same secret", base64.StdEncoding.EncodeToString(good.Key.Reply[:]), secretText, "request_key and reply_key are the same"},
		{"unquoted secret", `"` + secretText + `"`, secretText, "line 9: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			add(t, dir, "bob", "db3")
			path := filepath.Join(dir, "alice.key")
			bad := strings.Replace(text, c.old, c.new, 1)
			if bad == text {
				t.Fatal("the case changes nothing")
			}
			write(t, path, []byte(bad), 0o600)
			keys, _, err := Load(dir, here, os.Getegid())
			wantError(t, err, path+": "+c.want, "enrol the operator anew")
			if keys != nil {
				t.Error("keys beside an error")
			}
			if err != nil && strings.Contains(err.Error(), secretText[4:12]) {
				t.Errorf("the error holds a secret: %v", err)
			}
			entries, err := List(dir, here, os.Getegid())
			if err != nil || len(entries) != 2 || entries[0].Problem == nil || entries[1].Problem != nil {
				t.Errorf("list: %v, %v", entries, err)
			}
			if k, err := Remove(dir, "alice"); err != nil || k.Path != path {
				t.Errorf("remove: %v, %v", k, err)
			}
		})
	}
}

func TestExposedFiles(t *testing.T) {
	dir := t.TempDir()
	k := add(t, dir, "alice", "db3")
	for _, mode := range []os.FileMode{0o644, 0o660, 0o604} {
		if err := os.Chmod(k.Path, mode); err != nil {
			t.Fatal(err)
		}
		_, _, err := Load(dir, here, os.Getegid())
		if !errors.Is(err, secret.ErrExposed) || !strings.Contains(err.Error(), k.Path) {
			t.Errorf("%04o: %v", mode, err)
		}
	}
	os.Chmod(k.Path, 0o640)
	if _, _, err := Load(dir, here, os.Getegid()+1); !errors.Is(err, secret.ErrExposed) {
		t.Errorf("readable by another group: %v", err)
	}
	os.Chmod(dir, 0o770)
	_, _, err := Load(dir, here, os.Getegid())
	if !errors.Is(err, secret.ErrExposed) {
		t.Errorf("directory: %v", err)
	}
}

func TestOtherFilesAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	add(t, dir, "alice", "db3")
	for _, name := range []string{"README", ".alice.key", ".netsysrq-12", "alice.key~", "alice.key.bak"} {
		write(t, filepath.Join(dir, name), []byte("junk"), 0o644)
	}
	if n := len(load(t, dir)); n != 1 {
		t.Errorf("%d keys", n)
	}
}

func TestNoDirectoryNoKeys(t *testing.T) {
	keys, skipped, err := Load(filepath.Join(t.TempDir(), "none"), here, -1)
	if keys != nil || skipped != nil || err != nil {
		t.Errorf("%v, %v, %v", keys, skipped, err)
	}
}

func TestRemove(t *testing.T) {
	dir := t.TempDir()
	a1 := add(t, dir, "alice", "db3")
	a2 := add(t, dir, "alice", "db3.example")
	add(t, dir, "bob", "db3")

	_, err := Remove(dir, "alice")
	wantError(t, err, "alice has 2 keys: ", "say which")
	_, err = Remove(dir, "carol")
	wantError(t, err, `no key named "carol"`, "keys list")
	for _, name := range []string{a1.Key.ID.String(), "alice", "bob"} {
		if _, err := Remove(dir, name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat(a2.Path); !os.IsNotExist(err) {
		t.Error("the second key is still there")
	}
	if keys := load(t, dir); len(keys) != 0 {
		t.Errorf("left: %v", keys)
	}
}

// A key file that was renamed is in force all the same, so it can be removed by
// what list shows.
func TestRemoveRenamed(t *testing.T) {
	for _, by := range []string{"id", "operator"} {
		dir := t.TempDir()
		k := add(t, dir, "alice", "db3")
		if err := os.Rename(k.Path, filepath.Join(dir, "spare.key")); err != nil {
			t.Fatal(err)
		}
		name := k.Key.ID.String()
		if by == "operator" {
			name = "alice"
		}
		if _, err := Remove(dir, name); err != nil {
			t.Errorf("by %s: %v", by, err)
		}
		if keys := load(t, dir); len(keys) != 0 {
			t.Errorf("by %s: left: %v", by, keys)
		}
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	k := add(t, t.TempDir(), "alice", "db3")
	var b bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&b, nil))
	log.Info("key", "key", k)
	fmt.Fprintf(&b, "%v %+v %#v %s %x", k, k, k, k, k)
	for _, s := range []string{fmt.Sprintf("%x", k.Key.Request[:4]), fmt.Sprint(k.Key.Reply[:4])[1:],
		base64.StdEncoding.EncodeToString(k.Key.Request[:])[:8]} {
		if strings.Contains(b.String(), s) {
			t.Errorf("printed: %s", b.String())
		}
	}
}

func TestMachineID(t *testing.T) {
	path := filepath.Join(t.TempDir(), "machine-id")
	for text, ok := range map[string]bool{
		here + "\n":             true,
		"":                      false,
		"\n":                    false,
		"uninitialized\n":       false,
		strings.Repeat("0", 32): false,
		here + " " + here:       false,
		here + here + here:      false,
	} {
		write(t, path, []byte(text), 0o644)
		id, err := MachineID(path)
		if (err == nil) != ok || ok && id != here {
			t.Errorf("%q: %q, %v", text, id, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	k := Key{Operator: "alice", Host: "db3", Allow: 8, Key: enrolment(f, "alice", "db3").Key, MachineID: here, Added: noon}
	f.Add(format(&k))
	f.Add([]byte("operator = \"a\"\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := parse(data)
		if err != nil {
			return
		}
		again, err := parse(format(&k))
		if err != nil || !again.Added.Equal(k.Added.Truncate(time.Second)) {
			t.Fatalf("what was read cannot be read again: %v", err)
		}
	})
}

func write(t testing.TB, path string, data []byte, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}
