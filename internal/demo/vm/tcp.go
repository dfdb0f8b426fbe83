// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"netsysrq/internal/vm"
)

// The bench has no TCP. This is as much of it as it takes to be connected and to
// read what a server says first, on a wire that loses nothing.

var be = binary.BigEndian

const (
	etherSize = 14
	ipv4Size  = 20
	tcpSize   = 20
	protoTCP  = 6

	flagSYN, flagRST, flagPSH, flagACK = 2, 4, 8, 16
)

// segment is a TCP segment without options.
type segment struct {
	from, to netip.AddrPort
	seq, ack uint32
	flags    byte
	data     []byte
}

// frame puts a segment into an Ethernet frame from the host to the guest.
func (s *segment) frame() []byte {
	tcp := make([]byte, tcpSize, tcpSize+len(s.data))
	be.PutUint16(tcp[0:], s.from.Port())
	be.PutUint16(tcp[2:], s.to.Port())
	be.PutUint32(tcp[4:], s.seq)
	be.PutUint32(tcp[8:], s.ack)
	tcp[12], tcp[13] = tcpSize/4<<4, s.flags
	be.PutUint16(tcp[14:], 65535) // window
	tcp = append(tcp, s.data...)

	be.PutUint16(tcp[16:], vm.Checksum(s.from.Addr(), s.to.Addr(), protoTCP, tcp))
	return vm.IPFrame(s.from.Addr(), s.to.Addr(), protoTCP, tcp)
}

// parseSegment reads a frame of the guest, if it holds a whole segment.
func parseSegment(f []byte) (s segment, ok bool) {
	if len(f) < etherSize+ipv4Size || be.Uint16(f[12:]) != 0x0800 {
		return s, false
	}
	ip := f[etherSize:]
	head, total := int(ip[0]&15)*4, int(be.Uint16(ip[2:]))
	if ip[9] != protoTCP || head < ipv4Size || total > len(ip) || total < head+tcpSize {
		return s, false
	}
	tcp := ip[head:total]
	data := int(tcp[12]>>4) * 4
	if data < tcpSize || data > len(tcp) {
		return s, false
	}
	from, to := netip.AddrFrom4([4]byte(ip[12:])), netip.AddrFrom4([4]byte(ip[16:]))
	return segment{
		from: netip.AddrPortFrom(from, be.Uint16(tcp)), to: netip.AddrPortFrom(to, be.Uint16(tcp[2:])),
		seq: be.Uint32(tcp[4:]), ack: be.Uint32(tcp[8:]), flags: tcp[13], data: tcp[data:],
	}, true
}

// errConnect: the guest's kernel took no connection.
var errConnect = errors.New("not connected")

// greeting connects to a port of the guest and reads until a text comes or ctx
// ends. Without an error the guest's kernel has taken the connection, whatever a
// process then said.
func greeting(ctx context.Context, w *vm.Net, from, to netip.AddrPort, text string) (said string, err error) {
	c := w.Capture()
	defer c.Close()
	// A conversation of its own each time, so where its numbers begin does not matter.
	s := segment{from: from, to: to, seq: 1000, flags: flagSYN}
	if err := w.SendFrame(s.frame()); err != nil {
		return "", err
	}
	s.seq++
	connected := false
	defer func() {
		s.flags = flagRST | flagACK
		w.SendFrame(s.frame())
	}()
	var all []byte
	for {
		select {
		case <-ctx.Done():
			if !connected {
				return "", fmt.Errorf("%w: %w", errConnect, context.Cause(ctx))
			}
			return string(all), nil
		case f, ok := <-c.Frames():
			if !ok {
				return "", errors.New("the machine has ended")
			}
			r, ok := parseSegment(f.Data)
			switch {
			case !ok || r.from != to || r.to != from:
				continue
			case r.flags&flagRST != 0:
				return "", fmt.Errorf("%w: refused", errConnect)
			case r.flags&flagSYN != 0:
				s.ack, connected = r.seq+1, true
			case r.seq != s.ack || len(r.data) == 0:
				continue // seen already, or nothing new
			default:
				all = append(all, r.data...)
				s.ack += uint32(len(r.data))
			}
			s.flags = flagACK
			if err := w.SendFrame(s.frame()); err != nil {
				return "", err
			}
			if strings.Contains(string(all), text) {
				return string(all), nil
			}
		}
	}
}
