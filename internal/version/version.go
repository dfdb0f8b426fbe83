// SPDX-License-Identifier: GPL-2.0-only

// Package version says which release a command is of.
package version

import "runtime/debug"

// release is set by the linker in a packaged build:
// -ldflags "-X netsysrq/internal/version.release=1.2".
var release string

// String is the release, or else what the Go toolchain knows of the build.
func String() string {
	if release != "" {
		return release
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
