package websocket

import "encoding/binary"

// frame.go owns the wire: the frame header of RFC 6455 section 5.2, as pure
// functions.

// An Opcode says what a frame carries (RFC 6455 section 5.2).
type Opcode byte

// The opcodes of RFC 6455 section 11.8. All others are reserved.
const (
	OpContinuation Opcode = 0x0
	OpText         Opcode = 0x1
	OpBinary       Opcode = 0x2
	OpClose        Opcode = 0x8
	OpPing         Opcode = 0x9
	OpPong         Opcode = 0xA
)

// control tells the frames that must be short and whole (RFC 6455 section 5.5).
func (o Opcode) control() bool { return o&0x8 != 0 }

// known tells the defined opcodes from the reserved ones.
func (o Opcode) known() bool { return o <= OpBinary || o >= OpClose && o <= OpPong }

// The reserved bits as Header.RSV holds them.
const (
	rsv1 byte = 4 // permessage-deflate: the message is compressed (RFC 7692 section 6)
	rsv2 byte = 2
	rsv3 byte = 1
)

// A Header is the header of one frame (RFC 6455 section 5.2).
type Header struct {
	Fin    bool   // last frame of its message
	RSV    byte   // the reserved bits: RSV1 = 4, RSV2 = 2, RSV3 = 1
	Opcode Opcode // 0 to 15
	Masked bool   // a client's frames are, a server's are not (section 5.1)
	Key    uint32 // masking key, as Mask takes it; 0 unless Masked
	Len    int64  // payload length in bytes
}

// MaxHeaderSize is the size of the longest frame header, in bytes: two fixed
// bytes, a 64-bit length and a masking key.
const MaxHeaderSize = 14

// maxControl is the longest payload of a control frame (RFC 6455 section 5.5).
const maxControl = 125

// ParseHeader reads the frame header at the start of b and returns it with the
// number of bytes it takes, 2 to MaxHeaderSize. It keeps no reference to b.
//
// n == 0 says that b holds only a part of a header. n < 0 says that no more
// bytes can make it one, because its length is not in the shortest form or has
// its top bit set (RFC 6455 section 5.2): a peer that sends it is to be failed
// with CloseProtocolError. Everything else that the protocol asks of a header
// (known opcodes, masking, reserved bits, short control frames) depends on the
// connection and is left to the caller.
func ParseHeader(b []byte) (h Header, n int) {
	if len(b) < 2 {
		return Header{}, 0
	}
	b0, b1 := b[0], b[1]
	n = 2
	length := uint64(b1 & 0x7f)
	switch length {
	case 126:
		n = 4
		if len(b) < n {
			return Header{}, 0
		}
		if length = uint64(binary.BigEndian.Uint16(b[2:])); length < 126 {
			return Header{}, -1
		}
	case 127:
		if len(b) > 2 && b[2]&0x80 != 0 {
			return Header{}, -1
		}
		n = 10
		if len(b) < n {
			return Header{}, 0
		}
		if length = binary.BigEndian.Uint64(b[2:]); length < 1<<16 {
			return Header{}, -1
		}
	}
	h = Header{
		Fin:    b0&0x80 != 0,
		RSV:    b0 >> 4 & 7,
		Opcode: Opcode(b0 & 0xf),
		Masked: b1&0x80 != 0,
		Len:    int64(length),
	}
	if h.Masked {
		if len(b) < n+4 {
			return Header{}, 0
		}
		h.Key = binary.LittleEndian.Uint32(b[n:])
		n += 4
	}
	return h, n
}

// AppendHeader appends h to b in its shortest form and returns the extended
// slice. Bits of RSV and Opcode that do not fit are dropped, and a negative Len
// counts as 0: what is appended is always a header that ParseHeader reads. The
// key is written only if h.Masked.
func AppendHeader(b []byte, h Header) []byte {
	b0 := h.RSV&7<<4 | byte(h.Opcode&0xf)
	if h.Fin {
		b0 |= 0x80
	}
	var b1 byte
	if h.Masked {
		b1 = 0x80
	}
	switch n := max(h.Len, 0); {
	case n < 126:
		b = append(b, b0, b1|byte(n))
	case n < 1<<16:
		b = append(b, b0, b1|126, byte(n>>8), byte(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, b0, b1|127), uint64(n))
	}
	if h.Masked {
		b = binary.LittleEndian.AppendUint32(b, h.Key)
	}
	return b
}
