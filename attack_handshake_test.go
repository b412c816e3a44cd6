package websocket

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket/internal/memnet"
)

// What hostile clients do before there is a connection: rows 1 to 26 of the
// catalogue of attacks that other tests leave, and accepting under stress.

// A cut is how input comes: in pieces of these sizes, and then of step bytes
// each, or as much as there is if step is 0.
type cut struct {
	name  string
	sizes []int
	step  int
}

// handshakeCuts are the three ways in which each raw row runs: whole, a byte at a time,
// and split at a place that is random, but always the same.
func handshakeCuts(in string) []cut {
	h := fnv.New64a()
	io.WriteString(h, in)
	r := rand.New(rand.NewPCG(h.Sum64(), 1))
	return []cut{{name: "whole"}, {name: "bytes", step: 1}, {name: "split", sizes: []int{1 + r.IntN(max(len(in)-1, 1))}}}
}

// A cutConn is a connection whose input is cut. It counts what was read.
type cutConn struct {
	*memnet.Conn
	cut
	n atomic.Int64
}

func (c *cutConn) Read(p []byte) (int, error) {
	most := len(p)
	if len(c.sizes) > 0 {
		most = min(most, c.sizes[0])
	} else if c.step > 0 {
		most = min(most, c.step)
	}
	n, err := c.Conn.Read(p[:most])
	c.n.Add(int64(n))
	if len(c.sizes) > 0 {
		if c.sizes[0] -= n; c.sizes[0] == 0 {
			c.sizes = c.sizes[1:]
		}
	}
	return n, err
}

// A memListener is a listener in memory. Its methods are safe in a bubble.
type memListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newMemListener() *memListener {
	return &memListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case nc := <-l.conns:
		return nc, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *memListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (*memListener) Addr() net.Addr { return new(net.TCPAddr) }

// dial returns the client's end of a connection, and the server's, whose input
// is cut.
func (l *memListener) dial(c cut) (*memnet.Conn, *cutConn) {
	a, b := memnet.Pipe(4 << 20)
	server := &cutConn{Conn: a, cut: c}
	l.conns <- server
	return b, server
}

// client is for Dial.
func (l *memListener) client(config *tls.Config) *http.Client {
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: config,
		DialContext:     l.dialContext,
	}}
}

func (l *memListener) dialContext(context.Context, string, string) (net.Conn, error) {
	a, b := memnet.Pipe(4 << 20)
	select {
	case l.conns <- a:
		return b, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// exchange sends in and returns all that comes back until the end.
func (l *memListener) exchange(t testing.TB, c cut, config *tls.Config, in string) (head, rest string) {
	t.Helper()
	b, _ := l.dial(c)
	nc := net.Conn(b)
	if config != nil {
		nc = tls.Client(nc, config)
	}
	defer nc.Close()
	go io.WriteString(nc, in)
	out, err := io.ReadAll(nc)
	require.NoError(t, err)
	head, rest, _ = strings.Cut(string(out), "\r\n\r\n")
	return dated.ReplaceAllString(head, "Date: now") + "\r\n", rest
}

var dated = regexp.MustCompile("Date: .* GMT")

// serveMem serves hs in memory, in a bubble, until the test ends. What hs logs
// is returned.
func serveMem(t testing.TB, hs *http.Server, config *tls.Config) (*memListener, *logged) {
	l, lines := newMemListener(), new(logged)
	hs.ErrorLog = log.New(lines, "", 0)
	var nl net.Listener = l
	if config != nil {
		nl = tls.NewListener(l, config)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		hs.Serve(nl)
	}()
	t.Cleanup(func() {
		hs.Close()
		<-done
		pass(time.Minute) // whatever still lingers
	})
	return l, lines
}

// acceptors are the two ways to take a connection over; each counts those that
// the application was given.
var acceptors = map[string]func(o AcceptOptions, calls *atomic.Int32) http.Handler{
	"Accept": func(o AcceptOptions, calls *atomic.Int32) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, err := Accept(w, r, &o)
			if err != nil {
				return
			}
			calls.Add(1)
			c.Serve(bg, &Handler{Message: func(c *Conn, m Message) { c.Queue(m) }})
		})
	},
	"Server": func(o AcceptOptions, calls *atomic.Int32) http.Handler {
		return &Server{Options: o, Handler: func(ctx context.Context, c *Conn) {
			calls.Add(1)
			echo(ctx, c)
		}}
	},
}

// clientTLS is what trusts certificate's, for both ends of a connection in
// memory.
func clientTLS(t testing.TB) (server, client *tls.Config) {
	server, roots := certificate(t)
	return server, &tls.Config{RootCAs: roots, ServerName: "example.com"}
}

// A1 to A6, A9 to A13, A17, A18: every request gets the same answer from Accept
// and from Server, over TCP and TLS, with and without compression, however its
// bytes come. The application never hears of those that are refused, a second
// request on the same connection is never answered, and after an upgrade it is
// a broken frame.
func TestAttackRequests(t *testing.T) {
	secure, trust := clientTLS(t)
	zip := Config{Compression: new(Compression)}
	for _, row := range requestRows(t) {
		t.Run(row.name, func(t *testing.T) {
			for name, accept := range acceptors {
				for _, mode := range []struct {
					name           string
					server, client *tls.Config
					config         Config
				}{{"plain", nil, nil, zip}, {"TLS", secure, trust, Config{}}} {
					for _, c := range handshakeCuts(row.in) {
						switch {
						case c.name != "whole" && mode.server != nil: // TLS has its own pieces
							continue
						case len(row.in) > 50_000 && (c.name != "whole" || mode.server != nil): // TestAttackHeaders has more of them
							continue
						}
						synctest.Test(t, func(t *testing.T) {
							var calls atomic.Int32
							l, lines := serveMem(t, &http.Server{Handler: accept(AcceptOptions{Config: mode.config}, &calls)}, mode.server)
							head, rest := l.exchange(t, c, mode.client, row.in+goodRequest)
							require.Regexp(t, fmt.Sprintf(`^HTTP/1\.[01] %d `, row.status), head, "%s %s %s", name, mode.name, c.name)
							require.NotRegexp(t, `HTTP/1.1 \d`, rest, "A13")
							require.Empty(t, lines.String())
							switch row.status {
							case 101:
								require.Equal(t, strings.TrimSuffix(goodResponse, "\r\n"), head)
								h, n := ParseHeader([]byte(rest))
								require.Equal(t, OpClose, h.Opcode, "A12: %s %s %s", name, mode.name, c.name)
								e, err := parseClose([]byte(rest[n:]))
								require.NoError(t, err)
								require.Equal(t, CloseProtocolError, e.Code, "A12")
								require.EqualValues(t, 1, calls.Load())
								return
							case 405:
								require.Contains(t, head, "\r\nAllow: GET\r\n")
							case 426:
								require.Contains(t, head, "\r\nSec-Websocket-Version: 13\r\n")
							}
							require.Contains(t, head, "\r\nConnection: close\r\n", "A13")
							require.Zero(t, calls.Load())
						})
					}
				}
			}
		})
	}
}

// A11: frames in the same segment as the request are delivered once, however
// they are cut, by Accept and Server, over TCP and TLS.
func TestAttackEarlyFrames(t *testing.T) {
	secure, trust := clientTLS(t)
	in := goodRequest + string(frames(masked(text, 0x01020304), "hello", masked(text, 5), strings.Repeat("long", 2000), masked(closed, 6), closeFrame(1000, "")))
	want := string(frames(text, "hello", text, strings.Repeat("long", 2000), closed, closeFrame(1000, "")))
	for name, accept := range acceptors {
		for mode, configs := range map[string][2]*tls.Config{"plain": {}, "TLS": {secure, trust}} {
			for _, c := range handshakeCuts(in) {
				t.Run(name+" "+mode+" "+c.name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						var calls atomic.Int32
						l, _ := serveMem(t, &http.Server{Handler: accept(AcceptOptions{}, &calls)}, configs[0])
						head, rest := l.exchange(t, c, configs[1], in)
						require.Equal(t, goodResponse, head+"\r\n")
						require.Equal(t, want, rest)
					})
				})
			}
		}
	}
}

// A7, A8: a page of another site is refused before the application hears of it,
// with the visitor's cookie or without, however the request comes. TestOrigin_10_2
// has the table of origins.
func TestAttackCrossSite(t *testing.T) {
	for _, c := range []struct {
		origin string
		status int
	}{
		{"", 101},
		{"http://server.example.com", 101},
		{"https://server.example.com", 101},
		{"https://allowed.example", 101},
		{"https://evil.example", 403},
		{"https://server.example.com.evil.example", 403},
		{"https://evil-allowed.example", 403},
		{"http://allowed.example", 403},
		{"null", 403},
		{"https://allowed.example\r\nOrigin: https://evil.example", 403},
		{"https://evil.example\r\nOrigin: https://allowed.example", 403},
	} {
		in := goodRequest
		if c.origin != "" {
			in = edit(t, in, "\r\n\r\n", "\r\nOrigin: "+c.origin+"\r\nCookie: session=secret\r\n\r\n")
		}
		for name, accept := range acceptors {
			for _, cut := range handshakeCuts(in) {
				synctest.Test(t, func(t *testing.T) {
					var calls atomic.Int32
					l, _ := serveMem(t, &http.Server{Handler: accept(AcceptOptions{Origins: []string{"https://allowed.example"}}, &calls)}, nil)
					head, rest := l.exchange(t, cut, nil, in+string(frames(masked(closed, 1), "")))
					require.Regexp(t, fmt.Sprintf("^HTTP/1.1 %d ", c.status), head, "%s %q %s", name, c.origin, cut.name)
					require.Equal(t, c.status == 101, calls.Load() == 1)
					if c.status == 403 {
						require.Equal(t, "origin not allowed\n", rest)
					}
				})
			}
		}
	}
}

// conns is how many connections a test makes: n, or WEBSOCKET_TEST_CONNS.
func conns(n int) int {
	if s := os.Getenv("WEBSOCKET_TEST_CONNS"); s != "" {
		n, _ = strconv.Atoi(s)
	}
	return n
}

// held is the memory that is in use.
func held() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// A14: requests that come a byte a second are dropped after the
// ReadHeaderTimeout that the manual asks for, at a bounded price, and those of
// honest clients are not held up.
func TestAttackSlowloris(t *testing.T) {
	n := conns(300)
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int32
		l, _ := serveMem(t, &http.Server{Handler: acceptors["Server"](AcceptOptions{}, &calls), ReadHeaderTimeout: handshakeTimeout}, nil)
		before, start := held(), time.Now()
		slow := make([]net.Conn, n)
		for i := range slow {
			slow[i], _ = l.dial(cut{})
		}
		drip := func(i int) (alive int) {
			for _, nc := range slow {
				if _, err := nc.Write([]byte(goodRequest[i : i+1])); err == nil {
					alive++
				}
			}
			pass(time.Second)
			return alive
		}
		for i := range 10 {
			require.Equal(t, n, drip(i))
			if i == 5 {
				now := time.Now()
				c, err := Dial(bg, "ws://mem", &DialOptions{Client: l.client(nil)})
				require.NoError(t, err)
				echoes(t, c)
				require.Equal(t, now, time.Now(), "an honest handshake does not wait")
			}
			if i == 8 && !raceDetector {
				require.LessOrEqual(t, int(held()-before)/n, 24<<10, "bytes a connection")
			}
		}
		synctest.Wait()
		require.Zero(t, drip(10), "dropped after %v", time.Since(start))
		require.EqualValues(t, 1, calls.Load())
	})
}

// A16: connections that say nothing are dropped just so, in the handshake of TLS
// too. A connection that was upgraded has no such limit.
func TestAttackSilence(t *testing.T) {
	n := conns(300)
	secure, trust := clientTLS(t)
	for mode, configs := range map[string][2]*tls.Config{"plain": {}, "TLS": {secure, trust}} {
		t.Run(mode, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var calls atomic.Int32
				l, _ := serveMem(t, &http.Server{Handler: acceptors["Server"](AcceptOptions{}, &calls), ReadHeaderTimeout: handshakeTimeout}, configs[0])
				honest, err := Dial(bg, map[string]string{"plain": "ws", "TLS": "wss"}[mode]+"://example.com", &DialOptions{Client: l.client(configs[1])})
				require.NoError(t, err)
				start := time.Now()
				var wg sync.WaitGroup
				for range n {
					nc, _ := l.dial(cut{})
					wg.Go(func() {
						_, err := io.ReadAll(nc)
						require.NoError(t, err)
						require.Equal(t, handshakeTimeout, time.Since(start))
						nc.Close()
					})
				}
				wg.Wait()
				pass(time.Second)
				echoes(t, honest)
				require.EqualValues(t, 1, calls.Load())
			})
		})
	}
}

// A16: nor does one stay that has asked for something else before, with the
// IdleTimeout of the manual.
func TestAttackSilenceAfterRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := serveMem(t, &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: handshakeTimeout, IdleTimeout: time.Minute}, nil)
		nc, _ := l.dial(cut{})
		io.WriteString(nc, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		start := time.Now()
		out, err := io.ReadAll(nc)
		require.NoError(t, err)
		require.Regexp(t, "^HTTP/1.1 404 ", string(out))
		require.Equal(t, time.Minute, time.Since(start))
		nc.Close()
	})
}

// R20: a client that does not take the 101 holds the handler for 10 s at most.
func TestAttackAnswerNotTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(goodRequest)))
		require.NoError(t, err)
		a, b := memnet.Pipe(10)
		_, err = Accept(&hijackable{h: make(http.Header), nc: a}, r, nil)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Equal(t, handshakeTimeout, since())
		out, err := io.ReadAll(b)
		require.NoError(t, err, "it is closed")
		require.Equal(t, goodResponse[:10], string(out))
	})
}

// A15: a header without an end is refused with 431 once http.Server's limit is
// reached, and not much more of it is read, however it comes.
func TestAttackHeaders(t *testing.T) {
	const limit = 32 << 10
	for name, in := range map[string]string{
		"one header":     edit(t, goodRequest, "\r\n\r\n", "\r\nA: "+strings.Repeat("a", 1<<20)),
		"many headers":   edit(t, goodRequest, "\r\n\r\n", "\r\n"+strings.Repeat("A: b\r\n", 50_000)),
		"one name":       edit(t, goodRequest, "\r\n\r\n", "\r\n"+strings.Repeat("a", 1<<20)),
		"request line":   "GET /" + strings.Repeat("a", 1<<20),
		"one extension":  edit(t, goodRequest, "\r\n\r\n", "\r\nSec-WebSocket-Extensions: "+strings.Repeat(`a;"\c`, 1<<18)),
		"folded lines":   edit(t, goodRequest, "\r\n\r\n", "\r\nA: b"+strings.Repeat("\r\n c", 1<<18)),
		"blank lines":    "GET / HTTP/1.1\r\nHost: a\r\nA:" + strings.Repeat(" ", 1<<20),
		"many protocols": edit(t, goodRequest, "\r\n\r\n", "\r\n"+strings.Repeat("Sec-WebSocket-Protocol: a\r\n", 50_000)),
	} {
		for _, c := range handshakeCuts(in) {
			t.Run(name+" "+c.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var calls atomic.Int32
					l, _ := serveMem(t, &http.Server{Handler: acceptors["Server"](AcceptOptions{}, &calls), MaxHeaderBytes: limit}, nil)
					nc, server := l.dial(c)
					go io.WriteString(nc, in)
					out, err := io.ReadAll(nc)
					require.NoError(t, err)
					require.Regexp(t, `^HTTP/1\.1 431 .*\r\n(.*\r\n)*Connection: close\r\n`, string(out))
					require.Less(t, server.n.Load(), int64(limit+16<<10), "bytes that were read")
					require.Zero(t, calls.Load())
					nc.Close()
				})
			})
		}
	}
}

// A17, A26: whatever stands in Sec-WebSocket-Extensions, the handshake succeeds
// (or net/http refuses the bytes), with the first offer that is right or without
// an extension.
func TestAttackExtensions(t *testing.T) {
	const pd = "permessage-deflate"
	const none = pd + "; server_no_context_takeover; client_no_context_takeover"
	var high strings.Builder
	for c := 0x80; c <= 0xff; c++ {
		high.WriteByte(byte(c))
	}
	for _, c := range []struct {
		name, offer, answer string
		status              int
	}{
		{"A17 5,000 offers", strings.Repeat("x,", 5000) + pd, "", 101},
		{"A17 5,000 parameters", pd + strings.Repeat(";x", 5000), "", 101},
		{"A17 5,000 parameters, then a good one", pd + strings.Repeat(";x", 5000) + "," + pd, "", 101},
		{"A17 unterminated quote", pd + `; x="`, "", 101},
		{"A17 unterminated quote, backslashes", pd + `; x="` + strings.Repeat(`\c`, 10_000), "", 101},
		{"A17 constructor", "constructor", "", 101},
		{"A17 constructor as a parameter", pd + "; constructor", "", 101},
		{"A17 __proto__, then a good one", ",;__proto__, " + pd, "", 101},
		{"A17 NUL", pd + "\x00", "", 400},
		{"A17 high bytes", high.String() + ", " + pd, "", 101},
		{"A17 high bytes in a parameter", pd + "; " + high.String(), "", 101},
		{"A26 first that is right", strings.Join([]string{pd + "; server_max_window_bits=-1", pd + "; server_max_window_bits=0",
			pd + "; server_max_window_bits=7", pd + "; server_max_window_bits=16", pd + "; server_max_window_bits=08", pd + "; client_max_window_bits=+9",
			pd + "; server_no_context_takeover; server_no_context_takeover", pd + "; unknown", pd + "; server_max_window_bits", pd + "; server_max_window_bits=10"}, ", "),
			none + "; server_max_window_bits=10", 101},
		{"A26 on two lines", "x\r\nSec-WebSocket-Extensions: " + pd, none, 101},
		{"A26 empty value", pd + "; server_max_window_bits=", "", 101},
		{"A26 quoted", pd + `; server_max_window_bits="9"`, none + "; server_max_window_bits=9", 101},
		{"A26 quoted nothing", pd + `; server_max_window_bits=""`, "", 101},
		{"A26 good", pd, none, 101},
	} {
		in := edit(t, goodRequest, "\r\n\r\n", "\r\nSec-WebSocket-Extensions: "+c.offer+"\r\n\r\n")
		for name, accept := range acceptors {
			for _, z := range []*Compression{nil, {}} {
				for _, cut := range handshakeCuts(in) {
					synctest.Test(t, func(t *testing.T) {
						var calls atomic.Int32
						l, _ := serveMem(t, &http.Server{Handler: accept(AcceptOptions{Config: Config{Compression: z}}, &calls)}, nil)
						head, rest := l.exchange(t, cut, nil, in+string(frames(masked(closed, 1), "")))
						want := ""
						if z != nil && c.answer != "" {
							want = "Sec-WebSocket-Extensions: " + c.answer + "\r\n"
						}
						if c.status == 101 {
							require.Equal(t, strings.TrimSuffix(goodResponse, "\r\n")+want, head, "%s: %s, %s", c.name, name, cut.name)
							require.Equal(t, string(frames(closed, "")), rest)
							return
						}
						require.Regexp(t, fmt.Sprintf("^HTTP/1.1 %d ", c.status), head)
					})
				}
			}
		}
	}
}

// A18: the reply holds a name that the server was configured with, or none.
func TestAttackSubprotocols(t *testing.T) {
	for _, c := range []struct{ name, offer, answer string }{
		{"one", "chat", "chat"},
		{"ours decides", "superchat, chat", "chat"},
		{"two lines", "x\r\nSec-WebSocket-Protocol: superchat", "superchat"},
		{"duplicates", "chat, chat, chat", "chat"},
		{"another case", "CHAT, Chat", ""},
		{"quotes", `"chat"`, ""},
		{"no tokens", "ch at, chat/1, chat;q=1, chat=1", ""},
		{"empty", "", ""},
		{"commas", strings.Repeat(",", 10_000) + "chat", ""},
		{"10,000 names", strings.Repeat("x,", 10_000) + "chat", ""},
		{"blanks", "b" + strings.Repeat(" ", 10_000) + "x, chat", "chat"},
		{"high bytes", "\x80\xff, chat", "chat"},
		{"a header in it", "chat%0d%0aSet-Cookie:a=b", ""},
	} {
		in := edit(t, goodRequest, "\r\n\r\n", "\r\nSec-WebSocket-Protocol: "+c.offer+"\r\n\r\n")
		for name, accept := range acceptors {
			for _, cut := range handshakeCuts(in) {
				synctest.Test(t, func(t *testing.T) {
					var calls atomic.Int32
					l, _ := serveMem(t, &http.Server{Handler: accept(AcceptOptions{Subprotocols: []string{"chat", "superchat"}}, &calls)}, nil)
					head, _ := l.exchange(t, cut, nil, in+string(frames(masked(closed, 1), "")))
					want := ""
					if c.answer != "" {
						want = "Sec-WebSocket-Protocol: " + c.answer + "\r\n"
					}
					require.Equal(t, strings.TrimSuffix(goodResponse, "\r\n")+want, head, "%s: %s, %s", c.name, name, cut.name)
				})
			}
		}
	}
	for _, bad := range []string{"a\r\nX: y", "a\n", "a,b", "a\x00", `a"`, "a b", ""} {
		synctest.Test(t, func(t *testing.T) { // A19: of the application's own, nothing is written
			var calls atomic.Int32
			l, _ := serveMem(t, &http.Server{Handler: acceptors["Server"](AcceptOptions{Subprotocols: []string{bad}}, &calls)}, nil)
			head, rest := l.exchange(t, cut{}, nil, goodRequest)
			require.Regexp(t, "^HTTP/1.1 500 ", head, "%q", bad)
			require.Equal(t, "Internal Server Error\n", rest)
			require.Zero(t, calls.Load())
		})
	}
}

// A20: what a middleware reflects into a header cannot add a line to the answer.
func TestAttackResponseSplitting(t *testing.T) {
	for query, status := range map[string]int{
		"plain":                        101,
		"x%0d%0aSet-Cookie:%20a=b":     500,
		"x%0aSet-Cookie:%20a=b":        500,
		"x%0d%0a%0d%0a%81%05hello":     500,
		"x%00y":                        500,
		"x%0d":                         500,
		"%e5%98%8a%e5%98%8dSet-Cookie": 101, // U+560A U+560D, whose low bytes are CR and LF
	} {
		in := edit(t, goodRequest, "/chat", "/chat?q="+query)
		for name, accept := range acceptors {
			for _, c := range handshakeCuts(in) {
				synctest.Test(t, func(t *testing.T) {
					var calls atomic.Int32
					inner := accept(AcceptOptions{}, &calls)
					l, _ := serveMem(t, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						w.Header().Set("X-Reflect", r.URL.Query().Get("q"))
						inner.ServeHTTP(w, r)
					})}, nil)
					head, rest := l.exchange(t, c, nil, in+string(frames(masked(closed, 1), "")))
					require.Regexp(t, fmt.Sprintf("^HTTP/1.1 %d ", status), head, "%s %s %s", query, name, c.name)
					require.NotContains(t, head, "\nSet-Cookie")
					if status == 500 {
						require.Equal(t, "Internal Server Error\n", rest)
					}
				})
			}
		}
	}
}

// A21: a Server behind what does not let go of the connection answers 500, and
// one behind what can be unwrapped works.
func TestAttackWrappedServer(t *testing.T) {
	for name, c := range map[string]struct {
		wrap   func(http.Handler) http.Handler
		status int
	}{
		"Unwrap": {func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(unwrappable{wrapped{w}}, r) })
		}, 101},
		"no Unwrap": {func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(wrapped{w}, r) })
		}, 500},
		"http.TimeoutHandler":  {func(h http.Handler) http.Handler { return http.TimeoutHandler(h, time.Minute, "") }, 500},
		"http.MaxBytesHandler": {func(h http.Handler) http.Handler { return http.MaxBytesHandler(h, 10) }, 101},
		"http.StripPrefix":     {func(h http.Handler) http.Handler { return http.StripPrefix("/chat", h) }, 101},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var calls atomic.Int32
				l, lines := serveMem(t, &http.Server{Handler: c.wrap(acceptors["Server"](AcceptOptions{}, &calls))}, nil)
				head, _ := l.exchange(t, cut{}, nil, goodRequest+string(frames(masked(closed, 1), "")))
				require.Regexp(t, fmt.Sprintf("^HTTP/1.1 %d ", c.status), head)
				require.EqualValues(t, c.status == 101, calls.Load() == 1)
				require.Empty(t, lines.String())
			})
		})
	}
}

// linear checks that f(2n) costs at most 2.5 times what f(n) does: the least of
// many runs, and again if the machine was busy.
func linear(t *testing.T, name string, f func(s string), in func(n int) string) {
	t.Helper()
	if raceDetector {
		return
	}
	const n = 16 << 10
	least := func(s string) time.Duration {
		d := time.Duration(1 << 62)
		for range 10 {
			start := time.Now()
			f(s)
			d = min(d, time.Since(start))
		}
		return d
	}
	short, long := in(n), in(2*n)
	var ratio float64
	for range 8 {
		once, twice := least(short), least(long)
		ratio = float64(twice) / float64(max(once, 5*time.Microsecond))
		if ratio <= 2.5 {
			return
		}
	}
	t.Fatalf("%s: twice the input takes %.1f times as long", name, ratio)
}

// A17: whatever a header holds, reading it takes time in proportion to its
// length.
func TestAttackHeadersLinear(t *testing.T) {
	repeat := func(before, s string) func(int) string {
		return func(n int) string { return before + strings.Repeat(s, n/len(s)) }
	}
	inputs := map[string]func(int) string{
		"commas": repeat("", ","), "semicolons": repeat("", ";"), "blanks": repeat("b", " "), "tabs and x": func(n int) string { return "b" + strings.Repeat("\t", n) + "x" },
		"offers": repeat("", "x,"), "parameters": repeat("x", ";y"), "equal signs": repeat("a;b", "="), "quote": repeat(`a;b="`, `\c`),
		"quotes": repeat("a;b=", `"`), "one token": repeat("", "a"), "high bytes": repeat("", "\xff"), "blanks and commas": repeat("", " , "),
		"upgrade": repeat("", "upgrade x,"), "escapes": repeat("", "\x1b"),
	}
	z := Compression{}.withDefaults()
	ours := []string{"chat", "superchat", "x"}
	for name, in := range inputs {
		for fname, f := range map[string]func(string){
			"parseExtensions":   func(s string) { parseExtensions([]string{s}) },
			"agree":             func(s string) { z.agree(http.Header{hExtensions: {s}}) },
			"accept":            func(s string) { z.accept(http.Header{hExtensions: {s}}) },
			"selectSubprotocol": func(s string) { selectSubprotocol(ours, []string{s}) },
			"hasToken":          func(s string) { hasToken([]string{s}, "upgrade") },
			"validHost":         func(s string) { validHost(s) },
			"parseOrigin":       func(s string) { parseOrigin("http://" + s) },
			"validKey":          func(s string) { validKey(s) },
			"received":          func(s string) { received([]string{s, s}) },
			"printable":         func(s string) { printable(s) },
		} {
			linear(t, fname+" of "+name, f, in)
		}
	}
	many := strings.Split(strings.Repeat("x, ", 1000), " ") // a header on many lines
	require.LessOrEqual(t, len(parseExtensions(many)), maxOffers)
	require.Empty(t, selectSubprotocol([]string{"y"}, many))
}

// A24: who may connect is decided by a handler around Accept or Server: it
// answers with a real status; when it panics, only that connection ends; when it
// is slow, its own patience or the client's ends it.
func TestAttackAuthorizer(t *testing.T) {
	errDenied := errors.New("denied")
	authorized := func(authorize func(*http.Request) error, h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithTimeout(r.Context(), handshakeTimeout)
			defer cancel()
			switch err := authorize(r.WithContext(ctx)); {
			case errors.Is(err, errDenied):
				w.Header().Set("WWW-Authenticate", "Bearer")
				http.Error(w, "denied", http.StatusUnauthorized)
			case err != nil:
				http.Error(w, "try again", http.StatusServiceUnavailable)
			default:
				h.ServeHTTP(w, r)
			}
		})
	}
	slow := func(r *http.Request) error {
		select {
		case <-r.Context().Done():
			return r.Context().Err()
		case <-time.After(time.Hour):
			return nil
		}
	}
	for name, accept := range acceptors {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var calls atomic.Int32
				ended := make(chan error, 1)
				l, lines := serveMem(t, &http.Server{Handler: authorized(func(r *http.Request) error {
					switch r.URL.Path {
					case "/denied":
						return errDenied
					case "/panic":
						panic("boom")
					case "/slow":
						return slow(r)
					case "/gone":
						err := slow(r)
						ended <- err
						return err
					}
					return nil
				}, accept(AcceptOptions{}, &calls))}, nil)
				dial := func(path string) (*Conn, error) {
					return Dial(within(t), "ws://mem"+path, &DialOptions{Client: l.client(nil)})
				}
				var refused *HandshakeError
				_, err := dial("/denied")
				require.ErrorAs(t, err, &refused)
				require.Equal(t, "401 Bearer", fmt.Sprint(refused.Status, " ", refused.Response.Header.Get("WWW-Authenticate")))

				_, err = dial("/panic")
				require.ErrorIs(t, err, io.EOF)
				require.Contains(t, lines.String(), "panic serving mem: boom")

				start := time.Now()
				patient, cancel := context.WithTimeout(bg, time.Minute)
				defer cancel()
				_, err = Dial(patient, "ws://mem/slow", &DialOptions{Client: l.client(nil)})
				require.ErrorAs(t, err, &refused)
				require.Equal(t, http.StatusServiceUnavailable, refused.Status)
				require.Equal(t, handshakeTimeout, time.Since(start))

				start = time.Now()
				nc, _ := l.dial(cut{})
				io.WriteString(nc, edit(t, goodRequest, "/chat", "/gone"))
				pass(time.Second)
				nc.Close()
				require.Equal(t, context.Canceled, <-ended, "the client has gone")
				require.Equal(t, time.Second, time.Since(start))

				require.Zero(t, calls.Load())
				c, err := dial("/")
				require.NoError(t, err)
				echoes(t, c)
				require.EqualValues(t, 1, calls.Load())
			})
		})
	}
}

// A24: the library's own callback of the handshake may panic like any handler:
// that connection ends, the server goes on.
func TestAttackCompressionCallbackPanics(t *testing.T) {
	for name, accept := range acceptors {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var calls, asked atomic.Int32
				l, lines := serveMem(t, &http.Server{Handler: accept(AcceptOptions{Compression: func(*http.Request) *Compression {
					if asked.Add(1) == 1 {
						panic("boom")
					}
					return nil
				}}, &calls)}, nil)
				_, err := Dial(within(t), "ws://mem", &DialOptions{Client: l.client(nil)})
				require.ErrorIs(t, err, io.EOF)
				require.Contains(t, lines.String(), "panic serving mem: boom")
				c, err := Dial(within(t), "ws://mem", &DialOptions{Client: l.client(nil)})
				require.NoError(t, err)
				echoes(t, c)
			})
		})
	}
}

// from is a connection from an address.
type from struct {
	*memnet.Conn
	ip string
}

func (c from) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(c.ip), Port: 1234} }

// A25: limits on connections are a handler's around Accept: those beyond are
// answered 503 with Retry-After, and what a client writes into X-Forwarded-For
// does not help it. A place is free again when the connection has ended.
func TestAttackTooManyConnections(t *testing.T) {
	const total, perAddr = 5, 2
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		all, byAddr := 0, map[string]int{}
		take := func(ip string, n int) bool {
			mu.Lock()
			defer mu.Unlock()
			if n > 0 && (all >= total || byAddr[ip] >= perAddr) {
				return false
			}
			all, byAddr[ip] = all+n, byAddr[ip]+n
			return true
		}
		var calls atomic.Int32
		inner := acceptors["Accept"](AcceptOptions{}, &calls)
		l, _ := serveMem(t, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ip, _, _ := net.SplitHostPort(r.RemoteAddr)
			if !take(ip, 1) {
				w.Header().Set("Retry-After", "1")
				w.Header().Set("Connection", "close")
				http.Error(w, "too many connections", http.StatusServiceUnavailable)
				return
			}
			defer take(ip, -1)
			inner.ServeHTTP(w, r)
		})}, nil)
		dial := func(ip string) (*Conn, error) {
			return Dial(within(t), "ws://mem", &DialOptions{
				Header: http.Header{"X-Forwarded-For": {fmt.Sprint("10.0.0.", rand.IntN(256))}, "X-Real-Ip": {"10.1.1.1"}, "Forwarded": {"for=10.2.2.2"}},
				Client: &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
					a, b := memnet.Pipe(1 << 20)
					l.conns <- from{a, ip}
					return b, nil
				}}}})
		}
		busy := func(ip string) {
			t.Helper()
			_, err := dial(ip)
			var refused *HandshakeError
			require.ErrorAs(t, err, &refused)
			require.Equal(t, "503 1", fmt.Sprint(refused.Status, " ", refused.Response.Header.Get("Retry-After")))
		}
		var open []*Conn
		for _, ip := range []string{"192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.2", "192.0.2.3"} {
			c, err := dial(ip)
			require.NoError(t, err)
			open = append(open, c)
			if len(open) == 2 {
				busy("192.0.2.1")
			}
		}
		busy("192.0.2.3")
		busy("192.0.2.4")
		echoes(t, open[0])
		synctest.Wait()
		c, err := dial("192.0.2.1")
		require.NoError(t, err)
		busy("192.0.2.1")
		echoes(t, c)
		for _, c := range open[1:] {
			echoes(t, c)
		}
		synctest.Wait()
		require.Zero(t, all)
	})
}

// A failingListener fails as the kernel does: out of descriptors, or with
// connections that are gone again.
type failingListener struct {
	*memListener
	errs []error
}

func (l *failingListener) Accept() (net.Conn, error) {
	if len(l.errs) > 0 {
		err := l.errs[0]
		l.errs = l.errs[1:]
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: err}
	}
	return l.memListener.Accept()
}

// A87: the accept loop survives EMFILE and its like: the loop is net/http's, and
// what is accepted afterwards is served.
func TestAttackAcceptFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int32
		l := &failingListener{newMemListener(), []error{syscall.EMFILE, syscall.ECONNABORTED, syscall.ENFILE, syscall.EMFILE, syscall.ECONNRESET, syscall.EINTR}}
		n := len(l.errs)
		var lines logged
		hs := &http.Server{Handler: acceptors["Server"](AcceptOptions{}, &calls), ErrorLog: log.New(&lines, "", 0)}
		done := make(chan error)
		go func() { done <- hs.Serve(l) }()
		c, err := Dial(within(t), "ws://mem", &DialOptions{Client: l.client(nil)})
		require.NoError(t, err)
		echoes(t, c)
		require.Equal(t, n, strings.Count(lines.String(), "retrying in"))
		require.NoError(t, hs.Close())
		require.Equal(t, http.ErrServerClosed, <-done)
		pass(time.Minute)
	})
}

// shortWrites takes a byte at a time, without an error.
type shortWrites struct{ *memnet.Conn }

func (c shortWrites) Write(p []byte) (int, error) { return c.Conn.Write(p[:min(len(p), 1)]) }

// A87: a transport that takes less than it is given gets the rest; one that
// fails ends the connection, and nothing more is written. TestFeedBacklog has
// those that would block.
func TestAttackShortWrites(t *testing.T) {
	want := string(frames(text, "hello", bin, string(seq(70_000)), closed, closeFrame(1000, "")))
	t.Run("short", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, b := memnet.Pipe(1 << 20)
			c := NewConn(shortWrites{a}, Params{Config: quiet})
			require.NoError(t, c.Write(bg, Text("hello")))
			require.NoError(t, c.Write(bg, Binary(seq(70_000))))
			go c.Close(1000, "")
			synctest.Wait()
			got := raw{t, b}.bytes(len(want))
			require.True(t, want == string(got))
			c.CloseNow()
		})
	})
	t.Run("nothing", func(t *testing.T) { // R10: neither progress nor an error
		c := NewConn(takesNothing{new(keyCatcher)}, Params{Config: quiet})
		err := c.Write(bg, Text("hello"))
		require.Equal(t, io.ErrNoProgress, err)
		require.Equal(t, err, context.Cause(c.Context()))
	})
	for _, errno := range []syscall.Errno{syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNRESET, syscall.EPIPE, syscall.ETIMEDOUT} {
		t.Run(errno.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, _ := memnet.Pipe(1 << 20)
				nc := &failsAfter{Conn: a, n: 3, err: errno}
				c := NewConn(nc, Params{Config: quiet})
				err := c.Write(bg, Text("hello"))
				require.ErrorIs(t, err, errno)
				require.Equal(t, err, c.Write(bg, Text("more")))
				require.Equal(t, 1, nc.writes, "half a frame is never followed by another")
				<-c.Context().Done()
				require.Equal(t, CloseAbnormalClosure, CodeOf(err))
			})
		})
	}
}

type takesNothing struct{ net.Conn }

func (takesNothing) Write([]byte) (int, error) { return 0, nil }

type failsAfter struct {
	*memnet.Conn
	n, writes int
	err       error
}

func (c *failsAfter) Write(p []byte) (int, error) {
	c.writes++
	n, _ := c.Conn.Write(p[:min(c.n, len(p))])
	return n, c.err
}

// nothing is a logger for servers whose clients misbehave on purpose.
func nothing() *log.Logger { return log.New(io.Discard, "", 0) }
