// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"
)

const (
	host  = "web01.example.org"
	other = "web02.example.org"

	// 2026-01-01 00:00:30 UTC
	moment = 1_767_225_630_000_000_000
)

var (
	master    = count32(0x00)
	here      = derive(master, host)
	there     = derive(master, other)
	theID     = count16(0xa0)
	otherID   = count16(0x50)
	challenge = count16(0xc0)
)

func count16(from byte) (b [16]byte) {
	for i := range b {
		b[i] = from + byte(i)
	}
	return b
}

func count32(from byte) []byte {
	a, b := count16(from), count16(from+16)
	return append(a[:], b[:]...)
}

// aRun is the request that most cases change in one place.
func aRun() request { return withSteps("nsub") }

func withSteps(keys string, pauses ...uint16) request {
	r := request{time: moment, id: theID, op: 1, count: byte(len(keys))}
	for i := range min(len(keys), maxSteps) {
		r.steps[i].key = keys[i]
	}
	for i, p := range pauses {
		r.steps[i].pause = p
	}
	return r
}

func aStatus() request { return request{time: moment, id: theID} }

// byChallenge is the run of the worked example: time 0, as section 6 wants it.
func byChallenge() request {
	r := aRun()
	r.time, r.challenge = 0, challenge
	return r
}

// aReply is the reply that most cases change in one place, and that of the worked example.
func aReply() reply {
	return reply{
		time: moment + 5_000_000, id: theID, result: 1, executor: 2, flags: 24,
		bootID: [8]byte{0xb0, 0xb1, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7},
		uptime: 86461, ledgerAge: 3600, load: 1523, free: 412, sysrq: 438, silent: 7,
	}
}

// A suite collects vectors.
type suite struct{ all []vector }

func vectors() []vector {
	var s suite
	s.requests()
	s.replies()
	s.logs()
	s.pieces()
	s.derivations()
	s.passphrases()
	return s.all
}

func (s *suite) add(name, kind, expect, comment string, packet []byte, fields ...[2]string) {
	head := [][2]string{{"kind", kind}, {"expect", expect}, {"comment", comment}}
	s.all = append(s.all, vector{name: name, header: append(head, fields...), packet: packet})
}

// keys are the header lines that say what the opener holds.
func keys() [][2]string {
	return [][2]string{
		{"key-id", hex.EncodeToString(here.id)},
		{"request-key", hex.EncodeToString(here.request)},
		{"reply-key", hex.EncodeToString(here.reply)},
	}
}

func awaited() [2]string { return [2]string{"id", hex.EncodeToString(theID[:])} }

func sealRequest(name string, body []byte) []byte {
	return seal(here.request, header(typeRequest, here.id), nonceFor(name), body)
}

func sealReply(name string, body []byte) []byte {
	return seal(here.reply, header(typeReply, here.id), nonceFor(name), body)
}

func (s *suite) request(name, comment string, r request) {
	s.add("request_"+name, "request", "ok", comment, sealRequest(name, r.body()), append(keys(), r.fields()...)...)
}

func (s *suite) requestFails(name, expect, comment string, packet []byte) {
	s.add("request_"+name, "request", expect, comment, packet, keys()...)
}

func (s *suite) requestMalformed(name, field, comment string, r request) {
	s.add("request_"+name, "request", "malformed", comment, sealRequest(name, r.body()),
		append(keys(), [2]string{"malformed", field})...)
}

func (s *suite) reply(name, comment string, r reply) {
	s.add("reply_"+name, "reply", "ok", comment, sealReply(name, r.body()),
		slices.Concat(keys(), [][2]string{awaited()}, r.fields())...)
}

func (s *suite) replyFails(name, expect, comment string, packet []byte) {
	s.add("reply_"+name, "reply", expect, comment, packet, append(keys(), awaited())...)
}

func (s *suite) replyMalformed(name, field, comment string, r reply) {
	s.add("reply_"+name, "reply", "malformed", comment, sealReply(name, r.body()),
		append(keys(), awaited(), [2]string{"malformed", field})...)
}

// with changes a copy.
func with[T any](v T, change func(*T)) T {
	change(&v)
	return v
}

// put overwrites bytes of a copy.
func put(packet []byte, at int, bytes ...byte) []byte {
	p := slices.Clone(packet)
	copy(p[at:], bytes)
	return p
}

// flip changes bits of one byte of a copy.
func flip(packet []byte, at int, bits byte) []byte { return put(packet, at, packet[at]^bits) }

// resize cuts a packet, or extends it with copies of itself.
func resize(packet []byte, n int) []byte { return bytes.Repeat(packet, n/len(packet)+1)[:n] }

var lengths = []int{0, 1, 15, 16, 39, 40, 111, 112, 127, 129, 256, 1200}

// headerFaults are the header checks of section 4 in order, each with headers that fail only there.
var headerFaults = []struct {
	name, expect, comment string
	at                    int
	bytes                 []byte
}{
	{"magic_first_byte", "magic", "the first byte of the magic differs in one bit", 0, []byte{'O'}},
	{"magic_last_byte", "magic", "the last byte of the magic differs in one bit", 3, []byte{'P'}},
	{"magic_lower_case", "magic", "the magic in lower case", 0, []byte("nsrq")},
	{"magic_reversed", "magic", "the magic in the other byte order", 0, []byte("QRSN")},
	{"version_0", "version", "version 0", 4, []byte{0}},
	{"version_2", "version", "version 2", 4, []byte{2}},
	{"version_255", "version", "version 255", 4, []byte{255}},
	{"type_0", "type", "type 0", 5, []byte{0}},
	{"type_3", "type", "type 3", 5, []byte{3}},
	{"type_255", "type", "type 255", 5, []byte{255}},
	{"reserved_byte_6", "reserved", "the first reserved header byte is not 0", 6, []byte{1}},
	{"reserved_byte_7", "reserved", "the second reserved header byte is not 0", 7, []byte{1}},
	{"reserved_high_bit", "reserved", "the highest reserved bit is set", 6, []byte{0x80, 0}},
}

// flips are places that only the tag protects.
var flips = []struct {
	name, comment string
	at            int
	bits          byte
}{
	{"nonce_first_bit_flipped", "the first bit of the nonce", 16, 0x80},
	{"nonce_middle_bit_flipped", "a bit of the nonce's second half, which HChaCha20 does not take", 33, 0x01},
	{"nonce_last_bit_flipped", "the last bit of the nonce", 39, 0x01},
	{"body_first_bit_flipped", "the first bit of the sealed body", 40, 0x80},
	{"body_result_bit_flipped", "a bit of the sealed op or result", 80, 0x01},
	{"body_last_bit_flipped", "the last bit of the sealed body", 111, 0x01},
	{"tag_bit_flipped", "the first bit of the tag", 112, 0x80},
	{"tag_last_bit_flipped", "the last bit of the tag", 127, 0x01},
}

func (s *suite) requests() {
	s.request("status", "a status", aStatus())
	s.request("status_time_0", "a status without a time", with(aStatus(), func(r *request) { r.time = 0 }))
	s.request("run_time", "a run by its time: n,s,u,b", aRun())
	s.request("run_challenge", "a run by a challenge: n,s,u,b; the worked example", byChallenge())
	s.request("run_time_and_challenge", "a run may carry both; the challenge decides",
		with(byChallenge(), func(r *request) { r.time = moment }))
	s.request("run_neither", "neither time nor challenge is well formed; the ledger calls it stale",
		with(aRun(), func(r *request) { r.time = 0 }))
	s.request("run_pauses", "pauses in whole seconds and in between", withSteps("nsub", 0, 200, 50, 0))
	s.request("run_pause_smallest", "one unit of 10 ms", withSteps("sb", 1))
	s.request("run_pause_units", "a pause that is no whole second but longer", withSteps("sb", 123))
	s.request("barrier", "a run without steps", withSteps(""))
	s.request("barrier_now", "what `cancel` sends", with(withSteps(""), func(r *request) { r.flags = 4 }))
	s.request("steps_1", "one step", withSteps("b"))
	s.request("steps_7", "MAX_STEPS steps", withSteps("reisubo"))
	s.request("steps_same_key", "a key may come twice", withSteps("ssuub"))
	for _, k := range "09az" {
		s.request(fmt.Sprintf("key_%c", k), "the edges of the SysRq keys", withSteps(string(k)))
	}
	s.request("pauses_6000_in_one", "MAX_PAUSE in one field", withSteps("sb", 6000))
	s.request("pauses_6000_in_seven", "MAX_PAUSE as a sum", withSteps("0123456", 857, 857, 857, 857, 857, 857, 858))
	s.request("flag_rehearse", "rehearse alone", with(aRun(), func(r *request) { r.flags = 1 }))
	s.request("flag_drill", "drill alone", with(aRun(), func(r *request) { r.flags = 2 }))
	s.request("flag_now", "now alone", with(aRun(), func(r *request) { r.flags = 4 }))
	s.request("flags_all", "all flags", with(aRun(), func(r *request) { r.flags = 7 }))
	s.request("time_1", "the smallest time", with(aRun(), func(r *request) { r.time = 1 }))
	s.request("time_max", "the largest time", with(aRun(), func(r *request) { r.time = math.MaxUint64 }))
	s.request("time_signed_edge", "a time with only the highest bit set", with(aRun(), func(r *request) { r.time = 1 << 63 }))
	s.request("id_one_bit", "an id with one bit set is not zero", with(aRun(), func(r *request) { r.id = [16]byte{15: 1} }))
	s.request("challenge_one_bit", "a challenge with one bit set is one",
		with(aRun(), func(r *request) { r.challenge = [16]byte{0: 0x80} }))
	s.add("request_nonce_zero", "request", "ok", "a host takes any nonce",
		seal(here.request, header(typeRequest, here.id), make([]byte, 24), aRun().body()), append(keys(), aRun().fields()...)...)

	for _, n := range lengths {
		name := fmt.Sprintf("length_%d", n)
		s.requestFails(name, "length", fmt.Sprintf("length %d: a good packet cut, or followed by itself", n),
			resize(sealRequest(name, aRun().body()), n))
	}
	for _, f := range headerFaults {
		h := put(header(typeRequest, here.id), f.at, f.bytes...)
		s.requestFails(f.name, f.expect, f.comment+"; the tag is right", seal(here.request, h, nonceFor(f.name), aRun().body()))
	}
	h := header(typeReply, here.id)
	s.requestFails("type_2", "type", "a request body under the type of a reply; the tag is right",
		seal(here.request, h, nonceFor("type_2"), aRun().body()))
	s.requestFails("zeros", "magic", "128 zero bytes", make([]byte, 128))

	s.requestFails("other_host", "unknown-key", "a good request to another host of the same operator",
		seal(there.request, header(typeRequest, there.id), nonceFor("other_host"), aRun().body()))
	id := put(here.id, 7, here.id[7]^1)
	s.requestFails("key_id_last_bit", "unknown-key", "the key id differs in its last bit; the tag is right",
		seal(here.request, header(typeRequest, id), nonceFor("key_id_last_bit"), aRun().body()))
	id = put(here.id, 0, here.id[0]^0x80)
	s.requestFails("key_id_first_bit", "unknown-key", "the key id differs in its first bit; the tag is right",
		seal(here.request, header(typeRequest, id), nonceFor("key_id_first_bit"), aRun().body()))

	for _, f := range flips {
		s.requestFails(f.name, "forged", f.comment+" differs", flip(sealRequest(f.name, aRun().body()), f.at, f.bits))
	}
	good := header(typeRequest, here.id)
	s.requestFails("tag_zero", "forged", "a tag of zeros", put(sealRequest("tag_zero", aRun().body()), 112, make([]byte, 16)...))
	s.requestFails("other_hosts_key", "forged", "sealed with another host's request key under this key id",
		seal(there.request, good, nonceFor("other_hosts_key"), aRun().body()))
	s.requestFails("sealed_with_reply_key", "forged", "sealed with the reply key",
		seal(here.reply, good, nonceFor("sealed_with_reply_key"), aRun().body()))
	s.requestFails("sealed_with_zero_key", "forged", "sealed with a key of zeros",
		seal(make([]byte, 32), good, nonceFor("sealed_with_zero_key"), aRun().body()))
	s.requestFails("header_not_sealed", "forged", "no associated data",
		sealAs(here.request, good, nil, nonceFor("header_not_sealed"), aRun().body()))
	s.requestFails("header_half_sealed", "forged", "only bytes 0 to 7 are associated data",
		sealAs(here.request, good, good[:8], nonceFor("header_half_sealed"), aRun().body()))
	s.requestFails("header_sealed_as_reply", "forged", "the associated data says reply",
		sealAs(here.request, good, h, nonceFor("header_sealed_as_reply"), aRun().body()))
	s.requestFails("short_nonce_cipher", "forged", "ChaCha20-Poly1305 with the first 12 bytes of the nonce", shortNonce("short_nonce_cipher"))
	s.requestFails("not_sealed", "forged", "the body in clear text",
		slices.Concat(good, nonceFor("not_sealed"), aRun().body(), make([]byte, 16)))
	s.requestFails("reflected_reply", "type", "a reply sent back to the host",
		sealReply("reflected_reply", aReply().body()))
	s.requestFails("reflected_reply_retyped", "forged", "a reply sent back with its type byte changed",
		put(sealReply("reflected_reply_retyped", aReply().body()), 5, typeRequest))

	for _, op := range []byte{3, 4, 255} {
		s.requestMalformed(fmt.Sprintf("op_%d", op), "op", fmt.Sprintf("op %d", op), with(aRun(), func(r *request) { r.op = op }))
	}
	s.requestMalformed("id_zero", "id", "the request id is zero", with(aRun(), func(r *request) { r.id = [16]byte{} }))
	s.requestMalformed("id_zero_status", "id", "the request id of a status is zero", with(aStatus(), func(r *request) { r.id = [16]byte{} }))
	for _, b := range []byte{0x01, 0x80} {
		s.requestMalformed(fmt.Sprintf("body_reserved_%02x", b), "body-reserved", "reserved byte 43 is not 0",
			with(aRun(), func(r *request) { r.reserved = b }))
	}
	for bit := 3; bit < 8; bit++ {
		s.requestMalformed(fmt.Sprintf("flag_bit_%d", bit), "flags", fmt.Sprintf("flag bit %d", bit),
			with(aRun(), func(r *request) { r.flags = 1 << bit }))
	}
	s.requestMalformed("steps_8", "step-count", "step count 8, seven slots filled",
		with(withSteps("reisubo"), func(r *request) { r.count = 8 }))
	s.requestMalformed("steps_255", "step-count", "step count 255", with(withSteps("reisubo"), func(r *request) { r.count = 255 }))
	for _, k := range []struct {
		name string
		key  byte
	}{
		{"slash", '/'}, {"colon", ':'}, {"backquote", '`'}, {"brace", '{'}, {"upper_case", 'S'}, {"space", ' '},
		{"zero", 0}, {"high_bit", 's' | 0x80},
	} {
		s.requestMalformed("key_"+k.name, "step-key", fmt.Sprintf("SysRq key %#02x", k.key),
			with(aRun(), func(r *request) { r.steps[0].key = k.key }))
	}
	s.requestMalformed("key_zero_in_last_slot", "step-key", "the seventh of seven steps has no key",
		with(withSteps("reisubo"), func(r *request) { r.steps[6].key = 0 }))
	s.requestMalformed("step_reserved_first", "step-reserved", "the reserved byte of the first slot",
		with(aRun(), func(r *request) { r.steps[0].reserved = 1 }))
	s.requestMalformed("step_reserved_last", "step-reserved", "the reserved byte of the seventh slot",
		with(withSteps("reisubo"), func(r *request) { r.steps[6].reserved = 0x80 }))
	s.requestMalformed("unused_key", "step-unused", "a key in the slot after the last step",
		with(aRun(), func(r *request) { r.steps[4].key = 'o' }))
	s.requestMalformed("unused_reserved", "step-unused", "the reserved byte of an unused slot",
		with(aRun(), func(r *request) { r.steps[5].reserved = 1 }))
	s.requestMalformed("unused_pause", "step-unused", "a pause in the last, unused slot",
		with(aRun(), func(r *request) { r.steps[6].pause = 1 }))
	s.requestMalformed("unused_in_barrier", "step-unused", "a barrier with a key in its first slot",
		with(withSteps(""), func(r *request) { r.steps[0].key = 's' }))
	s.requestMalformed("pauses_6001_in_one", "pauses", "one more than MAX_PAUSE in one field", withSteps("sb", 6001))
	s.requestMalformed("pauses_6001_in_seven", "pauses", "one more than MAX_PAUSE as a sum",
		withSteps("0123456", 857, 857, 857, 857, 857, 858, 858))
	s.requestMalformed("pauses_wrap", "pauses", "a sum that is 0 in 16 bits", withSteps("sb", 65535, 1))
	s.requestMalformed("pauses_max", "pauses", "the largest sum", withSteps("0123456", 65535, 65535, 65535, 65535, 65535, 65535, 65535))
	for bit, flag := range []string{"rehearse", "drill", "now"} {
		s.requestMalformed("status_"+flag, "status-fields", "a status with "+flag, with(aStatus(), func(r *request) { r.flags = 1 << bit }))
	}
	s.requestMalformed("status_step", "status-fields", "a status with a step", with(withSteps("s"), func(r *request) { r.op = 0 }))
	s.requestMalformed("status_challenge", "status-fields", "a status with a challenge",
		with(aStatus(), func(r *request) { r.challenge = challenge }))

	s.requestFails("both_length_magic", "length", "127 bytes and a wrong magic",
		put(resize(sealRequest("both_length_magic", aRun().body()), 127), 0, 'X'))
	for i := range len(bothHeader) - 1 {
		a, b := bothHeader[i], bothHeader[i+1]
		name := "both_" + a.expect + "_" + b.expect
		s.requestFails(name, a.expect, "wrong "+a.expect+" and wrong "+b.expect,
			put(put(sealRequest(name, aRun().body()), a.at, a.value), b.at, b.value))
	}
	s.requestFails("both_reserved_unknown_key", "reserved", "wrong reserved and wrong key id",
		put(flip(sealRequest("both_reserved_unknown_key", aRun().body()), 8, 1), 7, 1))
	s.requestFails("both_unknown_key_forged", "unknown-key", "wrong key id and wrong tag",
		flip(flip(sealRequest("both_unknown_key_forged", aRun().body()), 8, 1), 127, 1))
	s.requestFails("both_forged_malformed", "forged", "op 3, and a wrong tag: what is not authentic is not looked into",
		flip(sealRequest("both_forged_malformed", with(aRun(), func(r *request) { r.op = 3 }).body()), 127, 1))
	for i := range len(bothBody) - 1 {
		a, b := bothBody[i], bothBody[i+1]
		r := aRun()
		a.spoil(&r)
		b.spoil(&r)
		name := "both_" + strings.ReplaceAll(a.field+"_"+b.field, "-", "_")
		s.requestMalformed(name, a.field, "wrong "+a.field+" and wrong "+b.field, r)
	}
	s.requestMalformed("both_pauses_status_fields", "pauses", "a status with a step whose pause is too long",
		with(withSteps("s", 6001), func(r *request) { r.op = 0 }))
}

// bothHeader spoils neighbouring header fields.
var bothHeader = []struct {
	expect string
	at     int
	value  byte
}{
	{"magic", 0, 'X'}, {"version", 4, 2}, {"type", 5, 9}, {"reserved", 7, 1},
}

// bothBody spoils neighbouring body fields in the order of 4.1, each without failing an earlier check.
var bothBody = []struct {
	field string
	spoil func(*request)
}{
	{"op", func(r *request) { r.op = 3 }},
	{"id", func(r *request) { r.id = [16]byte{} }},
	{"body-reserved", func(r *request) { r.reserved = 1 }},
	{"flags", func(r *request) { r.flags = 8 }},
	{"step-count", func(r *request) { r.count = 8 }},
	{"step-key", func(r *request) { r.steps[0].key = '/' }},
	{"step-unused", func(r *request) { r.steps[6].key = 's' }},
	{"pauses", func(r *request) { r.steps[1].pause = 6001 }},
}

// shortNonce seals as one does who reads "ChaCha20-Poly1305" and overlooks the X.
func shortNonce(name string) []byte {
	h, nonce := header(typeRequest, here.id), nonceFor(name)
	aead := must(chacha20poly1305.New(here.request))
	return aead.Seal(slices.Concat(h, nonce), nonce[:12], aRun().body(), h)
}

func (s *suite) replies() {
	change := func(c func(*reply)) reply { return with(aReply(), c) }

	s.reply("accepted", "the answer to request_run_challenge; the worked example", aReply())
	s.reply("status", "a status with a challenge", change(func(r *reply) { r.result, r.challenge = 0, challenge }))
	s.reply("stale", "stale brings a challenge", change(func(r *reply) { r.result, r.challenge = 2, challenge }))
	s.reply("policy", "refused by policy: the fourth step", change(func(r *reply) { r.result, r.mask = 3, 8 }))
	s.reply("masked", "refused by kernel.sysrq: the second and third step", change(func(r *reply) { r.result, r.mask = 4, 6 }))
	s.reply("vetoed", "vetoed", change(func(r *reply) { r.result = 5 }))
	s.reply("busy", "busy", change(func(r *reply) { r.result = 6 }))
	s.reply("malformed_result", "the host called the request malformed", change(func(r *reply) { r.result = 7 }))
	s.reply("daemon", "the daemon alone: not armed, silent for 0 s", change(func(r *reply) { r.executor, r.flags, r.silent = 1, 8, 0 }))
	s.reply("flags_none", "no flags", change(func(r *reply) { r.flags = 0 }))
	s.reply("flag_repeat", "repeat alone", change(func(r *reply) { r.flags = 1 }))
	s.reply("flag_rehearsed", "rehearsed alone: no step ran", change(func(r *reply) { r.flags, r.mask = 2, 15 }))
	s.reply("flag_dry_run", "dry run alone: no step ran", change(func(r *reply) { r.flags, r.mask = 4, 15 }))
	s.reply("flag_armed", "armed alone", change(func(r *reply) { r.flags = 16 }))
	s.reply("flags_all", "all flags", change(func(r *reply) { r.flags, r.mask = 31, 15 }))
	s.reply("mask_all", "all seven steps", change(func(r *reply) { r.result, r.mask = 3, 127 }))
	s.reply("time_0", "a host whose clock says 1970", change(func(r *reply) { r.time = 0 }))
	s.reply("time_max", "the largest time", change(func(r *reply) { r.time = math.MaxUint64 }))
	s.reply("sysrq_unknown", "kernel.sysrq is not known", change(func(r *reply) { r.sysrq = 0xffff }))
	s.reply("minima", "every field as small as it can be", reply{id: theID, executor: 1})
	s.reply("maxima", "every field as large as it can be", reply{
		time: math.MaxUint64, id: theID, challenge: [16]byte(bytes.Repeat([]byte{255}, 16)), result: 7, executor: 2,
		flags: 31, mask: 127, bootID: [8]byte(bytes.Repeat([]byte{255}, 8)), uptime: math.MaxUint32,
		ledgerAge: math.MaxUint16, load: math.MaxUint16, free: math.MaxUint32, sysrq: math.MaxUint16, silent: math.MaxUint16,
	})

	for _, n := range lengths {
		name := fmt.Sprintf("length_%d", n)
		s.replyFails(name, "length", fmt.Sprintf("length %d: a good packet cut, or followed by itself", n),
			resize(sealReply("reply "+name, aReply().body()), n))
	}
	good := header(typeReply, here.id)
	for _, f := range headerFaults {
		h := put(good, f.at, f.bytes...)
		s.replyFails(f.name, f.expect, f.comment+"; the tag is right", seal(here.reply, h, nonceFor("reply "+f.name), aReply().body()))
	}
	s.replyFails("type_1", "type", "a reply body under the type of a request; the tag is right",
		seal(here.reply, header(typeRequest, here.id), nonceFor("type_1"), aReply().body()))
	s.replyFails("other_host", "unknown-key", "a good reply of another host",
		seal(there.reply, header(typeReply, there.id), nonceFor("reply other_host"), aReply().body()))
	for _, f := range flips {
		s.replyFails(f.name, "forged", f.comment+" differs", flip(sealReply("reply "+f.name, aReply().body()), f.at, f.bits))
	}
	s.replyFails("other_hosts_key", "forged", "sealed with another host's reply key under this key id",
		seal(there.reply, good, nonceFor("reply other_hosts_key"), aReply().body()))
	s.replyFails("sealed_with_request_key", "forged", "sealed with the request key",
		seal(here.request, good, nonceFor("sealed_with_request_key"), aReply().body()))
	s.replyFails("header_not_sealed", "forged", "no associated data",
		sealAs(here.reply, good, nil, nonceFor("reply header_not_sealed"), aReply().body()))
	s.replyFails("reflected_request", "type", "the request sent back to its sender",
		sealRequest("reflected_request", aRun().body()))
	s.replyFails("reflected_request_retyped", "forged", "the request sent back with its type byte changed",
		put(sealRequest("reflected_request_retyped", aRun().body()), 5, typeReply))

	s.replyFails("other_request", "other-request", "the answer to another request",
		sealReply("other_request", change(func(r *reply) { r.id = otherID }).body()))
	s.replyFails("other_request_last_bit", "other-request", "an id that differs in its last bit",
		sealReply("other_request_last_bit", change(func(r *reply) { r.id[15] ^= 1 }).body()))
	s.replyFails("other_request_zero", "other-request", "an id of zeros",
		sealReply("other_request_zero", change(func(r *reply) { r.id = [16]byte{} }).body()))

	for _, v := range []byte{8, 255} {
		s.replyMalformed(fmt.Sprintf("result_%d", v), "result", fmt.Sprintf("result %d", v), change(func(r *reply) { r.result = v }))
	}
	for _, v := range []byte{0, 3, 255} {
		s.replyMalformed(fmt.Sprintf("executor_%d", v), "executor", fmt.Sprintf("executor %d", v), change(func(r *reply) { r.executor = v }))
	}
	for bit := 5; bit < 8; bit++ {
		s.replyMalformed(fmt.Sprintf("flag_bit_%d", bit), "flags", fmt.Sprintf("flag bit %d", bit), change(func(r *reply) { r.flags = 1 << bit }))
	}
	s.replyMalformed("mask_bit_7", "mask", "there is no eighth step", change(func(r *reply) { r.mask = 0x80 }))
	for i := range 4 {
		s.replyMalformed(fmt.Sprintf("body_reserved_byte_%d", 68+i), "body-reserved", fmt.Sprintf("reserved byte %d is not 0", 68+i),
			change(func(r *reply) { r.reserved[i] = 1 }))
	}

	for i := range len(bothHeader) - 1 {
		a, b := bothHeader[i], bothHeader[i+1]
		name := "both_" + a.expect + "_" + b.expect
		s.replyFails(name, a.expect, "wrong "+a.expect+" and wrong "+b.expect,
			put(put(sealReply("reply "+name, aReply().body()), a.at, a.value), b.at, b.value))
	}
	s.replyFails("both_forged_other_request", "forged", "the answer to another request, and a wrong tag",
		flip(sealReply("both_forged_other_request", change(func(r *reply) { r.id = otherID }).body()), 127, 1))
	s.replyFails("both_other_request_malformed", "other-request", "the answer to another request, and result 8",
		sealReply("both_other_request_malformed", change(func(r *reply) { r.id, r.result = otherID, 8 }).body()))
}

func (s *suite) derivations() {
	label63 := strings.Repeat("a", 63)
	long := strings.Join([]string{label63, label63, label63, label63[:61]}, ".") // 253 characters
	ok := func(name, comment string, master []byte, host, normal string) {
		k := derive(master, normal)
		s.add("derive_"+name, "derive", "ok", comment, nil,
			[2]string{"key-id", hex.EncodeToString(k.id)},
			[2]string{"request-key", hex.EncodeToString(k.request)},
			[2]string{"reply-key", hex.EncodeToString(k.reply)},
			[2]string{"master", hex.EncodeToString(master)},
			[2]string{"host", host})
	}
	bad := func(name, comment, host string) {
		s.add("derive_"+name, "derive", "malformed", comment, nil,
			[2]string{"malformed", "name"},
			[2]string{"master", hex.EncodeToString(master)},
			[2]string{"host", host})
	}
	ok("host", "the host key of most vectors", master, host, host)
	ok("other_host", "one character more or less is another key", master, other, other)
	ok("other_master", "another master", count32(0x80), host, host)
	ok("upper_case", "upper case becomes lower case: the key of derive_host", master, "WEB01.Example.ORG", host)
	ok("trailing_dot", "one trailing dot is removed: the key of derive_host", master, host+".", host)
	ok("one_character", "the shortest name", master, "a", "a")
	ok("every_class", "a letter, a digit and each sign", master, "a0.b_c-z9", "a0.b_c-z9")
	ok("longest", "253 characters", master, long, long)
	ok("longest_with_dot", "253 characters and the dot that is removed", master, long+".", long)
	bad("two_trailing_dots", "only one trailing dot is removed", host+"..")
	bad("leading_dot", "a dot first", "."+host)
	bad("empty", "no name", "")
	bad("dot", "nothing is left without the dot", ".")
	bad("too_long", "254 characters", long+"a")
	bad("space", "a space", "web 01")
	bad("slash", "a slash", "web01/24")
	bad("at", "labels have @, names do not", "root@web01")
	bad("not_ascii", "a letter that is not ASCII", "wéb01")
}

func (s *suite) passphrases() {
	ok := func(name, comment, label, passphrase, normal string) {
		s.add("passphrase_"+name, "passphrase", "ok", comment, nil,
			[2]string{"master", hex.EncodeToString(fromPassphrase(label, normal))},
			[2]string{"label", label},
			[2]string{"passphrase", passphrase})
	}
	bad := func(name, comment, label string) {
		s.add("passphrase_"+name, "passphrase", "malformed", comment, nil,
			[2]string{"malformed", "label"},
			[2]string{"label", label},
			[2]string{"passphrase", "gravel onion tundra"})
	}
	ok("plain", "words with one space between", "alice@example.org", "gravel onion tundra kiosk velvet marsh", "gravel onion tundra kiosk velvet marsh")
	ok("white_space", "white space at both ends and in runs, tabs too: the master of passphrase_plain",
		"alice@example.org", " \tgravel  onion\ttundra \t kiosk velvet   marsh \t", "gravel onion tundra kiosk velvet marsh")
	long := strings.Repeat("a0._@-z9", 8) // 64 characters
	ok("longest_label", "a label of 64 characters with each sign; upper case in a passphrase counts", long, "Gravel", "Gravel")
	bad("label_empty", "no label", "")
	bad("label_too_long", "65 characters", long+"a")
	bad("label_upper_case", "labels are not made lower case", "Alice")
	bad("label_space", "a space", "alice b")
	bad("label_slash", "a slash", "alice/b")
	bad("label_not_ascii", "a letter that is not ASCII", "zoë")
}

// writeExample prints section 7 of PROTOCOL.md.
func writeExample(w io.Writer) error {
	request := byChallenge().body()
	answer := aReply().body()
	_, err := fmt.Fprintf(w, `The request asks %[1]s for n,s,u,b by a challenge, without pauses, time 0; the kernel accepts it. Both
packets are in the vectors (`+"`request_run_challenge`, `reply_accepted`"+`). Hexadecimal, 32 bytes a line.

    master       %[2]x
    host         %[1]s
    HKDF info    %[3]x
    key id       %[4]x
    request key  %[5]x
    reply key    %[6]x

The request's plaintext, 72 bytes:

%[7]s
and its packet, 128 bytes:

%[8]s
The reply's plaintext (result 1, executor 2, flags 24, mask 0; uptime 86461 s, ledger age 3600 s, load 15.23, 412 MiB
free, kernel.sysrq 438, daemon silent for 7 s):

%[9]s
and its packet:

%[10]s`, host, master, info(host), here.id, here.request, here.reply,
		indent(request), indent(sealRequest("run_challenge", request)),
		indent(answer), indent(sealReply("accepted", answer)))
	return err
}

func indent(p []byte) string {
	return "    " + strings.ReplaceAll(strings.TrimSuffix(hexLines(p), "\n"), "\n", "\n    ") + "\n"
}
