package engine

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// tls.go owns TLS over a descriptor that does not block: crypto/tls is given what
// has come, is told to come again when that is not a whole record, and what it
// writes waits here.

// Listener returns l with connections that loops can serve under TLS. It is given
// to http.Server.ServeTLS, or to tls.NewListener; with any other listener a
// connection over TLS is served by a goroutine of its own. Connections without
// TLS need no such listener, and may come from one.
func (e *Engine) Listener(l net.Listener) net.Listener { return listener{l} }

type listener struct{ net.Listener }

func (l listener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if t, ok := nc.(*net.TCPConn); ok && err == nil {
		return &plug{TCPConn: t}, nil
	}
	return nc, err
}

// A plug is a TCP connection that can be replaced by a descriptor while crypto/tls
// holds it.
type plug struct {
	*net.TCPConn
	with atomic.Pointer[secure] // nil until then
}

func (p *plug) Read(b []byte) (int, error) {
	if t := p.with.Load(); t != nil {
		return t.readRaw(b)
	}
	return p.TCPConn.Read(b)
}

func (p *plug) Write(b []byte) (int, error) {
	if t := p.with.Load(); t != nil {
		return t.writeRaw(b)
	}
	return p.TCPConn.Write(b)
}

func (p *plug) SetDeadline(d time.Time) error {
	if p.with.Load() != nil {
		return nil
	}
	return p.TCPConn.SetDeadline(d)
}

func (p *plug) SetReadDeadline(d time.Time) error {
	if p.with.Load() != nil {
		return nil
	}
	return p.TCPConn.SetReadDeadline(d)
}

func (p *plug) SetWriteDeadline(d time.Time) error {
	if p.with.Load() != nil {
		return nil
	}
	return p.TCPConn.SetWriteDeadline(d)
}

// underTLS returns the plug of a connection over TLS that a loop can serve.
func underTLS(nc net.Conn) (*tls.Conn, *plug) {
	if t, ok := nc.(*tls.Conn); ok {
		if p, ok := t.NetConn().(*plug); ok {
			return t, p
		}
	}
	return nil, nil
}

// bare returns the TCP connection that nc is, if it is one.
func bare(nc net.Conn) net.Conn {
	if p, ok := nc.(*plug); ok {
		return p.TCPConn
	}
	return nc
}

const (
	maxRecord  = 16 << 10 // bytes of plaintext (RFC 8446 section 5.1)
	maxWaiting = 64 << 10 // bytes of records that wait, of which the most are answers to the peer's own
)

var errWaiting = errors.New("engine: TLS: the peer does not read the answers it asks for")

// A notYet is what crypto/tls takes for a reason to come again.
type notYet struct{}

func (notYet) Error() string   { return syscall.EAGAIN.Error() }
func (notYet) Timeout() bool   { return true }
func (notYet) Temporary() bool { return true }

// A secure is the TLS of a connection.
type secure struct {
	*tls.Conn
	c     *conn
	early int   // bytes that are in waiting, though write did not say it had taken them; under c.mu
	got   int   // bytes read from the descriptor in this turn; the owner's
	err   error // what the next read returns; the owner's

	mu      sync.Mutex
	waiting *records // nil if there are none
}

// Records wait for the system to take them.
type records struct {
	b   []byte
	off int // of the first that is not out
}

var recordPool = sync.Pool{New: func() any { return &records{b: make([]byte, 0, maxRecord+1024)} }}

func (t *secure) readRaw(p []byte) (int, error) {
	n, err := t.c.readFD(p)
	t.got += n
	switch {
	case err == syscall.EAGAIN:
		return 0, notYet{}
	case err == nil && n == 0:
		return 0, io.EOF
	}
	return n, err
}

// writeRaw takes everything, for half a record cannot be taken back.
func (t *secure) writeRaw(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	w := t.waiting
	if w == nil {
		w = recordPool.Get().(*records)
		t.waiting = w
	}
	if len(w.b)-w.off > maxWaiting {
		return 0, errWaiting
	}
	w.b = append(w.b, p...)
	return len(p), nil
}

// pay writes what waits, and returns syscall.EAGAIN if the system does not take
// it. The caller sees to it that the descriptor is not closed meanwhile.
func (t *secure) pay() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	w := t.waiting
	if w == nil {
		return nil
	}
	n, err := t.c.writeFD(w.b[w.off:])
	if w.off += n; err == nil {
		t.waiting = nil
		if cap(w.b) <= 2*maxRecord {
			w.b, w.off = w.b[:0], 0
			recordPool.Put(w)
		}
	}
	return err
}

// write encrypts what the system takes. When records wait that hold the end of p,
// it holds back that end: whoever writes learns that way that something waits.
func (t *secure) write(p []byte) (n int, err error) {
	if err := t.pay(); err != nil {
		return 0, err
	}
	n = min(t.early, len(p))
	t.early -= n
	for n < len(p) {
		k, err := t.Conn.Write(p[n:min(len(p), n+maxRecord)])
		if n += k; err == nil {
			err = t.pay()
		}
		if err == syscall.EAGAIN && n == len(p) {
			n--
			t.early = 1
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// put encrypts all of p, and lets wait what the system does not take.
func (t *secure) put(p []byte) error {
	if _, err := t.Conn.Write(p); err != nil {
		return err
	}
	if err := t.pay(); err != syscall.EAGAIN {
		return err
	}
	return nil
}

// read fills p with what is here, as far as a turn allows.
func (t *secure) read(p []byte) (n int, err error) {
	if err = t.err; err != nil {
		return 0, noEOF(err)
	}
	before := t.got
	for n < len(p) && t.got-before < 2*readSize && err == nil {
		var k int
		k, err = t.Conn.Read(p[n:])
		n += k
	}
	t.c.mu.Lock()
	if !t.c.blocked.Load() { // answers of TLS itself; else they go with what waits
		if e := t.pay(); e != nil && e != syscall.EAGAIN && err == nil {
			err = e
		}
	}
	t.c.mu.Unlock()
	if errors.As(err, new(notYet)) {
		err = syscall.EAGAIN
	} else {
		t.err = err
	}
	if n > 0 {
		return n, nil
	}
	return 0, noEOF(err)
}

// noEOF makes of the peer's close_notify what read(2) makes of an end.
func noEOF(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

// cost is how many bytes of the turn's have been read since the last call.
func (t *secure) cost() int {
	n := t.got
	t.got = 0
	return n
}
