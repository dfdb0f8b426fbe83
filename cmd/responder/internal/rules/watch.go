// SPDX-License-Identifier: GPL-2.0-only

package rules

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	// tick is how often the cheap signs of a change are looked at.
	tick = time.Second
	// settle is how long after a change the rules are looked at: whoever
	// changes the firewall mostly does so in several steps. Where something
	// changes all the time, they are looked at every patience.
	settle   = 300 * time.Millisecond
	patience = time.Second
	// fullCheck is how often they are looked at all the same.
	fullCheck = time.Minute
)

// Watcher puts the rules back when something has flushed or changed them.
type Watcher struct {
	// Set returns what the rules are to be now.
	Set func() (Set, error)
	Log *slog.Logger
	// Ready, if not nil, is called once the rules have been looked at, and every
	// second from then on until it succeeds.
	Ready func() error
	// Past, if not nil, is called as long as the rules lead past the kernel
	// module, though it is loaded.
	Past func()

	budget budget
	path   string // where the commands were searched for
	warned string // what the log was warned of last
}

// Run watches until the context ends.
func (w *Watcher) Run(ctx context.Context) error {
	changes := make(chan struct{}, 1)
	stop, err := listen(changes)
	if err != nil {
		w.Log.Debug("no news from nf_tables", "err", err)
	}
	defer stop()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	due := time.NewTimer(0)
	defer due.Stop()
	checked, signs := time.Now(), ""
	var changed time.Time // the first change since then
	looked := false
	change := func() {
		if changed.IsZero() {
			changed = time.Now()
		}
		due.Reset(min(settle, time.Until(changed.Add(patience))))
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changes:
			change()
		case <-ticker.C:
			if looked {
				w.ready()
			}
			if s := w.signs(); s != signs || time.Since(checked) > fullCheck {
				signs = s
				change()
			}
		case <-due.C:
			checked, changed = time.Now(), time.Time{}
			wait := w.check(ctx)
			signs = w.signs()
			looked = true
			w.ready()
			if wait > 0 {
				due.Reset(wait)
			}
		}
	}
}

func (w *Watcher) ready() {
	if w.Ready != nil && w.Ready() == nil {
		w.Ready = nil
	}
}

// check looks at the rules, and mends them unless that was done too often: then
// it returns when to look again.
func (w *Watcher) check(ctx context.Context) (wait time.Duration) {
	set, err := w.Set()
	if err != nil {
		w.Log.Error("firewall rules not looked at", "err", err)
		return 0
	}
	w.path = set.find("iptables")
	found, err := set.Status(ctx)
	if err != nil && ctx.Err() != nil {
		return 0
	}
	if err != nil {
		w.Log.Error("firewall rules not looked at", "err", err)
		return 0
	}
	var wrong []string
	for _, f := range found {
		if f.State != Present && f.State != NoFamily {
			wrong = append(wrong, fmt.Sprintf("%v %v", f.Family, f.State))
		}
	}
	if wrong == nil {
		return 0
	}
	now := time.Now()
	wait, first := w.budget.take(now)
	if wait > 0 {
		if first {
			w.Log.Error("firewall rules are lost again and again: something else removes them; trying again later",
				"rules", strings.Join(wrong, ", "), "pause", wait.Round(time.Second))
		}
		return wait
	}
	results, err := set.Apply(ctx)
	if err != nil && ctx.Err() != nil {
		return 0
	}
	if err != nil {
		w.Log.Error("firewall rules lost, and not put back", "rules", strings.Join(wrong, ", "), "err", err)
		return 0
	}
	changed, past := false, false
	var warnings []string
	for _, r := range results {
		changed, past = changed || r.Changed, past || r.Past
		if r.Warning != "" {
			warnings = append(warnings, fmt.Sprintf("%v (iptables-%s): %s", r.Family, r.Backend, r.Warning))
		}
	}
	if past && w.Past != nil {
		w.Past()
	}
	if !changed {
		w.budget.giveBack()
	}
	warning := strings.Join(warnings, "; ")
	switch {
	case changed && warning != "":
		w.Log.Warn("firewall rules were not in place: put back", "rules", strings.Join(wrong, ", "), "warning", warning)
	case changed:
		w.Log.Warn("firewall rules were not in place: put back", "rules", strings.Join(wrong, ", "))
	case warning != "" && warning != w.warned:
		// What cannot be mended is looked at every minute, and said once.
		w.Log.Warn("firewall rules cannot be mended", "rules", strings.Join(wrong, ", "), "warning", warning)
	}
	w.warned = warning
	return 0
}

// signs is cheap to get, and another one when the legacy tables, the way through
// the module or what iptables stands for have changed.
func (w *Watcher) signs() string {
	iptables, _ := filepath.EvalSymlinks(w.path)
	return fmt.Sprint(ModuleLoaded(), legacySize(IPv4), legacySize(IPv6), iptables)
}

// legacySize is the number of entries and bytes of the legacy raw table, or
// zeros if there is none. Asking for one that does not exist would make it.
func legacySize(f Family) [2]uint32 {
	domain, level, names := unix.AF_INET, unix.SOL_IP, "ip_tables_names"
	if f == IPv6 {
		domain, level, names = unix.AF_INET6, unix.SOL_IPV6, "ip6_tables_names"
	}
	b, err := os.ReadFile(procNet + names)
	if err != nil || !strings.Contains("\n"+string(b), "\nraw\n") {
		return [2]uint32{}
	}
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return [2]uint32{}
	}
	defer unix.Close(fd)
	// struct ipt_getinfo and ip6t_getinfo, include/uapi/linux/netfilter_ipv4/ip_tables.h
	var info struct {
		name                  [32]byte
		hooks                 uint32
		entry, underflow      [5]uint32
		entries, sizeInKernel uint32
	}
	copy(info.name[:], "raw")
	const getInfo = 64 // IPT_SO_GET_INFO, IP6T_SO_GET_INFO
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), getInfo,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return [2]uint32{}
	}
	return [2]uint32{info.entries, info.sizeInKernel}
}

// listen tells of every change of nf_tables, until stop is called.
func listen(changes chan<- struct{}) (stop func(), err error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return func() {}, err
	}
	if err := conn.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		conn.Close()
		return func() {}, err
	}
	go func() {
		for {
			_, err := conn.Receive()
			if err != nil && !isOverrun(err) {
				return
			}
			select {
			case changes <- struct{}{}:
			default:
			}
		}
	}()
	return func() { conn.Close() }, nil
}

// isOverrun reports whether so much changed that news of it were lost.
func isOverrun(err error) bool {
	return errors.Is(err, unix.ENOBUFS)
}
