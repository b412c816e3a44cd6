//go:build linux

package main

import (
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// raw.go owns sockets without a library: the generator's and the epoll floor's.

// rawRead and rawWrite do not block, and rawEpollWait only where there is
// nothing else to do: the scheduler need not know.
func rawRead(fd int, p []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	return int(n), errno
}

func rawWrite(fd int, p []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	return int(n), errno
}

func rawEpollWait(ep int, events []unix.EpollEvent, ms int) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(ep), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(ms), 0, 0)
	return int(n), errno
}

// The one key of all handshakes, and its answer (RFC 6455 section 1.3).
const (
	benchKey    = "dGhlIHNhbXBsZSBub25jZQ=="
	benchAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
)

// handshake is the request; header lines may be added.
func handshake(header string) string {
	return "GET / HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + benchKey + "\r\n" + header + "\r\n"
}

// extensions is the header line that offers what a cell needs.
func (c Cell) extensions() string {
	switch c.Deflate {
	case "alone":
		return "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n"
	case "takeover":
		return "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
	}
	return ""
}

func acceptKey(key string) string {
	h := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(h[:])
}

// connect makes a socket that blocks, for at most ten seconds.
func connect(addr string) (fd int, err error) {
	host, port, _ := net.SplitHostPort(addr)
	sa := &unix.SockaddrInet4{}
	copy(sa.Addr[:], net.ParseIP(host).To4())
	sa.Port, _ = strconv.Atoi(port)
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	prepare(fd)
	err = unix.Connect(fd, sa)
	if err == unix.EINTR { // it goes on by itself
		_, err = again(func() (int, error) { return unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 10_000) })
	}
	if err != nil {
		unix.Close(fd)
		return 0, fmt.Errorf("connect: %w", err)
	}
	return fd, nil
}

// again repeats a system call that a signal has interrupted.
func again(call func() (int, error)) (n int, err error) {
	for n, err = call(); err == unix.EINTR; n, err = call() {
	}
	return n, err
}

// prepare sets a socket up: no delay, and a close that leaves no port behind.
func prepare(fd int) {
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	tv := unix.NsecToTimeval(int64(10 * time.Second))
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv)
}

// readHeader reads a header from a socket that blocks, to its last byte. What
// comes behind it stays in the socket.
func readHeader(fd int) (string, error) {
	b := make([]byte, 4096)
	for {
		n, err := again(func() (n int, err error) {
			n, _, err = unix.Recvfrom(fd, b, unix.MSG_PEEK)
			return n, err
		})
		if err != nil || n <= 0 {
			return "", fmt.Errorf("no handshake: %d bytes, %v", n, err)
		}
		if i := strings.Index(string(b[:n]), "\r\n\r\n"); i >= 0 {
			n, err := again(func() (int, error) { return unix.Read(fd, b[:i+4]) })
			return string(b[:max(n, 0)]), err
		}
		if n == len(b) {
			return "", fmt.Errorf("no handshake: %q", b)
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// headerValue returns a field of a header.
func headerValue(header, name string) string {
	for line := range strings.Lines(header) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.EqualFold(k, name) {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// dial makes a WebSocket connection.
func (c Cell) dial(addr string) (fd int, err error) {
	if fd, err = connect(addr); err != nil {
		return 0, err
	}
	if _, err = unix.Write(fd, []byte(handshake(c.extensions()))); err == nil {
		var h string
		if h, err = readHeader(fd); err == nil {
			err = c.checkResponse(h)
		}
	}
	if err != nil {
		unix.Close(fd)
		return 0, err
	}
	return fd, nil
}

// checkResponse tells whether a server has agreed to what a cell needs.
func (c Cell) checkResponse(h string) error {
	ext := headerValue(h, "Sec-WebSocket-Extensions")
	switch {
	case !strings.HasPrefix(h, "HTTP/1.1 101 "), headerValue(h, "Sec-WebSocket-Accept") != benchAccept:
		return fmt.Errorf("handshake refused: %q", h)
	case (c.Deflate != "") != (ext != ""):
		return fmt.Errorf("agreed on %q", ext)
	case c.Deflate == "takeover" && (strings.Contains(ext, "no_context_takeover") || strings.Contains(ext, "max_window_bits=1") && !strings.Contains(ext, "=15")):
		return fmt.Errorf("not what was asked for: agreed on %q", ext)
	}
	return nil
}

// accept takes a client's connection.
func accept(lfd int) (fd int, err error) {
	fd, err = again(func() (fd int, err error) {
		fd, _, err = unix.Accept4(lfd, unix.SOCK_CLOEXEC)
		return fd, err
	})
	if err != nil {
		return 0, err
	}
	prepare(fd)
	h, err := readHeader(fd)
	if err != nil {
		unix.Close(fd)
		return 0, err
	}
	_, err = unix.Write(fd, []byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Accept: "+acceptKey(headerValue(h, "Sec-WebSocket-Key"))+"\r\n\r\n"))
	return fd, err
}

// listen makes a socket for accept.
func listen() (lfd int, addr string, err error) {
	lfd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, "", err
	}
	tv := unix.NsecToTimeval(int64(10 * time.Second))
	unix.SetsockoptTimeval(lfd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	if err := unix.Bind(lfd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, "", err
	}
	if err := unix.Listen(lfd, 1024); err != nil {
		return 0, "", err
	}
	sa, err := unix.Getsockname(lfd)
	if err != nil {
		return 0, "", err
	}
	return lfd, "127.0.0.1:" + strconv.Itoa(sa.(*unix.SockaddrInet4).Port), nil
}

// pin moves all threads of this process to a core.
func pin(core int) {
	var set unix.CPUSet
	set.Set(core)
	tasks, _ := os.ReadDir("/proc/self/task")
	for _, t := range tasks {
		id, _ := strconv.Atoi(t.Name())
		unix.SchedSetaffinity(id, &set)
	}
}
