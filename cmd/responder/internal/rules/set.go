// SPDX-License-Identifier: GPL-2.0-only

// Package rules puts the firewall rule of netsysrqd in place and takes it away.
//
// The rule lives in the raw table, ahead of connection tracking: a host whose
// connection table is full, a common way to hang, still hears requests. Where
// the kernel module is loaded, its target sees every packet before the queue:
// what hangs may be the queue's reader.
//
//	PREROUTING ── UDP to us, our port ──> netsysrq
//
//	without the module:                   not shaped like a request: drop
//	                                      netsysrq-allow: other sources: drop
//	                                      busy source:    NFQUEUE, second queue
//	                                      quiet source:   NFQUEUE, first queue
//	                                      drop
//	OUTPUT ──── UDP from our port ──────> netsysrq-reply: no tracking
//
//	with it:                              netsysrq-allow: other sources: drop
//	                                      NETSYSRQ marks the packet, or drops it
//	                                      authentic:      NFQUEUE, first queue
//	                                      not shaped like a request: drop
//	                                      some of the junk: NFQUEUE, second queue
//	                                      drop
//
// The names are in lower case because iptables allows no chain with the name
// of a target, and NETSYSRQ is one.
package rules

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"netsysrq/auth"
)

// Chains of our own. No other chain is ever touched, but for the rules in it
// that lead to these.
const (
	chain      = "netsysrq"
	allowChain = "netsysrq-allow"
	replyChain = "netsysrq-reply"
)

var chains = []string{chain, allowChain, replyChain}

// Marks that the kernel module's target sets, in the bits of the mask. It sets
// both bits of every packet that goes on, and no packet leaves our chain, so
// whoever else uses these bits is not disturbed and does not disturb. No bit is
// without users: these two are far from the low ones that people choose by hand
// and from those of Kubernetes (14, 15), Tailscale (16-23) and Weave Net (17).
const (
	AuthenticMark uint32 = 0x10000000
	JunkMark      uint32 = 0x20000000
	MarkMask      uint32 = 0x30000000
)

// Family is a version of IP.
type Family int

// Families.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// Families are both of them.
var Families = []Family{IPv4, IPv6}

func (f Family) String() string { return "IPv" + strconv.Itoa(int(f)) }

// Set is what the rules depend on.
type Set struct {
	Port      uint16
	Queue     uint16 // and the next one
	AllowFrom []netip.Prefix
	Backend   string // auto, nft or legacy
	// Kernel reports that the kernel module is loaded: the rules lead through
	// its target. See ModuleLoaded.
	Kernel bool
	// Path is searched for the commands, as $PATH, and /usr/sbin and /sbin
	// after it.
	Path string
}

// Text returns the input for iptables-restore --noflush that puts the rules of
// a family in place on a host that has none of ours.
func (s Set) Text(f Family) string {
	return restore(s.rules(f, busyHits()))
}

// restore returns the input for iptables-restore that does what lines say.
func restore(lines ...[]string) string {
	return "*raw\n" + strings.Join(slices.Concat(lines...), "\n") + "\nCOMMIT\n"
}

// A rule is written here exactly as iptables-save prints it, so that a look at
// the table tells whether ours are in it.
func (s Set) rules(f Family, hits int) (lines []string) {
	ours, from := chains, hooks
	if s.Kernel {
		// The module's own replies are not tracked anyway.
		ours, from = []string{chain, allowChain}, []string{"PREROUTING"}
	}
	for _, c := range ours {
		lines = append(lines, ":"+c+" - [0:0]")
	}
	for _, hook := range from {
		lines = append(lines, fmt.Sprintf("-I %s 1 %s", hook, s.jump(f, hook)))
	}
	specs := s.daemonRules(f, hits)
	if s.Kernel {
		specs = s.kernelRules(f)
	}
	for _, spec := range specs {
		lines = append(lines, "-A "+chain+" "+spec)
	}
	for _, spec := range s.allow(f) {
		lines = append(lines, "-A "+allowChain+" "+spec)
	}
	if !s.Kernel {
		// Replies and pieces of the log.
		lines = append(lines, fmt.Sprintf("-A %s -m length --length %d:%d -j CT --notrack", replyChain, f.header()+8+auth.PacketSize, f.header()+8+auth.PieceSize))
	}
	return lines
}

// daemonRules are those of our chain in daemon-only mode.
func (s Set) daemonRules(f Family, hits int) []string {
	// A flood from a few sources fills the second queue only, and there too
	// a source that is being forged keeps its chance. The match recent is
	// made for this: when its table is full it forgets the source that was
	// silent for longest, where hashlimit drops packets. An IPv6 source is
	// its /64, within which an attacker has all the addresses.
	recent := "--name netsysrq4 --mask 255.255.255.255 --rsource"
	if f == IPv6 {
		recent = "--name netsysrq6 --mask ffff:ffff:ffff:ffff:: --rsource"
	}
	return []string{
		dropShapeless(f),
		"-j " + allowChain,
		fmt.Sprintf("-m recent --update --seconds 1 --hitcount %d %s %s", hits, recent, toQueue(s.Queue+1)),
		fmt.Sprintf("-m recent --set %s %s", recent, toQueue(s.Queue)),
		"-j DROP",
	}
}

// kernelRules are those of our chain where the module is loaded. Nobody who is
// not allowed gets as far as its target; what it makes of the others comes
// before any look at their shape, since requests that piled up while the host
// hung may come as one large packet, and since it counts all junk by reason.
// That is why a sample of the junk is enough for the daemon's log.
func (s Set) kernelRules(f Family) []string {
	return []string{
		"-j " + allowChain,
		"-p udp " + target,
		fmt.Sprintf("-m mark --mark %#x/%#x %s", AuthenticMark, MarkMask, toQueue(s.Queue)),
		dropShapeless(f),
		fmt.Sprintf("-m mark --mark %#x/%#x -m limit --limit 100/sec --limit-burst 100 %s", JunkMark, MarkMask, toQueue(s.Queue+1)),
		"-j DROP",
	}
}

// target is how a rule leads to the module's target, which wants a rule for UDP.
var target = fmt.Sprintf("-j NETSYSRQ --authentic-mark %#x/%#x --junk-mark %#x/%#x", AuthenticMark, MarkMask, JunkMark, MarkMask)

// toQueue has no --queue-bypass: without a daemon the packet goes nowhere.
func toQueue(n uint16) string { return fmt.Sprintf("-j NFQUEUE --queue-num %d", n) }

func dropShapeless(f Family) string { return fmt.Sprintf(`-m u32 ! --u32 "%s" -j DROP`, shape(f)) }

// hooks are the built-in chains that lead to ours.
var hooks = []string{"PREROUTING", "OUTPUT"}

func (s Set) jump(f Family, hook string) string {
	if hook == "OUTPUT" {
		return fmt.Sprintf("-p udp -m udp --sport %d -j %s", s.Port, replyChain)
	}
	// The nft backend looks for the port of a later fragment too, where there
	// is data of somebody else's packet.
	whole := ""
	if f == IPv4 {
		whole = "! -f "
	}
	return fmt.Sprintf("-p udp %s-m udp --dport %d -m addrtype --dst-type LOCAL -j %s", whole, s.Port, chain)
}

func (f Family) header() int {
	if f == IPv6 {
		return 40
	}
	return 20
}

// shape is what a packet must look like to be worth a look: whole, of the one
// length that there is, and with the magic in front. The match u32 reads 32
// bits at an offset: "OFFSET>>SHIFT&MASK=VALUE"; "@" moves the origin.
func shape(f Family) string {
	const length, magic = 8 + auth.PacketSize, 0x4e535251
	if f == IPv6 {
		// The payload length and, next to it, "UDP follows": a packet with
		// extension headers, fragments among them, is not for us.
		return fmt.Sprintf("0x4>>0x8=0x%x11&&0x2c>>0x10=0x%x&&0x30=0x%x", length, length, magic)
	}
	// Not the first of several fragments; then the UDP header, wherever IP
	// options have pushed it.
	return fmt.Sprintf("0x4&0x3fff=0x0&&0x0>>0x16&0x3c@0x4>>0x10=0x%x&&0x0>>0x16&0x3c@0x8=0x%x", length, magic)
}

// allow are the rules of the chain that drops all sources but the allowed.
func (s Set) allow(f Family) (specs []string) {
	if len(s.AllowFrom) == 0 {
		return []string{"-j RETURN"}
	}
	for _, p := range s.AllowFrom {
		switch {
		case p.Addr().Is4() != (f == IPv4):
		case p.Bits() == 0:
			specs = append(specs, "-j RETURN")
		default:
			specs = append(specs, "-s "+p.String()+" -j RETURN")
		}
	}
	return append(specs, "-j DROP")
}

// A source is busy once it sent that many packets within a second. A sender
// sends at most two a second and a retry of a burst is still far below.
const defaultHits = 64

// hitLimit is a parameter of the kernel's module xt_recent: the most that a
// rule may ask for, or 0 for no limit. On kernels before 3.19 it was 20.
var hitLimit = "/sys/module/xt_recent/parameters/ip_pkt_list_tot"

// busyHits is defaultHits, or less where the kernel would refuse that.
func busyHits() int {
	b, err := os.ReadFile(hitLimit)
	if err != nil {
		return defaultHits
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || n <= 0 {
		return defaultHits
	}
	return min(n, defaultHits)
}
