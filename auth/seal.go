// SPDX-License-Identifier: GPL-2.0-only

package auth

import (
	"crypto/cipher"
	"crypto/rand"

	"golang.org/x/crypto/chacha20poly1305"
)

// Sealer seals and opens the packets of one host key. It is safe for
// concurrent use.
type Sealer struct {
	id             KeyID
	request, reply cipher.AEAD
}

// NewSealer prepares a host key for use.
func NewSealer(k *HostKey) *Sealer {
	return &Sealer{id: k.ID, request: aead(&k.Request), reply: aead(&k.Reply)}
}

func aead(key *[KeySize]byte) cipher.AEAD {
	a, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		panic(err) // only for a key of another length
	}
	return a
}

// ID returns the id of the sealer's key.
func (s *Sealer) ID() KeyID { return s.id }

// SealRequest returns the packet for r, with a new nonce.
func (s *Sealer) SealRequest(r *Request) (p [PacketSize]byte) {
	var body [BodySize]byte
	r.encode(&body)
	seal(s.request, &p, typeRequest, s.id, &body)
	return p
}

// SealReply returns the packet for r, with a new nonce.
func (s *Sealer) SealReply(r *Reply) (p [PacketSize]byte) {
	var body [BodySize]byte
	r.encode(&body)
	seal(s.reply, &p, typeReply, s.id, &body)
	return p
}

func seal(a cipher.AEAD, p *[PacketSize]byte, typ byte, id KeyID, body *[BodySize]byte) {
	putHeader(p[:], typ, id)
	rand.Read(p[offNonce:offBody])
	a.Seal(p[:offBody], p[offNonce:offBody], body[:], p[:HeaderSize])
	clear(body[:])
}

// CheckRequest makes the checks of a request that need no key and returns the
// id of the key it names. It does not allocate.
func CheckRequest(packet []byte) (KeyID, Reason) {
	if r := header(packet, typeRequest); r != OK {
		return KeyID{}, r
	}
	return KeyID(packet[offKeyID:]), OK
}

// OpenRequest opens a packet that passed CheckRequest, in place: whatever the
// outcome, the packet's body is overwritten. It returns OK, ReasonUnknownKey,
// ReasonForged or ReasonMalformed; after the last, ID and Time of r are set
// and err names the field. It does not allocate.
func (s *Sealer) OpenRequest(packet []byte, r *Request) (reason Reason, err error) {
	body, reason := open(s.request, s.id, packet)
	if reason != OK {
		return reason, nil
	}
	if err := r.decode(body); err != nil {
		return ReasonMalformed, err
	}
	return OK, nil
}

// OpenReply opens a reply to the request with the given id, in place: whatever
// the outcome, the packet's body is overwritten. Only OK means that the host
// sealed it for that request; after ReasonOtherRequest, r.ID says for which.
func (s *Sealer) OpenReply(packet []byte, id RequestID, r *Reply) (Reason, error) {
	if reason := header(packet, typeReply); reason != OK {
		return reason, nil
	}
	body, reason := open(s.reply, s.id, packet)
	if reason != OK {
		return reason, nil
	}
	err := r.decode(body)
	switch {
	case r.ID != id:
		return ReasonOtherRequest, nil
	case err != nil:
		return ReasonMalformed, err
	}
	return OK, nil
}

// open decrypts in place and returns the plaintext within p.
func open(a cipher.AEAD, id KeyID, p []byte) ([]byte, Reason) {
	if KeyID(p[offKeyID:]) != id {
		return nil, ReasonUnknownKey
	}
	body, err := a.Open(p[offBody:offBody], p[offNonce:offBody], p[offBody:], p[:HeaderSize])
	if err != nil {
		return nil, ReasonForged
	}
	return body, OK
}
