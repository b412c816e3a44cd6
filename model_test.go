package websocket

import (
	"bytes"
	"fmt"
	"sync"
	"unicode/utf8"

	"github.com/seed-07372d5a/websocket/internal/flate/reference"
)

// model_test.go is the receiving half of RFC 6455 and RFC 7692 once more: slow,
// obvious, and of no use but to be compared with. It has all of the input at
// once, reads headers bit by bit, looks at the whole of a message again whenever
// a frame has brought more of it, and shares nothing with machine.go. What the
// RFCs leave open is written down here as this library decides it, so that the
// model says exactly when a connection fails, and with which code.
//
// A compressed message is inflated by the codec's reference, which a fuzz target
// of its own compares with compress/flate.

// Rules are what the two ends agreed on, and the receiver's limits.
type rules struct {
	client   bool // the receiver is the client
	limit    int  // bytes of a message, as delivered
	deflate  bool // permessage-deflate
	takeover bool // the sender keeps its window between messages
	bits     int  // of that window
}

// A trace is all that can be seen of a receiver.
type trace struct {
	events  []string // messages, pings and pongs, in their order
	replies []string // pongs and the close frame, in theirs
	end     string   // "closed CODE REASON" by the peer, "failed CODE" for what it did, or "eof"
}

// modelled is the trace of a receiver that is sent in, and then nothing more.
func modelled(in []byte, r rules) trace {
	m := model{rules: r, in: in}
	m.receive()
	return m.trace
}

type model struct {
	rules
	trace
	in      []byte
	at      int    // bits of in that were read
	history []byte // the sender's window (RFC 7692 section 7.2.2)

	kind      uint64 // opcode of the message under way; 0 if none
	packed    bool   // it is compressed
	payload   []byte // of its frames
	announced int    // bytes, by its headers
	frames    int    // of it
}

// The end is what the helpers panic with.
type theEnd string

func (m *model) receive() {
	defer func() {
		e, ok := recover().(theEnd)
		if !ok {
			panic("the model does not end by itself")
		}
		m.end = string(e)
	}()
	for {
		m.frame()
	}
}

// must fails the connection (RFC 6455 section 7.1.7): the peer is told why, and
// nothing that it sent behind this is looked at.
func (m *model) must(ok bool, code CloseCode) {
	if !ok {
		m.replies = append(m.replies, fmt.Sprint("close ", int(code)))
		panic(theEnd(fmt.Sprint("failed ", int(code))))
	}
}

// bits reads n bits, the most significant first.
func (m *model) bits(n int) (v uint64) {
	for range n {
		if m.at/8 == len(m.in) {
			panic(theEnd("eof"))
		}
		v = v<<1 | uint64(m.in[m.at/8]>>(7-m.at%8)&1)
		m.at++
	}
	return v
}

// frame reads one, in the order of the figure in RFC 6455 section 5.2. A wrong
// length fails the connection as soon as it is there; everything else waits for
// the end of the header.
func (m *model) frame() {
	fin := m.bits(1) == 1
	rsv1, rsv2, rsv3 := m.bits(1), m.bits(1), m.bits(1)
	opcode := m.bits(4)
	masked := m.bits(1) == 1
	length := m.bits(7)
	switch length {
	case 126:
		length = m.bits(16)
		m.must(length >= 126, 1002) // "the minimal number of bytes MUST be used"
	case 127:
		m.must(m.bits(1) == 0, 1002) // "the most significant bit MUST be 0"
		length = m.bits(63)
		m.must(length >= 65536, 1002)
	}
	var key [4]byte
	if masked {
		for i := range key {
			key[i] = byte(m.bits(8))
		}
	}

	data := opcode == 1 || opcode == 2
	m.must(rsv2 == 0 && rsv3 == 0, 1002) // section 5.2: of no extension that we know
	if rsv1 == 1 {
		m.must(m.deflate && data, 1002) // RFC 7692 section 6.1: on the first frame of a message
	}
	m.must(opcode <= 2 || opcode >= 8 && opcode <= 10, 1002)
	m.must(masked == !m.client, 1002) // section 5.1
	if opcode >= 8 {
		m.must(fin, 1002) // section 5.5
		m.must(length <= 125, 1002)
		p := m.take(length, key)
		if len(p) < int(length) {
			panic(theEnd("eof"))
		}
		m.control(opcode, p)
		return
	}
	if data {
		m.must(m.kind == 0, 1002) // section 5.4
		m.kind, m.packed = opcode, rsv1 == 1
		m.payload, m.announced, m.frames = nil, 0, 0
	}
	m.must(m.kind != 0, 1002) // section 5.4

	// The limits of this library, each judged before the payload has come: a
	// message has 1024 frames, and one more for each 32 bytes before the frame;
	// and as many bytes as the limit says, or, if it is compressed, no more than
	// could be worth inflating.
	m.frames++
	m.must(m.frames <= 1024+m.announced/32, 1008)
	most := m.limit
	if m.packed {
		most = 64<<10 + 8*m.limit
	}
	m.must(length <= uint64(most-m.announced), 1009)
	m.announced += int(length)

	p := m.take(length, key)
	m.payload = append(m.payload, p...)
	m.look(fin && len(p) == int(length))
	if len(p) < int(length) {
		panic(theEnd("eof"))
	}
}

// take reads up to n bytes of payload, which begins at a whole byte, and unmasks
// them (section 5.3).
func (m *model) take(n uint64, key [4]byte) []byte {
	rest := m.in[m.at/8:]
	if uint64(len(rest)) > n {
		rest = rest[:n]
	}
	p := bytes.Clone(rest)
	for i := range p {
		p[i] ^= key[i%4]
	}
	m.at += 8 * len(p)
	return p
}

// look is at the message so far. It fails at the first byte that makes it
// impossible, in the order of its plain form: bad UTF-8 (section 8.1) before
// whatever stopped the inflating behind it.
func (m *model) look(whole bool) {
	plain, verdict := m.payload, reference.Whole
	if m.packed {
		plain, _, verdict = reference.Inflate(m.payload, m.history, 1<<m.rules.bits, m.limit)
	}
	m.must(m.kind != 1 || mayBegin(plain), 1007)
	m.must(verdict != reference.TooBig, 1009)
	m.must(verdict != reference.TooMuchWork, 1008)
	m.must(verdict != reference.Corrupt, 1007)
	if !whole {
		return
	}
	m.must(verdict == reference.Whole, 1007) // RFC 7692 section 7.2.2
	m.must(m.kind != 1 || utf8.Valid(plain), 1007)
	m.events = append(m.events, map[uint64]string{1: "text ", 2: "binary "}[m.kind]+string(plain))
	m.kind = 0
	if m.packed && m.takeover { // sections 7.1.1 and 7.1.2: what was not compressed is not in the window
		m.history = append(bytes.Clone(m.history), plain...)
		m.history = m.history[max(0, len(m.history)-1<<m.rules.bits):]
	}
}

// control handles a control frame, section 5.5.
func (m *model) control(opcode uint64, p []byte) {
	switch opcode {
	case 9: // section 5.5.2: answered with the same payload
		m.events = append(m.events, "ping "+string(p))
		m.replies = append(m.replies, "pong "+string(p))
	case 10:
		m.events = append(m.events, "pong "+string(p))
	case 8: // section 5.5.1: answered with the same code
		if len(p) == 0 {
			m.replies = append(m.replies, "close ")
			panic(theEnd("closed 1005 "))
		}
		m.must(len(p) >= 2, 1002)
		code := int(p[0])<<8 | int(p[1])
		registered := code >= 1000 && code <= 1003 || code >= 1007 && code <= 1014 // section 7.4.1, and IANA since
		m.must(registered || code >= 3000 && code <= 4999, 1002)                   // section 7.4.2
		m.must(utf8.Valid(p[2:]), 1007)
		m.replies = append(m.replies, fmt.Sprint("close ", code))
		panic(theEnd(fmt.Sprint("closed ", code, " ", string(p[2:]))))
	}
}

// mayBegin tells whether some text begins with p: whole characters, and perhaps
// the first bytes of one more.
func mayBegin(p []byte) bool {
	for k := 0; k < utf8.UTFMax && k <= len(p); k++ {
		if utf8.Valid(p[:len(p)-k]) {
			return k == 0 || beginnings()[string(p[len(p)-k:])]
		}
	}
	return false
}

// beginnings are the parts that every character of several bytes begins with.
var beginnings = sync.OnceValue(func() map[string]bool {
	all := map[string]bool{}
	for r := rune(utf8.RuneSelf); r <= utf8.MaxRune; r++ {
		if s := string(r); utf8.ValidRune(r) {
			for k := 1; k < len(s); k++ {
				all[s[:k]] = true
			}
		}
	}
	return all
})
