// SPDX-License-Identifier: GPL-2.0-only

package nfq

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// sentVerdict is a verdict message as the kernel would read it.
type sentVerdict struct {
	id      uint32
	verdict uint32
}

func newDispatcher(t testing.TB, handler Handler) (*dispatcher, *[]sentVerdict) {
	sent := new([]sentVerdict)
	return &dispatcher{
		queue:    7,
		handler:  handler,
		counters: new(counters),
		send: func(b []byte) error {
			m, rest, err := nextMessage(b)
			if err != nil || len(rest) != 0 || m.kind != msgVerdictBatch {
				t.Errorf("bad verdict message % x", b)
				return nil
			}
			if queue := binary.BigEndian.Uint16(m.body[2:]); queue != 7 {
				t.Errorf("verdict for queue %d", queue)
			}
			value := m.body[nfgenmsgLen+attrHeaderLen:]
			*sent = append(*sent, sentVerdict{
				binary.BigEndian.Uint32(value[4:]), binary.BigEndian.Uint32(value)})
			return nil
		},
	}, sent
}

func TestPacketFields(t *testing.T) {
	stamp := binary.BigEndian.AppendUint64(nil, 1700000000)
	stamp = binary.BigEndian.AppendUint64(stamp, 123456)
	var got Packet
	d, _ := newDispatcher(t, func(p *Packet) Verdict {
		got = *p
		return Drop
	})
	err := d.datagram(packetMessage(42, []byte("data"),
		attribute(99, 1, 2, 3),
		attribute(attrIfindexIndev, 0, 0, 0, 3),
		attribute(attrTimestamp, stamp...),
		attribute(attrCapLen, 0, 0, 5, 220)))
	if err != nil {
		t.Fatal(err)
	}
	if got.ID != 42 || got.InDev != 3 || got.Arrived != 1700000000_123456_000 ||
		string(got.Data) != "data" || got.Len != 1500 {
		t.Errorf("got %+v", got)
	}

	if err := d.datagram(packetMessage(43, []byte("more"))); err != nil {
		t.Fatal(err)
	}
	if got.ID != 43 || got.InDev != 0 || got.Arrived != 0 || string(got.Data) != "more" || got.Len != 4 {
		t.Errorf("got %+v", got)
	}
}

func TestOneVerdictForARunOfEqualOnes(t *testing.T) {
	d, sent := newDispatcher(t, func(p *Packet) Verdict {
		if p.Data[0] == 'a' {
			return Accept
		}
		return Drop
	})
	for i, data := range []string{"d", "d", "a", "a", "a", "d"} {
		if err := d.datagram(packetMessage(uint32(10+i), []byte(data))); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.flush(); err != nil {
		t.Fatal(err)
	}
	want := []sentVerdict{{11, netfilterDrop}, {14, netfilterAccept}, {15, netfilterDrop}}
	if !slices.Equal(*sent, want) {
		t.Errorf("sent %v, want %v", *sent, want)
	}
	if n := d.counters.packets.Load(); n != 6 {
		t.Errorf("counted %d packets", n)
	}
}

func TestMalformedMessages(t *testing.T) {
	whole := packetMessage(5, []byte("data"))
	idOnly := netlinkMessage(msgPacket, []byte{2, 0, 0, 0}, attribute(attrPacketHdr, 0, 0, 0, 5, 8, 0, 0))
	tests := []struct {
		name     string
		datagram []byte
		answered bool // the id was known, so that the packet could be dropped
	}{
		{"half a header", whole[:10], false},
		{"length below the header's", with(whole, 0, 4, 0, 0, 0), false},
		{"length beyond the end", whole[:len(whole)-1], false},
		{"no nfgenmsg", netlinkMessage(msgPacket, []byte{2, 0}), false},
		{"no packet header", netlinkMessage(msgPacket, []byte{2, 0, 0, 0}, attribute(attrPayload, 1)), false},
		{"short packet header", netlinkMessage(msgPacket, []byte{2, 0, 0, 0}, attribute(attrPacketHdr, 1)), false},
		{"attribute of no length", with(idOnly, nlmsgHeaderLen+nfgenmsgLen, 0, 0), false},
		{"attribute beyond the end", appendBody(idOnly, 200, 0, attrPayload, 0), true},
		{"half an attribute", appendBody(idOnly, 4, 0), true},
		{"short timestamp", appendBody(idOnly, attribute(attrTimestamp, 1, 2)...), true},
		{"short interface", appendBody(idOnly, attribute(attrIfindexIndev, 1, 2)...), true},
		{"short length", appendBody(idOnly, attribute(attrCapLen, 1, 2)...), true},
		{"absurd length", appendBody(idOnly, attribute(attrCapLen, 255, 255, 255, 255)...), true},
		{"short error", netlinkMessage(2, []byte{1, 2, 3}), false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d, sent := newDispatcher(t, func(*Packet) Verdict {
				t.Error("the handler was called")
				return Accept
			})
			if err := errors.Join(d.datagram(test.datagram), d.flush()); err != nil {
				t.Fatal(err)
			}
			if n := d.counters.malformed.Load(); n != 1 {
				t.Errorf("counted %d malformed messages", n)
			}
			var want []sentVerdict
			if test.answered {
				want = []sentVerdict{{5, netfilterDrop}}
			}
			if !slices.Equal(*sent, want) {
				t.Errorf("sent %v, want %v", *sent, want)
			}
		})
	}
}

// appendBody makes a message longer.
func appendBody(m []byte, more ...byte) []byte {
	m = append(slices.Clone(m), more...)
	binary.NativeEndian.PutUint32(m, uint32(len(m)))
	return m
}

func TestErrorMessages(t *testing.T) {
	tests := []struct {
		name  string
		errno syscall.Errno
		seq   uint32
		lost  bool
		count uint64
	}{
		{"acknowledged probe", 0, seqProbe, false, 0},
		{"packet is gone", syscall.ENOENT, seqVerdict, false, 1},
		{"nothing to clear", syscall.ENOENT, seqClear, false, 0},
		{"queue is gone", syscall.ENODEV, seqProbe, true, 0},
		{"queue is another's", syscall.EPERM, seqVerdict, true, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d, _ := newDispatcher(t, nil)
			err := d.datagram(errorMessage(int32(test.errno), test.seq))
			if errors.Is(err, ErrQueueLost) != test.lost {
				t.Errorf("got error %v", err)
			}
			if test.lost && !errors.Is(err, test.errno) {
				t.Errorf("%v hides %v", err, test.errno)
			}
			if n := d.counters.verdictErrors.Load(); n != test.count {
				t.Errorf("counted %d verdict errors", n)
			}
		})
	}
}

func TestSendErrorEndsTheBatch(t *testing.T) {
	d, _ := newDispatcher(t, func(*Packet) Verdict { return Drop })
	d.send = func([]byte) error { return syscall.EBADF }
	err := errors.Join(d.datagram(packetMessage(1, nil)), d.flush())
	if !errors.Is(err, syscall.EBADF) {
		t.Errorf("got error %v", err)
	}
}

func TestDispatchDoesNotAllocate(t *testing.T) {
	d, datagram := allocationFixture()
	n := testing.AllocsPerRun(100, func() {
		if d.datagram(datagram) != nil || d.flush() != nil {
			t.Fatal("not dispatched")
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkDispatch(b *testing.B) {
	d, datagram := allocationFixture()
	b.ReportAllocs()
	for b.Loop() {
		if d.datagram(datagram) != nil || d.flush() != nil {
			b.Fatal("not dispatched")
		}
	}
}

func allocationFixture() (*dispatcher, []byte) {
	packet := ipv4(protoUDP, nil, udp(strings.Repeat("x", 128)))
	d := &dispatcher{
		handler: func(p *Packet) Verdict {
			if _, err := ParseUDP(p.Data, p.Len); err != nil {
				return Accept
			}
			return Drop
		},
		send:     func([]byte) error { return nil },
		counters: new(counters),
	}
	return d, packetMessage(1, packet, attribute(attrIfindexIndev, 0, 0, 0, 1), attribute(attrTimestamp, make([]byte, 16)...))
}

func FuzzNetlink(f *testing.F) {
	f.Fuzz(func(t *testing.T, datagram []byte) {
		d := &dispatcher{
			handler: func(p *Packet) Verdict {
				inside(t, p.Data, datagram)
				if p.Len < len(p.Data) {
					t.Errorf("length %d of %d bytes", p.Len, len(p.Data))
				}
				return Verdict(p.ID % 2)
			},
			send:     func([]byte) error { return nil },
			counters: new(counters),
		}
		d.datagram(datagram)
		d.flush()
	})
}
