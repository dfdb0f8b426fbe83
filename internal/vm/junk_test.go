// SPDX-License-Identifier: GPL-2.0-only

//go:build vm

package vm_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/exchange"
	"netsysrq/internal/vm"
)

// moduleStatus is what netsysrqd status --json says, as far as it is used here.
type moduleStatus struct {
	Packets map[string]uint64
	Replies uint64 `json:"replies_sent"`
	Unsent  uint64 `json:"replies_not_sent"`
	Keys    []struct {
		ID string `json:"key_id"`
	}
	Events []struct {
		Kind, By, Steps, Request string
		Result                   string  `json:"decision"`
		Boot                     float64 `json:"boottime_s"`
	}
}

func (h *host) module() (s moduleStatus) {
	h.Helper()
	out, err := h.Machine.Run(vm.Within(h, 10*time.Second), "netsysrqd", "status", "--json", "--events")
	if err == nil {
		err = json.Unmarshal([]byte(out), &s)
	}
	if err != nil {
		h.Fatal(err, out)
	}
	return s
}

// vector is a request of auth/testdata/vectors.
type vector struct {
	name, expect string
	packet       []byte
}

// vectors returns the requests, and the host key that they are for.
func vectors(t *testing.T) (list []vector, key auth.HostKey) {
	t.Helper()
	paths, _ := filepath.Glob("../../auth/testdata/vectors/request_*.txt")
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		head, body, _ := strings.Cut(string(b), "\n\n")
		header := map[string]string{}
		for line := range strings.Lines(head) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
			header[name] = strings.TrimSpace(value)
		}
		packet, err := hex.DecodeString(strings.Join(strings.Fields(body), ""))
		if err != nil {
			t.Fatal(path, err)
		}
		if header["key-id"] != "" {
			id, _ := hex.DecodeString(header["key-id"])
			request, _ := hex.DecodeString(header["request-key"])
			reply, _ := hex.DecodeString(header["reply-key"])
			key = auth.HostKey{ID: auth.KeyID(id), Request: [auth.KeySize]byte(request), Reply: [auth.KeySize]byte(reply)}
		}
		list = append(list, vector{strings.TrimSuffix(filepath.Base(path), ".txt"), header["expect"], packet})
	}
	if len(list) < 100 {
		t.Fatalf("%d vectors", len(list))
	}
	return list, key
}

var (
	sender4 = netip.MustParseAddrPort("192.0.2.1:5555")
	sender6 = netip.MustParseAddrPort("[2001:db8::1]:5555")
)

// Where things are in a frame.
const (
	ipAt   = 14
	udpAt4 = ipAt + 20
	udpAt6 = ipAt + 40
)

// fix4 makes the sum of an IPv4 header right again, and leaves the one of UDP out.
func fix4(f []byte) []byte {
	length := int(f[ipAt]&15) * 4
	header := f[ipAt : ipAt+length]
	header[10], header[11] = 0, 0
	sum := uint32(0)
	for i := 0; i < length; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(header[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(header[10:], ^uint16(sum))
	f[ipAt+length+6], f[ipAt+length+7] = 0, 0
	return f
}

// quietly does something to the host, and wants no reply, no event and few
// lines of the kernel's. It returns what the module counted.
func (h *host) quietly(what string, do func()) map[string]uint64 {
	h.Helper()
	before, mark := h.module(), h.Console.Mark()
	capture := h.Net.Capture()
	do()
	time.Sleep(300 * time.Millisecond)
	after := h.module()
	capture.Close()
	for f := range capture.Frames() {
		if from, to, _, ok := vm.ParseUDP(f.Data); ok {
			h.Errorf("%s: a reply from %v to %v", what, from, to)
		}
	}
	if n := len(after.Events) - len(before.Events); n != 0 || after.Replies != before.Replies {
		h.Errorf("%s: %d events, %d replies", what, n, after.Replies-before.Replies)
	}
	const most = 15
	if lines := h.Console.Since(mark); len(lines) > most {
		h.Errorf("%s: %d lines in the kernel's log, such as %q", what, len(lines), lines[0].Text)
	}
	counted := map[string]uint64{}
	for reason, n := range after.Packets {
		if d := n - before.Packets[reason]; d > 0 {
			counted[reason] = d
		}
	}
	h.Logf("%s: counted %v", what, counted)
	return counted
}

func (h *host) frame(f []byte) {
	h.Helper()
	if err := h.Net.SendFrame(f); err != nil {
		h.Fatal(err)
	}
}

func total(counted map[string]uint64) (sum uint64) {
	for _, n := range counted {
		sum += n
	}
	return sum
}

// TestNothingLetIn sends the module what must not get in, with no daemon about.
func TestNothingLetIn(t *testing.T) {
	list, key := vectors(t)
	a := newArms(t, "nsubh")
	allow, err := auth.ParseKeySet("nsubh")
	if err != nil {
		t.Fatal(err)
	}
	enrolment := auth.Enrolment{Operator: "vectors", Host: "web01.example.org", Allow: allow, Key: key}
	a.tree.Write("/run/vectors", 0o600, []byte(enrolment.Line()+"\n"))
	a.tree.Program("/usr/bin/setpriv")
	a.tree.Copy("/bin/merged", build(t, "netsysrq/internal/vm/merged"))
	h := &host{t, vm.New(t, vm.Options{Kernel: a.linux, Tree: a.tree, Setup: [][]string{
		{"/bin/busybox", "insmod", guestModule},
		{"netsysrqd", "keys", "add", "--file", "/run/enrolment"},
		{"netsysrqd", "keys", "add", "--file", "/run/vectors"},
		{"netsysrqd", "load-keys"},
		{"netsysrqd", "rules", "apply"},
		{"/bin/busybox", "sysctl", "-w", "kernel.sysrq=1"},
	}}), a.sealer}
	status := func(t *testing.T) {
		t.Helper()
		out, err := exchange.Status(t.Context(), h.asked(vm.GuestUDP4(auth.Port)), exchange.Options{Dial: h.Net.Dial})
		if err != nil || out.Kind != exchange.Answered {
			t.Fatalf("status: %v %+v", err, out)
		}
	}
	status(t)
	good := func() []byte {
		p := h.sealer.SealRequest(&auth.Request{ID: auth.RequestID{1}, Time: uint64(time.Now().UnixNano())})
		return p[:]
	}
	udp4, udp6 := vm.GuestUDP4(auth.Port), vm.GuestUDP6(auth.Port)

	t.Run("vectors", func(t *testing.T) {
		h := h.with(t)
		want := map[string]uint64{}
		counted := h.quietly("unauthentic vectors", func() {
			for _, v := range list {
				if v.expect == "ok" || v.expect == "malformed" {
					continue
				}
				want[v.expect] += 2
				h.frame(vm.UDPFrame(sender4, udp4, v.packet))
				h.frame(vm.UDPFrame(sender6, udp6, v.packet))
				time.Sleep(2 * time.Millisecond)
			}
		})
		if len(want) < 6 || !equal(counted, want) {
			t.Errorf("counted %v, want %v", counted, want)
		}
		// Those that open are answered, as the budget allows, and run nothing.
		before := h.module()
		want = map[string]uint64{}
		for _, v := range list {
			if v.expect == "ok" || v.expect == "malformed" {
				want[v.expect]++
				h.frame(vm.UDPFrame(sender4, udp4, v.packet))
				time.Sleep(60 * time.Millisecond) // the time in which the budget gains an answer
			}
		}
		after := h.module()
		if after.Replies-before.Replies != want["ok"]+want["malformed"] || after.Packets["malformed"]-before.Packets["malformed"] != want["malformed"] {
			t.Errorf("%d replies, %d malformed; want %v", after.Replies-before.Replies, after.Packets["malformed"]-before.Packets["malformed"], want)
		}
		for _, e := range after.Events {
			if e.Kind == "step" || e.Kind == "settled" {
				t.Errorf("event %+v", e)
			}
		}
	})
	t.Run("lengths", func(t *testing.T) {
		h := h.with(t)
		const longest = 1400
		counted := h.quietly("all lengths but one", func() {
			for n := range longest {
				if n == auth.PacketSize {
					continue
				}
				payload := bytes.Repeat(good(), n/auth.PacketSize+1)[:n]
				h.frame(vm.UDPFrame(sender4, udp4, payload))
				if n%16 == 0 {
					time.Sleep(time.Millisecond)
				}
			}
		})
		if n := counted["length"] + counted["source"] + counted["datagram"]; n < longest*9/10 || n != total(counted) {
			t.Errorf("counted %v", counted)
		}
	})
	t.Run("bits", func(t *testing.T) {
		h := h.with(t)
		counted := h.quietly("each bit flipped", func() {
			for bit := range auth.PacketSize * 8 {
				p := good()
				p[bit/8] ^= 1 << (bit % 8)
				h.frame(vm.UDPFrame(sender4, udp4, p))
				time.Sleep(300 * time.Microsecond)
			}
		})
		if total(counted) != auth.PacketSize*8 || counted["forged"] < 100*8 {
			t.Errorf("counted %v", counted)
		}
	})
	t.Run("datagrams", func(t *testing.T) {
		h := h.with(t)
		counted := h.quietly("odd datagrams", func() {
			for _, f := range oddFrames(good) {
				h.frame(f)
				time.Sleep(time.Millisecond)
			}
		})
		if counted["datagram"] == 0 || counted["source"] == 0 || total(counted) != counted["datagram"]+counted["source"]+counted["length"] {
			t.Errorf("counted %v", counted)
		}
		random := rand.New(rand.NewPCG(1, 2))
		h.quietly("20,000 random changes", func() {
			for i := range 20000 {
				p := good()
				p[len(p)-1] ^= 1 // a change of what is not sealed would not be junk
				f := vm.UDPFrame(sender4, udp4, p)
				if i%2 == 0 {
					f = vm.UDPFrame(sender6, udp6, p)
				}
				// Beyond the Ethernet header, so that it comes to the host.
				for range 1 + random.IntN(3) {
					f[ipAt+random.IntN(len(f)-ipAt)] ^= byte(1 + random.IntN(255))
				}
				if i%4 == 1 {
					f[ipAt] = 0x45
					fix4(f) // else the sum of the header would end most of them
				}
				h.frame(f)
				if i%32 == 0 {
					time.Sleep(time.Millisecond)
				}
			}
		})
	})
	t.Run("merged", func(t *testing.T) {
		h.with(t).merged(udp4)
		h.with(t).merged(udp6)
	})
	t.Run("namespaces and capabilities", func(t *testing.T) { h.with(t).fences() })
	status(t)
}

// oddFrames are authentic requests in datagrams that are not whole, or from and
// to where no request comes from and goes to.
func oddFrames(good func() []byte) (frames [][]byte) {
	to4, to6 := vm.GuestUDP4(auth.Port), vm.GuestUDP6(auth.Port)
	v4 := func(change func(f []byte) []byte) {
		frames = append(frames, fix4(change(vm.UDPFrame(sender4, to4, good()))))
	}
	v6 := func(change func(f []byte) []byte) { frames = append(frames, change(vm.UDPFrame(sender6, to6, good()))) }
	put := binary.BigEndian.PutUint16
	for _, n := range []uint16{0, 7, 8, 100, 135, 137, 200, 1400, 0xffff} { // the UDP length
		v4(func(f []byte) []byte { put(f[udpAt4+4:], n); return f })
		v6(func(f []byte) []byte { put(f[udpAt6+4:], n); return f })
	}
	for _, n := range []uint16{0, 20, 27, 28, 100, 155, 157, 300} { // the IP length
		v4(func(f []byte) []byte { put(f[ipAt+2:], n); return f })
		v6(func(f []byte) []byte { put(f[ipAt+4:], n); return f })
	}
	// More behind the datagram, which both lengths count.
	for _, more := range []int{1, 8, 128} {
		v4(func(f []byte) []byte {
			put(f[ipAt+2:], uint16(28+128+more))
			return append(f, make([]byte, more)...)
		})
	}
	for _, fragment := range []uint16{0x2000, 0x0001, 0x2001, 0x3fff} { // flags and offset
		v4(func(f []byte) []byte { put(f[ipAt+6:], fragment); return f })
	}
	// A fragment header in front: the first of several, a later one.
	for _, offset := range []uint16{1, 8, 9} {
		v6(func(f []byte) []byte {
			header := []byte{17, 0, byte(offset >> 8), byte(offset), 1, 2, 3, 4}
			f[ipAt+6] = 44
			put(f[ipAt+4:], uint16(8+8+128))
			return append(f[:udpAt6:udpAt6], append(header, f[udpAt6:]...)...)
		})
	}
	// UDP behind a header that hides it, and a header that never ends.
	v6(func(f []byte) []byte {
		f[ipAt+6] = 59 // no next header
		return f
	})
	for _, source := range []string{"0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "255.255.255.255", "192.0.2.2", "192.0.2.255"} {
		from := netip.AddrPortFrom(netip.MustParseAddr(source), 5555)
		frames = append(frames, vm.UDPFrame(from, to4, good()))
	}
	for _, source := range []string{"::", "::1", "ff02::1", "ff0e::1"} {
		from := netip.AddrPortFrom(netip.MustParseAddr(source), 5555)
		frames = append(frames, vm.UDPFrame(from, to6, good()))
	}
	frames = append(frames, vm.UDPFrame(netip.AddrPortFrom(sender4.Addr(), 0), to4, good()), vm.UDPFrame(netip.AddrPortFrom(sender6.Addr(), 0), to6, good()))
	for _, destination := range []string{"224.0.0.1", "255.255.255.255", "192.0.2.255", "192.0.2.77", "127.0.0.1"} {
		frames = append(frames, vm.UDPFrame(sender4, netip.AddrPortFrom(netip.MustParseAddr(destination), auth.Port), good()))
	}
	for _, destination := range []string{"ff02::1", "2001:db8::77", "::1"} {
		frames = append(frames, vm.UDPFrame(sender6, netip.AddrPortFrom(netip.MustParseAddr(destination), auth.Port), good()))
	}
	return frames
}

func equal(a, b map[string]uint64) bool {
	for k, n := range a {
		if b[k] != n {
			return false
		}
	}
	return len(a) == len(b)
}

// merged sends repeats as one packet, which is what a host gets of those that
// piled up while it hung: it must hear them all the same.
func (h *host) merged(to netip.AddrPort) {
	h.Helper()
	// A rule behind the module's chain would not see them: one ahead of it
	// counts what is longer than any request.
	iptables := "/usr/sbin/iptables-legacy"
	if to.Addr().Is6() {
		iptables = "/usr/sbin/ip6tables-legacy"
	}
	run := func(command ...string) string {
		h.Helper()
		out, err := h.Machine.Run(vm.Within(h, 10*time.Second), command...)
		if err != nil {
			h.Fatal(err, out)
		}
		return out
	}
	run(iptables, "-t", "raw", "-I", "PREROUTING", "1", "-p", "udp", "--dport", "9", "-m", "length", "--length", "200:65535")
	defer run(iptables, "-t", "raw", "-D", "PREROUTING", "1")

	out, err := exchange.Status(h.Context(), h.asked(to), exchange.Options{Dial: h.Net.Dial})
	if err != nil || out.Reply == nil {
		h.Fatal(err)
	}
	list, err := auth.ParseSteps("h")
	if err != nil {
		h.Fatal(err)
	}
	request := auth.Request{Op: auth.OpRun, ID: auth.RequestID{7, byte(to.Addr().BitLen())}, Challenge: out.Reply.Challenge}
	request.SetSteps(list)
	packet := h.sealer.SealRequest(&request)
	forged := packet
	forged[127] ^= 1
	const repeats = 9
	data := append(bytes.Repeat(packet[:], repeats-1), forged[:]...) // junk among them changes nothing
	data = append(data, packet[:100]...)                             // nor does a rest that is too short
	data = slices.Concat(data[:128], data[128*(repeats-1):128*repeats], data[128:128*(repeats-1)], data[128*repeats:])

	before, mark := h.module(), h.Console.Mark()
	if out, code, err := h.Exec(vm.Within(h, 10*time.Second), data, "/bin/merged", to.String(), "128"); err != nil || code != 0 {
		h.Fatal(err, code, out)
	}
	if _, err := h.Console.Await(vm.Within(h, 3*time.Second), mark, "sysrq: HELP"); err != nil {
		h.Error(err)
	}
	after := h.module()
	counted := map[string]uint64{}
	for reason, n := range after.Packets {
		if n -= before.Packets[reason]; n > 0 {
			counted[reason] = n
		}
	}
	if want := map[string]uint64{"ok": 1, "pending": repeats - 2, "forged": 1, "length": 1}; !equal(counted, want) {
		h.Errorf("counted %v, want %v", counted, want)
	}
	switch seen := strings.Fields(run(iptables, "-t", "raw", "-nvxL", "PREROUTING", "1")); {
	case len(seen) > 0 && seen[0] == "1":
	case strings.HasPrefix(vm.TestKernel(), "5."):
		// Nor does it merge what nobody listens to: that came with 5.12.
		h.Logf("this kernel's loopback takes packets apart")
	default:
		h.Errorf("they did not come as one packet, so this proves nothing: %v", seen)
	}
}

// fences are what keeps others on the same machine out.
func (h *host) fences() {
	h.Helper()
	const nobody = "65534"
	as := func(capabilities string, command ...string) []string {
		args := []string{"setpriv", "--reuid", nobody, "--regid", nobody, "--clear-groups"}
		if capabilities != "" {
			args = append(args, "--inh-caps", capabilities, "--ambient-caps", capabilities)
		}
		return append(args, command...)
	}
	for _, c := range []struct {
		name    string
		command []string
		want    string // in what it says; empty: it works
	}{
		{"no capability, no netlink", as("", "netsysrqd", "status"), "not allowed"},
		{"CAP_NET_ADMIN may look", as("+net_admin", "netsysrqd", "status"), ""},
		{"another network namespace sees no module", []string{"/bin/busybox", "unshare", "-n", "netsysrqd", "status"}, "not loaded"},
		{"nor has the target", []string{"/bin/busybox", "unshare", "-n", "/usr/sbin/iptables-legacy", "-t", "raw", "-A", "PREROUTING", "-p", "udp", "-j", "NETSYSRQ"}, "ermi"},
		{"the target wants UDP", []string{"/usr/sbin/iptables-legacy", "-t", "raw", "-A", "PREROUTING", "-p", "tcp", "-j", "NETSYSRQ"}, "iptables"},
		{"and raw", []string{"/usr/sbin/iptables-legacy", "-t", "mangle", "-A", "PREROUTING", "-p", "udp", "-j", "NETSYSRQ"}, "iptables"},
	} {
		out, err := h.Machine.Run(vm.Within(h, 10*time.Second), c.command...)
		if err != nil {
			out += err.Error()
		}
		if (err == nil) != (c.want == "") || !strings.Contains(out, c.want) {
			h.Errorf("%s: %v %q, want %q", c.name, err, out, c.want)
		}
	}
	// Keys need CAP_SYS_BOOT. The module is loaded anew, so that it has none.
	for _, command := range [][]string{{"netsysrqd", "rules", "remove"}, {"/bin/busybox", "rmmod", "xt_NETSYSRQ"}, {"/bin/busybox", "insmod", guestModule}} {
		if out, err := h.Machine.Run(vm.Within(h, 10*time.Second), command...); err != nil {
			h.Fatal(err, out)
		}
	}
	out, err := h.Machine.Run(vm.Within(h, 10*time.Second), as("+net_admin", "netsysrqd", "load-keys")...)
	if err == nil || !strings.Contains(out+err.Error(), "CAP_SYS_BOOT") || len(h.module().Keys) != 0 {
		h.Errorf("load-keys with CAP_NET_ADMIN alone: %v %s, %d keys", err, out, len(h.module().Keys))
	}
	out, err = h.Machine.Run(vm.Within(h, 10*time.Second), as("+net_admin,+sys_boot", "netsysrqd", "load-keys")...)
	if err != nil || len(h.module().Keys) != 2 {
		h.Errorf("load-keys with both: %v %s, %d keys", err, out, len(h.module().Keys))
	}
	if out, err := h.Machine.Run(vm.Within(h, 10*time.Second), "netsysrqd", "rules", "apply"); err != nil {
		h.Fatal(err, out)
	}
}
