// SPDX-License-Identifier: GPL-2.0-only

package auth

import (
	"crypto/rand"
	"encoding/binary"
)

// Sizes and limits of the pieces of a log, PROTOCOL.md sections 1 and 3.3.
const (
	PieceSize = 1200 // bytes of UDP payload at most
	PieceHead = 84   // bytes of plaintext before the text
	TextSize  = PieceSize - offBody - PieceHead - TagSize
	MaxPieces = 8 // that answer one request

	minPiece = offBody + PieceHead + TagSize
)

// LogEnd as Request.From asks only where the log begins and ends.
const LogEnd = ^uint64(0)

// PieceFlags qualify a piece.
type PieceFlags uint8

// Flags of a piece.
const (
	Last PieceFlags = 1 << 0 // the answer ends with this piece
	Cut  PieceFlags = 1 << 1 // its one record was too long, and ends early

	pieceFlags = Last | Cut
)

// String returns the flags' words, separated by commas.
func (f PieceFlags) String() string { return words(uint8(f), "last", "cut") }

// Piece is the body of a piece of the kernel's log.
type Piece struct {
	Time      uint64 // ns since 1970, the host's clock
	ID        RequestID
	Challenge Challenge // for the next request, zero: none
	Index     uint8     // in its answer
	Flags     PieceFlags
	Boot      BootID
	First     uint64 // number of the first record in it
	Next      uint64 // number of the record after the last in it
	End       uint64 // number that the next record to be logged will get
	Oldest    uint64 // number of the oldest record that is still there
	Text      []byte // lines, at most TextSize bytes
}

// decodeLog is the end of Request.decode, for a log.
func (r *Request) decodeLog(b []byte) error {
	r.From, r.Pieces = binary.BigEndian.Uint64(b[44:]), b[52]
	if r.Flags != 0 || r.Count != 0 || r.Challenge == (Challenge{}) || r.Pieces < 1 || r.Pieces > MaxPieces ||
		[19]byte(b[53:BodySize]) != [19]byte{} {
		return errLogFields
	}
	return nil
}

// SealPiece returns the packet for p, with a new nonce. Text beyond TextSize
// is left out.
func (s *Sealer) SealPiece(p *Piece) []byte {
	text := p.Text[:min(len(p.Text), TextSize)]
	packet := make([]byte, offBody+PieceHead+len(text), offBody+PieceHead+len(text)+TagSize)
	putHeader(packet, typePiece, s.id)
	rand.Read(packet[offNonce:offBody])
	b := packet[offBody:]
	binary.BigEndian.PutUint64(b[0:], p.Time)
	copy(b[8:], p.ID[:])
	copy(b[24:], p.Challenge[:])
	b[40], b[41] = p.Index, byte(p.Flags)
	copy(b[44:], p.Boot[:])
	binary.BigEndian.PutUint64(b[52:], p.First)
	binary.BigEndian.PutUint64(b[60:], p.Next)
	binary.BigEndian.PutUint64(b[68:], p.End)
	binary.BigEndian.PutUint64(b[76:], p.Oldest)
	copy(b[PieceHead:], text)
	return s.reply.Seal(packet[:offBody], packet[offNonce:offBody], b, packet[:HeaderSize])
}

// IsPiece reports whether a packet claims to be a piece, so that OpenPiece and
// not OpenReply is to judge it.
func IsPiece(packet []byte) bool { return len(packet) > offType && packet[offType] == typePiece }

// OpenPiece opens a piece, in place: whatever the outcome, the packet's body is
// overwritten, and p.Text is part of it. Only OK means that the host sealed it;
// whether it answers a request of ours, p.ID says.
func (s *Sealer) OpenPiece(packet []byte, p *Piece) (Reason, error) {
	if len(packet) < minPiece || len(packet) > PieceSize {
		return ReasonLength, nil
	}
	if reason := headerOf(packet, typePiece); reason != OK {
		return reason, nil
	}
	body, reason := open(s.reply, s.id, packet)
	if reason != OK {
		return reason, nil
	}
	if err := p.decode(body); err != nil {
		return ReasonMalformed, err
	}
	return OK, nil
}

func (p *Piece) decode(b []byte) error {
	*p = Piece{
		Time:      binary.BigEndian.Uint64(b[0:]),
		ID:        RequestID(b[8:]),
		Challenge: Challenge(b[24:]),
		Index:     b[40],
		Flags:     PieceFlags(b[41]),
		Boot:      BootID(b[44:]),
		First:     binary.BigEndian.Uint64(b[52:]),
		Next:      binary.BigEndian.Uint64(b[60:]),
		End:       binary.BigEndian.Uint64(b[68:]),
		Oldest:    binary.BigEndian.Uint64(b[76:]),
		Text:      b[PieceHead:],
	}
	switch {
	case p.Index >= MaxPieces:
		return errIndex
	case p.Flags&^pieceFlags != 0:
		return errFlags
	case b[42]|b[43] != 0:
		return errBodyReserved
	case p.First > p.Next || p.Next > p.End || p.Oldest > p.End:
		return errRecords
	}
	return nil
}
