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
// none of them: they know how long a request is. In a closed loop they write what
// they have read, with another header; otherwise they have the answer ready.

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

// A mirror is a buffer from which a request goes back as it has come, but for
// its header: a closed loop's floor moves the very bytes.
type mirror struct {
	in   []byte // where the request is read to
	out  []byte // what is written then: the same payload
	head []byte // and at its beginning
	have int
}

// newMirror returns nil for cells that have more than one request at once, or
// more than one answer.
func newMirror(c Cell) *mirror {
	if c.InFlight > 1 || c.Kind != "echo" && c.Kind != "client" {
		return nil
	}
	request, answers := exchange(c)
	shift := max(0, len(answers)-request) // a client's answer is longer, by the key
	buf := make([]byte, shift+request)
	return &mirror{in: buf[shift:], out: buf[shift+request-len(answers):], head: answers[:len(answers)-c.Size]}
}

// took returns the answer if the request is whole with n bytes more.
func (m *mirror) took(n int) []byte {
	if m.have += n; m.have < len(m.in) {
		return nil
	}
	m.have = 0
	copy(m.out, m.head)
	return m.out
}

// echo runs a floor's connection that blocks.
func (m *mirror) echo(nc net.Conn) {
	for {
		n, err := nc.Read(m.in[m.have:])
		if err != nil {
			return
		}
		if out := m.took(n); out != nil {
			if _, err := nc.Write(out); err != nil {
				return
			}
		}
	}
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
		if m := newMirror(c); m != nil {
			m.echo(nc)
			return
		}
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
	return dialAll(c, func() (func(), error) {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			return nil, err
		}
		buf := make([]byte, len(response))
		io.WriteString(nc, handshake(""))
		if _, err := io.ReadFull(nc, buf); err != nil {
			return nil, err
		}
		return func() { newMirror(c).echo(nc) }, nil
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

// An epollFloor is the loop of the epoll floor.
type epollFloor struct {
	cell    Cell
	ep, lfd int
	request int
	answers []byte
	buf     []byte
	conns   map[int]*epollConn
}

// An epollConn is a socket of it.
type epollConn struct {
	open bool   // the handshake is done
	have int    // bytes of requests
	left []byte // what the socket did not take
	m    *mirror
}

func epollServer(l net.Listener, c Cell) error {
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	defer f.Close()
	l.Close()
	s := &epollFloor{cell: c, lfd: int(f.Fd()), conns: map[int]*epollConn{}}
	s.request, s.answers = exchange(c)
	s.buf = make([]byte, max(bufferSize(c, s.request), 4096))
	unix.SetNonblock(s.lfd, true)
	if s.ep, err = unix.EpollCreate1(0); err != nil {
		return err
	}
	s.watch(unix.EPOLL_CTL_ADD, s.lfd, unix.EPOLLIN)
	events := make([]unix.EpollEvent, 256)
	for {
		n, err := unix.EpollWait(s.ep, events, -1)
		if err != nil && err != syscall.EINTR {
			return err
		}
		for _, e := range events[:max(n, 0)] {
			switch fd := int(e.Fd); {
			case fd == s.lfd:
				s.accept()
			default:
				s.serve(fd, s.conns[fd], e.Events)
			}
		}
	}
}

func (s *epollFloor) watch(op, fd int, events uint32) {
	unix.EpollCtl(s.ep, op, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
}

func (s *epollFloor) accept() {
	fd, _, err := unix.Accept4(s.lfd, unix.SOCK_NONBLOCK)
	if err != nil {
		return
	}
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	s.conns[fd] = &epollConn{}
	s.watch(unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN)
}

// serve does what a socket is ready for.
func (s *epollFloor) serve(fd int, ec *epollConn, events uint32) {
	if events&unix.EPOLLOUT != 0 && len(ec.left) > 0 {
		k, _ := rawWrite(fd, ec.left)
		if ec.left = ec.left[max(k, 0):]; len(ec.left) == 0 {
			s.watch(unix.EPOLL_CTL_MOD, fd, unix.EPOLLIN)
		}
	}
	if events&^unix.EPOLLOUT == 0 {
		return
	}
	into := s.buf
	if ec.m != nil {
		into = ec.m.in[ec.m.have:]
	}
	k, errno := rawRead(fd, into)
	switch {
	case errno == syscall.EAGAIN:
	case k <= 0:
		unix.Close(fd)
		delete(s.conns, fd)
	case !ec.open:
		if bytes.HasSuffix(s.buf[:k], endOfHeader) {
			ec.open, ec.m = true, newMirror(s.cell)
			s.write(fd, ec, response)
		}
	case ec.m != nil:
		if out := ec.m.took(k); out != nil {
			s.write(fd, ec, out)
		}
	default:
		s.answer(fd, ec, k)
	}
}

// answer answers what k bytes more make whole, to all if it is a broadcast.
func (s *epollFloor) answer(fd int, ec *epollConn, k int) {
	ec.have += k
	n := ec.have / s.request
	ec.have %= s.request
	switch {
	case n == 0:
	case s.cell.Kind == "broadcast":
		for fd, ec := range s.conns {
			s.write(fd, ec, s.answers)
		}
	default:
		s.write(fd, ec, s.answers[:n*len(s.answers)/s.cell.InFlight])
	}
}

func (s *epollFloor) write(fd int, ec *epollConn, p []byte) {
	if len(ec.left) > 0 {
		ec.left = append(ec.left, p...)
		return
	}
	n, _ := rawWrite(fd, p)
	if n = max(n, 0); n < len(p) {
		ec.left = p[n:len(p):len(p)] // nobody changes it before it is out
		s.watch(unix.EPOLL_CTL_MOD, fd, unix.EPOLLIN|unix.EPOLLOUT)
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
