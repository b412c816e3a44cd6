package websocket

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// splice passes on what comes on either connection until both have ended.
func splice(a io.Reader, ac, b net.Conn) {
	var wg sync.WaitGroup
	pass := func(to net.Conn, from io.Reader) {
		io.Copy(to, from)
		to.Close()
	}
	wg.Go(func() { pass(b, a) })
	wg.Go(func() { pass(ac, b) })
	wg.Wait()
}

// A proxy is a real one, except that every tunnel ends at one server.
type proxy struct {
	backend string
	auth    string // user:password that is asked for; "" for none
	mu      sync.Mutex
	seen    []string // "target, header X-Proxy"
	wg      sync.WaitGroup
}

func (p *proxy) note(s string) {
	p.mu.Lock()
	p.seen = append(p.seen, s)
	p.mu.Unlock()
}

func (p *proxy) targets() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen
}

// ServeHTTP is an HTTP proxy that knows CONNECT only (RFC 9110 section 9.3.6).
func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, password, _ := (&http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}).BasicAuth()
	switch {
	case r.Method != http.MethodConnect:
		http.Error(w, "CONNECT only", http.StatusNotImplemented)
		return
	case p.auth != "" && user+":"+password != p.auth:
		w.Header().Set("Proxy-Authenticate", "Basic")
		http.Error(w, "who are you?", http.StatusProxyAuthRequired)
		return
	}
	p.wg.Add(1)
	defer p.wg.Done()
	p.note(r.RequestURI + strings.Join(r.Header["X-Proxy"], " "))
	b, err := net.Dial("tcp", p.backend)
	if err != nil {
		http.Error(w, "nobody there", http.StatusBadGateway)
		return
	}
	a, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		b.Close()
		return
	}
	io.WriteString(a, "HTTP/1.1 200 Connection established\r\n\r\n")
	splice(rw, a, b)
}

// socks5 is a SOCKS5 proxy (RFC 1928, RFC 1929).
func (p *proxy) socks5(nc net.Conn) {
	br := bufio.NewReader(nc)
	take := func(n int) []byte {
		b := make([]byte, n)
		io.ReadFull(br, b)
		return b
	}
	methods := take(int(take(2)[1]))
	method := byte(0)
	if p.auth != "" {
		method = 2
	}
	if !strings.Contains(string(methods), string(method)) {
		nc.Write([]byte{5, 0xff})
		return
	}
	nc.Write([]byte{5, method})
	if p.auth != "" {
		user := take(int(take(2)[1]))
		password := take(int(take(1)[0]))
		if string(user)+":"+string(password) != p.auth {
			nc.Write([]byte{1, 1})
			return
		}
		nc.Write([]byte{1, 0})
	}
	var host string
	switch head := take(4); head[3] {
	case 1:
		host = net.IP(take(4)).String()
	case 3:
		host = string(take(int(take(1)[0])))
	}
	p.note(fmt.Sprintf("%s:%d", host, binary.BigEndian.Uint16(take(2))))
	b, err := net.Dial("tcp", p.backend)
	if err != nil {
		nc.Write([]byte{5, 5, 0, 1, 0, 0, 0, 0, 0, 0})
		return
	}
	nc.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
	splice(br, nc, b)
}

// startProxy starts a proxy to backend, and returns its URL.
func startProxy(t *testing.T, scheme, backend, auth string) (*proxy, *url.URL) {
	p := &proxy{backend: backend, auth: auth}
	u := &url.URL{Scheme: scheme}
	switch scheme {
	case "http", "https":
		s := httptest.NewUnstartedServer(p)
		s.Config.ErrorLog = log.New(io.Discard, "", 0) // of clients that do not trust it
		if scheme == "http" {
			s.Start()
		} else {
			s.StartTLS()
		}
		t.Cleanup(func() {
			s.Close()
			p.wg.Wait()
		})
		u.Host = s.Listener.Addr().String()
	default:
		u.Host = serveTCP(t, p.socks5)
	}
	if auth != "" {
		user, password, _ := strings.Cut(auth, ":")
		u.User = url.UserPassword(user, password)
	}
	return p, u
}

// RFC 6455 section 4.1: the client asks the proxy to CONNECT, for ws as for wss.
func TestProxies_4_1(t *testing.T) {
	noLeaks(t)
	_, roots := certificate(t)
	plain := httptest.NewServer(&Server{Handler: echo})
	defer plain.Close()
	secure := httptest.NewTLSServer(&Server{Handler: echo})
	defer secure.Close()
	for _, scheme := range []string{"http", "https", "socks5", "socks5h"} {
		for _, auth := range []string{"", "user:p@ss word"} {
			for target, backend := range map[string]*httptest.Server{"ws://example.com": plain, "wss://example.com": secure, "ws://example.com:8080": plain, "wss://example.com:8443": secure} {
				t.Run(fmt.Sprintf("%s %s %s", scheme, auth, target), func(t *testing.T) {
					noLeaks(t)
					p, u := startProxy(t, scheme, backend.Listener.Addr().String(), auth)
					client := trusting(roots)
					calls := 0
					client.Transport.(*http.Transport).Proxy = func(r *http.Request) (*url.URL, error) {
						calls++
						require.Equal(t, strings.Replace(target, "ws", "http", 1), r.URL.String())
						return u, nil
					}
					c, err := Dial(within(t), target, &DialOptions{Client: client})
					require.NoError(t, err)
					_, isTLS := c.NetConn().(*tls.Conn)
					require.Equal(t, isTLS, scheme == "https" || backend == secure)
					echoes(t, c)
					require.Equal(t, 1, calls)
					require.Equal(t, []string{map[string]string{
						"ws://example.com": "example.com:80", "wss://example.com": "example.com:443",
						"ws://example.com:8080": "example.com:8080", "wss://example.com:8443": "example.com:8443"}[target]}, p.targets())
				})
			}
		}
	}
}

// A85, A86, A104: what a proxy answers instead.
func TestProxyRefuses(t *testing.T) {
	noLeaks(t)
	_, roots := certificate(t)
	dial := func(target string, u *url.URL) error {
		client := trusting(roots)
		client.Transport.(*http.Transport).Proxy = http.ProxyURL(u)
		_, err := Dial(within(t), target, &DialOptions{Client: client, OnResponse: func(*http.Response) { t.Error("the server has not answered") }})
		return err
	}
	for _, target := range []string{"ws://example.com", "wss://example.com"} {
		for _, c := range []struct {
			name, answer string
			status       int
			err, body    string
		}{
			{"407", "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 4\r\n\r\nwho?", 407, "the proxy refused", "who?"},
			{"502", "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 4\r\n\r\ndown", 502, "the proxy refused", "down"},
			{"504 and a long body", "HTTP/1.1 504 Gateway Timeout\r\n\r\n" + strings.Repeat("a", 1<<20), 504, "the proxy refused", strings.Repeat("a", 1024)},
			{"302", "HTTP/1.1 302 Found\r\nLocation: http://evil.example/\r\n\r\n", 302, "the proxy refused", ""},
			{"101", "HTTP/1.1 101 Switching Protocols\r\n\r\n", 101, "the proxy refused", ""},
			{"early data", "HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 101 Switching", 200, "the proxy sent more than its answer", ""},
		} {
			t.Run(target+" "+c.name, func(t *testing.T) {
				addr := serveRaw(t, nil, func(nc net.Conn, r *http.Request) {
					io.WriteString(nc, c.answer)
					nc.(*net.TCPConn).CloseWrite()
					ended(nc)
				})
				err := dial(target, &url.URL{Scheme: "http", Host: addr})
				var e *HandshakeError
				require.ErrorAs(t, err, &e)
				require.EqualError(t, err, fmt.Sprintf("websocket: handshake failed: %s (%d)", c.err, c.status))
				require.Equal(t, c.status, e.Response.StatusCode)
				body, err := io.ReadAll(e.Response.Body)
				require.NoError(t, err)
				require.Equal(t, c.body, string(body))
			})
		}
		for name, answer := range map[string]string{
			"no HTTP":        "\x1b[31m\xff\r\n\r\n",
			"nothing":        "",
			"endless header": "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", 100_000),
			"endless 1xx":    strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 10_000),
		} {
			t.Run(target+" "+name, func(t *testing.T) {
				addr := serveRaw(t, nil, func(nc net.Conn, r *http.Request) { io.WriteString(nc, answer) })
				require.Regexp(t, "^websocket: proxy: [ -~]+$", fmt.Sprint(dial(target, &url.URL{Scheme: "http", Host: addr})))
			})
		}
		t.Run(target+" the real one", func(t *testing.T) {
			_, u := startProxy(t, "http", "127.0.0.1:1", "user:secret")
			require.EqualError(t, dial(target, u), "websocket: handshake failed: the proxy refused (502)")
			u.User = url.UserPassword("user", "wrong")
			require.EqualError(t, dial(target, u), "websocket: handshake failed: the proxy refused (407)")
			u.User = nil
			require.EqualError(t, dial(target, u), "websocket: handshake failed: the proxy refused (407)")
		})
		t.Run(target+" nobody there", func(t *testing.T) {
			require.ErrorContains(t, dial(target, &url.URL{Scheme: "http", Host: "127.0.0.1:1"}), "websocket: proxy: dial tcp 127.0.0.1:1: ")
		})
		t.Run(target+" A104 a proxy that nobody trusts", func(t *testing.T) {
			_, u := startProxy(t, "https", "127.0.0.1:1", "")
			_, err := Dial(within(t), target, &DialOptions{Client: &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(u)}}})
			require.ErrorContains(t, err, "websocket: proxy: tls: failed to verify certificate: ")
		})
	}
}

// The fields of http.Transport that concern proxies are heeded.
func TestProxyTransport(t *testing.T) {
	noLeaks(t)
	config, roots := certificate(t)
	backend := httptest.NewServer(&Server{Handler: echo})
	defer backend.Close()
	addr := backend.Listener.Addr().String()
	target := "ws://a.example"
	dial := func(t *testing.T, u *url.URL, change func(*http.Transport)) error {
		client := trusting(roots)
		transport := client.Transport.(*http.Transport)
		transport.Proxy = http.ProxyURL(u)
		change(transport)
		c, err := Dial(within(t), target, &DialOptions{Client: client})
		if err == nil {
			echoes(t, c)
		}
		return err
	}
	t.Run("ProxyConnectHeader", func(t *testing.T) {
		p, u := startProxy(t, "http", addr, "user:secret")
		h := http.Header{"X-Proxy": {"/1"}}
		require.NoError(t, dial(t, u, func(t *http.Transport) { t.ProxyConnectHeader = h }))
		require.Equal(t, []string{"a.example:80/1"}, p.targets())
		require.Len(t, h, 1, "the caller's stays as it was")
		err := dial(t, u, func(t *http.Transport) { t.ProxyConnectHeader = http.Header{"X-Proxy": {"1\r\nX: y"}} })
		require.EqualError(t, err, `websocket: header for the proxy cannot be sent: "X-Proxy"`, "R18")
	})
	t.Run("GetProxyConnectHeader", func(t *testing.T) {
		p, u := startProxy(t, "http", addr, "user:secret")
		h := make(http.Header)
		get := func(_ context.Context, proxy *url.URL, target string) (http.Header, error) {
			h.Set("X-Proxy", "/"+proxy.Host+"/"+target)
			return h, nil
		}
		require.NoError(t, dial(t, u, func(t *http.Transport) { t.GetProxyConnectHeader = get }))
		require.Equal(t, []string{"a.example:80/" + u.Host + "/a.example:80"}, p.targets())
		require.Len(t, h, 1, "the caller's stays as it was")
		why := errors.New("why")
		require.ErrorIs(t, dial(t, u, func(t *http.Transport) {
			t.GetProxyConnectHeader = func(context.Context, *url.URL, string) (http.Header, error) { return nil, why }
		}), why)
	})
	t.Run("OnProxyConnectResponse", func(t *testing.T) {
		_, u := startProxy(t, "http", addr, "")
		why := errors.New("why")
		require.ErrorIs(t, dial(t, u, func(t *http.Transport) {
			t.OnProxyConnectResponse = func(_ context.Context, _ *url.URL, r *http.Request, resp *http.Response) error {
				return fmt.Errorf("%s %s %d: %w", r.Method, r.Host, resp.StatusCode, why)
			}
		}), why)
	})
	t.Run("Proxy fails", func(t *testing.T) {
		require.EqualError(t, dial(t, nil, func(t *http.Transport) {
			t.Proxy = func(*http.Request) (*url.URL, error) { return nil, errors.New("why") }
		}), "websocket: why")
	})
	t.Run("DialContext", func(t *testing.T) {
		p, u := startProxy(t, "http", addr, "")
		real := u.Host
		u.Host = "proxy.example"
		require.NoError(t, dial(t, u, func(t *http.Transport) {
			t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
				if addr != "proxy.example:80" {
					return nil, errors.New(addr)
				}
				return new(net.Dialer).DialContext(ctx, network, real)
			}
		}))
		require.NoError(t, dial(t, u, func(t *http.Transport) {
			t.DialContext = nil
			t.Dial = func(network, _ string) (net.Conn, error) { return net.Dial(network, real) } //lint:ignore SA1019 as callers do
		}))
		require.Len(t, p.targets(), 2)
	})
	t.Run("DialTLSContext", func(t *testing.T) {
		p, u := startProxy(t, "https", addr, "")
		real := u.Host
		u.Host = "example.com"
		require.NoError(t, dial(t, u, func(t *http.Transport) {
			t.DialTLSContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
				if addr != "example.com:443" {
					return nil, errors.New(addr)
				}
				return (&tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: "example.com"}}).DialContext(ctx, network, real)
			}
		}))
		require.Len(t, p.targets(), 1)
	})
	t.Run("DialTLSContext is for direct connections", func(t *testing.T) {
		secure := httptest.NewTLSServer(&Server{Handler: echo})
		defer secure.Close()
		target = "wss://example.com"
		defer func() { target = "ws://a.example" }()
		p, u := startProxy(t, "http", secure.Listener.Addr().String(), "")
		require.NoError(t, dial(t, u, func(t *http.Transport) {
			t.DialTLSContext = func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("past the proxy") }
		}))
		require.Equal(t, []string{"example.com:443"}, p.targets())
	})
	t.Run("no proxy", func(t *testing.T) {
		require.NoError(t, dial(t, nil, func(t *http.Transport) {
			t.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, addr)
			}
		}))
	})
	t.Run("HTTP/2 is not spoken to a proxy", func(t *testing.T) {
		config := config.Clone()
		config.NextProtos = []string{"h2", "http/1.1"}
		protos := make(chan []string, 1)
		config.GetConfigForClient = func(i *tls.ClientHelloInfo) (*tls.Config, error) {
			protos <- i.SupportedProtos
			return nil, nil
		}
		proxy := serveRaw(t, config, func(nc net.Conn, r *http.Request) {
			io.WriteString(nc, "HTTP/1.1 502 Bad\r\nContent-Length: 0\r\n\r\n")
		})
		err := dial(t, &url.URL{Scheme: "https", Host: proxy}, func(t *http.Transport) { t.TLSClientConfig.NextProtos = []string{"h2", "http/1.1"} })
		require.EqualError(t, err, "websocket: handshake failed: the proxy refused (502)")
		require.NotContains(t, <-protos, "h2")
	})
}

// A redirect goes through the proxy that is meant for its target.
func TestProxyRedirect(t *testing.T) {
	noLeaks(t)
	first := serveRaw(t, nil, func(nc net.Conn, r *http.Request) {
		io.WriteString(nc, "HTTP/1.1 302 Found\r\nLocation: ws://b.example/\r\nContent-Length: 0\r\n\r\n")
	})
	second := httptest.NewServer(&Server{Handler: echo})
	defer second.Close()
	p, pu := startProxy(t, "http", first, "")
	q, qu := startProxy(t, "http", second.Listener.Addr().String(), "")
	c, err := Dial(within(t), "ws://a.example", &DialOptions{Client: &http.Client{Transport: &http.Transport{
		Proxy: func(r *http.Request) (*url.URL, error) {
			if r.URL.Host == "a.example" {
				return pu, nil
			}
			return qu, nil
		}}}})
	require.NoError(t, err)
	echoes(t, c)
	require.Equal(t, []string{"a.example:80"}, p.targets())
	require.Equal(t, []string{"b.example:80"}, q.targets())
}

// Without a client of the caller's the environment says what the proxy is. It is
// read once in a process, so this needs another.
func TestProxyFromEnvironment(t *testing.T) {
	const env = "WEBSOCKET_TEST_PROXY"
	if os.Getenv(env) != "" {
		c, err := Dial(within(t), "ws://a.example", nil)
		require.NoError(t, err)
		echoes(t, c)
		return
	}
	backend := httptest.NewServer(&Server{Handler: echo})
	defer backend.Close()
	p, u := startProxy(t, "http", backend.Listener.Addr().String(), "user:secret")
	cmd := exec.Command(os.Args[0], "-test.run=^TestProxyFromEnvironment$", "-test.v")
	cmd.Env = append(os.Environ(), env+"=1", "HTTP_PROXY="+u.String(), "http_proxy="+u.String(), "NO_PROXY=", "no_proxy=")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "PASS")
	require.Equal(t, []string{"a.example:80"}, p.targets())
}
