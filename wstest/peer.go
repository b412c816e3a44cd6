package wstest

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/seed-07372d5a/websocket"
)

// peer.go owns a peer that does as it is told, byte by byte.

// A Role is which half of the protocol a Peer speaks: frames of a client are
// masked, those of a server are not (RFC 6455 section 5.1).
type Role bool

// The roles.
const (
	Client Role = true
	Server Role = false
)

// TB is what a Peer needs of a *testing.T.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
}

// A Peer speaks bytes and frames over a net.Conn, and fails its test when what
// comes is not what it expects. Its methods are for one goroutine at a time;
// a Peer that runs in another goroutine than the test's should end before the
// test does.
type Peer struct {
	net.Conn      // what it speaks over; for reading and writing without expectations
	Role     Role // may be changed, for a peer that does not keep to its half
	// Patience is how long an expectation waits for input, on the clock of the
	// bubble if there is one. NewPeer sets it to 10 s; 0 is for ever.
	Patience time.Duration

	t   TB
	key uint32 // of the next masked frame
}

// NewPeer returns a peer that speaks over nc, which is its own from now on. A nil
// t, for use outside of tests, makes it panic instead of failing one.
func NewPeer(t TB, nc net.Conn, role Role) *Peer {
	if t == nil {
		t = panics{}
	}
	return &Peer{Conn: nc, Role: role, Patience: 10 * time.Second, t: t}
}

type panics struct{}

func (panics) Helper()                           {}
func (panics) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// A Frame is one frame, as it is before masking.
type Frame struct {
	Op      websocket.Opcode // 0: a continuation
	Payload string
	More    bool // FIN is not set: the message goes on
	RSV     byte // the three reserved bits: 4 is RSV1, which marks a compressed message
}

// CloseFrame returns a close frame. CloseNoStatusReceived makes one without a
// payload; any other code, legal or not, is in it.
func CloseFrame(code websocket.CloseCode, reason string) Frame {
	if code == websocket.CloseNoStatusReceived {
		return Frame{Op: websocket.OpClose}
	}
	return Frame{Op: websocket.OpClose, Payload: string(binary.BigEndian.AppendUint16(nil, uint16(code))) + reason}
}

// String returns a frame as it stands in a log of a Recorder, its payload cut if it
// is long: text "Hello".
func (f Frame) String() string {
	const most = 64
	if n := len(f.Payload); n > most {
		f.Payload = f.Payload[:most]
		return formatFrame(f, false) + fmt.Sprintf("... (%d bytes)", n)
	}
	return formatFrame(f, false)
}

// head returns what is before the payload.
func (f Frame) head() string {
	s := cmp.Or(opcode(f.Op), fmt.Sprintf("opcode=%d", f.Op))
	if f.More {
		s += " more"
	}
	if f.RSV != 0 {
		s += fmt.Sprintf(" rsv=%03b", f.RSV)
	}
	return s
}

// Bytes returns what the peer sends for frames: masked for a client, each with
// another key, the same in every run.
func (p *Peer) Bytes(frames ...Frame) []byte {
	var b []byte
	for _, f := range frames {
		h := websocket.Header{Fin: !f.More, RSV: f.RSV, Opcode: f.Op, Len: int64(len(f.Payload))}
		if p.Role == Client {
			p.key += 0x9e3779b9
			h.Masked, h.Key = true, p.key
		}
		b = websocket.AppendHeader(b, h)
		n := len(b)
		b = append(b, f.Payload...)
		websocket.Mask(b[n:], h.Key)
	}
	return b
}

// Send sends bytes as they are.
func (p *Peer) Send(b []byte) {
	p.t.Helper()
	if _, err := p.Write(b); err != nil {
		p.t.Fatalf("wstest: peer cannot send %d bytes: %v", len(b), err)
	}
}

// SendPieces sends bytes in pieces of size, with a pause between two.
func (p *Peer) SendPieces(b []byte, size int, pause time.Duration) {
	p.t.Helper()
	for len(b) > 0 {
		n := min(max(size, 1), len(b))
		p.Send(b[:n])
		if b = b[n:]; len(b) > 0 {
			p.Pause(pause)
		}
	}
}

// SendFrames sends frames, together.
func (p *Peer) SendFrames(frames ...Frame) {
	p.t.Helper()
	p.Send(p.Bytes(frames...))
}

// SendText sends a text message.
func (p *Peer) SendText(s string) {
	p.t.Helper()
	p.SendFrames(Frame{Op: websocket.OpText, Payload: s})
}

// Pause does nothing for d.
func (p *Peer) Pause(d time.Duration) {
	if d > 0 {
		<-time.After(d)
	}
}

// Frame reads a frame. It fails the test if its masking is not that of the other
// role.
func (p *Peer) Frame() Frame {
	p.t.Helper()
	f, err := p.frame()
	if err != nil {
		p.t.Fatalf("wstest: peer expects a frame: %v", err)
	}
	return f
}

func (p *Peer) frame() (Frame, error) {
	b, err := readFrame(p.patient())
	if err != nil {
		return Frame{}, err
	}
	f, masked := parseFrame(b)
	if masked == (p.Role == Client) {
		return f, fmt.Errorf("wrong masking of %v", f)
	}
	return f, nil
}

// readFrame reads the bytes of one frame, and none of the next.
func readFrame(r io.Reader) ([]byte, error) {
	b := make([]byte, 0, websocket.MaxHeaderSize)
	for {
		h, n := websocket.ParseHeader(b)
		switch {
		case n < 0:
			return nil, fmt.Errorf("header % x is none", b)
		case n > 0:
			return readMore(b, r, h.Len)
		}
		b = b[:len(b)+1]
		if _, err := io.ReadFull(r, b[len(b)-1:]); err != nil {
			if err == io.EOF && len(b) > 1 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

// readMore appends n bytes; the memory for them is taken as they come.
func readMore(b []byte, r io.Reader, n int64) ([]byte, error) {
	w := bytes.NewBuffer(b)
	if _, err := io.CopyN(w, r, n); err != nil {
		return nil, io.ErrUnexpectedEOF
	}
	return w.Bytes(), nil
}

// parseFrame takes a whole frame apart.
func parseFrame(b []byte) (f Frame, masked bool) {
	h, n := websocket.ParseHeader(b)
	data := bytes.Clone(b[n:])
	websocket.Mask(data, h.Key)
	return Frame{Op: h.Opcode, Payload: string(data), More: !h.Fin, RSV: h.RSV}, h.Masked
}

// patient returns the net.Conn with a deadline.
func (p *Peer) patient() net.Conn {
	var by time.Time
	if p.Patience > 0 {
		by = time.Now().Add(p.Patience)
	}
	p.SetReadDeadline(by)
	return p.Conn
}

// Expect reads exactly these frames.
func (p *Peer) Expect(frames ...Frame) {
	p.t.Helper()
	for _, want := range frames {
		got, err := p.frame()
		switch {
		case err != nil:
			p.t.Fatalf("wstest: peer expects %v: %v", want, err)
		case got != want:
			p.t.Fatalf("wstest: peer expects %v, not %v", want, got)
		}
	}
}

// ExpectText reads a text message in one frame.
func (p *Peer) ExpectText(s string) {
	p.t.Helper()
	p.Expect(Frame{Op: websocket.OpText, Payload: s})
}

// ExpectBytes reads exactly these bytes.
func (p *Peer) ExpectBytes(want []byte) {
	p.t.Helper()
	got := make([]byte, len(want))
	n, err := io.ReadFull(p.patient(), got)
	switch {
	case err != nil:
		p.t.Fatalf("wstest: peer expects % x, not % x: %v", want, got[:n], err)
	case !bytes.Equal(want, got):
		p.t.Fatalf("wstest: peer expects % x, not % x", want, got)
	}
}

// ExpectClose reads a close frame with this code, behind any number of other
// frames, and returns its reason.
func (p *Peer) ExpectClose(code websocket.CloseCode) (reason string) {
	p.t.Helper()
	for {
		f, err := p.frame()
		switch {
		case err != nil:
			p.t.Fatalf("wstest: peer expects close %d: %v", code, err)
		case f.Op != websocket.OpClose:
			continue
		case !strings.HasPrefix(f.Payload, CloseFrame(code, "").Payload) || f.Payload != "" && code == websocket.CloseNoStatusReceived:
			p.t.Fatalf("wstest: peer expects close %d, not %v", code, f)
		}
		return f.Payload[min(2, len(f.Payload)):]
	}
}

// ExpectEOF reads the end of the connection, and nothing before it.
func (p *Peer) ExpectEOF() {
	p.t.Helper()
	p.expectEnd("the end", io.EOF)
}

// ExpectReset reads a reset, and nothing before it.
func (p *Peer) ExpectReset() {
	p.t.Helper()
	p.expectEnd("a reset", syscall.ECONNRESET)
}

func (p *Peer) expectEnd(name string, want error) {
	p.t.Helper()
	var b [1]byte
	switch n, err := p.patient().Read(b[:]); {
	case n > 0:
		p.t.Fatalf("wstest: peer expects %s, not the byte %#x", name, b[0])
	case !errors.Is(err, want):
		p.t.Fatalf("wstest: peer expects %s, not: %v", name, err)
	}
}

// ExpectSilence waits for d, in which nothing comes and nothing ends.
func (p *Peer) ExpectSilence(d time.Duration) {
	p.t.Helper()
	p.SetReadDeadline(time.Now().Add(d))
	var b [1]byte
	switch n, err := p.Conn.Read(b[:]); {
	case n > 0:
		p.t.Fatalf("wstest: peer expects silence, not the byte %#x", b[0])
	case !errors.Is(err, os.ErrDeadlineExceeded):
		p.t.Fatalf("wstest: peer expects silence, not: %v", err)
	}
}

// CloseWrite half-closes the connection: the other side reads io.EOF.
func (p *Peer) CloseWrite() {
	p.t.Helper()
	if err := closeWrite(p.Conn); err != nil {
		p.t.Fatalf("wstest: peer: %v", err)
	}
}

// Reset breaks the connection. A net.Conn that cannot be reset is closed.
func (p *Peer) Reset() { reset(p.Conn) }

// Accept does a server's half of the opening handshake: it reads a request and
// answers it. The lines, such as "Sec-WebSocket-Protocol: chat", are added to the
// response. The request is returned, for more expectations.
func (p *Peer) Accept(lines ...string) *http.Request {
	p.t.Helper()
	r := p.Request()
	lines = append([]string{
		"HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade",
		"Sec-WebSocket-Accept: " + websocket.AcceptKey(r.Header.Get("Sec-WebSocket-Key")),
	}, lines...)
	p.Send([]byte(strings.Join(lines, "\r\n") + "\r\n\r\n"))
	return r
}

// Request reads an HTTP request without a body, for those who answer it
// themselves, with Send.
func (p *Peer) Request() *http.Request {
	p.t.Helper()
	head, err := readHead(p.patient())
	if err == nil {
		var r *http.Request
		if r, err = http.ReadRequest(bufio.NewReader(bytes.NewReader(head))); err == nil {
			return r
		}
	}
	p.t.Fatalf("wstest: peer expects a request: %v", err)
	return nil
}

// dialKey is the Sec-WebSocket-Key of Peer.Dial: the one in RFC 6455 section 1.3.
const dialKey = "dGhlIHNhbXBsZSBub25jZQ=="

// Dial does a client's half of the opening handshake: it asks for target, such as
// "/chat", with the lines added to the request, and reads the answer, which fails
// the test unless it is a right 101.
func (p *Peer) Dial(target string, lines ...string) *http.Response {
	p.t.Helper()
	lines = append([]string{
		"GET " + target + " HTTP/1.1", "Host: wstest", "Upgrade: websocket", "Connection: Upgrade",
		"Sec-WebSocket-Key: " + dialKey, "Sec-WebSocket-Version: 13",
	}, lines...)
	p.Send([]byte(strings.Join(lines, "\r\n") + "\r\n\r\n"))
	r := p.Response()
	switch {
	case r.StatusCode != http.StatusSwitchingProtocols:
		p.t.Fatalf("wstest: peer expects 101, not %s", r.Status)
	case r.Header.Get("Sec-WebSocket-Accept") != websocket.AcceptKey(dialKey):
		p.t.Fatalf("wstest: peer expects another Sec-WebSocket-Accept than %q", r.Header.Get("Sec-WebSocket-Accept"))
	}
	return r
}

// Response reads the head of an HTTP response. What its body has is left to be
// read.
func (p *Peer) Response() *http.Response {
	p.t.Helper()
	head, err := readHead(p.patient())
	if err == nil {
		var r *http.Response
		if r, err = http.ReadResponse(bufio.NewReader(bytes.NewReader(head)), nil); err == nil {
			return r
		}
	}
	p.t.Fatalf("wstest: peer expects a response: %v", err)
	return nil
}

// maxHead is how large the head of an HTTP message may be, in bytes.
const maxHead = 1 << 20

// readHead reads up to the empty line of an HTTP message, and nothing after it.
func readHead(r io.Reader) ([]byte, error) {
	var b []byte
	for one := make([]byte, 1); len(b) < maxHead; {
		if _, err := io.ReadFull(r, one); err != nil {
			return b, err
		}
		if b = append(b, one[0]); bytes.HasSuffix(b, []byte("\r\n\r\n")) {
			return b, nil
		}
	}
	return b, errors.New("head too large")
}
