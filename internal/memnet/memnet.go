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
func Pipe(size int) (a, b *Conn) {
	ab, ba := newHalf(size), newHalf(size)
	return &Conn{in: ba, out: ab}, &Conn{in: ab, out: ba}
}

// A Conn is one end of a connection. Its methods are safe for concurrent use.
type Conn struct {
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

// Buffered is how many bytes the peer has written that were not read yet.
func (c *Conn) Buffered() int {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	return len(c.in.buf)
}

type addr struct{}

func (addr) Network() string { return "mem" }
func (addr) String() string  { return "mem" }

// LocalAddr implements net.Conn.
func (*Conn) LocalAddr() net.Addr { return addr{} }

// RemoteAddr implements net.Conn.
func (*Conn) RemoteAddr() net.Addr { return addr{} }

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
	mu               sync.Mutex
	moved            sync.Cond
	buf              []byte
	size             int
	eof              bool // nothing more is written
	rerr, werr       error
	readers, writers deadline
}

func newHalf(size int) *half {
	h := &half{size: size}
	h.moved.L = &h.mu
	h.readers.h, h.writers.h = h, h
	return h
}

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.rerr != nil:
			return 0, h.rerr
		case h.readers.past():
			return 0, os.ErrDeadlineExceeded
		case len(h.buf) > 0 || len(p) == 0:
			n := copy(p, h.buf)
			h.buf = h.buf[n:]
			h.moved.Broadcast()
			return n, nil
		case h.eof:
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
			h.moved.Broadcast()
			continue
		}
		h.moved.Wait()
	}
}

// shut ends a direction. A nil read error leaves what is in the buffer to be
// read; the first error of each side stays.
func (h *half) shut(read, write error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.eof = true
	if h.rerr == nil {
		h.rerr = read
	}
	if h.werr == nil {
		h.werr = write
	}
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
	if !t.IsZero() {
		d.timer = time.AfterFunc(time.Until(t), func() {
			d.h.mu.Lock()
			defer d.h.mu.Unlock()
			d.h.moved.Broadcast()
		})
	}
	d.h.moved.Broadcast()
}

func (d *deadline) past() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }
