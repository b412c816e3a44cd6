//go:build unix

package websocket

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
)

// socket_unix.go owns what a bare socket can do that a net.Conn cannot: wait for
// input without a buffer, know when there is no more, and write what it takes
// without waiting.

// A socket reads from a bare socket, for which it waits without a buffer: one is
// borrowed when there is something to read. And it tries to write.
type socket struct {
	rc  syscall.RawConn
	try func(fd uintptr) bool // made once

	// What Serve wants done with input before the next wait; nil if the system
	// does not tell when there is no more.
	h      *Handler
	ctx    context.Context
	asked  bool        // for that
	within atomic.Bool // serveHere runs, within a call that Close would wait for

	// One call's.
	c   *Conn  // whose input buffer p is; nil if it is another's
	p   []byte // nil while it waits without
	n   int
	err error
}

// newSocket returns nil if nc is not a bare socket.
func newSocket(nc net.Conn) *socket {
	var rc syscall.RawConn
	var err error
	switch nc := nc.(type) {
	case *net.TCPConn:
		rc, err = nc.SyscallConn()
	case *net.UnixConn:
		rc, err = nc.SyscallConn()
	default:
		return nil
	}
	if err != nil {
		return nil
	}
	r := &socket{rc: rc}
	r.try = r.attempt
	return r
}

// serve has read do h's work on the spot, if the system tells when a socket is
// empty: then the read that would find that out is spared. A read is half of what
// the system does for a small message.
func (r *socket) serve(ctx context.Context, h *Handler) {
	if runtime.GOOS == "linux" {
		r.h, r.ctx, r.asked = h, ctx, false
	}
}

// served ends that.
func (r *socket) served() { r.h, r.ctx = nil, nil }

// ask has the system tell from now on.
func (r *socket) ask(fd int) {
	const tcpInq = 36 // Linux 4.18
	r.asked = true
	if syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, tcpInq, 1) != nil {
		r.h = nil
	}
}

// read reads into p, or into c's input buffer if p is nil. It returns 0 without
// an error if what it read was served on the spot.
func (r *socket) read(c *Conn, p []byte) (int, error) {
	if r.p, r.c = p, nil; p == nil {
		r.p, r.c = c.input(), c // here: in attempt it would take more of the stack than a goroutine has at first
	}
	if err := r.rc.Read(r.try); err != nil {
		return 0, err
	}
	return r.n, r.err
}

// attempt is called when there may be something to read; false waits for more.
func (r *socket) attempt(fd uintptr) bool {
	if r.p == nil { // it has waited
		r.p = r.c.input()
	}
	if r.h != nil && !r.asked {
		r.ask(int(fd))
	}
	last := r.recv(int(fd))
	switch {
	case r.err == syscall.EAGAIN:
		r.letGo()
		return false
	case r.err != nil:
		r.n = 0
	case r.n == 0:
		r.err = io.EOF
	case last && r.c != nil:
		n := r.n
		r.n = 0
		r.within.Store(true)
		r.err = r.c.serveHere(r.ctx, r.h, n)
		r.within.Store(false)
		if r.err == nil && len(r.c.rest) == 0 && !r.c.over.Load() {
			r.letGo()
			return false
		}
	}
	return true
}

// recv reads once, and tells whether that is known to be all. After a FIN it is
// not, so that no end goes unnoticed.
func (r *socket) recv(fd int) (last bool) {
	for {
		if r.h == nil {
			r.n, r.err = syscall.Read(fd, r.p)
		} else {
			var left [24]byte // one control message
			var k int
			r.n, k, _, _, r.err = syscall.Recvmsg(fd, r.p, left[:], 0)
			last = k >= syscall.CmsgLen(4) && binary.NativeEndian.Uint32(left[syscall.CmsgLen(0):]) == 0
		}
		if r.err != syscall.EINTR {
			return last
		}
	}
}

// letGo gives back the input buffer, on the way to wait.
func (r *socket) letGo() {
	if r.c != nil {
		r.p = nil
		r.c.dropInput()
	}
}

// hangUp ends the connection for the peer, and for those who read and write, if
// serveHere runs: then Serve closes it. Else it returns false.
func (r *socket) hangUp() bool {
	if !r.within.Load() {
		return false
	}
	r.rc.Control(func(fd uintptr) { syscall.Shutdown(int(fd), syscall.SHUT_RDWR) })
	return true
}

// A rawWrite is an attempt to write that does not wait.
type rawWrite struct {
	p    []byte
	more bool
	n    int
	try  func(fd uintptr) // made once
}

var rawWrites = sync.Pool{New: func() any {
	w := new(rawWrite)
	w.try = w.attempt
	return w
}}

// tryWrite writes what of p the socket takes at once, and returns how much that
// was; more tells that another part follows. Deadlines do not matter, and why it
// was not all is left to the next Write.
func (r *socket) tryWrite(p []byte, more bool) int {
	w := rawWrites.Get().(*rawWrite)
	w.p, w.more, w.n = p, more, 0
	r.rc.Control(w.try)
	n := w.n
	w.p = nil
	rawWrites.Put(w)
	return n
}

func (w *rawWrite) attempt(fd uintptr) {
	const msgMore = 0x8000 // Linux: leave the packet open
	for {
		var n int
		var err error
		if w.more && runtime.GOOS == "linux" {
			n, err = syscall.SendmsgN(int(fd), w.p, nil, nil, msgMore)
		} else {
			n, err = syscall.Write(int(fd), w.p)
		}
		if err != syscall.EINTR {
			w.n = max(n, 0)
			return
		}
	}
}
