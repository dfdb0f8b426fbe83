// SPDX-License-Identifier: GPL-2.0-only

package check

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"netsysrq/cmd/responder/internal/config"
)

// queue is a line of /proc/net/netfilter/nfnetlink_queue.
type queue struct {
	number  int
	port    int // netlink port of its reader; often the process id, not always
	waiting int
	// Dropped because the queue was full, and because the reader's socket was.
	full, socket int
	entered      int // packets that came into the queue
}

// judged counts the packets that the reader has given back, modulo the width of
// the kernel's counters.
func (q queue) judged() uint32 { return uint32(q.entered - q.waiting - q.socket) }

func parseQueues(text string) (list []queue) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 8 {
			continue
		}
		n := make([]int, 8)
		bad := false
		for i := range n {
			v, err := strconv.ParseInt(f[i], 10, 64)
			n[i], bad = int(v), bad || err != nil
		}
		if !bad {
			list = append(list, queue{number: n[0], port: n[1], waiting: n[2], full: n[5], socket: n[6], entered: n[7]})
		}
	}
	return list
}

// net reads a file of the caller's network namespace.
func (c *checker) net(name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(c.Proc, "thread-self/net", name))
	return string(b), err
}

// ownQueues are the two that the daemon reads, in order, those of them that
// somebody reads.
func (c *checker) ownQueues() ([]queue, error) {
	text, err := c.net("netfilter/nfnetlink_queue")
	first, second := int(c.cfg.Queue), int(c.cfg.Queue)+1
	list := slices.DeleteFunc(parseQueues(text), func(q queue) bool { return q.number != first && q.number != second })
	slices.SortFunc(list, func(a, b queue) int { return a.number - b.number })
	return list, err
}

// Daemon finds the process that reads both queues of a configuration. It is 0 if
// that process is not seen, and the error is fs.ErrNotExist if there is none.
func (h Host) Daemon(cfg *config.Config) (int, error) {
	c := &checker{Host: h, cfg: cfg}
	found, err := c.ownQueues()
	if err != nil {
		return 0, err
	}
	if len(found) < 2 {
		return 0, fs.ErrNotExist
	}
	first, second := c.netlinkOwner(found[0].port), c.netlinkOwner(found[1].port)
	if first != second {
		return 0, nil
	}
	return first, nil
}

// queues looks for the process that reads both queues: the daemon.
func (c *checker) queues() {
	found, err := c.ownQueues()
	if isPermission(err) {
		c.add("daemon", Unknown, "only root sees who reads the queue", "run this as root")
		return
	}
	alone := ""
	if c.report.Mode == KernelMode {
		alone = fmt.Sprintf("; the kernel obeys without its word, after %v", c.deadline())
	}
	if errors.Is(err, fs.ErrNotExist) {
		c.add("daemon", c.withoutDaemon(), "nothing reads packets: this kernel has not loaded nfnetlink_queue"+alone, c.start())
		return
	}
	if err != nil {
		c.add("daemon", Unknown, err.Error(), "")
		return
	}
	first, second := int(c.cfg.Queue), int(c.cfg.Queue)+1
	switch len(found) {
	case 0:
		c.add("daemon", c.withoutDaemon(), fmt.Sprintf("not running: nothing reads queue %d and %d", first, second)+alone, c.start())
		return
	case 1:
		c.add("daemon", c.withoutDaemon(), fmt.Sprintf("something reads queue %d, but not the other one of %d and %d",
			found[0].number, first, second)+alone, c.restart())
		return
	}
	a, b := c.netlinkOwner(found[0].port), c.netlinkOwner(found[1].port)
	if a != b {
		c.add("daemon", c.withoutDaemon(), fmt.Sprintf("queue %d is read by %s and queue %d by %s", found[0].number, c.process(a),
			found[1].number, c.process(b))+alone, "give netsysrqd queues of its own with the setting queue")
		return
	}
	c.read, c.daemon = true, a
	if why := c.stuck(found); why != "" {
		c.add("daemon", c.withoutDaemon(), why+alone, c.restart())
		return
	}
	text := fmt.Sprintf("%s reads queue %d and %d", c.process(a), first, second)
	state, next := OK, ""
	for _, q := range found {
		if q.waiting > 0 {
			text += fmt.Sprintf("; %s in queue %d", plural(q.waiting, "packet"), q.number)
		}
		if lost := q.full + q.socket; lost > 0 {
			text += fmt.Sprintf("; queue %d has lost %s", q.number, plural(lost, "packet"))
		}
	}
	// Packets of the second queue get lost in a flood; that is its purpose.
	if found[0].full+found[0].socket > 0 {
		state, next = Warn, "a flood, or a daemon that hung: see its log"
	}
	c.add("daemon", state, text, next)
}

// judgeWithin is far longer than a daemon that gets to run leaves every packet
// of a queue waiting.
const judgeWithin = time.Second

// stuck says why the daemon does not take packets, though it runs; "" if it
// does. Packets that wait prove nothing by themselves: some do at any moment of
// a flood.
func (c *checker) stuck(before []queue) string {
	switch c.processState() {
	case "T", "t":
		return c.process(c.daemon) + " is stopped, by a signal or a debugger"
	}
	if !slices.ContainsFunc(before, func(q queue) bool { return q.waiting > 0 }) {
		return ""
	}
	c.Sleep(judgeWithin)
	after, err := c.ownQueues()
	if err != nil || len(after) != len(before) {
		return ""
	}
	for i, q := range after {
		if was := before[i]; was.waiting > 0 && q.port == was.port && q.judged() == was.judged() {
			return fmt.Sprintf("%s hangs: %s in queue %d, and none is taken", c.process(c.daemon), plural(q.waiting, "packet"), q.number)
		}
	}
	return ""
}

// processState is the daemon's letter in proc(5), "" if it is not seen.
func (c *checker) processState() string {
	state, _, _ := strings.Cut(statusField(c.text(c.Proc, strconv.Itoa(c.daemon)+"/status"), "State"), " ")
	return state
}

// netlinkOwner finds the process whose netlink socket has a port, 0 if it
// cannot be seen.
func (c *checker) netlinkOwner(port int) int {
	text, err := c.net("netlink")
	if err != nil {
		return 0
	}
	const netfilter = "12"
	for line := range strings.Lines(text) {
		// sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode; Pid is unsigned
		// here and signed in the list of queues.
		f := strings.Fields(line)
		if len(f) < 10 || f[1] != netfilter {
			continue
		}
		if n, err := strconv.ParseInt(f[2], 10, 64); err == nil && uint32(n) == uint32(port) {
			return first(c.socketOwners(f[9]))
		}
	}
	return 0
}

func first(pids []int) int {
	if len(pids) == 0 {
		return 0
	}
	return pids[0]
}

// socketOwners finds the processes that have a socket open, those that are seen.
func (c *checker) socketOwners(inode string) (pids []int) {
	want := "socket:[" + inode + "]"
	processes, _ := filepath.Glob(filepath.Join(c.Proc, "[0-9]*"))
	for _, dir := range processes {
		files, err := os.ReadDir(filepath.Join(dir, "fd"))
		if err != nil {
			continue
		}
		for _, f := range files {
			if target, err := os.Readlink(filepath.Join(dir, "fd", f.Name())); err == nil && target == want {
				pid, _ := strconv.Atoi(filepath.Base(dir))
				pids = append(pids, pid)
				break
			}
		}
	}
	return pids
}

// process describes a process as "NAME (process PID)".
func (c *checker) process(pid int) string {
	if pid == 0 {
		return "a process that is not seen from here"
	}
	name, err := os.ReadFile(filepath.Join(c.Proc, strconv.Itoa(pid), "comm"))
	if err != nil {
		return fmt.Sprintf("process %d", pid)
	}
	return fmt.Sprintf("%s (process %d)", strings.TrimSpace(string(name)), pid)
}

// manager is the process that keeps sockets for others.
const manager = 1

// port looks for others that want our UDP port: the rule takes their packets,
// and the daemon, which answers from that port, cannot start.
func (c *checker) port() {
	for _, name := range []string{"udp", "udp6"} {
		text, err := c.net(name)
		if err != nil {
			continue // no IPv6
		}
		for _, inode := range bound(text, c.cfg.Port) {
			pids := c.socketOwners(inode)
			state := Warn
			if c.daemon == 0 {
				state = c.withoutDaemon()
			}
			switch {
			case len(pids) == 0 && !c.Root:
				c.add("port", Unknown, fmt.Sprintf("only root sees what is bound to UDP port %d", c.cfg.Port), "run this as root")
				return
			case len(pids) == 0 && c.read && c.daemon == 0:
				// Neither is seen: most likely they are the same.
			case slices.Contains(pids, c.daemon):
				// Systemd may have it too, and keeps it for the next daemon.
			case slices.Equal(pids, []int{manager}):
				c.add("port", state, fmt.Sprintf("%s is bound to UDP port %d: for a daemon that it is about to start, or for a unit of somebody else",
					c.process(manager), c.cfg.Port), "systemctl list-sockets shows those of others: end that one, or choose another port in the configuration")
				return
			default:
				c.add("port", state, fmt.Sprintf("%s is bound to UDP port %d; the rule keeps all packets to that port from it",
					c.process(first(pids)), c.cfg.Port), "end it, or choose another port in the configuration")
				return
			}
		}
	}
	c.add("port", OK, fmt.Sprintf("nothing else is bound to UDP port %d", c.cfg.Port), "")
}

// bound are the inodes of sockets bound to a port, from /proc/net/udp.
func bound(text string, port uint16) (inodes []string) {
	for line := range strings.Lines(text) {
		// sl local_address rem_address st queues tr tm->when retrnsmt uid timeout inode
		f := strings.Fields(line)
		if len(f) < 10 {
			continue
		}
		if _, p, ok := strings.Cut(f[1], ":"); ok && p == fmt.Sprintf("%04X", port) {
			inodes = append(inodes, f[9])
		}
	}
	return inodes
}
