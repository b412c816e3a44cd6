package websocket

import (
	"encoding/binary"
	"math"
)

// machine.go owns the receiving half of the protocol: which frame may follow
// which, masking, UTF-8 and limits. It does no I/O, takes no lock and reads no
// clock.

// A piece is what one step of the machine yields.
type piece struct {
	op          Opcode // OpText, OpBinary: payload; OpClose, OpPing, OpPong: a whole control frame; 0: nothing yet
	data        []byte // unmasked, where it lay in the caller's input
	first, last bool   // of its message
	packed      bool   // data is compressed (RFC 7692)
}

// The machine eats bytes of one direction of a connection and yields pieces.
// Every way to cut the same input gives the same messages, replies and error.
type machine struct {
	client  bool                // we are the client: frames must come unmasked
	deflate bool                // permessage-deflate was agreed on
	head    [MaxHeaderSize]byte // a header that comes in parts
	limit   int64               // bytes in a message

	have   int8     // bytes of head that are here
	inside bool     // between a header and the end of its payload
	fin    bool     // the frame is the last of its message
	op     Opcode   // of the frame
	key    uint32   // turned to the next byte; 0 if unmasked
	left   int64    // payload bytes to come
	ctrl   *control // a control payload that comes in parts

	msg    Opcode    // type of the message under way; 0 if none
	packed bool      // it is compressed
	begun  bool      // its first piece was yielded
	text   utf8Check // its text so far
	size   int64     // its bytes, as announced by its frames so far
	frags  int64     // its frames so far
}

// A control is a control payload that comes in parts.
type control struct {
	n int
	b [maxControl]byte
}

// What a peer can do wrong, and the code that tells it so (RFC 6455 section 7.4.1).
var (
	errLength     = &ProtocolError{CloseProtocolError, "malformed frame length"}
	errReserved   = &ProtocolError{CloseProtocolError, "reserved bit set"}
	errOpcode     = &ProtocolError{CloseProtocolError, "unknown opcode"}
	errUnmasked   = &ProtocolError{CloseProtocolError, "unmasked frame from a client"}
	errMasked     = &ProtocolError{CloseProtocolError, "masked frame from a server"}
	errControl    = &ProtocolError{CloseProtocolError, "fragmented or oversized control frame"}
	errNoMessage  = &ProtocolError{CloseProtocolError, "continuation of no message"}
	errUnfinished = &ProtocolError{CloseProtocolError, "message inside a message"}
	errUTF8       = &ProtocolError{CloseInvalidFramePayloadData, "invalid UTF-8"}
	errTooBig     = &ProtocolError{CloseMessageTooBig, "message too big"}
	errFragments  = &ProtocolError{ClosePolicyViolation, "too many fragments"}
)

// next eats bytes of b until it has a piece or b is used up, and returns the
// piece and how many bytes it ate. Data payload is unmasked in place and
// yielded as it comes; nothing of b is kept. After an error the machine must
// not be used again.
func (m *machine) next(b []byte) (p piece, n int, err error) {
	if !m.inside {
		h, n, err := m.header(b)
		if err != nil || !m.inside {
			return piece{}, n, err
		}
		if err := m.begin(h); err != nil {
			return piece{}, n, err
		}
		p, k, err := m.payload(b[n:])
		return p, n + k, err
	}
	return m.payload(b)
}

// whole is next for the most frequent input: a message in one frame, all of it
// in b and nothing before it. Otherwise it eats nothing, and next has to look.
func (m *machine) whole(b []byte) (t MessageType, data []byte, n int, err error) {
	if len(b) < 2 || m.have > 0 || m.inside || m.msg != 0 {
		return 0, nil, 0, nil
	}
	t, n = MessageType(b[0]&^0x80), 2
	size := uint(b[1])
	if !m.client {
		size, n = size^0x80, 6 // the mask bit must be set
	}
	if b[0] < 0x80 || t != MessageText && t != MessageBinary {
		return 0, nil, 0, nil
	}
	if size == 126 && len(b) > n+2 {
		size = uint(b[2])<<8 | uint(b[3])
		if n += 2; size < 126 {
			return 0, nil, 0, nil
		}
	} else if size > 125 {
		return 0, nil, 0, nil
	}
	end := n + int(size)
	if end > len(b) || int64(size) > m.limit {
		return 0, nil, 0, nil
	}
	data = b[n:end]
	if !m.client {
		Mask(data, binary.LittleEndian.Uint32(b[n-4:n]))
	}
	if t == MessageText && !validText(data) { // section 8.1
		err = errUTF8
	}
	return t, data, end, err
}

// header reads a header, or the next part of one, and returns how much of b it
// ate. When the header is complete it sets m.inside.
func (m *machine) header(b []byte) (h Header, n int, err error) {
	have := int(m.have)
	if have == 0 {
		h, n = ParseHeader(b)
	} else {
		b = b[:copy(m.head[have:], b)]
		h, n = ParseHeader(m.head[:have+len(b)])
	}
	switch {
	case n < 0:
		return h, len(b), errLength
	case n == 0:
		m.have += int8(copy(m.head[have:], b))
		return h, len(b), nil
	}
	m.have, m.inside = 0, true
	return h, n - have, nil
}

// begin checks a whole header, and only then takes it up.
func (m *machine) begin(h Header) error {
	switch {
	case h.RSV != 0 && !m.mayPack(h): // section 5.2: nonzero only if an extension says so
		return errReserved
	case !h.Opcode.known():
		return errOpcode
	case h.Masked && m.client: // section 5.1
		return errMasked
	case !h.Masked && !m.client:
		return errUnmasked
	case h.Opcode.control(): // section 5.5
		if !h.Fin || h.Len > maxControl {
			return errControl
		}
	case h.Opcode == OpContinuation && m.msg == 0: // section 5.4
		return errNoMessage
	case h.Opcode != OpContinuation && m.msg != 0:
		return errUnfinished
	default:
		if err := m.extend(h); err != nil {
			return err
		}
	}
	m.op, m.fin, m.key, m.left = h.Opcode, h.Fin, h.Key, h.Len
	return nil
}

// mayPack tells whether h.RSV says that a compressed message begins, and may say
// so (RFC 7692 section 6.1).
func (m *machine) mayPack(h Header) bool {
	return m.deflate && h.RSV == rsv1 && (h.Opcode == OpText || h.Opcode == OpBinary)
}

// wireLimit is how many bytes the frames of a message may have. A compressed one
// has another limit on what it inflates to; here is only what that implies.
func (m *machine) wireLimit() int64 {
	if m.packed && m.limit < math.MaxInt64/16 {
		return 64<<10 + 8*m.limit
	}
	return m.limit
}

// extend adds a frame to its message, within the limits. Nothing is allocated
// for a length that was only announced.
func (m *machine) extend(h Header) error {
	if h.Opcode != OpContinuation {
		m.msg, m.packed, m.begun = h.Opcode, h.RSV != 0, false
		m.size, m.frags, m.text = 0, 0, utf8Check{}
	}
	if m.frags++; m.frags > 1024+m.size/32 {
		return errFragments
	}
	if h.Len > m.wireLimit()-m.size { // never m.size+h.Len, which may overflow
		return errTooBig
	}
	m.size += h.Len
	return nil
}

// payload eats payload of the frame under way.
func (m *machine) payload(b []byte) (p piece, n int, err error) {
	if int64(len(b)) > m.left {
		b = b[:m.left]
	}
	if n = len(b); n == 0 && m.left > 0 {
		return piece{}, 0, nil
	}
	if !m.client {
		m.key = Mask(b, m.key)
	}
	m.left -= int64(n)
	m.inside = m.left > 0
	if m.op.control() {
		return m.control(b), n, nil
	}
	p = piece{op: m.msg, data: b, first: !m.begun, last: m.fin && !m.inside, packed: m.packed}
	m.begun = true
	if m.msg == OpText && !m.packed && (!m.text.add(b) || p.last && !m.text.complete()) { // section 8.1
		return piece{}, n, errUTF8
	}
	if p.last {
		m.msg = 0
	}
	return p, n, nil
}

// control yields a control frame when it is whole.
func (m *machine) control(b []byte) piece {
	if m.inside || m.ctrl != nil {
		if m.ctrl == nil {
			m.ctrl = new(control)
		}
		c := m.ctrl
		c.n += copy(c.b[c.n:], b)
		if m.inside {
			return piece{}
		}
		b, m.ctrl = c.b[:c.n], nil
	}
	return piece{op: m.op, data: b, first: true, last: true}
}

// midway tells whether the peer owes the rest of something it began.
func (m *machine) midway() bool { return m.have > 0 || m.inside || m.msg != 0 }

// room is how many bytes of data payload must come before anything else can.
func (m *machine) room() int64 {
	if !m.inside || m.op.control() {
		return 0
	}
	return m.left
}
