package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-07372d5a/websocket"
)

// run has clients come and go for d, shuts the server down in the middle and at
// the end, and returns when all is over.
func (w *world) run(d time.Duration, phase uint64) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg, hub sync.WaitGroup
	stop := make(chan struct{})
	hub.Go(func() { w.broadcast(stop) })
	w.server.Store(newServer(w))
	for i := range *clients {
		r := rand.New(rand.NewPCG(*seed, phase<<32|uint64(i)))
		wg.Go(func() {
			for ctx.Err() == nil {
				w.live(ctx, r)
			}
		})
	}
	time.Sleep(d / 2)
	w.restart()
	time.Sleep(d / 2)
	cancel()
	close(stop)
	hub.Wait()
	w.restart()
	wg.Wait()
	w.feeders.Wait()
}

var ids atomic.Uint64

func pick(r *rand.Rand, s string) string {
	f := strings.Fields(s)
	return f[r.IntN(len(f))]
}

// A life is one connection of a client.
type life struct {
	*websocket.Conn
	w     *world
	r     *rand.Rand
	id    uint64
	fault string // "none" and those that cost nothing come first in live
	epoch int64
	stall atomic.Bool
	came  atomic.Uint64
	end   chan error
}

// live makes a connection of some kind, uses it, and ends it in some way.
func (w *world) live(ctx context.Context, r *rand.Rand) {
	l := &life{w: w, r: r, id: ids.Add(1) + 1, epoch: w.epoch.Load(), end: make(chan error, 1)}
	kind := pick(r, "read next reader messages serve feed hub")
	zip := pick(r, "none none alone takeover")
	l.fault = pick(r, "none none none none none short stall contexts pings reset half-close cut server-cut panic write-context garbage")
	server := w.plain
	if r.IntN(3) == 0 {
		server = w.tls
	}
	if l.fault == "garbage" {
		garbage(w.plain.Listener.Addr().String(), r)
		return
	}
	o := &websocket.DialOptions{Client: client(r, l.fault == "short")}
	defer o.Client.CloseIdleConnections()
	o.Config.Compression = compression(zip)
	o.Config.CloseTimeout = patience
	path := "/?zip=" + zip
	if kind == "feed" {
		path = "/feed?zip=" + zip
		if l.fault == "panic" {
			l.fault = "none"
		}
	} else {
		o.Subprotocols = []string{kind}
	}
	dialing, done := context.WithTimeout(ctx, patience)
	defer done()
	c, err := websocket.Dial(dialing, server.URL+path, o)
	var refused *websocket.HandshakeError
	switch {
	case ctx.Err() != nil:
		if err == nil {
			c.CloseNow()
		}
		return
	case errors.As(err, &refused) && refused.Status == http.StatusServiceUnavailable && l.restarted():
		time.Sleep(10 * time.Millisecond)
		return
	case err != nil:
		problems.add("Dial: %v", err)
		return
	}
	defer c.CloseNow()
	lives.Add(1)
	faults.add(l.fault)
	l.Conn = c
	if kind == "hub" {
		l.listen(ctx)
		return
	}
	if l.fault == "contexts" { // Serve would close, and a stream ends with its context
		go l.read(pick(r, "read next messages"))
	} else {
		go l.read(pick(r, "read next reader messages serve"))
	}
	l.converse(ctx)
}

// excused tells whether the connection may end with err.
func (l *life) excused(err error) bool {
	var bye *websocket.CloseError
	switch l.fault {
	case "reset", "half-close", "cut", "server-cut", "panic", "write-context":
		return true
	}
	return errors.As(err, &bye) && bye.Code == websocket.CloseGoingAway && l.restarted() ||
		errors.Is(err, io.ErrUnexpectedEOF) && l.restarted() || // a close frame may come too late
		errors.Is(err, net.ErrClosed) && websocket.CodeOf(err) == websocket.CloseNormalClosure
}

// restarted tells whether the server was, in this life.
func (l *life) restarted() bool { return l.epoch%2 == 1 || l.w.epoch.Load() != l.epoch }

// converse sends messages, sees all of them come back, and closes.
func (l *life) converse(ctx context.Context) {
	n := uint64(1 + l.r.IntN(150))
	fault := n/2 + 1
	way := pick(l.r, "write queue post writer mixed")
	pinging, stopPings := context.WithCancel(context.Background())
	var pings sync.WaitGroup
	if l.fault == "pings" {
		pings.Go(func() { l.ping(pinging) })
	}
	defer pings.Wait()
	defer stopPings()
	var err error
	i := uint64(0)
	for i < n && err == nil && ctx.Err() == nil {
		if i++; i == fault && l.strike() {
			break
		}
		m := message(l.r, l.id, i)
		bytes.Add(int64(len(m.Data)))
		sent.Add(1)
		if err = l.send(m, way); err == nil && l.r.IntN(4) == 0 {
			time.Sleep(time.Duration(l.r.IntN(8)) * time.Millisecond)
		}
	}
	if err == nil {
		err = l.Flush(context.Background())
	}
	if err == nil && !l.excused(nil) { // nothing is lost
		for end := time.Now().Add(patience); l.came.Load() < i && l.Context().Err() == nil; {
			if time.Now().After(end) {
				problems.add("client, %s: %d of %d messages came back", l.fault, l.came.Load(), i)
				break
			}
			time.Sleep(2 * time.Millisecond)
		}
		stopPings()
		pings.Wait()
		err = l.Close(websocket.CloseNormalClosure, "")
		if err != nil && !l.restarted() {
			problems.add("client, %s: Close: %v", l.fault, err)
		}
	} else if l.fault == "write-context" {
		l.Close(websocket.CloseNormalClosure, "")
	}
	select {
	case err = <-l.end:
	case <-time.After(patience):
		problems.add("client, %s: does not end", l.fault)
		return
	}
	if !l.excused(err) {
		problems.add("client, %s: ended with %v", l.fault, err)
	}
	if came := l.came.Load(); came < i {
		unsure.Add(int64(i - came))
		if l.excused(nil) || l.restarted() {
			return
		}
		problems.add("client, %s: %d of %d messages came back, and then %v", l.fault, came, i, err)
	}
}

// send sends m in some way.
func (l *life) send(m websocket.Message, way string) (err error) {
	ctx := context.Background()
	if l.fault == "write-context" {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(l.r.IntN(3000))*time.Microsecond)
		defer cancel()
	}
	if way == "mixed" {
		way = pick(l.r, "write queue post writer")
	}
	switch way {
	case "queue":
		if err = l.Queue(m); err == nil && l.r.IntN(5) == 0 {
			err = l.Flush(ctx)
		}
	case "post":
		err = l.Post(m)
	case "writer":
		var w io.WriteCloser
		if w, err = l.Writer(ctx, m.Type); err != nil {
			return err
		}
		for p := m.Data; len(p) > 0 && err == nil; {
			k := 1 + l.r.IntN(len(p))
			_, err = w.Write(p[:k])
			p = p[k:]
		}
		if err == nil {
			err = w.Close()
		}
		return err
	default:
		return l.Write(ctx, m)
	}
	if err == websocket.ErrQueueFull {
		err = l.Write(ctx, m)
	}
	return err
}

// strike lets the fault happen, and tells whether it ends the sending.
func (l *life) strike() bool {
	switch l.fault {
	case "reset":
		t := tcp(l.NetConn())
		t.SetLinger(0)
		t.Close()
	case "half-close":
		tcp(l.NetConn()).CloseWrite()
	case "cut":
		l.CloseNow()
	case "server-cut":
		l.Write(context.Background(), websocket.Text("cut"))
	case "panic":
		l.Write(context.Background(), websocket.Text("panic"))
	case "stall":
		l.stall.Store(true)
		return false
	default:
		return false
	}
	return true
}

func (l *life) ping(ctx context.Context) {
	for ctx.Err() == nil {
		err := l.Ping(context.Background()) // a context that ends in mid-write would end the connection
		if err != nil && ctx.Err() == nil {
			if !l.excused(err) {
				problems.add("Ping: %v", err)
			}
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// read checks what comes back.
func (l *life) read(way string) {
	check := numbers("client, " + l.fault)
	got := func(p []byte) {
		if check(p) {
			echoed.Add(1)
			l.came.Add(1)
		}
		if l.stall.CompareAndSwap(true, false) {
			time.Sleep(300 * time.Millisecond)
		}
	}
	var err error
	for err == nil {
		ctx, cancel := context.Background(), context.CancelFunc(func() {})
		if l.fault == "contexts" { // the next call goes on where this one stopped
			ctx, cancel = context.WithTimeout(ctx, time.Millisecond)
		}
		var m websocket.Message
		switch way {
		case "read":
			if m, err = l.Read(ctx); err == nil {
				got(m.Data)
			}
		case "next":
			if m, err = l.Next(ctx); err == nil {
				got(m.Data)
			}
		case "messages":
			for m, err = range l.Messages(ctx) {
				if err == nil {
					got(m.Data)
				}
			}
		case "reader":
			err = l.readStream(ctx, got)
		case "serve":
			err = l.Serve(ctx, &websocket.Handler{Message: func(_ *websocket.Conn, m websocket.Message) { got(m.Data) }})
		}
		if ctx.Err() != nil && err == context.DeadlineExceeded {
			err = nil
		}
		cancel()
	}
	l.end <- err
}

func (l *life) readStream(ctx context.Context, got func([]byte)) error {
	_, r, err := l.Reader(ctx)
	if err != nil {
		return err
	}
	p, err := io.ReadAll(r)
	if err == nil {
		got(p)
	}
	return err
}

// listen hears broadcasts. A slow listener is told to go.
func (l *life) listen(ctx context.Context) {
	slow := l.r.IntN(4) == 0
	end := time.Now().Add(time.Duration(l.r.IntN(4000)) * time.Millisecond)
	for last := uint64(0); ctx.Err() == nil && time.Now().Before(end); {
		m, err := l.Next(context.Background())
		var bye *websocket.CloseError
		switch {
		case errors.As(err, &bye) && bye.Code == websocket.ClosePolicyViolation && slow:
			faults.add("too slow")
			return
		case err != nil && !l.restarted():
			problems.add("listener: %v", err)
			return
		case err != nil:
			return
		}
		n, err := open(m.Data, 1)
		if err == nil && last > 0 && n != last+1 {
			err = fmt.Errorf("broadcast %d after %d", n, last)
		}
		if err != nil {
			problems.add("listener: %v", err)
		}
		last = n
		heard.Add(1)
		if slow {
			time.Sleep(time.Duration(l.r.IntN(100)) * time.Millisecond)
		}
	}
	l.Close(websocket.CloseNormalClosure, "")
}

// garbage is a peer that does not keep the rules.
func garbage(addr string, r *rand.Rand) {
	faults.add("garbage")
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		problems.add("garbage: %v", err)
		return
	}
	defer nc.Close()
	io.WriteString(nc, "GET /feed HTTP/1.1\r\nHost: soak\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	nc.SetDeadline(time.Now().Add(patience))
	if resp, err := http.ReadResponse(bufio.NewReader(nc), nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		return
	}
	p := make([]byte, 100+r.IntN(2000))
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	p[0] = 0x70 // reserved bits
	nc.Write(p)
	if _, err := io.Copy(io.Discard, nc); err != nil && errors.Is(err, net.ErrClosed) {
		problems.add("garbage: %v", err)
	}
}

// client is an http.Client with a connection of its own, and a transport that
// writes and reads in small parts if that is asked for.
func client(r *rand.Rand, short bool) *http.Client {
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	if short {
		size := 1 + r.IntN(2000)
		tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			nc, err := new(net.Dialer).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &shortConn{nc, size}, nil
		}
	}
	return &http.Client{Transport: tr}
}

// A shortConn moves at most size bytes at a time.
type shortConn struct {
	net.Conn
	size int
}

func (c *shortConn) NetConn() net.Conn { return c.Conn }

func (c *shortConn) Read(p []byte) (int, error) { return c.Conn.Read(p[:min(len(p), c.size)]) }

func (c *shortConn) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var k int
		k, err = c.Conn.Write(p[n:min(len(p), n+c.size)])
		n += k
	}
	return n, err
}
