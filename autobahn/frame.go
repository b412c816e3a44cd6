package autobahn

// The wire as the fuzzer writes and reads it. Nothing here refuses a frame: what is wrong with one is for the
// case that sends it, and for check.go when it was received.

import (
	"encoding/binary"
	"encoding/hex"
	"math"
)

const (
	opCont   = 0
	opText   = 1
	opBinary = 2
	opClose  = 8
	opPing   = 9
	opPong   = 10
)

// The reserved bits as the catalogue numbers them.
const (
	rsv1 = 4
	rsv2 = 2
	rsv3 = 1
)

// A frame is one to send. The zero value of every field but op is what the RFC asks for.
type frame struct {
	op      byte
	more    bool    // FIN is 0
	rsv     byte    // RSV1 is 4, RSV2 is 2, RSV3 is 1
	payload []byte  //
	head    []byte  // if set: the header octets as they go out; the fuzzer adds mask bit and key in client role
	key     *uint32 // nil: a random key for every frame
	unlike  bool    // masked where it must not be, or the other way round
	raw     bool    // a Close frame that is not the fuzzer's own Close
}

func text(s string) frame       { return frame{op: opText, payload: []byte(s)} }
func binaryf(b []byte) frame    { return frame{op: opBinary, payload: b} }
func cont(s string) frame       { return frame{op: opCont, payload: []byte(s)} }
func ping(s string) frame       { return frame{op: opPing, payload: []byte(s)} }
func pong(s string) frame       { return frame{op: opPong, payload: []byte(s)} }
func op(n byte, s string) frame { return frame{op: n, payload: []byte(s)} }

// closeWith is a Close frame with a code and a reason.
func closeWith(code int, reason string) frame {
	p := binary.BigEndian.AppendUint16(nil, uint16(code))
	return frame{op: opClose, payload: append(p, reason...)}
}

// closeEmpty is a Close frame without a payload.
func closeEmpty() frame { return frame{op: opClose} }

func (f frame) open() frame          { f.more = true; return f }
func (f frame) bits(rsv byte) frame  { f.rsv = rsv; return f }
func (f frame) uncounted() frame     { f.raw = true; return f }
func (f frame) wrongMask() frame     { f.unlike = true; return f }
func (f frame) keyed(k uint32) frame { f.key = &k; return f }

// octets is a frame whose header is given in hex.
func octets(head string, payload string) frame {
	h := unhex(head)
	return frame{op: h[0] & 15, more: h[0]&0x80 == 0, rsv: h[0] >> 4 & 7, head: h, payload: []byte(payload)}
}

// append encodes f. The payload is masked while it is copied.
func (f frame) append(dst []byte, masked bool, key uint32) []byte {
	if f.head != nil {
		dst = append(dst, f.head...)
		if masked {
			dst[len(dst)-len(f.head)+1] |= 0x80
		}
	} else {
		dst = f.appendHead(dst, masked)
	}
	if !masked {
		return append(dst, f.payload...)
	}
	dst = binary.BigEndian.AppendUint32(dst, key)
	at := len(dst)
	dst = append(dst, f.payload...)
	mask(dst[at:], key)
	return dst
}

func (f frame) appendHead(dst []byte, masked bool) []byte {
	b := f.op | f.rsv<<4
	if !f.more {
		b |= 0x80
	}
	var m byte
	if masked {
		m = 0x80
	}
	switch n := len(f.payload); {
	case n < 126:
		return append(dst, b, m|byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(dst, b, m|126), uint16(n))
	default:
		return binary.BigEndian.AppendUint64(append(dst, b, m|127), uint64(n))
	}
}

// headLen is the number of octets that append puts in front of the payload.
func (f frame) headLen(masked bool) int {
	n := len(f.head)
	if f.head == nil {
		n = len(f.appendHead(nil, masked))
	}
	if masked {
		n += 4
	}
	return n
}

// mask turns b over with the four octets of key, the first octet of b with the highest.
func mask(b []byte, key uint32) uint32 {
	wide := uint64(key)<<32 | uint64(key)
	for len(b) >= 8 {
		binary.BigEndian.PutUint64(b, binary.BigEndian.Uint64(b)^wide)
		b = b[8:]
	}
	for i := range b {
		b[i] ^= byte(key >> 24)
		key = key<<8 | key>>24
	}
	return key
}

// A header is the beginning of a frame that was received.
type header struct {
	fin    bool
	rsv    byte
	op     byte
	masked bool
	key    uint32
	length uint64
	form   byte // the seven bits of length as they stood: below 126, or 126, or 127
}

// parseHeader returns 0 if b does not hold the whole header yet.
func parseHeader(b []byte) (h header, n int) {
	if len(b) < 2 {
		return h, 0
	}
	h = header{fin: b[0]&0x80 != 0, rsv: b[0] >> 4 & 7, op: b[0] & 15, masked: b[1]&0x80 != 0, form: b[1] & 0x7f}
	n = 2
	switch h.form {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	size := n
	if h.masked {
		n += 4
	}
	if len(b) < n {
		return h, 0
	}
	for _, c := range b[2:size] {
		h.length = h.length<<8 | uint64(c)
	}
	if size == 2 {
		h.length = uint64(h.form)
	}
	if h.masked {
		h.key = binary.BigEndian.Uint32(b[size:])
	}
	return h, n
}

// minimal tells whether the length is in the shortest form (RFC 6455 5.2).
func (h header) minimal() bool {
	switch h.form {
	case 126:
		return h.length > 125
	case 127:
		return h.length > math.MaxUint16
	}
	return true
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err) // the catalogue is fixed: a test walks through all of it
	}
	return b
}
