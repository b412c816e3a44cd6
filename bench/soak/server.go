package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-07372d5a/websocket"
)

// A world is a server, that is shut down and started again, on two listeners.
type world struct {
	plain, tls *httptest.Server
	server     atomic.Pointer[websocket.Server]
	hub        sync.Map     // *websocket.Conn: listeners of the broadcast
	fed        sync.Map     // *websocket.Conn: those that are driven by Feed
	epoch      atomic.Int64 // counts beginnings and ends of shutdowns: odd while there is one
	feeders    sync.WaitGroup
}

func newWorld() *world {
	w := new(world)
	start := func(up func(*httptest.Server)) *httptest.Server {
		hs := httptest.NewUnstartedServer(http.HandlerFunc(w.serve))
		hs.Config.ErrorLog = log.New(io.Discard, "", 0)
		up(hs)
		return hs
	}
	w.plain, w.tls = start((*httptest.Server).Start), start((*httptest.Server).StartTLS)
	return w
}

func (w *world) close() { w.plain.Close(); w.tls.Close() }

// options are those of a connection: ?zip=none, alone or takeover.
func options(zip string) websocket.AcceptOptions {
	var o websocket.AcceptOptions
	o.Config.Compression = compression(zip)
	o.Config.KeepAlive = time.Second
	return o
}

func compression(zip string) *websocket.Compression {
	if zip == "none" {
		return nil
	}
	return &websocket.Compression{Takeover: zip == "takeover", WindowBits: 12, Threshold: 64}
}

func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/feed" {
		w.serveFeed(rw, r)
		return
	}
	w.server.Load().ServeHTTP(rw, r)
}

func newServer(w *world) *websocket.Server {
	s := &websocket.Server{Options: options("takeover")}
	s.Options.Compression = func(r *http.Request) *websocket.Compression { return compression(r.URL.Query().Get("zip")) }
	s.Options.Subprotocols = []string{"read", "next", "reader", "messages", "serve", "hub"}
	s.Handler = func(ctx context.Context, c *websocket.Conn) {
		check := numbers("server")
		var err error
		switch c.Subprotocol() {
		case "hub":
			w.hub.Store(c, true)
			defer w.hub.Delete(c)
			err = c.Serve(ctx, nil)
		case "serve":
			err = c.Serve(ctx, &websocket.Handler{Message: func(c *websocket.Conn, m websocket.Message) { echo(ctx, c, m, check) }})
		case "reader":
			err = echoStreams(ctx, c)
		case "messages":
			for m, e := range c.Messages(ctx) {
				if err = e; err == nil {
					err = write(ctx, c, m, check)
				}
				if err != nil {
					break
				}
			}
		default:
			for err == nil {
				read := c.Next
				if c.Subprotocol() == "read" {
					read = c.Read
				}
				var m websocket.Message
				if m, err = read(ctx); err == nil {
					err = write(ctx, c, m, check)
				}
			}
		}
		if err == nil {
			problems.add("server: %s ended without an error", c.Subprotocol())
		}
	}
	return s
}

// serveFeed drives a connection by hand.
func (w *world) serveFeed(rw http.ResponseWriter, r *http.Request) {
	o := options(r.URL.Query().Get("zip"))
	epoch := w.epoch.Load()
	nc, p, err := websocket.Upgrade(rw, r, &o)
	if err != nil {
		return
	}
	c := websocket.NewConn(nc, p)
	w.feeders.Go(func() {
		w.fed.Store(c, true)
		defer w.fed.Delete(c)
		if w.epoch.Load() != epoch {
			c.Close(websocket.CloseGoingAway, "")
		}
		check, closes := numbers("server"), 0
		h := &websocket.Handler{
			Message: func(c *websocket.Conn, m websocket.Message) { echo(context.Background(), c, m, check) },
			Close:   func(*websocket.Conn, error) { closes++ },
		}
		err := c.Feed(nil, h)
		for p := make([]byte, 8<<10); ; {
			n, e := nc.Read(p)
			if err == nil {
				err = c.Feed(p[:n], h)
			}
			if e != nil {
				break
			}
		}
		if err == nil {
			err = c.Feed(nil, h)
		}
		if err == nil || closes != 1 {
			problems.add("Feed ended with %v and %d calls of Close", err, closes)
		}
	})
}

// numbers returns a check that messages come whole and in order.
func numbers(who string) func([]byte) bool {
	var last, id uint64
	return func(p []byte) bool {
		if id == 0 {
			fmt.Sscan(string(p[:min(len(p), 20)]), &id)
		}
		n, err := open(p, id)
		if err == nil && n != last+1 {
			err = fmt.Errorf("message %d of %d after %d", n, id, last)
		}
		if err != nil {
			problems.add("%s: %v", who, err)
		}
		last = n
		return err == nil
	}
}

// commands are messages that ask for a fault.
func command(c *websocket.Conn, m websocket.Message) bool {
	switch string(m.Data) {
	case "cut":
		c.CloseNow()
	case "panic":
		panic("as the client wishes")
	default:
		return false
	}
	return true
}

func write(ctx context.Context, c *websocket.Conn, m websocket.Message, check func([]byte) bool) error {
	if command(c, m) {
		return nil
	}
	check(m.Data)
	return c.Write(ctx, m)
}

// echo answers from a handler: together, unless the queue is full.
func echo(ctx context.Context, c *websocket.Conn, m websocket.Message, check func([]byte) bool) {
	if command(c, m) {
		return
	}
	check(m.Data)
	if c.Queue(m) == websocket.ErrQueueFull {
		c.Write(ctx, m)
	}
}

// echoStreams answers with streams.
func echoStreams(ctx context.Context, c *websocket.Conn) error {
	for p := make([]byte, 10_000); ; {
		t, r, err := c.Reader(ctx)
		if err != nil {
			return err
		}
		n, err := io.ReadFull(r, p[:5])
		if err == nil || err == io.ErrUnexpectedEOF {
			head := string(p[:n])
			if head == "panic" || head == "cut" {
				command(c, websocket.Text(head))
				continue
			}
		} else if err != io.EOF {
			return err
		}
		w, err := c.Writer(ctx, t)
		if err != nil {
			return err
		}
		if _, err = w.Write(p[:n]); err == nil {
			_, err = io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, p)
		}
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			return err
		}
	}
}

// broadcast sends numbered messages to all who listen, until stop is closed.
func (w *world) broadcast(stop <-chan struct{}) {
	t := time.NewTicker(10 * time.Millisecond)
	defer t.Stop()
	body := make([]byte, 30_000)
	for i := range body {
		body[i] = words[i%40]
	}
	for n := uint64(1); ; n++ {
		m := websocket.Prepare(sealed(websocket.MessageBinary, 1, n, body[:n*997%uint64(len(body))]))
		w.hub.Range(func(k, _ any) bool {
			if c := k.(*websocket.Conn); errors.Is(c.Post(m), websocket.ErrQueueFull) {
				go c.Close(websocket.ClosePolicyViolation, "too slow")
				w.hub.Delete(c)
			}
			return true
		})
		select {
		case <-t.C:
		case <-stop:
			return
		}
	}
}

// patience is for a machine that is busy: what takes longer never comes.
const patience = time.Minute

// restart ends all connections, and begins anew with another server.
func (w *world) restart() {
	w.epoch.Add(1)
	defer w.epoch.Add(1)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	w.fed.Range(func(k, _ any) bool { k.(*websocket.Conn).Close(websocket.CloseGoingAway, ""); return true })
	if err := w.server.Load().Shutdown(ctx); err != nil {
		problems.add("Shutdown: %v", err)
	}
	faults.add("shutdown")
	w.server.Store(newServer(w))
}

// tcp is the socket below nc.
func tcp(nc net.Conn) *net.TCPConn {
	for {
		switch c := nc.(type) {
		case *net.TCPConn:
			return c
		case interface{ NetConn() net.Conn }:
			nc = c.NetConn()
		default:
			panic("no socket: " + strconv.Quote(fmt.Sprintf("%T", nc)))
		}
	}
}
