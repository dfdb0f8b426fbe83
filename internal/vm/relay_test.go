// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"
)

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

// Each of the sender's ports has a path of its own to the guest's.
func TestRelay(t *testing.T) {
	var paths atomic.Int32
	r, err := newRelay(func(_ context.Context, to netip.AddrPort) (io.ReadWriteCloser, error) {
		if to != GuestUDP4(9) {
			t.Errorf("dialled %v", to)
		}
		return &echo{byte('a' + paths.Add(1) - 1), make(chan []byte, 10)}, nil
	}, GuestUDP4(9))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, letter := range "ab" {
		c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), r.Port())))
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

// After it was redirected, the same port leads to the other machine.
func TestRelayRedirect(t *testing.T) {
	to := func(letter byte) dialer {
		return func(context.Context, netip.AddrPort) (io.ReadWriteCloser, error) {
			return &echo{letter, make(chan []byte, 10)}, nil
		}
	}
	r, err := newRelay(to('a'), GuestUDP4(9))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), r.Port())))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	for _, letter := range "ab" {
		r.redirect(to(byte(letter)))
		if _, err := c.Write([]byte("one")); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 10)
		if n, err := c.Read(b); err != nil || string(b[:n]) != string(letter)+"one" {
			t.Errorf("%q %v, want %cone", b[:n], err, letter)
		}
	}
}
