// SPDX-License-Identifier: GPL-2.0-only

package sysrq

import (
	"testing"

	"netsysrq/auth"
)

func TestKeys(t *testing.T) {
	seen := map[byte]bool{}
	for _, k := range All() {
		if seen[k.Key] || !auth.IsSysrqKey(k.Key) || k.Name == "" || k.Does == "" || k.Costs == "" {
			t.Errorf("%+v", k)
		}
		seen[k.Key] = true
	}
	for _, c := range []byte("0123456789abcdefghijklmnopqrstuvwxyz") {
		k := Of(c)
		if k.Key != c || k.Does == "" {
			t.Errorf("%c: %+v", c, k)
		}
		step := auth.Step{Key: c}
		if (k.Ends == Machine) != step.EndsMachine() {
			t.Errorf("%c: ends %v", c, k.Ends)
		}
		if k.Ends != Nothing && !auth.Destructive([]auth.Step{step}) {
			t.Errorf("%c ends %v, but is not confirmed", c, k.Ends)
		}
	}
}

func TestNamed(t *testing.T) {
	for word, want := range map[string]byte{"sync": 's', "reboot": 'b', "halt": 'o', "umount": 'u', "crash": 'c', "nsub": 0, "sub": 0, "s": 0, "": 0} {
		if key, ok := Named(word); key != want || ok != (want != 0) {
			t.Errorf("%q: %q, %v", word, key, ok)
		}
	}
}

// What reboot needs, under the values that distributions ship.
func TestAllowed(t *testing.T) {
	for _, c := range []struct {
		value  int
		denied string
	}{{438, ""}, {176, "n"}, {1, ""}, {0, "nsub"}} {
		denied := ""
		for _, key := range []byte("nsub") {
			if !Of(key).Allowed(c.value) {
				denied += string(key)
			}
		}
		if denied != c.denied {
			t.Errorf("%d denies %q, want %q", c.value, denied, c.denied)
		}
	}
}
