package engine

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
	"unique"

	"github.com/seed-07372d5a/websocket"
)

// loop.go owns the event loops: which connection's turn it is, and on which
// goroutine.

const (
	batch     = 256              // events that are asked for at a time
	readSize  = 32 << 10         // bytes of a read buffer
	largeSize = 256 << 10        // and of one for a connection that has filled that
	turnBytes = 8 * readSize     // that a connection may send in one turn
	patience  = time.Millisecond // that a loop has with a handler
)

// buffers are for reading. A goroutine that runs a loop holds one; a connection
// that waits holds none.
var (
	buffers      = sync.Pool{New: func() any { return new([readSize]byte) }}
	largeBuffers = sync.Pool{New: func() any { return new([largeSize]byte) }}
)

// A loop gives turns to the connections that have something to do. The goroutine
// that runs it owns it, between turns. During a turn whoever changes turn from
// its number to 0 first owns it next: that goroutine, when the turn is over, or
// the watchdog, which lets another goroutine go on.
type loop struct {
	engine *Engine
	table  table
	poller atomic.Pointer[poller]
	quit   chan struct{} // closed when it shall end

	turn atomic.Uint64 // the number of the turn that is under way; 0 if none is

	// The owner's.
	turns   uint64       // so far
	events  [batch]event // those from next to last are yet to be handled
	next    int
	last    int
	ready   []*conn // were interrupted because their turns were too long
	pending int     // how many of ready come before the poller is asked again

	watched atomic.Bool // the watchdog will look
	watch   *time.Timer
	seen    uint64 // the turn that it saw last
}

func newLoop(e *Engine, p poller) *loop {
	l := &loop{engine: e, quit: make(chan struct{})}
	l.poller.Store(&p)
	l.watch = time.AfterFunc(time.Hour, l.look)
	l.watch.Stop()
	return l
}

// run gives turns until the loop ends or is another goroutine's.
func (l *loop) run() {
	buf := buffers.Get().(*[readSize]byte)
	defer buffers.Put(buf)
	for {
		c := l.pick()
		if c == nil {
			return
		}
		l.turns++
		number := l.turns
		l.turn.Store(number)
		if !l.watched.Load() && l.watched.CompareAndSwap(false, true) {
			l.watch.Reset(patience)
		}
		more := c.turn(buf[:])
		if !l.turn.CompareAndSwap(number, 0) {
			for more {
				more = c.turn(buf[:])
			}
			return
		}
		if more {
			l.ready = append(l.ready, c)
		}
	}
}

// look is the watchdog's: a turn that it sees twice has taken too long.
func (l *loop) look() {
	now := l.turn.Load()
	if now == 0 {
		l.watched.Store(false) // the next turn sets it again
		if now = l.turn.Load(); now == 0 || !l.watched.CompareAndSwap(false, true) {
			return
		}
	}
	if now == l.seen && l.turn.CompareAndSwap(now, 0) {
		go l.run()
	}
	l.seen = now
	l.watch.Reset(patience)
}

// pick returns the connection whose turn it is, with its state at run, and waits
// for one; nil if the loop has ended.
func (l *loop) pick() *conn {
	for {
		for l.next < l.last {
			ev := l.events[l.next]
			l.next++
			if c := l.table.find(ev.token); c != nil && c.signal(ev.bits) {
				return c
			}
		}
		if l.pending > 0 {
			l.pending--
			c := l.ready[0]
			l.ready = l.ready[1:]
			return c
		}
		n, err := (*l.poller.Load()).wait(l.events[:], len(l.ready) == 0)
		if err != nil {
			select {
			case <-l.quit:
				return nil
			default:
			}
			n = 0
			l.restart(err)
		}
		l.next, l.last, l.pending = 0, n, len(l.ready)
	}
}

// restart goes on with another poller when one has failed. If it cannot, all
// connections end with the error.
func (l *loop) restart(err error) {
	old := *l.poller.Load()
	p, e := l.engine.system.poller()
	if e == nil {
		l.poller.Store(&p)
		old.close()
	}
	l.table.each(func(c *conn) {
		if e != nil || c.watchBy(p) != nil {
			c.fail(err)
		}
	})
	if e != nil { // nothing is left to wait for, but there may be new connections
		select {
		case <-l.quit:
		case <-time.After(time.Second):
		}
	}
}

// stop ends the loop.
func (l *loop) stop() {
	close(l.quit)
	l.watch.Stop()
	(*l.poller.Load()).close()
}

// adopt makes a connection of s, with t if that is not nil, and opens it.
func (l *loop) adopt(s socket, t *secure, p websocket.Params, value any) *websocket.Conn {
	p.Config.KeepAlive = -1 // the engine's own
	c := &conn{loop: l, tls: t, fd: int32(s.fd), ip: s.remote.Addr().As16(), port: s.remote.Port()}
	c.common = unique.Make(common{s.local, s.remote.Addr().Zone(), p.Client})
	c.state.Store(running)
	if t != nil {
		t.c = c
		c.news.Store(readable) // records may be here already
		c.state.Store(again)
	}
	c.ws = websocket.NewConn(c, p)
	c.ws.Value = value
	l.table.add(c, l.engine.clock.now.Load())
	c.ended = c.ws.Feed(nil, &l.engine.Handler) != nil
	if len(s.early) > 0 {
		c.feed(s.early)
	}
	if l.engine.isClosing() {
		c.ws.Close(websocket.CloseGoingAway, "")
	}
	l.watchOver(c)
	if !c.release() { // in most cases, for it can be written to
		buf := buffers.Get().(*[readSize]byte)
		if c.turn(buf[:]) {
			go c.carry()
		}
		buffers.Put(buf)
	}
	return c.ws
}

// watchOver makes the loop's poller tell of c.
func (l *loop) watchOver(c *conn) {
	for {
		p := l.poller.Load()
		err := c.watchBy(*p)
		if p == l.poller.Load() { // else restart has come in between
			if err != nil {
				c.fail(err)
			}
			return
		}
	}
}

var background = context.Background()
