package websocket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"time"
)

// dial.go owns the client's half of making a connection, on top of an
// http.Client: proxies, cookies, TLS and redirects are its business.

// DialOptions configure [Dial]. A nil pointer and the zero value are the safe
// defaults. They may be shared by any number of calls, and must not be changed
// meanwhile.
type DialOptions struct {
	// Client makes the request; nil means http.DefaultClient. Its Timeout, like
	// the context of Dial, ends the handshake only. Redirects are followed as
	// it is set up to, but never from wss to ws.
	Client *http.Client
	// Subprotocols are offered to the server in this order.
	Subprotocols []string
	// Header is sent with the request. "Host" in it sets the host.
	Header http.Header
	// OnResponse is called with the server's answer, whether or not it
	// completes the handshake, with up to 1 KiB of the body if it does not.
	OnResponse func(*http.Response)
	// Config holds the connection's limits.
	Config Config
}

// maxRefusal is how much of the body of a refusal is kept, in bytes.
const maxRefusal = 1 << 10

// Dial makes a WebSocket connection (RFC 6455 section 4.1) to a ws or wss URL;
// http and https are taken for them. The end of ctx ends the handshake, and
// nothing after it; a ctx without a deadline is given one of 10 s.
//
// An answer that does not complete the handshake is a [*HandshakeError] with the
// response in it; other errors are the network's or the context's.
func Dial(ctx context.Context, url string, o *DialOptions) (*Conn, error) {
	if o == nil {
		o = new(DialOptions)
	}
	ctx, cancel := o.limit(ctx)
	defer cancel()
	var nc net.Conn
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(i httptrace.GotConnInfo) { nc = i.Conn }, // of the last hop, in the end
	})
	r, key, err := o.request(ctx, url)
	if err != nil {
		return nil, err
	}
	resp, err := o.client().Do(r)
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("websocket: handshake cut short: %w", context.Cause(ctx))
		}
		return nil, err
	}
	if e := checkResponse(resp, key, o.Subprotocols); e != nil {
		return nil, o.refused(resp, e)
	}
	body, ok := resp.Body.(io.Reader)
	if !ok || nc == nil {
		resp.Body.Close()
		return nil, errors.New("websocket: the http.Client's transport hides its connection from net/http/httptrace")
	}
	if o.OnResponse != nil {
		o.OnResponse(resp)
	}
	early, err := readEarly(nc, body)
	if err != nil {
		resp.Body.Close()
		return nil, err
	}
	if len(early) > 0 {
		nc = &earlyConn{nc, early}
	}
	return NewConn(nc, Params{Client: true, Subprotocol: only(resp.Header[hProtocol]), Config: o.Config}), nil
}

// limit gives the handshake a deadline.
func (o *DialOptions) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	d := handshakeTimeout
	if _, ok := ctx.Deadline(); ok {
		d = 0
	}
	if o.Client != nil && o.Client.Timeout > 0 && (d == 0 || o.Client.Timeout < d) {
		d = o.Client.Timeout
	}
	if d == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, d)
}

// request makes the request, or says what is wrong with the options.
func (o *DialOptions) request(ctx context.Context, s string) (*http.Request, string, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, "", fmt.Errorf("websocket: %w", err)
	}
	toHTTP(u)
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, "", fmt.Errorf("websocket: URL scheme %q is not ws or wss", u.Scheme)
	case u.Host == "":
		return nil, "", errors.New("websocket: URL without a host")
	case u.Fragment != "": // RFC 6455 section 3
		return nil, "", errors.New("websocket: URL with a fragment")
	case !checkSubprotocols(o.Subprotocols):
		return nil, "", fmt.Errorf("websocket: DialOptions.Subprotocols are no distinct tokens: %q", o.Subprotocols)
	}
	if field, ok := checkHeader(o.Header); !ok {
		return nil, "", fmt.Errorf("websocket: DialOptions.Header cannot be sent: %q", field)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, "", fmt.Errorf("websocket: %w", err)
	}
	for name, values := range o.Header {
		r.Header[name] = values
	}
	if host := r.Header.Get("Host"); host != "" {
		r.Host = host
		r.Header.Del("Host")
	}
	key := newHandshakeKey()
	requestHeader(r.Header, key, o.Subprotocols)
	return r, key, nil
}

// toHTTP replaces ws and wss by the schemes that http.Client knows.
func toHTTP(u *url.URL) {
	switch u.Scheme {
	case "ws":
		u.Scheme = "http"
	case "wss":
		u.Scheme = "https"
	}
}

// client returns the caller's client, without its timeout, which would go on
// after the handshake, and with redirects that may lead to ws and wss.
func (o *DialOptions) client() *http.Client {
	c := http.DefaultClient
	if o.Client != nil {
		c = o.Client
	}
	own := *c
	own.Timeout = 0
	own.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		toHTTP(r.URL)
		if r.URL.Scheme == "http" && via[len(via)-1].URL.Scheme == "https" {
			return errors.New("websocket: redirected from wss to ws")
		}
		if c.CheckRedirect != nil {
			return c.CheckRedirect(r, via)
		}
		if len(via) >= 10 {
			return errors.New("websocket: more than 10 redirects")
		}
		return nil
	}
	return &own
}

// refused keeps the beginning of the body and lets go of the rest.
func (o *DialOptions) refused(resp *http.Response, e *HandshakeError) error {
	var b []byte
	if resp.StatusCode != http.StatusSwitchingProtocols { // else the body is the connection
		b, _ = io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	}
	resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(b))
	e.Response = resp
	if o.OnResponse != nil {
		o.OnResponse(resp)
	}
	return e
}

// readEarly returns the input that came along with the response and lies in
// net/http's buffer: what can be read when the network cannot.
func readEarly(nc net.Conn, body io.Reader) ([]byte, error) {
	if err := nc.SetReadDeadline(aLongTimeAgo); err != nil {
		return nil, err
	}
	var early []byte
	b := borrow(minRead)
	defer b.release()
	for {
		n, err := body.Read(b.b[:cap(b.b)])
		early = append(early, b.b[:n]...)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return early, nc.SetReadDeadline(time.Time{})
		}
		if err != nil {
			return nil, err
		}
	}
}
