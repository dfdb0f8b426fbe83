// SPDX-License-Identifier: GPL-2.0-only

// Package sysrq explains the SysRq keys to people. Its source is the kernel's
// Documentation/admin-guide/sysrq.rst, and drivers/tty/sysrq.c for what
// kernel.sysrq allows, which package auth knows.
package sysrq

import (
	"strings"

	"netsysrq/auth"
)

// Ends says what a key puts an end to.
type Ends uint8

// What a key can end.
const (
	Nothing Ends = iota
	Processes
	Machine
)

// String returns the word used in JSON.
func (e Ends) String() string { return [...]string{"nothing", "processes", "machine"}[e] }

// Key is one SysRq key.
type Key struct {
	Key   byte
	Name  string
	Does  string
	Costs string
	Ends  Ends
}

const logs = "nothing is changed; it writes to the kernel log, on a slow console for seconds"

// keys in the order in which they are listed. A digit stands for all of them.
var keys = []Key{
	{'b', "reboot", "resets the machine at once, without syncing or unmounting anything", "what is not yet on the disks is lost; put s and u before it", Machine},
	{'o', "power off", "powers the machine off, where the kernel knows how", "as b, and it does not come back: somebody must switch it on", Machine},
	{'c', "crash", "makes the kernel crash on purpose; with kdump set up, memory is dumped first", "as b; without kdump or kernel.panic the machine stays dead", Machine},
	{'s', "sync", "writes what waits in memory to the disks, for every mounted file system", "disks are busy until it is done; on a broken disk it may never be", Nothing},
	{'u', "remount", "remounts every file system read-only", "whatever writes gets errors from then on; only a reboot makes it whole again", Nothing},
	{'n', "nice", "makes every real-time task an ordinary one", "audio, watchdogs and control loops lose their priority until they ask again", Nothing},
	{'e', "terminate", "asks every process but init to end (SIGTERM)", "every service and session ends; what init restarts comes back", Processes},
	{'i', "kill", "ends every process but init (SIGKILL)", "as e, but nothing can save its work first", Processes},
	{'f', "free memory", "has the out-of-memory killer end the process that uses most", "that process is lost, whichever it is", Processes},
	{'k', "secure attention", "ends every process on the current virtual console", "whoever works there is thrown out; a graphical session may die", Processes},
	{'j', "thaw", "thaws file systems that were frozen (FIFREEZE), as for a snapshot", "a snapshot in progress is no longer consistent", Nothing},
	{'r', "keyboard", "takes the local keyboard out of raw mode", "a graphical session loses its keyboard", Nothing},
	{'v', "console", "brings the framebuffer console back; on some ARM machines it dumps the ETM buffer", "a graphical session may be overwritten", Nothing},
	{'w', "blocked tasks", "logs the tasks that wait where no signal reaches them: what the machine hangs on", logs, Nothing},
	{'t', "tasks", "logs every task with its stack", "nothing is changed; thousands of lines, on a serial console for minutes", Nothing},
	{'l', "backtraces", "logs what every busy CPU is doing", logs, Nothing},
	{'m', "memory", "logs how memory is used", logs, Nothing},
	{'p', "registers", "logs the registers and flags of the CPU that takes the key", logs, Nothing},
	{'q', "timers", "logs the high-resolution timers and clock event devices of every CPU", logs, Nothing},
	{'d', "locks", "logs the locks that are held, if the kernel has lockdep", logs, Nothing},
	{'z', "ftrace", "logs the ftrace buffer", "nothing is changed; it can be very long", Nothing},
	{'h', "help", "logs the keys that this kernel knows", logs, Nothing},
	{'x', "architecture", "on PowerPC enters xmon, on SPARC and MIPS logs registers; elsewhere nothing", "xmon stops the machine until somebody at its console goes on", Nothing},
	{'y', "registers of all", "logs the registers of all CPUs, on SPARC; elsewhere nothing", logs, Nothing},
	{'g', "debugger", "enters the kernel debugger (kgdb), if there is one", "with kgdb the machine stands still until somebody at the debugger goes on", Nothing},
	{'a', "unassigned", "nothing, unless a driver has claimed it", "nothing", Nothing},
	{'0', "log level", "sets how much of the kernel log the console shows: 0 only emergencies, 9 all; digits are levels", "a chatty log slows a slow console", Nothing},
}

// All lists the keys; the digits are one entry.
func All() []Key { return keys }

// Of explains a key. Every SysRq key has an explanation.
func Of(c byte) Key {
	want := c
	if c >= '0' && c <= '9' {
		want = '0'
	}
	if i := strings.IndexByte(order, want); i >= 0 {
		k := keys[i]
		k.Key = c
		return k
	}
	return Key{Key: c, Name: "unassigned", Does: "nothing that every kernel knows", Costs: "nothing"}
}

// words are what people call the effect of a key, besides its name.
var words = map[string]byte{
	"boot": 'b', "reset": 'b', "restart": 'b', "halt": 'o', "off": 'o', "down": 'o', "stop": 'o', "panic": 'c',
	"umount": 'u', "unmount": 'u', "term": 'e', "oom": 'f', "locked": 'd', "blocked": 'w',
}

// Named returns the key that a word such as sync means. The letters of most
// such words are SysRq keys too, but other ones: sync holds c, which crashes.
func Named(word string) (key byte, ok bool) {
	if key, ok = words[word]; ok {
		return key, true
	}
	for _, k := range keys {
		if k.Name == word && k.Key != '0' {
			return k.Key, true
		}
	}
	return 0, false
}

// order holds the keys of keys.
var order = func() string {
	var b strings.Builder
	for _, k := range keys {
		b.WriteByte(k.Key)
	}
	return b.String()
}()

// Common are the values of kernel.sysrq that distributions ship, besides 1,
// which allows everything, and 0, which allows nothing.
var Common = []struct {
	Value int
	Of    string
}{{438, "Debian"}, {176, "Ubuntu"}}

// Allowed reports whether a value of kernel.sysrq lets a key through where the
// kernel module runs it. Without the module kernel.sysrq does not matter.
func (k Key) Allowed(value int) bool {
	return auth.Swallowed([]auth.Step{{Key: k.Key}}, value) == 0
}
