// SPDX-License-Identifier: GPL-2.0-only

package typo

import "testing"

func TestHint(t *testing.T) {
	known := []string{"rehearse", "log", "run", "status", "send"}
	for word, want := range map[string]string{
		"rehersal": "did you mean rehearse?", "rehears": "did you mean rehearse?", "lgo": "", "lo": "did you mean log?", "stauts": "did you mean status?",
		"sed": "did you mean send?", "rin": "did you mean run?", "sent": "did you mean send?", "rug": "did you mean run?", "x": "", "": "", "frobnicate": "", "run": "did you mean run?",
	} {
		if got := Hint(word, known); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
}
