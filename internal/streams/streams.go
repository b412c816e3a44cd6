// Package streams makes what peers might send: streams of WebSocket frames, most of them right and some of them wrong, out
// of a tape of bytes that decides everything. The same tape makes the same stream for ever, so that a fuzzer that changes
// the tape need not discover masking, UTF-8 or DEFLATE, and other libraries can be given the very same bytes.
package streams

import (
	"bytes"
	std "compress/flate"
	"encoding/binary"
	"strings"

	"github.com/seed-07372d5a/websocket/internal/flate"
)

// Terms are what sender and receiver have agreed on.
type Terms struct {
	Client   bool // the sender is a client: it masks
	Deflate  bool // permessage-deflate
	Takeover bool // the sender's window is kept between messages
	Bits     int  // of the sender's window, 8 to 15
}

// Largest is the most that a stream has, in bytes, but for what the last of its frames has more.
const Largest = 256 << 10

// Make returns the stream of a tape.
func Make(tape []byte, t Terms) []byte {
	m := maker{Terms: t, tape: tape, window: flate.NewWindow(t.Bits)}
	for len(m.tape) > 0 && len(m.out) < Largest {
		m.step()
	}
	return m.out
}

// Opcodes, RFC 6455 section 5.2.
const (
	continuation = 0
	text         = 1
	binaryFrame  = 2
	closeFrame   = 8
	ping         = 9
	pong         = 10
)

const (
	fin  = 0x80
	rsv1 = 0x40
)

type maker struct {
	Terms
	tape    []byte
	out     []byte
	window  *flate.Window
	history []byte // what is in it
}

// next takes a byte off the tape; it ends with zeros.
func (m *maker) next() int {
	if len(m.tape) == 0 {
		return 0
	}
	b := m.tape[0]
	m.tape = m.tape[1:]
	return int(b)
}

// take takes n bytes, or what there is.
func (m *maker) take(n int) []byte {
	n = min(n, len(m.tape))
	p := m.tape[:n]
	m.tape = m.tape[n:]
	return bytes.Clone(p)
}

// step makes the next frame or message. Three in four are right.
func (m *maker) step() {
	switch n := m.next(); {
	case n < 140:
		m.message(m.content(m.next()%4 > 0))
	case n < 155:
		m.frame(fin, ping, m.take(m.next()%126))
	case n < 165:
		m.frame(fin, pong, m.take(m.next()%126))
	case n < 175: // a message that is the next step's to go on with
		m.frame(0, text+m.next()%2, m.content(true))
	case n < 185:
		m.frame(m.next()&fin, continuation, m.content(true))
	case n < 195:
		m.goodbye()
	default:
		m.wrong(n)
	}
}

// message makes one of 1 to 8 frames, perhaps with control frames between them, perhaps compressed.
func (m *maker) message(p []byte) {
	how := m.next()
	op, rsv := text+how&1, 0
	if m.Deflate && how&2 != 0 {
		p, rsv = m.compress(p), rsv1
	}
	for parts := how >> 5; parts > 0; parts-- {
		n := m.next() * (len(p) + 1) / 256
		m.frame(rsv, op, p[:n])
		p, op, rsv = p[n:], continuation, 0
		if how&4 != 0 {
			m.frame(fin, ping, m.take(m.next()%16))
		}
	}
	m.frame(fin|rsv, op, p)
}

// content makes payload; of text if it shall be valid.
func (m *maker) content(valid bool) []byte {
	how := m.next()
	var p []byte
	switch how % 5 {
	case 0:
		p = bytes.Repeat([]byte{byte('a' + m.next()%26)}, m.size())
	case 1:
		p = []byte(strings.Repeat("Grüße, 世界! 🎉 ", m.size()/22+1))
	case 2:
		p = []byte(strings.Repeat(`{"id":12345,"name":"a name","tags":["x","y"]},`, m.size()/46+1))
		p = p[:len(p)-m.next()%46]
	case 3: // what repeats is far away
		period := bytes.Repeat([]byte{0}, 1+m.size()%1500)
		for i := range period {
			period[i] = byte(' ' + i*i%89)
		}
		p = bytes.Repeat(period, 3)
	default:
		p = m.take(how >> 2)
	}
	if valid {
		return bytes.ToValidUTF8(p, []byte("?"))
	}
	if len(p) > 0 && how&64 != 0 {
		p[m.next()*len(p)/256] = byte(m.next())
	}
	return p
}

// size favours the edges of the length's three forms.
func (m *maker) size() int {
	sizes := [...]int{0, 1, 2, 125, 126, 127, 1000, 4095, 4096, 4097, 65535, 65536}
	n := m.next()
	if n < 64 {
		return sizes[n%len(sizes)]
	}
	return n - 64
}

// compress makes the payload of a compressed message (RFC 7692 section 7.2.1) in one of the ways that encoders have.
func (m *maker) compress(plain []byte) (c []byte) {
	p := plain
	switch how := m.next(); how % 8 {
	default:
		c = flate.Compress(nil, p, m.window, m.Bits)
	case 3:
		c = m.std(p, std.HuffmanOnly, how&8 != 0)
	case 4:
		c = m.std(p, 1, how&8 != 0)
	case 5: // with distances that may be longer than agreed
		c = m.std(p, 9, how&8 != 0)
	case 6: // stored blocks
		for size := 1 + m.next(); len(p) > size; p = p[size:] {
			c = append(c, 0, byte(size), byte(size>>8), ^byte(size), ^byte(size>>8))
			c = append(c, p[:size]...)
		}
		c = append(c, byte(how>>3&1), byte(len(p)), byte(len(p)>>8), ^byte(len(p)), ^byte(len(p)>>8))
		c = append(append(c, p...), 0)
	case 7: // something is wrong with it
		c = flate.Compress(nil, p, m.window, m.Bits)
		switch {
		case how&8 != 0:
			c = append(c, m.take(how>>4)...)
		case how&16 != 0:
			c = c[:m.next()*len(c)/256]
		default:
			c[m.next()*len(c)/256] ^= 1 << (how >> 5)
		}
	}
	if m.Takeover {
		m.window.Add(plain)
		m.history = append(m.history, plain...)
		m.history = m.history[max(0, len(m.history)-1<<m.Bits):]
	}
	return c
}

// std compresses with compress/flate; final ends with a final block (section 7.2.3.4).
func (m *maker) std(p []byte, level int, final bool) []byte {
	var b bytes.Buffer
	w, err := std.NewWriterDict(&b, level, m.history)
	if err != nil {
		panic(err) // of an unknown level
	}
	w.Write(p)
	if final {
		w.Close()
		return append(b.Bytes(), 0)
	}
	w.Flush()
	return b.Bytes()[:b.Len()-4]
}

// goodbye makes a close frame, with any code.
func (m *maker) goodbye() {
	how := m.next()
	if how < 16 {
		m.frame(fin, closeFrame, m.take(how&1))
		return
	}
	code := 1000 + how%16
	if how >= 128 {
		code = m.next()<<8 | m.next()
	}
	p := binary.BigEndian.AppendUint16(nil, uint16(code))
	reason := m.take(m.next() % 64)
	if how&16 == 0 {
		reason = bytes.ToValidUTF8(reason, []byte("?"))
	}
	m.frame(fin, closeFrame, append(p, reason...))
}

// wrong makes what nobody should send, or what is at the edge of it.
func (m *maker) wrong(n int) {
	switch n % 8 {
	case 0: // any first byte
		b := m.next()
		m.frame(b&0xf0, b&0xf, m.content(true))
	case 1: // a length that is not in its shortest form, or has its top bit set
		m.out = append(m.out, fin|text, m.mask()|126+byte(m.next()&1), 0, byte(m.next()))
		m.out = append(m.out, m.take(12)...)
	case 2: // a length without what it promises
		m.out = append(m.out, byte(fin&m.next()|text+m.next()&1), m.mask()|127, byte(m.next()&0x7f), 0, 0, 0, byte(m.next()), byte(m.next()), 0, 0)
		m.out = append(m.out, m.take(8)...)
	case 3:
		m.out = append(m.out, m.take(m.next()%32)...)
	case 4: // many fragments
		size := m.next() % 4
		m.frame(0, binaryFrame, nil)
		count := m.next()
		if count >= 128 { // about as many as are allowed
			count += 1024 - 192
		}
		for range count {
			m.frame(0, continuation, make([]byte, size))
		}
		m.frame(fin, continuation, nil)
	case 5: // compressed, as it says
		m.frame(fin|rsv1, text+m.next()&1, m.take(m.next()))
	case 6: // the wrong masking
		m.Client = !m.Client
		m.message(m.content(true))
		m.Client = !m.Client
	case 7: // cut off
		m.message(m.content(true))
		m.out = m.out[:len(m.out)-min(len(m.out), m.next())]
	}
}

func (m *maker) mask() byte {
	if m.Client {
		return 0x80
	}
	return 0
}

// frame makes a frame (RFC 6455 section 5.2).
func (m *maker) frame(flags, op int, p []byte) {
	m.out = append(m.out, byte(flags|op))
	switch n := len(p); {
	case n < 126:
		m.out = append(m.out, m.mask()|byte(n))
	case n < 1<<16:
		m.out = binary.BigEndian.AppendUint16(append(m.out, m.mask()|126), uint16(n))
	default:
		m.out = binary.BigEndian.AppendUint64(append(m.out, m.mask()|127), uint64(n))
	}
	if !m.Client {
		m.out = append(m.out, p...)
		return
	}
	key := [4]byte{byte(m.next()), byte(len(p)), 0x5a, byte(op)} // section 5.3
	m.out = append(m.out, key[:]...)
	for i, b := range p {
		m.out = append(m.out, b^key[i%4])
	}
}
