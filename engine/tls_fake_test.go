package engine

import (
	"crypto/tls"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/internal/memnet"
)

// tls_fake_test.go drives TLS over the invented kernel.

// An end is one of a connection that is a pipe during the handshake, and a socket
// of the fake afterwards: the server's by its secure, the client's as its peer.
type end struct {
	net.Conn
	sec  atomic.Pointer[secure]
	sock atomic.Pointer[fakeSocket]
}

func (e *end) Read(p []byte) (int, error) {
	if t := e.sec.Load(); t != nil {
		return t.readRaw(p)
	}
	for {
		s := e.sock.Load()
		if s == nil {
			return e.Conn.Read(p)
		}
		s.os.mu.Lock()
		n := copy(p, s.out)
		s.out = s.out[n:]
		s.os.mu.Unlock()
		if n > 0 {
			return n, nil
		}
		if !s.isOpen() {
			return 0, io.EOF
		}
		time.Sleep(time.Millisecond)
	}
}

func (e *end) Write(p []byte) (int, error) {
	if t := e.sec.Load(); t != nil {
		return t.writeRaw(p)
	}
	if s := e.sock.Load(); s != nil {
		s.comes(append([]byte{}, p...))
		return len(p), nil
	}
	return e.Conn.Write(p)
}

func (e *end) SetWriteDeadline(time.Time) error { return nil }

// fakedTLS is faked with a connection over TLS, on which the client has sent first.
func fakedTLS(t *testing.T, first []byte, f func(t *testing.T, client *tls.Conn, s *fakeSocket, d *diary)) {
	srv := httptest.NewTLSServer(nil) // for its certificate
	cfg := srv.TLS.Clone()
	srv.Close()
	cfg.SessionTicketsDisabled = true
	faked(t, func(t *testing.T, e *Engine, os *fake, d *diary) {
		a, b := memnet.Pipe(1 << 20)
		ce, se := &end{Conn: a}, &end{Conn: b}
		client, server := tls.Client(ce, &tls.Config{InsecureSkipVerify: true}), tls.Server(se, cfg)
		go client.Handshake()
		require.NoError(t, server.Handshake())
		synctest.Wait()
		s := os.open()
		sec := &secure{Conn: server}
		se.sec.Store(sec)
		ce.sock.Store(s)
		if len(first) > 0 {
			client.Write(first)
		}
		l, _ := e.join()
		l.adopt(socket{fd: s.fd}, sec, websocket.Params{Config: e.Options.Config}, nil)
		f(t, client, s, d)
		client.Close()
		s.ends(io.EOF)
		s.takes(-1)
		a.Close()
		b.Close()
	})
}

func read(t *testing.T, c net.Conn, n int) string {
	t.Helper()
	b := make([]byte, n)
	_, err := io.ReadFull(c, b)
	require.NoError(t, err)
	return string(b)
}

// A record that is here before the loop looks is not forgotten; what the network
// does not take waits, in order, however little it takes.
func TestTLSWaits(t *testing.T) {
	fakedTLS(t, masked(text, "early"), func(t *testing.T, client *tls.Conn, s *fakeSocket, d *diary) {
		require.Equal(t, plain(text, "early"), read(t, client, 7))
		long := strings.Repeat("0123456789", 7000)
		s.os.mu.Lock()
		s.room = 0
		s.os.mu.Unlock()
		client.Write(append(masked(text, long), masked(ping, "x")...))
		taken := make(chan bool)
		go func() {
			defer close(taken)
			for range 5000 {
				s.takes(17)
				time.Sleep(time.Millisecond)
			}
		}()
		require.Equal(t, plain(text, long)+plain(pong, "x"), read(t, client, len(long)+10+3))
		<-taken
		s.takes(-1)
		client.Write(masked(text, "on"))
		require.Equal(t, plain(text, "on"), read(t, client, 4))
	})
}

// A network that takes nothing for WriteTimeout is given up under TLS too, even if
// what it should take is small (A69).
func TestTLSWriteTimeout(t *testing.T) {
	fakedTLS(t, nil, func(t *testing.T, client *tls.Conn, s *fakeSocket, d *diary) {
		start := time.Now()
		s.takes(0)
		client.Write(masked(text, "x"))
		require.ErrorContains(t, <-d.ends, "i/o timeout")
		require.Equal(t, 10*time.Second, time.Since(start).Round(time.Second))
	})
}

// The end that comes together with the last message is seen (A75).
func TestTLSEndsTogether(t *testing.T) {
	fakedTLS(t, nil, func(t *testing.T, client *tls.Conn, s *fakeSocket, d *diary) {
		s.os.mu.Lock()
		p := s.poller
		s.poller = nil // the poller is silent until both are here
		s.os.mu.Unlock()
		client.Write(masked(text, "last"))
		client.Close()
		s.os.mu.Lock()
		s.poller = p
		var all []byte
		for _, part := range s.in {
			all = append(all, part...)
		}
		s.in = [][]byte{all}
		s.os.mu.Unlock()
		s.happens(readable)
		require.Equal(t, io.ErrUnexpectedEOF, <-d.ends)
		require.Equal(t, "text last", d.all()[1])
	})
}
