package wstest

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/seed-07372d5a/websocket/internal/memnet"
)

// faults.go owns what goes wrong with a net.Conn.

// A Call is a method of a net.Conn at which a fault may happen.
type Call string

// The calls that are counted. CloseWrite is there if the net.Conn has it.
const (
	Read             Call = "Read"
	Write            Call = "Write"
	Close            Call = "Close"
	CloseWrite       Call = "CloseWrite"
	SetDeadline      Call = "SetDeadline"
	SetReadDeadline  Call = "SetReadDeadline"
	SetWriteDeadline Call = "SetWriteDeadline"
)

// An Action is what a fault does.
type Action int

// What a fault does. Each is over with its call, unless Fault.Forever is set or
// the connection is broken by it.
const (
	// Fail returns Fault.Err. The call does not reach the net.Conn, but for
	// Fault.Bytes of a Write. Close fails after it has closed.
	Fail Action = iota
	// Stall makes a Read or Write wait for its deadline or for Close. At other
	// calls it does nothing.
	Stall
	// Delay makes the call wait for Fault.Delay before it goes on; a Read or
	// Write whose deadline passes meanwhile fails with it.
	Delay
	// Reset breaks the connection for both ends. The call and those after it
	// fail with syscall.ECONNRESET.
	Reset
	// HalfClose is the end of one direction: Reads yield io.EOF from now on, as
	// if the peer had half-closed; a Write half-closes this side, and fails
	// with syscall.EPIPE.
	HalfClose
)

// ErrFault is what a call fails with if its fault does not say otherwise.
var ErrFault = errors.New("wstest: injected fault")

// A Fault is one thing that goes wrong.
type Fault struct {
	Call    Call          // the method
	N       int           // which call of it, counted from 1; 0: the first
	Forever bool          // and all after it
	Do      Action        // what happens; the default is to Fail
	Err     error         // what Fail returns; nil: ErrFault
	Bytes   int           // how many bytes of a Write pass before it happens
	Delay   time.Duration // how long a Delay takes
}

// Faults are what goes wrong with the net.Conns that they Wrap. The zero value
// and a nil pointer are for connections where nothing does. The fields must not
// be changed once a connection is wrapped; the methods may be called from any
// goroutine.
type Faults struct {
	// At are the faults. If several are for the same call, the first counts.
	At []Fault
	// ReadSize is how many bytes a Read yields at most; 0: as many as there are.
	ReadSize int
	// WriteSize is the size of the pieces in which a Write reaches the peer;
	// 0: whole.
	WriteSize int
	// WritePause is between two of these pieces.
	WritePause time.Duration

	mu    sync.Mutex
	calls map[Call]int
	fired int
}

// Wrap returns nc with the faults. Wrapped connections share one count of calls,
// so that the third call may be the second connection's first. What is returned
// has a CloseWrite method, which works if nc has one, and a Reset method.
func (f *Faults) Wrap(nc net.Conn) net.Conn {
	if f == nil {
		return nc
	}
	c := &faulty{Conn: nc, f: f}
	c.reads.a, c.reads.b = memnet.Pipe(1)
	c.writes.a, c.writes.b = memnet.Pipe(1)
	return c
}

// Calls returns how often a method has been called.
func (f *Faults) Calls(c Call) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[c]
}

// Fired returns how many calls a fault has happened to. A test that goes through
// all calls is done when it is 0.
func (f *Faults) Fired() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fired
}

// count counts a call, and returns what happens to it; nil: nothing.
func (f *Faults) count(c Call) *Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.calls == nil {
		f.calls = make(map[Call]int)
	}
	f.calls[c]++
	for i := range f.At {
		x := &f.At[i]
		if n := max(x.N, 1); x.Call == c && (f.calls[c] == n || x.Forever && f.calls[c] > n) {
			f.fired++
			return x
		}
	}
	return nil
}

// A faulty is a net.Conn with faults.
type faulty struct {
	net.Conn
	f             *Faults
	reads, writes idler

	mu     sync.Mutex
	eof    bool // Reads are over
	shut   bool // Writes are over
	broken bool
}

// An idler waits where a deadline and Close interrupt it: it reads from a
// connection on which nothing comes.
type idler struct{ a, b *memnet.Conn }

// wait returns nil after d; 0 is for ever.
func (w idler) wait(d time.Duration) error {
	if d > 0 {
		defer time.AfterFunc(d, func() { w.b.Write([]byte{0}) }).Stop()
	}
	_, err := w.a.Read(make([]byte, 1))
	return err
}

// happen does what x says, or tells to go on.
func (c *faulty) happen(x *Fault, w idler) (goOn bool, err error) {
	switch x.Do {
	case Stall:
		if w.a == nil {
			return true, nil
		}
		return false, w.wait(0)
	case Delay:
		if w.a == nil {
			<-time.After(x.Delay)
			return true, nil
		}
		err := w.wait(x.Delay)
		return err == nil, err
	case Reset:
		c.Reset()
		return false, syscall.ECONNRESET
	case HalfClose:
		c.mu.Lock()
		defer c.mu.Unlock()
		if x.Call == Read {
			c.eof = true
			return false, io.EOF
		}
		c.shut = true
		closeWrite(c.Conn)
		return false, syscall.EPIPE
	}
	return false, cmp.Or(x.Err, ErrFault)
}

// ended returns what earlier faults have left of a direction.
func (c *faulty) ended(call Call) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.broken:
		return syscall.ECONNRESET
	case call == Read && c.eof:
		return io.EOF
	case call == Write && c.shut:
		return syscall.EPIPE
	}
	return nil
}

func (c *faulty) Read(p []byte) (int, error) {
	if x := c.f.count(Read); x != nil {
		if goOn, err := c.happen(x, c.reads); !goOn {
			return 0, err
		}
	}
	if err := c.ended(Read); err != nil {
		return 0, err
	}
	if n := c.f.ReadSize; n > 0 && len(p) > n {
		p = p[:n]
	}
	n, err := c.Conn.Read(p)
	return n, c.meant(Read, err)
}

// meant replaces the error of a call that a Reset has interrupted.
func (c *faulty) meant(call Call, err error) error {
	if err != nil {
		if e := c.ended(call); e != nil {
			return e
		}
	}
	return err
}

func (c *faulty) Write(p []byte) (int, error) {
	x := c.f.count(Write)
	if err := c.ended(Write); err != nil {
		return 0, err
	}
	if x == nil {
		n, err := c.pieces(p)
		return n, c.meant(Write, err)
	}
	part := p[:min(max(x.Bytes, 0), len(p))]
	n, err := 0, error(nil)
	if len(part) > 0 {
		n, err = c.pieces(part)
	}
	if err == nil {
		var goOn bool
		if goOn, err = c.happen(x, c.writes); goOn {
			var k int
			k, err = c.pieces(p[n:])
			n += k
		}
	}
	return n, err
}

// pieces writes p, in pieces if it shall.
func (c *faulty) pieces(p []byte) (n int, err error) {
	size := c.f.WriteSize
	if size <= 0 {
		return c.Conn.Write(p)
	}
	for len(p) > size && err == nil {
		var k int
		k, err = c.Conn.Write(p[:size])
		n, p = n+k, p[k:]
		if err == nil && c.f.WritePause > 0 {
			err = c.writes.wait(c.f.WritePause)
		}
	}
	if err != nil {
		return n, err
	}
	k, err := c.Conn.Write(p)
	return n + k, err
}

func (c *faulty) Close() error {
	x := c.f.count(Close)
	c.reads.a.Close()
	c.writes.a.Close()
	err := c.Conn.Close()
	if x != nil {
		if goOn, fault := c.happen(x, idler{}); !goOn {
			return fault
		}
	}
	return err
}

// CloseWrite half-closes.
func (c *faulty) CloseWrite() error {
	if x := c.f.count(CloseWrite); x != nil {
		if goOn, err := c.happen(x, idler{}); !goOn {
			return err
		}
	}
	return closeWrite(c.Conn)
}

// Reset breaks the connection.
func (c *faulty) Reset() {
	c.mu.Lock()
	c.broken = true
	c.mu.Unlock()
	reset(c.Conn)
	c.reads.a.Close()
	c.writes.a.Close()
}

func (c *faulty) SetDeadline(t time.Time) error {
	return c.setDeadline(SetDeadline, t, c.Conn.SetDeadline)
}

func (c *faulty) SetReadDeadline(t time.Time) error {
	return c.setDeadline(SetReadDeadline, t, c.Conn.SetReadDeadline)
}

func (c *faulty) SetWriteDeadline(t time.Time) error {
	return c.setDeadline(SetWriteDeadline, t, c.Conn.SetWriteDeadline)
}

func (c *faulty) setDeadline(call Call, t time.Time, set func(time.Time) error) error {
	if x := c.f.count(call); x != nil {
		if goOn, err := c.happen(x, idler{}); !goOn {
			return err
		}
	}
	if call != SetWriteDeadline {
		c.reads.a.SetReadDeadline(t)
	}
	if call != SetReadDeadline {
		c.writes.a.SetReadDeadline(t)
	}
	return set(t)
}

// closeWrite half-closes nc, if it can.
func closeWrite(nc net.Conn) error {
	if h, ok := nc.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return fmt.Errorf("wstest: %T cannot be half-closed: %w", nc, errors.ErrUnsupported)
}

// reset breaks nc: as TCP does if it can, else by closing it.
func reset(nc net.Conn) {
	switch c := nc.(type) {
	case interface{ Reset() }:
		c.Reset()
	case interface{ SetLinger(int) error }:
		c.SetLinger(0)
		nc.Close()
	default:
		nc.Close()
	}
}
