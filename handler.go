package websocket

import (
	"context"
	"io"
	"runtime/debug"
	"time"
)

// handler.go owns callbacks: a loop that calls them, and the same loop turned
// inside out for those who have their own.

// A Handler is called back by [Conn.Serve] and [Conn.Feed], one call at a time
// per connection. Any of its functions may be nil. The same Handler may serve
// any number of connections.
//
// A function that panics ends its connection with CloseInternalError; Close
// then has the panic and its stack in err.
type Handler struct {
	Open    func(c *Conn)            // first
	Message func(c *Conn, m Message) // m.Data is lent until it returns
	Close   func(c *Conn, err error) // exactly once, last; err says why, as Read would
}

// Serve reads until the connection ends and calls h for what comes. It is one
// reading call as long as it lasts: h does not read. What its functions queue
// leaves together when the input that is here is used up, so that a handler that
// answers with [Conn.Queue] costs one read and one write for any number of
// messages that came together. It returns what h.Close was given, which is never
// nil.
//
// When ctx ends, the connection is closed with CloseGoingAway, and the error is
// the cause. A nil h discards messages: connections that only write need it, so
// that pings are answered and the end is noticed.
func (c *Conn) Serve(ctx context.Context, h *Handler) error {
	if h == nil {
		h = new(Handler)
	}
	err := c.callback(func() {
		if h.Open != nil {
			h.Open(c)
		}
	})
	if err == nil {
		err = c.serve(ctx, h)
	}
	_, panicked := err.(*panicError)
	switch {
	case c.over.Load():
	case panicked:
		c.abandon(err)
	case c.isClosing(): // a Close on another goroutine reads from now on
		c.awaitGoodbye()
	case ctx.Err() != nil:
		c.Close(CloseGoingAway, "")
	default:
		c.abandon(err)
	}
	if h.Close != nil {
		if e := c.callback(func() { h.Close(c, err) }); e != nil {
			return e
		}
	}
	return err
}

// serve is Serve's loop.
func (c *Conn) serve(ctx context.Context, h *Handler) (err error) {
	c.serving.Store(true)
	if err = c.begin(ctx); err != nil {
		return err
	}
	raw := c.out.on.raw
	if raw != nil {
		raw.serve(ctx, h)
	}
	for err == nil {
		if len(c.rest) > 0 {
			err = c.eat(h)
		}
		if err == nil {
			err = c.fill(ctx)
		}
	}
	if raw != nil {
		raw.served()
		if c.over.Load() {
			c.out.on.nc.Close() // end may have left it to this goroutine
		}
	}
	c.quit(err)
	return err
}

// serveHere serves the n bytes that raw has read, within its call: whole messages
// only, for nothing else can do without the socket. What it leaves is in c.rest.
func (c *Conn) serveHere(ctx context.Context, h *Handler, n int) (err error) {
	c.heard.Store(int64(sinceEpoch()))
	c.rest = c.in.b[:n]
	c.resize(n)
	if err = c.eatWhole(h); err == nil && len(c.rest) == 0 {
		err = c.beforeWaiting(ctx)
	}
	if err == nil && c.over.Load() {
		err = c.reason()
	}
	return err
}

// callback runs f, and turns its panic into an error.
func (c *Conn) callback(f func()) (err error) {
	c.calling.Store(true)
	defer func() { c.returned(&err, recover()) }()
	f()
	return nil
}

// returned ends callbacks, the last of which may have panicked with v.
func (c *Conn) returned(err *error, v any) {
	c.calling.Store(false)
	if v != nil {
		*err = &panicError{v, debug.Stack()}
	}
}

// abandon ends a connection whose handler failed.
func (c *Conn) abandon(err error) {
	if c.reading.CompareAndSwap(false, true) {
		c.finish(CloseInternalError, "", err)
		c.leave()
	}
	c.end(err)
}

// Feed is Serve for those who read themselves, such as an event loop: p is what
// the transport has yielded, h is called for what it completes, and answers
// leave before Feed returns, as far as the transport takes them. Feed unmasks p
// in place and keeps none of it.
//
// The first call calls h.Open; it may come with an empty p, before there is any
// input. A later call with an empty p says that the input has ended. Once Feed
// has returned an error, h.Close was called with it, and nothing is expected but
// that the transport goes on to be flushed until the connection closes it.
// A connection that is fed must not be read in any other way.
func (c *Conn) Feed(p []byte, h *Handler) error {
	if !c.reading.CompareAndSwap(false, true) {
		return errReaders
	}
	defer c.leave()
	if h == nil {
		h = new(Handler)
	}
	c.fed.Store(true)
	err := c.feed(p, h)
	if err != nil && !c.ended {
		c.ended = true
		if _, ok := err.(*panicError); ok && !c.over.Load() {
			c.finish(CloseInternalError, "", err)
		}
		if h.Close != nil {
			c.callback(func() { h.Close(c, err) })
		}
	}
	return err
}

// feed opens the connection, or takes p apart and sends the answers.
func (c *Conn) feed(p []byte, h *Handler) error {
	var early []byte
	switch {
	case !c.opened:
		c.opened = true
		early = c.rest
		if h.Open != nil {
			if err := c.callback(func() { h.Open(c) }); err != nil {
				return err
			}
		}
	case len(p) == 0:
		return c.end(io.ErrUnexpectedEOF)
	}
	now := sinceEpoch()
	if c.machine.midway() {
		c.waited(len(p), now-time.Duration(c.heard.Load()))
	}
	if c.owes {
		c.gone()
	}
	c.heard.Store(int64(now))
	c.rest = early
	err := c.eat(h)
	poison(early)
	if err == nil {
		c.rest = p
		err = c.eat(h)
		poison(p)
	}
	c.ponged = false
	if err == nil {
		err = c.sendReplies(context.Background())
	}
	if err == nil {
		c.expect()
	}
	return err
}

// A stall is how a peer that is fed, and owes something, is waited for.
type stall struct {
	due   time.Duration // when it must have gone on, since epoch; 0 if it owes nothing any more
	timer *time.Timer   // calls progress
}

// expect sees to it that progress is called if the peer owes something.
func (c *Conn) expect() {
	d := c.patience()
	if d == 0 {
		return
	}
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	if c.out.cut {
		return
	}
	c.owes = true
	if c.stall == nil {
		c.stall = &stall{timer: time.AfterFunc(d, c.progress)}
	}
	c.stall.due = sinceEpoch() + d
}

// gone notes that the peer has gone on.
func (c *Conn) gone() {
	c.owes = false
	c.out.mu.Lock()
	c.stall.due = 0
	c.out.mu.Unlock()
}

// progress ends a connection whose peer has paused for too long. It is called
// when that may be so.
func (c *Conn) progress() {
	c.out.mu.Lock()
	due := c.stall.due
	left := due - sinceEpoch()
	switch {
	case due == 0:
		c.stall = nil
	case left > 0 && !c.out.cut:
		c.stall.timer.Reset(left)
	}
	c.out.mu.Unlock()
	if due != 0 && left <= 0 {
		c.fail(errStalled)
	}
}

// eat calls h for what is here.
func (c *Conn) eat(h *Handler) error {
	for {
		if err := c.eatWhole(h); err != nil {
			return c.broken(err)
		}
		if len(c.rest) == 0 {
			return nil
		}
		piece, err := c.step()
		switch {
		case err != nil:
			return err
		case piece.op == 0:
			return nil
		case c.stream != nil:
			if err := c.skip(piece); err != nil {
				return err
			}
			continue
		}
		m, ok, err := c.collect(piece)
		if err != nil {
			return err
		}
		if ok && h.Message != nil {
			if err := c.callback(func() { h.Message(c, m) }); err != nil {
				return err
			}
		}
		if ok {
			c.reclaim()
		}
	}
}

// broken ends the connection if err says that the peer broke a rule. A panic is
// left to Serve and Feed.
func (c *Conn) broken(err error) error {
	if rule, ok := err.(*ProtocolError); ok && !c.over.Load() {
		return c.fail(rule)
	}
	return err
}

// eatWhole calls h for the messages that are here in one frame, up to the first
// input that is anything else. One guard is for all of them.
func (c *Conn) eatWhole(h *Handler) (err error) {
	calling := false
	defer func() {
		if calling {
			c.returned(&err, recover())
		}
	}()
	for !c.over.Load() {
		if len(c.rest) == 0 {
			return nil
		}
		var m Message
		if ok, err := c.quick(&m); !ok {
			return err
		}
		if h.Message != nil {
			if !calling {
				calling = true
				c.calling.Store(true)
			}
			h.Message(c, m)
			poison(m.Data)
		}
	}
	return c.reason()
}
