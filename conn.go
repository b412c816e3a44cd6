package websocket

import (
	"context"
	"errors"
	"io"
	"iter"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// conn.go owns the connection: reading messages, and the thin ends of writing
// them.

// A Config holds the limits of a connection. The zero Config is a good one. In
// every field zero means the default and negative means none.
type Config struct {
	// ReadLimit is the size of the largest message that is received, in bytes
	// as delivered. A larger one ends the connection with
	// CloseMessageTooBig, before memory is taken for it. 0: 1 MiB.
	ReadLimit int64
	// QueueLimit is how many bytes may wait to be sent, headers included.
	// Beyond it Queue and Post return ErrQueueFull, and Write waits. An empty
	// queue takes one message of any size. 0: 1 MiB.
	QueueLimit int
	// WriteTimeout is how long the network may take for one write, of 512 KiB
	// at most, before the connection is ended. 0: 10 s.
	WriteTimeout time.Duration
	// ProgressTimeout is how long the peer may pause inside a message, and how
	// far a frame may fall behind a pace of 1 KiB/s while this side waits for
	// it, before the connection is ended with ClosePolicyViolation. 0: 30 s.
	ProgressTimeout time.Duration
	// CloseTimeout is how long Close waits for the peer's close frame. 0: 5 s.
	CloseTimeout time.Duration
	// KeepAlive is how long the peer may be silent before it is sent a ping. 0: 25 s.
	KeepAlive time.Duration
	// KeepAliveTimeout is how long it may then be silent while this side reads,
	// before the connection is ended with ErrPeerTimeout. 0: 20 s.
	KeepAliveTimeout time.Duration
	// Compression is permessage-deflate (RFC 7692), if the peer agrees; nil: off.
	Compression *Compression
	// OnPing and OnPong are called by the goroutine that reads when the peer
	// has sent one; p is lent until they return. Pings are answered anyway. A
	// hook that panics ends the connection with CloseInternalError, and the
	// error has the panic and its stack.
	OnPing, OnPong func(c *Conn, p []byte)
}

// Params say what a handshake agreed on, for [NewConn].
type Params struct {
	Client      bool   // this side is the client: it masks, and refuses masked frames
	Subprotocol string // as agreed; "" if none
	Extensions  string // as agreed, in the syntax of Sec-WebSocket-Extensions; "" if none
	Config      Config
}

// A Conn is a WebSocket connection. Every method may be called from any
// goroutine at any time, except that one goroutine reads: Read, Next, Reader
// with what it returned, Messages, Buffered, Serve and Feed are its own.
//
// Somebody has to read for pings, pongs and the closing handshake to be
// handled, even if no messages are expected: see [Conn.Serve].
type Conn struct {
	Value any // the caller's

	hooks *hooks // nil if there are none

	// The way in: of the goroutine that reads.
	machine machine
	watch   *watch
	in      *buffer   // what was read last
	rest    []byte    // the end of it that is yet to be parsed
	lent    loan      // what Next or Feed lent
	msg     *buffer   // a message in several pieces, so far
	zip     *inflater // nil without compression
	stream  *messageReader
	delay   time.Duration // how far the peer is behind with what it owes
	size    int32         // of the next buffer to read into
	sparse  int8          // how many in a row were nearly empty
	kind    MessageType
	whole   bool // msg is whole and was lent
	ponged  bool // a pong was queued
	opened  bool // Feed has called Handler.Open
	ended   bool // Feed has called Handler.Close
	owes    bool // the peer that is fed must go on: stall says by when

	reading atomic.Bool  // a goroutine is in a reading call
	calling atomic.Bool  // a callback runs
	serving atomic.Bool  // Serve runs: what handlers queue is flushed when the input is used up
	fed     atomic.Bool  // input comes by Feed
	over    atomic.Bool  // nothing will be read any more
	heard   atomic.Int64 // when the peer was last heard, since epoch

	// The way out, with the one lock.
	out    outbox
	pinger atomic.Pointer[pinger] // nil without keepalive, until the first Ping
	stall  *stall                 // nil if nobody has to look; under out.mu
}

// NewConn returns a connection that speaks WebSocket over nc, after a handshake
// that agreed on p; nc is its own from now on. [Accept] and [Dial] do all of
// this; NewConn is for those who bring their own transport.
//
// A transport that does not block returns syscall.EAGAIN from Write for what it
// does not take, and whoever drives it calls Flush when it takes more. One whose
// SetWriteDeadline returns os.ErrNoDeadline is not asked for deadlines any more,
// which saves time and memory. If it has a method NeverBlocks(), and takes writes
// from any goroutine, then Post writes at once; else, to any transport but a
// socket, on a goroutine of its own.
func NewConn(nc net.Conn, p Params) *Conn { return newConn(nc, p, nil) }

// newConn is NewConn for a connection whose context, if base is not nil, has the
// values of base.
func newConn(nc net.Conn, p Params, base context.Context) *Conn {
	c := &Conn{size: minRead}
	if e, ok := nc.(*earlyConn); ok {
		c.rest, nc = e.early, e.Conn
	}
	o := &c.out
	o.on.nc, o.on.raw, o.on.profile, o.fate = nc, newSocket(nc), p.profile(), &alive
	if base != nil {
		o.on.life.Store(newLifetime(base))
	}
	if p.Config.OnPing != nil || p.Config.OnPong != nil {
		c.hooks = &hooks{p.Config.OnPing, p.Config.OnPong}
	}
	c.watch, o.watch = o.on.watches()
	c.machine = machine{client: p.Client, limit: o.on.profile.readLimit}
	c.compress(p)
	c.startKeepAlive()
	return c
}

// Subprotocol returns the subprotocol that the handshake agreed on, or "".
func (c *Conn) Subprotocol() string { return c.out.on.profile.subprotocol }

// NetConn returns the transport, for its addresses and TLS state. Reading from
// it, writing to it or setting its deadlines breaks the connection.
func (c *Conn) NetConn() net.Conn { return c.out.on.nc }

// Context returns a context that ends when the connection does; context.Cause
// says why, with the error that other calls return.
func (c *Conn) Context() context.Context {
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	life := o.on.life.Load()
	if life == nil {
		life = newLifetime(context.Background())
		o.on.life.Store(life)
		if o.cut {
			life.cancel(o.err)
		}
	}
	return life.ctx
}

// Read returns the next message, which is the caller's to keep.
//
// When ctx ends first, Read returns its cause, nothing is lost, and the next
// call goes on where this one stopped. Any other error is final and the same
// for all later calls: [*CloseError], [*ProtocolError], ErrPeerTimeout, an error
// that wraps net.ErrClosed, io.ErrUnexpectedEOF, or the transport's.
func (c *Conn) Read(ctx context.Context) (Message, error) {
	var m Message
	err := c.read(ctx, &m, true)
	return m, err
}

// keep returns what is lent as the caller's own.
func (c *Conn) keep(p []byte) []byte {
	if c.whole && cap(p)-len(p) <= len(p)/4 {
		c.msg, c.whole = nil, false // collected in memory that fits: hand it over
		c.lent.forget()
		return p
	}
	data := make([]byte, len(p))
	copy(data, p)
	return data
}

// Next is Read without a copy: the message is lent until the next reading call.
func (c *Conn) Next(ctx context.Context) (m Message, err error) {
	err = c.read(ctx, &m, false)
	return m, err
}

// read waits for the next message, which is the caller's to keep or lent. While
// it waits there is little on the stack: an idle goroutine has 2 KiB of it.
func (c *Conn) read(ctx context.Context, m *Message, keep bool) error {
	err := c.begin(ctx)
	if err != nil {
		return err
	}
	for ok := false; ; {
		if len(c.rest) > 0 {
			ok, err = c.advance(m)
		}
		if ok || err != nil {
			break
		}
		if err = c.fill(ctx); err != nil {
			break
		}
	}
	if keep && err == nil {
		m.Data = c.keep(m.Data)
	}
	c.quit(err)
	return err
}

// advance makes what it can of the input that is here, and tells whether m is
// the next message.
func (c *Conn) advance(m *Message) (ok bool, err error) {
	for {
		if ok, err = c.quick(m); ok {
			c.lent.of(m.Data)
			c.sendPongs()
			return true, nil
		}
		if err != nil {
			return false, c.broken(err)
		}
		p, err := c.step()
		switch {
		case err != nil:
			return false, err
		case p.op == 0:
			return false, nil
		case c.stream != nil:
			if err := c.skip(p); err != nil {
				return false, err
			}
			continue
		}
		if *m, ok, err = c.collect(p); ok || err != nil {
			c.sendPongs() // who knows when the next reading call comes
			return ok, err
		}
	}
}

// quick makes m the next message if that is all here, in one frame.
func (c *Conn) quick(m *Message) (ok bool, err error) {
	if c.stream != nil {
		return false, nil
	}
	t, data, n, err := c.machine.whole(c.rest)
	if n == 0 || err != nil {
		return false, err
	}
	c.rest = c.rest[n:]
	*m = Message{Type: t, Data: data}
	return true, nil
}

// Messages returns the messages as they come, for a range loop. Each is lent
// until the loop's body ends. The loop ends with the first error, which it is
// given with an empty message; if that is the end of ctx, another loop or
// another reading call goes on where this one stopped.
func (c *Conn) Messages(ctx context.Context) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		for {
			m, err := c.Next(ctx)
			if !yield(m, err) || err != nil {
				return
			}
		}
	}
}

// Buffered tells whether more input is already here, so that the next reading
// call may not have to wait. It is for those who answer with Queue, and Flush
// when there is no more.
func (c *Conn) Buffered() bool {
	if c.fed.Load() {
		return len(c.rest) > 0
	}
	if !c.reading.CompareAndSwap(false, true) {
		return false // a Close on another goroutine reads
	}
	defer c.leave()
	return len(c.rest) > 0
}

// Write sends a message and returns when the network has taken it. m.Data is
// only read, and is the caller's again afterwards. Messages that are written at
// the same time leave together, in one system call.
//
// When ctx ends before the message's turn has come, Write returns its cause and
// the connection lives on; the message may still be sent. When ctx or
// Config.WriteTimeout ends while the network takes it, the connection is ended,
// for half a frame cannot be taken back, and the error says so.
func (c *Conn) Write(ctx context.Context, m Message) error {
	return c.settle(c.out.write(ctx, m))
}

// Queue adds a message to those that go with the next Write or Flush, or when
// [Conn.Serve] or [Conn.Feed] has used up its input; a large one leaves at once,
// as far as the network takes it. It copies what waits of m.Data, does not wait
// itself, and returns ErrQueueFull beyond Config.QueueLimit.
func (c *Conn) Queue(m Message) error { return c.out.queue(&m) }

// Flush sends what was queued, and returns when the network has taken it. For
// ctx the same holds as for Write. Over a transport that does not block it
// returns syscall.EAGAIN if something is left.
func (c *Conn) Flush(ctx context.Context) error { return c.settle(c.out.flush(ctx)) }

// Post is Queue for those who cannot wait and do not flush: the message leaves
// by itself. What a bare socket takes without waiting is written before Post
// returns, the rest on a goroutine that lasts as long as there is something.
func (c *Conn) Post(m Message) error {
	if err := c.out.queue(&m); err != nil {
		return err
	}
	c.kick()
	return nil
}

// kick sends what waits, without waiting for it.
func (c *Conn) kick() {
	if c.out.kick() {
		go func() {
			c.out.drain()
			c.settle(nil)
		}()
	}
}

// settle follows up on a sending call: a broken transport ends the connection,
// and what the caller no longer waits for leaves by itself.
func (c *Conn) settle(err error) error {
	c.out.mu.Lock()
	why, cut := c.out.why, c.out.cut
	c.out.mu.Unlock()
	switch {
	case why != nil && !cut:
		c.end(why)
	case err != nil && !cut:
		c.kick()
	}
	return err
}

// end closes the transport and lets go of everything, once. It returns the
// error that all later calls return.
func (c *Conn) end(why error) error {
	o := &c.out
	c.over.Store(true)
	first := o.shut(why)
	o.mu.Lock()
	err, life, closing, stall := o.err, o.on.life.Load(), o.closing, c.stall
	o.mu.Unlock()
	if !first {
		return err
	}
	if raw := o.on.raw; raw == nil || !raw.hangUp() {
		closeTransport(o.on.nc)
	}
	c.pinger.Load().stop()
	if closing != nil {
		closing.Stop()
	}
	if stall != nil {
		stall.timer.Stop()
	}
	c.watch.disarm()
	o.watch.disarm()
	if life != nil {
		life.cancel(err)
	}
	return err
}

// closeTransport does not wait: TLS would, to say goodbye.
func closeTransport(nc net.Conn) {
	if t, ok := nc.(interface{ NetConn() net.Conn }); ok {
		t.NetConn().Close()
	}
	nc.Close()
}

// enter begins a reading call.
func (c *Conn) enter(ctx context.Context) error {
	if !c.reading.CompareAndSwap(false, true) {
		if c.over.Load() || c.isClosing() {
			return c.reason()
		}
		return errReaders
	}
	var err error
	switch {
	case c.over.Load():
		err = c.reason()
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	if err != nil {
		c.quit(err)
	}
	return err
}

// begin enters for another message than the last: its loan ends.
func (c *Conn) begin(ctx context.Context) error {
	if err := c.enter(ctx); err != nil {
		return err
	}
	c.reclaim()
	if c.stream != nil {
		return c.leaveStream()
	}
	return nil
}

// leaveStream passes over what is here of the message that was read as a stream.
func (c *Conn) leaveStream() (err error) {
	if r := c.stream; r.full {
		r.full = false
		if err = c.skip(r.rest); err != nil {
			c.leave()
		}
	} else if r.last {
		c.endStream()
	}
	return err
}

func (c *Conn) leave() { c.reading.Store(false) }

// quit ends a reading call. One that its context has cut short may be the last:
// a Close that waits reads in its place.
func (c *Conn) quit(err error) {
	c.leave()
	if err == nil || err == io.EOF || c.over.Load() { // io.EOF is the end of a message only
		return
	}
	o := &c.out
	o.mu.Lock()
	if o.closed {
		o.deserted = true
		o.wake()
	}
	o.mu.Unlock()
}

// reason is the error that ended the connection.
func (c *Conn) reason() error {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	return c.out.err
}

func (c *Conn) isClosing() bool {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	return c.out.closed
}

// reclaim ends the loan of the last message.
func (c *Conn) reclaim() {
	c.lent.end()
	if c.whole {
		c.msg.release()
		c.msg, c.whole = nil, false
	}
}

// step parses what is here, answers control frames, and returns the next piece
// of a data message, or one with op 0 if there is none.
func (c *Conn) step() (piece, error) {
	for len(c.rest) > 0 {
		p, n, err := c.machine.next(c.rest)
		c.rest = c.rest[n:]
		if err != nil {
			return piece{}, c.fail(err.(*ProtocolError))
		}
		switch p.op {
		case OpPing:
			if c.hooks != nil {
				if err := c.call(c.hooks.ping, p.data); err != nil {
					return piece{}, err
				}
			}
			c.pong(p.data)
		case OpPong:
			if c.hooks != nil {
				if err := c.call(c.hooks.pong, p.data); err != nil {
					return piece{}, err
				}
			}
			c.pinger.Load().pong(p.data)
		case OpClose:
			return piece{}, c.goodbye(p.data)
		case OpText, OpBinary:
			return p, nil
		}
	}
	return piece{}, nil
}

// call runs a hook, if there is one. If it panics, the connection is ended.
func (c *Conn) call(f func(*Conn, []byte), p []byte) error {
	if f == nil {
		return nil
	}
	was := c.calling.Load()
	err := c.callback(func() { f(c, p) })
	c.calling.Store(was)
	if err != nil {
		return c.finish(CloseInternalError, "", err)
	}
	return nil
}

// collect returns the message that p completes. One in a single piece is lent
// where it lies; others are put together in msg.
func (c *Conn) collect(p piece) (m Message, ok bool, err error) {
	switch {
	case p.packed:
		if err := c.unpack(p); err != nil {
			return m, false, err
		}
	case p.first && p.last:
		c.lent.of(p.data)
		return Message{Type: MessageType(p.op), Data: p.data}, true, nil
	case c.inPlace(p.data):
		c.msg.b = c.msg.b[:len(c.msg.b)+len(p.data)]
	default:
		n := len(p.data)
		if c.msg == nil { // room for the rest of the frame, if a good part is here
			n = int(min(int64(n)+c.machine.room(), 4*int64(n)))
		}
		c.msg = c.msg.grow(n)
		c.msg.b = append(c.msg.b, p.data...)
	}
	c.kind, c.whole = MessageType(p.op), p.last
	if !c.whole {
		return m, false, nil
	}
	c.lent.of(c.msg.b)
	return Message{Type: c.kind, Data: c.msg.b}, true, nil
}

// inPlace tells whether p lies where msg goes on: fill may have read it there.
func (c *Conn) inPlace(p []byte) bool {
	if c.msg == nil || len(p) == 0 {
		return false
	}
	n := len(c.msg.b)
	return n < cap(c.msg.b) && &c.msg.b[:n+1][n] == &p[0]
}

// unpack inflates a piece of a compressed message to the end of msg.
func (c *Conn) unpack(p piece) (err error) {
	if c.msg, err = c.zip.collect(c.msg, p, c.machine.limit); err != nil {
		return c.fail(err.(*ProtocolError))
	}
	return nil
}

// unpackSome inflates to msg what it has room for of a piece of a message that
// is read as a stream, and returns what that says. The rest is left in p.
func (c *Conn) unpackSome(p *piece) (b []byte, more bool, err error) {
	switch {
	case c.msg == nil:
		c.msg = borrow(min(4*len(p.data), 64<<10))
	case c.zip.full:
		c.zip.reuse(c.msg)
	}
	at := len(c.msg.b)
	if err := c.zip.unpack(c.msg, p, c.machine.limit); err != nil {
		return nil, false, c.fail(err.(*ProtocolError))
	}
	return c.msg.b[at:], c.zip.full, nil
}

// skip passes over a piece of a message that was read as a stream.
func (c *Conn) skip(p piece) error {
	for more := p.packed; more; {
		var err error
		if _, more, err = c.unpackSome(&p); err != nil { // what follows may refer to it
			return err
		}
	}
	if p.last {
		c.endStream()
	}
	return nil
}

// endStream lets go of a message that was read as a stream.
func (c *Conn) endStream() {
	c.stream = nil
	c.msg.release()
	c.msg = nil
}

const (
	minRead = 4 << 10   // the first buffer to read into, in bytes
	maxRead = 512 << 10 // and the largest: a message that fits is not copied
)

// fill reads more input: into a borrowed buffer, of a size that follows the
// traffic, or what is left of a large payload to where it shall stay.
func (c *Conn) fill(ctx context.Context) error {
	p := c.freeRoom()
	n, err := c.recv(ctx, p)
	if err != nil {
		return err
	}
	if p != nil {
		c.rest = p[:n]
		return nil
	}
	if n > 0 { // else raw has seen to it
		c.rest = c.in.b[:n]
		c.resize(n)
	}
	return nil
}

// resize chooses the size of the next input buffer: larger as soon as one was
// full, smaller after many that were nearly empty.
func (c *Conn) resize(n int) {
	const many = 16
	switch size := int(c.size); {
	case n == size:
		c.size, c.sparse = min(4*c.size, maxRead), 0
	case n >= size/8:
		c.sparse = 0
	case c.sparse < many:
		c.sparse++
	default:
		c.size, c.sparse = max(c.size/4, minRead), 0
	}
}

// freeRoom is room in msg for what must come of a large payload; nil if that is
// not worth while. It at most doubles the room: the announced length is only a
// claim.
func (c *Conn) freeRoom() []byte {
	room := c.machine.room()
	if c.msg == nil || c.whole || c.machine.packed || room < int64(c.size) {
		return nil
	}
	n := len(c.msg.b)
	if n == cap(c.msg.b) {
		c.msg = c.msg.grow(int(min(room, int64(n))))
	}
	free := c.msg.b[n:cap(c.msg.b)]
	return free[:min(room, int64(len(free)))]
}

// recv reads from the network into p, or into c.in if p is nil. While it waits
// it holds no read buffer if it can do without. It may return 0, with nothing
// read or with what Serve has already seen to.
func (c *Conn) recv(ctx context.Context, p []byte) (n int, err error) {
	if err := c.beforeWaiting(ctx); err != nil {
		return 0, err
	}
	for {
		patience, begun := c.patience(), time.Duration(0)
		c.watch.arm(ctx, patience)
		if patience > 0 {
			begun = sinceEpoch()
		}
		if r := c.out.on.raw; r != nil {
			n, err = r.read(c, p)
		} else if p == nil {
			n, err = c.out.on.nc.Read(c.input())
		} else {
			n, err = c.out.on.nc.Read(p)
		}
		if patience > 0 {
			c.waited(n, sinceEpoch()-begun)
		}
		if n > 0 {
			c.heard.Store(int64(sinceEpoch()))
			return n, nil
		}
		if err == nil {
			return 0, nil
		}
		if err = c.interrupted(ctx, err); err != nil {
			c.dropInput()
			return 0, err
		}
	}
}

// patience is how long the peer may pause; 0 is for ever.
func (c *Conn) patience() time.Duration {
	d := c.out.on.profile.progressTimeout
	if d <= 0 || !c.machine.midway() {
		return 0
	}
	return max(d-c.delay, 1)
}

// slowest is the pace, in bytes per second, that a frame has to keep up with:
// its sender has all of it. Between frames it may still have to find out.
const slowest = 1 << 10

// waited notes that the peer, which owes something, took d to send n bytes of
// input, or has not sent anything yet.
func (c *Conn) waited(n int, d time.Duration) {
	c.delay += d
	switch {
	case n == 0:
	case !c.machine.inside || int64(n) >= c.machine.left:
		c.delay = 0
	default:
		c.delay = max(c.delay-time.Duration(n)*time.Second/slowest, 0)
	}
}

// beforeWaiting sends what was queued while there was input.
func (c *Conn) beforeWaiting(ctx context.Context) error {
	c.sendPongs()
	if !c.serving.Load() {
		return nil
	}
	return c.sendReplies(ctx)
}

// sendReplies sends what callbacks have queued, and returns the error that has
// ended the connection, if one has. What the transport does not take now waits
// for a Flush.
func (c *Conn) sendReplies(ctx context.Context) error {
	left, err := c.out.replies(ctx)
	if c.settle(err) != nil && c.over.Load() {
		return err
	}
	if left && err == nil {
		c.kick()
	}
	return nil
}

// sendPongs sends the pongs that were queued, without waiting for the network.
func (c *Conn) sendPongs() {
	if c.ponged {
		c.ponged = false
		c.kick()
	}
}

// input returns the buffer to read into.
func (c *Conn) input() []byte {
	if c.in == nil || cap(c.in.b) < int(c.size) {
		c.dropInput()
		c.in = borrow(int(c.size))
	}
	return c.in.b[:c.size]
}

// dropInput gives back the read buffer.
func (c *Conn) dropInput() {
	c.in.release()
	c.in = nil
}

// interrupted says what a failed read means: nil if nothing.
func (c *Conn) interrupted(ctx context.Context, err error) error {
	switch err.(type) {
	case *panicError, *ProtocolError: // of what was served on the spot
		return c.broken(err)
	}
	switch {
	case c.over.Load():
		return c.reason()
	case errors.Is(err, os.ErrDeadlineExceeded):
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if c.patience() > 0 && c.watch.overdue() {
			return c.fail(errStalled)
		}
		c.watch.again()
		return nil
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF // without a close frame no end is a good one
	}
	return c.end(err)
}
