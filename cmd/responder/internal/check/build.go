// SPDX-License-Identifier: GPL-2.0-only

package check

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// What dkms and the package netsysrq-dkms call things.
const (
	moduleFile = "xt_NETSYSRQ.ko"
	source     = "netsysrq-" // and the version
	secureBoot = "/usr/share/doc/netsysrq-dkms/secure-boot.md"
	mok        = "/var/lib/dkms/mok.pub"
)

// whyNotLoaded says why the kernel module is not loaded, as far as files tell,
// and what to do next.
func (c *checker) whyNotLoaded() (text, next string) {
	release := c.text(c.Proc, "sys/kernel/osrelease")
	path := c.built(release)
	if path == "" {
		return c.whyNotBuilt(release)
	}
	signed, known := signature(path)
	switch {
	case !c.onlySigned():
		return "not loaded, though it is built for this kernel", "netsysrqd arm; modprobe xt_NETSYSRQ says what keeps it from being loaded"
	case !known:
		return "not loaded; it is built, and this kernel loads signed modules only (Secure Boot); whether it is signed cannot be seen in " + path,
			"modinfo -F signer xt_NETSYSRQ names who signed it; nobody: " + secureBoot
	case !signed:
		return "not loaded: it is built, but not signed, and this kernel loads signed modules only (Secure Boot)",
			secureBoot + " says how to sign it and to enrol the key: mokutil --import " + mok + ", reboot"
	}
	return "not loaded; it is built and signed, and this kernel loads modules only of those whose key it knows (Secure Boot)",
		"mokutil --test-key " + mok + " tells whether it knows that of dkms; if so: netsysrqd arm; if not: " + secureBoot
}

// built is the module's file for a kernel, "" if there is none.
func (c *checker) built(release string) string {
	for _, dir := range []string{"updates/dkms", "updates", "extra"} {
		for _, compressed := range []string{"", ".xz", ".zst", ".gz"} {
			path := filepath.Join(c.Modules, release, dir, moduleFile+compressed)
			if _, err := os.Stat(path); err == nil {
				return path
			}
		}
	}
	return ""
}

// signature reports whether a module's file is signed, and whether that is
// known: it is not of a compressed one.
func signature(path string) (signed, known bool) {
	const mark = "~Module signature appended~\n" // MODULE_SIG_STRING, include/linux/module_signature.h
	if filepath.Ext(path) != ".ko" {
		return false, false
	}
	f, err := os.Open(path)
	if err != nil {
		return false, false
	}
	defer f.Close()
	end := make([]byte, len(mark))
	if _, err := f.Seek(-int64(len(end)), io.SeekEnd); err != nil {
		return false, true // shorter than that
	}
	if _, err := io.ReadFull(f, end); err != nil {
		return false, false
	}
	return string(end) == mark, true
}

// onlySigned reports whether the kernel refuses modules that are not signed.
func (c *checker) onlySigned() bool {
	lockdown := c.text(c.Sys, "kernel/security/lockdown")
	return c.text(c.Sys, "module/module/parameters/sig_enforce") == "Y" ||
		strings.Contains(lockdown, "[integrity]") || strings.Contains(lockdown, "[confidentiality]")
}

// whyNotBuilt says why there is no module for a kernel.
func (c *checker) whyNotBuilt(release string) (text, next string) {
	sources, _ := filepath.Glob(filepath.Join(c.Source, source+"*/dkms.conf"))
	if len(sources) == 0 {
		return "not loaded, and not installed", "apt install netsysrq-dkms"
	}
	version := strings.TrimPrefix(filepath.Base(filepath.Dir(sources[len(sources)-1])), source)
	build := fmt.Sprintf("dkms install netsysrq/%s -k %s; netsysrqd arm", version, release)
	if _, err := os.Stat(filepath.Join(c.Modules, release, "build")); err != nil {
		return "not loaded: it is not built for this kernel, whose headers are missing",
			fmt.Sprintf("apt install linux-headers-%s; %s", release, build)
	}
	log := filepath.Join(c.Dkms, "netsysrq", version, "build/make.log")
	// It stays where a build has failed, and begins with the kernel that it was for.
	head, _, _ := strings.Cut(c.text(log, ""), "\n")
	if strings.Contains(head+" ", " "+release+" ") {
		return "not loaded: its build for this kernel has failed", fmt.Sprintf("%s says why; then: %s", log, build)
	}
	return "not loaded: it is not built for this kernel", build
}
