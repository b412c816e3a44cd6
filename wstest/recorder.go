package wstest

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/seed-07372d5a/websocket"
)

// recorder.go owns logs of connections: writing them, and playing them.
//
// A log is lines of text. Each has the time since the recording began, what
// happened, as seen from the recorded side, and perhaps a comment:
//
//	0s recv [masked text "Hello"]
//	0s send [text "Hello"]
//	5s recv EOF

// A Recorder writes down what passes through the net.Conns that it Wraps. Its
// methods may be called from any goroutine.
type Recorder struct {
	mu    sync.Mutex
	start time.Time
	lines []string // "" for what is not over yet
}

// Wrap returns nc, recorded from now on. Times in the log are counted from the
// first Wrap. What is returned has the methods CloseWrite and Reset, which do what
// those of nc do.
func (r *Recorder) Wrap(nc net.Conn) net.Conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.start.IsZero() {
		r.start = time.Now()
	}
	return &recorded{Conn: nc, r: r}
}

// Log returns what has been recorded so far, one line per event:
//
//	TIME recv BYTES       the recorded side has read bytes
//	TIME recv EOF         the peer has ended its direction
//	TIME recv reset       the peer has reset the connection
//	TIME send BYTES       the recorded side has written bytes
//	TIME send EOF         it has half-closed the connection
//	TIME close            it has closed the connection
//	TIME reset            it has reset the connection
//	TIME read-deadline T  it has set a deadline, in T from now, or to none
//	TIME write-deadline T
//	TIME recv error TEXT  a Read or Write has failed otherwise
//	TIME send error TEXT
//
// TIME and T are as of time.Duration. BYTES are hexadecimal digits, strings as of
// Go, and frames in brackets, with spaces between:
//
//	[text "Hello"]
//	[masked text more rsv=100 f248cdc9]    not the last of its message; RSV1 is set
//	[continuation "more"] [ping] [opcode=3]
//	[close 1000 "bye"]
//
// Masking keys are not kept, so that two recordings of the same conversation are
// the same text. A log is written by hand as well: an event without TIME comes at
// once, and from # on, where BYTES might go on, a line is a comment.
func (r *Recorder) Log() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.lines, "")
}

// add writes a line.
func (r *Recorder) add(format string, args ...any) {
	at, i := r.reserve()
	r.fill(at, i, fmt.Sprintf(format, args...))
}

// reserve keeps a line for what begins now: nothing that follows from it shall
// stand before it.
func (r *Recorder) reserve() (at time.Duration, i int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, "")
	return time.Since(r.start), len(r.lines) - 1
}

func (r *Recorder) fill(at time.Duration, i int, what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines[i] = fmt.Sprintf("%v %s\n", at, what)
}

// A recorded is a net.Conn that is recorded.
type recorded struct {
	net.Conn
	r *Recorder

	mu         sync.Mutex
	recv, sent tracker
}

// format writes the next bytes of a direction.
func (c *recorded) format(t *tracker, b []byte) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return t.format(b)
}

func (c *recorded) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.r.add("recv %s", c.format(&c.recv, p[:n]))
	}
	switch {
	case err == io.EOF:
		c.r.add("recv EOF")
	case errors.Is(err, syscall.ECONNRESET):
		c.r.add("recv reset")
	case err != nil:
		c.r.add("recv error %v", err)
	}
	return n, err
}

func (c *recorded) Write(p []byte) (int, error) {
	at, i := c.r.reserve()
	n, err := c.Conn.Write(p)
	if n > 0 {
		c.r.fill(at, i, "send "+c.format(&c.sent, p[:n]))
	}
	if err != nil {
		c.r.add("send error %v", err)
	}
	return n, err
}

func (c *recorded) Close() error {
	c.r.add("close")
	return c.Conn.Close()
}

// CloseWrite half-closes.
func (c *recorded) CloseWrite() error {
	at, i := c.r.reserve()
	err := closeWrite(c.Conn)
	if err == nil {
		c.r.fill(at, i, "send EOF")
	}
	return err
}

// Reset breaks the connection.
func (c *recorded) Reset() {
	c.r.add("reset")
	reset(c.Conn)
}

func (c *recorded) SetDeadline(t time.Time) error {
	c.r.add("read-deadline %s", formatDeadline(t))
	c.r.add("write-deadline %s", formatDeadline(t))
	return c.Conn.SetDeadline(t)
}

func (c *recorded) SetReadDeadline(t time.Time) error {
	c.r.add("read-deadline %s", formatDeadline(t))
	return c.Conn.SetReadDeadline(t)
}

func (c *recorded) SetWriteDeadline(t time.Time) error {
	c.r.add("write-deadline %s", formatDeadline(t))
	return c.Conn.SetWriteDeadline(t)
}

func formatDeadline(t time.Time) string {
	switch d := time.Until(t); {
	case t.IsZero():
		return "none"
	case d <= 0:
		return "past"
	default:
		return d.String()
	}
}

// A tracker knows where in the frames of its direction a connection is.
type tracker struct {
	begun  bool
	http   bool   // the head of a handshake goes on
	head   []byte // the beginning of a frame's header
	left   int64  // of a frame's payload
	framed bool   // there has been a frame
	lost   bool   // this is no WebSocket
}

// format writes the next bytes: as frames where whole ones are together, else as
// strings where they can be read, else in hexadecimal.
func (t *tracker) format(b []byte) string {
	var s []string
	raw := func(n int) {
		s = append(s, formatBytes(b[:n]))
		b = b[n:]
	}
	t.http = t.http || !t.begun && isHead(b)
	t.begun = true
	for len(b) > 0 {
		switch {
		case t.http:
			n := bytes.Index(b, []byte("\r\n\r\n")) + 4
			if t.http = n < 4; t.http {
				n = len(b)
			}
			s = append(s, strconv.Quote(string(b[:n])))
			b = b[n:]
			continue
		case t.lost:
			raw(len(b))
			continue
		case t.left > 0:
			n := min(t.left, int64(len(b)))
			t.left -= n
			raw(int(n))
			continue
		}
		before := len(t.head)
		t.head = append(t.head, b[:min(len(b), websocket.MaxHeaderSize)]...)
		h, n := websocket.ParseHeader(t.head)
		switch {
		case n < 0, n > 0 && !t.framed && opcode(h.Opcode) == "": // TLS, for example
			t.lost = true
		case n == 0:
			t.head = t.head[:before+len(b)]
			raw(len(b))
			continue
		case before == 0 && int64(len(b)-n) >= h.Len:
			n += int(h.Len)
			s = append(s, "["+formatFrame(parseFrame(b[:n]))+"]")
			b = b[n:]
		default:
			t.left = h.Len
			raw(n - before)
		}
		t.head, t.framed = nil, true
	}
	return strings.Join(s, " ")
}

// opcodes are the names of frames in logs.
var opcodes = []string{
	websocket.OpContinuation: "continuation", websocket.OpText: "text", websocket.OpBinary: "binary",
	websocket.OpClose: "close", websocket.OpPing: "ping", websocket.OpPong: "pong",
}

// opcode returns the name of a frame, or "".
func opcode(o websocket.Opcode) string {
	if int(o) < len(opcodes) {
		return opcodes[o]
	}
	return ""
}

// formatFrame writes a frame: [masked text more rsv=100 "Hello"].
func formatFrame(f Frame, masked bool) string {
	var s []string
	if masked {
		s = append(s, "masked")
	}
	s = append(s, f.head())
	p := f.Payload
	if f.Op == websocket.OpClose && len(p) >= 2 {
		s, p = append(s, strconv.Itoa(int(binary.BigEndian.Uint16([]byte(p))))), p[2:]
	}
	switch {
	case p == "":
	case f.Op == websocket.OpClose && len(f.Payload) == 1: // digits would be a code
		s = append(s, strconv.Quote(p))
	default:
		s = append(s, formatBytes([]byte(p)))
	}
	return strings.Join(s, " ")
}

// parseFrameText reads what formatFrame has written, and returns the frame's
// bytes. All that are masked have the key of RFC 6455 section 5.7.
func parseFrameText(s string) ([]byte, error) {
	h := websocket.Header{Fin: true, Opcode: 255}
	payload := []byte{}
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimSpace(s) {
		if h.Opcode != 255 && (s[0] == '"' || s[0] >= '0' && s[0] <= '9' || s[0] >= 'a' && s[0] <= 'f') {
			if word, rest, _ := strings.Cut(s, " "); h.Opcode == websocket.OpClose && word[0] != '"' {
				code, err := strconv.ParseUint(word, 10, 16)
				if err != nil {
					return nil, err
				}
				payload, s = binary.BigEndian.AppendUint16(nil, uint16(code)), rest
			}
			rest, err := parseBytes(s)
			if err != nil {
				return nil, err
			}
			payload = append(payload, rest...)
			break
		}
		var word string
		word, s, _ = strings.Cut(s, " ")
		bits, isRSV := strings.CutPrefix(word, "rsv=")
		number, isOpcode := strings.CutPrefix(word, "opcode=")
		op := slices.Index(opcodes, word)
		switch {
		case word == "masked":
			h.Masked, h.Key = true, 0x3d21fa37 // on the wire 37 fa 21 3d
		case word == "more":
			h.Fin = false
		case isRSV:
			n, err := strconv.ParseUint(bits, 2, 3)
			if err != nil {
				return nil, err
			}
			h.RSV = byte(n)
		case isOpcode:
			n, err := strconv.ParseUint(number, 10, 4)
			if err != nil {
				return nil, err
			}
			h.Opcode = websocket.Opcode(n)
		case op >= 0:
			h.Opcode = websocket.Opcode(op)
		default:
			return nil, fmt.Errorf("%q is no part of a frame", word)
		}
	}
	if h.Opcode == 255 {
		return nil, errors.New("frame without a name")
	}
	h.Len = int64(len(payload))
	websocket.Mask(payload, h.Key)
	return append(websocket.AppendHeader(nil, h), payload...), nil
}

// formatBytes writes bytes as strings where they can be read, else in
// hexadecimal.
func formatBytes(b []byte) string {
	const few = 3 // printable bytes in a row that are not worth a string
	if n := printable(b); n == len(b) {
		return strconv.Quote(string(b))
	}
	var s []string
	for len(b) > 0 {
		n := printable(b)
		if n > few {
			s, b = append(s, strconv.Quote(string(b[:n]))), b[n:]
			continue
		}
		for n < len(b) && printable(b[n:]) <= few {
			n++
		}
		s, b = append(s, hex.EncodeToString(b[:n])), b[n:]
	}
	return strings.Join(s, " ")
}

// printable returns how many bytes of b can be read.
func printable(b []byte) int {
	n := 0
	for n < len(b) && b[n] >= ' ' && b[n] <= '~' {
		n++
	}
	return n
}

// isHead tells whether b begins an HTTP message of a handshake.
func isHead(b []byte) bool {
	return bytes.HasPrefix(b, []byte("GET ")) || bytes.HasPrefix(b, []byte("HTTP/1."))
}

// An event is a line of a log.
type event struct {
	line int
	at   time.Duration
	verb string // "recv", "send", "close" ...
	data []byte
	word string // "EOF", "reset", "error"; "" if there is data
}

// parseLog reads a log.
func parseLog(log string) ([]event, error) {
	var all []event
	at := time.Duration(0)
	for i, line := range strings.Split(log, "\n") {
		e := event{line: i + 1}
		rest := strings.TrimSpace(line)
		if rest == "" || rest[0] == '#' {
			continue
		}
		word, tail, _ := strings.Cut(rest, " ")
		if d, err := time.ParseDuration(word); err == nil {
			at, rest = d, tail
		}
		e.at = at
		e.verb, rest, _ = strings.Cut(strings.TrimSpace(rest), " ")
		var err error
		switch e.verb {
		case "recv", "send":
			e.word, _, _ = strings.Cut(strings.TrimSpace(rest), " ")
			if slices.Contains([]string{"EOF", "reset", "error"}, e.word) {
				break
			}
			e.word = ""
			e.data, err = parseBytes(rest)
		case "close", "reset", "read-deadline", "write-deadline":
		default:
			err = fmt.Errorf("%q is no event", e.verb)
		}
		if err != nil {
			return nil, fmt.Errorf("wstest: line %d: %w", e.line, err)
		}
		all = append(all, e)
	}
	return all, nil
}

// parseBytes reads what formatBytes has written.
func parseBytes(s string) (b []byte, err error) {
	for s = strings.TrimSpace(s); s != "" && s[0] != '#'; s = strings.TrimSpace(s) {
		if s[0] == '"' {
			q, err := strconv.QuotedPrefix(s)
			if err != nil {
				return nil, fmt.Errorf("string %.20s: %w", s, err)
			}
			text, err := strconv.Unquote(q)
			if err != nil {
				return nil, fmt.Errorf("string %.20s: %w", s, err)
			}
			b, s = append(b, text...), s[len(q):]
			continue
		}
		if s[0] == '[' {
			n := frameEnd(s)
			if n < 0 {
				return nil, fmt.Errorf("frame %.20s has no end", s)
			}
			f, err := parseFrameText(s[1:n])
			if err != nil {
				return nil, err
			}
			b, s = append(b, f...), s[n+1:]
			continue
		}
		n := strings.IndexAny(s+" ", " \"#[")
		part, err := hex.DecodeString(s[:n])
		if err != nil {
			return nil, fmt.Errorf("bytes %.20s: %w", s, err)
		}
		b, s = append(b, part...), s[n:]
	}
	return b, nil
}

// frameEnd returns where the bracket is that ends the frame s begins with; -1 if
// there is none.
func frameEnd(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case ']':
			return i
		case '"':
			q, err := strconv.QuotedPrefix(s[i:])
			if err != nil {
				return -1
			}
			i += len(q) - 1
		}
	}
	return -1
}

// Replay plays a log over nc: it sends what the recorded side has read, at the
// same times, and compares what comes with what the recorded side has written. It
// is how a recording becomes a test of the program that was recorded:
//
//	a, b := wstest.NetPipe()
//	go program(a)
//	err := wstest.Replay(b, log)
//
// Frames are compared unmasked, whatever pieces they come in, and of a handshake
// that which is random is not compared: a recording of either side fits later
// runs. Deadlines and failed calls in the log are not compared. What has to come
// may be late by 10 s. The error says at which line of the log the
// program did something else first. Replay closes nc in the end.
func Replay(nc net.Conn, log string) error {
	defer nc.Close()
	return play(nc, log)
}

func play(nc net.Conn, log string) error {
	events, err := parseLog(log)
	if err != nil {
		return err
	}
	p := &player{nc: nc, start: time.Now()}
	for _, e := range events {
		if err := p.play(e); err != nil {
			return fmt.Errorf("wstest: line %d: %w", e.line, err)
		}
	}
	if err := p.compareRest(); err != nil {
		return fmt.Errorf("wstest: last line: %w", err)
	}
	return nil
}

// A player plays the other side of a log.
type player struct {
	nc    net.Conn
	start time.Time
	at    time.Duration // of the event that is played
	want  []byte        // what is yet to come, and is no whole frame so far
	key   string        // the Sec-WebSocket-Key of the live handshake
	ended bool          // there is nothing more to come
}

func (p *player) play(e event) error {
	p.at = e.at
	switch {
	case e.word == "error":
		return nil
	case e.verb == "recv":
		if d := e.at - time.Since(p.start); d > 0 {
			<-time.After(d)
		}
		switch e.word {
		case "EOF":
			if closeWrite(p.nc) != nil {
				p.nc.Close()
			}
			return nil
		case "reset":
			reset(p.nc)
			return nil
		}
		if _, err := p.nc.Write(p.answer(e.data)); err != nil {
			return fmt.Errorf("cannot be sent: %w", err)
		}
		return nil
	case e.verb == "send" && e.word == "":
		p.want = append(p.want, e.data...)
		return p.compare()
	case e.verb == "send", e.verb == "close", e.verb == "reset":
		return p.end()
	}
	return nil
}

// compare reads as much as is known to come whole.
func (p *player) compare() error {
	for len(p.want) > 0 {
		if isHead(p.want) {
			n := bytes.Index(p.want, []byte("\r\n\r\n")) + 4
			if n < 4 {
				return nil
			}
			got, err := readHead(p.wait())
			if err != nil {
				return fmt.Errorf("expected %q: %w", p.want[:n], err)
			}
			if err := p.compareHeads(string(p.want[:n]), string(got)); err != nil {
				return err
			}
			p.want = p.want[n:]
			continue
		}
		h, n := websocket.ParseHeader(p.want)
		if n < 0 {
			return p.compareRest()
		}
		if n == 0 || int64(len(p.want)-n) < h.Len {
			return nil
		}
		want, masked := parseFrame(p.want[:n+int(h.Len)])
		b, err := readFrame(p.wait())
		if err != nil {
			return fmt.Errorf("expected %v: %w", want, err)
		}
		got, also := parseFrame(b)
		switch {
		case got != want:
			return fmt.Errorf("expected %v, not %v", want, got)
		case masked != also:
			return fmt.Errorf("expected another masking of %v", want)
		}
		p.want = p.want[n+int(h.Len):]
	}
	return nil
}

// compareRest reads what is no whole frame.
func (p *player) compareRest() error {
	got := make([]byte, len(p.want))
	n, err := io.ReadFull(p.wait(), got)
	switch {
	case err != nil:
		return fmt.Errorf("expected % x, not % x: %w", p.want, got[:n], err)
	case !bytes.Equal(got, p.want):
		return fmt.Errorf("expected % x, not % x", p.want, got)
	}
	p.want = nil
	return nil
}

// end reads the end of what the program has to say.
func (p *player) end() error {
	if err := p.compareRest(); err != nil {
		return err
	}
	if p.ended {
		return nil
	}
	p.ended = true
	var b [1]byte
	n, err := p.wait().Read(b[:])
	switch {
	case n > 0:
		return fmt.Errorf("expected the end, not the byte %#x", b[0])
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("expected the end: %w", err)
	}
	return nil
}

// wait returns the net.Conn with a deadline.
func (p *player) wait() net.Conn {
	by := time.Now()
	if due := p.start.Add(p.at); due.After(by) {
		by = due
	}
	p.nc.SetReadDeadline(by.Add(10 * time.Second))
	return p.nc
}

// compareHeads compares two HTTP messages, but for what is random in the first
// and for the order of fields.
func (p *player) compareHeads(want, got string) error {
	p.key, _ = field(got, "Sec-WebSocket-Key")
	w, g := headLines(want), headLines(got)
	for _, line := range w {
		if !slices.Contains(g, line) {
			return fmt.Errorf("expected %q in %q", line, got)
		}
	}
	for _, line := range g {
		if !slices.Contains(w, line) {
			return fmt.Errorf("expected no %q", line)
		}
	}
	return nil
}

// headLines returns the lines of an HTTP message without what differs from run to
// run.
func headLines(head string) []string {
	lines := strings.Split(strings.TrimSuffix(head, "\r\n\r\n"), "\r\n")
	return slices.DeleteFunc(lines, func(s string) bool {
		name, _, _ := strings.Cut(strings.ToLower(s), ":")
		return name == "sec-websocket-key" || name == "date"
	})
}

// field returns the value of a field, and where it stands.
func field(head, name string) (value string, at int) {
	at = strings.Index(strings.ToLower(head), "\r\n"+strings.ToLower(name)+":")
	if at < 0 {
		return "", at
	}
	at += len("\r\n" + name + ":")
	value, _, _ = strings.Cut(head[at:], "\r\n")
	return strings.TrimSpace(value), at
}

// answer makes a recorded response fit the live request.
func (p *player) answer(b []byte) []byte {
	if p.key == "" || !bytes.HasPrefix(b, []byte("HTTP/1.")) {
		return b
	}
	head, rest, _ := strings.Cut(string(b), "\r\n\r\n")
	if old, _ := field(head, "Sec-WebSocket-Accept"); old != "" {
		head = strings.Replace(head, old, websocket.AcceptKey(p.key), 1)
	}
	return []byte(head + "\r\n\r\n" + rest)
}

// Play plays a log, which may be written by hand, as Replay does: the Peer is the
// other side of it. The connection is left as the log leaves it.
func (p *Peer) Play(log string) {
	p.t.Helper()
	if err := play(p.Conn, log); err != nil {
		p.t.Fatalf("%v", err)
	}
}
