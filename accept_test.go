package websocket

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket/internal/memnet"
)

// noLeaks fails t if goroutines of this library or of net/http's client outlive
// it. Call it first.
func noLeaks(t testing.TB) {
	t.Cleanup(func() {
		var left []string
		for by := time.Now().Add(10 * time.Second); time.Now().Before(by); pass(time.Millisecond) {
			left = nil
			stacks := make([]byte, 1<<20)
			for g := range strings.SplitSeq(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
				if strings.Contains(g, "websocket.(*") || strings.Contains(g, "http.(*persistConn)") || strings.Contains(g, "http.(*Transport)") {
					if !strings.Contains(g, "testing.tRunner") {
						left = append(left, g)
					}
				}
			}
			if left == nil {
				return
			}
		}
		require.Empty(t, left)
	})
}

// A logged is what a server logs.
type logged struct {
	mu sync.Mutex
	bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.Write(p)
}

// start serves h, which must not make net/http log anything.
func start(t testing.TB, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	var l logged
	s.Config.ErrorLog = log.New(&l, "", 0)
	s.Start()
	t.Cleanup(func() {
		s.Close()
		l.mu.Lock()
		defer l.mu.Unlock()
		require.Empty(t, l.String())
	})
	return s
}

// exchange sends in to s and returns all that comes back until the end of the
// connection, the header first.
func exchange(t testing.TB, s *httptest.Server, in string) (head, rest string) {
	t.Helper()
	nc, err := net.Dial("tcp", s.Listener.Addr().String())
	require.NoError(t, err)
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(time.Minute))
	go io.WriteString(nc, in)
	out, err := io.ReadAll(nc)
	if len(in) < 1<<20 { // else it may not have been read to its end, and TCP says so
		require.NoError(t, err)
	}
	head, rest, _ = strings.Cut(string(out), "\r\n\r\n")
	head = regexp.MustCompile("Date: .* GMT").ReplaceAllString(head, "Date: now")
	return head + "\r\n", rest
}

// upgrade accepts, and hangs up.
func upgrade(o *AcceptOptions) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if c, err := Accept(w, r, o); err == nil {
			c.CloseNow()
		}
	}
}

// A requestRow is a request as bytes, and the status that answers it.
type requestRow struct {
	name   string
	in     string
	status int
}

// requestRows are those of requestCases and those that net/http itself refuses.
func requestRows(t testing.TB) []requestRow {
	rows := []requestRow{
		{"A2 HTTP/0.9", "GET /\r\n\r\n", 400},
		{"A2 HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", 405},
		{"A2 HTTP/3.0", edit(t, goodRequest, "HTTP/1.1", "HTTP/3.0"), 505},
		{"A6 no Host", edit(t, goodRequest, "Host: server.example.com\r\n", ""), 400},
		{"A6 two Hosts", edit(t, goodRequest, "Host:", "Host: a\r\nHost:"), 400},
		{"A6 Host a b", edit(t, goodRequest, "server.example.com", "a b"), 400},
		{"A10 Content-Length and Transfer-Encoding", edit(t, goodRequest, "\r\n\r\n", "\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400},
		{"A10 two Content-Lengths", edit(t, goodRequest, "\r\n\r\n", "\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"), 400},
		{"A10 Content-Length +5", edit(t, goodRequest, "\r\n\r\n", "\r\nContent-Length: +5\r\n\r\nabcde"), 400},
		{"A10 unknown Transfer-Encoding", edit(t, goodRequest, "\r\n\r\n", "\r\nTransfer-Encoding: gzip\r\n\r\nabcde"), 501},
		{"A15 a header of 2 MiB", edit(t, goodRequest, "\r\n\r\n", "\r\nA: "+strings.Repeat("a", 2<<20)+"\r\n\r\n"), 431},
		{"A15 100,000 headers", edit(t, goodRequest, "\r\n\r\n", "\r\n"+strings.Repeat("Aaaaaaaa: a\r\n", 100_000)+"\r\n"), 431},
		{"20.9.16 a cookie of 16 Ki", edit(t, goodRequest, "\r\n\r\n", "\r\nCookie: a="+strings.Repeat("b", 16<<10)+"\r\n\r\n"), 101},
		{"20.9.19 bare line feeds", strings.ReplaceAll(goodRequest, "\r\n", "\n"), 101},
	}
	for _, c := range requestCases {
		rows = append(rows, requestRow{c.name, edit(t, goodRequest, c.edit...), c.status})
	}
	return rows
}

// Every refusal ends the connection: a second request is not answered (A13).
func TestAcceptRows_4_2(t *testing.T) {
	noLeaks(t)
	s := start(t, upgrade(nil))
	for _, c := range requestRows(t) {
		t.Run(c.name, func(t *testing.T) {
			head, rest := exchange(t, s, c.in+goodRequest)
			if head == "\r\n" && len(c.in) > 1<<20 {
				return // reset before the answer could be read
			}
			require.Regexp(t, fmt.Sprintf(`^HTTP/1\.[01] %d `, c.status), head)
			require.NotRegexp(t, `HTTP/1.1 \d`, rest)
			switch c.status {
			case 101:
				require.Equal(t, strings.TrimSuffix(goodResponse, "\r\n"), head)
				require.Empty(t, rest)
			case 405:
				require.Contains(t, head, "\r\nAllow: GET\r\n")
			case 426:
				require.Contains(t, head, "\r\nSec-Websocket-Version: 13\r\n")
			}
		})
	}
}

// A123: the client is told fixed texts.
func TestAcceptRefusals(t *testing.T) {
	noLeaks(t)
	const plain = "Content-Type: text/plain; charset=utf-8\r\n"
	const end = "X-Content-Type-Options: nosniff\r\nDate: now\r\nContent-Length: "
	evil := "\r\nOrigin: https://evil.example/\x80\xff\r\nCookie: session=1\r\n\r\n"
	for _, c := range []struct {
		name       string
		edit       []string
		options    *AcceptOptions
		head, rest string
		err        string
	}{
		{"A8 403", []string{"\r\n\r\n", evil}, nil,
			"HTTP/1.1 403 Forbidden\r\nConnection: close\r\n" + plain + end + "19\r\n", "origin not allowed\n",
			`websocket: handshake failed: origin not allowed: "https://evil.example/\x80\xff" (403)`},
		{"403 comes first", []string{"GET", "POST", "Upgrade: websocket", "Upgrade: x", "\r\n\r\n", evil}, nil,
			"HTTP/1.1 403 Forbidden\r\nConnection: close\r\n" + plain + end + "19\r\n", "origin not allowed\n",
			`websocket: handshake failed: origin not allowed: "https://evil.example/\x80\xff" (403)`},
		{"A1 405", []string{"GET", "POST"}, nil,
			"HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\nConnection: close\r\n" + plain + end + "18\r\n", "method is not GET\n",
			"websocket: handshake failed: method is not GET (405)"},
		{"A4 400", []string{sampleKey, "<script>"}, nil,
			"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n" + plain + end + "45\r\n", "Sec-WebSocket-Key is not one key of 16 bytes\n",
			"websocket: handshake failed: Sec-WebSocket-Key is not one key of 16 bytes (400)"},
		{"A5 426", []string{": 13", ": 8"}, nil,
			"HTTP/1.1 426 Upgrade Required\r\nConnection: close\r\nConnection: Upgrade\r\n" + plain + "Sec-Websocket-Version: 13\r\nUpgrade: websocket\r\n" + end + "32\r\n", "Sec-WebSocket-Version is not 13\n",
			"websocket: handshake failed: Sec-WebSocket-Version is not 13 (426)"},
		{"A19 header value", nil, &AcceptOptions{Header: http.Header{"X-A": {"b\r\nSet-Cookie: c"}}},
			"HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\n" + plain + end + "22\r\n", "Internal Server Error\n",
			`websocket: handshake failed: AcceptOptions.Header cannot be sent: "X-A" (500)`},
		{"A19 header name", nil, &AcceptOptions{Header: http.Header{"X\r\nSet-Cookie: c": {"b"}}},
			"HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\n" + plain + end + "22\r\n", "Internal Server Error\n",
			`websocket: handshake failed: AcceptOptions.Header cannot be sent: "X\r\nSet-Cookie: c" (500)`},
		{"the handshake's own header", nil, &AcceptOptions{Header: http.Header{"Sec-Websocket-Protocol": {"a"}}},
			"HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\n" + plain + end + "22\r\n", "Internal Server Error\n",
			`websocket: handshake failed: AcceptOptions.Header cannot be sent: "Sec-Websocket-Protocol" (500)`},
		{"A19 subprotocol", nil, &AcceptOptions{Subprotocols: []string{"a\r\nb: c"}},
			"HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\n" + plain + end + "22\r\n", "Internal Server Error\n",
			`websocket: handshake failed: AcceptOptions.Subprotocols are no distinct tokens: ["a\r\nb: c"] (500)`},
	} {
		t.Run(c.name, func(t *testing.T) {
			errs := make(chan error, 1)
			s := start(t, func(w http.ResponseWriter, r *http.Request) {
				_, err := Accept(w, r, c.options)
				errs <- err
			})
			head, rest := exchange(t, s, edit(t, goodRequest, c.edit...))
			got := <-errs
			require.Equal(t, c.head, head)
			require.Equal(t, c.rest, rest)
			require.EqualError(t, got, c.err)
			require.IsType(t, (*HandshakeError)(nil), got)
		})
	}
}

// The answer has what middlewares have set, and nothing that would break it.
func TestAcceptHeader(t *testing.T) {
	noLeaks(t)
	set := func(pairs ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			for i := 0; i < len(pairs); i += 2 {
				w.Header().Add(pairs[i], pairs[i+1])
			}
			upgrade(&AcceptOptions{Subprotocols: []string{"b", "c"}, Header: http.Header{"X-Z": {"1"}, "Set-Cookie": {"e=f"}}})(w, r)
		}
	}
	request := edit(t, goodRequest, "\r\n\r\n", "\r\nSec-WebSocket-Protocol: a, b\r\nX-Reflect: x\r\n\r\n")
	head, rest := exchange(t, start(t, set("Set-Cookie", "a=b", "Set-Cookie", "c=d", "Content-Length", "7", "Connection", "close",
		"Upgrade", "h2c", "Sec-WebSocket-Accept", "x", "Trailer", "X", http.TrailerPrefix+"X", "y")), request)
	require.Equal(t, strings.TrimSuffix(goodResponse, "\r\n")+"Sec-WebSocket-Protocol: b\r\n"+
		"Set-Cookie: a=b\r\nSet-Cookie: c=d\r\nSet-Cookie: e=f\r\nX-Z: 1\r\n", head)
	require.Empty(t, rest)

	head, _ = exchange(t, start(t, set("X-Reflect", "x\r\nSet-Cookie: a=b")), request)
	require.Regexp(t, "^HTTP/1.1 500 ", head, "A20")
	require.NotContains(t, head, "\r\nSet-Cookie", "A20")
}

func TestOrigin_10_2(t *testing.T) {
	for _, c := range []struct {
		origin   string // "" if there is none
		host     string
		patterns string
		ok       bool
	}{
		// The request's own.
		{"", "example.com", "", true},
		{"http://example.com", "example.com", "", true},
		{"https://example.com", "example.com", "", true}, // a proxy may have taken the TLS off
		{"http://example.com", "EXAMPLE.com", "", true},
		{"http://example.com", "example.com:80", "", true},
		{"http://example.com:80", "example.com", "", true},
		{"https://example.com:443", "example.com", "", true},
		{"http://example.com:8080", "example.com:8080", "", true},
		{"http://127.0.0.1:8080", "127.0.0.1:8080", "", true},
		{"http://[::1]:8080", "[::1]:8080", "", true},
		{"http://[::1]", "[::1]", "", true},
		{"http://xn--bcher-kva.example", "xn--bcher-kva.example", "", true},
		// Other hosts.
		{"http://evil.example", "example.com", "", false},
		{"http://sub.example.com", "example.com", "", false},
		{"http://example.com", "sub.example.com", "", false},
		{"http://example.com.evil.example", "example.com", "", false},
		{"http://evilexample.com", "example.com", "", false},
		{"http://example.com.", "example.com", "", false},
		{"http://example.com", "", "", false},
		{"http://localhost", "127.0.0.1", "", false},
		// Other ports.
		{"http://example.com:8080", "example.com", "", false},
		{"http://example.com", "example.com:8080", "", false},
		{"http://example.com:443", "example.com", "", false},
		{"https://example.com", "example.com:80", "", false},
		{"https://example.com:80", "example.com:443", "", false},
		// Other schemes.
		{"https://example.com", "tls://example.com", "", true},
		{"http://example.com", "tls://example.com", "", false},
		{"http://example.com:443", "tls://example.com:443", "", false},
		{"ftp://example.com", "example.com", "", false},
		{"file://", "example.com", "", false},
		{"chrome-extension://example.com", "example.com", "", false},
		// What browsers do not send.
		{"null", "example.com", "", false},
		{"null", "null", "null", false},
		{" ", "example.com", "", false},
		{"example.com", "example.com", "example.com", false},
		{"//example.com", "example.com", "", false},
		{"://example.com", "example.com", "", false},
		{"http://", "example.com", "", false},
		{"http:example.com", "example.com", "", false},
		{"HTTP://example.com", "example.com", "", false},
		{"http://EXAMPLE.com", "EXAMPLE.com", "EXAMPLE.com", false},
		{"http://example.com/", "example.com", "", false},
		{"http://example.com/path", "example.com", "", false},
		{"http://example.com?", "example.com", "", false},
		{"http://example.com#", "example.com", "", false},
		{"http://example.com:", "example.com:", "", false},
		{"http://example.com:0", "example.com:0", "", false},
		{"http://example.com:99999", "example.com:99999", "", false},
		{"http://example.com:http", "example.com", "", false},
		{"http://user@example.com", "example.com", "", false},
		{"http://example.com@evil.example", "example.com", "", false},
		{"http://evil.example\\@example.com", "example.com", "", false},
		{"http://ex%61mple.com", "example.com", "", false},
		{"http://bücher.example", "bücher.example", "bücher.example", false},
		{"http://example.com http://evil.example", "example.com", "*.example", false},
		{"http://example.com, http://evil.example", "example.com", "", false},
		{"http://[::1", "[::1", "", false},
		{"http://example.com\x00", "example.com", "", false},
		// AcceptOptions.Origins.
		{"http://evil.example", "example.com", "*", true},
		{"null", "example.com", "*", true},
		{"http://other.example", "example.com", "other.example", true},
		{"https://other.example", "example.com", "other.example", true},
		{"https://other.example", "example.com", "a b Other.Example", true},
		{"http://other.example:80", "example.com", "other.example", true},
		{"http://other.example", "example.com", "other.example:80", true},
		{"http://other.example:8080", "example.com", "other.example:8080", true},
		{"http://other.example:8080", "example.com", "other.example", false},
		{"https://other.example", "example.com", "other.example:80", false},
		{"https://other.example", "example.com", "https://other.example", true},
		{"https://other.example", "example.com", "https://other.example:443", true},
		{"http://other.example", "example.com", "https://other.example", false},
		{"https://other.example", "example.com", "https://other.example/", false},
		{"http://other.example", "tls://example.com", "other.example", true}, // named, so wanted
		{"http://a.other.example", "example.com", "*.other.example", true},
		{"https://a.b.other.example", "example.com", "*.other.example", true},
		{"https://a.other.example", "example.com", "https://*.other.example", true},
		{"http://a.other.example", "example.com", "https://*.other.example", false},
		{"http://A.other.example", "example.com", "*.other.example", false},
		{"http://a.other.example:8080", "example.com", "*.other.example:8080", true},
		{"http://a.other.example:8080", "example.com", "*.other.example", false},
		{"http://other.example", "example.com", "*.other.example", false},
		{"http://.other.example", "example.com", "*.other.example", false},
		{"http://evilother.example", "example.com", "*.other.example", false},
		{"http://a.other.example.evil.example", "example.com", "*.other.example", false},
		{"http://evil.example", "example.com", "*.", false},
		{"http://evil.example", "example.com", "*example", false},
		{"http://evil.example", "example.com", "http://*", false},
		{"http://evil.example", "example.com", "evil*", false},
		{"http://evil.example", "example.com", "e?il.example", false},
		{"http://evil.example", "example.com", "", false},
		{"app://home", "example.com", "app://home", true},
		{"app://home", "example.com", "home", false},
		{"app://a.home", "example.com", "*.home", false},
	} {
		host, secure := strings.CutPrefix(c.host, "tls://")
		r := &http.Request{Host: host, Header: make(http.Header)}
		if secure {
			r.TLS = new(tls.ConnectionState)
		}
		if c.origin != "" {
			r.Header["Origin"] = []string{c.origin}
		}
		o := &AcceptOptions{Origins: strings.Fields(c.patterns)}
		require.Equal(t, c.ok, o.originAllowed(r), "A7: %q at %q, allowed %q", c.origin, c.host, c.patterns)
	}
	r := &http.Request{Host: "a", Header: http.Header{"Origin": {"http://a", "http://a"}}}
	require.False(t, new(AcceptOptions).originAllowed(r), "A7: two Origins")
	r.Header["Origin"] = []string{""}
	require.False(t, new(AcceptOptions).originAllowed(r), "A7: an empty Origin")
}

func TestAcceptTLS(t *testing.T) {
	noLeaks(t)
	s := httptest.NewUnstartedServer(&Server{Handler: echo})
	s.EnableHTTP2 = true // the client keeps to HTTP/1.1 by itself
	s.StartTLS()
	defer s.Close()
	dial := func(origin string) error {
		c, err := Dial(bg, s.URL, &DialOptions{Client: s.Client(), Header: http.Header{"Origin": {origin}}})
		if err == nil {
			err = c.Close(CloseNormalClosure, "")
		}
		return err
	}
	require.NoError(t, dial(s.URL))
	require.ErrorContains(t, dial("http"+strings.TrimPrefix(s.URL, "https")), "(403)", "A7")

	r, err := http.NewRequest("GET", s.URL, nil)
	require.NoError(t, err)
	r.Header.Set("Sec-WebSocket-Version", "13")
	resp, err := s.Client().Do(r)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, "HTTP/2.0 400 Bad Request", resp.Proto+" "+resp.Status, "A2, A21")
	s.Client().CloseIdleConnections()
}

// A11, 20.9.14, 20.9.15: input that comes along with the request is delivered
// once, however it is cut.
func TestAcceptEarlyInput(t *testing.T) {
	noLeaks(t)
	s := start(t, (&Server{Handler: echo}).ServeHTTP)
	in := goodRequest + string(frames(masked(text, 0x01020304), "hello", masked(closed, 0x05060708), closeFrame(1000, "")))
	want := goodResponse + string(frames(text, "hello", closed, closeFrame(1000, "")))
	for _, step := range []int{1, len(goodRequest) - 1, len(goodRequest), len(goodRequest) + 1, len(goodRequest) + 12, len(in)} {
		nc, err := net.Dial("tcp", s.Listener.Addr().String())
		require.NoError(t, err)
		nc.SetDeadline(time.Now().Add(time.Minute))
		for b := []byte(in); len(b) > 0; b = b[min(step, len(b)):] {
			_, err := nc.Write(b[:min(step, len(b))])
			require.NoError(t, err)
		}
		out, err := io.ReadAll(nc)
		require.NoError(t, err)
		require.Equal(t, want, string(out), "%d bytes at a time", step)
		nc.Close()
	}
}

// A12: a second request is not HTTP any more.
func TestAcceptPipelined(t *testing.T) {
	noLeaks(t)
	var calls atomic.Int32
	ws := &Server{Handler: echo}
	s := start(t, func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		ws.ServeHTTP(w, r)
	})
	head, rest := exchange(t, s, goodRequest+goodRequest)
	require.Regexp(t, "^HTTP/1.1 101 ", head)
	h, n := ParseHeader([]byte(rest))
	require.Equal(t, OpClose, h.Opcode)
	e, err := parseClose([]byte(rest[n:]))
	require.NoError(t, err)
	require.Equal(t, CloseProtocolError, e.Code)
	require.EqualValues(t, 1, calls.Load())
}

func TestUpgradeParams(t *testing.T) {
	noLeaks(t)
	s := start(t, func(w http.ResponseWriter, r *http.Request) {
		nc, p, err := Upgrade(w, r, &AcceptOptions{Subprotocols: []string{"chat"}, Config: Config{ReadLimit: 7}})
		if err != nil {
			return
		}
		defer nc.Close()
		b := make([]byte, 100)
		n, _ := io.ReadAtLeast(nc, b, 8)
		fmt.Fprintf(nc, "%v %q %q %d, early %s", p.Client, p.Subprotocol, p.Extensions, p.Config.ReadLimit, b[:n])
	})
	_, rest := exchange(t, s, edit(t, goodRequest, "\r\n\r\n", "\r\nSec-WebSocket-Protocol: chat\r\n\r\n")+"12345678")
	require.Equal(t, `false "chat" "" 7, early 12345678`, rest)
}

// wrapped hides everything but the methods of a ResponseWriter.
type wrapped struct{ w http.ResponseWriter }

func (w wrapped) Header() http.Header         { return w.w.Header() }
func (w wrapped) WriteHeader(status int)      { w.w.WriteHeader(status) }
func (w wrapped) Write(p []byte) (int, error) { return w.w.Write(p) }

// unwrappable also has what http.ResponseController looks for.
type unwrappable struct{ wrapped }

func (w unwrappable) Unwrap() http.ResponseWriter { return w.w }

func TestAcceptWrapped(t *testing.T) {
	noLeaks(t)
	for _, c := range []struct {
		name string
		wrap func(http.HandlerFunc) http.Handler
		err  string
	}{
		{"Unwrap", func(h http.HandlerFunc) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h(unwrappable{wrapped{unwrappable{wrapped{w}}}}, r) })
		}, ""},
		{"no Unwrap", func(h http.HandlerFunc) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h(unwrappable{wrapped{wrapped{w}}}, r) })
		}, "websocket: handshake failed: websocket.wrapped does not let go of the connection: feature not supported (500)"},
		{"http.TimeoutHandler", func(h http.HandlerFunc) http.Handler { return http.TimeoutHandler(h, time.Minute, "") },
			"websocket: handshake failed: *http.timeoutWriter does not let go of the connection: feature not supported (500)"},
	} {
		t.Run("A21 "+c.name, func(t *testing.T) {
			errs := make(chan error, 1)
			s := start(t, c.wrap(func(w http.ResponseWriter, r *http.Request) {
				ws, err := Accept(w, r, nil)
				if errs <- err; err == nil {
					ws.CloseNow()
				}
			}).ServeHTTP)
			head, _ := exchange(t, s, goodRequest)
			got := <-errs
			if c.err == "" {
				require.NoError(t, got)
				require.Regexp(t, "^HTTP/1.1 101 ", head)
				return
			}
			require.EqualError(t, got, c.err)
			require.Regexp(t, "^HTTP/1.1 500 (.*\r\n)*Connection: close\r\n", head)
		})
	}
	t.Run("A21 httptest.ResponseRecorder", func(t *testing.T) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(goodRequest)))
		require.NoError(t, err)
		w := httptest.NewRecorder()
		_, err = Accept(w, r, nil)
		require.EqualError(t, err, "websocket: handshake failed: *httptest.ResponseRecorder does not let go of the connection: feature not supported (500)")
		require.Equal(t, "500 Internal Server Error\n", fmt.Sprint(w.Code, " ", w.Body))
	})
}

// A broken connection takes n bytes.
type broken struct {
	net.Conn
	n      int
	closed bool
}

func (c *broken) Write(p []byte) (int, error) {
	if n := c.n; n < len(p) {
		c.n = 0
		return n, syscall.ECONNRESET
	}
	return len(p), nil
}

func (c *broken) Close() error {
	c.closed = true
	return c.Conn.Close()
}

func TestAcceptFails(t *testing.T) {
	accept := func(w *hijackable) error {
		w.h = make(http.Header)
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(goodRequest)))
		require.NoError(t, err)
		c, err := Accept(w, r, nil)
		require.Nil(t, c)
		return err
	}
	t.Run("A22 Hijack fails", func(t *testing.T) {
		w := &hijackable{err: errors.New("why")}
		require.EqualError(t, accept(w), "websocket: handshake failed: *websocket.hijackable does not let go of the connection: why (500)")
		require.Equal(t, 500, w.status)
		require.Equal(t, "close", w.h.Get("Connection"))
	})
	t.Run("A22 Hijack returns nothing", func(t *testing.T) {
		w := new(hijackable)
		require.EqualError(t, accept(w), "websocket: handshake failed: *websocket.hijackable does not let go of the connection: no connection (500)")
		require.Equal(t, 500, w.status)
	})
	for _, n := range []int{0, 1, 40, len(goodResponse) - 1} {
		t.Run(fmt.Sprintf("A22 write fails after %d", n), func(t *testing.T) {
			a, _ := memnet.Pipe(1000)
			nc := &broken{Conn: a, n: n}
			w := &hijackable{nc: nc}
			err := accept(w)
			require.ErrorIs(t, err, syscall.ECONNRESET)
			require.EqualError(t, err, "websocket: handshake not answered: connection reset by peer")
			require.True(t, nc.closed)
			require.Zero(t, w.status, "nothing is answered on a connection that was taken over")
		})
	}
}

// A23: a response that is begun is not upgraded, and nobody panics or logs.
func TestAcceptMisused(t *testing.T) {
	noLeaks(t)
	const begunText = "websocket: handshake failed: the response has been begun already (500)"
	t.Run("twice", func(t *testing.T) {
		errs := make(chan error, 1)
		s := start(t, func(w http.ResponseWriter, r *http.Request) {
			c, err := Accept(w, r, nil)
			if err != nil {
				return
			}
			_, err = Accept(w, r, nil)
			errs <- err
			c.CloseNow()
		})
		head, rest := exchange(t, s, goodRequest)
		require.Equal(t, goodResponse, head+"\r\n"+rest)
		require.EqualError(t, <-errs, "websocket: handshake failed: *http.response does not let go of the connection: http: connection has been hijacked (500)")
	})
	t.Run("after WriteHeader", func(t *testing.T) {
		for _, begin := range []func(http.ResponseWriter){
			func(w http.ResponseWriter) { w.WriteHeader(202) },
			func(w http.ResponseWriter) { io.WriteString(w, "hello") },
			func(w http.ResponseWriter) { w.(http.Flusher).Flush() },
		} {
			errs := make(chan error, 1)
			s := start(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Connection", "close")
				begin(w)
				_, err := Accept(unwrappable{wrapped{w}}, r, nil)
				errs <- err
			})
			head, rest := exchange(t, s, goodRequest)
			require.Regexp(t, "^HTTP/1.1 20[02] ", head)
			require.NotRegexp(t, `HTTP/1.1 \d`, rest)
			require.EqualError(t, <-errs, begunText)
		}
	})
	t.Run("after an early hint", func(t *testing.T) { // which is no answer yet
		s := start(t, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusEarlyHints)
			upgrade(nil)(w, r)
		})
		head, rest := exchange(t, s, goodRequest)
		require.Equal(t, "HTTP/1.1 103 Early Hints\r\n", head)
		require.Equal(t, goodResponse, rest)
	})
	t.Run("from another goroutine", func(t *testing.T) {
		s := start(t, func(w http.ResponseWriter, r *http.Request) {
			done := make(chan struct{})
			go func() {
				upgrade(nil)(w, r)
				close(done)
			}()
			<-done
		})
		head, rest := exchange(t, s, goodRequest)
		require.Equal(t, goodResponse, head+"\r\n"+rest)
	})
	t.Run("after the handler", func(t *testing.T) {
		type call struct {
			w http.ResponseWriter
			r *http.Request
		}
		calls := make(chan call, 1)
		s := start(t, func(w http.ResponseWriter, r *http.Request) { calls <- call{w, r} })
		head, _ := exchange(t, s, edit(t, goodRequest, "Connection: Upgrade", "Connection: Upgrade, close"))
		require.Regexp(t, "^HTTP/1.1 200 ", head)
		c := <-calls
		_, err := Accept(c.w, c.r, nil)
		require.EqualError(t, err, begunText)
		_, err = Accept(hijackOnly{wrapped{c.w}, c.w.(http.Hijacker)}, c.r, nil)
		require.EqualError(t, err, "websocket: handshake failed: websocket.hijackOnly does not let go of the connection: the handler has returned (500)")
	})
}

// hijackOnly hides that net/http's ResponseWriter is below.
type hijackOnly struct {
	wrapped
	http.Hijacker
}

// GODEBUG=fips140=only forbids SHA-1 as cryptography; the handshake's is none.
func TestFIPS140(t *testing.T) {
	if v := runtime.Version(); strings.HasPrefix(v, "go1.25") {
		t.Skip("crypto/fips140.WithoutEnforcement is in Go 1.26")
	}
	const env = "WEBSOCKET_TEST_FIPS140"
	if os.Getenv(env) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestFIPS140$", "-test.v")
		cmd.Env = append(os.Environ(), env+"=1", "GODEBUG=fips140=only")
		out, err := cmd.CombinedOutput()
		if bytes.Contains(out, []byte("fips140: FIPS 140-3 mode is incompatible with")) {
			t.Skipf("not in this build: %s", out)
		}
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "PASS")
		return
	}
	ctx, cancel := context.WithTimeout(bg, time.Minute)
	defer cancel()
	s := httptest.NewServer(&Server{Handler: echo})
	defer s.Close()
	c, err := Dial(ctx, s.URL, nil)
	require.NoError(t, err)
	require.NoError(t, c.Write(ctx, Text("hello")))
	require.Equal(t, "text hello", read(t, c))
	require.NoError(t, c.Close(CloseNormalClosure, ""))
}

// BenchmarkHandshake is the server's half, in memory and without net/http's.
func BenchmarkHandshake(b *testing.B) {
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(
		edit(b, goodRequest, "\r\n\r\n", "\r\nOrigin: http://server.example.com\r\nSec-WebSocket-Protocol: chat\r\n\r\n"))))
	require.NoError(b, err)
	o := &AcceptOptions{Subprotocols: []string{"chat"}}
	w := &hijackable{h: make(http.Header), nc: unread{}}
	rw := bufio.NewReadWriter(bufio.NewReader(strings.NewReader("")), nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Upgrade(fixed{w, rw}, r, o); err != nil {
			b.Fatal(err)
		}
	}
}

// unread takes any output.
type unread struct{ net.Conn }

func (unread) Write(p []byte) (int, error)      { return len(p), nil }
func (unread) SetDeadline(time.Time) error      { return nil }
func (unread) SetWriteDeadline(time.Time) error { return nil }

// fixed hijacks without allocating.
type fixed struct {
	*hijackable
	rw *bufio.ReadWriter
}

func (w fixed) Hijack() (net.Conn, *bufio.ReadWriter, error) { return w.nc, w.rw, nil }
