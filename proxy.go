package websocket

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// proxy.go owns how Dial uses an http.Transport, and the way through an HTTP
// proxy.

// maxResponseHeader is how much of a header is read, in bytes, unless the
// transport has its own limit.
const maxResponseHeader = 64 << 10

// A hopper makes each request of a Dial (there are several if it is redirected)
// with a copy of base: a connection that becomes a WebSocket never returns to a
// pool, and a copy can be told to stop what it is doing.
type hopper struct{ base *http.Transport }

// RoundTrip makes one request.
func (h hopper) RoundTrip(r *http.Request) (*http.Response, error) {
	t := h.base.Clone()
	t.DisableKeepAlives = true // what is not used further is closed
	t.DisableCompression = true
	t.ForceAttemptHTTP2, t.Protocols, t.HTTP2 = false, nil, nil
	t.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{} // no HTTP/2
	if t.MaxResponseHeaderBytes == 0 {
		t.MaxResponseHeaderBytes = maxResponseHeader
	}
	if t.Proxy != nil {
		proxy, err := t.Proxy(r)
		if err != nil {
			return nil, err
		}
		t.Proxy = http.ProxyURL(proxy)
		if proxy != nil && (proxy.Scheme == "http" || proxy.Scheme == "https") {
			tunnel(t, proxy)
		}
	}
	resp, err := t.RoundTrip(r)
	if err != nil {
		t.CloseIdleConnections() // dialing does not end with the request's context, but with this
	}
	return resp, err
}

// tunnel makes t reach its targets through proxy with CONNECT, as RFC 6455
// section 4.1 asks for. http.Transport does so for https only: a plain ws
// request would go to the proxy itself, and few proxies would pass its upgrade
// on. It is done here for both, so that both tell the same about a refusal.
func tunnel(t *http.Transport, proxy *url.URL) {
	reach := proxyDialer(t, proxy)
	t.Proxy = nil
	t.DialTLSContext, t.DialTLS = nil, nil //lint:ignore SA1019 a caller may have set it: it is for direct connections
	t.DialContext = func(ctx context.Context, _, target string) (net.Conn, error) {
		nc, err := reach(ctx)
		if err != nil {
			return nil, fmt.Errorf("proxy: %w", err)
		}
		if err := connect(ctx, nc, t, proxy, target); err != nil {
			nc.Close()
			return nil, err
		}
		return nc, nil
	}
}

// proxyDialer returns how t connects to proxy.
func proxyDialer(t *http.Transport, proxy *url.URL) func(context.Context) (net.Conn, error) {
	port := proxy.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[proxy.Scheme]
	}
	addr := net.JoinHostPort(proxy.Hostname(), port)
	dial := dialFunc(t.DialContext, t.Dial)          //lint:ignore SA1019 whoever sets it expects it to be used
	dialTLS := dialFunc(t.DialTLSContext, t.DialTLS) //lint:ignore SA1019 the same
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	if proxy.Scheme == "http" {
		return func(ctx context.Context) (net.Conn, error) { return dial(ctx, "tcp", addr) }
	}
	if dialTLS != nil {
		return func(ctx context.Context) (net.Conn, error) { return dialTLS(ctx, "tcp", addr) }
	}
	config := new(tls.Config)
	if t.TLSClientConfig != nil {
		config = t.TLSClientConfig.Clone()
	}
	config.NextProtos = nil
	if config.ServerName == "" {
		config.ServerName = proxy.Hostname()
	}
	return func(ctx context.Context) (net.Conn, error) {
		nc, err := dial(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		secure := tls.Client(nc, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			nc.Close()
			return nil, err
		}
		return secure, nil
	}
}

type dialer func(ctx context.Context, network, addr string) (net.Conn, error)

// dialFunc returns f, or what it replaced in http.Transport, or nil.
func dialFunc(f dialer, old func(network, addr string) (net.Conn, error)) dialer {
	if f == nil && old != nil {
		return func(_ context.Context, network, addr string) (net.Conn, error) { return old(network, addr) }
	}
	return f
}

// connectHeader returns what t and the proxy's URL want in a CONNECT request.
func connectHeader(ctx context.Context, t *http.Transport, proxy *url.URL, target string) (http.Header, error) {
	h := t.ProxyConnectHeader
	if t.GetProxyConnectHeader != nil {
		var err error
		if h, err = t.GetProxyConnectHeader(ctx, proxy, target); err != nil {
			return nil, err
		}
	}
	if h = h.Clone(); h == nil {
		h = make(http.Header)
	}
	if u := proxy.User; u != nil {
		password, _ := u.Password()
		h.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+password)))
	}
	if field, ok := checkFields(h); !ok {
		return nil, fmt.Errorf("header for the proxy cannot be sent: %q", field)
	}
	return h, nil
}

// connect asks the proxy at nc for a tunnel to target (RFC 9110 section 9.3.6).
func connect(ctx context.Context, nc net.Conn, t *http.Transport, proxy *url.URL, target string) error {
	h, err := connectHeader(ctx, t, proxy, target)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { nc.SetDeadline(aLongTimeAgo) })
	defer stop()
	r := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: target}, Host: target, Header: h}
	if err := r.Write(nc); err != nil {
		return fmt.Errorf("proxy: %w", err)
	}
	br := bufio.NewReader(io.LimitReader(nc, maxResponseHeader))
	resp, err := readAnswer(br, r)
	if err != nil {
		return fmt.Errorf("proxy: %w", err)
	}
	if t.OnProxyConnectResponse != nil {
		if err := t.OnProxyConnectResponse(ctx, proxy, r, resp); err != nil {
			return err
		}
	}
	e := &HandshakeError{Status: resp.StatusCode, Response: resp}
	switch {
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		e.Reason = "the proxy refused"
		nc.SetReadDeadline(time.Now().Add(refusalPause))
		keepBody(resp)
		return e
	case br.Buffered() > 0: // the server behind it has not been spoken to
		e.Reason = "the proxy sent more than its answer"
		resp.Body = http.NoBody
		return e
	case !stop():
		return context.Cause(ctx)
	}
	return nil
}

// readAnswer reads a response, and skips those that announce one (RFC 9110
// section 15.2).
func readAnswer(br *bufio.Reader, r *http.Request) (*http.Response, error) {
	for {
		resp, err := http.ReadResponse(br, r)
		if err != nil || resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, err
		}
	}
}

// keepBody replaces the body by its beginning.
func keepBody(resp *http.Response) {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	resp.Body = io.NopCloser(bytes.NewReader(b))
}

// withoutBody returns resp without its body, which may be the connection.
func withoutBody(resp *http.Response) *http.Response {
	own := *resp
	own.Body = http.NoBody
	return &own
}
