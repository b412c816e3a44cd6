package engine

import (
	"os"
	"syscall"
)

// system_linux.go owns the engine's system calls on Linux: epoll, whose own
// descriptor the runtime waits for, so that a loop that waits holds no thread.

var operatingSystem system = linux{}

type linux struct{ unix }

// duplicate returns another descriptor for the same socket.
func duplicate(fd uintptr) (int, error) {
	n, _, err := syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_DUPFD_CLOEXEC, 0)
	if err != 0 {
		return -1, err
	}
	return int(n), nil
}

// An epoll is a poller. Every descriptor is added once, for all that may become
// of it, edge-triggered.
type epoll struct {
	file  *os.File // makes the runtime wait
	rc    syscall.RawConn
	try   func(fd uintptr) bool // made once
	raw   [batch]syscall.EpollEvent
	block bool
	n     int
	err   error
}

func (linux) poller() (poller, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil { // else os.NewFile would not wait for it
		syscall.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	p := &epoll{file: os.NewFile(uintptr(fd), "epoll")}
	if p.rc, err = p.file.SyscallConn(); err != nil {
		p.file.Close()
		return nil, err
	}
	p.try = p.attempt
	return p, nil
}

const edge = 1 << 31 // syscall.EPOLLET, which has the wrong sign

func (p *epoll) add(fd int, t token) error {
	ev := syscall.EpollEvent{
		Events: syscall.EPOLLIN | syscall.EPOLLOUT | syscall.EPOLLRDHUP | edge,
		Fd:     int32(t.slot), Pad: int32(t.gen),
	}
	return p.control(syscall.EPOLL_CTL_ADD, fd, &ev)
}

func (p *epoll) remove(fd int) error { return p.control(syscall.EPOLL_CTL_DEL, fd, nil) }

func (p *epoll) control(op, fd int, ev *syscall.EpollEvent) (err error) {
	if e := p.rc.Control(func(epfd uintptr) { err = syscall.EpollCtl(int(epfd), op, fd, ev) }); e != nil {
		return e
	}
	if err == syscall.EEXIST {
		return nil
	}
	return os.NewSyscallError("epoll_ctl", err)
}

func (p *epoll) wait(into []event, block bool) (int, error) {
	p.block = block
	if err := p.rc.Read(p.try); err != nil {
		return 0, err
	}
	if p.err != nil {
		return 0, os.NewSyscallError("epoll_wait", p.err)
	}
	for i := range into[:p.n] {
		raw := &p.raw[i]
		into[i] = event{token{uint32(raw.Fd), uint32(raw.Pad)}, bits(raw.Events)}
	}
	return p.n, nil
}

// attempt is called when there may be events; false waits for more.
func (p *epoll) attempt(fd uintptr) bool {
	for {
		if p.n, p.err = syscall.EpollWait(int(fd), p.raw[:], 0); p.err != syscall.EINTR {
			return p.n != 0 || !p.block
		}
	}
}

func (p *epoll) close() error { return p.file.Close() }

// bits translates what epoll says.
func bits(events uint32) (b uint32) {
	if events&syscall.EPOLLIN != 0 {
		b |= readable
	}
	if events&syscall.EPOLLOUT != 0 {
		b |= writable
	}
	if events&syscall.EPOLLRDHUP != 0 {
		b |= halfClosed
	}
	if events&(syscall.EPOLLHUP|syscall.EPOLLERR) != 0 {
		b |= dead
	}
	return b
}
