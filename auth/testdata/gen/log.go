// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"fmt"
	"math"
	"slices"
)

// aLog is the log that most cases change in one place.
func aLog() request {
	return request{time: moment, id: theID, challenge: challenge, op: 2, log: &log{from: 1000, pieces: 8}}
}

// changedLog changes a copy, of what is behind the pointer too.
func changedLog(change func(*request)) request {
	r, l := aLog(), *aLog().log
	r.log = &l
	change(&r)
	return r
}

func (s *suite) logs() {
	s.request("log", "a log: up to eight pieces from record 1000 on", aLog())
	s.request("log_end", "a log that asks only where the log begins and ends", changedLog(func(r *request) { r.log.from = math.MaxUint64 }))
	s.request("log_start", "a log from the first record on, one piece", changedLog(func(r *request) { r.log.from, r.log.pieces = 0, 1 }))
	s.request("log_time_0", "a log needs no time", changedLog(func(r *request) { r.time = 0 }))

	malformed := func(name, comment string, change func(*request)) {
		s.requestMalformed("log_"+name, "log-fields", comment, changedLog(change))
	}
	malformed("no_challenge", "a log without a challenge: a time does not make it fresh", func(r *request) { r.challenge = [16]byte{} })
	malformed("pieces_0", "a log that wants no piece", func(r *request) { r.log.pieces = 0 })
	malformed("pieces_9", "one more than MAX_PIECES", func(r *request) { r.log.pieces = 9 })
	malformed("pieces_255", "255 pieces", func(r *request) { r.log.pieces = 255 })
	for bit, flag := range []string{"rehearse", "drill", "now"} {
		malformed(flag, "a log with "+flag, func(r *request) { r.flags = 1 << bit })
	}
	malformed("step_count", "a log with a step", func(r *request) { r.count = 1 })
	malformed("reserved_first", "the first reserved byte after the pieces", func(r *request) { r.log.rest[0] = 1 })
	malformed("reserved_last", "the last byte of the body", func(r *request) { r.log.rest[18] = 0x80 })
	s.requestMalformed("log_flag_bit_3", "flags", "a log with a flag that nothing has", changedLog(func(r *request) { r.flags = 8 }))
	s.requestMalformed("log_steps_8", "step-count", "a log with step count 8", changedLog(func(r *request) { r.count = 8 }))
	s.requestMalformed("log_id_zero", "id", "a log without an id", changedLog(func(r *request) { r.id = [16]byte{} }))
	s.requestMalformed("log_body_reserved", "body-reserved", "a log with reserved byte 43", changedLog(func(r *request) { r.reserved = 1 }))
	s.requestMalformed("both_step_count_log_fields", "step-count", "a log with step count 8 and no challenge",
		changedLog(func(r *request) { r.count, r.challenge = 8, [16]byte{} }))
	s.requestMalformed("log_with_steps", "log-fields", "op log over the steps of a run", with(byChallenge(), func(r *request) { r.op = 2 }))
	s.requestMalformed("run_with_log", "step-unused", "op run, without steps, over the fields of a log",
		changedLog(func(r *request) { r.op = 1 }))
}

var lines = []byte("<6>[    0.000000] Linux version 6.1.0-44-cloud-amd64\n<3>[12345.678901] sysrq: Show Blocked State\n")

// aPiece is the piece that most cases change in one place.
func aPiece() piece {
	return piece{
		time: moment + 5_000_000, id: theID, challenge: challenge, flags: 1, bootID: aReply().bootID,
		first: 1000, next: 1002, end: 1002, oldest: 17, text: lines,
	}
}

func sealPiece(name string, body []byte) []byte {
	return seal(here.reply, header(typePiece, here.id), nonceFor("piece "+name), body)
}

func (s *suite) piece(name, comment string, p piece) {
	s.add("piece_"+name, "piece", "ok", comment, sealPiece(name, p.body()),
		slices.Concat(keys(), [][2]string{awaited()}, p.fields())...)
}

func (s *suite) pieceFails(name, expect, comment string, packet []byte) {
	s.add("piece_"+name, "piece", expect, comment, packet, append(keys(), awaited())...)
}

func (s *suite) pieceMalformed(name, field, comment string, p piece) {
	s.add("piece_"+name, "piece", "malformed", comment, sealPiece(name, p.body()),
		append(keys(), awaited(), [2]string{"malformed", field})...)
}

func (s *suite) pieces() {
	change := func(c func(*piece)) piece { return with(aPiece(), c) }

	s.piece("two_records", "two records, and no more are there", aPiece())
	s.piece("first_of_several", "more pieces follow", change(func(p *piece) { p.flags, p.end = 0, 5000 }))
	s.piece("index_7", "the eighth piece", change(func(p *piece) { p.index, p.end = 7, 5000 }))
	s.piece("empty", "no record: only where the log begins and ends", change(func(p *piece) { p.first, p.text = 1002, nil }))
	s.piece("nothing_logged", "a host that has logged nothing yet", change(func(p *piece) {
		p.first, p.next, p.end, p.oldest, p.text = 0, 0, 0, 0, nil
	}))
	s.piece("full", "TEXT_SIZE bytes of text: the longest packet", change(func(p *piece) {
		p.text = append(bytes.Repeat([]byte{'x'}, textSize-1), '\n')
	}))
	s.piece("cut", "a record that is too long", change(func(p *piece) {
		p.flags, p.next, p.text = 3, 1001, append(bytes.Repeat([]byte{'x'}, textSize-1), '\n')
	}))
	s.piece("control_characters", "text is any bytes", change(func(p *piece) {
		p.text = []byte("<6>[    1.000000] \x1b]0;title\a\x00\xff\xc2\x9b2J\n")
	}))
	s.piece("no_challenge", "a host whose random generator is not ready", change(func(p *piece) { p.challenge = [16]byte{} }))
	s.piece("records_max", "the largest numbers", change(func(p *piece) {
		p.first, p.next, p.end, p.oldest = math.MaxUint64-1, math.MaxUint64, math.MaxUint64, math.MaxUint64
	}))
	s.piece("oldest_above_first", "records were overwritten while the answer was made", change(func(p *piece) { p.oldest = 1002 }))

	whole := seal(here.reply, header(typePiece, here.id), nonceFor("piece length"), aPiece().body())
	for _, n := range []int{0, 39, 40, 128, 139} {
		s.pieceFails(fmt.Sprintf("length_%d", n), "length", fmt.Sprintf("length %d: a good piece cut", n), whole[:n])
	}
	s.pieceFails("length_140", "forged", "the shortest length that there is, of a piece that was longer", whole[:140])
	s.pieceFails("length_1201", "length", "one byte of text more than TEXT_SIZE; the tag is right",
		sealPiece("length_1201", change(func(p *piece) { p.text = bytes.Repeat([]byte{'x'}, textSize+1) }).body()))
	for _, f := range headerFaults {
		if f.name == "type_3" {
			continue
		}
		h := put(header(typePiece, here.id), f.at, f.bytes...)
		s.pieceFails(f.name, f.expect, f.comment+"; the tag is right", seal(here.reply, h, nonceFor("piece "+f.name), aPiece().body()))
	}
	s.pieceFails("type_2", "type", "a piece's body under the type of a reply; the tag is right",
		seal(here.reply, header(typeReply, here.id), nonceFor("piece type_2"), aPiece().body()))
	s.pieceFails("retyped", "forged", "a reply's bytes followed by more, its type byte changed",
		put(resize(sealReply("piece retyped", aReply().body()), 256), 5, typePiece))
	s.pieceFails("other_host", "unknown-key", "a good piece of another host",
		seal(there.reply, header(typePiece, there.id), nonceFor("piece other_host"), aPiece().body()))
	s.pieceFails("sealed_with_request_key", "forged", "sealed with the request key",
		seal(here.request, header(typePiece, here.id), nonceFor("piece sealed_with_request_key"), aPiece().body()))
	s.pieceFails("header_sealed_as_reply", "forged", "the associated data says reply",
		sealAs(here.reply, header(typePiece, here.id), header(typeReply, here.id), nonceFor("piece header_sealed_as_reply"), aPiece().body()))
	s.pieceFails("text_bit_flipped", "forged", "a bit of the text differs", flip(sealPiece("text_bit_flipped", aPiece().body()), 40+84, 1))
	good := sealPiece("tag_last_bit_flipped", aPiece().body())
	s.pieceFails("tag_last_bit_flipped", "forged", "the last bit of the tag differs", flip(good, len(good)-1, 1))
	s.pieceFails("other_request", "other-request", "an answer to another request",
		sealPiece("other_request", change(func(p *piece) { p.id = otherID }).body()))
	s.pieceFails("both_other_request_malformed", "other-request", "an answer to another request, and index 8",
		sealPiece("both_other_request_malformed", change(func(p *piece) { p.id, p.index = otherID, 8 }).body()))

	for _, v := range []byte{8, 255} {
		s.pieceMalformed(fmt.Sprintf("index_%d", v), "index", fmt.Sprintf("index %d", v), change(func(p *piece) { p.index = v }))
	}
	for bit := 2; bit < 8; bit++ {
		s.pieceMalformed(fmt.Sprintf("flag_bit_%d", bit), "flags", fmt.Sprintf("flag bit %d", bit), change(func(p *piece) { p.flags = 1 << bit }))
	}
	for i := range 2 {
		s.pieceMalformed(fmt.Sprintf("body_reserved_byte_%d", 42+i), "body-reserved", fmt.Sprintf("reserved byte %d is not 0", 42+i),
			change(func(p *piece) { p.reserved[i] = 1 }))
	}
	s.pieceMalformed("next_below_first", "records", "next is below first", change(func(p *piece) { p.first = 1003; p.end = 1004 }))
	s.pieceMalformed("end_below_next", "records", "end is below next", change(func(p *piece) { p.end = 1001 }))
	s.pieceMalformed("oldest_above_end", "records", "oldest is above end", change(func(p *piece) { p.oldest = 1003 }))
	s.pieceMalformed("both_index_flags", "index", "index 8 and flag bit 2", change(func(p *piece) { p.index, p.flags = 8, 4 }))
	s.pieceMalformed("both_flags_body_reserved", "flags", "flag bit 2 and a reserved byte", change(func(p *piece) { p.flags, p.reserved[0] = 4, 1 }))
	s.pieceMalformed("both_body_reserved_records", "body-reserved", "a reserved byte, and end below next",
		change(func(p *piece) { p.reserved[1], p.end = 1, 1001 }))
}
