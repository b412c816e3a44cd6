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
	c   *Conn
	p   []byte
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

// read reads into p, or into c's input buffer if p is nil.
func (r *rawReader) read(c *Conn, p []byte) (int, error) {
	r.c, r.p = c, p
	if err := r.rc.Read(r.try); err != nil {
		return 0, err
	}
	return r.n, r.err
}

// attempt is called when there may be something to read; false waits for more.
func (r *rawReader) attempt(fd uintptr) bool {
	p := r.p
	if p == nil {
		p = r.c.input()
	}
	for {
		r.n, r.err = syscall.Read(int(fd), p)
		if r.err != syscall.EINTR {
			break
		}
	}
	switch {
	case r.err == syscall.EAGAIN:
		r.n = 0
		if r.p == nil {
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
