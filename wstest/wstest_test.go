package wstest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/wstest"
)

var bg = context.Background()

// A mock is a test that fails on purpose.
type mock struct{ failed string }

func (*mock) Helper() {}

func (m *mock) Fatalf(format string, args ...any) {
	m.failed = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// failure runs f and returns how its test has failed; "" if it has not.
func failure(f func(t wstest.TB)) string {
	var m mock
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(&m)
	}()
	<-done
	return m.failed
}

func TestLink(t *testing.T) {
	for _, c := range []struct {
		name   string
		link   wstest.Link
		agreed string
	}{
		{"zero", wstest.Link{}, ""},
		{"one side", wstest.Link{Client: websocket.Config{Compression: &websocket.Compression{}}}, ""},
		{"the other", wstest.Link{Server: websocket.Config{Compression: &websocket.Compression{}}}, ""},
		{"both", wstest.Link{
			Client: websocket.Config{Compression: &websocket.Compression{Takeover: true}},
			Server: websocket.Config{Compression: &websocket.Compression{Takeover: true, WindowBits: 10}},
		}, "permessage-deflate; server_max_window_bits=10; client_max_window_bits=10"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.link.Subprotocol = "chat"
				c.link.Latency = time.Second
				pc, ps := c.link.Params()
				require.Equal(t, c.agreed, pc.Extensions)
				require.Equal(t, c.agreed, ps.Extensions)
				require.True(t, pc.Client)
				require.False(t, ps.Client)
				require.Equal(t, c.link.Client, pc.Config)
				require.Equal(t, c.link.Server, ps.Config)

				client, server := c.link.Pipe()
				require.Equal(t, "chat", client.Subprotocol())
				require.Equal(t, "chat", server.Subprotocol())
				start := time.Now()
				text := strings.Repeat("to be compressed ", 1000)
				require.NoError(t, client.Write(bg, websocket.Text(text)))
				require.Zero(t, time.Since(start))
				m, err := server.Read(bg)
				require.NoError(t, err)
				require.Equal(t, text, string(m.Data))
				require.Equal(t, time.Second, time.Since(start))
				go client.Serve(bg, nil)
				require.NoError(t, server.Close(4000, ""))
				require.Equal(t, 4*time.Second, time.Since(start), "there and back, and the server lingers for a second")
			})
		})
	}
	require.PanicsWithValue(t, `wstest: Link: websocket: DialOptions.Subprotocols are no distinct tokens: ["a b"]`, func() {
		wstest.Link{Subprotocol: "a b"}.Pipe()
	})
}

// Without faults a wrapped connection is as good as another.
func TestFaultlessConn(t *testing.T) {
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		var f wstest.Faults
		var r wstest.Recorder
		a, b := wstest.NetPipe()
		a, b = f.Wrap(a), r.Wrap(b)
		return a, b, func() { a.Close(); b.Close() }, nil
	})
	var none *wstest.Faults
	a, _ := wstest.NetPipe()
	require.Equal(t, a, none.Wrap(a))
}

func TestFaults(t *testing.T) {
	write := func(nc net.Conn) (int, error) { return nc.Write([]byte("hello")) }
	read := func(nc net.Conn) (int, error) { return nc.Read(make([]byte, 2)) }
	type result struct {
		n     int
		err   error
		after time.Duration
	}
	own := errors.New("own")
	for _, c := range []struct {
		name  string
		fault wstest.Fault
		call  func(net.Conn) (int, error)
		want  []result // of one call after the other
		peer  string   // what the peer reads at last
		err   error    // and what ends it
	}{
		{"write fails", wstest.Fault{Call: wstest.Write, N: 2}, write, []result{{5, nil, 0}, {0, wstest.ErrFault, 0}, {5, nil, 0}}, "hellohello", nil},
		{"first", wstest.Fault{Call: wstest.Write, Err: own}, write, []result{{0, own, 0}, {5, nil, 0}}, "hello", nil},
		{"for ever", wstest.Fault{Call: wstest.Write, N: 2, Forever: true}, write, []result{{5, nil, 0}, {0, wstest.ErrFault, 0}, {0, wstest.ErrFault, 0}}, "hello", nil},
		{"write is short", wstest.Fault{Call: wstest.Write, Bytes: 3}, write, []result{{3, wstest.ErrFault, 0}}, "hel", nil},
		{"write stalls", wstest.Fault{Call: wstest.Write, Bytes: 3, Do: wstest.Stall}, write, []result{{3, os.ErrDeadlineExceeded, 10 * time.Second}}, "hel", nil},
		{"write is late", wstest.Fault{Call: wstest.Write, Bytes: 3, Do: wstest.Delay, Delay: time.Second}, write, []result{{5, nil, time.Second}, {5, nil, 0}}, "hellohello", nil},
		{"write is too late", wstest.Fault{Call: wstest.Write, Do: wstest.Delay, Delay: time.Minute}, write, []result{{0, os.ErrDeadlineExceeded, 10 * time.Second}}, "", nil},
		{"write resets", wstest.Fault{Call: wstest.Write, N: 2, Do: wstest.Reset}, write, []result{{5, nil, 0}, {0, syscall.ECONNRESET, 0}, {0, syscall.ECONNRESET, 0}}, "", syscall.ECONNRESET},
		{"write half-closes", wstest.Fault{Call: wstest.Write, Bytes: 1, Do: wstest.HalfClose}, write, []result{{1, syscall.EPIPE, 0}, {0, syscall.EPIPE, 0}}, "h", io.EOF},
		{"read fails", wstest.Fault{Call: wstest.Read, N: 2}, read, []result{{2, nil, 0}, {0, wstest.ErrFault, 0}, {2, nil, 0}}, "", nil},
		{"read stalls", wstest.Fault{Call: wstest.Read, N: 2, Do: wstest.Stall}, read, []result{{2, nil, 0}, {0, os.ErrDeadlineExceeded, 10 * time.Second}}, "", nil},
		{"read is late", wstest.Fault{Call: wstest.Read, Do: wstest.Delay, Delay: time.Second}, read, []result{{2, nil, time.Second}, {2, nil, 0}}, "", nil},
		{"read resets", wstest.Fault{Call: wstest.Read, N: 2, Do: wstest.Reset}, read, []result{{2, nil, 0}, {0, syscall.ECONNRESET, 0}, {0, syscall.ECONNRESET, 0}}, "", syscall.ECONNRESET},
		{"read half-closes", wstest.Fault{Call: wstest.Read, N: 2, Do: wstest.HalfClose}, read, []result{{2, nil, 0}, {0, io.EOF, 0}, {0, io.EOF, 0}}, "", nil},
		{"deadline fails", wstest.Fault{Call: wstest.SetWriteDeadline}, func(nc net.Conn) (int, error) {
			return 0, nc.SetWriteDeadline(time.Now())
		}, []result{{0, wstest.ErrFault, 0}, {0, nil, 0}}, "", nil},
		{"Close fails", wstest.Fault{Call: wstest.Close}, func(nc net.Conn) (int, error) { return 0, nc.Close() }, []result{{0, wstest.ErrFault, 0}, {0, nil, 0}}, "", io.EOF},
		{"CloseWrite fails", wstest.Fault{Call: wstest.CloseWrite}, func(nc net.Conn) (int, error) {
			return 0, nc.(interface{ CloseWrite() error }).CloseWrite()
		}, []result{{0, wstest.ErrFault, 0}, {0, nil, 0}}, "", io.EOF},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &wstest.Faults{At: []wstest.Fault{c.fault}}
				a, b := wstest.NetPipe()
				nc := f.Wrap(a)
				b.Write([]byte("0123456789"))
				nc.SetDeadline(time.Now().Add(10 * time.Second))
				start := time.Now()
				for i, want := range c.want {
					n, err := c.call(nc)
					require.Equal(t, want, result{n, err, time.Since(start)}, "call %d", i)
					start = time.Now()
				}
				require.Equal(t, len(c.want), f.Calls(c.fault.Call))
				require.Positive(t, f.Fired())
				b.SetReadDeadline(time.Now().Add(time.Second))
				got, err := io.ReadAll(b)
				require.Equal(t, c.peer, string(got))
				switch c.err {
				case nil:
					require.ErrorIs(t, err, os.ErrDeadlineExceeded, "it goes on")
				case io.EOF:
					require.NoError(t, err)
				default:
					require.ErrorIs(t, err, c.err)
				}
			})
		})
	}
}

// Close interrupts what stalls, and reads and writes come in pieces.
func TestFaultsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := wstest.NetPipe()
		nc := (&wstest.Faults{At: []wstest.Fault{{Call: wstest.Read, Do: wstest.Stall}}}).Wrap(a)
		done := make(chan error)
		go func() {
			_, err := nc.Read(make([]byte, 1))
			done <- err
		}()
		synctest.Wait()
		nc.Close()
		require.ErrorIs(t, <-done, net.ErrClosed)
		b.Close()

		a, b = wstest.NetPipe()
		nc = (&wstest.Faults{ReadSize: 2, WriteSize: 3, WritePause: time.Second}).Wrap(a)
		start := time.Now()
		go nc.Write([]byte("12345678"))
		p := make([]byte, 100)
		for i, want := range []string{"123", "456", "78"} {
			n, err := b.Read(p)
			require.NoError(t, err)
			require.Equal(t, want, string(p[:n]))
			require.Equal(t, time.Duration(i)*time.Second, time.Since(start))
		}
		b.Write([]byte("123"))
		for _, want := range []string{"12", "3"} {
			n, err := nc.Read(p)
			require.NoError(t, err)
			require.Equal(t, want, string(p[:n]))
		}
	})
}

// A network whose host comes and goes.
func TestNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(wstest.Network)
		o := &websocket.DialOptions{Client: n.Client()}
		addrs, ends := make(chan string, 9), make(chan error, 9)
		serve := func() func() {
			return n.Serve("example.com:80", &websocket.Server{Handler: func(ctx context.Context, c *websocket.Conn) {
				addrs <- c.NetConn().RemoteAddr().String()
				ends <- c.Serve(ctx, &websocket.Handler{Message: func(c *websocket.Conn, m websocket.Message) { c.Queue(m) }})
			}})
		}
		_, err := websocket.Dial(bg, "ws://example.com", o)
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		for i := range 2 {
			stop := serve()
			_, err := n.Listen("example.com:80")
			require.ErrorIs(t, err, syscall.EADDRINUSE)
			require.Panics(t, func() { serve() })
			c, err := websocket.Dial(bg, "ws://example.com", o)
			require.NoError(t, err)
			host, _, err := net.SplitHostPort(<-addrs)
			require.NoError(t, err)
			require.Equal(t, "192.0.2.1", host)
			require.NoError(t, c.Write(bg, websocket.Text("hello")))
			_, err = c.Read(bg)
			require.NoError(t, err)
			if i == 0 {
				n.Cut("example.com:80")
				_, err = c.Read(bg)
				require.ErrorIs(t, err, syscall.ECONNRESET)
				require.ErrorIs(t, <-ends, syscall.ECONNRESET, "neither end has done it")
				c, err = websocket.Dial(bg, "ws://example.com", o)
				require.NoError(t, err, "the host is still there")
				<-addrs
			}
			stop()
			_, err = c.Read(bg)
			require.ErrorIs(t, err, syscall.ECONNRESET)
			_, err = websocket.Dial(bg, "ws://example.com", o)
			require.ErrorIs(t, err, syscall.ECONNREFUSED)
		}
		n.Cut("example.org:80") // which nobody knows
	})
	synctest.Test(t, func(t *testing.T) { // nobody seems to be there
		n := &wstest.Network{Dial: func(ctx context.Context, addr string) error { <-ctx.Done(); return ctx.Err() }}
		start := time.Now()
		_, err := websocket.Dial(bg, "ws://example.com", &websocket.DialOptions{Client: n.Client()})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 10*time.Second, time.Since(start))
	})
	synctest.Test(t, func(t *testing.T) { // a listener that does not accept, and goes
		n := new(wstest.Network)
		l, err := n.Listen("example.com:80")
		require.NoError(t, err)
		require.Equal(t, "example.com:80", l.Addr().String())
		nc, err := n.DialContext(bg, "tcp", "example.com:80")
		require.NoError(t, err)
		done := make(chan error)
		go func() {
			nc, err := l.Accept()
			if err == nil {
				_, err = l.Accept()
				nc.Close()
			}
			done <- err
		}()
		synctest.Wait()
		second, err := n.DialContext(bg, "tcp", "example.com:80")
		require.NoError(t, err)
		synctest.Wait()
		_ = second
		require.NoError(t, <-done)
		third, err := n.DialContext(bg, "tcp", "example.com:80")
		require.NoError(t, err)
		require.NoError(t, l.Close())
		require.NoError(t, l.Close())
		_, err = l.Accept()
		require.ErrorIs(t, err, net.ErrClosed)
		_, err = third.Read(make([]byte, 1))
		require.ErrorIs(t, err, syscall.ECONNRESET)
		_, err = n.DialContext(bg, "tcp", "example.com:80")
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		_, err = nc.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err)
		ctx, cancel := context.WithCancel(bg)
		cancel()
		_, err = n.DialContext(ctx, "tcp", "example.com:80")
		require.ErrorIs(t, err, context.Canceled)
	})
}

// What a Peer is disappointed by.
func TestPeerExpects(t *testing.T) {
	text := func(s string) wstest.Frame { return wstest.Frame{Op: websocket.OpText, Payload: s} }
	for _, c := range []struct {
		name   string
		send   func(other *wstest.Peer)
		expect func(p *wstest.Peer)
		fails  string // "" if it shall not
	}{
		{"text", func(o *wstest.Peer) { o.SendText("a") }, func(p *wstest.Peer) { p.ExpectText("a") }, ""},
		{"other text", func(o *wstest.Peer) { o.SendText("b") }, func(p *wstest.Peer) { p.ExpectText("a") }, `wstest: peer expects text "a", not text "b"`},
		{"frames", func(o *wstest.Peer) {
			o.SendFrames(wstest.Frame{Op: websocket.OpText, RSV: 4, More: true}, wstest.Frame{Payload: "\x00"})
		},
			func(p *wstest.Peer) {
				p.Expect(wstest.Frame{Op: websocket.OpText, RSV: 4, More: true}, wstest.Frame{Payload: "\x01"})
			}, `wstest: peer expects continuation 01, not continuation 00`},
		{"no frame", func(*wstest.Peer) {}, func(p *wstest.Peer) { p.Expect(text("a")) }, `wstest: peer expects text "a": i/o timeout`},
		{"half a frame", func(o *wstest.Peer) { o.Send(o.Bytes(text("long"))[:4]); o.CloseWrite() }, func(p *wstest.Peer) { p.Frame() }, `wstest: peer expects a frame: unexpected EOF`},
		{"no header", func(o *wstest.Peer) { o.Send([]byte("\x81\xfe\x00\x00")) }, func(p *wstest.Peer) { p.Frame() }, `wstest: peer expects a frame: header 81 fe 00 00 is none`},
		{"masking", func(o *wstest.Peer) { o.Role = !o.Role; o.SendText("a") }, func(p *wstest.Peer) { p.Frame() }, `wstest: peer expects a frame: wrong masking of text "a"`},
		{"close", func(o *wstest.Peer) { o.SendText("before"); o.SendFrames(wstest.CloseFrame(4000, "why")) },
			func(p *wstest.Peer) { require.Equal(t, "why", p.ExpectClose(4000)) }, ""},
		{"no code", func(o *wstest.Peer) { o.SendFrames(wstest.CloseFrame(1005, "")) }, func(p *wstest.Peer) { p.ExpectClose(1005) }, ""},
		{"other code", func(o *wstest.Peer) { o.SendFrames(wstest.CloseFrame(4000, "why")) }, func(p *wstest.Peer) { p.ExpectClose(4001) }, `wstest: peer expects close 4001, not close 4000 "why"`},
		{"a code", func(o *wstest.Peer) { o.SendFrames(wstest.CloseFrame(4000, "")) }, func(p *wstest.Peer) { p.ExpectClose(1005) }, `wstest: peer expects close 1005, not close 4000`},
		{"not a code", func(o *wstest.Peer) { o.SendFrames(wstest.CloseFrame(1005, "")) }, func(p *wstest.Peer) { p.ExpectClose(1000) }, `wstest: peer expects close 1000, not close`},
		{"no close", func(o *wstest.Peer) { o.SendText("a"); o.Close() }, func(p *wstest.Peer) { p.ExpectClose(4001) }, `wstest: peer expects close 4001: EOF`},
		{"bytes", func(o *wstest.Peer) { o.SendPieces([]byte("hello"), 2, time.Second) }, func(p *wstest.Peer) { p.ExpectBytes([]byte("hello")) }, ""},
		{"other bytes", func(o *wstest.Peer) { o.Send([]byte("help!")) }, func(p *wstest.Peer) { p.ExpectBytes([]byte("hello")) }, `wstest: peer expects 68 65 6c 6c 6f, not 68 65 6c 70 21`},
		{"few bytes", func(o *wstest.Peer) { o.Send([]byte("he")) }, func(p *wstest.Peer) { p.ExpectBytes([]byte("hello")) }, `wstest: peer expects 68 65 6c 6c 6f, not 68 65: i/o timeout`},
		{"EOF", func(o *wstest.Peer) { o.CloseWrite() }, (*wstest.Peer).ExpectEOF, ""},
		{"no EOF", func(o *wstest.Peer) { o.Reset() }, (*wstest.Peer).ExpectEOF, `wstest: peer expects the end, not: connection reset by peer`},
		{"more", func(o *wstest.Peer) { o.Send([]byte("x")) }, (*wstest.Peer).ExpectEOF, `wstest: peer expects the end, not the byte 0x78`},
		{"reset", func(o *wstest.Peer) { o.Reset() }, (*wstest.Peer).ExpectReset, ""},
		{"no reset", func(o *wstest.Peer) { o.Close() }, (*wstest.Peer).ExpectReset, `wstest: peer expects a reset, not: EOF`},
		{"silence", func(o *wstest.Peer) { o.Pause(3 * time.Second); o.SendText("a") }, func(p *wstest.Peer) { p.ExpectSilence(2 * time.Second) }, ""},
		{"no silence", func(o *wstest.Peer) { o.Pause(time.Second); o.SendText("a") }, func(p *wstest.Peer) { p.ExpectSilence(2 * time.Second) }, `wstest: peer expects silence, not the byte 0x81`},
		{"no peace", func(o *wstest.Peer) { o.Close() }, func(p *wstest.Peer) { p.ExpectSilence(2 * time.Second) }, `wstest: peer expects silence, not: EOF`},
		{"gone", func(o *wstest.Peer) { o.Close() }, func(p *wstest.Peer) { p.Pause(time.Second); p.SendText("a") }, `wstest: peer cannot send 7 bytes: broken pipe`},
		{"request", func(o *wstest.Peer) { o.Send([]byte("hello\r\n\r\n")) }, func(p *wstest.Peer) { p.Request() }, `wstest: peer expects a request: malformed HTTP request "hello"`},
		{"refusal", func(o *wstest.Peer) { o.Request(); o.Send([]byte("HTTP/1.1 403 Forbidden\r\n\r\n")) }, func(p *wstest.Peer) { p.Dial("/") }, `wstest: peer expects 101, not 403 Forbidden`},
		{"wrong answer", func(o *wstest.Peer) {
			o.Request()
			o.Send([]byte("HTTP/1.1 101 Well\r\nSec-WebSocket-Accept: me\r\n\r\n"))
		}, func(p *wstest.Peer) { p.Dial("/") }, `wstest: peer expects another Sec-WebSocket-Accept than "me"`},
		{"handshake", func(o *wstest.Peer) { o.Accept("X-Y: z") }, func(p *wstest.Peer) { require.Equal(t, "z", p.Dial("/").Header.Get("X-Y")) }, ""},
		{"play", func(o *wstest.Peer) { o.SendText("b") }, func(p *wstest.Peer) { p.Play("recv 00\n\nsend 810161") }, `wstest: line 3: expected text "a", not text "b"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := wstest.NetPipe()
				done := make(chan struct{})
				go func() {
					defer close(done)
					c.send(wstest.NewPeer(t, a, wstest.Server))
				}()
				require.Equal(t, c.fails, failure(func(tb wstest.TB) { c.expect(wstest.NewPeer(tb, b, wstest.Client)) }))
				<-done
				b.Close()
			})
		})
	}
	require.PanicsWithValue(t, "wstest: peer expects the end, not: i/o timeout", func() {
		a, _ := wstest.NetPipe()
		p := wstest.NewPeer(nil, a, wstest.Client)
		p.Patience = time.Nanosecond
		p.ExpectEOF()
	})
}

// Against the library itself: a Peer is a client and a server.
func TestPeerHandshakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(wstest.Network)
		stop := n.Serve("example.com:80", &websocket.Server{Handler: func(ctx context.Context, c *websocket.Conn) { c.Serve(ctx, nil) }})
		nc, err := n.DialContext(bg, "", "example.com:80")
		require.NoError(t, err)
		p := wstest.NewPeer(t, nc, wstest.Client)
		p.Dial("/chat", "Origin: http://wstest")
		p.SendFrames(wstest.Frame{Op: websocket.OpPing, Payload: "p"}, wstest.CloseFrame(4000, "bye"))
		p.Expect(wstest.Frame{Op: websocket.OpPong, Payload: "p"})
		p.ExpectClose(4000)
		p.ExpectEOF()
		p.Close()
		stop()

		l, err := n.Listen("example.com:80")
		require.NoError(t, err)
		done := make(chan struct{})
		go func() {
			defer close(done)
			nc, err := l.Accept()
			require.NoError(t, err)
			p := wstest.NewPeer(t, nc, wstest.Server)
			r := p.Accept("Sec-WebSocket-Protocol: chat")
			require.Equal(t, "/room?n=1", r.RequestURI)
			p.ExpectText("hello")
			p.SendFrames(wstest.CloseFrame(1001, ""))
			p.ExpectClose(1001)
			p.Close()
		}()
		c, err := websocket.Dial(bg, "ws://example.com/room?n=1", &websocket.DialOptions{Client: n.Client(), Subprotocols: []string{"chat"}})
		require.NoError(t, err)
		require.NoError(t, c.Write(bg, websocket.Text("hello")))
		_, err = c.Read(bg)
		require.Equal(t, &websocket.CloseError{Code: 1001}, err)
		<-done
	})
}

// A log is exact, and the same in every run.
func TestRecorder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r wstest.Recorder
		a, b := wstest.NetPipe()
		c := websocket.NewConn(r.Wrap(a), websocket.Params{})
		p := wstest.NewPeer(t, b, wstest.Client)
		go c.Serve(bg, &websocket.Handler{Message: func(c *websocket.Conn, m websocket.Message) { c.Queue(m) }})
		p.SendText("Hello")
		p.ExpectText("Hello")
		p.Pause(1500 * time.Millisecond)
		p.SendPieces(p.Bytes(wstest.CloseFrame(4000, "enough")), 3, time.Second)
		p.ExpectClose(4000)
		p.ExpectEOF()
		p.Close()
		<-c.Context().Done()
		require.Equal(t, `0s write-deadline none
0s recv [masked text "Hello"]
0s write-deadline 10s
0s send [text "Hello"]
1.5s recv 888872
1.5s read-deadline 30s
2.5s recv f36e3c
2.5s read-deadline 30s
3.5s recv 7d530b
4.5s recv 521d86
5.5s recv 0954
5.5s write-deadline 10s
5.5s send [close 4000]
5.5s send EOF
5.5s read-deadline 1s
5.5s recv EOF
5.5s send EOF
5.5s close
`, r.Log())
	})
}

// A recording of either side of a whole conversation, handshake included, fits
// later runs, whatever is random in them; and shows what has changed.
func TestReplay(t *testing.T) {
	handler := func(greeting string) http.Handler {
		return &websocket.Server{Handler: func(ctx context.Context, c *websocket.Conn) {
			c.Serve(ctx, &websocket.Handler{Message: func(c *websocket.Conn, m websocket.Message) {
				c.Queue(websocket.Text(greeting + string(m.Data)))
			}})
		}}
	}
	visit := func(n *wstest.Network, name string) error {
		c, err := websocket.Dial(bg, "ws://example.com/", &websocket.DialOptions{Client: n.Client()})
		if err != nil {
			return err
		}
		defer c.CloseNow()
		if err := c.Write(bg, websocket.Text(name)); err != nil {
			return err
		}
		if _, err := c.Read(bg); err != nil {
			return err
		}
		<-time.After(time.Minute / 3)
		return c.Close(4000, "bye")
	}
	var client, server string
	synctest.Test(t, func(t *testing.T) {
		var rc, rs wstest.Recorder
		n := &wstest.Network{Wrap: func(c, s net.Conn) (net.Conn, net.Conn) { return rc.Wrap(c), rs.Wrap(s) }}
		stop := n.Serve("example.com:80", handler("Hello, "))
		require.NoError(t, visit(n, "Ann"))
		stop()
		client, server = rc.Log(), rs.Log()
	})
	require.Contains(t, client, `close 4000 "bye"`)
	for _, c := range []struct {
		name, greeting string
		want           string
	}{
		{"the same", "Hello, ", ""},
		{"another", "Goodbye, ", `expected text "Hello, Ann", not text "Goodbye, Ann"`},
	} {
		t.Run("server "+c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := new(wstest.Network)
				stop := n.Serve("example.com:80", handler(c.greeting))
				defer stop()
				nc, err := n.DialContext(bg, "", "example.com:80")
				require.NoError(t, err)
				start := time.Now()
				requireError(t, c.want, wstest.Replay(nc, server))
				if c.want == "" {
					require.Equal(t, time.Minute/3, time.Since(start), "as long as it was")
				}
			})
		})
	}
	for _, c := range []struct {
		name, visitor string
		want          string
	}{
		{"the same", "Ann", ""},
		{"another", "Eve", `expected text "Ann", not text "Eve"`},
	} {
		t.Run("client "+c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := new(wstest.Network)
				l, err := n.Listen("example.com:80")
				require.NoError(t, err)
				done := make(chan error, 1)
				go func() { done <- visit(n, c.visitor) }()
				nc, err := l.Accept()
				require.NoError(t, err)
				requireError(t, c.want, wstest.Replay(nc, client))
				if err := <-done; c.want == "" {
					require.NoError(t, err)
				}
			})
		})
	}
}

func requireError(t *testing.T, want string, err error) {
	t.Helper()
	if want == "" {
		require.NoError(t, err)
	} else {
		require.ErrorContains(t, err, want)
	}
}

// What a log must not be, and what a program may do wrong.
func TestReplayFails(t *testing.T) {
	for _, c := range []struct{ log, program, want string }{
		{"recv 81\nnonsense 12", "", `wstest: line 2: "nonsense" is no event`},
		{"recv 8g", "", `wstest: line 1: bytes 8g: encoding/hex: invalid byte: U+0067 'g'`},
		{"0s recv \"a", "", `wstest: line 1: string "a: invalid syntax`},
		{"# nothing\n\n 5s close", "", ""},
		{"send 8105 \"Hello\"\nsend EOF", "\x81\x05Hello", ""},
		{"send 81\nsend 05 \"Hello\" # in two", "\x81\x05Hello", ""},
		{"send 81", "\x81", ""},
		{"send 81", "\x82", "wstest: last line: expected 81, not 82"},
		{"send 8105 \"Hello\"", "", `wstest: line 1: expected text "Hello": EOF`},
		{"send 8105 \"Hello\"", "\x81\x85\x00\x00\x00\x00Hello", `wstest: line 1: expected another masking of text "Hello"`},
		{"send 8102 \"ab\"\nclose", "\x81\x02abc", `wstest: line 2: expected the end, not the byte 0x63`},
		{"send \"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n\"", "GET / HTTP/1.1\r\nHost: b\r\n\r\n", `wstest: line 1: expected "Host: a" in "GET / HTTP/1.1\r\nHost: b\r\n\r\n"`},
		{"send \"GET / HTTP/1.1\\r\\n\\r\\n\"", "GET / HTTP/1.1\r\nHost: b\r\n\r\n", `wstest: line 1: expected no "Host: b"`},
		{"send \"GET / HTTP/1.1\\r\\n\\r\\n\"", "GET /", `wstest: line 1: expected "GET / HTTP/1.1\r\n\r\n": EOF`},
		{"close\nrecv 81", "", ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			a, b := wstest.NetPipe()
			io.WriteString(a, c.program)
			a.(interface{ CloseWrite() error }).CloseWrite()
			err := wstest.Replay(b, c.log)
			if c.want == "" {
				require.NoError(t, err, c.log)
			} else {
				require.EqualError(t, err, c.want, c.log)
			}
		})
	}
}

// What ExamplePeer shows, with the limits as they are by default: half a minute
// passes at once, and nothing is left behind.
func TestStalledPeerInBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := wstest.NetPipe()
		c := websocket.NewConn(a, websocket.Params{})
		done := make(chan error)
		go func() { done <- c.Serve(bg, nil) }()
		p := wstest.NewPeer(t, b, wstest.Client)
		p.Patience = time.Minute
		start := time.Now()
		p.SendFrames(wstest.Frame{Op: websocket.OpText, Payload: "half of", More: true})
		p.ExpectClose(websocket.ClosePolicyViolation)
		require.Equal(t, 30*time.Second, time.Since(start))
		p.ExpectEOF()
		p.Close()
		require.Equal(t, websocket.ClosePolicyViolation, websocket.CodeOf(<-done))
	})
}
