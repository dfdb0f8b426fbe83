// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"slices"
	"testing"
)

// The operator's own key, list and record of drills are none of the demo's.
func TestOperatorIsAtHomeOnStage(t *testing.T) {
	s := &stage{dir: "/demo", bin: "/bin"}
	env := s.command(t.Context(), "keygen").Env
	for _, want := range []string{"XDG_CONFIG_HOME=/demo/operator", "XDG_STATE_HOME=/demo/operator"} {
		if !slices.Contains(env, want) {
			t.Errorf("%s is missing", want)
		}
	}
}
