//go:build linux

package main

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// load.go owns the generator: one thread, an epoll set per server, frames made
// beforehand.

// A link is one connection of the generator.
type link struct {
	fd      int
	batch   int    // the number of the next
	out     []byte // what the socket did not take yet
	armed   bool   // writability is waited for
	waiting int    // messages that are to come
	started time.Duration
	reader  frameReader
}

// A frameReader takes frames apart as they come: it counts messages, and keeps
// what they say only if it is to be checked.
type frameReader struct {
	head   [14]byte
	have   int  // bytes of head
	left   int  // bytes of the frame's payload that are to come
	begun  bool // a message is
	packed bool // it is compressed
	size   int  // of its payload so far
	keep   bool
	got    []byte // the payload, if it is kept
	frame  int    // where in got the frame's begins
	bytes  int    // of frames
	window []byte // what was inflated last
}

// header parses the header at the beginning of b; n is 0 if it is not whole.
func header(b []byte) (size, n int) {
	if len(b) < 2 {
		return 0, 0
	}
	n = 2
	size = int(b[1] & 0x7f)
	switch size {
	case 126:
		if n = 4; len(b) >= n {
			size = int(binary.BigEndian.Uint16(b[2:]))
		}
	case 127:
		if n = 10; len(b) >= n {
			size = int(binary.BigEndian.Uint64(b[2:]))
		}
	}
	if b[1]&mask != 0 {
		n += 4
	}
	if len(b) < n {
		return 0, 0
	}
	return size, n
}

// A load is the connections to one server.
type load struct {
	cell   Cell
	script *script
	links  []*link
	ep     int
	buf    []byte
	events []unix.EpollEvent
	addr   string
	floor  bool            // the other side parses nothing
	keys   map[uint32]bool // masking keys of a client that were seen while checking
	hist   histogram
	idle   int // times that there was nothing to do
}

var start = time.Now()

func newLoad(c Cell, s *script, addr string, floor bool) (*load, error) {
	g := &load{cell: c, script: s, addr: addr, floor: floor, buf: loadBuffer, events: make([]unix.EpollEvent, 512)}
	var err error
	g.ep, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	return g, err
}

// All loads take turns: they share what they read into.
var loadBuffer = make([]byte, 1<<20)

// open makes the connections, by dialing, or by accepting from lfd.
func (g *load) open(lfd int) error {
	for range g.cell.Conns {
		var fd int
		var err error
		if lfd >= 0 {
			fd, err = accept(lfd)
		} else {
			fd, err = g.cell.dial(g.addr)
		}
		if err == nil && g.cell.Kind == "broadcast" && !g.floor {
			err = awaitPong(fd)
		}
		if err != nil {
			return err
		}
		g.add(&link{fd: fd})
	}
	return nil
}

// awaitPong returns when the server reads from the connection: then it is among
// the members of a broadcast.
func awaitPong(fd int) error {
	if _, err := unix.Write(fd, appendFrame(nil, 0x80|opPing, 0x01020304, nil)); err != nil {
		return err
	}
	b := make([]byte, 2)
	if n, err := again(func() (int, error) { return unix.Read(fd, b) }); n != 2 || b[0] != 0x8a || b[1] != 0 {
		return fmt.Errorf("not a pong: %x, %v", b[:max(n, 0)], err)
	}
	return nil
}

// add has a link watched.
func (g *load) add(l *link) {
	unix.SetNonblock(l.fd, true)
	g.links = append(g.links, l)
	g.watch(unix.EPOLL_CTL_ADD, len(g.links)-1, unix.EPOLLIN)
}

func (g *load) watch(op, i int, events uint32) {
	unix.EpollCtl(g.ep, op, g.links[i].fd, &unix.EpollEvent{Events: events, Fd: int32(i)})
}

func (g *load) close() {
	for _, l := range g.links {
		unix.Close(l.fd)
	}
	g.links = nil
	unix.Close(g.ep)
}

// send begins a batch.
func (g *load) send(i int) error {
	l := g.links[i]
	l.waiting = g.cell.InFlight
	l.out = g.script.at(l.batch)
	l.batch++
	l.started = time.Since(start)
	return g.push(i)
}

// push writes what the socket takes.
func (g *load) push(i int) error {
	l := g.links[i]
	n, errno := rawWrite(l.fd, l.out)
	if errno != 0 && errno != syscall.EAGAIN {
		return fmt.Errorf("write: %w", errno)
	}
	l.out = l.out[max(n, 0):]
	if blocked := len(l.out) > 0; blocked != l.armed {
		l.armed = blocked
		events := uint32(unix.EPOLLIN)
		if blocked {
			events |= unix.EPOLLOUT
		}
		g.watch(unix.EPOLL_CTL_MOD, i, events)
	}
	return nil
}

// doze is how long the generator may sleep when there is nothing to do, in
// milliseconds. It does not if it has a core of its own: waking it up would be at
// the server's expense, and all the more often the slower the server is.
var doze = 0

// poll returns the number of events.
func (g *load) poll() (int, error) {
	const patience = 20 * time.Second
	var since time.Duration
	for i := 0; ; i++ {
		n, errno := rawEpollWait(g.ep, g.events, doze)
		switch {
		case n > 0:
			g.idle += i
			return n, nil
		case errno != 0 && errno != syscall.EINTR:
			return 0, fmt.Errorf("epoll: %w", errno)
		case doze > 0 || i%(1<<16) == 0:
			now := time.Since(start)
			if since == 0 {
				since = now
			}
			if now-since > patience {
				return 0, errors.New("no answer within 20 s")
			}
		}
	}
}

// each waits for events, and calls message for what comes: n messages on link i.
// It returns when message has returned false.
func (g *load) each(message func(i, n int) (bool, error)) error {
	for {
		n, err := g.poll()
		if err != nil {
			return err
		}
		for _, e := range g.events[:n] {
			i := int(e.Fd)
			l := g.links[i]
			if e.Events&unix.EPOLLOUT != 0 && len(l.out) > 0 {
				if err := g.push(i); err != nil {
					return err
				}
			}
			if e.Events&^unix.EPOLLOUT == 0 {
				continue
			}
			k, errno := rawRead(l.fd, g.buf)
			if errno == syscall.EAGAIN {
				continue
			}
			if k <= 0 {
				return fmt.Errorf("the connection has ended (%v)", errno)
			}
			m, err := g.take(l, g.buf[:k])
			if err != nil {
				return err
			}
			if m == 0 {
				continue
			}
			if more, err := message(i, m); !more || err != nil {
				return err
			}
		}
	}
}

// take counts the messages that b completes.
func (g *load) take(l *link, b []byte) (messages int, err error) {
	r := &l.reader
	r.bytes += len(b)
	for len(b) > 0 {
		if r.left == 0 {
			var size, n int
			if r.have == 0 {
				if size, n = header(b); n > 0 {
					copy(r.head[:], b[:n])
					b = b[n:]
				}
			}
			if n == 0 { // it came in parts
				r.head[r.have] = b[0]
				r.have++
				b = b[1:]
				if size, n = header(r.head[:r.have]); n == 0 {
					continue
				}
			}
			r.have, r.left, r.frame = n, size, len(r.got)
			if err := g.begin(r, b); err != nil {
				return 0, err
			}
		}
		k := min(r.left, len(b))
		if r.keep || r.head[0]&0x0f == opPing {
			r.got = append(r.got, b[:k]...)
		}
		r.left -= k
		b = b[k:]
		if r.left > 0 {
			break
		}
		if r.head[0]&0x0f == opPing {
			err = g.pong(l)
		} else {
			if r.keep && r.head[1]&mask != 0 {
				err = g.unmask(r)
			}
			if r.head[0]&0x80 != 0 {
				messages++
				err = errors.Join(err, g.end(l))
			}
		}
		if err != nil {
			return 0, err
		}
		r.have = 0
	}
	return messages, nil
}

// begin looks at a header; b is what follows.
func (g *load) begin(r *frameReader, b []byte) error {
	first := r.head[0]
	op := first & 0x0f
	switch {
	case op == opPing:
		return nil
	case first&0x30 != 0, !r.begun && op != g.cell.opcode(), r.begun && (op != 0 || first&rsv1 != 0):
		return fmt.Errorf("a frame with first byte %#x and %d bytes of payload: %q", first, r.left, b[:min(len(b), r.left, 40)])
	}
	if !r.begun {
		r.begun, r.packed, r.size = true, first&rsv1 != 0, 0
	}
	r.size += r.left
	return nil
}

// unmask unmasks a client's frame, whose key must be a new one.
func (g *load) unmask(r *frameReader) error {
	key := binary.BigEndian.Uint32(r.head[r.have-4:])
	if g.keys != nil {
		if g.keys[key] {
			return fmt.Errorf("the masking key %#x came twice", key)
		}
		g.keys[key] = true
	}
	p := r.got[r.frame:]
	for i := range p {
		p[i] ^= byte(key >> (24 - i%4*8))
	}
	return nil
}

// pong answers a ping.
func (g *load) pong(l *link) error {
	r := &l.reader
	key := uint32(0x01020304)
	if g.cell.Kind == "client" {
		key = 0
	}
	p := append([]byte(nil), l.out...)
	p = appendFrame(p, 0x8a, key, r.got[r.frame:])
	r.got = r.got[:r.frame]
	if k, _ := rawWrite(l.fd, p); k != len(p) {
		return errors.New("no room for a pong")
	}
	l.out = nil
	return nil
}

// end checks the length of an answer, and what it says if that was kept.
func (g *load) end(l *link) error {
	r := &l.reader
	r.begun = false
	if !r.packed && r.size != g.cell.Size {
		return fmt.Errorf("an answer of %d bytes", r.size)
	}
	if !r.keep {
		return nil
	}
	p := r.got
	r.got = r.got[:0]
	if r.packed {
		z := flate.NewReaderDict(io.MultiReader(bytes.NewReader(p), bytes.NewReader([]byte("\x00\x00\xff\xff\x01\x00\x00\xff\xff"))), r.window)
		var err error
		if p, err = io.ReadAll(z); err != nil {
			return fmt.Errorf("an answer cannot be inflated: %w", err)
		}
		if g.cell.Deflate == "takeover" {
			r.window = append(r.window, p...)
			r.window = bytes.Clone(r.window[max(0, len(r.window)-window):])
		}
	}
	batch := l.batch - 1
	if g.cell.Kind == "broadcast" {
		batch = 0 // the same for all
	}
	if want := g.script.says(batch); !bytes.Equal(p, want) {
		return fmt.Errorf("an answer differs from what was sent: %d bytes, %.40q", len(p), p)
	}
	return nil
}

// verify has every connection say all of its script once, and compares the
// answers, but for a floor's: it does not unmask.
func (g *load) verify() error {
	if g.cell.Kind == "client" && !g.floor {
		g.keys = map[uint32]bool{}
	}
	for _, l := range g.links {
		l.reader.keep = !g.floor
	}
	times := len(g.script.first) + min(len(g.script.cycle), 8)
	if g.keys != nil {
		times = 4
	}
	err := g.rounds(times)
	for _, l := range g.links {
		l.reader.keep, l.reader.window = false, nil
	}
	return err
}

// rounds sends a number of batches on every connection, or by the publisher.
func (g *load) rounds(times int) error {
	if g.cell.Kind == "broadcast" {
		for range times {
			if _, err := g.publish(); err != nil {
				return err
			}
		}
		return nil
	}
	left := len(g.links)
	for i := range g.links {
		if err := g.send(i); err != nil {
			return err
		}
	}
	begun := make([]int, len(g.links))
	return g.each(func(i, n int) (bool, error) {
		l := g.links[i]
		if l.waiting -= n; l.waiting > 0 {
			return true, nil
		}
		if begun[i]++; begun[i] < times {
			return true, g.send(i)
		}
		left--
		return left > 0, nil
	})
}

// publish has the first connection say something, and waits until all have
// heard it.
func (g *load) publish() (messages int, err error) {
	if err := g.send(0); err != nil {
		return 0, err
	}
	want := len(g.links)
	err = g.each(func(i, n int) (bool, error) {
		messages += n
		return messages < want, nil
	})
	if messages > want {
		err = fmt.Errorf("%d messages for %d members", messages, want)
	}
	return messages, err
}

// run drives the server for d and returns how many messages came back.
func (g *load) run(d time.Duration) (messages int, err error) {
	switch g.cell.Kind {
	case "handshake":
		return g.handshakes(d)
	case "broadcast":
		for end := time.Since(start) + d; time.Since(start) < end; {
			n, err := g.publish()
			if err != nil {
				return 0, err
			}
			messages += n
			g.hist.add(time.Since(start) - g.links[0].started)
		}
		return messages, nil
	}
	end := time.Since(start) + d
	left := len(g.links)
	for i := range g.links {
		if err := g.send(i); err != nil {
			return 0, err
		}
	}
	err = g.each(func(i, n int) (bool, error) {
		messages += n
		l := g.links[i]
		if l.waiting -= n; l.waiting > 0 {
			return true, nil
		}
		if l.waiting < 0 {
			return false, errors.New("more answers than questions")
		}
		now := time.Since(start)
		g.hist.add(now - l.started)
		if now < end {
			return true, g.send(i)
		}
		left--
		return left > 0, nil
	})
	return messages, err
}

// handshakes opens connections, a number at a time, and closes each when it is
// open.
func (g *load) handshakes(d time.Duration) (done int, err error) {
	request := []byte(handshake(g.cell.extensions()))
	open := func(i int) error {
		fd, err := connect(g.addr)
		if err != nil {
			return err
		}
		unix.SetNonblock(fd, true)
		g.links[i] = &link{fd: fd, started: time.Since(start)}
		g.watch(unix.EPOLL_CTL_ADD, i, unix.EPOLLIN)
		if n, errno := rawWrite(fd, request); n != len(request) {
			return fmt.Errorf("write: %w", errno)
		}
		return nil
	}
	end := time.Since(start) + d
	g.links = make([]*link, g.cell.Conns)
	for i := range g.links {
		if err := open(i); err != nil {
			return 0, err
		}
	}
	for left := len(g.links); left > 0; {
		n, err := g.poll()
		if err != nil {
			return 0, err
		}
		for _, e := range g.events[:n] {
			i := int(e.Fd)
			l := g.links[i]
			k, errno := rawRead(l.fd, g.buf)
			if k <= 0 {
				return 0, fmt.Errorf("read: %w", errno)
			}
			l.reader.got = append(l.reader.got, g.buf[:k]...)
			if !bytes.HasSuffix(l.reader.got, endOfHeader) {
				continue
			}
			if done == 0 {
				if err := g.cell.checkResponse(string(l.reader.got)); err != nil {
					return 0, err
				}
			}
			now := time.Since(start)
			g.hist.add(now - l.started)
			unix.Close(l.fd)
			done++
			if now < end {
				if err := open(i); err != nil {
					return 0, err
				}
			} else {
				left--
			}
		}
	}
	g.links = nil
	return done, nil
}
