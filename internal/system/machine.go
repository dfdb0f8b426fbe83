// SPDX-License-Identifier: GPL-2.0-only

package system

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"netsysrq/internal/vm"
)

// Options are what a machine is given.
type Options struct {
	// Files are files of the host, by their names below FilesDir.
	Files map[string]string
	// Append are more kernel parameters, for boots after the first.
	Append string
	// SecureBoot has UEFI firmware, shim and GRUB boot the kernel, with Secure
	// Boot on. Such a machine is booted (BootFrom), and not resumed.
	SecureBoot bool
	// Life is how long each QEMU may live, whatever happens; 0: 15 minutes.
	Life time.Duration
}

// Machine is a Debian. Its disk lives until Close; the vm.Machine in it, with wire,
// console and fate, is that of the present boot, and another one after the next.
type Machine struct {
	*vm.Machine
	image  *Image
	opt    Options
	folder *folder
	files  files
	// uefi is the folder of what boots with Secure Boot, and empty without.
	uefi string
}

const (
	memory  = 1024 // MiB: enough to run a compiler
	life    = 15 * time.Minute
	fileMiB = 256 // the size of the disk with the files, which must not change

	// bootLimit is how long it may take until the agent speaks, and then until
	// systemd is done. Half a minute together is usual, on a host with no other
	// load.
	bootLimit = 3 * time.Minute
	// resumeLimit is the same for a machine that is resumed.
	resumeLimit = time.Minute
	// maxFaults is how often a machine is booted anew after a fault of the
	// emulator.
	maxFaults = 3
)

func (m *Machine) overlay() string { return m.folder.file("disk.qcow2") }
func (m *Machine) initrd() string  { return m.folder.file("initrd") }

// newMachine makes what a machine has of its own. It goes on from a disk, which it
// does not change.
func newMachine(ctx context.Context, i *Image, disk, format string, opt Options) (m *Machine, err error) {
	m = &Machine{image: i, opt: opt}
	if m.opt.Life == 0 {
		m.opt.Life = life
	}
	if m.folder, err = newFolder(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			m.folder.remove()
		}
	}()
	if m.files, err = readFiles(opt.Files); err != nil {
		return nil, err
	}
	if err = m.files.make(ctx, m.folder); err != nil {
		return nil, err
	}
	initrd, err := i.initrd(ctx)
	if err != nil {
		return nil, fmt.Errorf("make the initramfs: %w", err)
	}
	if err = os.WriteFile(m.initrd(), initrd, 0o644); err != nil {
		return nil, err
	}
	if opt.SecureBoot {
		if err = m.makeFirmware(ctx); err != nil {
			return nil, err
		}
	}
	return m, vm.Tool(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-F", format, "-b", disk, m.overlay())
}

// boot boots a disk and waits until the system runs. On an error the machine is
// returned too, if there is one.
func boot(ctx context.Context, i *Image, disk, format string, opt Options) (*Machine, error) {
	m, err := newMachine(ctx, i, disk, format, opt)
	if err != nil {
		return nil, err
	}
	return m, m.Boot(ctx)
}

// BootFrom boots the disk of a state, and waits until the system runs. On an error
// the machine is returned too, if there is one.
func BootFrom(ctx context.Context, s *State, opt Options) (*Machine, error) {
	if err := s.use(); err != nil {
		return nil, err
	}
	return boot(ctx, s.image, s.disk(), "qcow2", opt)
}

// Resume begins a machine from a state. On an error the machine is returned too, if
// there is one.
func Resume(ctx context.Context, s *State, opt Options) (*Machine, error) {
	if opt.SecureBoot {
		return nil, errors.New("what was booted without Secure Boot cannot be resumed with it")
	}
	if err := s.use(); err != nil {
		return nil, err
	}
	m, err := newMachine(ctx, s.image, s.disk(), "qcow2", opt)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, resumeLimit)
	defer cancel()
	if err := m.resume(ctx, s); err != nil {
		return m, errors.Join(fmt.Errorf("resume %s: %w", filepath.Base(s.dir), err), m.consoleError())
	}
	return m, nil
}

func (m *Machine) resume(ctx context.Context, s *State) error {
	if err := m.launch("-incoming", "exec:zstd -q -dc "+quote(s.memory())); err != nil {
		return err
	}
	err := m.poll(ctx, "query-status", func(status string) (bool, error) {
		return status != "inmigrate", nil
	})
	if err != nil {
		return err
	}
	if _, err := m.QMP(ctx, "cont", nil); err != nil {
		return err
	}
	if _, err := m.Ping(ctx); err != nil {
		return err
	}
	if err := m.SetClock(ctx, time.Duration(time.Now().UnixNano()), false); err != nil {
		return err
	}
	return m.mountFiles(ctx)
}

// launch starts QEMU.
func (m *Machine) launch(more ...string) (err error) {
	options := []string{
		"-drive", "if=none,id=root,format=qcow2,cache=unsafe,discard=unmap,file=" + comma(m.overlay()),
		"-drive", "if=none,id=files,format=raw,readonly=on,file=" + comma(m.files.path),
	}
	options = append(options, hardware...)
	if m.uefi != "" {
		options = append(options, m.firmwareOptions()...)
	} else {
		options = append(options, "-kernel", m.image.vmlinuz(), "-initrd", m.initrd(), "-append", m.parameters())
	}
	if m.Machine, err = vm.Launch(memory, m.opt.Life, append(options, more...)...); err != nil {
		return err
	}
	if m.uefi != "" {
		m.Firmware = firmwareTime
	}
	return nil
}

// parameters are the kernel's.
func (m *Machine) parameters() string { return vm.KernelParameters("rw", m.opt.Append) }

// hardware is what the guest sees. A state fits only the same. One CPU, where the
// machines of package vm have two: of two of an emulator's on a busy host, one waits
// for locks of the other that does not run.
var hardware = []string{
	"-smp", "1",
	"-device", "virtio-blk-pci,drive=root,serial=root",
	"-device", "virtio-blk-pci,drive=files,serial=files",
	"-device", "virtio-serial-pci", "-device", "virtserialport,chardev=control,name=control",
	"-device", "vmgenid,guid=auto",
}

// comma makes a path one value of QEMU's options.
func comma(path string) string { return strings.ReplaceAll(path, ",", ",,") }

// PowerOn boots the machine, from the disk as it is, and returns as soon as the
// agent speaks: very early. A machine that still runs is cut off before (Quit), as
// by a loss of power.
func (m *Machine) PowerOn(ctx context.Context) error {
	if m.Machine != nil {
		m.Quit(ctx)
	}
	var faults []string
	for {
		if err := m.launch(); err != nil {
			return err
		}
		m.Faults = faults
		err := m.AwaitReady(ctx, m.Firmware+bootLimit)
		if err == nil {
			return nil
		}
		line, yes := m.EmulatorFault()
		if !yes || len(faults) == maxFaults {
			return errors.Join(fmt.Errorf("boot %s: %w", m.image.Kernel, err), m.consoleError())
		}
		faults = append(faults, line)
		m.Quit(ctx)
	}
}

// Boot is PowerOn, and waits until the system runs.
func (m *Machine) Boot(ctx context.Context) error {
	if err := m.PowerOn(ctx); err != nil {
		return err
	}
	return m.AwaitRunning(ctx)
}

// AwaitRunning waits until systemd is done and nothing has failed.
func (m *Machine) AwaitRunning(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bootLimit)
	defer cancel()
	out, _, err := m.Exec(ctx, nil, "systemctl", "is-system-running", "--wait")
	if err != nil {
		return err
	}
	if state := strings.TrimSpace(out); state != "running" {
		failed, _, _ := m.Exec(ctx, nil, "systemctl", "list-units", "--failed", "--no-legend", "--plain")
		return fmt.Errorf("the system is %s: %s", state, failed)
	}
	// systemd does not wait for all that udev loads.
	if _, err := m.Run(ctx, "udevadm", "settle", "--timeout=120"); err != nil {
		return err
	}
	return m.mountFiles(ctx)
}

// Close ends the machine for good.
func (m *Machine) Close() {
	if m.Machine != nil {
		m.Machine.Close()
	}
	m.folder.remove()
}

// consoleError is the end of the console, as an error to join to another.
func (m *Machine) consoleError() error {
	if m.Machine == nil {
		return nil
	}
	lines := m.Console.Since(0)
	var b strings.Builder
	for _, l := range lines[max(0, len(lines)-40):] {
		fmt.Fprintf(&b, "\n%s", l.Text)
	}
	return fmt.Errorf("console:%s", b.String())
}
