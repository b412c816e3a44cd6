package websocket

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// serveRaw listens, reads a request of every connection that comes, and leaves
// the rest to script. It returns the address.
func serveRaw(t testing.TB, config *tls.Config, script func(nc net.Conn, r *http.Request)) string {
	return serveTCP(t, func(nc net.Conn) {
		if config != nil {
			nc = tls.Server(nc, config)
		}
		if r, err := http.ReadRequest(bufio.NewReader(nc)); err == nil {
			script(nc, r)
		}
	})
}

// serveTCP listens, and runs script with every connection that comes.
func serveTCP(t testing.TB, script func(net.Conn)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, nc)
			mu.Unlock()
			wg.Go(func() {
				defer nc.Close()
				nc.SetDeadline(time.Now().Add(time.Minute))
				script(nc)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, nc := range conns {
			nc.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

// answering replaces the sample's hash by that of r's key.
func answering(r *http.Request, response string) string {
	return strings.ReplaceAll(response, sampleAccept, AcceptKey(r.Header.Get("Sec-WebSocket-Key")))
}

// ended tells when the peer is gone.
func ended(nc net.Conn) error {
	n, err := nc.Read(make([]byte, 1))
	if n > 0 {
		return errors.New("the client tunnels")
	}
	if err == io.EOF || errors.Is(err, errReset) {
		return nil
	}
	return err
}

// drained reads until the peer is gone.
func drained(nc net.Conn) error {
	_, err := io.Copy(io.Discard, nc)
	if errors.Is(err, errReset) {
		return nil
	}
	return err
}

// within is a context for what ends by itself.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(bg, time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// echoes checks that c works.
func echoes(t testing.TB, c *Conn) {
	t.Helper()
	ctx := within(t)
	require.NoError(t, c.Write(ctx, Text("hello")))
	m, err := c.Read(ctx)
	require.NoError(t, err)
	require.Equal(t, "hello", string(m.Data))
	require.NoError(t, c.Close(CloseNormalClosure, ""))
}

// An answerRow is a server's answer, and what Dial makes of it.
type answerRow struct {
	name     string
	response string
	err      string // "" if it is a good one; "HandshakeError": see responseCases
	body     string
}

// answerRows are those of responseCases and others that have to do with bodies
// and with what net/http itself refuses.
func answerRows(t testing.TB) []answerRow {
	refused := func(status int, reason string) string {
		return fmt.Sprintf("websocket: handshake failed: %s (%d)", reason, status)
	}
	const noSwitch = "the server did not switch protocols"
	rows := []answerRow{
		{"A102 204", "HTTP/1.1 204 No Content\r\n\r\n", refused(204, noSwitch), ""},
		{"A102 302 to nowhere", "HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", refused(302, noSwitch), ""},
		{"A102 401", "HTTP/1.1 401 Unauthorized\r\nContent-Length: 5\r\n\r\nwho?\n", refused(401, noSwitch), "who?\n"},
		{"A102 407", "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", refused(407, noSwitch), ""},
		{"A102 426", "HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nno", refused(426, noSwitch), "no"},
		{"A102 999", "HTTP/1.1 999 \x1b[31m\r\n\r\n", refused(999, noSwitch), ""},
		{"A102 a body in chunks", "HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", refused(403, noSwitch), "abc"},
		{"A102 a body of 1 KiB", "HTTP/1.1 403 Forbidden\r\n\r\n" + strings.Repeat("a", 1024), refused(403, noSwitch), strings.Repeat("a", 1024)},
		{"A102 a longer body", "HTTP/1.1 403 Forbidden\r\nContent-Length: 30000000\r\n\r\n" + strings.Repeat("a", 1<<20), refused(403, noSwitch), strings.Repeat("a", 1024)},
		{"A102 no body end", "HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\nab", refused(403, noSwitch), "ab"},
		{"A102 a frame in a 200", "HTTP/1.1 200 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + sampleAccept + "\r\nContent-Length: 3\r\n\r\n\x81\x01a", refused(200, noSwitch), "\x81\x01a"},
		{"A102 100, 103, then 101", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + goodResponse, "", ""},
		{"A102 1xx flood", strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 10_000), "server response headers exceeded 65536 bytes; aborted", ""},
		{"A103 endless header", "HTTP/1.1 101 Switching Protocols\r\n" + strings.Repeat("A: b\r\n", 100_000), "server response headers exceeded 65536 bytes; aborted", ""},
		{"A103 endless line", "HTTP/1.1 101 Switching Protocols\r\nA: " + strings.Repeat("a", 1<<20), "server response headers exceeded 65536 bytes; aborted", ""},
		{"A103 endless status", "HTTP/1.1 101 " + strings.Repeat("a", 1<<20), "server response headers exceeded 65536 bytes; aborted", ""},
		{"A103 other bytes in values", edit(t, goodResponse, "\r\n\r\n", "\r\nA: \x80\xff\r\n\r\n"), "", ""},
		{"A121 no status", "HTTP/1.1 \x1b[31m" + strings.Repeat("a", 1000) + "\r\n\r\n", "", ""},
		{"A121 no HTTP", "\x1b[31m\xff\r\n\r\n", `websocket: malformed HTTP response "\x1b[31m\xff"`, ""},
		{"A121 no header", "HTTP/1.1 101 Switching\r\n\x1b[31m" + strings.Repeat("a", 1000) + "\r\n\r\n", "", ""},
		{"20.10.15 dropped inside the header", goodResponse[:50], "unexpected EOF", ""},
		{"dropped before", "", "EOF", ""},
	}
	for _, c := range responseCases {
		r := answerRow{c.name, edit(t, goodResponse, c.edit...), "", ""}
		if c.reason != "" {
			r.err = "HandshakeError"
		}
		rows = append(rows, r)
	}
	return rows
}

// check checks what Dial returned, and told OnResponse.
func (row answerRow) check(t testing.TB, conn *Conn, told *http.Response, err error) {
	t.Helper()
	var e *HandshakeError
	switch isRefusal := errors.As(err, &e); {
	case strings.HasPrefix(row.name, "A121"):
		require.Regexp(t, `^websocket: [ -~]{1,240}$`, fmt.Sprint(err))
	case row.err == "":
		require.NoError(t, err)
		require.Equal(t, 101, told.StatusCode)
		conn.CloseNow()
	case isRefusal:
		require.Same(t, told, e.Response)
		require.Equal(t, e.Status, told.StatusCode)
		body, err := io.ReadAll(told.Body)
		require.NoError(t, err)
		if row.err != "HandshakeError" {
			require.EqualError(t, e, row.err)
			require.Equal(t, row.body, string(body))
		}
	default: // in net/http's words
		require.Regexp(t, "^websocket: .*"+row.err+"$", fmt.Sprint(err))
		require.Nil(t, told)
	}
}

// A good answer is taken; after any other the connection is closed and nothing
// is sent on it.
func TestDialRows_4_1(t *testing.T) {
	noLeaks(t)
	for _, c := range answerRows(t) {
		t.Run(c.name, func(t *testing.T) {
			gone := make(chan error, 1)
			addr := serveRaw(t, nil, func(nc net.Conn, r *http.Request) {
				if io.WriteString(nc, answering(r, c.response)); c.err != "" && !strings.Contains(c.response, "Content-Length") {
					nc.(*net.TCPConn).CloseWrite()
				}
				if len(c.response) > 1<<16 {
					gone <- nil // reset with much of it unread
					return
				}
				gone <- ended(nc)
			})
			var told *http.Response
			conn, err := Dial(within(t), "ws://"+addr, &DialOptions{Subprotocols: []string{"a", "b"}, OnResponse: func(r *http.Response) { told = r }})
			c.check(t, conn, told, err)
			require.NoError(t, <-gone)
		})
	}
}

// Golden: what is asked. 20.10.17.
func TestDialRequest_4_1(t *testing.T) {
	noLeaks(t)
	requests := make(chan string, 1)
	addr := serveTCP(t, func(nc net.Conn) {
		var b strings.Builder
		r, err := http.ReadRequest(bufio.NewReader(io.TeeReader(nc, &b)))
		if err == nil {
			requests <- strings.Replace(b.String(), r.Header.Get("Sec-WebSocket-Key"), sampleKey, 1)
			io.WriteString(nc, answering(r, goodResponse))
			ended(nc)
		}
	})
	const tail = "Connection: Upgrade\r\nSec-WebSocket-Key: " + sampleKey + "\r\nSec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n\r\n"
	const agent = "User-Agent: Go-http-client/1.1\r\n"
	for _, c := range []struct {
		url  string
		o    *DialOptions
		want string
	}{
		{"ws://ADDR", nil, "GET / HTTP/1.1\r\nHost: ADDR\r\n" + agent + tail},
		{"ws://ADDR/", &DialOptions{}, "GET / HTTP/1.1\r\nHost: ADDR\r\n" + agent + tail},
		{"http://ADDR/a%20b?c=d&e", nil, "GET /a%20b?c=d&e HTTP/1.1\r\nHost: ADDR\r\n" + agent + tail},
		{"ws://ADDR?q", nil, "GET /?q HTTP/1.1\r\nHost: ADDR\r\n" + agent + tail},
		{"WS://user:pass@ADDR/é", nil, "GET /%C3%A9 HTTP/1.1\r\nHost: ADDR\r\n" + agent + "Authorization: Basic dXNlcjpwYXNz\r\n" + tail},
		{"ws://ADDR", &DialOptions{Subprotocols: []string{"chat", "superchat"}, Header: http.Header{
			"host": {"other.example:81"}, "user-agent": {"me"}, "x-a": {"1", "2"}, "Cookie": {"a=b"}}},
			"GET / HTTP/1.1\r\nHost: other.example:81\r\nUser-Agent: me\r\nConnection: Upgrade\r\nCookie: a=b\r\nSec-WebSocket-Key: " + sampleKey +
				"\r\nSec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Version: 13\r\nUpgrade: websocket\r\nX-A: 1\r\nX-A: 2\r\n\r\n"},
	} {
		var before http.Header
		if c.o != nil {
			before = c.o.Header.Clone()
		}
		conn, err := Dial(within(t), strings.Replace(c.url, "ADDR", addr, 1), c.o)
		require.NoError(t, err)
		conn.CloseNow()
		require.Equal(t, strings.ReplaceAll(c.want, "ADDR", addr), <-requests)
		if c.o != nil {
			require.Equal(t, before, c.o.Header, "the caller's stay as they were")
		}
	}
}

// A105: nothing leaves this side if the caller's part of it is wrong.
func TestDialRefuses(t *testing.T) {
	client := &http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) {
		t.Error("dialed")
		return nil, errors.New("dialed")
	})}
	for u, want := range map[string]string{
		"":                            `websocket: URL scheme "" is not ws or wss`,
		"a":                           `websocket: URL scheme "" is not ws or wss`,
		"ftp://a":                     `websocket: URL scheme "ftp" is not ws or wss`,
		"//a":                         `websocket: URL scheme "" is not ws or wss`,
		"ws:a":                        "websocket: URL without a host",
		"ws://":                       "websocket: URL without a host",
		"ws:///a":                     "websocket: URL without a host",
		"ws://:80":                    `websocket: URL host ":80"`,
		"ws://a/#":                    "websocket: URL with a space or a fragment",
		"ws://a/#b":                   "websocket: URL with a space or a fragment",
		"ws://a/b c":                  "websocket: URL with a space or a fragment",
		"ws://a b/":                   `websocket: URL: invalid character " " in host name`,
		"ws://a/\r\nX: y":             "websocket: URL: net/url: invalid control character in URL",
		"ws://a\n/":                   "websocket: URL: net/url: invalid control character in URL",
		"ws://a/\x00":                 "websocket: URL: net/url: invalid control character in URL",
		"ws://us\ner@a/":              "websocket: URL: net/url: invalid control character in URL",
		"ws://user:secret@a:port/":    `websocket: URL: invalid port ":port" after host`,
		"ws://a:99999/":               `websocket: URL host "a:99999"`,
		"ws://a%0d%0ab/":              `websocket: URL: invalid URL escape "%0d"`,
		"ws://a\"b/":                  `websocket: URL host "a\"b"`,
		"ws://a<b/":                   `websocket: URL host "a<b"`,
		"ws://[fe80::1%25eth0]/":      `websocket: URL host "[fe80::1%eth0]"`,
		"ws://[::1/":                  "websocket: URL: missing ']' in host",
		"ws://[127.0.0.1]/":           "",
		"ws://a/%zz":                  `websocket: URL: invalid URL escape "%zz"`,
		"ws://user:sec%ret@a/":        "",
		strings.Repeat("ws://a/", 10): "", // a path like any other
	} {
		c, err := Dial(bg, u, &DialOptions{Client: client, Header: http.Header{"Upgrade": {"x"}}})
		require.Nil(t, c)
		require.Error(t, err)
		require.NotContains(t, err.Error(), "secret")
		if want != "" {
			require.EqualError(t, err, want, "%q", u)
		}
	}
	for _, c := range []struct {
		o    DialOptions
		want string
	}{
		{DialOptions{Header: http.Header{"X-A": {"b\r\nX-C: d"}}}, `websocket: DialOptions.Header cannot be sent: "X-A"`},
		{DialOptions{Header: http.Header{"X-A": {"b\x00"}}}, `websocket: DialOptions.Header cannot be sent: "X-A"`},
		{DialOptions{Header: http.Header{"X A": {"b"}}}, `websocket: DialOptions.Header cannot be sent: "X A"`},
		{DialOptions{Header: http.Header{"Sec-WebSocket-Key": {sampleKey}}}, `websocket: DialOptions.Header cannot be sent: "Sec-WebSocket-Key"`},
		{DialOptions{Header: http.Header{"Content-Length": {"1"}}}, `websocket: DialOptions.Header cannot be sent: "Content-Length"`},
		{DialOptions{Header: http.Header{"Host": {"a b"}}}, `websocket: DialOptions.Header cannot be sent: Host ["a b"]`},
		{DialOptions{Header: http.Header{"Host": {"a", "b"}}}, `websocket: DialOptions.Header cannot be sent: Host ["a" "b"]`},
		{DialOptions{Header: http.Header{"host": {""}}}, `websocket: DialOptions.Header cannot be sent: Host [""]`},
		{DialOptions{Subprotocols: []string{"a b"}}, `websocket: DialOptions.Subprotocols are no distinct tokens: ["a b"]`},
		{DialOptions{Subprotocols: []string{"a\r\nb: c"}}, `websocket: DialOptions.Subprotocols are no distinct tokens: ["a\r\nb: c"]`},
		{DialOptions{Subprotocols: []string{"a", "a"}}, `websocket: DialOptions.Subprotocols are no distinct tokens: ["a" "a"]`},
	} {
		c.o.Client = client
		_, err := Dial(bg, "ws://a", &c.o)
		require.EqualError(t, err, c.want)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A107: frames that come in the same segment as the 101 are delivered once.
func TestDialEarlyInput(t *testing.T) {
	noLeaks(t)
	config, roots := certificate(t)
	for name, config := range map[string]*tls.Config{"ws": nil, "wss": config} {
		t.Run(name, func(t *testing.T) {
			early := string(frames(text, "one", bin, string(seq(10_000)), text, "two", closed, closeFrame(1000, "bye")))
			addr := serveRaw(t, config, func(nc net.Conn, r *http.Request) {
				io.WriteString(nc, answering(r, goodResponse)+early)
				if c, ok := nc.(*tls.Conn); ok {
					c.CloseWrite() // an end that the client may know already
				}
				nc.Read(make([]byte, 100))
			})
			c, err := Dial(within(t), name+"://"+addr, &DialOptions{Client: trusting(roots)})
			require.NoError(t, err)
			require.Equal(t, "text one", read(t, c))
			require.Equal(t, "binary "+string(seq(10_000)), read(t, c))
			require.Equal(t, "text two", read(t, c))
			_, err = c.Read(bg)
			require.Equal(t, &CloseError{CloseNormalClosure, "bye"}, err)
		})
	}
}

// certificate returns what a TLS server needs to be trusted as 127.0.0.1 and
// example.com, and who trusts it.
func certificate(t testing.TB) (*tls.Config, *x509.CertPool) {
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	defer s.Close()
	return &tls.Config{Certificates: s.TLS.Certificates}, s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
}

// trusting returns a client like the default one, but for whom it trusts.
func trusting(roots *x509.CertPool) *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = &tls.Config{RootCAs: roots}
	return &http.Client{Transport: t}
}

func TestDialTLS(t *testing.T) {
	noLeaks(t)
	config, roots := certificate(t)
	hellos := make(chan *tls.ClientHelloInfo, 1)
	serve := func(change func(*tls.Config)) string {
		config := config.Clone()
		config.GetConfigForClient = func(i *tls.ClientHelloInfo) (*tls.Config, error) {
			hellos <- i
			return nil, nil
		}
		change(config)
		return serveRaw(t, config, func(nc net.Conn, r *http.Request) {
			io.WriteString(nc, answering(r, goodResponse))
			NewConn(nc, Params{}).Serve(bg, &Handler{Message: func(c *Conn, m Message) { c.Queue(m) }})
		})
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			addr := serve(func(c *tls.Config) {
				c.MinVersion, c.MaxVersion, c.NextProtos = version, version, []string{"h2", "http/1.1"}
			})
			client := trusting(roots)
			client.Transport.(*http.Transport).ForceAttemptHTTP2 = true
			var version2 uint16
			c, err := Dial(within(t), "wss://"+addr, &DialOptions{Client: client, OnResponse: func(r *http.Response) { version2 = r.TLS.Version }})
			require.NoError(t, err)
			require.Equal(t, version, version2)
			require.NotContains(t, (<-hellos).SupportedProtos, "h2")
			require.IsType(t, (*tls.Conn)(nil), c.NetConn())
			echoes(t, c)
		})
	}
	for name, c := range map[string]struct {
		config *tls.Config
		want   string
	}{
		"A104 nobody trusts it": {nil, "websocket: tls: failed to verify certificate: x509: certificate signed by unknown authority"},
		"A104 another host":     {&tls.Config{RootCAs: roots, ServerName: "other.example"}, "websocket: tls: failed to verify certificate: x509: certificate is valid for example.com, *.example.com, not other.example"},
		"A104 expired":          {&tls.Config{RootCAs: roots, Time: func() time.Time { return time.Unix(1<<40, 0) }}, "websocket: tls: failed to verify certificate: x509: certificate has expired or is not yet valid: "},
		"version":               {&tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}, "websocket: remote error: tls: protocol version not supported"},
	} {
		t.Run(name, func(t *testing.T) {
			addr := serve(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 })
			_, err := Dial(within(t), "wss://"+addr, &DialOptions{Client: &http.Client{Transport: &http.Transport{TLSClientConfig: c.config}}})
			<-hellos
			require.ErrorContains(t, err, c.want)
			var e *HandshakeError
			require.NotErrorAs(t, err, &e)
		})
	}
}

// The pool of a client that has spoken HTTP/2 with the server does not matter.
func TestDialAfterHTTP2(t *testing.T) {
	noLeaks(t)
	ws := &Server{Handler: echo}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 1 {
			ws.ServeHTTP(w, r)
		}
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	resp, err := s.Client().Get(s.URL)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, 2, resp.ProtoMajor)
	c, err := Dial(within(t), s.URL, &DialOptions{Client: s.Client()})
	require.NoError(t, err)
	echoes(t, c)
	s.Client().CloseIdleConnections()
}

func TestDialRedirects(t *testing.T) {
	noLeaks(t)
	config, roots := certificate(t)
	type seen struct{ path, authorization, cookie, key, token, referer string }
	var mu sync.Mutex
	var log []seen
	var hosts [3]string // the third has TLS
	script := func(nc net.Conn, r *http.Request) {
		mu.Lock()
		log = append(log, seen{r.URL.Path, r.Header.Get("Authorization"), r.Header.Get("Cookie"), r.Header.Get("Sec-WebSocket-Key"), r.Header.Get("X-Token"), r.Header.Get("Referer")})
		mu.Unlock()
		to := r.URL.Query().Get("to")
		if to == "" {
			io.WriteString(nc, answering(r, goodResponse))
			NewConn(nc, Params{}).Serve(bg, &Handler{Message: func(c *Conn, m Message) { c.Queue(m) }})
			return
		}
		for i, h := range hosts {
			to = strings.ReplaceAll(to, "HOST"+strconv.Itoa(i), h)
		}
		status := r.URL.Query().Get("status")
		if status == "" {
			status = "302"
		}
		fmt.Fprintf(nc, "HTTP/1.1 %s Redirect\r\nLocation: %s\r\nSet-Cookie: jar=%s\r\nContent-Length: 0\r\n\r\n", status, to, r.URL.Path[1:])
		ended(nc)
	}
	hosts = [3]string{serveRaw(t, nil, script), serveRaw(t, nil, script), serveRaw(t, config, script)}
	dial := func(client *http.Client, path string) (*Conn, []seen, error) {
		mu.Lock()
		log = nil
		mu.Unlock()
		host := hosts[0]
		scheme := "ws://"
		if rest, ok := strings.CutPrefix(path, "wss"); ok {
			scheme, host, path = "wss://", hosts[2], rest
		}
		c, err := Dial(within(t), scheme+host+path, &DialOptions{Client: client,
			Header: http.Header{"Authorization": {"secret"}, "Cookie": {"own=1"}, "X-Token": {"t"}}})
		mu.Lock()
		defer mu.Unlock()
		return c, log, err
	}
	query := func(to string) string { return "?token=x&to=" + url.QueryEscape(to) }

	for _, status := range []string{"301", "302", "303", "307", "308"} {
		c, log, err := dial(nil, "/a"+query("/b")+"&status="+status)
		require.NoError(t, err)
		echoes(t, c)
		require.Len(t, log, 2)
		require.NotEqual(t, log[0].key, log[1].key, "20.10.17: a new key for every connection")
		log[1].key = ""
		require.Equal(t, seen{"/b", "secret", "own=1", "", "t", ""}, log[1], "the same host is trusted")
	}
	for _, to := range []string{"ws://HOST1/b", "http://HOST1/b", "//HOST1/b", "ws://HOST1/b" + query("ws://HOST0/b")} {
		c, log, err := dial(nil, "/a"+query(to))
		require.NoError(t, err)
		echoes(t, c)
		for _, s := range log[1:] {
			require.Equal(t, seen{"/b", "", "", s.key, "t", ""}, s, "A102: another port is another server, and the way back does not help")
		}
	}
	c, log, err := dial(trusting(roots), "wss/a"+query("wss://HOST2/b"))
	require.NoError(t, err)
	echoes(t, c)
	require.Equal(t, "secret", log[1].authorization)
	c, _, err = dial(trusting(roots), "/a"+query("wss://HOST2/b"))
	require.NoError(t, err, "from ws to wss is a step up")
	echoes(t, c)

	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	c, log, err = dial(&http.Client{Jar: jar}, "/a"+query("/b"))
	require.NoError(t, err)
	echoes(t, c)
	require.Equal(t, "own=1; jar=a", log[1].cookie)

	var e *HandshakeError
	_, log, err = dial(trusting(roots), "wss/a"+query("ws://HOST0/b"))
	require.EqualError(t, err, "websocket: handshake failed: redirected from wss to ws (302)")
	require.Len(t, log, 1)
	require.ErrorAs(t, err, &e)
	require.Equal(t, 302, e.Response.StatusCode)
	_, _, err = dial(trusting(roots), "wss/a"+query("http://HOST0/b"))
	require.EqualError(t, err, "websocket: handshake failed: redirected from wss to ws (302)")

	own := errors.New("own\r\nerror")
	_, _, err = dial(&http.Client{CheckRedirect: func(r *http.Request, via []*http.Request) error { return own }}, "/a"+query("/b"))
	require.ErrorIs(t, err, own)
	require.EqualError(t, err, `websocket: own\r\nerror`)
	_, _, err = dial(&http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, "/a"+query("/b"))
	require.EqualError(t, err, "websocket: handshake failed: the server did not switch protocols (302)")
	_, _, err = dial(nil, "/a"+query("ftp://HOST1/b"))
	require.EqualError(t, err, `websocket: unsupported protocol scheme "ftp"`)
	_, _, err = dial(nil, "/a"+query("http://[::1"))
	require.ErrorContains(t, err, "websocket: failed to parse Location header")

	round := serveRaw(t, nil, func(nc net.Conn, r *http.Request) {
		io.WriteString(nc, "HTTP/1.1 302 Found\r\nLocation: "+r.URL.Path+"x\r\nContent-Length: 0\r\n\r\n")
	})
	_, err = Dial(within(t), "ws://"+round, nil)
	require.EqualError(t, err, "websocket: handshake failed: more than 10 redirects (302)")
}

func TestSameServer(t *testing.T) {
	for _, c := range []struct {
		from, to string
		same     bool
	}{
		{"http://a", "http://a/b", true}, {"http://a", "http://A:80", true}, {"https://a", "https://a:443", true},
		{"http://a:81", "http://a:81", true}, {"http://a", "https://a", true}, {"http://[::1]", "http://[::1]:80", true},
		{"http://a", "http://b", false}, {"http://a", "http://a.b", false}, {"http://a", "http://b.a", false},
		{"http://a", "http://a:81", false}, {"http://a", "https://a:81", false}, {"https://a", "http://a", false}, {"http://a:443", "https://a", false},
	} {
		from, err := url.Parse(c.from)
		require.NoError(t, err)
		to, err := url.Parse(c.to)
		require.NoError(t, err)
		require.Equal(t, c.same, sameServer(from, to), "%s to %s", c.from, c.to)
	}
}

// A81: the end of the context ends the handshake at every step.
func TestDialContext(t *testing.T) {
	noLeaks(t)
	config, roots := certificate(t)
	why := errors.New("why")
	reached := make(chan struct{}, 1)
	gone := make(chan error, 1)
	hang := func(nc net.Conn) {
		reached <- struct{}{}
		gone <- drained(nc)
	}
	after := func(response string) func(net.Conn, *http.Request) {
		return func(nc net.Conn, r *http.Request) {
			io.WriteString(nc, response)
			hang(nc)
		}
	}
	afterHello := func(nc net.Conn) {
		nc.Read(make([]byte, 1000))
		hang(nc)
	}
	proxied := func(addr string) *http.Client {
		client := trusting(roots)
		client.Transport.(*http.Transport).Proxy = http.ProxyURL(&url.URL{Scheme: strings.Split(addr, "://")[0], Host: strings.Split(addr, "://")[1]})
		return client
	}
	stuck := trusting(roots)
	stuck.Transport.(*http.Transport).DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		reached <- struct{}{}
		<-ctx.Done()
		gone <- nil
		return nil, ctx.Err()
	}
	for _, c := range []struct {
		name, url string
		client    *http.Client
	}{
		{"TCP", "ws://127.0.0.1:1", stuck},
		{"TLS", "wss://" + serveTCP(t, afterHello), trusting(roots)},
		{"20.10.16 response", "ws://" + serveRaw(t, nil, after("")), nil},
		{"response over TLS", "wss://" + serveRaw(t, config, after("")), trusting(roots)},
		{"half a response", "ws://" + serveRaw(t, nil, after(goodResponse[:60])), nil},
		{"after 103", "ws://" + serveRaw(t, nil, after("HTTP/1.1 103 Early Hints\r\n\r\n")), nil},
		{"body of a redirect", "ws://" + serveRaw(t, nil, after("HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 9\r\n\r\na")), nil},
		{"CONNECT", "ws://a.example", proxied("http://" + serveTCP(t, afterHello))},
		{"CONNECT for wss", "wss://a.example", proxied("http://" + serveTCP(t, afterHello))},
		{"half an answer to CONNECT", "ws://a.example", proxied("http://" + serveRaw(t, nil, after("HTTP/1.1 200")))},
		{"after CONNECT", "ws://a.example", proxied("http://" + serveRaw(t, nil, after("HTTP/1.1 200 OK\r\n\r\n")))},
		{"TLS to a proxy", "ws://a.example", proxied("https://" + serveTCP(t, afterHello))},
		{"TLS through a proxy", "wss://a.example", proxied("http://" + serveRaw(t, nil, after("HTTP/1.1 200 OK\r\n\r\n")))},
		{"SOCKS5", "ws://a.example", proxied("socks5://" + serveTCP(t, afterHello))},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(bg)
			go func() {
				<-reached
				cancel(why)
			}()
			_, err := Dial(ctx, c.url, &DialOptions{Client: c.client})
			require.ErrorIs(t, err, why)
			require.EqualError(t, err, "websocket: handshake cut short: why")
			require.NoError(t, <-gone, "the connection is closed")
		})
	}
	t.Run("before", func(t *testing.T) {
		ctx, cancel := context.WithCancel(bg)
		cancel()
		_, err := Dial(ctx, "ws://127.0.0.1:1", nil)
		require.ErrorIs(t, err, context.Canceled)
	})
	t.Run("body of a refusal", func(t *testing.T) { // the answer is known
		ctx, cancel := context.WithCancelCause(bg)
		go func() {
			<-reached
			cancel(why)
		}()
		addr := serveRaw(t, nil, after("HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nab"))
		_, err := Dial(ctx, "ws://"+addr, nil)
		require.Error(t, err)
		require.NoError(t, <-gone)
	})
	t.Run("Client.Timeout", func(t *testing.T) {
		addr := serveRaw(t, nil, after(""))
		_, err := Dial(bg, "ws://"+addr, &DialOptions{Client: &http.Client{Timeout: time.Millisecond}})
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

// The end of the context after the handshake means nothing.
func TestDialContextAfterwards(t *testing.T) {
	noLeaks(t)
	for _, start := range []func(http.Handler) *httptest.Server{httptest.NewServer, httptest.NewTLSServer} {
		s := start(&Server{Handler: echo})
		ctx, cancel := context.WithCancel(bg)
		c, err := Dial(ctx, s.URL, &DialOptions{Client: s.Client()})
		require.NoError(t, err)
		cancel()
		read, stop := context.WithTimeout(bg, 100*time.Millisecond)
		_, err = c.Read(read)
		require.Equal(t, context.DeadlineExceeded, err, "nothing else ends it")
		stop()
		echoes(t, c)
		s.Close()
	}
	require.Zero(t, (&attempt{client: &http.Client{Timeout: time.Hour}}).http().Timeout)
}

func TestDialLimit(t *testing.T) {
	for _, c := range []struct {
		ctx, client, want time.Duration // 0: none
	}{
		{0, 0, handshakeTimeout}, {0, time.Minute, time.Minute}, {0, time.Second, time.Second},
		{time.Minute, 0, time.Minute}, {time.Minute, time.Second, time.Second}, {time.Second, time.Minute, time.Second},
	} {
		ctx := bg
		if c.ctx > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, c.ctx)
			defer cancel()
		}
		ctx, cancel := (&attempt{client: &http.Client{Timeout: c.client}}).limit(ctx)
		defer cancel()
		due, ok := ctx.Deadline()
		require.True(t, ok)
		left := time.Until(due)
		require.True(t, left <= c.want && left > c.want/2, "%v: %v", c, left)
	}
}

// Other RoundTrippers may do as they like, if they let the connection be known.
func TestDialRoundTrippers(t *testing.T) {
	noLeaks(t)
	s := httptest.NewServer(&Server{Handler: echo})
	defer s.Close()
	inner := &http.Transport{}
	defer inner.CloseIdleConnections()
	type hidden struct{ io.ReadCloser }
	for name, c := range map[string]struct {
		f   roundTripper
		err string
	}{
		"passes on": {inner.RoundTrip, ""},
		"wraps the body": {func(r *http.Request) (*http.Response, error) {
			resp, err := inner.RoundTrip(r.Clone(r.Context()))
			if err == nil {
				resp.Body = hidden{resp.Body}
			}
			return resp, err
		}, ""},
		"hides the connection": {func(r *http.Request) (*http.Response, error) {
			return inner.RoundTrip(r.WithContext(httptrace.WithClientTrace(bg, &httptrace.ClientTrace{})))
		}, "websocket: the http.Client's websocket.roundTripper hides its connection from net/http/httptrace"},
		"makes it up": {func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody}, nil
		}, "websocket: handshake failed: the server did not switch protocols (200)"},
		"fails": {func(r *http.Request) (*http.Response, error) { return nil, errors.New("why") }, "websocket: why"},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := Dial(within(t), s.URL, &DialOptions{Client: &http.Client{Transport: c.f}})
			if c.err != "" {
				require.EqualError(t, err, c.err)
				return
			}
			require.NoError(t, err)
			echoes(t, conn)
		})
	}
}

// timeless is a connection without deadlines, as in some tunnels.
type timeless struct{ net.Conn }

func (timeless) SetDeadline(time.Time) error     { return errors.ErrUnsupported }
func (timeless) SetReadDeadline(time.Time) error { return errors.ErrUnsupported }

func TestDialWithoutDeadlines(t *testing.T) {
	noLeaks(t)
	addr := serveRaw(t, nil, func(nc net.Conn, r *http.Request) {
		io.WriteString(nc, answering(r, goodResponse)+string(frames(text, "early")))
		NewConn(nc, Params{}).Serve(bg, &Handler{Message: func(c *Conn, m Message) { c.Queue(m) }})
	})
	c, err := Dial(within(t), "ws://"+addr, &DialOptions{Client: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			nc, err := new(net.Dialer).DialContext(ctx, network, addr)
			return timeless{nc}, err
		}}}})
	require.NoError(t, err)
	require.Equal(t, "text early", read(t, c))
	echoes(t, c)
}

// The errors that are not the server's say whose they are.
func TestDialErrors(t *testing.T) {
	noLeaks(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := l.Addr().String()
	l.Close()
	_, err = Dial(bg, "ws://user:secret@"+addr+"/path?token=secret", nil)
	var op *net.OpError
	require.ErrorAs(t, err, &op)
	require.EqualError(t, err, "websocket: dial tcp "+addr+": connect: connection refused")

	_, err = Dial(bg, "ws://b\u00fccher.invalid/", &DialOptions{Client: &http.Client{Transport: &http.Transport{
		DialContext: func(_ context.Context, _, addr string) (net.Conn, error) { return nil, errors.New(addr) }}}})
	require.EqualError(t, err, "websocket: xn--bcher-kva.invalid:80")
}

// OnResponse is given the answer, but not the connection.
func TestDialOnResponse(t *testing.T) {
	noLeaks(t)
	s := httptest.NewServer(&Server{Handler: echo})
	defer s.Close()
	var calls atomic.Int32
	c, err := Dial(within(t), s.URL, &DialOptions{OnResponse: func(r *http.Response) {
		calls.Add(1)
		require.Equal(t, "websocket", r.Header.Get("Upgrade"))
		b, err := io.ReadAll(r.Body)
		require.NoError(t, err)
		require.Empty(t, b)
		require.NoError(t, r.Body.Close())
	}})
	require.NoError(t, err)
	require.EqualValues(t, 1, calls.Load())
	require.IsType(t, (*net.TCPConn)(nil), c.NetConn())
	echoes(t, c)
}

// The caller's own limit holds, and its transport is left alone.
func TestDialTransport(t *testing.T) {
	noLeaks(t)
	addr := serveRaw(t, nil, func(nc net.Conn, r *http.Request) {
		io.WriteString(nc, edit(t, answering(r, goodResponse), "\r\n\r\n", "\r\nA: "+strings.Repeat("a", 100_000)+"\r\n\r\n"))
		ended(nc)
	})
	_, err := Dial(within(t), "ws://"+addr, nil)
	require.ErrorContains(t, err, "server response headers exceeded 65536 bytes; aborted", "A103")
	own := &http.Transport{MaxResponseHeaderBytes: 1 << 20}
	c, err := Dial(within(t), "ws://"+addr, &DialOptions{Client: &http.Client{Transport: own}})
	require.NoError(t, err)
	c.CloseNow()
	require.False(t, own.DisableKeepAlives)
}
