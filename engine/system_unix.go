//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package engine

import (
	"net"
	"net/netip"
	"syscall"
)

// system_unix.go owns the system calls that are the same on all systems that have
// event loops.

type unix struct{}

func (unix) read(fd int, p []byte) (int, error)  { return syscall.Read(fd, p) }
func (unix) write(fd int, p []byte) (int, error) { return syscall.Write(fd, p) }
func (unix) shutdown(fd int) error               { return syscall.Shutdown(fd, syscall.SHUT_WR) }
func (unix) close(fd int) error                  { return syscall.Close(fd) }

func (unix) failure(fd int) error {
	n, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ERROR)
	if err != nil || n == 0 {
		return err
	}
	return syscall.Errno(n)
}

// take takes the socket out of nc, which it closes: what the runtime holds for nc
// is more than what the engine does.
func take(nc net.Conn) (s socket, ok bool) {
	t, ok := nc.(*net.TCPConn)
	if !ok {
		return s, false
	}
	s.local, s.remote = addrPort(t.LocalAddr()), addrPort(t.RemoteAddr())
	rc, err := t.SyscallConn()
	if err != nil {
		return s, false
	}
	t.SetKeepAlive(false)
	var failed error
	err = rc.Control(func(fd uintptr) { s.fd, failed = duplicate(fd) })
	if err != nil || failed != nil { // such as for want of descriptors
		return s, false
	}
	t.Close()
	return s, true
}

func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.AddrPort()
	}
	return netip.AddrPort{}
}
