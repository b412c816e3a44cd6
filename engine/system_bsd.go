//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package engine

import (
	"net"
	"os"
	"sync"
	"syscall"
)

// system_bsd.go owns the engine's system calls on macOS and the BSDs: kqueue. A loop
// that waits holds a thread.

var operatingSystem system = bsd{}

type bsd struct{ unix }

// duplicate returns another descriptor for the same socket.
func duplicate(fd uintptr) (int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	n, err := syscall.Dup(int(fd))
	if err == nil {
		syscall.CloseOnExec(n)
	}
	return n, err
}

// A kqueue is a poller. Both directions of every descriptor are added once,
// edge-triggered, and go when it is closed.
type kqueue struct {
	ledger
	fd   int
	pipe [2]int // wakes whoever waits
	raw  [batch]syscall.Kevent_t
	said [batch]change

	mu      sync.Mutex
	waiting bool
	closed  bool
}

func (bsd) poller() (poller, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fd, err := syscall.Kqueue()
	if err != nil {
		return nil, os.NewSyscallError("kqueue", err)
	}
	syscall.CloseOnExec(fd)
	p := &kqueue{fd: fd}
	if err := syscall.Pipe(p.pipe[:]); err != nil {
		syscall.Close(fd)
		return nil, os.NewSyscallError("pipe", err)
	}
	for _, end := range p.pipe {
		syscall.CloseOnExec(end)
	}
	var ev [1]syscall.Kevent_t
	syscall.SetKevent(&ev[0], p.pipe[0], syscall.EVFILT_READ, syscall.EV_ADD)
	if err := p.change(ev[:]); err != nil {
		p.free()
		return nil, err
	}
	return p, nil
}

func (p *kqueue) add(fd int, t token) error {
	p.ledger.add(fd, t)
	var ev [2]syscall.Kevent_t
	syscall.SetKevent(&ev[0], fd, syscall.EVFILT_READ, syscall.EV_ADD|syscall.EV_CLEAR)
	syscall.SetKevent(&ev[1], fd, syscall.EVFILT_WRITE, syscall.EV_ADD|syscall.EV_CLEAR)
	err := p.change(ev[:])
	if err != nil {
		p.ledger.remove(fd)
	}
	return err
}

func (p *kqueue) change(changes []syscall.Kevent_t) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return net.ErrClosed
	}
	for {
		if _, err := syscall.Kevent(p.fd, changes, nil, nil); err != syscall.EINTR {
			return os.NewSyscallError("kevent", err)
		}
	}
}

// remove leaves the rest to the closing of the descriptor.
func (p *kqueue) remove(fd int) error {
	p.ledger.remove(fd)
	return nil
}

func (p *kqueue) wait(into []event, block bool) (int, error) {
	if !p.enter() {
		return 0, net.ErrClosed
	}
	p.ledger.begin()
	var timeout *syscall.Timespec // for ever
	if !block {
		timeout = new(syscall.Timespec)
	}
	n, err := syscall.Kevent(p.fd, nil, p.raw[:], timeout)
	if !p.leave() {
		return 0, net.ErrClosed
	}
	if err == syscall.EINTR {
		return 0, nil
	}
	if err != nil {
		return 0, os.NewSyscallError("kevent", err)
	}
	for i, ev := range p.raw[:n] {
		end := ev.Flags&syscall.EV_EOF != 0
		p.said[i] = change{int(ev.Ident), int(ev.Filter) == syscall.EVFILT_READ, end, end && ev.Fflags != 0}
	}
	return p.ledger.events(p.said[:n], into), nil
}

func (p *kqueue) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting = !p.closed
	return p.waiting
}

// leave tells whether p is still open; if not it frees it, as nobody else could.
func (p *kqueue) leave() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting = false
	if p.closed {
		p.free()
	}
	return !p.closed
}

// close does not take the descriptor away from a wait that is under way: it ends
// that.
func (p *kqueue) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return nil
	case p.waiting:
		syscall.Write(p.pipe[1], []byte{0})
	default:
		p.free()
	}
	p.closed = true
	return nil
}

func (p *kqueue) free() {
	syscall.Close(p.fd)
	syscall.Close(p.pipe[0])
	syscall.Close(p.pipe[1])
}
