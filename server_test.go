package websocket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// serveHTTP starts s and returns how to dial it.
func serveHTTP(t testing.TB, h http.Handler) func(*DialOptions) *Conn {
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return func(o *DialOptions) *Conn {
		t.Helper()
		c, err := Dial(bg, server.URL, o)
		require.NoError(t, err)
		t.Cleanup(func() { c.CloseNow() })
		return c
	}
}

// echo is a Server.Handler.
func echo(ctx context.Context, c *Conn) {
	for m, err := range c.Messages(ctx) {
		if err != nil || c.Write(ctx, m) != nil {
			return
		}
	}
}

func TestServer(t *testing.T) {
	type key struct{}
	causes := make(chan error, 1)
	s := &Server{
		Options: AcceptOptions{Subprotocols: []string{"echo"}},
		Handler: func(ctx context.Context, c *Conn) {
			require.Equal(t, "from middleware", ctx.Value(key{}))
			require.Equal(t, "echo", c.Subprotocol())
			echo(ctx, c)
			<-ctx.Done()
			causes <- context.Cause(ctx)
		},
	}
	dial := serveHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), key{}, "from middleware")))
	}))
	c := dial(&DialOptions{Subprotocols: []string{"other", "echo"}})
	require.Equal(t, "echo", c.Subprotocol())
	for _, n := range []int{0, 10, 70_000, 1 << 20} {
		m := Binary(seq(n))
		go c.Write(bg, m)
		got, err := c.Read(bg)
		require.NoError(t, err)
		require.True(t, bytes.Equal(m.Data, got.Data))
	}
	n := 0
	for range s.Conns() {
		n++
	}
	require.Equal(t, 1, n)
	require.NoError(t, c.Close(4000, "bye"))
	require.Equal(t, &CloseError{4000, "bye"}, <-causes)
	require.NoError(t, s.Shutdown(bg))
	for range s.Conns() {
		t.Fatal("a connection is left")
	}
}

// A handler that returns closes its connection; one that panics, with 1011, and
// the panic is logged as net/http does.
func TestServerHandlerEnds(t *testing.T) {
	var logged bytes.Buffer
	var mu sync.Mutex
	for _, c := range []struct {
		name    string
		handler func(context.Context, *Conn)
		code    CloseCode
		log     string
	}{
		{"returns", func(context.Context, *Conn) {}, CloseNormalClosure, ""},
		{"closes", func(_ context.Context, c *Conn) { c.Close(4001, "") }, 4001, ""},
		{"panics", func(context.Context, *Conn) { panic("boom") }, CloseInternalError, "handler panicked: boom"},
		{"aborts", func(context.Context, *Conn) { panic(http.ErrAbortHandler) }, CloseInternalError, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &Server{Handler: c.handler}
			hs := httptest.NewUnstartedServer(s)
			logged.Reset()
			hs.Config.ErrorLog = log.New(writerFunc(func(p []byte) (int, error) {
				mu.Lock()
				defer mu.Unlock()
				return logged.Write(p)
			}), "", 0)
			hs.Start()
			defer hs.Close()
			conn, err := Dial(bg, hs.URL, nil)
			require.NoError(t, err)
			_, err = conn.Read(bg)
			require.Equal(t, &CloseError{Code: c.code}, err)
			require.NoError(t, s.Shutdown(bg))
			mu.Lock()
			defer mu.Unlock()
			if c.log == "" {
				require.Empty(t, logged.String())
			} else {
				require.Contains(t, logged.String(), c.log)
			}
		})
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// Shutdown: 1001 to all, 503 to those who come, and nil when all have gone
// (A79).
func TestShutdown(t *testing.T) {
	const n = 200
	s := &Server{Handler: echo}
	hs := httptest.NewServer(s)
	defer hs.Close()
	var wg sync.WaitGroup
	for range n {
		c, err := Dial(bg, hs.URL, nil)
		require.NoError(t, err)
		wg.Go(func() {
			_, err := c.Read(bg)
			require.Equal(t, &CloseError{Code: CloseGoingAway}, err)
		})
	}
	require.NoError(t, s.Shutdown(bg))
	wg.Wait()
	_, err := Dial(bg, hs.URL, nil)
	var refused *HandshakeError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, http.StatusServiceUnavailable, refused.Status)
	require.Equal(t, "1", refused.Response.Header.Get("Retry-After"))
	require.NoError(t, s.Shutdown(bg), "again")
}

// When its context ends, Shutdown cuts what is left: here a peer that never
// answers and a handler that never reads.
func TestShutdownCuts(t *testing.T) {
	there := make(chan bool)
	s := &Server{Handler: func(ctx context.Context, c *Conn) {
		close(there)
		<-ctx.Done()
	}}
	dial := serveHTTP(t, s)
	dial(nil)
	<-there // the client has its answer before that
	ctx, cancel := context.WithCancelCause(bg)
	cancel(errors.New("out of patience"))
	require.EqualError(t, s.Shutdown(ctx), "out of patience")
	require.NoError(t, s.Shutdown(bg), "now they are gone")
}

// A Server whose Handler was forgotten, and other zero values, do not take the
// process down (A91).
func TestZeroValues(t *testing.T) {
	hs := httptest.NewUnstartedServer(&Server{})
	hs.Config.ErrorLog = log.New(writerFunc(func(p []byte) (int, error) { return len(p), nil }), "", 0)
	hs.Start()
	defer hs.Close()
	c, err := Dial(bg, hs.URL, nil)
	require.NoError(t, err)
	_, err = c.Read(bg)
	require.Equal(t, CloseInternalError, CodeOf(err))

	require.NoError(t, new(Server).Shutdown(bg))
	for range new(Server).Conns() {
		t.Fatal("no connections")
	}
	require.Equal(t, Message{}, Message{}.Clone())
	require.True(t, strings.HasPrefix(fmt.Sprint(MessageType(0)), "invalid"))
}
