package engine

import "net/netip"

// system.go owns what the engine needs of the operating system, so that tests can
// be one.

// A system does what the operating system does with descriptors. None of its
// calls blocks, and any may return syscall.EINTR.
type system interface {
	read(fd int, p []byte) (int, error)  // 0 and nil is the end; syscall.EAGAIN
	write(fd int, p []byte) (int, error) // syscall.EAGAIN
	shutdown(fd int) error               // of the sending half
	failure(fd int) error                // that is pending
	close(fd int) error
	poller() (poller, error)
}

// A poller tells what has become of descriptors, once for each change
// (edge-triggered). wait is called by one goroutine at a time, the others by any.
type poller interface {
	add(fd int, t token) error // from this call on, and at once what it is ready for already
	remove(fd int) error
	wait(into []event, block bool) (int, error) // after close an error
	close() error
}

// A token is what the poller knows a connection by: its place in the table, and
// whose that was before.
type token struct{ slot, gen uint32 }

type event struct {
	token
	bits uint32
}

// What may become of a descriptor, and what else a connection is told.
const (
	readable uint32 = 1 << iota
	writable
	halfClosed // the peer sends no more
	dead       // and takes no more
	closing    // this side has closed
	silent     // the peer has not answered a ping
)

// A socket is a descriptor that a loop can serve.
type socket struct {
	fd            int
	local, remote netip.AddrPort
	early         []byte // was read from it before
}
