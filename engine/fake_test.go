package engine

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/seed-07372d5a/websocket"
)

// fake_test.go is an operating system without a kernel: the test decides what
// descriptors yield, what they take, and what the poller says.

type fake struct {
	mu      sync.Mutex
	sockets map[int]*fakeSocket // that are open
	pollers []*fakePoller
	few     int   // how many pollers there may be; 0: any number
	kqueue  bool  // they speak like kqueues, else like epolls
	faults  error // what was done to descriptors that are not open
	polls   int
}

type fakeSocket struct {
	os    *fake
	fd    int
	in    [][]byte // what reads yield, one at a time
	end   error    // what they yield then; nil: EAGAIN
	eintr int      // how many calls are interrupted first
	room  int      // bytes that writes take; negative: all
	most  int      // by one call; 0: any number
	out   []byte
	shut  bool // its sending half
	reads int
	sent  int // calls of write that took something
	onto  func()

	poller *fakePoller
	token  token
}

type fakePoller struct {
	os     *fake
	ledger ledger // of a kqueue
	queue  []event
	wake   chan struct{}
	err    error // of the next wait
	closed bool
}

func newFake() *fake { return &fake{sockets: map[int]*fakeSocket{}} }

// open returns a new socket, with the lowest free descriptor, that takes
// everything.
func (f *fake) open() *fakeSocket {
	f.mu.Lock()
	defer f.mu.Unlock()
	fd := 3
	for f.sockets[fd] != nil {
		fd++
	}
	s := &fakeSocket{os: f, fd: fd, room: -1}
	f.sockets[fd] = s
	return s
}

// of returns the socket of a descriptor that must be open.
func (f *fake) of(call string, fd int) *fakeSocket {
	s := f.sockets[fd]
	if s == nil {
		f.faults = errors.Join(f.faults, fmt.Errorf("%s of descriptor %d, which is closed", call, fd))
	}
	return s
}

func (s *fakeSocket) interrupted() bool {
	if s.eintr > 0 {
		s.eintr--
		return true
	}
	return false
}

func (f *fake) read(fd int, p []byte) (int, error) {
	f.mu.Lock()
	s := f.of("read", fd)
	if s == nil {
		f.mu.Unlock()
		return -1, syscall.EBADF
	}
	s.reads++
	if s.onto != nil {
		f.mu.Unlock()
		s.onto()
		f.mu.Lock()
	}
	defer f.mu.Unlock()
	switch {
	case s.interrupted():
		return -1, syscall.EINTR
	case len(s.in) > 0:
		n := copy(p, s.in[0])
		if s.in[0] = s.in[0][n:]; len(s.in[0]) == 0 {
			s.in = s.in[1:]
		}
		if n < len(p) && len(s.in) > 0 && s.poller != nil { // the rest has come just now
			s.poller.queue = append(s.poller.queue, event{s.token, readable})
			s.poller.rouse()
		}
		return n, nil
	case s.end == io.EOF:
		return 0, nil
	case s.end != nil:
		return -1, s.end
	}
	return -1, syscall.EAGAIN
}

func (f *fake) write(fd int, p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.of("write", fd)
	switch {
	case s == nil:
		return -1, syscall.EBADF
	case s.interrupted():
		return -1, syscall.EINTR
	case s.shut:
		f.faults = errors.Join(f.faults, errors.New("write after shutdown"))
		return -1, syscall.EPIPE
	}
	n := len(p)
	if s.room >= 0 {
		n = min(n, s.room)
	}
	if s.most > 0 {
		n = min(n, s.most)
	}
	if n == 0 {
		return -1, syscall.EAGAIN
	}
	if s.room >= 0 {
		s.room -= n
	}
	s.sent++
	s.out = append(s.out, p[:n]...)
	return n, nil
}

func (f *fake) shutdown(fd int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.of("shutdown", fd); s != nil {
		s.shut = true
	}
	return nil
}

func (f *fake) failure(int) error { return syscall.EPIPE }

func (f *fake) close(fd int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.of("close", fd); s != nil {
		if s.poller != nil {
			f.faults = errors.Join(f.faults, errors.New("close of a descriptor that is watched"))
		}
		delete(f.sockets, fd)
	}
	return nil
}

func (f *fake) poller() (poller, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.few > 0 && len(f.pollers) >= f.few {
		return nil, syscall.EMFILE
	}
	p := &fakePoller{os: f, wake: make(chan struct{}, 1)}
	f.pollers = append(f.pollers, p)
	return p, nil
}

func (p *fakePoller) add(fd int, t token) error {
	p.os.mu.Lock()
	s := p.os.of("add", fd)
	s.poller, s.token = p, t
	p.ledger.add(fd, t)
	bits := writable
	if len(s.in) > 0 || s.end != nil {
		bits |= readable
	}
	p.os.mu.Unlock()
	s.happens(bits)
	return nil
}

func (p *fakePoller) remove(fd int) error {
	p.os.mu.Lock()
	defer p.os.mu.Unlock()
	p.ledger.remove(fd)
	if s := p.os.of("remove", fd); s != nil {
		s.poller = nil
	}
	return nil
}

func (p *fakePoller) wait(into []event, block bool) (n int, err error) {
	p.ledger.begin()
	for {
		p.os.mu.Lock()
		p.os.polls++
		if p.err != nil || p.closed {
			err, p.err = p.err, nil
			if p.closed {
				err = net.ErrClosed
			}
			p.os.mu.Unlock()
			return 0, err
		}
		if p.os.kqueue {
			n, p.queue = p.ledger.events(p.changes(), into), nil
		} else {
			n = copy(into, p.queue)
			p.queue = p.queue[n:]
		}
		p.os.mu.Unlock()
		if n > 0 || !block {
			return n, nil
		}
		<-p.wake
	}
}

// changes are what a kqueue makes of the queue: it knows descriptors that are open,
// and both directions by themselves.
func (p *fakePoller) changes() (all []change) {
	for _, ev := range p.queue {
		for fd, s := range p.os.sockets {
			if s.poller != p || s.token != ev.token {
				continue
			}
			end, err := ev.bits&halfClosed != 0, ev.bits&dead != 0
			if ev.bits&(writable|dead) != 0 {
				all = append(all, change{fd, false, err || s.shut, err})
			}
			if ev.bits&(readable|halfClosed|dead) != 0 {
				all = append(all, change{fd, true, end || err, err})
			}
		}
	}
	return all
}

func (p *fakePoller) close() error {
	p.os.mu.Lock()
	p.closed = true
	p.os.mu.Unlock()
	p.rouse()
	return nil
}

func (p *fakePoller) rouse() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// says makes the poller say something, and what else is to be said.
func (p *fakePoller) says(events ...event) {
	p.os.mu.Lock()
	p.queue = append(p.queue, events...)
	p.os.mu.Unlock()
	p.rouse()
}

// fails makes the next wait fail.
func (p *fakePoller) fails(err error) {
	p.os.mu.Lock()
	p.err = err
	p.os.mu.Unlock()
	p.rouse()
}

// happens makes the poller tell of s.
func (s *fakeSocket) happens(bits uint32) {
	s.os.mu.Lock()
	p, t := s.poller, s.token
	s.os.mu.Unlock()
	if p != nil {
		p.says(event{t, bits})
	}
}

// comes is input, one part for each read, and the poller's word.
func (s *fakeSocket) comes(parts ...[]byte) {
	s.os.mu.Lock()
	s.in = append(s.in, parts...)
	s.os.mu.Unlock()
	s.happens(readable)
}

// ends is the end of the input, after what is here.
func (s *fakeSocket) ends(err error) {
	s.os.mu.Lock()
	s.end = err
	s.os.mu.Unlock()
	if err == io.EOF {
		s.happens(readable | halfClosed)
	} else {
		s.happens(readable | halfClosed | dead)
	}
}

// takes makes room for output; a negative number is for all.
func (s *fakeSocket) takes(room int) {
	s.os.mu.Lock()
	s.room = room
	s.os.mu.Unlock()
	s.happens(writable)
}

// output returns what was written since the last call.
func (s *fakeSocket) output() string {
	synctest.Wait()
	s.os.mu.Lock()
	defer s.os.mu.Unlock()
	out := string(s.out)
	s.out = nil
	return out
}

func (s *fakeSocket) isOpen() bool {
	s.os.mu.Lock()
	defer s.os.mu.Unlock()
	return s.os.sockets[s.fd] == s
}

func (f *fake) fault() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.faults
}

// faked runs f in a bubble, with an engine of one loop on a fake system that
// echoes and notes, and ends the engine: then nothing may be left. It does so with
// each kind of poller.
func faked(t *testing.T, f func(t *testing.T, e *Engine, os *fake, d *diary)) {
	t.Helper()
	for _, kqueue := range []bool{false, true} {
		fakedWith(t, kqueue, f)
	}
}

func fakedWith(t *testing.T, kqueue bool, f func(t *testing.T, e *Engine, os *fake, d *diary)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		os := newFake()
		os.kqueue = kqueue
		d := newDiary()
		e := &Engine{Handler: d.echo(), Loops: 1, system: os}
		e.Options.Config.KeepAlive = -1
		f(t, e, os, d)
		if err := e.Shutdown(bg); err != nil {
			t.Fatal(err)
		}
		if err := os.fault(); err != nil || len(os.sockets) > 0 || e.Len() > 0 {
			t.Fatal("left:", len(os.sockets), e.Len(), err)
		}
		for _, p := range os.pollers {
			if !p.closed {
				t.Fatal("a poller is open")
			}
		}
	})
}

// adopt makes a connection of s, as Adopt does of a TCP connection.
func adopt(e *Engine, s *fakeSocket, p websocket.Params) *websocket.Conn {
	l, _ := e.join()
	p.Config = e.Options.Config
	return l.adopt(socket{fd: s.fd}, nil, p, nil)
}

// masked makes frames as a client sends them.
func masked(op websocket.Opcode, payload string) []byte {
	h := websocket.Header{Fin: true, Opcode: op, Masked: true, Key: 0x04030201, Len: int64(len(payload))}
	b := append(websocket.AppendHeader(nil, h), payload...)
	websocket.Mask(b[len(b)-len(payload):], h.Key)
	return b
}

// plain makes one as a server sends it.
func plain(op websocket.Opcode, payload string) string {
	h := websocket.Header{Fin: true, Opcode: op, Len: int64(len(payload))}
	return string(websocket.AppendHeader(nil, h)) + payload
}
