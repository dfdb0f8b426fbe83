// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"netsysrq/internal/vm"
)

func TestSegment(t *testing.T) {
	s := segment{
		from: netip.AddrPortFrom(vm.HostIPv4, 50000), to: netip.AddrPortFrom(vm.GuestIPv4, 23),
		seq: 1000, ack: 0xffffffff, flags: flagPSH | flagACK, data: []byte("odd"),
	}
	f := s.frame()
	// What is summed up with its own checksum gives nothing.
	if sum := checksum(f[etherSize : etherSize+ipv4Size]); sum != 0 {
		t.Errorf("checksum of the IP header: %#x", sum)
	}
	tcp := f[etherSize+ipv4Size:]
	pseudo := append(bytes.Clone(f[etherSize+12:etherSize+20]), 0, protoTCP, 0, byte(len(tcp)))
	if sum := checksum(append(pseudo, tcp...)); sum != 0 {
		t.Errorf("checksum of the segment: %#x", sum)
	}
	got, ok := parseSegment(append(f, make([]byte, 6)...)) // padding
	if !ok || got.from != s.from || got.to != s.to || got.seq != s.seq || got.ack != s.ack || got.flags != s.flags || string(got.data) != "odd" {
		t.Errorf("%+v %v, want %+v", got, ok, s)
	}
	for n := range f {
		if _, ok := parseSegment(f[:n]); ok {
			t.Fatalf("%d of %d bytes pass for a segment", n, len(f))
		}
	}
}

// echo answers each datagram with its own bytes, after a letter.
type echo struct {
	letter  byte
	written chan []byte
}

func (e *echo) Write(b []byte) (int, error) {
	e.written <- append([]byte{e.letter}, b...)
	return len(b), nil
}

func (e *echo) Read(b []byte) (int, error) {
	got, ok := <-e.written
	if !ok {
		return 0, io.EOF
	}
	return copy(b, got), nil
}

func (e *echo) Close() error { close(e.written); return nil }

// Each of the sender's ports has a path of its own, to port 9 of the guest.
func TestRelay(t *testing.T) {
	var paths atomic.Int32
	r, err := newRelay(func(_ context.Context, to netip.AddrPort) (io.ReadWriteCloser, error) {
		if to != vm.GuestUDP4(9) {
			t.Errorf("dialled %v", to)
		}
		return &echo{byte('a' + paths.Add(1) - 1), make(chan []byte, 10)}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	for _, letter := range "ab" {
		c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), r.port())))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		for _, word := range []string{"one", "two"} {
			if _, err := c.Write([]byte(word)); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 10)
			n, err := c.Read(b)
			if err != nil || string(b[:n]) != string(letter)+word {
				t.Errorf("%q %v, want %c%s", b[:n], err, letter, word)
			}
		}
	}
}
