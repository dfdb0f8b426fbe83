// SPDX-License-Identifier: GPL-2.0-only

//go:build install

package cluster_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"netsysrq/auth"
	"netsysrq/internal/netlab"
	"netsysrq/internal/vm"
)

// bridge joins a TAP device in a namespace and the wire of a machine.
type bridge struct {
	tap  *os.File
	wire atomic.Pointer[vm.Net]
	cut  atomic.Bool // loses requests to netsysrq
}

const tapName = "tap0"

// newBridge makes the device, which has the addresses that a machine expects at
// the other end of its wire.
func newBridge(t testing.TB, lab *netlab.Lab, ns string) *bridge {
	t.Helper()
	b := &bridge{}
	if err := lab.Do(ns, b.open); err != nil {
		t.Fatalf("make a TAP device: %v", err)
	}
	t.Cleanup(func() { b.tap.Close() })
	for _, args := range [][]string{
		{"link", "del", netlab.Device},
		{"link", "set", tapName, "address", net.HardwareAddr(vm.HostMAC[:]).String(), "up"},
		{"addr", "add", vm.HostIPv4.String() + "/24", "dev", tapName},
	} {
		if out, err := lab.Run(ns, "ip", args...); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	go b.toWire()
	return b
}

// open is to be called in the namespace.
func (b *bridge) open() error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	request, err := unix.NewIfreq(tapName)
	if err == nil {
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("%s: %w", tapName, err)
	}
	b.tap = os.NewFile(uintptr(fd), tapName)
	return nil
}

// connect leads the frames to a machine, until the next one or its end.
func (b *bridge) connect(n *vm.Net) {
	b.wire.Store(n)
	go func() {
		for f := range n.Capture().Frames() {
			if b.wire.Load() == n {
				_, _ = b.tap.Write(f.Data) // what finds no room is lost
			}
		}
	}()
}

func (b *bridge) toWire() {
	frame := make([]byte, 65536)
	for {
		n, err := b.tap.Read(frame)
		if err != nil {
			return
		}
		if wire := b.wire.Load(); wire != nil && n > 0 && !(b.cut.Load() && isRequest(frame[:n])) {
			_ = wire.SendFrame(frame[:n]) // a machine that is off takes none
		}
	}
}

// isRequest reports whether a frame is IPv4 and UDP to the port of netsysrq.
func isRequest(f []byte) bool {
	const ether, least = 14, 20
	if len(f) < ether+least || binary.BigEndian.Uint16(f[12:]) != unix.ETH_P_IP || f[ether+9] != unix.IPPROTO_UDP {
		return false
	}
	udp := ether + int(f[ether]&15)*4
	return len(f) >= udp+4 && binary.BigEndian.Uint16(f[udp+2:]) == auth.Port
}
