package websocket

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"time"
)

// accept.go owns the server's half of making a connection: taking it over from
// net/http. Who may is in origin.go.

// AcceptOptions configure [Accept], [Upgrade] and [Server]. A nil pointer and
// the zero value are the safe defaults. They may be shared by any number of
// calls, and must not be changed meanwhile.
type AcceptOptions struct {
	// Subprotocols are the names that this server speaks, the preferred first.
	// The first that the client offers is agreed on; if there is none, the
	// connection is made without.
	Subprotocols []string
	// Origins are the web pages that may connect, besides those of the
	// request's own host and port: "example.com" (http or https, on its default
	// port), "example.com:8080", "*.example.com" (any depth of subdomain, not
	// example.com itself), "https://example.com", "https://*.example.com", or
	// "*" for all. Other schemes, as of apps, have to be named: "app://home".
	// Clients that send no Origin are no browsers, and are let in.
	Origins []string
	// Header is sent with the answer, besides what w.Header() holds.
	Header http.Header
	// Compression, if it is not nil, is asked for each request instead of
	// Config.Compression; it returns nil for clients that had better be spared.
	Compression func(r *http.Request) *Compression
	// Config holds the connection's limits.
	Config Config
}

// handshakeTimeout is how long a handshake may take.
const handshakeTimeout = 10 * time.Second

// Accept upgrades an HTTP request to a WebSocket connection (RFC 6455 section
// 4.2). It is called by an HTTP handler that has written nothing. When it fails,
// it has answered r with the status in the [*HandshakeError], and the handler
// just returns.
//
// A web page of another host is refused with 403, since browsers would let it
// act with the cookies of its visitor: see AcceptOptions.Origins.
//
// The connection is served by the handler that called Accept, or by another
// goroutine: when the handler returns, it lives on. The request's context ends
// with the handler, that of the connection does not: see [Conn.Context].
func Accept(w http.ResponseWriter, r *http.Request, o *AcceptOptions) (*Conn, error) {
	nc, p, err := Upgrade(w, r, o)
	if err != nil {
		return nil, err
	}
	return NewConn(nc, p), nil
}

// Upgrade is the first half of Accept, for those who bring their own I/O: it
// takes the network connection over from net/http and completes the handshake.
// Accept then calls [NewConn] with what it returned. Input that came along with
// the request is the first that the net.Conn yields; if there is some, its method
// Early() (net.Conn, []byte) returns the connection without it, and it.
func Upgrade(w http.ResponseWriter, r *http.Request, o *AcceptOptions) (net.Conn, Params, error) {
	if o == nil {
		o = new(AcceptOptions)
	}
	if begun(w) {
		return nil, Params{}, internal("the response has been begun already")
	}
	if !o.originAllowed(r) { // before anything else happens
		refuse(w, r, &HandshakeError{Status: http.StatusForbidden, Reason: badOrigin})
		return nil, Params{}, &HandshakeError{Status: http.StatusForbidden, Reason: badOrigin + received(r.Header["Origin"])}
	}
	if e := checkRequest(r); e != nil {
		return nil, Params{}, refuse(w, r, e)
	}
	extra := passedOn(w.Header())
	if e := o.check(extra); e != nil {
		return nil, Params{}, refuse(w, r, e)
	}
	p, ext := o.agree(r)
	nc, early, err := hijack(w)
	if err != nil {
		return nil, Params{}, notHijacked(w, r, err)
	}
	b := borrow(minRead)
	b.b = appendResponse(b.b, r.Header[hKey][0], p.Subprotocol, ext, extra, o.Header)
	err = answer(nc, b.b)
	b.release()
	if err != nil {
		return nil, Params{}, err
	}
	if len(early) > 0 {
		nc = &earlyConn{nc, early}
	}
	return nc, p, nil
}

// agree chooses the subprotocol and the extensions, and returns the header that
// tells of the latter (RFC 6455 section 4.2.2).
func (o *AcceptOptions) agree(r *http.Request) (p Params, ext http.Header) {
	p = Params{Subprotocol: selectSubprotocol(o.Subprotocols, r.Header[hProtocol]), Config: o.Config}
	if o.Compression != nil {
		p.Config.Compression = o.Compression(r)
	}
	if z := p.Config.Compression; z != nil {
		if t, ok := z.withDefaults().agree(r.Header); ok {
			p.Extensions = t.String()
			ext = http.Header{"Sec-WebSocket-Extensions": {p.Extensions}}
		}
	}
	return p, ext
}

const badOrigin = "origin not allowed"

// check tells what is wrong with the server's side of a handshake.
func (o *AcceptOptions) check(extra http.Header) *HandshakeError {
	if !checkSubprotocols(o.Subprotocols) {
		return internal("AcceptOptions.Subprotocols are no distinct tokens: %q", o.Subprotocols)
	}
	if field, ok := checkHeader(o.Header); !ok {
		return internal("AcceptOptions.Header cannot be sent: %q", field)
	}
	if field, ok := checkFields(extra); !ok {
		return internal("the ResponseWriter's Header cannot be sent: %q", field)
	}
	return nil
}

// internal is an error of the server's own, which the client is not told.
func internal(format string, a ...any) *HandshakeError {
	return &HandshakeError{Status: http.StatusInternalServerError, Reason: fmt.Sprintf(format, a...)}
}

// passedOn is what handlers around this one have set, less what the handshake
// itself sets.
func passedOn(h http.Header) http.Header {
	if len(h) == 0 {
		return nil
	}
	h = h.Clone()
	for name := range h {
		if ownField(name) || strings.HasPrefix(name, http.TrailerPrefix) {
			delete(h, name)
		}
	}
	return h
}

// refuse answers with e's status. The HTTP connection ends with it: what the
// client sends next may be no HTTP.
func refuse(w http.ResponseWriter, r *http.Request, e *HandshakeError) error {
	h := w.Header()
	if r.ProtoMajor < 2 {
		h.Set("Connection", "close")
	}
	text := e.Reason
	switch e.Status {
	case http.StatusMethodNotAllowed:
		h.Set("Allow", http.MethodGet)
	case http.StatusUpgradeRequired: // RFC 9110 section 15.5.22, RFC 6455 section 4.4
		h.Add("Connection", "Upgrade")
		h.Set("Upgrade", "websocket")
		h.Set("Sec-WebSocket-Version", version)
	case http.StatusInternalServerError:
		text = http.StatusText(e.Status) // the reason is for the server's owner
	}
	http.Error(w, text, e.Status)
	return e
}

var errHijackPanic = errors.New("the handler has returned")

// hijack takes the connection from net/http, with the input that it has read
// already. Its buffers are left to the garbage collector.
func hijack(w http.ResponseWriter) (nc net.Conn, early []byte, err error) {
	defer func() {
		if v := recover(); v != nil { // net/http does so after the handler's end
			nc, err = nil, errHijackPanic
		}
	}()
	nc, rw, err := http.NewResponseController(w).Hijack()
	if err != nil || nc == nil {
		return nil, nil, cmp.Or(err, errors.New("no connection"))
	}
	if rw == nil || rw.Reader == nil {
		return nc, nil, nil
	}
	if n := rw.Reader.Buffered(); n > 0 {
		early = make([]byte, n)
		rw.Reader.Read(early)
	}
	return nc, early, nil
}

// notHijacked reports why the connection could not be taken over, and answers
// unless there is nothing left to answer on.
func notHijacked(w http.ResponseWriter, r *http.Request, err error) error {
	e := internal("%T does not let go of the connection: %v", innermost(w), err)
	if errors.Is(err, http.ErrHijacked) || err == errHijackPanic {
		return e
	}
	return refuse(w, r, e)
}

// innermost returns the ResponseWriter that has the last word, as
// http.ResponseController finds it.
func innermost(w http.ResponseWriter) http.ResponseWriter {
	for {
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return w
		}
		w = u.Unwrap()
	}
}

// begun tells whether a response was begun. net/http would let go of the
// connection all the same, and the client would find a 101 in the body of a 200.
// It has no method to ask, so this looks at its field; if that is renamed one
// day, a test fails.
func begun(w http.ResponseWriter) bool {
	v := reflect.ValueOf(innermost(w))
	if !v.IsValid() {
		return false
	}
	index, ok := wroteHeader.Load(v.Type())
	if !ok {
		index = []int(nil)
		if t := v.Type(); t.String() == "*http.response" {
			if f, ok := t.Elem().FieldByName("wroteHeader"); ok && f.Type.Kind() == reflect.Bool {
				index = f.Index
			}
		}
		wroteHeader.Store(v.Type(), index)
	}
	i := index.([]int)
	return i != nil && v.Elem().FieldByIndex(i).Bool()
}

// wroteHeader is where that field is, by type; nil where there is none.
var wroteHeader sync.Map

// answer writes the response, or closes nc.
func answer(nc net.Conn, response []byte) error {
	nc.SetWriteDeadline(time.Now().Add(handshakeTimeout))
	if _, err := nc.Write(response); err != nil {
		closeTransport(nc)
		return fmt.Errorf("websocket: handshake not answered: %w", err)
	}
	nc.SetDeadline(time.Time{})
	return nil
}

// An earlyConn yields input that came along with the request.
type earlyConn struct {
	net.Conn
	early []byte
}

func (c *earlyConn) Read(p []byte) (int, error) {
	if len(c.early) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.early)
	c.early = c.early[n:]
	return n, nil
}

// NetConn returns the connection itself.
func (c *earlyConn) NetConn() net.Conn { return c.Conn }

// Early returns the connection itself, and the input.
func (c *earlyConn) Early() (net.Conn, []byte) { return c.Conn, c.early }
