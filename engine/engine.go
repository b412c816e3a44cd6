// Package engine serves WebSocket connections from event loops, so that those
// that are idle cost neither a goroutine nor a buffer.
//
// An Engine is an [net/http.Handler] like websocket.Server. The handshake is
// net/http's, with its routing and middleware; then the connection is the
// engine's, the HTTP handler returns, and a [websocket.Handler] is called when
// something comes:
//
//	e := &engine.Engine{Handler: websocket.Handler{
//		Message: func(c *websocket.Conn, m websocket.Message) { c.Queue(m) },
//	}}
//	http.Handle("/echo", e)
//
// On Linux, macOS and the BSDs, connections over bare TCP are served so, and those
// over TLS if the server listens by [Engine.Listener]:
//
//	l, err := net.Listen("tcp", ":443")
//	...
//	err = http.ServeTLS(e.Listener(l), nil, "cert.pem", "key.pem")
//
// All others, which are TLS without it, pipes and other systems, are served by
// websocket.Conn.Serve on a goroutine each, with the same Handler: the program
// need not know.
//
// Use it for many connections of which few are active at a time. With few
// connections, or when each has a goroutine of its own to do, websocket.Server
// is simpler and as fast.
package engine

import (
	"context"
	"fmt"
	"iter"
	"net"
	"net/http"
	"runtime"
	"sync"
	"time"

	"github.com/seed-07372d5a/websocket"
)

// engine.go owns the connections as a whole: taking them over, counting them,
// and shutting them all down.

// An Engine is an http.Handler that upgrades requests and serves the connections
// from event loops.
//
// The zero value with a Handler is ready; the fields must not be changed once it
// serves. Its methods may be called from any goroutine. Once it has served, it
// holds its loops until Shutdown.
type Engine struct {
	// Handler is called back by the loops, one call at a time per connection, as
	// by websocket.Conn.Serve. What it queues leaves in one write when the input
	// that is here is used up. It may block: after 1 to 2 ms its loop goes on
	// without it, on another goroutine, and only its own connection waits. One
	// that blocks holds a goroutine and a read buffer of 32 KiB, or of 256 KiB
	// if its peer has sent more than that at once.
	//
	// The connections must not be read in any other way, such as by
	// websocket.Conn.Read, and are closed without waiting for the peer.
	Handler websocket.Handler
	// Options are what requests are accepted with. Options.Config.KeepAlive and
	// KeepAliveTimeout hold for all connections that loops serve, those of Adopt
	// too. The peers that are silent are found by looking at all of them, every
	// sixteenth of the shorter of the two, but no more often than every 10 ms and
	// no less often than every second; a peer is pinged when it has been silent
	// for KeepAlive or up to half as long, so that not all are pinged at once.
	Options websocket.AcceptOptions
	// Value, if it is not nil, returns what websocket.Conn.Value is when
	// Handler.Open is called for the connection that r has become: who it is, for
	// example. With Adopt it is nil.
	Value func(r *http.Request) any
	// Loops is how many event loops there are; 0 or less: as many as GOMAXPROCS.
	Loops int

	system system // nil: the operating system

	mu      sync.Mutex
	started bool
	closing bool
	loops   []*loop // none if the system has none
	turn    int     // the loop of the next connection
	count   int     // connections, until Handler.Close has returned
	others  map[*websocket.Conn]struct{}
	empty   chan struct{} // closed when a Shutdown has seen the last connection go
	clock   clock
}

var errShutdown = fmt.Errorf("engine: shut down: %w", net.ErrClosed)

// ServeHTTP upgrades a request and hands the connection to a loop, or answers
// with an error status, and returns. It calls Handler.Open.
func (e *Engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l, ok := e.join() // before the answer: who gets one is told if the engine shuts down
	if !ok {
		w.Header().Set("Retry-After", "1")
		if r.ProtoMajor < 2 {
			w.Header().Set("Connection", "close")
		}
		http.Error(w, "the server is shutting down", http.StatusServiceUnavailable)
		return
	}
	var nc net.Conn
	adopted := false
	defer func() {
		if !adopted { // it was refused, or a callback has panicked
			if nc != nil {
				nc.Close()
			}
			e.left()
		}
	}()
	nc, p, err := websocket.Upgrade(w, r, &e.Options)
	if err != nil {
		return
	}
	var value any
	if e.Value != nil {
		value = e.Value(r)
	}
	adopted = true
	e.adopt(l, nc, p, value)
}

// Adopt serves a connection that has been upgraded, as by websocket.Upgrade; p
// is what the handshake agreed on. nc is the engine's from now on: a connection
// that a loop serves is replaced by its descriptor, without the runtime's part of
// it, and TCP's own keepalive is switched off; Conn.NetConn has its addresses and
// tls.Conn's method ConnectionState. Handler.Open has returned when Adopt does. The error
// is that the engine is shut down, and wraps net.ErrClosed; nc is closed then.
//
// Who has read from the connection already, such as by the bufio.Reader of a hijack,
// gives Adopt a net.Conn that yields that first, and has a method
// Early() (net.Conn, []byte) that returns the connection itself and what was read,
// which is the engine's from then on. What websocket.Upgrade returns is like that.
func (e *Engine) Adopt(nc net.Conn, p websocket.Params) (*websocket.Conn, error) {
	l, ok := e.join()
	if !ok {
		nc.Close()
		return nil, errShutdown
	}
	return e.adopt(l, nc, p, nil), nil
}

// adopt serves a connection that was counted in; l is nil if there are no loops.
func (e *Engine) adopt(l *loop, nc net.Conn, p websocket.Params, value any) *websocket.Conn {
	if l != nil {
		inner, early := nc, []byte(nil)
		if e, ok := nc.(interface{ Early() (net.Conn, []byte) }); ok {
			inner, early = e.Early()
		}
		t, under := underTLS(inner)
		if under != nil {
			if s, ok := take(under.TCPConn); ok {
				s.early = early
				sec := &secure{Conn: t}
				under.with.Store(sec)
				return l.adopt(s, sec, p, value)
			}
		} else if s, ok := take(bare(inner)); ok {
			s.early = early
			return l.adopt(s, nil, p, value)
		}
	}
	c := websocket.NewConn(nc, p)
	c.Value = value
	e.mu.Lock()
	e.others[c] = struct{}{}
	closing := e.closing
	e.mu.Unlock()
	if closing {
		go c.Close(websocket.CloseGoingAway, "")
	}
	go e.serve(c)
	return c
}

// serve serves a connection that no loop can.
func (e *Engine) serve(c *websocket.Conn) {
	defer func() {
		e.mu.Lock()
		delete(e.others, c)
		e.mu.Unlock()
		e.left()
	}()
	c.Serve(context.Background(), &e.Handler)
}

// join counts a connection in, and returns a loop for it, if there are any.
func (e *Engine) join() (l *loop, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closing {
		return nil, false
	}
	if !e.started {
		e.start()
	}
	e.count++
	if len(e.loops) == 0 {
		return nil, true
	}
	e.turn++
	return e.loops[e.turn%len(e.loops)], true
}

// start makes the loops.
func (e *Engine) start() {
	e.started = true
	e.others = make(map[*websocket.Conn]struct{})
	if e.system == nil {
		e.system = operatingSystem
	}
	if e.system == nil {
		return
	}
	e.clock.set(e.Options.Config)
	n := e.Loops
	if n <= 0 {
		n = runtime.GOMAXPROCS(0)
	}
	for range n {
		p, err := e.system.poller()
		if err != nil { // of descriptors there are too few: goroutines will do
			break
		}
		l := newLoop(e, p)
		e.loops = append(e.loops, l)
		go l.run()
	}
	if e.clock.period > 0 && len(e.loops) > 0 {
		e.clock.stop = make(chan struct{})
		go e.keepAlive()
	}
}

// left counts a connection out. When the last has left an engine that is shut
// down, the loops end.
func (e *Engine) left() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.count--
	e.finish()
}

// finish ends the loops of an engine that is shut down and has no connections.
func (e *Engine) finish() {
	if e.empty == nil || e.count > 0 {
		return
	}
	select {
	case <-e.empty:
		return
	default:
	}
	close(e.empty)
	for _, l := range e.loops {
		l.stop()
	}
	if e.clock.stop != nil {
		close(e.clock.stop)
	}
}

func (e *Engine) isClosing() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.closing
}

// Len returns the number of connections: those whose Handler.Open has begun, or
// is about to, and whose Handler.Close has not returned.
func (e *Engine) Len() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.count
}

// Conns returns the connections that are open now.
func (e *Engine) Conns() iter.Seq[*websocket.Conn] {
	return func(yield func(*websocket.Conn) bool) {
		for _, c := range e.snapshot() {
			if !yield(c) {
				return
			}
		}
	}
}

func (e *Engine) snapshot() (all []*websocket.Conn) {
	e.mu.Lock()
	for c := range e.others {
		all = append(all, c)
	}
	loops := e.loops
	e.mu.Unlock()
	for _, l := range loops {
		l.table.each(func(c *conn) { all = append(all, c.ws) })
	}
	return all
}

const (
	waves     = 50
	wavePause = 20 * time.Millisecond
)

// Shutdown ends the engine without cutting conversations off: new requests are
// refused with 503, every connection is closed with CloseGoingAway, in waves over
// a second if there are many, and when Handler.Close has returned for the last,
// the loops have ended and Shutdown returns nil. When ctx ends first, the
// connections that are left are cut, and Shutdown returns its cause; the loops
// end with the last connection.
//
// http.Server.Shutdown does not know about connections that were upgraded: call
// both.
func (e *Engine) Shutdown(ctx context.Context) error {
	e.mu.Lock()
	e.closing = true
	if e.empty == nil {
		e.empty = make(chan struct{})
		e.finish()
	}
	empty := e.empty
	e.mu.Unlock()

	go e.sayGoodbyes(ctx, empty)
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		for _, c := range e.snapshot() {
			c.CloseNow()
		}
		return context.Cause(ctx)
	}
}

// sayGoodbyes closes all connections, a wave at a time.
func (e *Engine) sayGoodbyes(ctx context.Context, empty <-chan struct{}) {
	conns := e.snapshot()
	t := time.NewTicker(wavePause)
	defer t.Stop()
	for size := len(conns)/waves + 1; len(conns) > 0; {
		n := min(size, len(conns))
		for _, c := range conns[:n] {
			if _, ok := c.NetConn().(*conn); ok { // does not wait
				c.Close(websocket.CloseGoingAway, "")
			} else {
				go c.Close(websocket.CloseGoingAway, "")
			}
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
