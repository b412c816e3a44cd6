package websocket

import (
	"errors"
	"math/bits"
	"net/http"
	"strconv"
	"strings"

	"github.com/seed-07372d5a/websocket/internal/flate"
)

// compress.go owns permessage-deflate (RFC 7692): what the handshake agrees on,
// and its state on a connection. The codec is in internal/flate.

// Compression configures permessage-deflate (RFC 7692). A nil pointer switches
// it off; the zero value is the cheapest way to have it.
//
// Do not compress a message that holds both a secret and what an attacker can
// choose: its size tells how much of the one repeats in the other. Message.Plain
// is for such messages.
type Compression struct {
	// Takeover keeps the window between messages, in both directions if the
	// peer agrees. Small messages that resemble each other become much smaller,
	// for up to twice 1<<WindowBits bytes of memory per connection.
	Takeover bool
	// WindowBits limits the windows of both directions to 1<<WindowBits bytes,
	// 8 to 15, as far as the peer can. 0: 15.
	WindowBits int
	// Threshold is the size of message, in bytes, from which compressing is
	// tried. 0: 256.
	Threshold int
}

// withDefaults resolves what was left zero, and moves what is out of range into
// it.
func (z Compression) withDefaults() Compression {
	if z.WindowBits == 0 {
		z.WindowBits = maxBits
	}
	z.WindowBits = min(max(z.WindowBits, minBits), maxBits)
	if z.Threshold == 0 {
		z.Threshold = 256
	}
	return z
}

const (
	minBits = 8
	maxBits = 15

	maxOffers = 16 // extensions of a header that are looked at
	maxParams = 16 // parameters of an extension
)

// Terms are what two endpoints agree on (RFC 7692 section 7.1).
type terms struct {
	server, client direction // what each sends
}

// A direction is how one side compresses.
type direction struct {
	reset bool // no context takeover: each message stands alone
	bits  int  // of the window; 0: not mentioned, which means 15
}

func (d direction) window() int {
	if d.bits == 0 {
		return maxBits
	}
	return d.bits
}

// String returns the terms as they stand in a header.
func (t terms) String() string {
	s := deflateName
	if t.server.reset {
		s += "; server_no_context_takeover"
	}
	if t.client.reset {
		s += "; client_no_context_takeover"
	}
	if t.server.bits != 0 {
		s += "; server_max_window_bits=" + strconv.Itoa(t.server.bits)
	}
	if t.client.bits != 0 {
		s += "; client_max_window_bits=" + strconv.Itoa(t.client.bits)
	}
	return s
}

// agree returns the terms on which a server takes up a client's request: on the
// first offer in h that is right. It answers nothing that was not offered, but
// for what section 7.1 lets a server ask for.
func (z Compression) agree(h http.Header) (t terms, ok bool) {
	for _, e := range parseExtensions(h[hExtensions]) {
		o, ok := parseDeflate(e)
		if !ok {
			continue
		}
		limited := z.WindowBits < maxBits
		t = o.terms
		t.server.reset = t.server.reset || !z.Takeover
		t.client.reset = t.client.reset || !z.Takeover
		if limited || t.server.bits != 0 { // section 7.1.2.1: a limit is confirmed
			t.server.bits = min(t.server.window(), z.WindowBits)
		}
		switch {
		case limited && o.clientBits:
			t.client.bits = min(t.client.window(), z.WindowBits)
		case limited: // it cannot limit its window: then it shall not keep it
			t.client.reset = true
		}
		return t, true
	}
	return terms{}, false
}

// offer returns what a client offers.
func (z Compression) offer() string {
	t := terms{server: direction{reset: !z.Takeover}, client: direction{reset: !z.Takeover}}
	if z.WindowBits == maxBits {
		return t.String() + "; client_max_window_bits" // no value: the server may choose one
	}
	t.server.bits, t.client.bits = z.WindowBits, z.WindowBits
	return t.String()
}

// accept returns the terms of a server's answer to offer; ok says that a client
// can live with them. A server that did not take up a limit on its own side
// costs memory, and is no reason to go.
func (z Compression) accept(h http.Header) (t terms, ok bool) {
	all := parseExtensions(h[hExtensions])
	if len(all) != 1 {
		return t, false
	}
	o, ok := parseDeflate(all[0])
	switch {
	case !ok, o.clientBits && o.client.bits == 0: // in an answer the value is required
		return t, false
	case o.server.bits > z.WindowBits, o.client.bits > z.WindowBits:
		return t, false
	}
	t = o.terms
	t.client.reset = t.client.reset || !z.Takeover // as was promised
	t.client.bits = min(t.client.window(), z.WindowBits)
	return t, true
}

// An offer is a permessage-deflate extension as it stands in a header.
type offer struct {
	terms
	clientBits bool // client_max_window_bits is there, with or without a value
}

// accepts tells whether a client that offered z, or nothing if it is nil, can
// live with the extensions in h.
func (z *Compression) accepts(h http.Header) bool {
	if len(h[hExtensions]) == 0 {
		return true
	}
	if z == nil {
		return false
	}
	_, ok := z.withDefaults().accept(h)
	return ok
}

const deflateName = "permessage-deflate"

// parseDeflate reads a permessage-deflate extension: ok if there is nothing in
// it that section 7.1 does not know, nothing twice, and every value is right.
func parseDeflate(e extension) (o offer, ok bool) {
	if e.name != deflateName || !e.ok {
		return o, false
	}
	seen := map[string]bool{}
	for _, p := range e.params {
		if seen[p.name] {
			return o, false
		}
		seen[p.name] = true
		bits, number := windowBits(p.value)
		switch {
		case p.name == "server_no_context_takeover" && !p.given:
			o.server.reset = true
		case p.name == "client_no_context_takeover" && !p.given:
			o.client.reset = true
		case p.name == "server_max_window_bits" && number:
			o.server.bits = bits
		case p.name == "client_max_window_bits" && (number || !p.given):
			o.clientBits, o.client.bits = true, bits
		default:
			return o, false
		}
	}
	return o, true
}

// windowBits reads 8 to 15, without sign, blank or leading zero.
func windowBits(s string) (int, bool) {
	switch {
	case len(s) == 1 && (s == "8" || s == "9"):
		return int(s[0] - '0'), true
	case len(s) == 2 && s[0] == '1' && s[1] >= '0' && s[1] <= '5':
		return 10 + int(s[1]-'0'), true
	}
	return 0, false
}

// An extension is one element of Sec-WebSocket-Extensions (RFC 6455 section
// 9.1).
type extension struct {
	name   string
	params []param
	ok     bool // it follows the grammar
}

type param struct {
	name, value string
	given       bool // there is a value
}

// parseExtensions reads the extensions in values, up to a number that no honest
// peer needs. Quotes are understood around tokens, as the grammar has them. The
// first error ends it: what follows may be anything.
func parseExtensions(values []string) (all []extension) {
	for _, s := range values {
		for s = trim(s); s != ""; {
			if len(all) == maxOffers {
				return all
			}
			var e extension
			e, s = parseExtension(s)
			if e.name != "" || !e.ok {
				all = append(all, e)
			}
			if !e.ok {
				return all
			}
		}
	}
	return all
}

// parseExtension reads one extension and returns what is behind its comma.
func parseExtension(s string) (e extension, rest string) {
	e.name, s = cutToken(s)
	for {
		s = strings.TrimLeft(s, " \t")
		switch {
		case s == "" || s[0] == ',':
			e.ok = e.name != "" || len(e.params) == 0 // an empty element is none (RFC 9110 section 5.6.1)
			return e, strings.TrimLeft(strings.TrimPrefix(s, ","), " \t")
		case s[0] != ';' || len(e.params) == maxParams:
			return e, ""
		}
		var p param
		p.name, s = cutToken(strings.TrimLeft(s[1:], " \t"))
		s = strings.TrimLeft(s, " \t")
		if p.given = strings.HasPrefix(s, "="); p.given {
			s = strings.TrimLeft(s[1:], " \t")
			quoted := strings.HasPrefix(s, `"`)
			p.value, s = cutToken(strings.TrimPrefix(s, `"`))
			if quoted {
				if !strings.HasPrefix(s, `"`) {
					return e, ""
				}
				s = s[1:]
			}
		}
		if p.name == "" || p.given && p.value == "" {
			return e, ""
		}
		e.params = append(e.params, p)
	}
}

// cutToken splits the token off that s begins with.
func cutToken(s string) (t, rest string) {
	n := 0
	for n < len(s) && isToken(s[n:n+1]) {
		n++
	}
	return s[:n], s[n:]
}

// compress sets up what p agreed on.
func (c *Conn) compress(p Params) {
	all := parseExtensions([]string{p.Extensions})
	if len(all) != 1 {
		return
	}
	o, ok := parseDeflate(all[0])
	if !ok {
		return
	}
	var z Compression
	if p.Config.Compression != nil {
		z = *p.Config.Compression
	}
	z = z.withDefaults()
	in, out := o.client, o.server
	if p.Client {
		in, out = out, in
	}
	c.machine.deflate = true
	c.zip, c.out.zip = newInflater(in), newDeflater(out, z.Threshold)
}

// A deflater is the sending half of permessage-deflate.
type deflater struct {
	window    *flate.Window // what was sent compressed; nil without takeover
	bits      int
	threshold int
}

func newDeflater(d direction, threshold int) *deflater {
	z := &deflater{bits: d.window(), threshold: threshold}
	if !d.reset {
		z.window = flate.NewWindow(z.bits)
	}
	return z
}

// wants tells whether m is to be compressed. A nil z wants nothing.
func (z *deflater) wants(m *Message) bool {
	return z != nil && !m.Plain && len(m.Data) >= z.threshold
}

// ahead compresses what need not wait for its turn: what refers to nothing that
// was sent before. It returns nil for what must, and for what does not shrink.
func (z *deflater) ahead(m *Message) (data []byte, b *buffer) {
	switch {
	case m.prepared != nil:
		p := &m.prepared.packed[z.bits-minBits]
		p.once.Do(func() { p.data = shrink(nil, m.Data, nil, z.bits) })
		return p.data, nil
	case z.window != nil:
		return nil, nil
	}
	b = borrow(len(m.Data))
	data = shrink(b, m.Data, nil, z.bits)
	return data, b
}

// shrink compresses p into b, or into memory of its own if b is nil. It returns
// nil if that is no gain: then the message goes as it is, and neither side's
// window has it.
func shrink(b *buffer, p []byte, w *flate.Window, bits int) []byte {
	var dst []byte
	if b != nil {
		dst = b.b
	}
	data := flate.Compress(dst, p, w, bits)
	if b != nil {
		b.b = data
	}
	if len(data) >= len(p) {
		return nil
	}
	return data
}

// sent adds p to the window.
func (z *deflater) sent(p []byte) {
	if z.window != nil {
		z.window.Add(p)
	}
}

// A streamDeflater compresses a message in fragments. It belongs to whoever owns
// the message slot, and so does the window.
type streamDeflater struct {
	window *flate.Window // the connection's with takeover, else of this message
	bits   int
}

// stream returns how to compress a message that begins with p, or nil if it is
// not to be.
func (z *deflater) stream(p []byte, whole bool) *streamDeflater {
	switch {
	case z == nil || whole && len(p) < z.threshold:
		return nil
	case z.window != nil:
		return &streamDeflater{z.window, z.bits}
	}
	return &streamDeflater{flate.NewWindow(z.bits), z.bits}
}

// fragment appends the next part of the message. Only the last one lacks the end
// of its empty block (RFC 7692 section 7.2.1).
func (z *streamDeflater) fragment(dst, p []byte, last bool) []byte {
	dst = flate.Compress(dst, p, z.window, z.bits)
	z.window.Add(p)
	if !last {
		dst = append(dst, 0, 0, 0xff, 0xff)
	}
	return dst
}

// An inflater is the receiving half of permessage-deflate.
type inflater struct {
	window *flate.Window // what came compressed; nil without takeover
	bits   int
	z      *flate.Inflater // borrowed while a compressed message is under way
	text   utf8Check       // of that message
	full   bool            // the buffer is, and there is more of the piece
	parts  []*buffer       // what of it is in full buffers
	held   int             // bytes in parts
}

func newInflater(d direction) *inflater {
	z := &inflater{bits: d.window()}
	if !d.reset {
		z.window = flate.NewWindow(z.bits)
	}
	return z
}

// What a compressed message can do wrong (RFC 7692 section 7.2.2 leaves the code
// open).
var (
	errInflate = &ProtocolError{CloseInvalidFramePayloadData, "malformed compressed data"}
	errBomb    = &ProtocolError{ClosePolicyViolation, "compressed data that yields too little"}
)

// unpack appends to b, within its capacity, what a piece of a compressed message
// says, and checks that text is text. When b is full, what is left of the piece
// is for the next call.
func (z *inflater) unpack(b *buffer, p *piece, limit int64) error {
	if p.first {
		z.z, z.text = flate.NewInflater(z.window, z.bits, limit), utf8Check{}
	}
	at := len(b.b)
	out, n, err := z.z.Append(b.b, p.data)
	b.b, p.data, p.first = out, p.data[n:], false
	if p.op == OpText && !z.text.add(out[at:]) { // it came before what err is about, wherever the input was cut
		return errUTF8
	}
	if z.full = err == flate.ErrFull; z.full {
		err = nil
	}
	last := p.last && !z.full
	if err == nil && last {
		err = z.z.Close()
	}
	switch {
	case errors.Is(err, flate.ErrTooBig):
		return errTooBig
	case errors.Is(err, flate.ErrTooMuchWork):
		return errBomb
	case err != nil:
		return errInflate
	case p.op == OpText && last && !z.text.complete():
		return errUTF8
	}
	if last {
		if z.window != nil {
			z.z.Slide(out)
		}
		z.z.Free()
		z.z = nil
	}
	return nil
}

// collect appends to b, which is nil at first, all that a piece says. With the
// last one the buffer has the whole message.
func (z *inflater) collect(b *buffer, p piece, limit int64) (*buffer, error) {
	if b == nil {
		b = borrow(4 * len(p.data))
	}
	for {
		if err := z.unpack(b, &p, limit); err != nil {
			return b, err
		}
		if !z.full {
			break
		}
		b = z.next(b, limit)
	}
	if p.last {
		b = z.join(b)
	}
	return b, nil
}

// reuse makes room in b, which is full and was read.
func (z *inflater) reuse(b *buffer) {
	z.z.Slide(b.b)
	b.b = b.b[:0]
}

// next puts b aside, which is full, and returns a buffer twice as large, but not
// beyond the limit: what would exceed it never takes more memory.
func (z *inflater) next(b *buffer, limit int64) *buffer {
	z.z.Slide(b.b)
	z.parts = append(z.parts, b)
	z.held += len(b.b)
	n := 2 * cap(b.b)
	if left := limit - int64(z.held); limit >= 0 && left < int64(n) {
		n = 1 << (bits.Len(uint(max(left, 1))) - 1) // not rounded up
	}
	return borrow(n)
}

// join returns a buffer with all that is in parts and b.
func (z *inflater) join(b *buffer) *buffer {
	if len(z.parts) == 0 {
		return b
	}
	all := borrow(z.held + len(b.b))
	for _, p := range append(z.parts, b) {
		all.b = append(all.b, p.b...)
		p.release()
	}
	z.parts, z.held = nil, 0
	return all
}
