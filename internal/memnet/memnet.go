// Package memnet is a network in memory, for tests: connections with buffers,
// deadlines and half-closes like TCP's, that work in a testing/synctest bubble.
package memnet

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Pipe returns the two ends of a connection. What is written waits in a buffer
// of size bytes for each direction until it is read; a writer waits when the
// buffer is full.
func Pipe(size int) (a, b *Conn) { return SlowPipe(size, 0) }

// SlowPipe is Pipe with a network between the ends: bytes, and their end, arrive
// latency after they were written. A Reset arrives at once.
func SlowPipe(size int, latency time.Duration) (a, b *Conn) {
	ab, ba := newHalf(size, latency), newHalf(size, latency)
	return &Conn{in: ba, out: ab, Local: Addr("mem"), Remote: Addr("mem")},
		&Conn{in: ab, out: ba, Local: Addr("mem"), Remote: Addr("mem")}
}

// A Conn is one end of a connection. Its methods are safe for concurrent use.
type Conn struct {
	Local, Remote Addr

	in, out *half
}

var _ net.Conn = (*Conn)(nil)

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) { return c.in.read(p) }

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (int, error) { return c.out.write(p) }

// Close implements net.Conn. The peer reads what is in the buffer and then
// io.EOF; what it writes from now on fails.
func (c *Conn) Close() error {
	c.in.shut(net.ErrClosed, syscall.EPIPE)
	c.out.shut(nil, net.ErrClosed)
	return nil
}

// CloseWrite ends this end's writing: the peer reads what is in the buffer and
// then io.EOF, and a Write that waits fails.
func (c *Conn) CloseWrite() error {
	c.out.shut(nil, syscall.EPIPE)
	return nil
}

// Reset closes the connection as a TCP reset does: both ends fail at once, and
// what is in the buffers is lost.
func (c *Conn) Reset() {
	c.in.shut(net.ErrClosed, syscall.ECONNRESET)
	c.out.shut(syscall.ECONNRESET, net.ErrClosed)
}

// Break ends the connection from outside: both ends fail as after the other's
// Reset.
func (c *Conn) Break() {
	c.in.shut(syscall.ECONNRESET, syscall.ECONNRESET)
	c.out.shut(syscall.ECONNRESET, syscall.ECONNRESET)
}

// Closed tells whether this end has been closed, or was reset.
func (c *Conn) Closed() bool {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	return c.in.rerr != nil
}

// Buffered is how many bytes the peer has written that were not read yet.
func (c *Conn) Buffered() int {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	return len(c.in.buf)
}

// An Addr is the address of an end.
type Addr string

// Network implements net.Addr.
func (Addr) Network() string { return "mem" }

// String implements net.Addr.
func (a Addr) String() string { return string(a) }

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return c.Local }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return c.Remote }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	c.in.readers.set(t)
	c.out.writers.set(t)
	return nil
}

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.in.readers.set(t)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.out.writers.set(t)
	return nil
}

// A half is one direction.
type half struct {
	latency time.Duration

	mu               sync.Mutex
	moved            sync.Cond
	buf              []byte
	size             int
	under            []parcel // on their way; empty without latency
	here             int      // bytes of buf that have arrived
	eof              bool     // nothing more is written
	landed           bool     // and the reader may know
	rerr, werr       error
	readers, writers deadline
}

// A parcel is what one Write has put on the way.
type parcel struct {
	n  int
	at time.Time
}

func newHalf(size int, latency time.Duration) *half {
	h := &half{size: size, latency: latency}
	h.moved.L = &h.mu
	h.readers.h, h.writers.h = h, h
	return h
}

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		h.arrive()
		switch {
		case h.rerr != nil:
			return 0, h.rerr
		case h.readers.past():
			return 0, os.ErrDeadlineExceeded
		case h.here > 0 || len(p) == 0:
			n := copy(p, h.buf[:h.here])
			h.buf = h.buf[n:]
			h.here -= n
			h.moved.Broadcast()
			return n, nil
		case h.landed && len(h.buf) == 0:
			return 0, io.EOF
		}
		h.moved.Wait()
	}
}

func (h *half) write(p []byte) (n int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.werr != nil:
			return n, h.werr
		case h.writers.past():
			return n, os.ErrDeadlineExceeded
		case n == len(p):
			return n, nil
		}
		if k := min(h.size-len(h.buf), len(p)-n); k > 0 {
			h.buf = append(h.buf, p[n:n+k]...)
			n += k
			h.send(k)
			continue
		}
		h.moved.Wait()
	}
}

// send puts the last n bytes of buf on their way.
func (h *half) send(n int) {
	if h.latency <= 0 {
		h.here += n
		h.moved.Broadcast()
		return
	}
	h.under = append(h.under, parcel{n, time.Now().Add(h.latency)})
	h.wakeAfter(h.latency)
}

// arrive takes in what has been under way for long enough.
func (h *half) arrive() {
	for len(h.under) > 0 && !time.Now().Before(h.under[0].at) {
		h.here += h.under[0].n
		h.under = h.under[1:]
	}
}

func (h *half) wakeAfter(d time.Duration) {
	time.AfterFunc(d, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.moved.Broadcast()
	})
}

// shut ends a direction. A nil read error leaves what is in the buffer to be
// read; the first error of each side stays.
func (h *half) shut(read, write error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.eof {
		h.eof = true
		if h.latency <= 0 {
			h.landed = true
		} else {
			time.AfterFunc(h.latency, h.land)
		}
	}
	if h.rerr == nil {
		h.rerr = read
	}
	if h.werr == nil {
		h.werr = write
	}
	h.moved.Broadcast()
}

// land lets the reader know that there is no more.
func (h *half) land() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.landed = true
	h.moved.Broadcast()
}

// A deadline wakes those who wait when it has passed.
type deadline struct {
	h     *half
	at    time.Time
	timer *time.Timer
}

func (d *deadline) set(t time.Time) {
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	d.at = t
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	if left := time.Until(t); left > 0 {
		d.timer = time.AfterFunc(left, func() {
			d.h.mu.Lock()
			defer d.h.mu.Unlock()
			d.h.moved.Broadcast()
		})
	}
	d.h.moved.Broadcast()
}

func (d *deadline) past() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }
