// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/flood"
)

// junk is a flood, as its child process gets it.
type junk struct {
	Wire flood.Wire
	Load flood.Load
}

// kind is what the packets of a flood look like.
type kind int

const (
	misshapen kind = iota // wrong length or magic, spoofed sources
	few                   // right length, magic and key id, from few sources
	spoofed               // the same, every packet from another source
)

func (k kind) String() string {
	return [...]string{"wrong length or magic", "right shape, 4 sources", "right shape, random sources"}[k]
}

var families = [2]string{"IPv4", "IPv6"}

// Sources are outside the client's networks; the namespaces have no others.
var (
	fewSources = [2][]netip.Prefix{
		{netip.MustParsePrefix("198.18.0.1/32"), netip.MustParsePrefix("198.18.0.2/32"),
			netip.MustParsePrefix("198.18.0.3/32"), netip.MustParsePrefix("198.18.0.4/32")},
		{netip.MustParsePrefix("2001:db8:e000:1::1/128"), netip.MustParsePrefix("2001:db8:e000:2::1/128"),
			netip.MustParsePrefix("2001:db8:e000:3::1/128"), netip.MustParsePrefix("2001:db8:e000:4::1/128")},
	}
	allSources = [2][]netip.Prefix{{netip.MustParsePrefix("64.0.0.0/3")}, {netip.MustParsePrefix("2001:db8:f000::/36")}}
)

// newJunk describes a flood of one kind to the daemon's port.
func newJunk(k kind, w wire, family int, id auth.KeyID, rate int, length time.Duration) *junk {
	// What a stranger can make who has seen one packet: all of it but the tag.
	forged := make([]byte, auth.PacketSize)
	rand.Read(forged)
	copy(forged, "NSRQ\x01\x01\x00\x00")
	copy(forged[8:], id[:])

	j := &junk{
		Wire: flood.Wire{Device: w.device, Peer: w.serverMAC, To: netip.AddrPortFrom(w.server[family], port), Sources: allSources[family]},
		Load: flood.Load{Payloads: [][]byte{forged}, VaryFrom: 16, VaryTo: 40, Rate: rate, For: length},
	}
	switch k {
	case misshapen:
		magic := bytes.Clone(forged)
		magic[0] ^= 1
		j.Load.Payloads = [][]byte{magic, forged[:auth.PacketSize-2]}
	case few:
		j.Wire.Sources = fewSources[family]
	}
	return j
}

// pouring is a flood under way.
type pouring struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	stdout bytes.Buffer
	stderr bytes.Buffer
}

// pourFrom starts a flood from the client's namespace.
func (b *bench) pourFrom(ctx context.Context, j *junk) (*pouring, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	p := &pouring{cmd: b.lab.command(ctx, b.lab.client, self, floodChild, string(text))}
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	return p, p.cmd.Start()
}

// stop ends the flood and tells how much it was.
func (p *pouring) stop() (flood.Sent, error) {
	p.stdin.Close()
	return p.wait()
}

// wait waits for the end of the flood.
func (p *pouring) wait() (sent flood.Sent, err error) {
	if err := p.cmd.Wait(); err != nil {
		return sent, fmt.Errorf("flood: %w: %s", err, p.stderr.String())
	}
	err = json.Unmarshal(p.stdout.Bytes(), &sent)
	if err == nil && sent.Packets == 0 {
		err = errors.New("flood: nothing was sent")
	}
	return sent, err
}
