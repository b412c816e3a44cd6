package engine

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/wstest"
)

// engine_test.go tests the engine over the real network.

var bg = context.Background()

// A diary records what a Handler is called with; Close comes on ends.
type diary struct {
	mu    sync.Mutex
	lines []string
	ends  chan error
}

func newDiary() *diary { return &diary{ends: make(chan error, 100)} }

func (d *diary) note(format string, a ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, fmt.Sprintf(format, a...))
}

func (d *diary) all() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string{}, d.lines...)
}

// echo notes everything and echoes.
func (d *diary) echo() websocket.Handler {
	return websocket.Handler{
		Open: func(*websocket.Conn) { d.note("open") },
		Message: func(c *websocket.Conn, m websocket.Message) {
			d.note("%s %s", m.Type, m.Data)
			c.Queue(m)
		},
		Close: func(_ *websocket.Conn, err error) {
			d.note("close %v", err)
			d.ends <- err
		},
	}
}

// serve runs e behind a server, and ends both with the test.
func serve(t *testing.T, e *Engine) (url string) {
	t.Helper()
	s := httptest.NewServer(e)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(bg, 20*time.Second)
		defer cancel()
		require.NoError(t, e.Shutdown(ctx))
		require.Zero(t, e.Len())
		s.Close()
	})
	return s.URL
}

// dial connects a peer of bytes.
func dial(t *testing.T, url string) *wstest.Peer {
	t.Helper()
	nc, err := net.Dial("tcp", url[len("http://"):])
	require.NoError(t, err)
	t.Cleanup(func() { nc.Close() })
	p := wstest.NewPeer(t, nc, wstest.Client)
	require.Equal(t, http.StatusSwitchingProtocols, p.Dial("/").StatusCode)
	return p
}

func TestEcho(t *testing.T) {
	d := newDiary()
	e := &Engine{Handler: d.echo()}
	c, err := websocket.Dial(bg, serve(t, e), nil)
	require.NoError(t, err)
	require.NoError(t, c.Write(bg, websocket.Text("hello")))
	m, err := c.Read(bg)
	require.NoError(t, err)
	require.Equal(t, "hello", string(m.Data))
	require.Equal(t, 1, e.Len())
	for sc := range e.Conns() {
		require.Equal(t, c.NetConn().LocalAddr().String(), sc.NetConn().RemoteAddr().String())
		require.Equal(t, c.NetConn().RemoteAddr().String(), sc.NetConn().LocalAddr().String())
	}
	require.NoError(t, c.Close(4000, "enough"))
	var peer *websocket.CloseError
	require.True(t, errors.As(<-d.ends, &peer))
	require.Equal(t, &websocket.CloseError{Code: 4000, Reason: "enough"}, peer)
	require.Equal(t, []string{"open", "text hello", `close ` + peer.Error()}, d.all())
}

// What handlers queue for a large message, and for a peer that reads late,
// arrives whole.
func TestBacklog(t *testing.T) {
	d := newDiary()
	h := d.echo()
	h.Message = func(c *websocket.Conn, m websocket.Message) { c.Queue(m) }
	e := &Engine{Handler: h}
	e.Options.Config.ReadLimit, e.Options.Config.QueueLimit = 32<<20, 64<<20
	p := dial(t, serve(t, e))
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	go p.SendFrames(wstest.Frame{Op: websocket.OpBinary, Payload: string(big)}, wstest.Frame{Op: websocket.OpText, Payload: "end"})
	p.Expect(wstest.Frame{Op: websocket.OpBinary, Payload: string(big)}, wstest.Frame{Op: websocket.OpText, Payload: "end"})
}

// However a peer goes, its handler hears of it once, with the error that Serve
// would return (A74).
func TestEnds(t *testing.T) {
	for name, want := range map[string]struct {
		go_ func(p *wstest.Peer)
		is  error
	}{
		"fin":        {func(p *wstest.Peer) { p.Close() }, io.ErrUnexpectedEOF},
		"half close": {func(p *wstest.Peer) { p.CloseWrite(); p.ExpectEOF() }, io.ErrUnexpectedEOF},
		"reset":      {func(p *wstest.Peer) { p.Reset() }, reset},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDiary()
			e := &Engine{Handler: d.echo()}
			p := dial(t, serve(t, e))
			p.SendText("x")
			p.ExpectText("x")
			want.go_(p)
			require.ErrorIs(t, <-d.ends, want.is)
			require.Len(t, d.all(), 3)
		})
	}
}

// A handler that blocks stops its own connection only (A96).
func TestBlockingHandler(t *testing.T) {
	release := make(chan bool)
	d := newDiary()
	h := d.echo()
	h.Message = func(c *websocket.Conn, m websocket.Message) {
		if string(m.Data) == "block" {
			<-release
		}
		c.Queue(m)
	}
	e := &Engine{Handler: h, Loops: 1}
	url := serve(t, e)
	const many = 20
	var blocked []*wstest.Peer
	for range many {
		p := dial(t, url)
		p.SendText("block")
		blocked = append(blocked, p)
	}
	p := dial(t, url)
	for range 10 {
		p.SendText("alive")
		p.ExpectText("alive")
	}
	close(release)
	for _, p := range blocked {
		p.ExpectText("block")
		p.SendText("on")
		p.ExpectText("on")
	}
}

// CloseNow from anywhere ends a connection that is idle.
func TestCloseNow(t *testing.T) {
	d := newDiary()
	e := &Engine{Handler: d.echo()}
	p := dial(t, serve(t, e))
	p.SendText("x")
	p.ExpectText("x")
	for c := range e.Conns() {
		c.CloseNow()
		require.ErrorIs(t, c.Write(bg, websocket.Text("y")), net.ErrClosed)
	}
	require.ErrorIs(t, <-d.ends, net.ErrClosed)
	p.ExpectEOF()
}

// Shutdown says goodbye to all, and then there is nothing left; new requests are
// refused.
func TestShutdown(t *testing.T) {
	d := newDiary()
	e := &Engine{Handler: d.echo()}
	s := httptest.NewServer(e)
	defer s.Close()
	var peers []*wstest.Peer
	for range 5 {
		peers = append(peers, dial(t, s.URL))
	}
	down := make(chan error)
	go func() { down <- e.Shutdown(bg) }()
	for _, p := range peers {
		p.ExpectClose(websocket.CloseGoingAway)
		p.SendFrames(wstest.CloseFrame(websocket.CloseGoingAway, ""))
		p.ExpectEOF()
		p.Close()
	}
	require.NoError(t, <-down)
	require.Zero(t, e.Len())
	for range peers {
		require.ErrorIs(t, <-d.ends, net.ErrClosed)
	}
	resp, err := http.Get(s.URL)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
	nc, other := net.Pipe()
	defer other.Close()
	_, err = e.Adopt(nc, websocket.Params{})
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = nc.Write([]byte("x"))
	require.ErrorIs(t, err, io.ErrClosedPipe)
	require.NoError(t, e.Shutdown(bg), "again")
	require.NoError(t, new(Engine).Shutdown(bg), "of an engine that has never served")
}

// When its context ends, Shutdown cuts what is left.
func TestShutdownCut(t *testing.T) {
	d := newDiary()
	e := &Engine{Handler: d.echo()}
	s := httptest.NewServer(e)
	defer s.Close()
	p := dial(t, s.URL)
	ctx, cancel := context.WithCancelCause(bg)
	down := make(chan error)
	go func() { down <- e.Shutdown(ctx) }()
	p.ExpectClose(websocket.CloseGoingAway)
	cancel(errors.New("no patience"))
	require.EqualError(t, <-down, "no patience")
	require.ErrorIs(t, <-d.ends, net.ErrClosed)
	p.ExpectEOF()
}

// What is no bare TCP connection is served by a goroutine; the handler sees no
// difference.
func TestFallback(t *testing.T) {
	t.Run("pipe", func(t *testing.T) {
		d := newDiary()
		e := &Engine{Handler: d.echo()}
		a, b := wstest.NetPipe()
		_, err := e.Adopt(a, websocket.Params{})
		require.NoError(t, err)
		fallback(t, e, d, wstest.NewPeer(t, b, wstest.Client))
	})
	t.Run("TLS", func(t *testing.T) {
		d := newDiary()
		e := &Engine{Handler: d.echo()}
		s := httptest.NewTLSServer(e)
		defer s.Close()
		c, err := websocket.Dial(bg, s.URL, &websocket.DialOptions{Client: s.Client()})
		require.NoError(t, err)
		require.NoError(t, c.Write(bg, websocket.Text("x")))
		_, err = c.Read(bg)
		require.NoError(t, err)
		require.NoError(t, c.Close(1000, ""))
		require.Equal(t, websocket.CloseNormalClosure, websocket.CodeOf(<-d.ends))
		require.NoError(t, e.Shutdown(bg))
	})
}

func fallback(t *testing.T, e *Engine, d *diary, p *wstest.Peer) {
	p.SendText("x")
	p.ExpectText("x")
	require.Equal(t, 1, e.Len())
	down := make(chan error)
	go func() { down <- e.Shutdown(bg) }()
	p.ExpectClose(websocket.CloseGoingAway)
	p.SendFrames(wstest.CloseFrame(websocket.CloseGoingAway, ""))
	p.ExpectEOF()
	p.Close()
	require.NoError(t, <-down)
	require.ErrorIs(t, <-d.ends, net.ErrClosed)
	require.Equal(t, "open", d.all()[0])
}

// Who was let in is told when the engine shuts down before it is served.
func TestShutdownMeanwhile(t *testing.T) {
	d := newDiary()
	e := &Engine{Handler: d.echo()}
	down := make(chan error)
	e.Value = func(*http.Request) any { // after the answer
		go func() { down <- e.Shutdown(bg) }()
		for !e.isClosing() {
			runtime.Gosched()
		}
		return nil
	}
	s := httptest.NewServer(e)
	defer s.Close()
	p := dial(t, s.URL)
	p.ExpectClose(websocket.CloseGoingAway)
	p.SendFrames(wstest.CloseFrame(websocket.CloseGoingAway, ""))
	p.ExpectEOF()
	p.Close()
	require.NoError(t, <-down)
	require.ErrorIs(t, <-d.ends, net.ErrClosed)
	require.Zero(t, e.Len())
}

// A Value that panics ends its own connection and no more (A77).
func TestValuePanics(t *testing.T) {
	e := &Engine{Value: func(*http.Request) any { panic(http.ErrAbortHandler) }}
	s := httptest.NewServer(e)
	defer s.Close()
	dial(t, s.URL).ExpectEOF()
	require.NoError(t, e.Shutdown(bg))
}

// Input that comes with the request, or before the engine has the connection, is
// the first that the handler gets, however it is cut (A11, A107).
func TestEarlyInput(t *testing.T) {
	frames := append(masked(websocket.OpText, "early"), masked(websocket.OpText, strings.Repeat("more", 500))...)
	const request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	for _, secure := range []bool{false, true} {
		for _, with := range []int{0, 1, 3, 11, 12, len(frames)} { // so much comes with the request, the rest before adoption
			t.Run(fmt.Sprintf("TLS=%v with=%d", secure, with), func(t *testing.T) {
				d := newDiary()
				e := &Engine{Handler: d.echo()}
				sent := make(chan struct{})
				e.Value = func(*http.Request) any { <-sent; return nil }
				s := httptest.NewUnstartedServer(e)
				s.Listener = e.Listener(s.Listener)
				var nc net.Conn
				var err error
				if secure {
					s.StartTLS()
					nc, err = tls.Dial("tcp", s.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true})
				} else {
					s.Start()
					nc, err = net.Dial("tcp", s.Listener.Addr().String())
				}
				require.NoError(t, err)
				defer s.Close()
				defer nc.Close()
				p := wstest.NewPeer(t, nc, wstest.Client)
				p.Send(append([]byte(request), frames[:with]...))
				p.Response()
				p.Send(frames[with:])
				close(sent)
				p.ExpectText("early")
				p.ExpectText(strings.Repeat("more", 500))
				for c := range e.Conns() {
					require.IsType(t, &conn{}, c.NetConn(), "a loop's")
				}
				fallback(t, e, d, p)
			})
		}
	}
}
