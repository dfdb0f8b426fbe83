// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// The menus of firmware are written to places on the screen, without line ends.
func TestConsoleScreen(t *testing.T) {
	const said = "[    0.0] kernel\r\n\x1b[2J\x1b[01;01Hmenu\x1b[12;34HYes\x1b[0mNo\x1b[1;1Hlast\r\n\x1b[Hhome\nend"
	c := newConsole()
	c.read(iotest.OneByteReader(strings.NewReader(said)), func(Line) {})
	var got []string
	for _, l := range c.Since(0) {
		got = append(got, l.Text)
	}
	want := []string{"[    0.0] kernel", "\x1b[2J", "menu", "Yes\x1b[0mNo", "last", "\x1b[Hhome", "end"}
	if !slices.Equal(got, want) {
		t.Errorf("read %q, not %q", got, want)
	}
}
