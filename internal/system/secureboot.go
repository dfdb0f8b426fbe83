// SPDX-License-Identifier: GPL-2.0-only

package system

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"netsysrq/internal/vm"
)

// firmware returns the folder with what a server with Secure Boot boots before the
// kernel, out of the cache or by downloading it first.
func firmware(ctx context.Context, r Release) (dir string, err error) {
	recipe, err := fs.ReadFile(scripts, "scripts/firmware.sh")
	if err != nil {
		return "", err
	}
	err = vm.Locked("system-firmware-"+string(r), func(cache string) error {
		all := filepath.Join(cache, "system", "firmware")
		dir = filepath.Join(all, string(r)+"-"+digest(string(recipe)))
		if _, err := os.Stat(dir); err == nil {
			return touch(dir)
		}
		if err := os.MkdirAll(all, 0o755); err != nil {
			return err
		}
		if _, err := vm.Script(ctx, "system", scripts, "firmware.sh", string(r), dir); err != nil {
			return err
		}
		return prune(all, string(r)+"-*", 1)
	})
	if err != nil {
		return "", fmt.Errorf("firmware of %s: %w", r, err)
	}
	return dir, nil
}

// firmwareTime is how long firmware, shim and GRUB may take together. Ten seconds
// are usual, on a host with no other load.
const firmwareTime = 2 * time.Minute

// What a machine with Secure Boot has of its own.
func (m *Machine) variables() string { return m.folder.file("vars.fd") } // the firmware's
func (m *Machine) esp() string       { return m.folder.file("esp") }

// makeFirmware gives the machine its variables, and the system partition that the
// firmware boots from: shim, GRUB, the kernel and the bench's initrd.
func (m *Machine) makeFirmware(ctx context.Context) error {
	dir, err := firmware(ctx, m.image.Release)
	if err != nil {
		return err
	}
	m.uefi = dir
	config := fmt.Sprintf("linux /vmlinuz %s\ninitrd /initrd\nboot\n", m.parameters())
	if err := os.MkdirAll(filepath.Join(m.esp(), "EFI/debian"), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(m.esp(), "EFI/debian/grub.cfg"), []byte(config), 0o644); err != nil {
		return err
	}
	for to, from := range map[string]string{
		m.variables(): filepath.Join(dir, "vars.fd"),
		filepath.Join(m.esp(), "EFI/BOOT/BOOTX64.EFI"): filepath.Join(dir, "shim.efi"),
		filepath.Join(m.esp(), "EFI/BOOT/mmx64.efi"):   filepath.Join(dir, "mm.efi"),
		filepath.Join(m.esp(), "EFI/BOOT/grubx64.efi"): filepath.Join(dir, "grub.efi"),
		filepath.Join(m.esp(), "vmlinuz"):              m.image.vmlinuz(),
		filepath.Join(m.esp(), "initrd"):               m.initrd(),
	} {
		b, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(to, b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// firmwareOptions have QEMU boot by firmware. Only the firmware itself, in system
// management mode, can write its variables, and so what it trusts.
func (m *Machine) firmwareOptions() []string {
	return []string{
		"-machine", "smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on", "-global", "ICH9-LPC.disable_s3=1",
		"-drive", "if=pflash,unit=0,format=raw,readonly=on,file=" + comma(filepath.Join(m.uefi, "code.fd")),
		"-drive", "if=pflash,unit=1,format=raw,file=" + comma(m.variables()),
		// After the other disks, or it would take their names.
		"-drive", "if=none,id=esp,format=raw,readonly=on,file=fat:" + comma(m.esp()),
		"-device", "virtio-blk-pci,drive=esp,bootindex=0",
	}
}

// mokLimit is how long it may take until the MOK manager is done.
const mokLimit = firmwareTime + time.Minute

// EnrollMOK switches a machine on whose system has asked for a machine owner key
// to be enrolled and has been shut down, and is the person at its console: it waits
// for shim's MOK manager, consents with the password, and has it reboot.
func (m *Machine) EnrollMOK(ctx context.Context, password string) error {
	ctx, cancel := context.WithTimeout(ctx, mokLimit)
	defer cancel()
	if err := m.launch(); err != nil {
		return err
	}
	typed := strings.Split(password, "")
	mark := 0
	for _, step := range []struct {
		screen string
		keys   []string
	}{
		{"Press any key to perform MOK management", []string{"ret"}},
		{"Enroll MOK", []string{"down", "ret"}},
		{"View key 0", []string{"down", "ret"}},
		{"Enroll the key(s)?", []string{"down", "ret"}},
		{"Password:", append(typed, "ret")},
		{"Reboot", []string{"ret"}},
	} {
		if _, err := m.Console.Await(ctx, mark, step.screen); err != nil {
			return fmt.Errorf("MOK manager: %w", err)
		}
		mark = m.Console.Mark()
		for _, k := range step.keys {
			key := map[string]string{"type": "qcode", "data": k}
			if _, err := m.QMP(ctx, "send-key", map[string]any{"keys": []any{key}}); err != nil {
				return err
			}
		}
	}
	end, err := m.Wait(ctx)
	if err == nil && end.Fate != vm.Reset {
		err = fmt.Errorf("MOK manager: the machine ended with %q", end.Fate)
	}
	return err
}
