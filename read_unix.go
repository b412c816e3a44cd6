//go:build unix

package websocket

import (
	"io"
	"net"
	"syscall"
)

// A rawReader reads from a bare socket, for which it waits without a buffer: one
// is borrowed when there is something to read.
type rawReader struct {
	rc  syscall.RawConn
	try func(fd uintptr) bool // made once

	// One call's.
	c   *Conn  // whose input buffer p is; nil if it is another's
	p   []byte // nil once there was nothing to read
	n   int
	err error
}

// newRawReader returns nil if nc is not a bare socket.
func newRawReader(nc net.Conn) *rawReader {
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
	r := &rawReader{rc: rc}
	r.try = r.attempt
	return r
}

// read reads into p, or into c's input buffer if p is nil. It may return nothing
// and no error: then it has waited, without a buffer, until there is something.
func (r *rawReader) read(c *Conn, p []byte) (int, error) {
	if p == nil {
		p = c.input()
		r.c = c
	}
	r.p = p
	if err := r.rc.Read(r.try); err != nil {
		return 0, err
	}
	return r.n, r.err
}

// attempt is called when there may be something to read; false waits for more.
func (r *rawReader) attempt(fd uintptr) bool {
	if r.p == nil { // it has waited
		r.n, r.err = 0, nil
		return true
	}
	for {
		r.n, r.err = syscall.Read(int(fd), r.p)
		if r.err != syscall.EINTR {
			break
		}
	}
	switch {
	case r.err == syscall.EAGAIN:
		r.p = nil
		if r.c != nil {
			r.c.dropInput()
			r.c = nil
		}
		return false
	case r.err != nil:
		r.n = 0
	case r.n == 0:
		r.err = io.EOF
	}
	return true
}
