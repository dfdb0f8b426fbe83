// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"runtime"
	"slices"
	"strings"
	"testing"
)

// TestKernelParameters wants the kernel of every machine told how fast its time
// stamp counter runs, and what its caller says.
func TestKernelParameters(t *testing.T) {
	args := arguments("initrd", Options{Kernel: &Linux{Image: "image"}, Append: "one two"})
	line := args[slices.Index(args, "-append")+1]
	if !strings.HasSuffix(line, " one two") || !strings.HasPrefix(line, "console=ttyS0 ") {
		t.Errorf("%q", line)
	}
	if told := strings.Contains(line, " tsc_early_khz="); !told && runtime.GOARCH == "amd64" {
		t.Errorf("not told the frequency: %q", line)
	}
}
