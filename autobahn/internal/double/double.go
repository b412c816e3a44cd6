// Package double is an echo server and an echo client for testing the conformance suite itself. It shares no code
// with the suite or the library, obeys the RFCs, and breaks them one by one on demand.
package double

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"time"
	"unicode/utf8"
)

// A Fault is one rule that the double breaks.
type Fault string

const (
	None                 Fault = ""
	NoUTF8               Fault = "no UTF-8 check"
	UTF8AtEnd            Fault = "UTF-8 checked only at the end of the message"
	UTF8PerFrame         Fault = "UTF-8 checked only at the end of a frame"
	UTF8FramesAlone      Fault = "UTF-8 checked in each frame by itself"
	RSVIgnored           Fault = "reserved bits ignored"
	EmptyPong            Fault = "pong with empty payload"
	NoPong               Fault = "no pong"
	LastPongOnly         Fault = "only the last of several pings answered"
	LatePong             Fault = "pings inside a message answered after it"
	WrongCloseCode       Fault = "Close answered with another code"
	NoCloseReply         Fault = "Close not answered"
	DropOnClose          Fault = "Close answered by a drop"
	EchoAfterClose       Fault = "messages after a Close still echoed"
	KeepTCP              Fault = "TCP kept after the closing handshake"
	CloseCodeUnchecked   Fault = "close codes not checked"
	CloseReasonUnchecked Fault = "close reasons not checked"
	ShortCloseAccepted   Fault = "Close of one octet accepted"
	FragmentedControl    Fault = "fragmented control frames accepted"
	LongControl          Fault = "long control frames accepted"
	StrayContinuation    Fault = "continuation without start accepted"
	NestedMessage        Fault = "new message inside another accepted"
	ReservedOpcode       Fault = "reserved opcodes ignored"
	LengthSign           Fault = "16-bit length with a sign"
	TopBitIgnored        Fault = "top bit of the length ignored"
	NonMinimal           Fault = "non-minimal length accepted"
	MaskUnchecked        Fault = "masking of the peer not checked"
	MaskRestarts         Fault = "mask begins anew with every read"
	KeyReused            Fault = "one mask key for all frames"
	WrongMask            Fault = "frames masked in the server, bare in the client"
	TextAsBinary         Fault = "text echoed as binary"
	LastFragmentOnly     Fault = "all fragments but the last dropped"
	Echo16Bit            Fault = "echo cut to 65535 octets"
	EarlyDataLost        Fault = "octets behind the handshake lost"
	InflateUnlimited     Fault = "inflated size not limited"
	InflateTakeoverLost  Fault = "window of received messages forgotten"
	DeflateTakeoverKept  Fault = "no_context_takeover agreed and not kept"
	WindowIgnored        Fault = "small window agreed and not kept"
	InflateErrorsIgnored Fault = "broken deflate data taken as the end"
	RSV1OnContinuation   Fault = "RSV1 set on continuations"
	RSV1Anywhere         Fault = "RSV1 accepted on any frame"
	TailLeftOn           Fault = "0000ffff left on"
	AnyExtension         Fault = "unknown extension agreed"
	AnyParameter         Fault = "bad parameters of an offer or answer ignored"
	AcceptWrong          Fault = "Sec-WebSocket-Accept wrong"
	AcceptUnchecked      Fault = "Sec-WebSocket-Accept not checked"
	StatusUnchecked      Fault = "status of the answer not checked"
	SubprotocolInvented  Fault = "subprotocol invented"
	SubprotocolUnchecked Fault = "subprotocol of the answer not checked"
	VersionUnchecked     Fault = "Sec-WebSocket-Version not checked"
	KeyUnchecked         Fault = "Sec-WebSocket-Key not checked"
	SameKey              Fault = "the same Sec-WebSocket-Key every time"
)

// A Double says how an echo server or client behaves.
type Double struct {
	Fault Fault
	Limit int64  // largest message taken; 0: 64 Mi
	Offer string // client: Sec-WebSocket-Extensions; server: any offer is declined if this is "none"
}

func (d *Double) has(f Fault) bool { return d.Fault == f }

// A peer is one connection after the handshake.
type peer struct {
	*Double
	conn   net.Conn
	in     *bufio.Reader
	client bool
	comp   *compression // nil: not agreed

	op         byte // of the message under way; 0: none
	compressed bool
	msg        []byte
	fresh      utf8Checker
	closing    bool // a Close frame came
	pongs      []string
	out        []byte
}

// A failure is what the connection is closed with.
type failure struct {
	code   int
	reason string
}

func (f *failure) Error() string { return f.reason }

func protocol(reason string) error { return &failure{1002, reason} }

var (
	errUTF8   = &failure{1007, "not UTF-8"}
	errTooBig = &failure{1009, "too big"}
	errClosed = errors.New("closed")
)

// echo serves the connection until it ends.
func (p *peer) echo() {
	err := p.frames()
	var f *failure
	if errors.As(err, &f) {
		p.send(8, binary.BigEndian.AppendUint16(nil, uint16(f.code)), false)
	}
	p.flush()
	if p.has(KeepTCP) && !p.client {
		io.Copy(io.Discard, p.in) // until the fuzzer gives up
	}
	p.hangUp()
}

// hangUp ends TCP without a reset overtaking what was sent. A client lets the server go first.
func (p *peer) hangUp() {
	p.conn.SetDeadline(time.Now().Add(time.Second))
	if !p.client {
		if c, ok := p.conn.(interface{ CloseWrite() error }); ok {
			c.CloseWrite()
		}
	}
	io.Copy(io.Discard, p.in)
	p.conn.Close()
}

type frameHead struct {
	fin    bool
	rsv    byte
	op     byte
	masked bool
	key    [4]byte
	length uint64
}

func (p *peer) frames() error {
	for {
		h, err := p.head()
		if err != nil {
			return err
		}
		if h.op >= 8 {
			err = p.control(h)
		} else {
			err = p.data(h)
		}
		if err != nil {
			return err
		}
	}
}

// A source tells the peer before it reads from the network.
type source struct {
	net.Conn
	before func() error
}

func (s *source) Read(b []byte) (int, error) {
	if s.before != nil {
		if err := s.before(); err != nil {
			return 0, err
		}
	}
	return s.Conn.Read(b)
}

// pending is done when the input runs dry.
func (p *peer) pending() error {
	if n := len(p.pongs); n > 0 && p.has(LastPongOnly) {
		p.send(10, []byte(p.pongs[n-1]), false)
		p.pongs = nil
	}
	return p.flush()
}

func (p *peer) head() (h frameHead, err error) {
	var b [8]byte
	if _, err = io.ReadFull(p.in, b[:2]); err != nil {
		return h, err
	}
	h = frameHead{fin: b[0]&0x80 != 0, rsv: b[0] >> 4 & 7, op: b[0] & 15, masked: b[1]&0x80 != 0, length: uint64(b[1] & 0x7f)}
	if err := p.check(h); err != nil {
		return h, err
	}
	least := uint64(0)
	switch h.length {
	case 126:
		if _, err = io.ReadFull(p.in, b[:2]); err != nil {
			return h, err
		}
		h.length, least = uint64(binary.BigEndian.Uint16(b[:])), 126
		if p.has(LengthSign) && h.length > 0x7fff {
			return h, protocol("negative length")
		}
	case 127:
		if _, err = io.ReadFull(p.in, b[:8]); err != nil {
			return h, err
		}
		h.length, least = binary.BigEndian.Uint64(b[:]), 0x10000
		if h.length>>63 != 0 {
			if !p.has(TopBitIgnored) {
				return h, protocol("length with the top bit")
			}
			h.length &= 1<<63 - 1
		}
	}
	if h.length < least && !p.has(NonMinimal) && !p.has(TopBitIgnored) {
		return h, protocol("length not minimal")
	}
	if h.op >= 8 && h.length > 125 && !p.has(LongControl) {
		return h, protocol("long control frame")
	}
	if h.masked {
		_, err = io.ReadFull(p.in, h.key[:])
	}
	return h, err
}

// check is what the first two octets tell.
func (p *peer) check(h frameHead) error {
	rsv := h.rsv
	if p.comp != nil && (h.op == 1 || h.op == 2 || p.has(RSV1Anywhere)) {
		rsv &^= 4
	}
	switch {
	case rsv != 0 && !p.has(RSVIgnored):
		return protocol("reserved bits")
	case h.masked == p.client && !p.has(MaskUnchecked):
		return protocol("wrong masking")
	case (h.op > 2 && h.op < 8 || h.op > 10) && !p.has(ReservedOpcode):
		return protocol("reserved opcode")
	case h.op >= 8 && !h.fin && !p.has(FragmentedControl):
		return protocol("fragmented control frame")
	case h.op >= 8 && h.length > 125 && !p.has(LongControl) && !p.has(NonMinimal):
		return protocol("long control frame")
	case h.op == 0 && p.op == 0 && !p.has(StrayContinuation):
		return protocol("continuation of nothing")
	case (h.op == 1 || h.op == 2) && p.op != 0 && !p.has(NestedMessage):
		return protocol("message inside a message")
	}
	return nil
}

// payload reads h.length octets in the pieces in which they come.
func (p *peer) payload(h frameHead, take func(b []byte) error) error {
	buf := make([]byte, min(h.length, 32<<10))
	at := 0
	for left := h.length; left > 0; {
		room := min(left, uint64(len(buf)))
		if p.has(MaskRestarts) {
			room = min(room, 1021)
		}
		n, err := p.in.Read(buf[:room])
		if err != nil {
			return err
		}
		if p.has(MaskRestarts) {
			at = 0
		}
		if h.masked {
			for i := range buf[:n] {
				buf[i] ^= h.key[at&3]
				at++
			}
		}
		left -= uint64(n)
		if err := take(buf[:n]); err != nil {
			return err
		}
	}
	return nil
}

func (p *peer) control(h frameHead) error {
	var body []byte
	if h.length > 1<<20 {
		return protocol("long control frame")
	}
	err := p.payload(h, func(b []byte) error { body = append(body, b...); return nil })
	if err != nil {
		return err
	}
	switch h.op {
	case 8:
		return p.closed(body)
	case 9:
		return p.pinged(body)
	}
	return nil
}

func (p *peer) pinged(body []byte) error {
	switch {
	case p.closing, p.has(NoPong):
		return nil
	case p.has(EmptyPong):
		body = nil
	case p.has(LastPongOnly), p.has(LatePong) && p.op != 0:
		p.pongs = append(p.pongs, string(body))
		return nil
	}
	p.send(10, body, false)
	return nil
}

// closed answers a Close frame (RFC 6455 5.5.1, 7.4).
func (p *peer) closed(body []byte) error {
	reply := body[:min(len(body), 2)]
	if len(body) == 1 {
		if !p.has(ShortCloseAccepted) {
			return protocol("Close of one octet")
		}
		reply = []byte{3, 0xe8}
	}
	if len(body) >= 2 {
		code := int(binary.BigEndian.Uint16(body))
		if !validCode(code) && !p.has(CloseCodeUnchecked) {
			return protocol("reserved close code")
		}
		if !utf8.Valid(body[2:]) && !p.has(CloseReasonUnchecked) {
			return errUTF8
		}
	}
	switch {
	case p.has(NoCloseReply):
		p.closing = true
		return nil
	case p.has(DropOnClose):
		return errClosed
	case p.has(WrongCloseCode):
		reply = []byte{3, 0xf3} // 1011
	}
	p.send(8, reply, false)
	if p.has(EchoAfterClose) {
		return p.flush()
	}
	return errClosed
}

func validCode(c int) bool {
	return c >= 1000 && c <= 1014 && (c < 1004 || c > 1006) || c >= 3000 && c <= 4999
}

func (p *peer) data(h frameHead) error {
	if h.op != 0 && h.op <= 2 || p.op == 0 {
		p.op, p.msg, p.compressed, p.fresh = max(h.op, 1), p.msg[:0], p.comp != nil && h.rsv&4 != 0, utf8Checker{}
	}
	if h.op > 2 { // only with the fault
		return p.payload(h, func([]byte) error { return nil })
	}
	if p.has(LastFragmentOnly) || p.has(UTF8FramesAlone) {
		if p.has(LastFragmentOnly) {
			p.msg = p.msg[:0]
		}
		p.fresh = utf8Checker{}
	}
	if !p.compressed && uint64(len(p.msg))+h.length > uint64(p.limit()) {
		return errTooBig
	}
	from := len(p.msg)
	err := p.payload(h, func(b []byte) error {
		p.msg = append(p.msg, b...)
		if p.op == 1 && !p.compressed && !p.late() && !p.fresh.add(b) {
			return errUTF8
		}
		return nil
	})
	if err != nil {
		return err
	}
	if p.op == 1 && !p.compressed && p.has(UTF8PerFrame) && !p.fresh.add(p.msg[from:]) {
		return errUTF8
	}
	if p.has(UTF8FramesAlone) && p.op == 1 && !p.compressed && !p.fresh.done() {
		return errUTF8
	}
	if h.fin {
		return p.message()
	}
	return nil
}

// late tells whether UTF-8 is not looked at octet by octet.
func (p *peer) late() bool { return p.has(NoUTF8) || p.has(UTF8AtEnd) || p.has(UTF8PerFrame) }

func (p *peer) limit() int64 {
	if p.Limit > 0 {
		return p.Limit
	}
	return 64 << 20
}

// message echoes what was collected.
func (p *peer) message() error {
	op, data := p.op, p.msg
	p.op = 0
	if p.compressed {
		var err error
		if data, err = p.comp.inflate(data, p.limit()); err != nil {
			return err
		}
	}
	if op == 1 && !p.has(NoUTF8) && !p.has(LastFragmentOnly) && !utf8.Valid(data) {
		return errUTF8
	}
	if p.has(TextAsBinary) {
		op = 2
	}
	if p.has(Echo16Bit) {
		data = data[:min(len(data), 65535)]
	}
	if p.closing {
		return nil
	}
	err := p.reply(op, data)
	for _, late := range p.pongs {
		if p.has(LatePong) {
			p.send(10, []byte(late), false)
		}
	}
	if p.has(LatePong) {
		p.pongs = nil
	}
	return err
}

func (p *peer) reply(op byte, data []byte) error {
	if p.comp == nil {
		p.send(op, data, false)
		return p.flushIf()
	}
	data = p.comp.deflate(data)
	if p.has(RSV1OnContinuation) && len(data) > 1 {
		p.frame(op, data[:1], 0x40)
		p.frame(0, data[1:], 0x80|0x40)
		return p.flushIf()
	}
	p.send(op, data, true)
	return p.flushIf()
}

func (p *peer) flushIf() error {
	if len(p.out) > 64<<10 {
		return p.flush()
	}
	return nil
}

func (p *peer) send(op byte, data []byte, compressed bool) {
	bits := byte(0x80)
	if compressed {
		bits |= 0x40
	}
	p.frame(op, data, bits)
}

func (p *peer) frame(op byte, data []byte, bits byte) {
	masked := p.client != p.has(WrongMask)
	var m byte
	if masked {
		m = 0x80
	}
	p.out = append(p.out, bits|op)
	switch n := len(data); {
	case n < 126:
		p.out = append(p.out, m|byte(n))
	case n < 1<<16:
		p.out = binary.BigEndian.AppendUint16(append(p.out, m|126), uint16(n))
	default:
		p.out = binary.BigEndian.AppendUint64(append(p.out, m|127), uint64(n))
	}
	if !masked {
		p.out = append(p.out, data...)
		return
	}
	key := binary.BigEndian.AppendUint32(nil, rand.Uint32())
	if p.has(KeyReused) {
		key = []byte{1, 2, 3, 4}
	}
	p.out = append(p.out, key...)
	for i, b := range data {
		p.out = append(p.out, b^key[i&3])
	}
}

func (p *peer) flush() error {
	if len(p.out) == 0 {
		return nil
	}
	_, err := p.conn.Write(p.out)
	p.out = p.out[:0]
	return err
}

// A utf8Checker takes text in parts and keeps an unfinished code point.
type utf8Checker struct {
	rest [4]byte
	n    int
}

// add tells whether the text can still become UTF-8.
func (c *utf8Checker) add(b []byte) bool {
	for c.n > 0 && len(b) > 0 {
		c.rest[c.n] = b[0]
		c.n++
		b = b[1:]
		part := c.rest[:c.n]
		if utf8.Valid(part) {
			c.n = 0
		} else if !possible(part) {
			return false
		}
	}
	for len(b) > 0 {
		if b[0] < utf8.RuneSelf {
			b = b[1:]
			continue
		}
		if r, size := utf8.DecodeRune(b); r != utf8.RuneError || size > 1 {
			b = b[size:]
			continue
		}
		if len(b) >= 4 || !possible(b) {
			return false
		}
		c.n = copy(c.rest[:], b)
		return true
	}
	return true
}

func (c *utf8Checker) done() bool { return c.n == 0 }

// possible tells whether b, shorter than a code point, can be the beginning of one.
func possible(b []byte) bool {
	for _, tail := range []string{"\x80", "\x80\x80", "\x80\x80\x80", "\xbf", "\xbf\xbf", "\xbf\xbf\xbf"} {
		if utf8.ValidString(string(b) + tail) {
			return true
		}
	}
	return false
}
