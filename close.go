package websocket

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// close.go owns the ways in which a connection ends: close codes, errors, the
// closing handshake.

// A CloseCode says why a connection was closed (RFC 6455 section 7.4).
type CloseCode uint16

// The close codes of the IANA registry. Applications choose theirs from 4000 to
// 4999; 3000 to 3999 are registered by libraries and frameworks.
const (
	CloseNormalClosure           CloseCode = 1000 // done
	CloseGoingAway               CloseCode = 1001 // the server shuts down, or the page is left
	CloseProtocolError           CloseCode = 1002
	CloseUnsupportedData         CloseCode = 1003 // for example binary where only text is understood
	CloseReserved                CloseCode = 1004 // never sent
	CloseNoStatusReceived        CloseCode = 1005 // never sent: the close frame had no code
	CloseAbnormalClosure         CloseCode = 1006 // never sent: there was no close frame
	CloseInvalidFramePayloadData CloseCode = 1007 // for example text that is not UTF-8
	ClosePolicyViolation         CloseCode = 1008
	CloseMessageTooBig           CloseCode = 1009
	CloseMandatoryExtension      CloseCode = 1010 // sent by clients only
	CloseInternalError           CloseCode = 1011
	CloseServiceRestart          CloseCode = 1012
	CloseTryAgainLater           CloseCode = 1013
	CloseBadGateway              CloseCode = 1014
	CloseTLSHandshake            CloseCode = 1015 // never sent: TLS failed
)

var closeNames = [...]string{
	"normal closure", "going away", "protocol error", "unsupported data", "reserved", "no status received",
	"abnormal closure", "invalid frame payload data", "policy violation", "message too big", "mandatory extension",
	"internal error", "service restart", "try again later", "bad gateway", "TLS handshake",
}

// String returns the number and, for registered codes, the name:
// "1001 going away".
func (c CloseCode) String() string {
	s := strconv.Itoa(int(c))
	if i := int(c) - int(CloseNormalClosure); i >= 0 && i < len(closeNames) {
		s += " " + closeNames[i]
	}
	return s
}

// onWire tells whether a close frame may carry c (RFC 6455 section 7.4, and the
// codes registered with IANA since).
func (c CloseCode) onWire() bool {
	switch c {
	case CloseReserved, CloseNoStatusReceived, CloseAbnormalClosure:
		return false
	}
	return c >= CloseNormalClosure && c <= CloseBadGateway || c >= 3000 && c <= 4999
}

// A CloseError says that the peer closed the connection.
type CloseError struct {
	Code   CloseCode // CloseNoStatusReceived if the peer gave none
	Reason string    // up to 123 bytes of UTF-8 that the peer chose
}

func (e *CloseError) Error() string {
	return "websocket: closed by the peer: " + e.Code.String() + quoted(e.Reason)
}

// A ProtocolError says that the peer broke the rules or a limit, and that the
// connection was ended for it.
type ProtocolError struct {
	Code   CloseCode // what the peer was sent
	Reason string
}

func (e *ProtocolError) Error() string {
	return "websocket: peer failed: " + e.Code.String() + ": " + e.Reason
}

// A HandshakeError says why a connection was not made.
type HandshakeError struct {
	Status   int            // server: what the client was answered; client: what the server answered, 0 if the answer was no answer
	Reason   string         // a fixed text, followed by what the peer sent where that helps
	Response *http.Response // client only: the answer, with up to 1 KiB of its body; nil if there was none
}

func (e *HandshakeError) Error() string {
	s := "websocket: handshake failed: " + e.Reason
	if e.Status != 0 {
		s += " (" + strconv.Itoa(e.Status) + ")"
	}
	return s
}

// The errors that are nobody's fault in particular. An error that wraps
// net.ErrClosed says that this side closed the connection; io.ErrUnexpectedEOF,
// that the peer went without saying goodbye. Others are the network's or a
// context's own.
var (
	// ErrQueueFull says that Config.QueueLimit bytes wait to be sent, and that
	// the message was not taken.
	ErrQueueFull = errors.New("websocket: send queue is full")
	// ErrPeerTimeout says that the peer did not answer a ping in time.
	ErrPeerTimeout = errors.New("websocket: peer timed out")
)

var (
	errType      = errors.New("websocket: a message is MessageText or MessageBinary")
	errText      = errors.New("websocket: a text message must be valid UTF-8")
	errReaders   = errors.New("websocket: two goroutines read at the same time")
	errStale     = errors.New("websocket: the message was left for a later one")
	errCloseSlow = fmt.Errorf("websocket: the peer did not answer the close frame: %w", os.ErrDeadlineExceeded)

	errStalled     = &ProtocolError{ClosePolicyViolation, "pause inside a message"}
	errClosePart   = &ProtocolError{CloseProtocolError, "close frame with half a code"}
	errCloseCode   = &ProtocolError{CloseProtocolError, "close code that must not be sent"}
	errCloseReason = &ProtocolError{CloseInvalidFramePayloadData, "close reason that is not UTF-8"}
)

// closedError says that this side closed the connection.
type closedError struct {
	code   CloseCode
	reason string
}

func (e *closedError) Error() string {
	return "websocket: closed by this side: " + e.code.String() + quoted(e.reason)
}

func (e *closedError) Is(target error) bool { return target == net.ErrClosed }

// panicError says that a handler panicked, with the stack in its text so that
// whoever logs the error logs where.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string {
	return fmt.Sprintf("websocket: handler panicked: %v\n\n%s", e.value, e.stack)
}

// quoted escapes what a peer chose, for error texts.
func quoted(s string) string {
	const most = 160
	if s == "" {
		return ""
	}
	return " " + excerpt(s, most)
}

// CodeOf returns the close code that err stands for: the peer's, ours, or
// CloseAbnormalClosure if there was no close frame. It is 0 for a nil err.
func CodeOf(err error) CloseCode {
	var peer *CloseError
	var rule *ProtocolError
	var own *closedError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &peer):
		return peer.Code
	case errors.As(err, &rule):
		return rule.Code
	case errors.As(err, &own):
		return own.code
	}
	return CloseAbnormalClosure
}

// parseClose reads the payload of a close frame (RFC 6455 sections 5.5.1 and
// 7.1.5).
func parseClose(p []byte) (*CloseError, error) {
	switch {
	case len(p) == 0:
		return &CloseError{Code: CloseNoStatusReceived}, nil
	case len(p) == 1:
		return nil, errClosePart
	}
	code := CloseCode(binary.BigEndian.Uint16(p))
	switch {
	case !code.onWire():
		return nil, errCloseCode
	case !validText(p[2:]):
		return nil, errCloseReason
	}
	return &CloseError{Code: code, Reason: string(p[2:])}, nil
}

// appendClose appends the payload of a close frame. CloseNoStatusReceived makes
// an empty one; a reason is cut to what fits, between two characters.
func appendClose(b []byte, code CloseCode, reason string) []byte {
	if code == CloseNoStatusReceived {
		return b
	}
	b = binary.BigEndian.AppendUint16(b, uint16(code))
	reason = strings.ToValidUTF8(reason, "\uFFFD")
	if most := maxControl - 2; len(reason) > most {
		for most > 0 && !utf8.RuneStart(reason[most]) {
			most--
		}
		reason = reason[:most]
	}
	return append(b, reason...)
}

const (
	lastWords = time.Second // how long a close frame for a broken rule may take to leave
	linger    = time.Second // how long TCP is kept so that a reset does not overtake the close frame
	lingerMax = 16 << 20    // and how many bytes are thrown away meanwhile
)

// Close closes the connection with the closing handshake of RFC 6455 section 7:
// it sends a close frame behind everything that was queued, waits for the
// peer's, reading and discarding what comes before it if no other goroutine
// reads or its context ends, and closes the transport. It returns nil if the peer answered, and
// never waits longer than Config.CloseTimeout. While a callback of [Handler]
// runs it does not wait: Serve, or whoever calls Feed, completes it.
//
// The code may be 1000 to 1003, 1007 to 1014 (1010 for clients only), or 3000 to
// 4999; CloseNoStatusReceived sends a close frame without a code. With any other
// the peer is sent CloseInternalError, and Close returns an error that says so.
// A reason longer than 123 bytes is cut, and what is not UTF-8 in it replaced.
//
// Close is idempotent and may be called from any goroutine. Afterwards other
// calls return an error that wraps net.ErrClosed.
func (c *Conn) Close(code CloseCode, reason string) error {
	var misuse error
	if !code.onWire() && code != CloseNoStatusReceived || code == CloseMandatoryExtension && !c.machine.client {
		misuse = fmt.Errorf("websocket: close code %v must not be sent", code)
		code, reason = CloseInternalError, ""
	}
	c.sayGoodbye(code, reason)
	if c.calling.Load() || c.fed.Load() {
		return misuse
	}
	if err := c.awaitGoodbye(); misuse == nil {
		return err
	}
	return misuse
}

// sayGoodbye begins the closing handshake, unless something else has ended the
// connection.
func (c *Conn) sayGoodbye(code CloseCode, reason string) {
	if c.over.Load() {
		return
	}
	if c.out.goodbye(code, reason, &closedError{code, reason}) {
		c.endAfter(c.out.on.profile.closeTimeout, errCloseSlow)
		c.kick()
	}
}

// endAfter ends the connection after d, if it has not ended by then.
func (c *Conn) endAfter(d time.Duration, why error) {
	if d <= 0 {
		return
	}
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	if c.out.closing != nil {
		c.out.closing.Stop()
	}
	c.out.ends().closing = time.AfterFunc(d, func() { c.end(why) })
}

// awaitGoodbye returns when the connection has ended: with nil if there was a
// closing handshake.
func (c *Conn) awaitGoodbye() error {
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.ends().deserted = true; !o.cut; {
		if o.deserted {
			o.deserted = false
			o.mu.Unlock()
			c.discard()
			o.mu.Lock()
			continue
		}
		o.wait(context.Background())
	}
	if o.answered || o.why == net.ErrClosed {
		return nil
	}
	return o.why
}

// discard reads until the connection ends, if nobody else reads. What Next lent
// stays untouched.
func (c *Conn) discard() {
	if !c.reading.CompareAndSwap(false, true) {
		return
	}
	defer c.leave()
	c.in, c.msg, c.whole = nil, nil, false
	c.lent.forget()
	for !c.over.Load() {
		if _, err := c.step(); err != nil {
			return
		}
		if len(c.rest) == 0 && c.fill(context.Background()) != nil {
			return
		}
	}
}

// CloseNow closes the transport at once, without a closing handshake. It is
// idempotent, may be called from any goroutine, and interrupts every other call.
func (c *Conn) CloseNow() error {
	c.end(net.ErrClosed)
	return nil
}

// fail ends the connection because the peer broke a rule (RFC 6455 section
// 7.1.7). It returns the error that all later calls return.
func (c *Conn) fail(rule *ProtocolError) error {
	return c.finish(rule.Code, rule.Reason, rule)
}

// goodbye handles a close frame (RFC 6455 section 5.5.1): it is answered unless
// it is the answer itself.
func (c *Conn) goodbye(p []byte) error {
	e, err := parseClose(p)
	if err != nil {
		return c.fail(err.(*ProtocolError))
	}
	c.out.mu.Lock()
	c.out.ends().answered = true
	c.out.mu.Unlock()
	return c.finish(e.Code, "", e)
}

// finish sends a close frame if none was sent, gives it a moment to leave, and
// closes the transport.
func (c *Conn) finish(code CloseCode, reason string, cause error) error {
	c.out.goodbye(code, reason, cause)
	ctx, cancel := context.WithTimeout(context.Background(), lastWords)
	c.out.flush(ctx)
	c.out.watch.disarm() // else the deadline that cancel sets meets the goodbye of TLS
	cancel()
	if c.fed.Load() { // whoever drives the transport may still flush
		c.over.Store(true)
		c.halfClose()
		c.endAfter(linger, cause)
		return c.reason()
	}
	c.hangUp()
	return c.end(cause)
}

// hangUp lets the peer read the close frame before TCP goes: the server half
// closes, the client waits for that (RFC 6455 section 7.1.1), and both throw
// away what still comes, for unread input would make the kernel send a reset,
// which may overtake the close frame.
func (c *Conn) hangUp() {
	if !c.machine.client && !c.halfClose() {
		return
	}
	c.dropInput()
	b := borrow(64 << 10)
	defer b.release()
	by := time.Now().Add(linger)
	for n, left := 0, lingerMax; left > 0; left -= n {
		d := time.Until(by)
		if d <= 0 {
			break
		}
		c.watch.arm(context.Background(), d)
		var err error
		if n, err = c.out.on.nc.Read(b.b[:cap(b.b)]); err != nil {
			break
		}
	}
	c.halfClose() // a client's TLS says goodbye too
}

// halfClose tells the peer that nothing follows, if the transport can.
func (c *Conn) halfClose() bool {
	h, ok := c.out.on.nc.(interface{ CloseWrite() error })
	return ok && h.CloseWrite() == nil
}
