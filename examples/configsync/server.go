package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/session"
)

// server.go owns the servers that gateways connect to.

// A server pushes the configuration to the gateways that are connected to it. It
// can be killed, and started again without any memory.
type server struct {
	name  string
	store *store

	switching sync.Mutex // one start or kill at a time

	mu       sync.Mutex
	addr     string       // of its listener, always the same
	l        net.Listener // nil: it is dead
	web      *http.Server
	ws       *websocket.Server
	sessions *session.Server
	peers    map[*session.Session]*peer
	done     sync.WaitGroup
}

// A peer is a gateway, as a server knows it.
type peer struct {
	version uint64 // that it has, or that was sent to it
}

// A greeting is what a gateway says on every connection: nothing else has to be
// known of it.
type greeting struct {
	Gateway string `json:"gateway"`
	Version uint64 `json:"version"`
}

// start listens, if the server is dead.
func (s *server) start() error {
	s.switching.Lock()
	defer s.switching.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.l != nil {
		return nil
	}
	l, err := net.Listen("tcp", s.addr)
	if err != nil {
		return err
	}
	s.l, s.addr = l, l.Addr().String() // the port that was found, the next time too
	sessions := &session.Server{Config: session.Config{Message: s.message}, Close: s.gone, Expire: 30 * time.Second}
	s.sessions, s.peers = sessions, make(map[*session.Session]*peer)
	s.ws = &websocket.Server{
		Options: websocket.AcceptOptions{Config: websocket.Config{CloseTimeout: time.Second}},
		Handler: func(ctx context.Context, c *websocket.Conn) { sessions.Serve(ctx, c) },
	}
	mux := http.NewServeMux()
	mux.Handle("/config", s.ws)
	s.web = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}
	s.done.Go(func() { s.web.Serve(l) })
	return nil
}

// kill ends the server at once, as the end of its process would: its gateways are
// not told, and its sessions are forgotten.
func (s *server) kill() {
	s.switching.Lock()
	defer s.switching.Unlock()
	s.mu.Lock()
	l, web, ws, sessions := s.l, s.web, s.ws, s.sessions
	s.l, s.peers = nil, nil
	s.mu.Unlock()
	if l == nil {
		return
	}
	web.Close()
	cutAll(ws)
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	ws.Shutdown(ctx)
	sessions.Shutdown()
	s.done.Wait()
}

// cut ends all connections, as the network might. The sessions stay.
func (s *server) cut() {
	s.mu.Lock()
	ws, up := s.ws, s.l != nil
	s.mu.Unlock()
	if up {
		cutAll(ws)
	}
}

func cutAll(ws *websocket.Server) {
	for c := range ws.Conns() {
		c.CloseNow()
	}
}

// where is its address, and whether there is somebody.
func (s *server) where() (addr string, alive bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr, s.l != nil
}

// message is a greeting, and always answered: with what the gateway has not got,
// which may be nothing.
func (s *server) message(c *session.Session, name string, data []byte) {
	var g greeting
	if name != "version" || json.Unmarshal(data, &g) != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.peers != nil {
		p := &peer{g.Version}
		s.peers[c] = p
		s.tell(c, p, s.store.since(p.version))
	}
}

func (s *server) gone(c *session.Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.peers, c)
}

// push sends to every gateway that is connected what it has not been sent. One
// that is away will say what it has when it is back.
func (s *server) push() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c, p := range s.peers {
		if !c.Connected() {
			continue
		}
		if d := s.store.since(p.version); d.Version != p.version {
			s.tell(c, p, d)
		}
	}
}

// tell sends a difference. If there is no room for it there is another push.
func (s *server) tell(c *session.Session, p *peer, d difference) {
	if c.Send("changes", encode(d)) == nil {
		p.version = d.Version
	}
}

// count is how many gateways are connected.
func (s *server) count() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.peers {
		if c.Connected() {
			n++
		}
	}
	return n
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // what this program sends can be encoded
	}
	return b
}
