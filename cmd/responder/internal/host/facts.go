// SPDX-License-Identifier: GPL-2.0-only

// Package host is what the daemon needs of the machine it runs on: facts for
// its replies, and the privileges it gives up.
package host

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"

	"netsysrq/auth"
)

// Facts are the parts of a reply that describe the host. They cost file reads
// and are therefore gathered beforehand, not while a request waits.
type Facts struct {
	Load  uint16 // one-minute load average x 100
	Free  uint32 // MiB available
	Sysrq uint16 // kernel.sysrq or auth.SysrqUnknown
}

// ReadFacts reads what it can and leaves the rest at its "unknown" value.
func ReadFacts() Facts {
	return Facts{Load: load(), Free: free(), Sysrq: sysrq()}
}

// BootID reads the kernel's random/boot_id.
func BootID() (id auth.BootID, err error) {
	const path = "/proc/sys/kernel/random/boot_id"
	b, err := os.ReadFile(path)
	if err != nil {
		return id, err
	}
	uuid, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(string(b)), "-", ""))
	if err != nil || len(uuid) != 16 {
		return id, fmt.Errorf("%s: not a UUID: %q", path, b)
	}
	return auth.BootID(uuid), nil
}

func load() uint16 {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	first, _, _ := bytes.Cut(b, []byte(" "))
	f, err := strconv.ParseFloat(string(first), 64)
	if err != nil {
		return 0
	}
	return uint16(min(max(f*100, 0), 0xffff))
}

func free() uint32 {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(b) {
		rest, ok := bytes.CutPrefix(line, []byte("MemAvailable:"))
		if !ok {
			continue
		}
		kib, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(string(rest)), "kB")), 10, 64)
		if err != nil {
			return 0
		}
		return uint32(min(kib/1024, 1<<32-1))
	}
	return 0
}

func sysrq() uint16 {
	b, err := os.ReadFile("/proc/sys/kernel/sysrq")
	if err != nil {
		return auth.SysrqUnknown
	}
	v, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
	if err != nil {
		return auth.SysrqUnknown
	}
	return uint16(min(v, auth.SysrqUnknown-1))
}

// Systemd reports whether systemd is the host's service manager, as sd_booted(3)
// finds out.
func Systemd() bool {
	_, err := os.Stat("/run/systemd/system")
	return err == nil
}
