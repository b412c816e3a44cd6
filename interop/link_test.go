package interop

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket"
)

// A host is where our servers are: each has a path of its own.
type host struct {
	t    *testing.T
	addr string
	mux  *http.ServeMux
	last atomic.Int64
}

// newHost starts one. With count, the connections it takes are *counted.
func newHost(t *testing.T, count bool) *host {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	h := &host{t: t, addr: l.Addr().String(), mux: http.NewServeMux()}
	s := &http.Server{Handler: h.mux}
	if count {
		l = countingListener{l}
		s.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, wireKey{}, c)
		}
	}
	var served sync.WaitGroup
	served.Go(func() { s.Serve(l) })
	t.Cleanup(func() {
		s.Close()
		served.Wait()
	})
	return h
}

func (h *host) url(scheme, path string) string { return scheme + "://" + h.addr + path }

// serve sets up a server of ours, and returns its URL and its connections.
func (h *host) serve(t *testing.T, o websocket.AcceptOptions) (url string, conns <-chan *websocket.Conn) {
	ch := make(chan *websocket.Conn, 1)
	s := &websocket.Server{Options: o, Handler: func(ctx context.Context, c *websocket.Conn) {
		c.Value = ctx.Value(wireKey{})
		ch <- c
		<-ctx.Done() // the test has it
	}}
	path := "/" + strconv.FormatInt(h.last.Add(1), 10)
	h.mux.Handle("GET "+path, s)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		require.NoError(t, s.Shutdown(ctx), "a connection of ours does not end")
	})
	return h.url("ws", path), ch
}

type wireKey struct{}

// A counted connection counts what goes over it.
type counted struct {
	net.Conn
	in, out atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.in.Add(int64(n))
	return n, err
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.out.Add(int64(n))
	return n, err
}

type countingListener struct{ net.Listener }

func (l countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &counted{Conn: c}, nil
}

// A role is what the peer is.
type role string

const (
	client role = "they are client"
	server role = "they are server"
)

func (p *peer) roles() []role {
	if p.server {
		return []role{client, server}
	}
	return []role{client}
}

// A setup is what both sides of a connection bring.
type setup struct {
	ours   []string // subprotocols
	theirs []string
	config websocket.Config
	peer   *deflate
	limit  int // of the peer
}

// A link is a connection between us and a peer.
type link struct {
	t       *testing.T
	ctx     context.Context
	p       *peer
	id      int
	reports <-chan report

	c          *websocket.Conn
	wire       *counted // if the host counts
	extensions string   // as agreed
	protocol   string   // as the peer says
	pings      chan string
}

// newLink returns a link that is not connected yet.
func newLink(t *testing.T, p *peer) *link {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	l := &link{t: t, ctx: ctx, p: p, pings: make(chan string, 16)}
	l.id, l.reports = p.open()
	return l
}

// connect connects us with a peer in this role.
func (h *host) connect(t *testing.T, p *peer, r role, s setup) *link {
	l := newLink(t, p)
	s.config.CloseTimeout, s.config.WriteTimeout = patience, patience
	s.config.OnPing = func(c *websocket.Conn, b []byte) { l.pings <- string(b) }
	if r == client {
		l.accept(h, s)
	} else {
		require.NoError(t, l.dial(s))
	}
	t.Cleanup(func() { l.c.CloseNow() })
	return l
}

// accept has the peer connect to a server of ours.
func (l *link) accept(h *host, s setup) {
	url, conns := h.serve(l.t, websocket.AcceptOptions{Subprotocols: s.ours, Config: s.config})
	l.order(order{Do: "connect", URL: url, Protocols: s.theirs, Deflate: s.peer, Limit: s.limit})
	open := l.expect("open")
	l.protocol, l.extensions = open.Protocol, sorted(open.Extensions)
	l.take(conns)
	l.wire, _ = l.c.Value.(*counted)
}

// take waits for the connection that a server of ours has accepted.
func (l *link) take(conns <-chan *websocket.Conn) {
	l.t.Helper()
	select {
	case l.c = <-conns:
	case <-l.ctx.Done():
		require.FailNow(l.t, "no connection came")
	}
}

// ping waits for what the peer's next ping held.
func (l *link) ping() string {
	l.t.Helper()
	select {
	case data := <-l.pings:
		return data
	case <-l.ctx.Done():
		require.FailNow(l.t, "no ping came")
		return ""
	}
}

// dial connects us to a server of the peer's.
func (l *link) dial(s setup) error {
	l.order(order{Do: "listen", Protocols: s.theirs, Deflate: s.peer, Limit: s.limit})
	port := l.expect("listening").Port
	transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err != nil || s.config.Compression == nil { // then nobody asks for the count
			return c, err
		}
		l.wire = &counted{Conn: c}
		return l.wire, nil
	}}
	c, err := websocket.Dial(l.ctx, fmt.Sprintf("ws://127.0.0.1:%d/", port), &websocket.DialOptions{
		Client:       &http.Client{Transport: transport},
		Subprotocols: s.ours,
		Config:       s.config,
		OnResponse: func(r *http.Response) {
			l.extensions = sorted(strings.Join(r.Header.Values("Sec-WebSocket-Extensions"), ", "))
		},
	})
	if err != nil {
		return err
	}
	l.c = c
	l.protocol = l.expect("open").Protocol
	return nil
}

// sorted puts the parameters of an extension in order: servers differ in it.
func sorted(extensions string) string {
	parts := strings.Split(extensions, ";")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	slices.Sort(parts[1:])
	return strings.Join(parts, "; ")
}

// order tells the peer to do something with this connection.
func (l *link) order(o order) {
	l.t.Helper()
	o.ID = l.id
	o.Protocols = append([]string{}, o.Protocols...) // never null
	require.NoError(l.t, l.p.send(o))
}

// expect waits for the peer to report an event, which must be the next one.
func (l *link) expect(event string) report {
	l.t.Helper()
	select {
	case r, ok := <-l.reports:
		require.True(l.t, ok, "the peer has ended before %q", event)
		require.Equal(l.t, event, r.Event, "%+v", r)
		return r
	case <-l.ctx.Done():
		require.FailNow(l.t, "the peer reports nothing", "instead of %q", event)
	}
	return report{}
}

// read returns the next message.
func (l *link) read() websocket.Message {
	l.t.Helper()
	m, err := l.c.Read(l.ctx)
	require.NoError(l.t, err)
	return m
}

// end reads until the connection ends, and returns why.
func (l *link) end() error {
	for {
		if _, err := l.c.Read(l.ctx); err != nil {
			return err
		}
	}
}

// background has somebody else read while f runs, and then closes.
func (l *link) background(f func()) {
	l.t.Helper()
	end := make(chan error, 1)
	go func() { end <- l.end() }()
	defer func() {
		l.c.CloseNow()
		<-end
	}()
	f()
	require.NoError(l.t, l.c.Close(websocket.CloseNormalClosure, ""))
	require.ErrorIs(l.t, <-end, net.ErrClosed)
	end <- nil
}

// same fails the test unless two messages are the same, without printing them.
func (l *link) same(want, got websocket.Message) {
	l.t.Helper()
	require.Equal(l.t, want.Type, got.Type)
	require.Len(l.t, got.Data, len(want.Data))
	require.True(l.t, string(want.Data) == string(got.Data), "a %v message of %d bytes has changed on its way", want.Type, len(want.Data))
}

// echo sends messages, and sees them come back.
func (l *link) echo(messages ...websocket.Message) {
	l.t.Helper()
	for _, m := range messages {
		require.NoError(l.t, l.c.Write(l.ctx, m))
		l.same(m, l.read())
	}
}
