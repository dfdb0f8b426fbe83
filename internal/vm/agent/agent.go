// SPDX-License-Identifier: GPL-2.0-only

// Package agent is what the bench and the init of its guest say to each other:
// on the control channel, one JSON object a line in either direction, and once,
// as a file in the initramfs.
package agent

import "time"

// ConfigPath is where the guest finds its Config.
const ConfigPath = "/etc/vm.json"

// Config tells the guest's init how to set the machine up.
type Config struct {
	Modules  []string   `json:"modules"`  // files, in the order to load them
	Commands [][]string `json:"commands"` // run in order after that; each must succeed
	// NICDriver is the driver of the network card; its interrupts are sent to
	// NICCPU.
	NICDriver string `json:"nic_driver"`
	NICCPU    int    `json:"nic_cpu"`
	// Mount is a block device and where to mount it as ext4; empty: none.
	Mount [2]string `json:"mount"`
}

// Op is what a request asks for.
type Op string

// Operations. The fields that each uses are named; all may fail with Error.
const (
	Ping      Op = "ping"
	Exec      Op = "exec"      // Args, Data as standard input, Timeout: Data is the output of both kinds, Code
	Start     Op = "start"     // Name, Args: PID. Output goes to LogPath(Name)
	Wait      Op = "wait"      // Name, Timeout: Code
	Signal    Op = "signal"    // PID or Name, Signal
	Read      Op = "read"      // Path, Offset: at most Chunk bytes of Data
	Write     Op = "write"     // Path, Offset, Data, Mode: a write at 0 replaces the file
	Processes Op = "processes" // Processes
	Freeze    Op = "freeze"    // SIGSTOP for every process but init; PID is how many
	Thaw      Op = "thaw"      // and SIGCONT
	Clocks    Op = "clocks"    // Clocks
	SetClock  Op = "set-clock" // Real, unless it is 0, and Synchronised
	Hang      Op = "hang"      // Name, a scenario of the guest, and Args. It begins soon after the answer
)

// Chunk bounds the Data of one Read or Write, which the guest's serial port has
// to buffer.
const Chunk = 4096

// LogPath is where the output of a process that was started goes.
func LogPath(name string) string { return "/run/" + name + ".log" }

// HogName is the name, in Process, of what a scenario keeps running.
func HogName(kind string) string { return "hog-" + kind }

// Request is a line to the guest. Requests are served side by side.
type Request struct {
	ID      uint64        `json:"id"`
	Op      Op            `json:"op"`
	Name    string        `json:"name,omitempty"`
	Args    []string      `json:"args,omitempty"`
	Path    string        `json:"path,omitempty"`
	Offset  int64         `json:"offset,omitempty"`
	Data    []byte        `json:"data,omitempty"`
	Mode    uint32        `json:"mode,omitempty"`
	PID     int           `json:"pid,omitempty"`
	Signal  int           `json:"signal,omitempty"`
	Timeout time.Duration `json:"timeout,omitempty"`
	// Real is CLOCK_REALTIME since 1970, and Synchronised what adjtimex(2) is
	// to say of it: that something disciplines it.
	Real         time.Duration `json:"real,omitempty"`
	Synchronised bool          `json:"synchronised,omitempty"`
}

// Response is a line from the guest. The one with ID 0 says that it is set up.
type Response struct {
	ID        uint64       `json:"id"`
	Error     string       `json:"error,omitempty"`
	Data      []byte       `json:"data,omitempty"`
	Code      int          `json:"code,omitempty"`
	PID       int          `json:"pid,omitempty"`
	Processes []Process    `json:"processes,omitempty"`
	Clocks    *ClockValues `json:"clocks,omitempty"`
}

// ClockValues are the guest's clocks, read one after the other.
type ClockValues struct {
	Real      time.Duration `json:"real"` // since 1970
	Boot      time.Duration `json:"boot"`
	Monotonic time.Duration `json:"monotonic"` // what the kernel log is stamped with, nearly
}

// Process is one process of the guest.
type Process struct {
	PID    int    `json:"pid"`
	Parent int    `json:"parent"`
	State  string `json:"state"` // as in /proc/PID/stat
	Name   string `json:"name"`
	Kernel bool   `json:"kernel,omitempty"` // a kernel thread
}
