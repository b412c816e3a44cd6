package websocket

import (
	"context"
	"errors"
	"iter"
	"log"
	"net/http"
	"runtime/debug"
	"sync"
	"time"
)

// server.go owns the connections of a server: accepting them, giving each a
// goroutine, and shutting them all down.

// A Server is an http.Handler that upgrades requests and owns the connections.
// Each is served by Handler on a goroutine of its own, so that what net/http
// holds for a request is freed.
//
// The zero value with a Handler is ready; the fields must not be changed once it
// serves. Its methods may be called from any goroutine.
type Server struct {
	// Options are what requests are accepted with.
	Options AcceptOptions
	// Handler serves one connection. ctx ends with the connection, says why by
	// context.Cause, and has the values of the request's context. When Handler
	// returns, the connection is closed, with CloseNormalClosure if it is still
	// open, or with CloseInternalError after a panic, which is logged to the
	// http.Server's ErrorLog as net/http does with its own handlers.
	Handler func(ctx context.Context, c *Conn)

	mu      sync.Mutex
	conns   map[*Conn]struct{}
	closing bool
	empty   chan struct{} // closed when a Shutdown has seen the last connection go
}

var errShutdown = &HandshakeError{Status: http.StatusServiceUnavailable, Reason: "the server is shutting down"}

// ServeHTTP accepts a connection, or answers with an error status, and returns.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.isClosing() {
		w.Header().Set("Retry-After", "1")
		refuse(w, r, errShutdown)
		return
	}
	nc, p, err := Upgrade(w, r, &s.Options)
	if err != nil {
		return
	}
	c := newConn(nc, p, context.WithoutCancel(r.Context()))
	if !s.add(c) {
		c.sayGoodbye(CloseGoingAway, "")
	}
	var l *log.Logger
	if h, ok := r.Context().Value(http.ServerContextKey).(*http.Server); ok {
		l = h.ErrorLog
	}
	go s.serve(c, l)
}

// serve runs the handler. It takes little of the stack, for it is there as long
// as the connection.
func (s *Server) serve(c *Conn, l *log.Logger) {
	defer s.served(c, l)
	s.Handler(c.out.on.life.Load().ctx, c)
}

// served is deferred by serve and sees the connection end.
func (s *Server) served(c *Conn, l *log.Logger) {
	defer s.remove(c)
	code := CloseNormalClosure
	if v := recover(); v != nil {
		code = CloseInternalError
		(&panicError{v, debug.Stack()}).log(l, c)
	}
	c.Close(code, "")
}

// log reports a panic where net/http reports those of its handlers.
func (e *panicError) log(l *log.Logger, c *Conn) {
	if err, ok := e.value.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		return
	}
	if l == nil {
		l = log.Default()
	}
	l.Printf("%v: %v", c.out.on.nc.RemoteAddr(), e)
}

// Conns returns the connections that are open now.
func (s *Server) Conns() iter.Seq[*Conn] {
	return func(yield func(*Conn) bool) {
		for _, c := range s.snapshot() {
			if !yield(c) {
				return
			}
		}
	}
}

// wavePause is between two waves of a Shutdown: clients that reconnect at once
// do not all come at the same time.
const (
	waves     = 50
	wavePause = 20 * time.Millisecond
)

// Shutdown ends the server without cutting conversations off: new requests are
// refused with 503, every connection is closed with CloseGoingAway, in waves
// over a second if there are many, and when the last handler has returned,
// Shutdown returns nil. When ctx ends first, the connections that are left are
// cut, and Shutdown returns its cause.
//
// http.Server.Shutdown does not know about connections that were upgraded: call
// both.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closing = true
	if s.empty == nil {
		s.empty = make(chan struct{})
		if len(s.conns) == 0 {
			close(s.empty)
		}
	}
	empty := s.empty
	s.mu.Unlock()

	go s.sayGoodbyes(ctx, empty)
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		for _, c := range s.snapshot() {
			c.CloseNow()
		}
		return context.Cause(ctx)
	}
}

// sayGoodbyes closes all connections, a wave at a time.
func (s *Server) sayGoodbyes(ctx context.Context, empty <-chan struct{}) {
	conns := s.snapshot()
	t := time.NewTicker(wavePause)
	defer t.Stop()
	for size := len(conns)/waves + 1; len(conns) > 0; {
		n := min(size, len(conns))
		for _, c := range conns[:n] {
			go c.Close(CloseGoingAway, "")
		}
		conns = conns[n:]
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		case <-empty:
			return
		}
	}
}

func (s *Server) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// add takes c in, and tells whether it may stay.
func (s *Server) add(c *Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		s.conns = make(map[*Conn]struct{})
	}
	s.conns[c] = struct{}{}
	return !s.closing
}

func (s *Server) remove(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if len(s.conns) == 0 && s.empty != nil {
		select {
		case <-s.empty: // it was empty before, and late comers have gone too
		default:
			close(s.empty)
		}
	}
}

func (s *Server) snapshot() []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	conns := make([]*Conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	return conns
}
