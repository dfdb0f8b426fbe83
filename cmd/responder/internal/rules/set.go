// SPDX-License-Identifier: GPL-2.0-only

// Package rules puts the firewall rule of netsysrqd in place and takes it away.
//
// The rule lives in the raw table, ahead of connection tracking: a host whose
// connection table is full, a common way to hang, still hears requests.
//
//	PREROUTING ── UDP to us, our port ──> netsysrq
//	                                        not shaped like a request: drop
//	                                        netsysrq-allow: other sources: drop
//	                                        busy source:    NFQUEUE, second queue
//	                                        quiet source:   NFQUEUE, first queue
//	                                        drop
//	OUTPUT ──── UDP from our port ──────> netsysrq-reply: no tracking
//
// The names are in lower case because iptables allows no chain with the name
// of a target, and the kernel module brings a target NETSYSRQ.
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
	for _, c := range chains {
		lines = append(lines, ":"+c+" - [0:0]")
	}
	for _, hook := range hooks {
		lines = append(lines, fmt.Sprintf("-I %s 1 %s", hook, s.jump(f, hook)))
	}
	add := func(chain, format string, a ...any) {
		lines = append(lines, "-A "+chain+" "+fmt.Sprintf(format, a...))
	}
	add(chain, `-m u32 ! --u32 "%s" -j DROP`, shape(f))
	add(chain, "-j %s", allowChain)
	// A flood from a few sources fills the second queue only, and there too
	// a source that is being forged keeps its chance. The match recent is
	// made for this: when its table is full it forgets the source that was
	// silent for longest, where hashlimit drops packets. An IPv6 source is
	// its /64, within which an attacker has all the addresses.
	recent := "--name netsysrq4 --mask 255.255.255.255 --rsource"
	if f == IPv6 {
		recent = "--name netsysrq6 --mask ffff:ffff:ffff:ffff:: --rsource"
	}
	add(chain, "-m recent --update --seconds 1 --hitcount %d %s -j NFQUEUE --queue-num %d", hits, recent, s.Queue+1)
	// No --queue-bypass: without a daemon the packet goes nowhere.
	add(chain, "-m recent --set %s -j NFQUEUE --queue-num %d", recent, s.Queue)
	add(chain, "-j DROP")
	for _, spec := range s.allow(f) {
		add(allowChain, "%s", spec)
	}
	add(replyChain, "-m length --length %d -j CT --notrack", f.header()+8+auth.PacketSize)
	return lines
}

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
