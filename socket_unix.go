//go:build unix

package websocket

import (
	"io"
	"net"
	"runtime"
	"sync"
	"syscall"
)

// socket_unix.go owns what a bare socket can do that a net.Conn cannot: wait for
// input without a buffer, and write what it takes without waiting.

// A socket reads from a bare socket, for which it waits without a buffer: one is
// borrowed when there is something to read. And it tries to write.
type socket struct {
	rc  syscall.RawConn
	try func(fd uintptr) bool // made once

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

// read reads into p, or into c's input buffer if p is nil.
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
	for {
		r.n, r.err = syscall.Read(int(fd), r.p)
		if r.err != syscall.EINTR {
			break
		}
	}
	switch {
	case r.err == syscall.EAGAIN:
		if r.c != nil {
			r.p = nil
			r.c.dropInput()
		}
		return false
	case r.err != nil:
		r.n = 0
	case r.n == 0:
		r.err = io.EOF
	}
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
