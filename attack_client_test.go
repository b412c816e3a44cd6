package websocket

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"go/ast"
	"go/token"
	"io"
	"math"
	"math/big"
	mrand "math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket/internal/memnet"
)

// What hostile servers and proxies do to a client, and what leaves this side:
// rows 85, 86, 101 to 107 and 121 to 123 of the catalogue of attacks, as far as
// other tests leave them.

// An answerer is a server in memory, for use in a bubble, that reads a request
// and leaves the rest to script. The client's input is cut.
type answerer struct {
	config *tls.Config
	cut    cut
	script func(nc net.Conn, r *http.Request)
	conns  []*cutConn // the client's ends, as they were dialed
}

func (a *answerer) client(config *tls.Config) *http.Client {
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: config,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			s, c := memnet.Pipe(4 << 20)
			client := &cutConn{Conn: c, cut: a.cut}
			a.conns = append(a.conns, client)
			go func() {
				defer s.Close()
				nc := net.Conn(s)
				if a.config != nil {
					nc = tls.Server(s, a.config)
				}
				if r, err := http.ReadRequest(bufio.NewReader(nc)); err == nil {
					a.script(nc, r)
				}
			}()
			return client, nil
		},
	}}
}

// A101, A102, A103, A121: every answer means the same however it comes, over TCP
// and TLS, whether or not compression was offered; of one that goes on for ever
// only a limited part is read; and after a refusal the connection is closed, and
// nothing was sent on it.
func TestAttackAnswers(t *testing.T) {
	secure, trust := clientTLS(t)
	rows := append(answerRows(t), answerRow{"A85 502", "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 4\r\n\r\ndown",
		"websocket: handshake failed: the server did not switch protocols (502)", "down"},
		answerRow{"A85 504", "HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 4\r\n\r\nslow",
			"websocket: handshake failed: the server did not switch protocols (504)", "slow"})
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			for _, mode := range []struct {
				url            string
				server, client *tls.Config
				z              *Compression
			}{{"ws://a.example", nil, nil, nil}, {"ws://a.example", nil, nil, new(Compression)}, {"wss://example.com", secure, trust, nil}} {
				if mode.z != nil && row.name == "A101 extension" {
					continue // it was offered then
				}
				for _, c := range handshakeCuts(row.response) {
					if c.name != "whole" && (mode.server != nil || mode.z != nil) {
						continue
					}
					synctest.Test(t, func(t *testing.T) {
						gone := make(chan error, 1)
						a := &answerer{config: mode.server, cut: c, script: func(nc net.Conn, r *http.Request) {
							io.WriteString(nc, answering(r, row.response))
							if row.err != "" && !strings.Contains(row.response, "Content-Length") {
								nc.(interface{ CloseWrite() error }).CloseWrite()
							}
							n, _ := nc.Read(make([]byte, 1))
							if n > 0 {
								gone <- errors.New("the client tunnels")
							}
							gone <- nil
						}}
						var told *http.Response
						conn, err := Dial(within(t), mode.url, &DialOptions{Client: a.client(mode.client), Subprotocols: []string{"a", "b"},
							Config: Config{Compression: mode.z}, OnResponse: func(r *http.Response) { told = r }})
						row.check(t, conn, told, err)
						require.NoError(t, <-gone)
						require.Less(t, a.conns[0].n.Load(), int64(100<<10), "bytes that were read")
					})
				}
			}
		})
	}
}

// A102, A103: a server that answers a byte a second, or goes on redirecting, has
// 10 s for all of it.
func TestAttackSlowAnswer(t *testing.T) {
	for name, response := range map[string]string{"101": goodResponse, "redirects": "HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &answerer{script: func(nc net.Conn, r *http.Request) {
					step := 1
					if name == "redirects" {
						step = 20
					}
					for s := answering(r, response); s != ""; s = s[min(step, len(s)):] {
						pass(time.Second)
						if _, err := io.WriteString(nc, s[:min(step, len(s))]); err != nil {
							return
						}
					}
				}}
				_, err := Dial(bg, "ws://a.example", &DialOptions{Client: a.client(nil)})
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.Equal(t, handshakeTimeout, since())
				pass(time.Minute)
			})
		})
	}
}

// A107: frames that come along with the 101 are delivered once, however they are
// cut, over TCP and TLS, in every way of driving the connection.
func TestAttackEarlyAnswer(t *testing.T) {
	secure, trust := clientTLS(t)
	early := string(frames(text, "one", ping, "p", bin0, string(seq(10_000)), cont, "end", text, "two", closed, closeFrame(1000, "bye")))
	want := []string{"text one", "binary " + string(seq(10_000)) + "end", "text two", "1000 bye"}
	for mode, configs := range map[string][2]*tls.Config{"plain": {}, "TLS": {secure, trust}} {
		for _, way := range []string{"Next", "Serve", "Feed"} {
			for _, c := range handshakeCuts(goodResponse + early) {
				t.Run(mode+" "+way+" "+c.name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						a := &answerer{config: configs[0], cut: c, script: func(nc net.Conn, r *http.Request) {
							io.WriteString(nc, answering(r, goodResponse)+early)
							io.Copy(io.Discard, nc)
						}}
						conn, err := Dial(within(t), map[string]string{"plain": "ws", "TLS": "wss"}[mode]+"://example.com",
							&DialOptions{Client: a.client(configs[1]), Config: quiet})
						require.NoError(t, err)
						require.Equal(t, want, drive(conn, way))
						pass(time.Minute)
					})
				})
			}
		}
	}
}

// drive reads c to its end in a way, and returns what came: messages, and why it
// ended.
func drive(c *Conn, way string) (got []string) {
	h := &Handler{Message: func(_ *Conn, m Message) { got = append(got, m.Type.String()+" "+string(m.Data)) }}
	var err error
	switch way {
	case "Next":
		for m, e := range c.Messages(bg) {
			if err = e; err == nil {
				h.Message(c, m)
			}
		}
	case "Serve":
		err = c.Serve(bg, h)
	case "Feed":
		err = c.Feed(nil, h)
		for p := make([]byte, 1<<16); err == nil; {
			n, e := c.NetConn().Read(p)
			if err = c.Feed(p[:n], h); err == nil && e != nil {
				err = c.Feed(nil, h)
			}
		}
	}
	return append(got, verdict(err))
}

// verdict is a short form of why a connection ended.
func verdict(err error) string {
	var rule *ProtocolError
	var peer *CloseError
	switch {
	case errors.As(err, &rule):
		return fmt.Sprint(int(rule.Code), " ", rule.Reason)
	case errors.As(err, &peer):
		return strings.TrimSpace(fmt.Sprint(int(peer.Code), " ", peer.Reason))
	}
	return fmt.Sprint(err)
}

// A104: SHA-1 is no signature, whoever made it; the server is told which name is
// meant; and all of this is the default.
func TestAttackCertificates(t *testing.T) {
	now := time.Now()
	key, err := rsa.GenerateKey(crand.Reader, 2048)
	require.NoError(t, err)
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(crand.Reader, root, root, key.Public(), key)
	require.NoError(t, err)
	root, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(root)
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	require.NoError(t, err)
	for _, c := range []struct {
		name   string
		change func(*x509.Certificate)
		client *tls.Config
		err    string // "" if it is a good one
	}{
		{"good", func(*x509.Certificate) {}, &tls.Config{RootCAs: pool}, ""},
		{"the system's roots", func(*x509.Certificate) {}, nil, "certificate signed by unknown authority"},
		{"SHA-1", func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA1WithRSA }, &tls.Config{RootCAs: pool}, "insecure algorithm SHA1-RSA"},
		{"another host", func(c *x509.Certificate) { c.DNSNames = []string{"evil.example"} }, &tls.Config{RootCAs: pool}, "certificate is valid for evil.example, not good.example"},
		{"a name that begins alike", func(c *x509.Certificate) { c.DNSNames = []string{"good.example.evil.example"} }, &tls.Config{RootCAs: pool}, "not good.example"},
		{"no name", func(c *x509.Certificate) { c.DNSNames = nil; c.Subject.CommonName = "good.example" }, &tls.Config{RootCAs: pool}, "relies on legacy Common Name"},
		{"expired", func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) }, &tls.Config{RootCAs: pool}, "certificate has expired"},
		{"not yet valid", func(c *x509.Certificate) { c.NotBefore = now.Add(time.Minute) }, &tls.Config{RootCAs: pool}, "is not yet valid"},
		{"for clients only", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, &tls.Config{RootCAs: pool}, "incompatible key usage"},
	} {
		t.Run(c.name, func(t *testing.T) {
			leaf := &x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: []string{"good.example"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}
			c.change(leaf)
			der, err := x509.CreateCertificate(crand.Reader, leaf, root, leafKey.Public(), key)
			require.NoError(t, err)
			names := make(chan string, 1)
			a := &answerer{config: &tls.Config{
				Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: leafKey}},
				GetConfigForClient: func(i *tls.ClientHelloInfo) (*tls.Config, error) {
					names <- i.ServerName
					return nil, nil
				},
			}, script: func(nc net.Conn, r *http.Request) {
				io.WriteString(nc, answering(r, goodResponse))
				NewConn(nc, Params{}).Serve(bg, &Handler{Message: func(c *Conn, m Message) { c.Queue(m) }})
			}}
			conn, err := Dial(within(t), "wss://good.example", &DialOptions{Client: a.client(c.client)})
			require.Equal(t, "good.example", <-names)
			if c.err == "" {
				require.NoError(t, err)
				echoes(t, conn)
				return
			}
			require.ErrorContains(t, err, c.err)
		})
	}
}

// A105: what a URL has escaped stays so: there is one request line, and no
// header of the caller's data. TestDialRefuses has what is refused before.
func TestAttackURLs(t *testing.T) {
	for u, want := range map[string]string{
		"ws://a.example/%0d%0aX:%20y":           "GET /%0d%0aX:%20y HTTP/1.1",
		"ws://a.example/?q=%0d%0aX:%20y":        "GET /?q=%0d%0aX:%20y HTTP/1.1",
		"ws://a.example/%00?%00":                "GET /%00?%00 HTTP/1.1",
		"ws://us%0d%0aX:y:pass%0a@a.example/":   "GET / HTTP/1.1",
		"ws://a.example/a%20HTTP/1.1%0d%0aX:":   "GET /a%20HTTP/1.1%0d%0aX: HTTP/1.1",
		"ws://a.example//evil.example/%2e%2e/x": "GET //evil.example/%2e%2e/x HTTP/1.1",
	} {
		synctest.Test(t, func(t *testing.T) {
			var line string
			var header http.Header
			a := &answerer{script: func(nc net.Conn, r *http.Request) {
				line, header = r.Method+" "+r.RequestURI+" "+r.Proto, r.Header
				io.WriteString(nc, answering(r, goodResponse))
				io.Copy(io.Discard, nc)
			}}
			c, err := Dial(within(t), u, &DialOptions{Client: a.client(nil)})
			require.NoError(t, err, u)
			c.CloseNow()
			require.Equal(t, want, line)
			require.NotContains(t, header, "X")
		})
	}
}

// A106: a million masking keys as they stand on the wire. They come from
// crypto/rand by way of ChaCha8: each byte is evenly distributed, no key comes
// more often than chance has it, and none follows from the one before.
func TestAttackMaskingKeys(t *testing.T) {
	a, b := keys.New().(*mrand.ChaCha8), keys.New().(*mrand.ChaCha8)
	require.NotEqual(t, a.Uint64(), b.Uint64(), "each generator has a seed of its own")
	n := 1_000_000
	if raceDetector {
		n = 200_000
	}
	for try := 1; ; try++ { // chance fails one in a thousand
		sink := new(keyCatcher)
		c := NewConn(sink, Params{Client: true, Config: quiet})
		for i := range n {
			require.NoError(t, c.Queue(Binary(nil)))
			if i%10_000 == 9_999 {
				require.NoError(t, c.Flush(bg))
			}
		}
		c.CloseNow()
		require.Len(t, sink.keys, n)
		worst := sink.worst()
		slices.Sort(sink.keys)
		repeated := n - len(slices.Compact(sink.keys))
		chance := float64(n) * float64(n) / 2 / (1 << 32)
		if worst < 330.5 && float64(repeated) < chance+4*math.Sqrt(chance)+4 { // chi-square with 255 degrees, p = 0.001
			return
		}
		require.Less(t, try, 4, "chi-square %.0f, %d keys repeated where chance has %.0f", worst, repeated, chance)
	}
}

// A keyCatcher is a transport that keeps the keys of empty frames.
type keyCatcher struct {
	net.Conn
	keys []uint32
}

func (k *keyCatcher) Write(p []byte) (int, error) {
	for b := p; len(b) > 0; {
		h, n := ParseHeader(b)
		if h.Masked && n == 6 {
			k.keys = append(k.keys, h.Key)
		}
		b = b[n:]
	}
	return len(p), nil
}
func (*keyCatcher) SetWriteDeadline(time.Time) error { return nil }
func (*keyCatcher) SetReadDeadline(time.Time) error  { return nil }
func (*keyCatcher) Close() error                     { return nil }

// worst is the largest chi-square of the bytes of the keys, and of those of each
// key's difference from the one before.
func (k *keyCatcher) worst() (worst float64) {
	for shift := 0; shift < 32; shift += 8 {
		var bytes, steps [256]float64
		for i, key := range k.keys {
			bytes[byte(key>>shift)]++
			if i > 0 {
				steps[byte((key-k.keys[i-1])>>shift)]++
			}
		}
		expected := float64(len(k.keys)) / 256
		var chi, chi2 float64
		for i := range bytes {
			chi += (bytes[i] - expected) * (bytes[i] - expected) / expected
			chi2 += (steps[i] - expected) * (steps[i] - expected) / expected
		}
		worst = max(worst, chi, chi2)
	}
	return worst
}

// A middle is a proxy in memory between Dial and a server, that changes the
// heads of request and response and then passes on what comes.
type middle struct {
	l                 *memListener
	request, response func(string) string
	pass              func(to, from *memnet.Conn) // from the server; nil: everything
}

func (m *middle) client() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		a, b := memnet.Pipe(1 << 20)
		s, _ := m.l.dial(cut{})
		go func() {
			defer s.Close()
			if passHead(s, a, m.request) == nil {
				io.Copy(s, a)
			}
		}()
		go func() {
			defer a.Close()
			if m.pass != nil {
				m.pass(a, s)
			} else if passHead(a, s, m.response) == nil {
				io.Copy(a, s)
			}
		}()
		return b, nil
	}}}
}

// passHead passes a head on, changed.
func passHead(to io.Writer, from io.Reader, change func(string) string) error {
	var head []byte
	for b := make([]byte, 1); !bytes.HasSuffix(head, []byte("\r\n\r\n")); {
		n, err := from.Read(b)
		if head = append(head, b[:n]...); err != nil {
			return err
		}
	}
	s := string(head)
	if change != nil {
		s = change(s)
	}
	_, err := io.WriteString(to, s)
	return err
}

// A86: a proxy that changes the handshake makes it fail on the side that can
// tell, with an error that says how, and nothing is left half open; one that
// only takes away what is optional does no harm.
func TestAttackRewritingProxy(t *testing.T) {
	without := func(name string) func(string) string {
		return func(s string) string {
			var kept []string
			for _, line := range strings.Split(s, "\r\n") {
				if !strings.HasPrefix(strings.ToLower(line), strings.ToLower(name)+":") {
					kept = append(kept, line)
				}
			}
			return strings.Join(kept, "\r\n")
		}
	}
	with := func(line string) func(string) string {
		return func(s string) string { return strings.TrimSuffix(s, "\r\n") + line + "\r\n\r\n" }
	}
	swap := func(old, new string) func(string) string {
		return func(s string) string { return strings.Replace(s, old, new, 1) }
	}
	on := &Compression{Threshold: 1}
	const failed = "websocket: handshake failed: "
	for _, c := range []struct {
		name              string
		request, response func(string) string
		server, client    *Compression
		err               string // "" if it succeeds
	}{
		{"nothing", nil, nil, nil, nil, ""},
		{"strips Upgrade", without("Upgrade"), nil, nil, nil, failed + "the server did not switch protocols (426)"},
		{"strips Connection", without("Connection"), nil, nil, nil, failed + "the server did not switch protocols (426)"},
		{"strips the key", without("Sec-WebSocket-Key"), nil, nil, nil, failed + "the server did not switch protocols (400)"},
		{"a second key", with("Sec-WebSocket-Key: " + sampleKey), nil, nil, nil, failed + "the server did not switch protocols (400)"},
		{"another key", func(s string) string {
			return with("Sec-WebSocket-Key: " + sampleKey)(without("Sec-WebSocket-Key")(s))
		}, nil, nil, nil, failed + `wrong Sec-WebSocket-Accept: "` + sampleAccept + `" (101)`},
		{"strips the version", without("Sec-WebSocket-Version"), nil, nil, nil, failed + "the server did not switch protocols (426)"},
		{"speaks HTTP/1.0", swap("HTTP/1.1", "HTTP/1.0"), nil, nil, nil, failed + "the server did not switch protocols (505)"},
		{"adds a body", with("Content-Length: 4"), nil, nil, nil, failed + "the server did not switch protocols (400)"},
		{"rewrites Origin", func(s string) string { return with("Origin: http://evil.example")(without("Origin")(s)) }, nil, nil, nil, failed + "the server did not switch protocols (403)"},
		{"rewrites Host", func(s string) string { return swap("Host: a.example", "Host: backend.example")(s) }, nil, nil, nil, failed + "the server did not switch protocols (403)"},
		{"strips Origin", without("Origin"), nil, nil, nil, ""},
		{"strips the offered extension", without("Sec-WebSocket-Extensions"), nil, on, on, ""},
		{"offers an extension", with("Sec-WebSocket-Extensions: permessage-deflate"), nil, on, nil,
			failed + `an extension was agreed that was not offered: "permessage-deflate; server_no_context_takeover; "... (101)`},
		{"strips Upgrade of the answer", nil, without("Upgrade"), nil, nil, failed + "Upgrade is not websocket (101)"},
		{"strips Connection of the answer", nil, without("Connection"), nil, nil, failed + "no upgrade in Connection (101)"},
		{"strips the hash", nil, without("Sec-WebSocket-Accept"), nil, nil, failed + "wrong Sec-WebSocket-Accept (101)"},
		{"answers in HTTP/1.0", nil, swap("HTTP/1.1", "HTTP/1.0"), nil, nil, failed + "the response is not HTTP/1.1 (101)"},
		{"answers 200", nil, swap("101 Switching Protocols", "200 OK"), nil, nil, failed + "the server did not switch protocols (200)"},
		{"agrees on an extension", nil, with("Sec-WebSocket-Extensions: permessage-deflate"), nil, nil, failed + `an extension was agreed that was not offered: "permessage-deflate" (101)`},
		{"agrees on it twice", nil, with("Sec-WebSocket-Extensions: permessage-deflate"), on, on, failed + `an extension was agreed that was not offered: "permessage-deflate; server_no_context_takeover; "... (101)`},
		{"agrees on another window", nil, swap("client_no_context_takeover", "client_max_window_bits=16"), on, on,
			failed + `an extension was agreed that was not offered: "permessage-deflate; server_no_context_takeover; "... (101)`},
		{"agrees on a subprotocol", nil, with("Sec-WebSocket-Protocol: evil"), nil, nil, failed + `a subprotocol was agreed that was not offered: "evil" (101)`},
	} {
		for name, accept := range acceptors {
			t.Run(c.name+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var calls atomic.Int32
					l, _ := serveMem(t, &http.Server{Handler: accept(AcceptOptions{Config: Config{Compression: c.server}}, &calls)}, nil)
					m := &middle{l: l, request: c.request, response: c.response}
					conn, err := Dial(within(t), "ws://a.example", &DialOptions{Client: m.client(), Config: Config{Compression: c.client},
						Header: http.Header{"Origin": {"http://a.example"}}})
					if c.err != "" {
						require.EqualError(t, err, c.err)
						return // the bubble ends only if no connection is left
					}
					require.NoError(t, err)
					echoes(t, conn)
				})
			})
		}
	}
	// What no side can tell at the handshake, the first compressed frame does.
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int32
		l, _ := serveMem(t, &http.Server{Handler: acceptors["Server"](AcceptOptions{Config: Config{Compression: on}}, &calls)}, nil)
		m := &middle{l: l, response: without("Sec-WebSocket-Extensions")}
		conn, err := Dial(within(t), "ws://a.example", &DialOptions{Client: m.client(), Config: Config{Compression: on}})
		require.NoError(t, err)
		require.NoError(t, conn.Write(bg, Text(strings.Repeat("a", 1000))))
		_, err = conn.Read(bg)
		require.Equal(t, error(errReserved), err)
	})
}

// A85: a proxy that cuts, after whatever byte, is told from a server that
// refuses and from a peer that says goodbye.
func TestAttackCuttingProxy(t *testing.T) {
	whole := len(goodResponse) + len(frames(text, "hello"))
	for n := range whole + 1 {
		for _, reset := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				var calls atomic.Int32
				l, _ := serveMem(t, &http.Server{Handler: acceptors["Server"](AcceptOptions{}, &calls)}, nil)
				m := &middle{l: l, pass: func(to, from *memnet.Conn) {
					io.CopyN(to, from, int64(n))
					pass(time.Second) // a reset takes back what was not read
					if reset {
						to.Reset()
					}
				}}
				conn, err := Dial(within(t), "ws://a.example", &DialOptions{Client: m.client()})
				want := io.ErrUnexpectedEOF
				if reset {
					want = errReset
				}
				if n < len(goodResponse) {
					var e *HandshakeError
					require.NotErrorAs(t, err, &e, n)
					if n == 0 && !reset {
						want = io.EOF
					}
					if !strings.Contains(fmt.Sprint(err), "malformed ") { // net/http's word for half a line
						require.ErrorIs(t, err, want, n)
					}
					return
				}
				require.NoError(t, err)
				go conn.Write(bg, Text("hello"))
				m2, err := conn.Read(bg)
				if n == whole {
					require.NoError(t, err)
					require.Equal(t, "hello", string(m2.Data))
					_, err = conn.Read(bg)
				}
				require.ErrorIs(t, err, want, n)
				require.Equal(t, CloseAbnormalClosure, CodeOf(err))
			})
		}
	}
}

// A85: a proxy that cuts what was silent for a minute does not cut a connection
// with the default keepalive; without it, it does, and the error says so. One
// that holds bytes back for a while loses nothing.
func TestAttackIdleProxy(t *testing.T) {
	idle := func(to, from *memnet.Conn) {
		p := make([]byte, 1<<10)
		for {
			from.SetReadDeadline(time.Now().Add(time.Minute))
			n, err := from.Read(p)
			if err != nil {
				return
			}
			to.Write(p[:n])
		}
	}
	for _, c := range []struct {
		name   string
		config Config
		want   error
	}{{"pings", Config{}, context.DeadlineExceeded}, {"no pings", quiet, io.ErrUnexpectedEOF}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var calls atomic.Int32
				l, _ := serveMem(t, &http.Server{Handler: acceptors["Server"](AcceptOptions{Config: c.config}, &calls)}, nil)
				m := &middle{l: l, pass: idle}
				conn, err := Dial(within(t), "ws://a.example", &DialOptions{Client: m.client(), Config: c.config})
				require.NoError(t, err)
				ctx, cancel := context.WithTimeout(bg, time.Hour)
				defer cancel()
				_, err = conn.Read(ctx)
				require.ErrorIs(t, err, c.want)
				if c.want == context.DeadlineExceeded {
					echoes(t, conn)
				}
			})
		})
	}
	t.Run("buffers", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var calls atomic.Int32
			l, _ := serveMem(t, &http.Server{Handler: acceptors["Server"](AcceptOptions{}, &calls)}, nil)
			m := &middle{l: l, pass: func(to, from *memnet.Conn) {
				p := make([]byte, 1<<20)
				for {
					n, err := from.Read(p)
					if err != nil {
						return
					}
					pass(time.Second)
					to.Write(p[:n])
				}
			}}
			conn, err := Dial(within(t), "ws://a.example", &DialOptions{Client: m.client()})
			require.NoError(t, err)
			go func() {
				for i := range 100 {
					conn.Write(bg, Text(strconv.Itoa(i)))
				}
			}()
			for i := range 100 {
				require.Equal(t, "text "+strconv.Itoa(i), read(t, conn))
			}
			require.NoError(t, conn.Close(1000, ""))
		})
	})
}

// A121: whatever a peer sends, the texts of errors are one line of at most 256
// printable bytes, and a server logs nothing of it.
func TestAttackErrorTexts(t *testing.T) {
	evil := map[string]string{
		"ANSI": "\x1b[2J\x1b]0;title\x07", "lines": "a\r\nb\nlevel=info msg=forged", "NUL": "\x00\x00", "bidi": "\u202e\u2066evil",
		"high": "\x80\xff\xfe", "tags": strings.Repeat("\U000e0001", 30), "controls": strings.Repeat("\x01", 123), "1 MB": strings.Repeat("\x1b[31m", 200_000),
		"quotes": strings.Repeat(`"\`, 61), "plain": strings.Repeat("a", 123), "euro": strings.Repeat("€", 41), "format": "%s%n%!x",
	}
	fit := func(t *testing.T, err error) {
		t.Helper()
		require.Error(t, err)
		require.Regexp(t, `^[ -~]{1,256}$`, err.Error())
	}
	for name, s := range evil {
		t.Run(name, func(t *testing.T) {
			fit(t, &CloseError{4000, s}) // a reason has 123 bytes at most, but who knows who made the error
			fit(t, &closedError{4000, s})
			fit(t, &dialError{errors.New(s)})
			r := &http.Request{Method: s, ProtoMajor: 1, ProtoMinor: 1, Host: s, Header: http.Header{"Origin": {s}, hKey: {s}, hProtocol: {s}, hExtensions: {s}}}
			var lines logged
			w := &hijackable{h: make(http.Header)}
			_, err := Accept(w, r, nil)
			fit(t, err)
			require.Equal(t, "origin not allowed\n", w.body.String())
			for _, name := range []string{"Upgrade", "Connection", hAccept, hExtensions, hProtocol} {
				h := http.Header{"Upgrade": {"websocket"}, "Connection": {"Upgrade"}, hAccept: {sampleAccept}}
				h[name] = []string{s, s}
				fit(t, checkResponse(&http.Response{StatusCode: 101, ProtoMajor: 1, ProtoMinor: 1, Header: h}, sampleKey, nil, nil))
			}
			require.Empty(t, lines.String())
		})
	}
	// A reason is cut between two characters, and as it is in the field.
	synctest.Test(t, func(t *testing.T) {
		c, r := rawPeer(t, Params{Config: quiet})
		reason := strings.Repeat("\U0001f4a9", 30)
		r.send(masked(closed, 1), closeFrame(4000, reason))
		_, err := c.Read(bg)
		require.Equal(t, &CloseError{4000, reason}, err)
		require.Regexp(t, `^websocket: closed by the peer: 4000 "(\\U0001f4a9)+"\.\.\.$`, err.Error())
	})
}

// A122: nothing of a pooled buffer's past leaves this side. The pools are filled
// with buffers full of a pattern first; what is on the wire is then compared byte
// by byte.
func TestAttackPooledMemory(t *testing.T) {
	const pattern = 0xdb
	taint := func() {
		for size := 1 << minBuffer; size <= 1<<17; size *= 2 {
			var all []*buffer
			for range 2 {
				b := borrow(size)
				b.b = b.b[:cap(b.b)]
				for i := range b.b {
					b.b[i] = pattern
				}
				all = append(all, b)
			}
			for _, b := range all {
				b.release()
			}
		}
	}
	for _, client := range []bool{false, true} {
		for _, terms := range []string{"", "permessage-deflate", "permessage-deflate; server_no_context_takeover; client_no_context_takeover"} {
			synctest.Test(t, func(t *testing.T) {
				cfg := quiet
				cfg.Compression = &Compression{Threshold: 1}
				c, r := rawPeer(t, Params{Client: client, Config: cfg, Extensions: terms})
				peer := NewConn(r, Params{Client: !client, Config: cfg, Extensions: terms})
				defer peer.CloseNow()
				go c.Serve(bg, nil)
				for _, n := range []int{0, 1, 125, 126, 513, 5000, 65535, 65536} {
					taint()
					for _, m := range []Message{Binary(seq(n)), Prepare(Text(string(seq(n)))), {Type: MessageBinary, Data: seq(n), Plain: true}} {
						require.NoError(t, c.Queue(m))
						go c.Flush(bg)
						got, err := peer.Read(bg)
						require.NoError(t, err)
						require.True(t, bytes.Equal(m.Data, got.Data), n)
						synctest.Wait()
					}
				}
				if terms != "" {
					return // what is inflated is right: that is all there is
				}
				taint()
				peer.CloseNow()
			})
		}
		synctest.Test(t, func(t *testing.T) { // the rest, frame by frame
			c, r := rawPeer(t, Params{Client: client, Config: quiet})
			taint()
			h := masked(ping, 1)
			if client {
				h = ping
			}
			r.send(h, "p", h, "", h, strings.Repeat("q", 125))
			go c.Serve(bg, nil)
			r.expect(pong, "p", pong, "", pong, strings.Repeat("q", 125))
			taint()
			w, err := c.Writer(bg, MessageBinary)
			require.NoError(t, err)
			w.Write(seq(10))
			taint()
			w.Write(seq(9000))
			require.NoError(t, w.Close())
			var got []byte
			for len(got) < 9010 {
				f := r.frame()
				h, n := ParseHeader(f)
				require.False(t, h.Opcode.control())
				got = append(got, f[n:]...)
			}
			require.Equal(t, string(seq(10))+string(seq(9000)), string(got))
			taint()
			go c.Close(4000, "bye")
			for f := r.frame(); ; f = r.frame() {
				if h, n := ParseHeader(f); h.Opcode == OpClose {
					require.Equal(t, closeFrame(4000, "bye"), string(f[n:]))
					break
				}
			}
			c.CloseNow()
		})
	}
	for range 10 { // the answer to a handshake is put together in a borrowed buffer
		taint()
		require.Equal(t, goodResponse, answered(t, goodRequest))
	}
}

// answered returns what Upgrade writes.
func answered(t *testing.T, request string) string {
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(request)))
	require.NoError(t, err)
	a, b := memnet.Pipe(1 << 16)
	w := &hijackable{h: make(http.Header), nc: a}
	_, _, err = Upgrade(w, r, nil)
	require.NoError(t, err)
	a.Close()
	out, err := io.ReadAll(b)
	require.NoError(t, err)
	return string(out)
}

// sent are all the texts that this library ever sends to a peer: bodies of HTTP
// answers, and reasons in close frames. They are fixed, and reveal nothing.
var sent = []string{
	"400 Sec-WebSocket-Key is not one key of 16 bytes",
	"400 no valid Host",
	"400 not an HTTP/1.1 request",
	"400 request has a body",
	"403 origin not allowed",
	"405 method is not GET",
	"426 Sec-WebSocket-Version is not 13",
	"426 no upgrade in Connection",
	"426 no websocket in Upgrade",
	"500 Internal Server Error",
	"503 the server is shutting down",
	"505 not an HTTP/1.1 request",
	"close 1002 close code that must not be sent",
	"close 1002 close frame with half a code",
	"close 1002 continuation of no message",
	"close 1002 fragmented or oversized control frame",
	"close 1002 malformed frame length",
	"close 1002 masked frame from a server",
	"close 1002 message inside a message",
	"close 1002 reserved bit set",
	"close 1002 unknown opcode",
	"close 1002 unmasked frame from a client",
	"close 1007 close reason that is not UTF-8",
	"close 1007 invalid UTF-8",
	"close 1007 malformed compressed data",
	"close 1008 compressed data that yields too little",
	"close 1008 pause inside a message",
	"close 1008 too many fragments",
	"close 1009 message too big",
}

// A123: the source has no other text for peers than those listed: every
// ProtocolError and every HandshakeError with a status is made of constants, and
// close frames get no other reasons.
func TestAttackTexts(t *testing.T) {
	statuses := map[string]int{"StatusBadRequest": 400, "StatusForbidden": 403, "StatusMethodNotAllowed": 405, "StatusUpgradeRequired": 426,
		"StatusInternalServerError": 500, "StatusServiceUnavailable": 503, "StatusHTTPVersionNotSupported": 505}
	codes := map[string]CloseCode{"CloseProtocolError": 1002, "CloseInvalidFramePayloadData": 1007, "ClosePolicyViolation": 1008, "CloseMessageTooBig": 1009}
	fset, files := parse(t, ".")
	var got []string
	constant := func(e ast.Expr) (string, bool) {
		switch e := e.(type) {
		case *ast.BasicLit:
			s, err := strconv.Unquote(e.Value)
			return s, err == nil && e.Kind == token.STRING
		case *ast.Ident:
			return badOrigin, e.Name == "badOrigin"
		case *ast.BinaryExpr: // badOrigin with what was received: for the caller, refuse is given the constant
			id, ok := e.X.(*ast.Ident)
			return badOrigin, ok && id.Name == "badOrigin"
		}
		return "", false
	}
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			at := func() string { return fset.Position(n.Pos()).String() }
			switch n := n.(type) {
			case *ast.CompositeLit:
				name, _ := n.Type.(*ast.Ident)
				switch {
				case name == nil || len(n.Elts) == 0:
				case name.Name == "ProtocolError":
					code, ok := n.Elts[0].(*ast.Ident)
					reason, fixed := constant(n.Elts[1])
					require.True(t, ok && fixed && codes[code.Name] != 0, "A123: %s is no fixed text", at())
					got = append(got, fmt.Sprintf("close %d %s", codes[code.Name], reason))
				case name.Name == "HandshakeError":
					var status, reason ast.Expr
					for _, e := range n.Elts {
						kv := e.(*ast.KeyValueExpr)
						switch kv.Key.(*ast.Ident).Name {
						case "Status":
							status = kv.Value
						case "Reason":
							reason = kv.Value
						}
					}
					s, ok := status.(*ast.SelectorExpr)
					if !ok || s.Sel.Name == "StatusCode" {
						return true // a client's
					}
					text, fixed := constant(reason)
					if s.Sel.Name == "StatusInternalServerError" {
						text, fixed = http.StatusText(500), true // refuse puts it in the place of the reason: see TestAcceptRefusals
					}
					require.True(t, fixed && statuses[s.Sel.Name] != 0, "A123: %s is no fixed text", at())
					got = append(got, fmt.Sprintf("%d %s", statuses[s.Sel.Name], text))
				}
			case *ast.CallExpr:
				f, ok := n.Fun.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				name := f.Sel.Name
				if x, ok := f.X.(*ast.Ident); !ok || x.Name != "c" {
					return true // no Conn
				}
				arg, ok := map[string]int{"finish": 1, "sayGoodbye": 1, "Close": 1}[name]
				if !ok || len(n.Args) <= arg {
					return true
				}
				switch a := n.Args[arg].(type) {
				case *ast.BasicLit:
					require.Equal(t, `""`, a.Value, "A123: %s", at())
				case *ast.SelectorExpr:
					require.Equal(t, "Reason", a.Sel.Name, "A123: %s", at())
				case *ast.Ident: // handed on
					require.Equal(t, "reason", a.Name, "A123: %s", at())
				default:
					t.Errorf("A123: %s", at())
				}
			}
			return true
		})
	}
	slices.Sort(got)
	require.Equal(t, sent, slices.Compact(got))
	for _, s := range sent {
		require.Regexp(t, `^[ -~]{1,123}$`, s)
	}
}
