package engine

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/wstest"
)

// serveTLS runs e behind a server whose connections loops can serve under TLS.
func serveTLS(t *testing.T, e *Engine) (url string, client *tls.Config) {
	t.Helper()
	s := httptest.NewUnstartedServer(e)
	s.Listener = e.Listener(s.Listener)
	s.StartTLS()
	t.Cleanup(func() {
		require.NoError(t, e.Shutdown(bg))
		s.Close()
	})
	return s.URL, s.Client().Transport.(*http.Transport).TLSClientConfig
}

func dialTLS(t *testing.T, url string, cfg *tls.Config) *wstest.Peer {
	t.Helper()
	nc, err := tls.Dial("tcp", strings.TrimPrefix(url, "https://"), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { nc.Close() })
	p := wstest.NewPeer(t, nc, wstest.Client)
	require.Equal(t, http.StatusSwitchingProtocols, p.Dial("/").StatusCode)
	return p
}

// Connections over TLS are served by loops too: no goroutine comes with them.
func TestTLS(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			d := newDiary()
			e := &Engine{Handler: d.echo(), Value: func(r *http.Request) any { return r.TLS.Version }}
			e.Handler.Open = func(c *websocket.Conn) {
				tc := c.NetConn().(interface{ ConnectionState() tls.ConnectionState })
				d.note("open %x %x", c.Value, tc.ConnectionState().Version)
			}
			url, cfg := serveTLS(t, e)
			cfg.MaxVersion = version
			p := dialTLS(t, url, cfg)
			for c := range e.Conns() {
				require.IsType(t, &conn{}, c.NetConn())
			}
			p.SendPieces(p.Bytes(wstest.Frame{Op: text, Payload: "hello"}, wstest.Frame{Op: ping, Payload: "x"}), 1, 0)
			p.ExpectText("hello")
			p.Expect(wstest.Frame{Op: pong, Payload: "x"})
			p.SendFrames(wstest.CloseFrame(4000, "enough"))
			p.ExpectClose(4000)
			p.ExpectEOF()
			p.Close()
			require.Equal(t, websocket.CloseCode(4000), websocket.CodeOf(<-d.ends))
			require.Equal(t, fmt.Sprintf("open %x %x", version, version), d.all()[0])
		})
	}
}

// What the peer is slow to read waits, and arrives whole; the close frame is
// behind it.
func TestTLSBacklog(t *testing.T) {
	d := newDiary()
	e := &Engine{Handler: d.echo()}
	e.Options.Config.ReadLimit, e.Options.Config.QueueLimit = 32<<20, 64<<20
	e.Handler.Message = func(c *websocket.Conn, m websocket.Message) { c.Queue(m) }
	url, cfg := serveTLS(t, e)
	p := dialTLS(t, url, cfg)
	big := wstest.Frame{Op: websocket.OpBinary, Payload: string(bytes.Repeat([]byte("0123456789abcdef"), 1<<18))}
	go p.SendFrames(big, big, wstest.CloseFrame(1000, ""))
	p.Expect(big, big)
	p.ExpectClose(1000)
	p.ExpectEOF()
	p.Close()
	require.Equal(t, websocket.CloseNormalClosure, websocket.CodeOf(<-d.ends))
}

// An end without TLS's goodbye, and one with it but without WebSocket's (A75).
func TestTLSEnds(t *testing.T) {
	for name, end := range map[string]func(p *wstest.Peer){
		"truncated":    func(p *wstest.Peer) { p.Conn.(*tls.Conn).NetConn().Close() },
		"close_notify": func(p *wstest.Peer) { p.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDiary()
			e := &Engine{Handler: d.echo()}
			url, cfg := serveTLS(t, e)
			p := dialTLS(t, url, cfg)
			p.Send(p.Bytes(wstest.Frame{Op: text, Payload: "cut off"})[:5])
			end(p)
			require.Equal(t, io.ErrUnexpectedEOF, <-d.ends)
			require.Len(t, d.all(), 2, "no message")
		})
	}
}

// What is no TLS record ends the connection.
func TestTLSGarbage(t *testing.T) {
	d := newDiary()
	e := &Engine{Handler: d.echo()}
	url, cfg := serveTLS(t, e)
	p := dialTLS(t, url, cfg)
	p.Conn.(*tls.Conn).NetConn().Write([]byte("GET / HTTP/1.1\r\n"))
	require.ErrorContains(t, <-d.ends, "tls: ")
}

// A connection without TLS may come from an engine's listener, and one over TLS
// that is idle needs no goroutine.
func TestListener(t *testing.T) {
	d := newDiary()
	e := &Engine{Handler: d.echo(), Loops: 1}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &httptest.Server{Listener: e.Listener(l), Config: &http.Server{Handler: e}}
	s.Start()
	p := dial(t, s.URL)
	p.SendText("x")
	p.ExpectText("x")
	for c := range e.Conns() {
		require.IsType(t, &conn{}, c.NetConn())
	}
	p.Close()
	require.Equal(t, io.ErrUnexpectedEOF, <-d.ends)
	require.NoError(t, e.Shutdown(bg))
	s.Close()
}

func TestTLSGoroutines(t *testing.T) {
	d := newDiary()
	e := &Engine{Handler: d.echo(), Loops: 1}
	url, cfg := serveTLS(t, e)
	var peers []*wstest.Peer
	for range 20 {
		p := dialTLS(t, url, cfg)
		p.SendText("x")
		p.ExpectText("x")
		peers = append(peers, p)
	}
	for runtime.NumGoroutine() >= len(peers) { // net/http's end by themselves
		runtime.Gosched()
	}
}
