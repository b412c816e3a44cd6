//go:build linux

package main

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// The floors move the bytes of a cell with the fewest system calls, and look at
// none of them: they know how long a request is, and have the answer ready.

func init() {
	register(&library{
		name: "floor", kind: "floor", server: floorServer, client: floorClient,
		note: "net.Conn and a goroutine per connection; one read and one write for what came together; nothing parsed",
	})
	register(&library{
		name: "floor-epoll", kind: "floor", server: epollServer,
		note: "one thread with epoll and raw system calls; nothing parsed",
	})
	register(&library{
		name: "floor-http", kind: "floor", only: "handshake", server: httpFloor,
		note: "net/http, a hijack, and a response that is ready",
	})
}

// response is right for the one key that the generator sends.
var response = []byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Accept: " + benchAccept + "\r\n\r\n")

var endOfHeader = []byte("\r\n\r\n")

// exchange is what a floor knows: the length of a request, and as many answers
// as there may be requests at once.
func exchange(c Cell) (request int, answers []byte) {
	client := c.Kind == "client"
	request = headerLen(c.Size, !client) + c.Size
	key := uint32(0)
	if client {
		key = 0x01020304
	}
	f := appendFrame(nil, 0x80|c.opcode(), key, c.payload(0))
	return request, bytes.Repeat(f, c.InFlight)
}

// bufferSize holds all that may come at once, within reason.
func bufferSize(c Cell, request int) int { return min(max(request*c.InFlight, 512), 256<<10) }

type floorHub struct {
	mu      sync.Mutex
	members []net.Conn
}

func floorServer(l net.Listener, c Cell) error {
	var hub floorHub
	request, answers := exchange(c)
	return each(l, func(nc net.Conn) {
		defer nc.Close()
		buf := make([]byte, bufferSize(c, request))
		n := 0
		for !bytes.HasSuffix(buf[:n], endOfHeader) {
			k, err := nc.Read(buf[n:])
			if err != nil {
				return
			}
			n += k
		}
		if c.Kind == "broadcast" {
			hub.mu.Lock()
			hub.members = append(hub.members, nc)
			hub.mu.Unlock()
		}
		nc.Write(response)
		floorEcho(nc, buf, request, func(n int) error {
			if c.Kind != "broadcast" {
				_, err := nc.Write(answers[:n*len(answers)/c.InFlight])
				return err
			}
			hub.mu.Lock()
			defer hub.mu.Unlock()
			alive := hub.members[:0]
			for _, m := range hub.members {
				if _, err := m.Write(answers); err == nil {
					alive = append(alive, m)
				}
			}
			hub.members = alive
			return nil
		})
	})
}

// floorEcho calls answer with the number of requests that are here.
func floorEcho(nc net.Conn, buf []byte, request int, answer func(n int) error) {
	for have := 0; ; {
		k, err := nc.Read(buf)
		if err != nil {
			return
		}
		if have += k; have >= request {
			if answer(have/request) != nil {
				return
			}
			have %= request
		}
	}
}

func floorClient(addr string, c Cell) error {
	request, answers := exchange(c)
	return dialAll(c, func() (func(), error) {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			return nil, err
		}
		buf := make([]byte, max(bufferSize(c, request), len(response)))
		io.WriteString(nc, handshake(""))
		if _, err := io.ReadFull(nc, buf[:len(response)]); err != nil {
			return nil, err
		}
		return func() {
			floorEcho(nc, buf, request, func(n int) error {
				_, err := nc.Write(answers[:n*len(answers)/c.InFlight])
				return err
			})
		}, nil
	})
}

// dialAll makes the connections of a client, and then runs them.
func dialAll(c Cell, dial func() (run func(), err error)) error {
	var runs []func()
	for range c.Conns {
		run, err := dial()
		if err != nil {
			return err
		}
		runs = append(runs, run)
	}
	for _, run := range runs {
		go run()
	}
	return nil
}

// An epollConn is a socket of the epoll floor.
type epollConn struct {
	open bool   // the handshake is done
	have int    // bytes of requests
	left []byte // what the socket did not take
}

func epollServer(l net.Listener, c Cell) error {
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	defer f.Close()
	l.Close()
	lfd := int(f.Fd())
	unix.SetNonblock(lfd, true)
	ep, err := unix.EpollCreate1(0)
	if err != nil {
		return err
	}
	watch := func(op, fd int, events uint32) {
		unix.EpollCtl(ep, op, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
	}
	watch(unix.EPOLL_CTL_ADD, lfd, unix.EPOLLIN)
	request, answers := exchange(c)
	buf := make([]byte, max(bufferSize(c, request), 4096))
	conns := map[int]*epollConn{}
	write := func(fd int, ec *epollConn, p []byte) {
		if len(ec.left) > 0 {
			ec.left = append(ec.left, p...)
			return
		}
		n, _ := rawWrite(fd, p)
		if n = max(n, 0); n < len(p) {
			ec.left = p[n:len(p):len(p)] // answers are never changed
			watch(unix.EPOLL_CTL_MOD, fd, unix.EPOLLIN|unix.EPOLLOUT)
		}
	}
	events := make([]unix.EpollEvent, 256)
	for {
		n, err := unix.EpollWait(ep, events, -1)
		if err != nil && err != syscall.EINTR {
			return err
		}
		for _, e := range events[:max(n, 0)] {
			fd := int(e.Fd)
			if fd == lfd {
				if fd, _, err := unix.Accept4(lfd, unix.SOCK_NONBLOCK); err == nil {
					unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
					conns[fd] = &epollConn{}
					watch(unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN)
				}
				continue
			}
			ec := conns[fd]
			if e.Events&unix.EPOLLOUT != 0 && len(ec.left) > 0 {
				k, _ := rawWrite(fd, ec.left)
				if ec.left = ec.left[max(k, 0):]; len(ec.left) == 0 {
					watch(unix.EPOLL_CTL_MOD, fd, unix.EPOLLIN)
				}
			}
			if e.Events&^unix.EPOLLOUT == 0 {
				continue
			}
			k, errno := rawRead(fd, buf)
			switch {
			case errno == syscall.EAGAIN:
			case k <= 0:
				unix.Close(fd)
				delete(conns, fd)
			case !ec.open:
				if bytes.HasSuffix(buf[:k], endOfHeader) {
					ec.open = true
					write(fd, ec, response)
				}
			default:
				ec.have += k
				if n := ec.have / request; n > 0 && c.Kind == "broadcast" {
					for fd, m := range conns {
						write(fd, m, answers)
					}
				} else if n > 0 {
					write(fd, ec, answers[:n*len(answers)/c.InFlight])
				}
				ec.have %= request
			}
		}
	}
}

func httpFloor(l net.Listener, c Cell) error {
	return serveHTTP(l, func(w http.ResponseWriter, r *http.Request) {
		nc, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		nc.Write(response)
		go func() {
			nc.Read(make([]byte, 1))
			nc.Close()
		}()
	})
}
