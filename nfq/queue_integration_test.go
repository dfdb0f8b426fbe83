// SPDX-License-Identifier: GPL-2.0-only

//go:build integration

package nfq_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"netsysrq/internal/netlab"
	"netsysrq/nfq"
)

const (
	queueNumber = 7
	port        = 9
	patience    = 10 * time.Second // for what must happen
)

// queued is a lab whose server queues what arrives for port over UDP.
func queued(t *testing.T) *netlab.Lab {
	lab := netlab.New(t)
	for _, command := range []string{"iptables", "ip6tables"} {
		rule(t, lab, command, "-p", "udp", "--dport", strconv.Itoa(port))
	}
	return lab
}

func rule(t *testing.T, lab *netlab.Lab, command string, match ...string) {
	t.Helper()
	if _, err := exec.LookPath(command); err != nil {
		t.Skipf("rules need the %s command", command)
	}
	args := append([]string{"-w", "-t", "raw", "-A", "PREROUTING"}, match...)
	args = append(args, "-j", "NFQUEUE", "--queue-num", strconv.Itoa(queueNumber))
	if _, err := lab.Run(lab.Server, command, args...); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, lab *netlab.Lab, cfg nfq.Config) *nfq.Queue {
	t.Helper()
	cfg.Queue = queueNumber
	var q *nfq.Queue
	err := lab.Do(lab.Server, func() (err error) {
		q, err = nfq.Open(cfg)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	})
	return q
}

// run starts q.Run; the channel gets its result.
func run(ctx context.Context, q *nfq.Queue) <-chan error {
	result := make(chan error, 1)
	go func() { result <- q.Run(ctx) }()
	return result
}

func dial(t *testing.T, lab *netlab.Lab, address string) net.Conn {
	t.Helper()
	var conn net.Conn
	err := lab.Do(lab.Client, func() (err error) {
		conn, err = net.Dial("udp", net.JoinHostPort(address, strconv.Itoa(port)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func send(t *testing.T, conn net.Conn, payload string) {
	t.Helper()
	if _, err := conn.Write([]byte(payload)); err != nil {
		t.Fatal(err)
	}
}

// flood sends as fast as one thread can until the function it returns is called.
func flood(t *testing.T, lab *netlab.Lab) (stop func()) {
	conn := dial(t, lab, netlab.ServerIPv4)
	var stopping atomic.Bool
	var done sync.WaitGroup
	done.Go(func() {
		payload := make([]byte, 128)
		for !stopping.Load() {
			conn.Write(payload)
		}
	})
	stop = sync.OnceFunc(func() {
		stopping.Store(true)
		done.Wait()
		conn.Close()
	})
	t.Cleanup(stop)
	return stop
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func receive[T any](t *testing.T, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatalf("not within %v: %s", patience, what)
		panic("unreachable")
	}
}

func kernelStats(t *testing.T, q *nfq.Queue) nfq.KernelStats {
	t.Helper()
	stats, err := q.KernelStats()
	if err != nil {
		t.Fatal(err)
	}
	return stats
}

func dropAll(*nfq.Packet) nfq.Verdict { return nfq.Drop }

func TestPayloadsArrive(t *testing.T) {
	lab := queued(t)
	got := make(chan string, 10)
	q := open(t, lab, nfq.Config{Handler: func(p *nfq.Packet) nfq.Verdict {
		d, err := nfq.ParseUDP(p.Data, p.Len)
		got <- fmt.Sprintf("%s from %v, error %v, device known %v", d.Payload, d.Src.Addr(), err, p.InDev != 0)
		return nfq.Drop
	}})
	run(t.Context(), q)
	for _, test := range []struct{ server, client string }{
		{netlab.ServerIPv4, netlab.ClientIPv4},
		{netlab.ServerIPv6, netlab.ClientIPv6},
	} {
		send(t, dial(t, lab, test.server), "hello")
		want := "hello from " + test.client + ", error <nil>, device known true"
		if s := receive(t, "the packet", got); s != want {
			t.Errorf("got %s, want %s", s, want)
		}
	}
}

func TestVerdicts(t *testing.T) {
	lab := queued(t)
	q := open(t, lab, nfq.Config{Handler: func(p *nfq.Packet) nfq.Verdict {
		if d, err := nfq.ParseUDP(p.Data, p.Len); err == nil && string(d.Payload) == "accept" {
			return nfq.Accept
		}
		return nfq.Drop
	}})
	var server *net.UDPConn
	err := lab.Do(lab.Server, func() (err error) {
		server, err = net.ListenUDP("udp4", &net.UDPAddr{Port: port})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	// All are queued before the first is read, so that verdicts change
	// within a batch.
	conn := dial(t, lab, netlab.ServerIPv4)
	for _, payload := range []string{"drop", "accept", "accept", "drop", "accept", "drop"} {
		send(t, conn, payload)
	}
	run(t.Context(), q)
	eventually(t, "all six verdicts", func() bool {
		return q.Stats().Packets == 6 && kernelStats(t, q).Waiting == 0
	})
	server.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	buf, accepted := make([]byte, 64), 0
	for {
		n, err := server.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil || string(buf[:n]) != "accept" {
			t.Fatalf("got %q, error %v", buf[:n], err)
		}
		accepted++
	}
	if accepted != 3 {
		t.Errorf("%d packets were accepted", accepted)
	}
	if stats := q.Stats(); stats.VerdictErrors != 0 || stats.Malformed != 0 {
		t.Errorf("got %+v", stats)
	}
}

func TestOpenUnderFlood(t *testing.T) {
	lab := queued(t)
	stop := flood(t, lab)
	for range 20 {
		q := open(t, lab, nfq.Config{Handler: dropAll})
		result := run(t.Context(), q)
		eventually(t, "packets", func() bool { return q.Stats().Packets > 100 })
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
		if err := receive(t, "the end of Run", result); !errors.Is(err, nfq.ErrClosed) {
			t.Fatal(err)
		}
	}
	q := open(t, lab, nfq.Config{Handler: dropAll})
	stop()
	run(t.Context(), q)
	eventually(t, "an empty queue", func() bool { return kernelStats(t, q).Waiting == 0 })
}

// Nothing is sent after the filter is gone, so that only Open's own verdict
// can free the slots.
func TestOpenClearsHiddenPackets(t *testing.T) {
	lab := queued(t)
	conn := dial(t, lab, netlab.ServerIPv4)
	var q *nfq.Queue
	err := lab.Do(lab.Server, func() (err error) {
		q, err = nfq.OpenSlowly(nfq.Config{Queue: queueNumber, Handler: dropAll}, func() {
			for range 50 {
				send(t, conn, "hidden")
			}
		})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	if stats := kernelStats(t, q); !stats.Owned || stats.LastID != 50 || stats.Waiting != 0 {
		t.Errorf("got %+v", stats)
	}
}

func TestOverrunIsSurvived(t *testing.T) {
	lab := queued(t)
	valid := make(chan struct{}, 1)
	q := open(t, lab, nfq.Config{ReceiveBuffer: 4096, Handler: func(p *nfq.Packet) nfq.Verdict {
		if d, err := nfq.ParseUDP(p.Data, p.Len); err == nil && string(d.Payload) == "valid" {
			valid <- struct{}{}
		}
		return nfq.Drop
	}})
	run(t.Context(), q)
	stop := flood(t, lab)
	eventually(t, "an overrun", func() bool { return q.Stats().Overruns > 0 })
	stop()
	eventually(t, "an empty queue", func() bool { return kernelStats(t, q).Waiting == 0 })
	if stats := kernelStats(t, q); stats.UserDropped == 0 {
		t.Errorf("the kernel counts no loss: %+v", stats)
	}
	send(t, dial(t, lab, netlab.ServerIPv4), "valid")
	receive(t, "a valid packet", valid)
}

func TestKernelCountsDrops(t *testing.T) {
	lab := queued(t)
	q := open(t, lab, nfq.Config{MaxLen: 8, Handler: dropAll})
	conn := dial(t, lab, netlab.ServerIPv4)
	for range 50 {
		send(t, conn, "x")
	}
	eventually(t, "8 waiting, 42 dropped", func() bool {
		return kernelStats(t, q) == nfq.KernelStats{Owned: true, Waiting: 8, QueueDropped: 42, LastID: 8}
	})
	run(t.Context(), q)
	eventually(t, "8 packets and an empty queue", func() bool {
		return q.Stats().Packets == 8 && kernelStats(t, q).Waiting == 0
	})
}

func TestOpenErrors(t *testing.T) {
	lab := queued(t)
	first := open(t, lab, nfq.Config{Handler: dropAll})
	files := openFiles(t)
	tests := []struct {
		name  string
		queue uint16
		want  error
		setup func() error
	}{
		{"owned", queueNumber, nfq.ErrQueueOwned, func() error { return nil }},
		{"no capability", queueNumber + 1, nfq.ErrNoCapability, dropNetAdmin},
	}
	for _, test := range tests {
		err := lab.Do(lab.Server, func() error {
			if err := test.setup(); err != nil {
				return err
			}
			q, err := nfq.Open(nfq.Config{Queue: test.queue, Handler: dropAll})
			if err == nil {
				q.Close()
			}
			return err
		})
		if !errors.Is(err, test.want) {
			t.Errorf("%s: got error %v", test.name, err)
		}
	}
	if n := openFiles(t); n != files {
		t.Errorf("%d open files became %d", files, n)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, lab, nfq.Config{Handler: dropAll})
}

// dropNetAdmin takes CAP_NET_ADMIN from the calling thread.
func dropNetAdmin() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	data[0].Effective &^= 1 << unix.CAP_NET_ADMIN
	return unix.Capset(&header, &data[0])
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestArrivedTellsHowLongAPacketWaited(t *testing.T) {
	const pause = 1500 * time.Millisecond
	lab := queued(t)
	arrived := make(chan int64, 1)
	q := open(t, lab, nfq.Config{Handler: func(p *nfq.Packet) nfq.Verdict {
		arrived <- p.Arrived
		return nfq.Drop
	}})
	age := func() time.Duration {
		t.Helper()
		return time.Since(time.Unix(0, receive(t, "a packet", arrived)))
	}
	conn := dial(t, lab, netlab.ServerIPv4)

	ctx, cancel := context.WithCancel(t.Context())
	result := run(ctx, q)
	eventually(t, "a timestamp", func() bool {
		send(t, conn, "x")
		return receive(t, "a packet", arrived) != 0
	})
	cancel()
	if err := receive(t, "the end of Run", result); err != nil {
		t.Fatal(err)
	}

	send(t, conn, "early")
	time.Sleep(pause)
	run(t.Context(), q)
	if d := age(); d < pause || d > pause+patience {
		t.Errorf("a packet that waited %v says %v", pause, d)
	}
	send(t, conn, "fresh")
	if d := age(); d < 0 || d > pause/2 {
		t.Errorf("a fresh packet says %v", d)
	}
}

func TestCloseUnderFloodLeaksNothing(t *testing.T) {
	lab := queued(t)
	flood(t, lab)
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	for range 5 {
		q := open(t, lab, nfq.Config{Handler: dropAll})
		result := run(t.Context(), q)
		eventually(t, "packets", func() bool { return q.Stats().Packets > 100 })
		start := time.Now()
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("Close took %v", d)
		}
		receive(t, "the end of Run", result)
	}
	eventually(t, "the old number of goroutines", func() bool { return runtime.NumGoroutine() <= goroutines })
	if n := openFiles(t); n > files {
		t.Errorf("%d open files became %d", files, n)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	lab := queued(t)
	got := make(chan struct{}, 1)
	q := open(t, lab, nfq.Config{Handler: func(*nfq.Packet) nfq.Verdict {
		got <- struct{}{}
		return nfq.Drop
	}})
	conn := dial(t, lab, netlab.ServerIPv4)
	for range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		result := run(ctx, q)
		send(t, conn, "x")
		receive(t, "a packet", got)
		cancel()
		if err := receive(t, "the end of Run", result); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLostQueueEndsRun(t *testing.T) {
	lab := queued(t)
	q := open(t, lab, nfq.Config{Handler: dropAll})
	result := run(t.Context(), q)
	if err := q.Unbind(); err != nil {
		t.Fatal(err)
	}
	if err := receive(t, "the end of Run", result); !errors.Is(err, nfq.ErrQueueLost) {
		t.Errorf("got error %v", err)
	}
	if kernelStats(t, q).Owned {
		t.Error("the queue still counts as ours")
	}
}

func TestThreadOfRun(t *testing.T) {
	lab := queued(t)
	got := make(chan string, 1)
	thread := 0
	q := open(t, lab, nfq.Config{
		OnStart: func() error {
			thread = unix.Gettid()
			return unix.Setpriority(unix.PRIO_PROCESS, 0, 5)
		},
		Handler: func(*nfq.Packet) nfq.Verdict {
			// The system call returns 20 - nice.
			priority, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
			got <- fmt.Sprintf("nice %d, error %v, same thread %v", 20-priority, err, unix.Gettid() == thread)
			return nfq.Drop
		},
	})
	run(t.Context(), q)
	send(t, dial(t, lab, netlab.ServerIPv4), "x")
	if s := receive(t, "a packet", got); s != "nice 5, error <nil>, same thread true" {
		t.Errorf("got %s", s)
	}

	failure := errors.New("no")
	refusing := open(t, netlab.New(t), nfq.Config{Handler: dropAll, OnStart: func() error { return failure }})
	if err := refusing.Run(t.Context()); !errors.Is(err, failure) {
		t.Errorf("got error %v", err)
	}
}

func TestTickAdvancesWithoutPackets(t *testing.T) {
	lab := netlab.New(t)
	q := open(t, lab, nfq.Config{Handler: dropAll})
	run(t.Context(), q)
	last := q.Stats().LastTick
	for range 3 {
		eventually(t, "a tick", func() bool { return q.Stats().LastTick.After(last) })
		last = q.Stats().LastTick
		if time.Since(last) > 2*time.Second {
			t.Errorf("the tick is %v old", time.Since(last))
		}
	}
}

func TestOddPacketsReachTheHandler(t *testing.T) {
	const hopByHop, udpProto, routing, fragment, esp, destinationOptions = 0, 17, 43, 44, 50, 60
	lab := netlab.New(t)
	rule(t, lab, "iptables", "!", "-p", "icmp")
	rule(t, lab, "ip6tables", "!", "-p", "icmpv6")
	result := make(chan error, 1)
	q := open(t, lab, nfq.Config{CopyRange: 200, Handler: func(p *nfq.Packet) nfq.Verdict {
		d, err := nfq.ParseUDP(p.Data, p.Len)
		if err == nil && string(d.Payload) != "hello" {
			err = fmt.Errorf("payload %q", d.Payload)
		}
		result <- err
		return nfq.Drop
	}})
	run(t.Context(), q)

	hello := nfq.BuildUDP("hello")
	long := nfq.BuildUDP(strings.Repeat("x", 400))
	plain4, plain6 := nfq.BuildIPv4(udpProto, nil, hello), nfq.BuildIPv6(udpProto, hello)
	tests := []struct {
		name   string
		packet []byte
		want   error
	}{
		{"ipv4", plain4, nil},
		{"ipv4 options", nfq.BuildIPv4(udpProto, []byte{1, 1, 1, 0}, hello), nil},
		{"ipv4 padding", append(plain4, 0, 0, 0), nil},
		{"ipv4 udp length too large", nfq.BuildWith(plain4, 25, 200), nfq.ErrUDPLength},
		{"ipv4 udp length too small", nfq.BuildWith(plain4, 25, 9), nfq.ErrUDPLength},
		{"ipv4 first fragment", nfq.BuildWith(plain4, 6, 0x20), nfq.ErrFragment},
		{"ipv4 last fragment", nfq.BuildWith(plain4, 7, 9), nfq.ErrFragment},
		{"ipv4 long", nfq.BuildIPv4(udpProto, nil, long), nfq.ErrTruncated},
		{"ipv4 esp", nfq.BuildIPv4(esp, nil, hello), nfq.ErrNotUDP},
		{"ipv6", plain6, nil},
		{"ipv6 hop-by-hop", nfq.BuildIPv6(hopByHop, nfq.BuildExtension(udpProto, hello)), nil},
		{"ipv6 destination options", nfq.BuildIPv6(destinationOptions, nfq.BuildExtension(udpProto, hello)), nil},
		{"ipv6 routing", nfq.BuildIPv6(routing, nfq.BuildExtension(udpProto, hello)), nil},
		{"ipv6 atomic fragment", nfq.BuildIPv6(fragment, nfq.BuildExtension(udpProto, hello)), nfq.ErrFragment},
		{"ipv6 udp length too large", nfq.BuildWith(plain6, 45, 200), nfq.ErrUDPLength},
		{"ipv6 long", nfq.BuildIPv6(udpProto, long), nfq.ErrTruncated},
	}
	transmit := rawSender(t, lab)
	for _, test := range tests {
		transmit(test.packet)
		if err := receive(t, test.name, result); !errors.Is(err, test.want) {
			t.Errorf("%s: got error %v, want %v", test.name, err, test.want)
		}
	}
}

// rawSender returns a function that puts an IP packet onto the client's wire.
// It fills in the IPv4 header checksum.
func rawSender(t *testing.T, lab *netlab.Lab) func(packet []byte) {
	t.Helper()
	fd := -1
	to := unix.SockaddrLinklayer{Halen: 6}
	err := lab.Do(lab.Server, func() error {
		device, err := net.InterfaceByName(netlab.Device)
		if err == nil {
			copy(to.Addr[:], device.HardwareAddr)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	err = lab.Do(lab.Client, func() error {
		device, err := net.InterfaceByName(netlab.Device)
		if err != nil {
			return err
		}
		to.Ifindex = device.Index
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return func(packet []byte) {
		t.Helper()
		etherType := uint16(unix.ETH_P_IPV6)
		if packet[0]>>4 == 4 {
			etherType = unix.ETH_P_IP
			headerLen := int(packet[0]&0xf) * 4
			packet = nfq.BuildWith(packet, 10, 0, 0)
			binary.BigEndian.PutUint16(packet[10:], checksum(packet[:headerLen]))
		}
		var network [2]byte
		binary.BigEndian.PutUint16(network[:], etherType)
		to.Protocol = binary.NativeEndian.Uint16(network[:])
		if err := unix.Sendto(fd, packet, 0, &to); err != nil {
			t.Fatal(err)
		}
	}
}

// checksum is the Internet checksum (RFC 1071) of an even number of bytes.
func checksum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
