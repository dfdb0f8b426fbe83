// SPDX-License-Identifier: GPL-2.0-only

// Guest is the init of the bench's machines: PID 1 of an initramfs. It sets the
// machine up as its Config says, then does what it is asked for on the control
// channel. Under other names it is what a scenario needs: hogs, of one kind or
// another. On a whole system, which has an init of its own, "attach PORT" does
// only what it is asked for.
package main

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"netsysrq/internal/vm/agent"
)

// A hog does its work on its first thread: the state that /proc/PID/stat shows is
// that one's.
func init() { runtime.LockOSThread() }

func main() {
	if os.Getpid() == 1 {
		boot()
	}
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: init HOG [ARGUMENT]...")
		os.Exit(2)
	}
	if os.Args[1] == "attach" && len(os.Args) == 3 {
		if err := attach(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, "agent:", err)
			os.Exit(1)
		}
		return
	}
	hog, ok := hogs[os.Args[1]]
	if !ok {
		fmt.Fprintf(os.Stderr, "init: no hog %q\n", os.Args[1])
		os.Exit(2)
	}
	// A name of its own, to be told from init; 15 bytes of it are kept.
	if name, err := unix.BytePtrFromString(agent.HogName(os.Args[1])); err == nil {
		_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(name)), 0, 0, 0)
	}
	if err := hog(os.Args[2:]); err != nil {
		fmt.Fprintf(os.Stderr, "init: %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}
