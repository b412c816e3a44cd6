package main

import (
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// proxy.go owns what goes wrong between clients and servers.

// A proxy passes TCP connections on to a server, each with a fault of its own.
type proxy struct {
	l    net.Listener
	to   string
	calm *atomic.Bool // nothing goes wrong any more, with new connections
	done sync.WaitGroup

	mu   sync.Mutex
	open map[net.Conn]bool // nil: closed
}

// Kinds of faults, which come after some bytes.
const (
	reset    = iota // both ends get an RST
	finish          // both ends get a FIN, with what was sent before
	silence         // half open: nothing is passed any more, and nobody is told
	deafness        // one direction is
	kinds
)

var kindNames = [kinds]string{"resets", "ends", "silences", "one-way silences"}

// How often each has happened.
var faults [kinds]atomic.Int64

const (
	mostDelay = 30 * time.Millisecond
	forgotten = 12 * time.Second // after which a silent connection is closed: later than anybody waits for it
)

func newProxy(to string, calm *atomic.Bool) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{l: l, to: to, calm: calm, open: make(map[net.Conn]bool)}
	p.done.Go(p.accept)
	return p, nil
}

func (p *proxy) url() string { return "ws://" + p.l.Addr().String() }

func (p *proxy) accept() {
	for {
		a, err := p.l.Accept()
		if err != nil {
			return
		}
		p.done.Go(func() { p.pass(a) })
	}
}

// keep notes a connection that close closes; false if that has been called.
func (p *proxy) keep(c net.Conn, yes bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open == nil {
		return false
	}
	if yes {
		p.open[c] = true
	} else {
		delete(p.open, c)
	}
	return true
}

func (p *proxy) close() {
	p.l.Close()
	p.mu.Lock()
	for c := range p.open {
		c.Close()
	}
	p.open = nil
	p.mu.Unlock()
	p.done.Wait()
}

// A plan is what happens to one connection.
type plan struct {
	left  atomic.Int64 // bytes before the fault
	kind  int
	which int // direction that goes deaf
	slow  bool
	once  sync.Once
}

func (p *proxy) pass(a net.Conn) {
	defer a.Close()
	b, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer b.Close()
	if !p.keep(a, true) || !p.keep(b, true) {
		return
	}
	defer p.keep(a, false)
	defer p.keep(b, false)
	f := &plan{kind: rand.IntN(kinds), which: rand.IntN(2), slow: rand.IntN(3) == 0}
	f.left.Store(rand.Int64N(*mostBytes))
	if p.calm.Load() {
		f.left.Store(1 << 60)
		f.slow = false
	}
	var both sync.WaitGroup
	both.Go(func() { f.copy(0, b, a) })
	both.Go(func() { f.copy(1, a, b) })
	both.Wait()
}

// copy passes one direction on, until the fault.
func (f *plan) copy(direction int, to, from net.Conn) {
	buf := make([]byte, 4096)
	for mute := false; ; {
		n, err := from.Read(buf)
		if f.slow && n > 0 {
			time.Sleep(rand.N(mostDelay))
		}
		was := f.left.Add(-int64(n)) + int64(n)
		if n > 0 && int64(n) > was && !mute { // the byte at which it happens is in here
			to.Write(buf[:max(was, 0)])
			f.once.Do(func() { faults[f.kind].Add(1) })
			switch {
			case f.kind == reset:
				for _, c := range []net.Conn{to, from} {
					c.(*net.TCPConn).SetLinger(0)
					c.Close()
				}
				return
			case f.kind == finish:
				to.Close()
				from.Close()
				return
			case f.kind == silence || direction == f.which:
				mute = true
				time.AfterFunc(forgotten, func() { to.Close(); from.Close() })
			default:
				to.Write(buf[max(was, 0):n]) // it is the other that is deaf
			}
			n = 0
		}
		if n > 0 && !mute {
			if _, e := to.Write(buf[:n]); e != nil {
				err = e
			}
		}
		if err != nil {
			to.Close()
			from.Close()
			return
		}
	}
}
