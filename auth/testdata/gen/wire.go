// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/chacha20poly1305"
)

const (
	salt       = "netsysrq v1"
	headerSize = 16
	bodySize   = 72
	maxSteps   = 7

	typeRequest = 1
	typeReply   = 2
	typePiece   = 3

	textSize = 1060
)

// must is for what can only fail by a mistake in this program.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A hostKey is what section 2 derives for one operator and one host.
type hostKey struct{ id, request, reply []byte }

// info is HKDF's info for a name in its normal form.
func info(name string) string { return "host\x00" + string([]byte{byte(len(name))}) + name }

// derive takes a name in its normal form: the normal form of each case is written next to it by hand.
func derive(master []byte, name string) hostKey {
	okm := must(hkdf.Key(sha256.New, master, []byte(salt), info(name), 72))
	return hostKey{id: okm[:8], request: okm[8:40], reply: okm[40:72]}
}

// fromPassphrase takes a passphrase in its normal form.
func fromPassphrase(label, passphrase string) []byte {
	return argon2.IDKey([]byte(passphrase), []byte(salt+"\x00"+label), 4, 262144, 4, 32)
}

// header is bytes 0 to 15 of a packet.
func header(typ byte, keyID []byte) []byte {
	h := append([]byte("NSRQ"), 1, typ, 0, 0)
	return append(h, keyID...)
}

// nonceFor makes a vector's nonce from its name, so that a new vector leaves the others as they are.
func nonceFor(name string) []byte {
	sum := sha256.Sum256([]byte("nonce of " + name))
	return sum[:chacha20poly1305.NonceSizeX]
}

// seal makes header || nonce || sealed body || tag.
func seal(key, header, nonce, body []byte) []byte {
	return sealAs(key, header, header, nonce, body)
}

// sealAs sends one header and authenticates another.
func sealAs(key, header, ad, nonce, body []byte) []byte {
	aead := must(chacha20poly1305.NewX(key))
	packet := append(append([]byte{}, header...), nonce...)
	return aead.Seal(packet, nonce, body, ad)
}

type step struct {
	key, reserved byte
	pause         uint16
}

// A request holds the fields of 3.1 as they are sent, right or wrong.
type request struct {
	time          uint64
	id, challenge [16]byte
	op, flags     byte
	count         byte
	reserved      byte
	steps         [maxSteps]step
	log           *log // in place of the steps
}

// A log holds the fields that a log has there.
type log struct {
	from   uint64
	pieces byte
	rest   [19]byte
}

func (r request) body() []byte {
	b := make([]byte, 0, bodySize)
	b = binary.BigEndian.AppendUint64(b, r.time)
	b = append(b, r.id[:]...)
	b = append(b, r.challenge[:]...)
	b = append(b, r.op, r.flags, r.count, r.reserved)
	if r.log != nil {
		b = binary.BigEndian.AppendUint64(b, r.log.from)
		b = append(b, r.log.pieces)
		return append(b, r.log.rest[:]...)
	}
	for _, s := range r.steps {
		b = append(b, s.key, s.reserved)
		b = binary.BigEndian.AppendUint16(b, s.pause)
	}
	return b
}

// A reply holds the fields of 3.2 as they are sent, right or wrong.
type reply struct {
	time                          uint64
	id, challenge                 [16]byte
	result, executor, flags, mask byte
	bootID                        [8]byte
	uptime                        uint32
	ledgerAge, load               uint16
	free                          uint32
	sysrq, silent                 uint16
	reserved                      [4]byte
}

func (r reply) body() []byte {
	b := make([]byte, 0, bodySize)
	b = binary.BigEndian.AppendUint64(b, r.time)
	b = append(b, r.id[:]...)
	b = append(b, r.challenge[:]...)
	b = append(b, r.result, r.executor, r.flags, r.mask)
	b = append(b, r.bootID[:]...)
	b = binary.BigEndian.AppendUint32(b, r.uptime)
	b = binary.BigEndian.AppendUint16(b, r.ledgerAge)
	b = binary.BigEndian.AppendUint16(b, r.load)
	b = binary.BigEndian.AppendUint32(b, r.free)
	b = binary.BigEndian.AppendUint16(b, r.sysrq)
	b = binary.BigEndian.AppendUint16(b, r.silent)
	return append(b, r.reserved[:]...)
}

// A piece holds the fields of 3.3 as they are sent, right or wrong.
type piece struct {
	time                     uint64
	id, challenge            [16]byte
	index, flags             byte
	reserved                 [2]byte
	bootID                   [8]byte
	first, next, end, oldest uint64
	text                     []byte
}

func (p piece) body() []byte {
	b := make([]byte, 0, 84+len(p.text))
	b = binary.BigEndian.AppendUint64(b, p.time)
	b = append(b, p.id[:]...)
	b = append(b, p.challenge[:]...)
	b = append(b, p.index, p.flags, p.reserved[0], p.reserved[1])
	b = append(b, p.bootID[:]...)
	for _, n := range []uint64{p.first, p.next, p.end, p.oldest} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return append(b, p.text...)
}

// fields are the header lines of a request that opens.
func (r request) fields() [][2]string {
	fields := [][2]string{
		{"op", []string{"status", "run", "log"}[r.op]},
		{"time", decimal(r.time)},
		{"id", hex.EncodeToString(r.id[:])},
		{"challenge", challengeText(r.challenge)},
		{"flags", flagText(r.flags, "rehearse", "drill", "now")},
	}
	if r.log != nil {
		return append(fields, [2]string{"from", decimal(r.log.from)}, [2]string{"pieces", decimal(r.log.pieces)})
	}
	return append(fields, [2]string{"steps", stepText(r.steps[:r.count])})
}

// fields are the header lines of a piece that opens; its id is not among them, as in a reply.
func (p piece) fields() [][2]string {
	return [][2]string{
		{"time", decimal(p.time)},
		{"challenge", challengeText(p.challenge)},
		{"index", decimal(p.index)},
		{"flags", flagText(p.flags, "last", "cut")},
		{"boot-id", hex.EncodeToString(p.bootID[:])},
		{"first", decimal(p.first)},
		{"next", decimal(p.next)},
		{"end", decimal(p.end)},
		{"oldest", decimal(p.oldest)},
		{"text", hex.EncodeToString(p.text)},
	}
}

// fields are the header lines of a reply that opens; its id stands in every reply vector and is not among them.
func (r reply) fields() [][2]string {
	results := []string{"status", "accepted", "stale", "policy", "masked", "vetoed", "busy", "malformed"}
	return [][2]string{
		{"time", decimal(r.time)},
		{"challenge", challengeText(r.challenge)},
		{"result", results[r.result]},
		{"executor", []string{"", "daemon", "kernel"}[r.executor]},
		{"flags", flagText(r.flags, "repeat", "rehearsed", "dry-run", "clock-trusted", "armed")},
		{"mask", decimal(r.mask)},
		{"boot-id", hex.EncodeToString(r.bootID[:])},
		{"uptime", decimal(r.uptime)},
		{"ledger-age", decimal(r.ledgerAge)},
		{"load", decimal(r.load)},
		{"free", decimal(r.free)},
		{"sysrq", decimal(r.sysrq)},
		{"silent", decimal(r.silent)},
	}
}

func decimal[T uint8 | uint16 | uint32 | uint64](v T) string {
	return strconv.FormatUint(uint64(v), 10)
}

func challengeText(c [16]byte) string {
	if c == [16]byte{} {
		return "none"
	}
	return hex.EncodeToString(c[:])
}

func flagText(flags byte, names ...string) string {
	var set []string
	for i, name := range names {
		if flags>>i&1 == 1 {
			set = append(set, name)
		}
	}
	if set == nil {
		return "none"
	}
	return strings.Join(set, ",")
}

// stepText is the canonical notation: no pause part for 0, whole seconds as Ns, anything else as Nms.
func stepText(steps []step) string {
	if len(steps) == 0 {
		return "-"
	}
	var text []string
	for _, s := range steps {
		switch {
		case s.pause == 0:
			text = append(text, string(rune(s.key)))
		case s.pause%100 == 0:
			text = append(text, fmt.Sprintf("%c:%ds", s.key, s.pause/100))
		default:
			text = append(text, fmt.Sprintf("%c:%dms", s.key, int(s.pause)*10))
		}
	}
	return strings.Join(text, ",")
}
