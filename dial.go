package websocket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"time"
)

// dial.go owns the client's half of making a connection, on top of an
// http.Client: cookies, TLS, redirects and most of proxies are its business.

// DialOptions configure [Dial]. A nil pointer and the zero value are the safe
// defaults. They may be shared by any number of calls, and must not be changed
// meanwhile.
type DialOptions struct {
	// Client makes the request; nil means http.DefaultClient. Its Timeout, like
	// the context of Dial, ends the handshake only. Redirects are followed as
	// it is set up to, but never from wss to ws, and credentials in Header go
	// to the first host only. Of an http.Transport a copy is used, which speaks
	// HTTP/1.1 and takes no header larger than 64 KiB unless
	// MaxResponseHeaderBytes says otherwise. Any other RoundTripper must pass
	// on the response of one, and its trace.
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

const (
	maxRefusal   = 1 << 10     // how much of the body of a refusal is kept, in bytes
	refusalPause = time.Second // and how long it may take
)

// Dial makes a WebSocket connection (RFC 6455 section 4.1) to a ws or wss URL;
// http and https are taken for them. The end of ctx ends the handshake, and
// nothing after it; without a deadline in ctx or Client.Timeout a handshake may
// take 10 s.
//
// An answer that does not complete the handshake is a [*HandshakeError] with the
// response in it; other errors are the network's or the context's.
func Dial(ctx context.Context, url string, o *DialOptions) (*Conn, error) {
	if o == nil {
		o = new(DialOptions)
	}
	a := &attempt{DialOptions: o, client: http.DefaultClient}
	if o.Client != nil {
		a.client = o.Client
	}
	ctx, a.cancel = a.limit(ctx)
	defer a.cancel()
	r, err := a.request(ctx, url)
	if err != nil {
		return nil, err
	}
	resp, err := a.http().Do(r)
	if err != nil {
		return nil, a.failed(ctx, resp, err)
	}
	if e := checkResponse(resp, a.key, o.Subprotocols, o.Config.Compression); e != nil {
		return nil, a.refused(resp, e)
	}
	nc, err := a.take(resp.Body)
	if err != nil {
		resp.Body.Close()
		return nil, err
	}
	if o.OnResponse != nil {
		o.OnResponse(withoutBody(resp))
	}
	p := Params{Client: true, Subprotocol: only(resp.Header[hProtocol]), Config: o.Config}
	if len(resp.Header[hExtensions]) > 0 {
		t, _ := o.Config.Compression.withDefaults().accept(resp.Header)
		p.Extensions = t.String()
	}
	return NewConn(nc, p), nil
}

// An attempt is one call of Dial.
type attempt struct {
	*DialOptions
	client *http.Client
	cancel context.CancelFunc
	key    string // of the last request

	mu sync.Mutex // transports may trace from any goroutine
	nc net.Conn   // of the last request
}

// limit gives the handshake a deadline.
func (a *attempt) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	if d := a.client.Timeout; d > 0 {
		return context.WithTimeout(ctx, d)
	}
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, handshakeTimeout)
}

// request makes the first request, or says what is wrong with the options.
func (a *attempt) request(ctx context.Context, s string) (*http.Request, error) {
	u, err := parseURL(s)
	if err != nil {
		return nil, err
	}
	if !checkSubprotocols(a.Subprotocols) {
		return nil, fmt.Errorf("websocket: DialOptions.Subprotocols are no distinct tokens: %q", a.Subprotocols)
	}
	if field, ok := checkHeader(a.Header); !ok {
		return nil, fmt.Errorf("websocket: DialOptions.Header cannot be sent: %q", field)
	}
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: a.gotConn})
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("websocket: %w", err)
	}
	for name, values := range a.Header {
		name = http.CanonicalHeaderKey(name)
		r.Header[name] = append(r.Header[name], values...)
	}
	if host, ok := r.Header["Host"]; ok {
		if !validHost(only(host)) {
			return nil, fmt.Errorf("websocket: DialOptions.Header cannot be sent: Host %q", host)
		}
		r.Host = host[0]
		delete(r.Header, "Host")
	}
	a.key = newHandshakeKey()
	requestHeader(r.Header, a.key, a.Subprotocols, a.Config.Compression)
	return r, nil
}

// parseURL reads a WebSocket URL (RFC 6455 section 3) and returns the HTTP URL
// that is asked.
func parseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		var e *url.Error // it has the whole URL, where there may be a password
		if errors.As(err, &e) {
			err = e.Err
		}
		return nil, fmt.Errorf("websocket: URL: %w", err)
	case strings.ContainsAny(s, " #"): // no white space, no fragment
		return nil, errors.New("websocket: URL with a space or a fragment")
	}
	toHTTP(u)
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("websocket: URL scheme %q is not ws or wss", u.Scheme)
	case u.Host == "":
		return nil, errors.New("websocket: URL without a host")
	case isASCII(u.Host) && !validHost(u.Host): // else http.Transport makes Punycode of it
		return nil, fmt.Errorf("websocket: URL host %q", u.Host)
	}
	return u, nil
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r > 0x7f }) < 0
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

// http returns the client that makes the requests: the caller's, without its
// timeout, which would go on after the handshake.
func (a *attempt) http() *http.Client {
	own := *a.client
	own.Timeout = 0
	own.CheckRedirect = a.redirect
	own.Transport = a.transport()
	if t, ok := own.Transport.(*http.Transport); ok {
		own.Transport = hopper{t}
	}
	return &own
}

func (a *attempt) transport() http.RoundTripper {
	if a.client.Transport == nil {
		return http.DefaultTransport
	}
	return a.client.Transport
}

// redirect prepares a request that the server has asked for.
func (a *attempt) redirect(r *http.Request, via []*http.Request) error {
	toHTTP(r.URL)
	if r.URL.Scheme == "http" && via[len(via)-1].URL.Scheme == "https" {
		return &HandshakeError{Reason: "redirected from wss to ws"}
	}
	strayed := !sameServer(via[0].URL, r.URL)
	for _, hop := range via[1:] {
		strayed = strayed || !sameServer(via[0].URL, hop.URL)
	}
	if strayed { // http.Client lets other ports and subdomains have them
		for _, name := range []string{"Authorization", "Cookie", "Cookie2", "Proxy-Authorization", "Www-Authenticate"} {
			r.Header.Del(name)
		}
	}
	delete(r.Header, "Referer") // http.Client's has the query, where tokens are
	if own := via[0].Header["Referer"]; own != nil {
		r.Header["Referer"] = own
	}
	a.key = newHandshakeKey()
	requestHeader(r.Header, a.key, a.Subprotocols, a.Config.Compression)
	switch {
	case a.client.CheckRedirect != nil:
		return a.client.CheckRedirect(r, via)
	case len(via) >= 10:
		return &HandshakeError{Reason: "more than 10 redirects"}
	}
	return nil
}

// sameServer tells whether to, to which from redirects, may have from's
// credentials: the same host and port, or the same host's step up to TLS.
func sameServer(from, to *url.URL) bool {
	if !strings.EqualFold(from.Hostname(), to.Hostname()) {
		return false
	}
	_, p := hostPort(from.Host, from.Scheme)
	_, q := hostPort(to.Host, to.Scheme)
	if p == "" && q == "" {
		return from.Scheme == to.Scheme || to.Scheme == "https"
	}
	return p == q
}

// gotConn keeps the connection that the request uses.
func (a *attempt) gotConn(i httptrace.GotConnInfo) {
	a.mu.Lock()
	a.nc = i.Conn
	a.mu.Unlock()
}

// failed says why there is no answer.
func (a *attempt) failed(ctx context.Context, resp *http.Response, err error) error {
	var refusal *HandshakeError
	var e *url.Error
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("websocket: handshake cut short: %w", context.Cause(ctx))
	case errors.As(err, &refusal):
		if resp != nil { // that redirects; http.Client has closed the body
			refusal.Status = resp.StatusCode
			refusal.Response = withoutBody(resp)
			if a.OnResponse != nil {
				a.OnResponse(refusal.Response)
			}
		}
		return refusal
	case errors.As(err, &e): // it has the whole URL, where there may be a token
		err = e.Err
	}
	return &dialError{err}
}

// A dialError has no answer to show.
type dialError struct{ err error }

func (e *dialError) Error() string { return "websocket: " + printable(e.err.Error()) }

func (e *dialError) Unwrap() error { return e.err }

// refused keeps the beginning of the body, if it comes soon, and lets go of the
// rest.
func (a *attempt) refused(resp *http.Response, e *HandshakeError) error {
	body := resp.Body
	if resp.StatusCode == http.StatusSwitchingProtocols { // the body is the connection
		resp.Body = http.NoBody
	} else {
		defer time.AfterFunc(refusalPause, a.cancel).Stop()
		keepBody(resp)
	}
	body.Close()
	e.Response = resp
	if a.OnResponse != nil {
		a.OnResponse(resp)
	}
	return e
}

// take returns the connection that is below body. Input that came along with
// the response lies in net/http's buffer: it is what can be read when the
// network cannot.
func (a *attempt) take(body io.Reader) (net.Conn, error) {
	a.mu.Lock()
	nc := a.nc
	a.mu.Unlock()
	if nc == nil {
		return nil, fmt.Errorf("websocket: the http.Client's %T hides its connection from net/http/httptrace", a.transport())
	}
	if nc.SetReadDeadline(aLongTimeAgo) != nil { // no deadlines: some tunnels
		return &bodyConn{nc, body}, nil
	}
	var early []byte
	b := borrow(minRead)
	defer b.release()
	for err := error(nil); err == nil; { // whatever ends it, the connection's next read tells it again
		var n int
		n, err = body.Read(b.b[:cap(b.b)])
		early = append(early, b.b[:n]...)
	}
	if err := nc.SetReadDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("websocket: %w", err)
	}
	if len(early) > 0 {
		nc = &earlyConn{nc, early}
	}
	return nc, nil
}

// A bodyConn is a connection that is read through the response's body.
type bodyConn struct {
	net.Conn
	body io.Reader
}

func (c *bodyConn) Read(p []byte) (int, error) { return c.body.Read(p) }
