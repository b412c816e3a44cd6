//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/centrifugal/centrifuge"
	"github.com/olahol/melody"
	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/engine"
	"github.com/seed-07372d5a/websocket/hub"
)

// contenders.go owns who takes part. None pings: members are quiet for the time
// of the others' turns. With a tight job none gives up a member that does not
// read, as far as that can be said.

var contenders = []contender{
	{name: "floor", serve: floor},
	{name: "floor-raw", serve: floorRaw},
	{name: "hub", serve: hubServe, answer: hubAnswer},
	{name: "hub-engine", serve: hubEngine, answer: hubAnswer},
	{name: "melody", serve: melodyServe},
	{name: "centrifuge", serve: centrifugeServe, hello: `{"id":1,"connect":{}}`},
}

const never = time.Hour

// The floors write a frame that is ready to one connection after the other: by
// net.Conn, or by the system call alone.

type floorRoom struct {
	mu    sync.Mutex
	conns []net.Conn
	fds   []int
	frame []byte
}

func (r *floorRoom) accept(l net.Listener) {
	for {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		nc.Read(make([]byte, 1024)) // a driver's request comes at once
		r.mu.Lock()
		r.conns = append(r.conns, nc)
		rc, _ := nc.(*net.TCPConn).SyscallConn()
		rc.Control(func(fd uintptr) { r.fds = append(r.fds, int(fd)) })
		r.mu.Unlock()
		nc.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
			"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\x81\x02in"))
	}
}

func floor(l net.Listener, _ job) (func([]byte), error) {
	var r floorRoom
	go r.accept(l)
	return func(p []byte) {
		frame := r.encode(p)
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, nc := range r.conns {
			nc.Write(frame)
		}
	}, nil
}

func floorRaw(l net.Listener, _ job) (func([]byte), error) {
	var r floorRoom
	go r.accept(l)
	return func(p []byte) {
		frame := r.encode(p)
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, fd := range r.fds {
			syscall.Write(fd, frame)
		}
	}, nil
}

func (r *floorRoom) encode(p []byte) []byte {
	h := websocket.Header{Fin: true, Opcode: websocket.OpText, Len: int64(len(p))}
	r.frame = append(websocket.AppendHeader(r.frame[:0], h), p...)
	return r.frame
}

// A hubServer is the hub with its members.
type hubServer struct {
	hub.Hub
	mu      sync.Mutex
	members []*hub.Member
}

var (
	theHub hubServer
	bg     = context.Background()
	news   = hub.Room{Namespace: "bench", Name: "news"}
	in     = websocket.Text("in")
)

// setUp returns how to make a member of a connection.
func (h *hubServer) setUp(j job) (cfg websocket.Config, add func(*websocket.Conn), send func([]byte)) {
	h.Authorize = func(context.Context, *hub.Member, hub.Room) error { return nil }
	h.Options = func(r hub.Room) hub.Options {
		o := hub.Options{Presence: r.Namespace == "presence"}
		if j.Tight {
			o.Policy = hub.DropNewest
		}
		return o
	}
	cfg.KeepAlive = -1
	if j.Tight {
		cfg.QueueLimit, cfg.WriteTimeout = tight, never
	}
	add = func(c *websocket.Conn) {
		h.mu.Lock()
		user := fmt.Sprint("user", len(h.members))
		h.members = append(h.members, nil)
		i := len(h.members) - 1
		h.mu.Unlock()
		m, err := h.Add(c, user)
		if err != nil || m.Join(bg, news) != nil {
			c.CloseNow()
			return
		}
		h.mu.Lock()
		h.members[i] = m
		h.mu.Unlock()
		m.Send(in)
	}
	return cfg, add, func(p []byte) { h.Send(news, websocket.Message{Type: websocket.MessageText, Data: p}) }
}

func hubServe(l net.Listener, j job) (func([]byte), error) {
	cfg, add, send := theHub.setUp(j)
	s := &websocket.Server{Options: websocket.AcceptOptions{Config: cfg}, Handler: func(ctx context.Context, c *websocket.Conn) {
		add(c)
		c.Serve(ctx, nil)
	}}
	go http.Serve(l, s)
	return send, nil
}

func hubEngine(l net.Listener, j job) (func([]byte), error) {
	cfg, add, send := theHub.setUp(j)
	e := &engine.Engine{Options: websocket.AcceptOptions{Config: cfg}, Handler: websocket.Handler{Open: add}}
	go http.Serve(l, e)
	return send, nil
}

// hubAnswer measures what the members of a hub do beside listening.
func hubAnswer(what string) string {
	h := &theHub
	h.mu.Lock()
	members := h.members
	h.mu.Unlock()
	switch what {
	case "dropped":
		return fmt.Sprint(h.Stats().DroppedNewest)
	case "churn":
		return fmt.Sprintf("leave and join, of a room of %d, per CPU second: %.0f", len(members),
			rate(members, func(m *hub.Member) { m.Leave(news); m.Join(bg, news) }))
	case "rooms":
		own := hub.Room{Namespace: "bench", Name: "own"}
		return fmt.Sprintf("join and leave, of a room that comes into being and ends, per CPU second: %.0f",
			rate(members, func(m *hub.Member) { m.Join(bg, own); m.Leave(own) }))
	case "weigh":
		return fmt.Sprintf("bytes of a membership: %.0f", weigh(members, "bench"))
	case "presence":
		return fmt.Sprintf("bytes of a membership with presence: %.0f", weigh(members, "presence"))
	}
	return "unknown"
}

// rate is how many members a second of CPU is enough for.
func rate(members []*hub.Member, f func(*hub.Member)) float64 {
	n, before := 0, cpuTime()
	for begun := time.Now(); time.Since(begun) < 500*time.Millisecond; {
		for _, m := range members {
			f(m)
		}
		n += len(members)
	}
	return float64(n) / (cpuTime() - before)
}

// weigh has all members join ten rooms, or more if they are few, and leave them.
func weigh(members []*hub.Member, namespace string) float64 {
	rooms := make([]hub.Room, min(max(10, 10_000/len(members)), 90)) // a member may be in 100
	for i := range rooms {
		rooms[i] = hub.Room{Namespace: namespace, Name: fmt.Sprint("room", i)}
	}
	before := heap()
	for _, r := range rooms {
		for _, m := range members {
			m.Join(bg, r)
		}
	}
	after := heap()
	for _, r := range rooms {
		for _, m := range members {
			m.Leave(r)
		}
	}
	return float64(after-before) / float64(len(rooms)*len(members))
}

func heap() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

func melodyServe(l net.Listener, j job) (func([]byte), error) {
	m := melody.New()
	m.Config.PingPeriod, m.Config.PongWait = never, 2*never
	if j.Tight {
		m.Config.MessageBufferSize, m.Config.WriteWait = tight/j.Size, never
	}
	m.HandleConnect(func(s *melody.Session) { s.Write(in.Data) })
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { m.HandleRequest(w, r) }))
	return func(p []byte) { m.Broadcast(p) }, nil
}

func centrifugeServe(l net.Listener, j job) (func([]byte), error) {
	node, err := centrifuge.New(centrifuge.Config{LogLevel: centrifuge.LogLevelNone})
	if err != nil {
		return nil, err
	}
	node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		return centrifuge.ConnectReply{
			Credentials:   &centrifuge.Credentials{UserID: "user"},
			Subscriptions: map[string]centrifuge.SubscribeOptions{"news": {}},
		}, nil
	})
	if err := node.Run(); err != nil {
		return nil, err
	}
	cfg := centrifuge.WebsocketConfig{UseWriteBufferPool: true}
	cfg.PingInterval, cfg.PongTimeout = -1, -1
	if j.Tight {
		cfg.WriteTimeout = never
	}
	go http.Serve(l, centrifuge.NewWebsocketHandler(node, cfg))
	return func(p []byte) { node.Publish("news", p) }, nil
}
