package engine

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unique"

	"github.com/seed-07372d5a/websocket"
)

// conn.go owns one connection: the states it is in, its turns, and the transport
// that its websocket.Conn writes to.

// The states of a connection. Whoever has changed idle to running owns it, reads
// it, and closes it; what happens meanwhile is left to that goroutine by again.
const (
	idle uint32 = iota
	running
	again
	closed
)

// A conn is the transport of a websocket.Conn that a loop feeds. Its writes do
// not block.
type conn struct {
	ws     *websocket.Conn
	loop   *loop
	tls    *secure // nil without
	common unique.Handle[common]
	token

	state   atomic.Uint32
	news    atomic.Uint32 // what has happened since the owner looked
	blocked atomic.Bool   // the system did not take all of the last write

	// The owner's.
	ended  bool  // Feed has returned an error: what still comes is thrown away
	eof    bool  // the input has ended, and answers wait
	slow   bool  // answers have had to wait once
	paused uint8 // what has happened that waits for answers to be taken

	ip   [16]byte // the peer's address
	port uint16

	fin   bool       // the sending half is to be closed when nothing waits; under mu
	bye   bool       // a close frame is out: no ping follows it; under mu
	fd    int32      // -1 when it is closed; changed by the owner, under mu
	mu    sync.Mutex // held for the moment of a system call that does not block
	extra *extra     // nil in most connections at most times; under mu
}

// Common is what many connections have in common.
type common struct {
	local  netip.AddrPort
	zone   string // of the peer's address
	client bool   // this side masks
}

// Extra is what few connections need.
type extra struct {
	ping    []byte // the rest of one
	left    int64  // bytes of the frame under way that are not out
	head    []byte // its header, if not all of that is
	failure error  // why nothing can be written any more
}

// signal tells c what has happened. The caller whom it returns true owns c.
func (c *conn) signal(bits uint32) (mine bool) {
	c.news.Or(bits)
	for {
		switch c.state.Load() {
		case idle:
			if c.state.CompareAndSwap(idle, running) {
				return true
			}
		case running:
			if c.state.CompareAndSwap(running, again) {
				return false
			}
		default:
			return false
		}
	}
}

// release ends the ownership of c, unless something has happened meanwhile.
func (c *conn) release() bool {
	if c.state.CompareAndSwap(running, idle) {
		return true
	}
	c.state.Store(running)
	return false
}

// tell is signal for those who have no use for c.
func (c *conn) tell(bits uint32) {
	if c.signal(bits) {
		go c.carry()
	}
}

// carry gives c, which the caller owns, its turns outside the loop.
func (c *conn) carry() {
	buf := buffers.Get().(*[readSize]byte)
	defer buffers.Put(buf)
	for c.turn(buf[:]) {
	}
}

// turn does what there is to do, on the goroutine that owns c. It returns true if
// that was too much for one turn, and c is still owned; else c is idle or closed.
func (c *conn) turn(buf []byte) (more bool) {
	for {
		news := c.news.Swap(0)
		if news&closing != 0 {
			c.finish()
			return false
		}
		if news&(silent|readable) == silent {
			c.fail(websocket.ErrPeerTimeout)
			continue
		}
		if news&writable != 0 {
			news |= c.flush()
		}
		if news&(readable|halfClosed|dead) != 0 && c.drain(buf, news) {
			c.news.Or(news & (readable | halfClosed | dead))
			return true
		}
		if c.release() {
			return false
		}
	}
}

// drain reads what is here and feeds it. It returns true if that is more than
// fits in one turn.
func (c *conn) drain(buf []byte, news uint32) (more bool) {
	end := news&(halfClosed|dead) != 0
	var large *[largeSize]byte
	defer func() {
		if large != nil {
			largeBuffers.Put(large)
		}
	}()
	for left := turnBytes; left > 0; {
		if c.paused != 0 && news&dead == 0 {
			c.paused |= uint8(news &^ writable)
			return false
		}
		if c.eof || c.news.Load()&closing != 0 {
			return false
		}
		p := buf[:min(len(buf), left)]
		n, err := c.read(p)
		switch {
		case n > 0:
			left -= c.cost(n)
			c.heard()
			c.feed(p[:n])
			if n < len(p) && !end && c.tls == nil { // an end would be another event
				return false
			}
			if large == nil && n == readSize && c.tls == nil { // there is more: fewer calls, and answers leave together
				large = largeBuffers.Get().(*[largeSize]byte)
				buf = large[:]
			}
		case err == nil:
			c.heard()
			c.eof = true
			if !c.blocked.Load() {
				c.inputEnded()
			}
			return false
		case err != syscall.EAGAIN:
			c.fail(err)
			return false
		default:
			if news&dead != 0 {
				c.fail(c.pending())
			}
			return false
		}
	}
	return true
}

// cost is what n bytes of input count for.
func (c *conn) cost(n int) int {
	if c.tls != nil {
		return max(n, c.tls.cost())
	}
	return n
}

// feed hands over input, and throws it away when the connection has ended.
func (c *conn) feed(p []byte) {
	if c.ended {
		return
	}
	before := c.blocked.Load()
	c.ended = c.ws.Feed(p, &c.loop.engine.Handler) != nil
	if before || c.ended { // what waits is not answers: the peer may read it when it has been read itself
		return
	}
	if c.slow { // what it was slow to take may be on its way by another goroutine, and the answers behind it
		c.ws.Flush(background)
	}
	if c.blocked.Load() { // the answers wait: so does what asks for more
		c.slow, c.paused = true, uint8(readable)
	}
}

// inputEnded is called when there is no more input, and no answer waits.
func (c *conn) inputEnded() {
	if c.ended {
		c.ws.CloseNow() // there is nothing left to linger for
		return
	}
	c.ended = true
	c.ws.Feed(nil, &c.loop.engine.Handler)
}

// flush writes what waited for the system to take it. It returns what has
// happened that waited for that.
func (c *conn) flush() (news uint32) {
	if !c.blocked.Load() {
		return 0
	}
	c.mu.Lock()
	var err error
	if c.fd >= 0 {
		err = c.pay()
	}
	c.mu.Unlock()
	if err == syscall.EAGAIN || c.ws.Flush(background) == syscall.EAGAIN {
		return 0
	}
	c.mu.Lock()
	if c.fd >= 0 && c.fin && !c.blocked.Load() {
		c.fin = false
		c.halfClose()
	}
	c.mu.Unlock()
	if c.blocked.Load() {
		return 0
	}
	if c.eof {
		c.inputEnded()
	}
	news, c.paused = uint32(c.paused), 0
	return news
}

// fail ends the connection with an error of the transport. The websocket.Conn
// hears of it by writing.
func (c *conn) fail(err error) {
	c.mu.Lock()
	if c.extra == nil {
		c.extra = new(extra)
	}
	c.extra.failure = err
	c.mu.Unlock()
	c.ws.Queue(websocket.Binary(nil))
	c.ws.Flush(background)
	c.ws.CloseNow()
}

// finish closes the descriptor and calls Handler.Close, if that was not called.
func (c *conn) finish() {
	l := c.loop
	c.mu.Lock()
	fd := int(c.fd)
	(*l.poller.Load()).remove(fd)
	l.engine.system.close(fd)
	c.fd = -1
	c.mu.Unlock()
	l.table.remove(c)
	c.state.Store(closed)
	if !c.ended {
		c.ended = true
		c.ws.Feed(nil, &l.engine.Handler)
	}
	l.engine.left()
}

// watchBy makes p tell of c from now on.
func (c *conn) watchBy(p poller) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return nil
	}
	return p.add(int(c.fd), c.token)
}

// read reads what is here into p: 0 and nil is the end, syscall.EAGAIN that
// nothing is.
func (c *conn) read(p []byte) (n int, err error) {
	if c.tls != nil {
		return c.tls.read(p)
	}
	return c.readFD(p)
}

func (c *conn) readFD(p []byte) (n int, err error) {
	for {
		if n, err = c.loop.engine.system.read(int(c.fd), p); err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}

// pending is the descriptor's own error.
func (c *conn) pending() error {
	if err := c.loop.engine.system.failure(int(c.fd)); err != nil {
		return err
	}
	return syscall.ECONNRESET
}

// Write writes what the system takes, and returns syscall.EAGAIN if that is not
// all.
func (c *conn) Write(p []byte) (n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.fd < 0:
		return 0, net.ErrClosed
	case c.extra != nil && c.extra.failure != nil:
		return 0, c.extra.failure
	}
	if err := c.payPing(); err != nil {
		return 0, err
	}
	if c.tls != nil {
		n, err = c.tls.write(p)
	} else {
		n, err = c.writeFD(p)
	}
	c.follow(p[:n])
	return n, err
}

// NeverBlocks lets Post write without a goroutine.
func (c *conn) NeverBlocks() {}

// writeFD writes until all is out or the system takes no more.
func (c *conn) writeFD(p []byte) (n int, err error) {
	for n < len(p) {
		k, err := c.loop.engine.system.write(int(c.fd), p[n:])
		n += max(k, 0)
		if err != nil && err != syscall.EINTR {
			c.blocked.Store(err == syscall.EAGAIN)
			return n, err
		}
	}
	c.blocked.Store(false)
	return n, nil
}

// follow notes where frames end in what is written, so that a ping does not come
// inside one.
func (c *conn) follow(p []byte) {
	x := c.extra
	for len(p) > 0 {
		if x != nil && x.left > 0 {
			n := min(int64(len(p)), x.left)
			x.left -= n
			p = p[n:]
			continue
		}
		if x == nil || len(x.head) == 0 {
			if n := plainFrame(p); n > 0 {
				p = p[n:]
				continue
			}
		}
		head, had := p, 0
		if x != nil && len(x.head) > 0 {
			had = len(x.head)
			head = append(x.head, p[:min(len(p), websocket.MaxHeaderSize)]...)
		}
		h, n := websocket.ParseHeader(head)
		if n <= 0 {
			if x == nil {
				x = new(extra)
				c.extra = x
			}
			x.head = append(x.head, p...)
			return
		}
		p = p[n-had:]
		if had > 0 {
			x.head = nil
		}
		c.bye = c.bye || h.Opcode == websocket.OpClose
		if h.Len <= int64(len(p)) {
			p = p[h.Len:]
			continue
		}
		if x == nil {
			x = new(extra)
			c.extra = x
		}
		x.left = h.Len
	}
	c.tidy()
}

// plainFrame is how long the frame at the beginning of p is if it is what most are:
// whole, below 64 KiB, data and not masked; else 0.
func plainFrame(p []byte) int {
	if len(p) < 4 || websocket.Opcode(p[0]&0x0f) >= websocket.OpClose || p[1] > 126 {
		return 0
	}
	n := 2 + int(p[1])
	if p[1] == 126 {
		n = 4 + int(p[2])<<8 + int(p[3])
	}
	if n > len(p) {
		return 0
	}
	return n
}

// tidy lets go of extra if nothing is in it.
func (c *conn) tidy() {
	if x := c.extra; x != nil && x.left == 0 && len(x.head)+len(x.ping) == 0 && x.failure == nil {
		c.extra = nil
	}
}

// pay writes what waits here.
func (c *conn) pay() error {
	if c.tls != nil {
		return c.tls.pay()
	}
	return c.payPing()
}

// halfClose tells the peer that nothing follows.
func (c *conn) halfClose() error {
	if c.tls == nil {
		return c.loop.engine.system.shutdown(int(c.fd))
	}
	if err := c.tls.CloseWrite(); err != nil {
		return err
	}
	c.tls.pay()
	return nil
}

// CloseWrite closes the sending half behind what waits.
func (c *conn) CloseWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.fd < 0:
		return net.ErrClosed
	case c.blocked.Load():
		c.fin = true
		return nil
	}
	return c.halfClose()
}

// Close lets the owner close the descriptor.
func (c *conn) Close() error {
	c.tell(closing)
	return nil
}

// ConnectionState is that of TLS; without TLS its HandshakeComplete is false.
func (c *conn) ConnectionState() (s tls.ConnectionState) {
	if c.tls != nil {
		s = c.tls.ConnectionState()
	}
	return s
}

// LocalAddr is that of the TCP connection, as RemoteAddr is.
func (c *conn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(c.common.Value().local) }

func (c *conn) RemoteAddr() net.Addr {
	common := c.common.Value()
	ip := netip.AddrFrom16(c.ip)
	if common.local.Addr().Is4() {
		ip = ip.Unmap()
	}
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip.WithZone(common.zone), c.port))
}

var errReads = errors.New("engine: the connection is read by its loop")

// Read fails: the loop reads.
func (c *conn) Read([]byte) (int, error) { return 0, errReads }

// Nothing blocks, so there are no deadlines.
func (c *conn) SetDeadline(time.Time) error      { return os.ErrNoDeadline }
func (c *conn) SetReadDeadline(time.Time) error  { return os.ErrNoDeadline }
func (c *conn) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }

// heard notes that the peer is there.
func (c *conn) heard() {
	k, i := c.loop.table.at(c.slot)
	k.heard[i].Store(c.loop.engine.clock.now.Load() &^ asked)
}
