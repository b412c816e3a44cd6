package websocket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	crand "crypto/rand"
)

// outbox.go owns the sending half: frames that wait, their order, their limits,
// and the one lock. The lock covers memory only and is never held across a
// write.

const (
	maxWrite = 512 << 10 // bytes that one WriteTimeout is for
	large    = 32 << 10  // from here on a server's payload is not copied
	pongWait = 100 * time.Millisecond
)

// An outbox encodes messages into a buffer. Whoever needs his bytes out takes
// the whole buffer as one batch and writes it, with everything that others have
// added (group commit).
type outbox struct {
	on    transport
	watch *watch
	zip   *deflater // nil without compression; its window is under mu

	mu     sync.Mutex
	buf    *buffer       // encoded frames that wait; nil if none: an idle connection has no write buffer
	held   *buffer       // messages that wait for a streaming Writer to close
	fly    *buffer       // the batch under way, or the rest of one that the transport did not take
	last   uint64        // frames ever added to buf
	done   uint64        // the last of those that are out
	line   int32         // how many are in until: they write what waits
	busy   bool          // somebody is writing fly
	stuck  bool          // the transport would block; whoever drives it calls flush when it does not
	kicked bool          // a goroutine is flushing what was posted
	stream bool          // a streaming Writer owns the message slot
	turn   chan struct{} // closed when a batch has moved; made only if somebody waits

	*fate
}

// A fate is how a connection ends.
type fate struct {
	closed   bool        // a close frame was queued: nothing follows it
	answered bool        // the peer's close frame has come
	deserted bool        // and nobody reads any more who could see it come
	cut      bool        // the transport is closed
	err      error       // why nothing can be sent any more; sticky
	why      error       // what broke the transport, or ended it: nothing is written any more
	closing  *time.Timer // ends a closing handshake that takes too long
}

// alive is the fate of all connections that have none.
var alive fate

// ends returns the fate, to be changed.
func (o *outbox) ends() *fate {
	if o.fate == &alive {
		o.fate = new(fate)
	}
	return o.fate
}

// A batch is what an outbox knows of a buffer.
type batch struct {
	pong  int           // where the pong that waits begins, plus 1; 0 if none waits
	off   int           // bytes that are out
	end   uint64        // the number of the last frame
	since time.Duration // when the transport began to dawdle over what it has, since epoch; 0 if it does not
}

// keys makes masking keys that nobody can predict (RFC 6455 section 10.3).
var keys = sync.Pool{New: func() any {
	var seed [32]byte
	crand.Read(seed[:])
	return rand.NewChaCha8(seed)
}}

func newKey() uint32 {
	r := keys.Get().(*rand.ChaCha8)
	k := uint32(r.Uint64())
	keys.Put(r)
	return k
}

// appendFrame appends a frame; a client's is masked while it is copied.
func (o *outbox) appendFrame(b []byte, h Header, payload []byte) []byte {
	h.Len = int64(len(payload))
	if !o.on.profile.client {
		return append(AppendHeader(b, h), payload...)
	}
	h.Masked, h.Key = true, newKey()
	b = AppendHeader(b, h)
	n := len(b)
	b = b[:n+len(payload)]
	maskCopy(b[n:], payload, h.Key)
	return b
}

// add queues a frame behind the others.
func (o *outbox) add(h Header, payload []byte) {
	o.buf = o.buf.grow(MaxHeaderSize + len(payload))
	o.buf.b = o.appendFrame(o.buf.b, h, payload)
	o.last++
}

// message queues a message, behind the streaming Writer if there is one; packed
// is its compressed form if it is known.
func (o *outbox) message(m *Message, packed []byte) {
	if o.stream { // uncompressed: the Writer's message comes before it in the window
		o.held = o.appendMessage(o.held, m, 0, m.Data)
		return
	}
	o.last++
	if o.zip != nil && o.zip.wants(m) {
		var b *buffer
		if packed == nil && m.prepared == nil && o.zip.window != nil {
			b = borrow(len(m.Data))
			packed = shrink(b, m.Data, o.zip.window, o.zip.bits)
		}
		if packed != nil {
			o.zip.sent(m.Data)
			o.buf = o.appendMessage(o.buf, m, rsv1, packed)
		}
		b.release()
		if packed != nil {
			return
		}
	}
	o.buf = o.appendMessage(o.buf, m, 0, m.Data)
}

// appendMessage appends a whole message to b.
func (o *outbox) appendMessage(b *buffer, m *Message, rsv byte, payload []byte) *buffer {
	n := MaxHeaderSize + len(payload)
	if b != nil && cap(b.b)-len(b.b) < n && cap(b.b) < large {
		n = max(n, 4*cap(b.b)-len(b.b)) // where there are many, more will follow
	}
	b = b.grow(n)
	switch {
	case m.prepared != nil && rsv == 0 && !o.on.profile.client:
		b.b = append(b.b, m.prepared.frame...)
	case !o.on.profile.client && len(payload) < 126: // what AppendHeader would do
		b.b = append(b.b, 0x80|rsv<<4|byte(m.Type), byte(len(payload)))
		b.b = append(b.b, payload...)
	case !o.on.profile.client && len(payload) < 1<<16:
		b.b = append(b.b, 0x80|rsv<<4|byte(m.Type), 126, byte(len(payload)>>8), byte(len(payload)))
		b.b = append(b.b, payload...)
	default:
		b.b = o.appendFrame(b.b, Header{Fin: true, RSV: rsv, Opcode: Opcode(m.Type)}, payload)
	}
	return b
}

// room tells whether a frame with n bytes may wait behind waiting others. An
// empty outbox takes any message.
func (o *outbox) room(n, waiting int) bool {
	limit := o.on.profile.queueLimit
	return waiting == 0 || limit < 0 || MaxHeaderSize+n <= limit-waiting
}

// wait lets go of the lock until a batch has moved.
func (o *outbox) wait(ctx context.Context) error {
	if o.turn == nil {
		o.turn = make(chan struct{})
	}
	turn := o.turn
	o.mu.Unlock()
	defer o.mu.Lock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// waitFor is wait, for d at most.
func (o *outbox) waitFor(ctx context.Context, d time.Duration) error {
	if d > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, d, os.ErrDeadlineExceeded)
		defer cancel()
	}
	return o.wait(ctx)
}

func (o *outbox) wake() {
	if o.turn != nil {
		close(o.turn)
		o.turn = nil
	}
}

// write queues m and returns when it is out.
func (o *outbox) write(ctx context.Context, m Message) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := m.check(); err != nil {
		return err
	}
	zip := o.zip.wants(&m)
	direct := o.on.raw != nil && !o.on.profile.client && len(m.Data) >= large && !zip
	var packed []byte
	if zip {
		var b *buffer
		packed, b = o.zip.ahead(&m)
		defer b.release()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		var err error
		switch {
		case o.err != nil:
			return o.err
		case o.stream || direct && o.busy:
			err = o.wait(ctx)
		case !o.room(len(m.Data), o.buf.size()+o.fly.size()):
			err = o.until(ctx, o.last)
		case direct:
			o.buf = o.buf.grow(MaxHeaderSize)
			o.buf.b = AppendHeader(o.buf.b, Header{Fin: true, Opcode: Opcode(m.Type), Len: int64(len(m.Data))})
			o.last++
			return o.batch(ctx, m.Data)
		default:
			o.message(&m, packed)
			return o.until(ctx, o.last)
		}
		if err != nil {
			return err
		}
	}
}

// queue adds m if there is room.
func (o *outbox) queue(m *Message) error {
	if err := m.check(); err != nil {
		return err
	}
	if o.zip == nil || !o.zip.wants(m) {
		return o.queuePacked(m, nil)
	}
	packed, b := o.zip.ahead(m)
	defer b.release()
	return o.queuePacked(m, packed)
}

func (o *outbox) queuePacked(m *Message, packed []byte) (err error) {
	o.mu.Lock()
	switch {
	case o.err != nil:
		err = o.err
	case !o.room(len(m.Data), o.buf.size()+o.held.size()+o.fly.size()):
		err = ErrQueueFull
	case len(m.Data) >= large && packed == nil && o.idle() && !o.on.profile.client && !o.stream && (o.zip == nil || !o.zip.wants(m)):
		o.now(m)
	default:
		o.message(m, packed)
	}
	o.mu.Unlock()
	return err
}

// now is message for a large one, which is not copied as far as the socket takes
// it at once.
func (o *outbox) now(m *Message) {
	payload := m.Data
	if o.last++; m.prepared != nil {
		payload = m.prepared.frame
	} else {
		o.buf = o.buf.grow(MaxHeaderSize)
		o.buf.b = AppendHeader(o.buf.b, Header{Fin: true, Opcode: Opcode(m.Type), Len: int64(len(payload))})
	}
	o.try(payload)
}

// control queues a ping and returns when it is out.
func (o *outbox) control(ctx context.Context, op Opcode, payload []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return o.err
	}
	o.add(Header{Fin: true, Opcode: op}, payload)
	return o.until(ctx, o.last)
}

// post queues a control frame without payload, and tells whether it could.
func (o *outbox) post(op Opcode) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return false
	}
	o.add(Header{Fin: true, Opcode: op}, nil)
	return true
}

// answer queues a pong. While the network does not take what was queued, a pong
// that waits is replaced by the next (RFC 6455 section 5.5.3), after a moment's
// patience, so that a peer that reads gets every one.
func (o *outbox) answer(payload []byte, patience time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	kicked := o.kicked && patience > 0 // its goroutine may be waiting for a processor, while pings come
	if (o.busy || kicked) && o.pongWaits() && patience > 0 {
		o.waitFor(context.Background(), patience)
	}
	if o.err != nil {
		return
	}
	if (o.busy || kicked || o.stuck) && o.pongWaits() {
		b, at := o.buf.b, o.buf.pong-1
		h, n := ParseHeader(b[at:])
		o.buf.b = append(b[:at], b[at+n+int(h.Len):]...)
	}
	at := o.buf.size()
	o.add(Header{Fin: true, Opcode: OpPong}, payload)
	o.buf.pong = at + 1
}

func (o *outbox) pongWaits() bool { return o.buf != nil && o.buf.pong > 0 }

// goodbye queues the close frame, unless there is one already, and tells
// whether it did. The first cause becomes the error of all later calls.
func (o *outbox) goodbye(code CloseCode, reason string, cause error) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ends()
	if o.err == nil {
		o.err = cause
	}
	if o.closed || o.cut {
		return false
	}
	var p [maxControl]byte
	o.add(Header{Fin: true, Opcode: OpClose}, appendClose(p[:0], code, reason))
	o.closed = true
	o.held.release()
	o.held = nil
	o.wake()
	return true
}

// open takes the message slot for a streaming Writer.
func (o *outbox) open(ctx context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.err == nil && o.stream {
		if err := o.wait(ctx); err != nil {
			return err
		}
	}
	if o.err != nil {
		return o.err
	}
	o.stream = true
	return nil
}

// fragment sends a frame of the streaming Writer; the last one gives back the
// message slot.
func (o *outbox) fragment(ctx context.Context, h Header, payload []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.err == nil && !o.room(len(payload), o.buf.size()+o.fly.size()) { // what is held waits for this one
		if err := o.until(ctx, o.last); err != nil {
			return err
		}
	}
	if o.err != nil {
		return o.err
	}
	o.add(h, payload)
	if h.Fin {
		o.release()
	}
	return o.until(ctx, o.last)
}

// release gives back the message slot, and sends what waited for it on its way.
func (o *outbox) release() {
	o.stream = false
	if held := o.held; held != nil {
		o.held = nil
		o.buf = o.buf.grow(len(held.b))
		o.buf.b = append(o.buf.b, held.b...)
		o.last++
		held.release()
	}
	o.wake()
}

// flush returns when everything that was queued before is out, or with the
// transport's error if it would block.
func (o *outbox) flush(ctx context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stuck = false
	for n := o.last; o.done < n; {
		var err error
		switch {
		case o.why != nil:
			return o.err
		case o.stuck:
			return syscall.EAGAIN
		case o.busy:
			err = o.wait(ctx)
			o.stuck = false // if it was found so, then perhaps before this call
		default:
			err = o.batch(ctx, nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// replies writes what waits, for whoever reads, unless others are at it: the
// peer may not take what they send before this side has read. It tells whether
// something is left.
func (o *outbox) replies(ctx context.Context) (left bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.done < o.last && !o.busy && o.line == 0 && o.why == nil {
		o.stuck = false
		err = o.batch(ctx, nil)
	}
	return o.done < o.last && o.why == nil, err
}

// until returns when the first n frames are out: it writes batches while nobody
// else does, and waits in line otherwise.
func (o *outbox) until(ctx context.Context, n uint64) error {
	o.line++
	defer func() { o.line-- }()
	for o.done < n {
		var err error
		switch {
		case o.why != nil:
			return o.err
		case o.stuck:
			if err = o.waitFor(ctx, o.left()); err != nil && ctx.Err() == nil {
				err = o.broke(err)
			}
		case o.busy:
			err = o.wait(ctx)
		default:
			if err = o.batch(ctx, nil); o.stuck {
				err = nil
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// left is what is left of WriteTimeout for a transport that does not block; 0 is
// for ever.
func (o *outbox) left() time.Duration {
	if o.on.profile.writeTimeout <= 0 {
		return 0
	}
	return max(o.on.profile.writeTimeout-(sinceEpoch()-o.fly.since), 1)
}

// drain is what a kicked goroutine does: it flushes until nothing waits.
func (o *outbox) drain() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.done < o.last && o.until(context.Background(), o.last) == nil {
	}
	o.kicked = false
}

// idle tells whether nobody writes to the socket, if it is one.
func (o *outbox) idle() bool {
	return o.on.raw != nil && o.why == nil && !o.busy && !o.kicked && o.line == 0 && o.fly == nil
}

// kick writes what waits as far as the transport takes it at once, and tells
// whether a goroutine is to be started that drains the rest.
func (o *outbox) kick() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.buf == nil || o.busy || o.kicked || o.line > 0 || o.fly != nil || o.why != nil:
	case o.on.raw != nil:
		o.try(nil)
	default:
		if _, ok := o.on.nc.(interface{ NeverBlocks() }); ok {
			o.batch(context.Background(), nil)
		}
	}
	if o.kicked || o.cut || o.done == o.last {
		return false
	}
	o.kicked = true
	return true
}

// try is batch without waiting, and without a verdict: what the socket does not
// take, for whatever reason, is left to the next batch.
func (o *outbox) try(tail []byte) {
	b := o.buf
	if b == nil {
		b = borrow(0)
	}
	o.fly, o.buf = b, nil
	o.fly.end = o.last
	o.busy = true
	o.mu.Unlock()
	n, k := len(b.b), 0
	if n > 0 {
		n = o.on.raw.tryWrite(b.b, len(tail) > 0)
	}
	if n == len(b.b) && len(tail) > 0 {
		k = o.on.raw.tryWrite(tail, false)
	}
	o.mu.Lock()
	o.busy = false
	o.wake()
	if b.off = n; n == len(b.b) && k == len(tail) {
		o.fly, o.done = nil, b.end
		b.release()
		return
	}
	o.fly = b.grow(len(tail) - k)
	o.fly.b = append(o.fly.b, tail[k:]...)
}

// batch writes what waits, and tail behind it. The lock is held when it is
// called and when it returns, and not in between.
func (o *outbox) batch(ctx context.Context, tail []byte) error {
	if o.fly == nil {
		o.fly, o.buf = o.buf, nil
		o.fly.end = o.last
	}
	b := o.fly
	o.busy = true
	o.mu.Unlock()
	n, err := o.send(ctx, b.b[b.off:], tail)
	o.mu.Lock()
	o.busy = false
	was := b.off
	b.off += n
	if n > 0 || err == nil || errors.Is(err, syscall.EAGAIN) {
		o.wake()
	}
	if err != nil && !o.cut && errors.Is(err, syscall.EAGAIN) {
		o.stuck = true
		if b.since == 0 || was/maxWrite != b.off/maxWrite {
			b.since = sinceEpoch()
		}
		return err
	}
	end := b.end
	b.release()
	o.fly = nil
	if err == nil {
		o.done = end
		return nil
	}
	if ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("websocket: a write was cut short: %w", context.Cause(ctx))
	}
	return o.broke(err)
}

// broke notes that the transport is of no use any more: what was sent of the
// last frame cannot be taken back.
func (o *outbox) broke(err error) error {
	o.ends()
	if o.err == nil {
		o.err = err
	}
	if o.why == nil {
		o.why = err
	}
	o.wake()
	return o.err
}

// send writes b and tail, in parts that WriteTimeout is fair for. It returns how
// much of b is out.
func (o *outbox) send(ctx context.Context, b, tail []byte) (n int, err error) {
	if o.on.raw != nil && len(tail) == 0 { // nearly always it takes all at once, and needs no deadline
		n = o.on.raw.tryWrite(b, false)
		b = b[n:]
	}
	for len(b) > 0 && err == nil {
		part, k := b[:min(len(b), maxWrite)], 0
		o.watch.arm(ctx, o.on.profile.writeTimeout)
		if len(part) == len(b) && len(tail) > 0 {
			most := min(len(tail), maxWrite)
			k, err = writev(o.on.nc, part, tail[:most])
			k, tail = min(k, len(part)), tail[most:]
		} else {
			k, err = o.on.nc.Write(part)
		}
		if k == 0 && err == nil { // a broken transport, which would keep us here
			err = io.ErrNoProgress
		}
		n, b = n+k, b[k:]
	}
	for len(tail) > 0 && err == nil {
		var k int
		o.watch.arm(ctx, o.on.profile.writeTimeout)
		if k, err = o.on.nc.Write(tail[:min(len(tail), maxWrite)]); k == 0 && err == nil {
			err = io.ErrNoProgress
		}
		tail = tail[k:]
	}
	return n, err
}

// vectors are borrowed, so that writing two buffers costs no allocation.
var vectors = sync.Pool{New: func() any { return new(vector) }}

type vector struct {
	parts [2][]byte
	bufs  net.Buffers
}

// writev writes two buffers in one system call.
func writev(nc net.Conn, a, b []byte) (int, error) {
	v := vectors.Get().(*vector)
	v.parts = [2][]byte{a, b}
	v.bufs = v.parts[:]
	n, err := v.bufs.WriteTo(nc)
	*v = vector{}
	vectors.Put(v)
	return int(n), err
}

// shut marks the transport as closed, once.
func (o *outbox) shut(why error) (first bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ends()
	if o.err == nil {
		o.err = why
	}
	if o.cut {
		return false
	}
	o.cut = true
	if o.why == nil {
		o.why = why
	}
	for _, b := range [...]**buffer{&o.buf, &o.held} {
		(*b).release()
		*b = nil
	}
	if !o.busy {
		o.fly.release()
		o.fly = nil
	}
	o.wake()
	return true
}
