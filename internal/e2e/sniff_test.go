// SPDX-License-Identifier: GPL-2.0-only

//go:build integration

package e2e_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"netsysrq/auth"
	"netsysrq/internal/flood"
	"netsysrq/internal/netlab"
	"netsysrq/nfq"
)

// sniffer notes every IP packet that comes in by the lab's device of one
// namespace, before any firewall, except for what IPv6 says about neighbours
// and groups.
type sniffer struct {
	h    *host
	fd   int
	stop chan struct{}
	done chan struct{}

	mu      sync.Mutex
	packets [][]byte // from the IP header on
}

const packetIgnoreOutgoing = 23 // PACKET_IGNORE_OUTGOING, linux/if_packet.h

func htons(v uint16) uint16 { return v<<8 | v>>8 }

func (h *host) sniff(ns string) *sniffer {
	h.Helper()
	s := &sniffer{h: h, stop: make(chan struct{}), done: make(chan struct{})}
	err := h.lab.Do(ns, func() error {
		dev, err := net.InterfaceByName(netlab.Device)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		s.fd = fd
		tv := unix.NsecToTimeval(int64(20 * time.Millisecond))
		for _, err := range []error{
			unix.SetsockoptInt(fd, unix.SOL_PACKET, packetIgnoreOutgoing, 1),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20),
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv),
			unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: dev.Index}),
		} {
			if err != nil {
				unix.Close(fd)
				return err
			}
		}
		return nil
	})
	if err != nil {
		h.Fatal(err)
	}
	go s.run()
	h.Cleanup(s.close)
	return s
}

func (s *sniffer) run() {
	defer close(s.done)
	buf := make([]byte, 1<<16)
	for {
		select {
		case <-s.stop:
			return
		default:
		}
		n, from, err := unix.Recvfrom(s.fd, buf, 0)
		if err != nil {
			continue // nothing for 20 ms
		}
		ll, ok := from.(*unix.SockaddrLinklayer)
		if !ok || htons(ll.Protocol) != unix.ETH_P_IP && htons(ll.Protocol) != unix.ETH_P_IPV6 || housekeeping(buf[:n]) {
			continue
		}
		s.mu.Lock()
		s.packets = append(s.packets, append([]byte(nil), buf[:n]...))
		s.mu.Unlock()
	}
}

// housekeeping reports IGMP, neighbour discovery and multicast listeners.
func housekeeping(p []byte) bool {
	switch {
	case len(p) >= 20 && p[0]>>4 == 4:
		return p[9] == unix.IPPROTO_IGMP
	case len(p) > 48 && p[0]>>4 == 6:
		next, at := p[6], 40
		if next == 0 { // hop by hop, as listeners' reports have it
			next, at = p[40], 48
		}
		if next != unix.IPPROTO_ICMPV6 {
			return false
		}
		kind := p[at]
		return kind >= 130 && kind <= 137 || kind == 143
	}
	return false
}

func (s *sniffer) close() {
	select {
	case <-s.done:
		return
	default:
	}
	close(s.stop)
	<-s.done
	unix.Close(s.fd)
}

// drain waits until nothing has come for a moment and returns what was noted
// since the last drain.
func (s *sniffer) drain() [][]byte {
	s.h.Helper()
	for n := -1; ; time.Sleep(60 * time.Millisecond) {
		s.mu.Lock()
		if len(s.packets) == n {
			out := s.packets
			s.packets = nil
			s.mu.Unlock()
			if stats, err := unix.GetsockoptTpacketStats(s.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err != nil || stats.Drops > 0 {
				s.h.Errorf("the sniffer lost packets: %+v %v", stats, err)
			}
			return out
		}
		n = len(s.packets)
		s.mu.Unlock()
	}
}

// snapshot returns what was noted so far.
func (s *sniffer) snapshot() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([][]byte(nil), s.packets...)
}

// silent fails the test if anything came in.
func (s *sniffer) silent(after string) {
	s.h.Helper()
	if got := s.drain(); len(got) > 0 {
		s.h.Errorf("%d packets came back after %s, the first is % x", len(got), after, got[0])
	}
}

// payloads keeps of packets the payloads of requests, each once.
func payloads(packets [][]byte) (list [][]byte) {
	seen := map[string]bool{}
	for _, p := range packets {
		d, err := nfq.ParseUDP(p, len(p))
		if err == nil && d.Dst.Port() == auth.Port && len(d.Payload) == auth.PacketSize && !seen[string(d.Payload)] {
			seen[string(d.Payload)] = true
			list = append(list, d.Payload)
		}
	}
	return list
}

// in is where floods leave from.
func (h *host) in(fn func() error) error { return h.lab.Do(h.lab.Client, fn) }

// wire is the way of spoofed packets to the host. Replies to any source find
// back to the client, which drops them.
func (h *host) wire(f family, sources ...string) flood.Wire {
	h.Helper()
	w := flood.Wire{Device: netlab.Device, Peer: h.serverMAC(), To: netip.AddrPortFrom(netip.MustParseAddr(f.server), auth.Port)}
	for _, s := range sources {
		w.Sources = append(w.Sources, netip.MustParsePrefix(s))
	}
	return w
}

func (h *host) serverMAC() (mac net.HardwareAddr) {
	h.Helper()
	err := h.lab.Do(h.lab.Server, func() error {
		dev, err := net.InterfaceByName(netlab.Device)
		if err == nil {
			mac = dev.HardwareAddr
		}
		return err
	})
	if err != nil {
		h.Fatal(err)
	}
	return mac
}

// routeBack gives the host a way to every address: by the client, which is no
// router and drops what is not its own.
func (h *host) routeBack() {
	h.Helper()
	for _, args := range [][]string{{"-4", "route", "add", "default", "via", netlab.ClientIPv4}, {"-6", "route", "add", "default", "via", netlab.ClientIPv6}} {
		if _, err := h.lab.Run(h.lab.Server, "ip", args...); err != nil {
			h.Fatal(err)
		}
	}
}

// ipPacket is an IP packet that no ordinary socket sends.
type ipPacket struct {
	src       string
	port      uint16
	payload   []byte
	extension []byte // IPv4 options or IPv6 extension headers, as they are
	next      byte   // IPv6: what the first extension header is
	fragment  uint16 // IPv4: flags and offset
	udpMore   int    // added to the UDP length
	ipMore    int    // added to the IP length
	cut       int    // bytes of IP payload that are kept, 0: all
	skip      int    // bytes of IP payload before those
}

// bytes writes the packet. The checksum of UDP is right if all else is.
func (p ipPacket) bytes(f family) []byte {
	src, dst := netip.MustParseAddr(p.src).AsSlice(), netip.MustParseAddr(f.server).AsSlice()
	udp := make([]byte, 8, 8+len(p.payload))
	binary.BigEndian.PutUint16(udp, p.port)
	binary.BigEndian.PutUint16(udp[2:], auth.Port)
	binary.BigEndian.PutUint16(udp[4:], uint16(8+len(p.payload)))
	udp = append(udp, p.payload...)
	pseudo := append(append(append([]byte{}, src...), dst...), 0, 17, byte(len(udp)>>8), byte(len(udp)))
	sum := checksum(append(pseudo, udp...))
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(udp[6:], sum)
	binary.BigEndian.PutUint16(udp[4:], uint16(8+len(p.payload)+p.udpMore))
	udp = udp[p.skip:]
	if p.cut > 0 {
		udp = udp[:p.cut]
	}
	if f.name == "IPv4" {
		h := make([]byte, 12, 60)
		h[0], h[8], h[9] = byte(0x45+len(p.extension)/4), 64, unix.IPPROTO_UDP
		h[5] = 7 // id
		binary.BigEndian.PutUint16(h[6:], p.fragment)
		h = append(append(append(h, src...), dst...), p.extension...)
		binary.BigEndian.PutUint16(h[2:], uint16(len(h)+len(udp)+p.ipMore))
		binary.BigEndian.PutUint16(h[10:], checksum(h))
		return append(h, udp...)
	}
	h := make([]byte, 8, 60)
	h[0], h[6], h[7] = 0x60, unix.IPPROTO_UDP, 64
	if p.extension != nil {
		h[6] = p.next
	}
	binary.BigEndian.PutUint16(h[4:], uint16(len(p.extension)+len(udp)+p.ipMore))
	h = append(append(append(h, src...), dst...), p.extension...)
	return append(h, udp...)
}

func checksum(b []byte) uint16 {
	var s uint32
	for i, v := range b {
		s += uint32(v) << (8 * (1 - i%2))
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

// sendFrames puts IP packets on the wire as they are.
func (h *host) sendFrames(packets ...[]byte) {
	h.Helper()
	mac := h.serverMAC()
	err := h.lab.Do(h.lab.Client, func() error {
		dev, err := net.InterfaceByName(netlab.Device)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, p := range packets {
			to := &unix.SockaddrLinklayer{Ifindex: dev.Index, Halen: 6, Protocol: htons(unix.ETH_P_IP)}
			if p[0]>>4 == 6 {
				to.Protocol = htons(unix.ETH_P_IPV6)
			}
			copy(to.Addr[:], mac)
			if err := unix.Sendto(fd, p, 0, to); err != nil {
				return fmt.Errorf("send % x: %w", p[:20], err)
			}
		}
		return nil
	})
	if err != nil {
		h.Fatal(err)
	}
}
