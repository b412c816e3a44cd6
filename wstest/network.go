package wstest

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/seed-07372d5a/websocket/internal/memnet"
)

// network.go owns hosts in memory, which listen and are dialed.

// A Network is a network in memory, on which net/http and websocket.Dial work as
// on any other. The zero value is ready. The fields must not be changed once it
// is used; the methods may be called from any goroutine.
type Network struct {
	// Buffer and Latency are as in Link.
	Buffer  int
	Latency time.Duration
	// Dial, if it is not nil, is asked before each connection to addr, listened
	// to or not: an error is what the dialer gets; while it blocks, nobody seems
	// to be there. It should return when ctx ends.
	Dial func(ctx context.Context, addr string) error
	// Wrap, if it is not nil, puts something around the dialer's end and the
	// listener's end of a new connection, such as Faults or a Recorder.
	Wrap func(client, server net.Conn) (net.Conn, net.Conn)

	mu    sync.Mutex
	hosts map[string]*listener
	ports int // given to dialers so far
}

// backlog is how many connections a listener holds that are not accepted yet.
const backlog = 128

// Listen makes a host at addr, such as "example.com:80", until the listener is
// closed. Names are not resolved: addr is what has to be dialed.
func (n *Network) Listen(addr string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.hosts[addr] != nil {
		return nil, &net.OpError{Op: "listen", Net: "mem", Addr: memnet.Addr(addr), Err: syscall.EADDRINUSE}
	}
	l := &listener{n: n, addr: addr, queue: make(chan net.Conn, backlog), closed: make(chan struct{}), conns: make(map[*memnet.Conn]struct{})}
	if n.hosts == nil {
		n.hosts = make(map[string]*listener)
	}
	n.hosts[addr] = l
	return l, nil
}

// DialContext connects to the host at addr. Without one it fails with
// syscall.ECONNREFUSED. It is what an http.Transport wants; network is ignored.
func (n *Network) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "mem", Addr: memnet.Addr(addr), Err: err}
	}
	if n.Dial != nil {
		if err := n.Dial(ctx, addr); err != nil {
			return fail(err)
		}
	}
	if ctx.Err() != nil {
		return fail(context.Cause(ctx))
	}
	n.mu.Lock()
	l := n.hosts[addr]
	n.ports++
	from := memnet.Addr(fmt.Sprintf("192.0.2.1:%d", n.ports)) // RFC 5737: for documentation
	n.mu.Unlock()
	if l == nil {
		return fail(syscall.ECONNREFUSED)
	}
	a, b := memnet.SlowPipe(cmp.Or(n.Buffer, defaultBuffer), n.Latency)
	a.Local, a.Remote = from, memnet.Addr(addr)
	b.Local, b.Remote = memnet.Addr(addr), from
	client, server := net.Conn(a), net.Conn(b)
	if n.Wrap != nil {
		client, server = n.Wrap(client, server)
	}
	if !l.take(b, server) {
		return fail(syscall.ECONNREFUSED)
	}
	return client, nil
}

// Client returns an http.Client whose network this is. Its https needs a
// TLSClientConfig that trusts the server.
func (n *Network) Client() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: n.DialContext}}
}

// Serve starts an http.Server at addr, and returns how to kill it: stop resets
// all of the host's connections, hijacked ones included, and from then on dialers
// are refused until there is another Serve or Listen. It panics if addr is taken.
// What the http.Server logs is discarded.
func (n *Network) Serve(addr string, h http.Handler) (stop func()) {
	l, err := n.Listen(addr)
	if err != nil {
		panic("wstest: " + err.Error())
	}
	s := &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Serve(l)
	}()
	return func() {
		l.(*listener).reset()
		s.Close()
		<-done
	}
}

// Cut resets every connection to addr, as a router does that has lost its
// tables. The host goes on listening.
func (n *Network) Cut(addr string) {
	n.mu.Lock()
	l := n.hosts[addr]
	n.mu.Unlock()
	if l != nil {
		l.cut()
	}
}

// A listener is a host.
type listener struct {
	n      *Network
	addr   string
	queue  chan net.Conn
	closed chan struct{}
	once   sync.Once

	mu    sync.Mutex
	gone  bool
	conns map[*memnet.Conn]struct{} // the listener's ends
	sweep int                       // how many there may be before those that have ended are let go
}

// take queues a connection, if there is room.
func (l *listener) take(nc *memnet.Conn, wrapped net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone {
		return false
	}
	select {
	case l.queue <- wrapped:
	default:
		return false
	}
	if len(l.conns) >= l.sweep { // those that have ended are of no interest
		for c := range l.conns {
			if c.Closed() {
				delete(l.conns, c)
			}
		}
		l.sweep = 2*len(l.conns) + backlog
	}
	l.conns[nc] = struct{}{}
	return true
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case nc := <-l.queue:
		return nc, nil
	case <-l.closed:
		return nil, &net.OpError{Op: "accept", Net: "mem", Addr: l.Addr(), Err: net.ErrClosed}
	}
}

// Close stops listening. Connections that were not accepted are reset.
func (l *listener) Close() error {
	l.once.Do(func() {
		l.n.mu.Lock()
		if l.n.hosts[l.addr] == l {
			delete(l.n.hosts, l.addr)
		}
		l.n.mu.Unlock()
		l.mu.Lock()
		l.gone = true
		l.mu.Unlock()
		close(l.closed)
		for {
			select {
			case nc := <-l.queue:
				reset(nc)
			default:
				return
			}
		}
	})
	return nil
}

func (l *listener) Addr() net.Addr { return memnet.Addr(l.addr) }

// reset closes the listener, and breaks its connections.
func (l *listener) reset() {
	l.Close()
	l.cut()
}

func (l *listener) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		c.Break()
		delete(l.conns, c)
	}
}
