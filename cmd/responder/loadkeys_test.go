// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"netsysrq/auth"
	"netsysrq/cmd/responder/internal/keyring"
	"netsysrq/kmod-fallback/kmod"
)

// fakeModule notes what it is told.
type fakeModule struct {
	status kmod.Status
	calls  []string
	err    error
}

func (f *fakeModule) Status() (kmod.Status, error) { return f.status, nil }

func (f *fakeModule) InstallKey(k *auth.HostKey, allowed auth.KeySet) error {
	f.calls = append(f.calls, fmt.Sprintf("install %d %v", k.ID[0], allowed))
	return f.err
}

func (f *fakeModule) RemoveKey(id auth.KeyID) error {
	f.calls = append(f.calls, fmt.Sprintf("remove %d", id[0]))
	return f.err
}

// TestReplaceKeys: what the module holds as it should is left alone.
func TestReplaceKeys(t *testing.T) {
	set := func(s string) auth.KeySet {
		k, err := auth.ParseKeySet(s)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	file := func(id byte, allow string) keyring.Key {
		return keyring.Key{Key: auth.HostKey{ID: auth.KeyID{id}}, Allow: set(allow)}
	}
	held := func(id byte, allow string) kmod.Key { return kmod.Key{ID: auth.KeyID{id}, Allowed: set(allow)} }
	for _, c := range []struct {
		name  string
		held  []kmod.Key
		files []keyring.Key
		want  []string
	}{
		{"nothing", nil, nil, nil},
		{"all new", nil, []keyring.Key{file(1, "s"), file(2, "b")}, []string{"install 1 s", "install 2 b"}},
		{"all there", []kmod.Key{held(1, "s"), held(2, "b")}, []keyring.Key{file(1, "s"), file(2, "b")}, nil},
		{"another allowed set", []kmod.Key{held(1, "s")}, []keyring.Key{file(1, "su")}, []string{"install 1 su"}},
		{"one goes, one comes", []kmod.Key{held(1, "s"), held(2, "b")}, []keyring.Key{file(3, "s"), file(2, "b")}, []string{"remove 1", "install 3 s"}},
		{"all go", []kmod.Key{held(1, "s")}, nil, []string{"remove 1"}},
	} {
		m := &fakeModule{status: kmod.Status{Keys: c.held}}
		if err := replaceKeys(m, c.files); err != nil || !slices.Equal(m.calls, c.want) {
			t.Errorf("%s: %v %v, want %v", c.name, m.calls, err, c.want)
		}
	}
	gone := &fakeModule{status: kmod.Status{Keys: []kmod.Key{held(1, "s")}}, err: kmod.ErrUnknownKey}
	if err := replaceKeys(gone, nil); err != nil {
		t.Errorf("a key that went by itself: %v", err)
	}
	full := &fakeModule{err: kmod.ErrFull}
	if err := replaceKeys(full, []keyring.Key{file(1, "s")}); !errors.Is(err, kmod.ErrFull) {
		t.Errorf("no room: %v", err)
	}
}
