package main

import (
	"errors"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"
)

// A fault is what a proxy does to a connection that has lived for a while.
type fault string

// The faults that can be chosen. None of them is announced to either side.
const (
	calm     fault = "calm"     // none
	cut      fault = "cut"      // both sides are reset, at any byte
	halfOpen fault = "halfopen" // the shop's side is reset, the server's stays open and silent
	stall    fault = "stall"    // nothing passes for a while, then both sides are reset
	mixed    fault = "mixed"    // one of the three
)

var faults = []fault{calm, cut, halfOpen, stall, mixed}

// next is what happens to the next connection.
func (f fault) next() fault {
	if f == mixed {
		return []fault{cut, halfOpen, stall}[rand.IntN(3)]
	}
	return f
}

const (
	mostBytes = 64 << 10         // that pass before a fault, both ways together
	halfTime  = 30 * time.Second // how long the silent half stays open, if the server does not find out
)

// A proxy passes what comes to another address, and harms connections.
type proxy struct {
	to        string
	life      time.Duration // of a connection, on average
	stallTime time.Duration

	mu     sync.Mutex
	fault  fault
	live   map[*link]bool
	made   int
	harmed int
	closed bool
	wg     sync.WaitGroup
}

// A link is one connection through the proxy.
type link struct {
	*proxy
	shop, server net.Conn
	left         int  // bytes until the fault
	holding      bool // stalled or half-open: what comes is not passed on
	once         sync.Once
	timer        *time.Timer
}

// serve accepts connections until l is closed.
func (p *proxy) serve(l net.Listener) error {
	defer p.close()
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		p.wg.Go(func() { p.pass(c) })
	}
}

// pass is the life of one connection.
func (p *proxy) pass(shop net.Conn) {
	server, err := net.DialTimeout("tcp", p.to, 5*time.Second)
	if err != nil {
		shop.Close()
		return
	}
	l := &link{proxy: p, shop: shop, server: server, left: rand.IntN(mostBytes)}
	if !p.add(l) {
		shop.Close()
		server.Close()
		return
	}
	var both sync.WaitGroup
	both.Go(func() { l.copy(server, shop) })
	both.Go(func() { l.copy(shop, server) })
	both.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	l.timer.Stop()
	delete(p.live, l)
}

func (p *proxy) add(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	if p.live == nil {
		p.live = make(map[*link]bool)
	}
	p.live[l] = true
	p.made++
	l.timer = time.AfterFunc(p.random(), func() { l.harm(p.mode().next()) })
	return true
}

// random is how long a connection is left alone.
func (p *proxy) random() time.Duration { return time.Duration(rand.ExpFloat64() * float64(p.life)) }

func (p *proxy) mode() fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fault
}

// set chooses what happens from now on, to the connections that there are too.
func (p *proxy) set(f fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
	for l := range p.live {
		if !l.holding {
			l.timer.Reset(p.random())
		}
	}
}

// now harms all connections that there are.
func (p *proxy) now() {
	for _, l := range p.links() {
		f := p.mode().next()
		if f == calm {
			f = cut
		}
		l.harm(f)
	}
}

func (p *proxy) links() []*link {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.live))
}

// A traffic is what is seen of a proxy.
type traffic struct {
	Fault       fault `json:"fault"`
	Live        int   `json:"live"`        // connections now
	Connections int   `json:"connections"` // ever
	Harmed      int   `json:"harmed"`
}

func (p *proxy) traffic() traffic {
	p.mu.Lock()
	defer p.mu.Unlock()
	return traffic{p.fault, len(p.live), p.made, p.harmed}
}

// close ends all connections, and returns when they have ended.
func (p *proxy) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	for _, l := range p.links() {
		l.end()
	}
	p.wg.Wait()
}

// copy passes bytes until one side ends or the fault comes, which may be in the
// middle of a frame, or of a header.
func (l *link) copy(to, from net.Conn) {
	b := make([]byte, 4<<10)
	for {
		n, err := from.Read(b)
		pass, due := l.take(n)
		if pass > 0 {
			if _, e := to.Write(b[:pass]); e != nil {
				err = e
			}
		}
		if due {
			l.harm(l.mode().next())
		}
		if err != nil {
			if from == l.server || !l.held() {
				l.end()
			}
			return
		}
	}
}

// take says how many of n bytes may pass, and whether the fault is due.
func (l *link) take(n int) (pass int, due bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.holding:
		return 0, false
	case l.fault == calm:
		return n, false
	case n > l.left:
		n, l.left = l.left, 0
		return n, true
	}
	l.left -= n
	return n, false
}

func (l *link) held() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.holding
}

// harm does f to the connection, once.
func (l *link) harm(f fault) {
	if f == calm {
		return
	}
	l.once.Do(func() {
		l.mu.Lock()
		l.harmed++
		l.holding = f != cut
		l.mu.Unlock()
		switch f {
		case cut:
			l.end()
		case halfOpen:
			reset(l.shop)
			l.after(halfTime)
		case stall:
			l.after(l.stallTime)
		}
	})
}

// after ends the connection later.
func (l *link) after(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timer.Stop()
	l.timer = time.AfterFunc(d, l.end)
	if l.closed {
		go l.end()
	}
}

func (l *link) end() {
	reset(l.shop)
	reset(l.server)
}

// reset closes c as a host does that knows nothing of the connection.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		t.SetLinger(0)
	}
	c.Close()
}
