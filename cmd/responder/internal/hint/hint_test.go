// SPDX-License-Identifier: GPL-2.0-only

package hint

import "testing"

func TestWithConfig(t *testing.T) {
	for _, c := range []struct{ text, path, want string }{
		{"netsysrqd rules apply", "x.toml", "netsysrqd -c x.toml rules apply"},
		{"as root: netsysrqd load-keys; then `netsysrqd run`", "/etc/x.toml",
			"as root: netsysrqd -c /etc/x.toml load-keys; then `netsysrqd -c /etc/x.toml run`"},
		{"netsysrqd run", "a b's $1", `netsysrqd -c 'a b'\''s $1' run`},
		{"systemctl start netsysrqd; give netsysrqd queues; netsysrqd running; man netsysrqd.toml", "x",
			"systemctl start netsysrqd; give netsysrqd queues; netsysrqd running; man netsysrqd.toml"},
	} {
		if got := WithConfig(c.text, c.path); got != c.want {
			t.Errorf("%s\nwant %s", got, c.want)
		}
	}
}
