// SPDX-License-Identifier: GPL-2.0-only

package host

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Identity is the user that the daemon becomes.
type Identity struct{ UID, GID int }

// Lookup finds a user by name, or reads "uid" or "uid:gid". It refuses root.
func Lookup(name string) (Identity, error) {
	id, err := lookup(name)
	if err != nil {
		return id, err
	}
	if id.UID == 0 || id.GID == 0 {
		return id, fmt.Errorf("user %q is root: the daemon needs a user of its own", name)
	}
	return id, nil
}

// Become is the user that this process is to be: as root the named one, or else
// who it is already, since the service manager has chosen that.
func Become(name string) (Identity, error) {
	if os.Geteuid() == 0 {
		return Lookup(name)
	}
	return Identity{os.Geteuid(), os.Getegid()}, nil
}

func lookup(name string) (id Identity, err error) {
	if u, err := user.Lookup(name); err == nil {
		if id.UID, err = strconv.Atoi(u.Uid); err != nil {
			return id, err
		}
		id.GID, err = strconv.Atoi(u.Gid)
		return id, err
	}
	uid, gid, both := strings.Cut(name, ":")
	if !both {
		gid = uid
	}
	if id.UID, err = strconv.Atoi(uid); err == nil {
		id.GID, err = strconv.Atoi(gid)
	}
	if err != nil {
		return id, fmt.Errorf("user %q does not exist: create it with useradd --system --shell /usr/sbin/nologin %s, or set user in the configuration", name, name)
	}
	return id, nil
}

// ProtectMemory keeps the daemon in memory and out of the OOM killer's sight.
// Pages are locked as they are first touched: locking all that the Go runtime
// reserves would cost far more than it ever uses. It does what it can; each error
// says what could not be done.
func ProtectMemory() (errs []error) {
	// The limit counts reserved pages too, and once CAP_IPC_LOCK is given up
	// an mmap beyond it would fail. Where it cannot be raised, only what is
	// mapped now is locked, the whole of the heap's arena included.
	flags := unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT
	unlimited := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unlimited); err != nil {
		flags &^= unix.MCL_FUTURE
		errs = append(errs, fmt.Errorf("raise the limit of locked memory, so that what is mapped later is locked too: %w", err))
	}
	if err := unix.Mlockall(flags); err != nil {
		errs = append(errs, fmt.Errorf("lock memory: %w", err))
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0); err != nil {
		errs = append(errs, fmt.Errorf("leave the OOM killer's list: %w", err))
	}
	return errs
}

// Drop makes every thread of the process the given user, with CAP_NET_ADMIN
// as its only capability, no way to gain more, and no core dumps. A process that
// is that user already must have the capability.
func Drop(id Identity) error {
	root := os.Geteuid() == 0
	if !root && !hasNetAdmin() {
		return errors.New("neither root nor with CAP_NET_ADMIN: start netsysrqd as root, it gives root up by itself, or from its unit")
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		// EINVAL: the kernel is older than the capability. Without root the
		// service manager has bounded the set.
		if err := prctl(unix.PR_CAPBSET_DROP, c); err != nil && !errors.Is(err, unix.EINVAL) && (root || !errors.Is(err, unix.EPERM)) {
			return fmt.Errorf("drop capability %d from the bounding set: %w", c, err)
		}
	}
	if root {
		if err := setIdentity(id); err != nil {
			return err
		}
	}
	if err := prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL); err != nil {
		return fmt.Errorf("clear the ambient capabilities: %w", err)
	}
	// Where nothing else is there to be given up, the unit may forbid the call.
	if err := setCapabilities(1 << unix.CAP_NET_ADMIN); err != nil && (root || !onlyNetAdmin()) {
		return fmt.Errorf("keep CAP_NET_ADMIN only: %w", err)
	}
	if err := prctl(unix.PR_SET_NO_NEW_PRIVS, 1); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	// Last, since a change of identity sets it to fs.suid_dumpable. It also
	// covers cores that are piped to a program, which RLIMIT_CORE does not.
	if err := prctl(unix.PR_SET_DUMPABLE, 0); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	return nil
}

func setIdentity(id Identity) error {
	if err := prctl(unix.PR_SET_KEEPCAPS, 1); err != nil {
		return fmt.Errorf("keep capabilities: %w", err)
	}
	if err := syscall.Setgroups(nil); err != nil {
		return fmt.Errorf("leave supplementary groups: %w", err)
	}
	if err := syscall.Setresgid(id.GID, id.GID, id.GID); err != nil {
		return fmt.Errorf("become gid %d: %w", id.GID, err)
	}
	if err := syscall.Setresuid(id.UID, id.UID, id.UID); err != nil {
		return fmt.Errorf("become uid %d: %w", id.UID, err)
	}
	return nil
}

func hasNetAdmin() bool { return permitted()&(1<<unix.CAP_NET_ADMIN) != 0 }

func onlyNetAdmin() bool { return permitted() == 1<<unix.CAP_NET_ADMIN }

// permitted are the capabilities that the calling thread may use, which is so of
// every thread of a process that has changed none.
func permitted() uint64 {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&hdr, &data[0]) != nil {
		return 0
	}
	return uint64(data[1].Permitted)<<32 | uint64(data[0].Permitted)
}

// prctl acts on every thread: capabilities and these flags belong to threads.
func prctl(option, arg uintptr) error {
	_, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, option, arg, 0, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// setCapabilities sets the permitted and effective sets of every thread and
// empties the inheritable one.
func setCapabilities(set uint64) error {
	hdr := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := &[2]unix.CapUserData{
		{Effective: uint32(set), Permitted: uint32(set)},
		{Effective: uint32(set >> 32), Permitted: uint32(set >> 32)},
	}
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(hdr)), uintptr(unsafe.Pointer(data)), 0)
	runtime.KeepAlive(hdr)
	runtime.KeepAlive(data)
	if errno != 0 {
		return errno
	}
	return nil
}
