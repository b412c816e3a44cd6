package websocket

import (
	"bytes"
	"context"
	"encoding/hex"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket/internal/memnet"
)

var bg = context.Background()

// quiet is a Config without pings of its own.
var quiet = Config{KeepAlive: -1}

// pipe returns a server and a client, connected in memory.
func pipe(server, client Config) (*Conn, *Conn) {
	a, b := memnet.Pipe(1 << 20)
	return NewConn(a, Params{Config: server}), NewConn(b, Params{Client: true, Config: client})
}

// A raw peer speaks bytes.
type raw struct {
	t testing.TB
	net.Conn
}

// rawPeer returns a Conn and the raw peer that it talks to.
func rawPeer(t testing.TB, p Params) (*Conn, raw) {
	a, b := memnet.Pipe(1 << 20)
	c := NewConn(a, p)
	t.Cleanup(func() { c.CloseNow() })
	return c, raw{t, b}
}

// send writes frames, given as for frames.
func (r raw) send(hs ...any) {
	r.t.Helper()
	_, err := r.Write(frames(hs...))
	require.NoError(r.t, err)
}

// expect reads exactly these frames. Those of a client are unmasked first.
func (r raw) expect(hs ...any) {
	r.t.Helper()
	for want := frames(hs...); len(want) > 0; {
		h, n := ParseHeader(want)
		w := want[:n+int(h.Len)]
		got := r.frame()
		if len(w) > 300 {
			require.True(r.t, bytes.Equal(w, got), "a frame of %d bytes", len(w))
		}
		require.Equal(r.t, hex.EncodeToString(w[:min(len(w), 300)]), hex.EncodeToString(got[:min(len(got), 300)]))
		want = want[len(w):]
	}
}

// frame reads a frame and returns it unmasked.
func (r raw) frame() []byte {
	r.t.Helper()
	var b []byte
	h, n := ParseHeader(b)
	for ; n == 0; h, n = ParseHeader(b) {
		b = append(b, r.bytes(1)...)
	}
	require.Positive(r.t, n)
	p := r.bytes(int(h.Len))
	if h.Masked {
		Mask(p, h.Key)
		h.Masked = false
	}
	return append(AppendHeader(nil, h), p...)
}

func (r raw) bytes(n int) []byte {
	r.t.Helper()
	r.SetReadDeadline(time.Now().Add(time.Minute))
	b := make([]byte, n)
	_, err := io.ReadFull(r.Conn, b)
	require.NoError(r.t, err)
	return b
}

// expectEOF reads the end of the connection.
func (r raw) expectEOF() {
	r.t.Helper()
	rest, err := io.ReadAll(r.Conn)
	require.NoError(r.t, err)
	require.Empty(r.t, rest)
}

// closeFrame is the payload of a close frame.
func closeFrame(code CloseCode, reason string) string {
	return string(appendClose(nil, code, reason))
}

func read(t testing.TB, c *Conn) string {
	t.Helper()
	m, err := c.Read(bg)
	require.NoError(t, err)
	return m.Type.String() + " " + string(m.Data)
}

// seq returns n bytes that are easy to tell apart.
func seq(n int) []byte {
	return bytes.Repeat([]byte("0123456789abcdefghijklmnopqrstuvwxyz"), n/36+1)[:n]
}

var errReset = syscall.ECONNRESET

// pass lets the fake time of a synctest bubble pass.
func pass(d time.Duration) { <-time.After(d) }
