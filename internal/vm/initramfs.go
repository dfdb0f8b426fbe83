// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"

	"netsysrq/internal/vm/agent"
)

// usual are the modules that every guest loads: disk, network, and what the
// firewall's rules need. Those with a question mark are built in, or do not
// exist, in some kernels.
var usual = []string{
	"virtio_pci", "virtio_blk", "virtio_net", "ext4?",
	"iptable_raw", "iptable_mangle", "iptable_filter", "ip6table_raw", "ip6table_mangle", "ip6table_filter",
	"xt_tcpudp", "xt_addrtype", "xt_limit", "xt_mark", "xt_length", "xt_u32", "xt_recent", "xt_CT", "xt_conntrack", "xt_NFQUEUE",
	"nfnetlink_queue", "nf_tables", "nft_compat",
	// xchacha20poly1305 and what makes it fast, which nothing names.
	"libchacha20poly1305?", "chacha_x86_64?", "poly1305_x86_64?",
}

// writeInitramfs makes the guest's file system.
func writeInitramfs(ctx context.Context, dir, path string, opt Options) error {
	t := &Tree{entries: map[string]entry{}}
	if opt.Tree != nil {
		t.err = opt.Tree.err
		maps.Copy(t.entries, opt.Tree.entries)
	}
	// The kernel opens the one for init, and Go's runtime wants the other,
	// before there is a devtmpfs.
	t.device("/dev/console", 5, 1)
	t.device("/dev/null", 1, 3)
	for _, d := range []string{"/proc", "/sys", "/run", "/tmp", "/etc", "/var/log", DiskMount} {
		t.Dir(d)
	}
	if err := addPrograms(ctx, dir, t); err != nil {
		return err
	}
	config := agent.Config{NICDriver: "virtio_net", NICCPU: NICCPU, Commands: append(network(), opt.Setup...)}
	if opt.Disk != "" {
		config.Mount = [2]string{"/dev/vda", DiskMount}
	}
	var err error
	if config.Modules, err = addModules(ctx, t, opt); err != nil {
		return err
	}
	b, err := json.Marshal(config)
	if err != nil {
		return err
	}
	t.Write(agent.ConfigPath, 0o644, b)
	image, err := t.archive()
	if err != nil {
		return err
	}
	return os.WriteFile(path, image, 0o644)
}

// addPrograms adds init, busybox and ip.
func addPrograms(ctx context.Context, dir string, t *Tree) error {
	init := filepath.Join(dir, "init")
	if err := goBuild(ctx, "netsysrq/internal/vm/guest", init, "-trimpath", "-buildvcs=false", "-ldflags=-s -w"); err != nil {
		return err
	}
	t.Copy("/init", init)
	box, err := busybox(ctx)
	if err != nil {
		return err
	}
	t.Copy("/bin/busybox", box)
	t.Link("/bin/sh", "busybox")
	ip, err := find("ip")
	if err != nil {
		return err
	}
	if ip, err = filepath.EvalSymlinks(ip); err != nil {
		return err
	}
	t.Program(ip)
	if ip != guestIP {
		t.Link(guestIP, ip)
	}
	return nil
}

// addModules adds kernel modules and returns their paths in the guest, in the
// order to load them.
func addModules(ctx context.Context, t *Tree, opt Options) (paths []string, err error) {
	d, err := readDependencies(opt.Kernel.Modules)
	if err != nil {
		return nil, err
	}
	names := usual
	var own []string
	for _, m := range opt.Modules {
		if strings.ContainsRune(m, '/') {
			own = append(own, m)
		} else {
			names = append(names[:len(names):len(names)], m)
		}
	}
	files, err := d.order(names)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		ko, err := d.read(ctx, f)
		if err != nil {
			return nil, err
		}
		path := "/lib/modules/" + moduleName(f) + ".ko"
		t.Write(path, 0o644, ko)
		paths = append(paths, path)
	}
	hang, err := buildHang(ctx, opt.Kernel)
	if err != nil {
		return nil, err
	}
	for _, ko := range append([]string{hang}, own...) {
		path := "/lib/modules/" + filepath.Base(ko)
		t.Copy(path, ko)
		paths = append(paths, path)
	}
	return paths, nil
}

// guestIP is where the guest has iproute2's ip. Busybox has one too, that can do
// less; its shell prefers it where no path is given.
const guestIP = "/usr/sbin/ip"

// network is how the guest gets its addresses. Neighbours are static: the
// question for one could be what is lost.
func network() (commands [][]string) {
	host := net.HardwareAddr(HostMAC[:]).String()
	for _, c := range []string{
		"link set lo up",
		"link set eth0 up",
		fmt.Sprintf("addr add %v/24 dev eth0", GuestIPv4),
		fmt.Sprintf("-6 addr add %v/64 dev eth0 nodad", GuestIPv6),
		fmt.Sprintf("neigh replace %v lladdr %s dev eth0 nud permanent", HostIPv4, host),
		fmt.Sprintf("neigh replace %v lladdr %s dev eth0 nud permanent", HostIPv6, host),
		fmt.Sprintf("route add default via %v", HostIPv4),
		fmt.Sprintf("-6 route add default via %v", HostIPv6),
	} {
		commands = append(commands, append([]string{guestIP}, strings.Fields(c)...))
	}
	return commands
}

// busybox returns the static busybox in the cache.
func busybox(ctx context.Context) (path string, err error) {
	err = locked("busybox", func(cache string) error {
		found, err := filepath.Glob(filepath.Join(cache, "busybox", "*"))
		if err != nil {
			return err
		}
		if len(found) > 0 {
			path = found[len(found)-1]
			return nil
		}
		path, err = script(ctx, "busybox.sh", cache)
		return err
	})
	return path, err
}

// Iptables adds the host's iptables, both of its backends, with its extensions.
func (t *Tree) Iptables() error {
	for _, backend := range []string{"legacy", "nft"} {
		multi, err := find("xtables-" + backend + "-multi")
		if err != nil {
			return err
		}
		t.Program(multi)
		for _, family := range []string{"iptables", "ip6tables"} {
			for _, act := range []string{"", "-save", "-restore"} {
				t.Link("/usr/sbin/"+family+"-"+backend+act, multi)
			}
		}
	}
	for _, dir := range libraryDirs {
		dir, err := filepath.EvalSymlinks(filepath.Join(dir, "xtables"))
		if err != nil {
			continue
		}
		extensions, err := filepath.Glob(filepath.Join(dir, "*.so"))
		if err != nil {
			return err
		}
		for _, e := range extensions {
			// Some are links to others.
			real, err := filepath.EvalSymlinks(e)
			if err != nil {
				return err
			}
			t.Program(real)
			if real != e {
				t.Link(e, real)
			}
		}
		if len(extensions) > 0 {
			return t.err
		}
	}
	return fmt.Errorf("%w: iptables has no extensions", ErrUnavailable)
}
