package main

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/session"
)

// office.go owns where the administrator sits: it edits the configuration, kills
// and starts servers, and watches the gateways.

const tick = 100 * time.Millisecond

type office struct {
	store    store
	servers  []*server
	gateways []*gateway
	desks    session.Server // of the pages

	mu    sync.Mutex
	shown map[*session.Session]string
}

// newOffice starts the servers.
func newOffice(addrs []string, count int) (*office, error) {
	o := &office{shown: make(map[*session.Session]string)}
	for _, kv := range seed {
		if err := o.store.set(kv[0], kv[1]); err != nil {
			return nil, err
		}
	}
	for i, addr := range addrs {
		s := &server{name: string(rune('A' + i)), addr: addr, store: &o.store}
		if err := s.start(); err != nil {
			o.end()
			return nil, err
		}
		o.servers = append(o.servers, s)
	}
	for i := range count {
		// Every second gateway begins with the other server.
		var urls []string
		for j := range o.servers {
			urls = append(urls, o.servers[(i+j)%len(o.servers)].url())
		}
		o.gateways = append(o.gateways, newGateway(gatewayName(i), urls))
	}
	o.desks = session.Server{
		Config: session.Config{Methods: map[string]session.Method{
			"set":    o.method(o.set),
			"delete": o.method(func(q order) error { o.store.delete(q.Key); return nil }),
			"kill":   o.method(func(q order) error { return o.on(q.Server, (*server).kill) }),
			"cut":    o.method(func(q order) error { return o.on(q.Server, (*server).cut) }),
			"start":  o.method(o.start),
		}},
		Close: func(s *session.Session) {
			o.mu.Lock()
			defer o.mu.Unlock()
			delete(o.shown, s)
		},
	}
	return o, nil
}

func (s *server) url() string {
	addr, _ := s.where()
	return "ws://" + addr + "/config"
}

// end ends all servers.
func (o *office) end() {
	for _, s := range o.servers {
		s.kill()
	}
	o.desks.Shutdown()
}

// serve is the life of a page's connection.
func (o *office) serve(ctx context.Context, c *websocket.Conn) { o.desks.Serve(ctx, c) }

// An order is what a page asks for.
type order struct {
	Key    string `json:"key"`
	Value  string `json:"value"`
	Server string `json:"server"`
}

// method makes f a method, whose errors the page is told.
func (o *office) method(f func(order) error) session.Method {
	return func(_ context.Context, _ *session.Session, data []byte) ([]byte, error) {
		var q order
		if err := json.Unmarshal(data, &q); err != nil {
			return nil, &session.Error{Code: "nonsense"}
		}
		if err := f(q); err != nil {
			return nil, &session.Error{Code: "refused", Message: err.Error()}
		}
		o.push()
		return nil, nil
	}
}

func (o *office) set(q order) error { return o.store.set(q.Key, strings.ToValidUTF8(q.Value, "")) }

func (o *office) on(name string, f func(*server)) error {
	for _, s := range o.servers {
		if s.name == name {
			f(s)
		}
	}
	return nil
}

func (o *office) start(q order) (err error) {
	o.on(q.Server, func(s *server) { err = s.start() })
	return err
}

// push sends what has changed to the gateways.
func (o *office) push() {
	for _, s := range o.servers {
		s.push()
	}
}

// work goes on until ctx ends.
func (o *office) work(ctx context.Context) {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		o.push() // what there was no room for
		o.show()
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// A state is what the page shows.
type state struct {
	Version  uint64        `json:"version"`
	Keys     []change      `json:"keys"`
	Servers  []serverState `json:"servers"`
	Gateways []view        `json:"gateways"`
}

type serverState struct {
	Name     string `json:"name"`
	Addr     string `json:"addr"`
	Up       bool   `json:"up"`
	Gateways int    `json:"gateways"`
}

func (o *office) state() state {
	all := o.store.since(0)
	slices.SortFunc(all.Changes, func(a, b change) int { return strings.Compare(a.Key, b.Key) })
	r := state{Version: all.Version, Keys: all.Changes, Servers: []serverState{}, Gateways: []view{}}
	byURL := make(map[string]string)
	for _, s := range o.servers {
		byURL[s.url()] = s.name
		addr, up := s.where()
		r.Servers = append(r.Servers, serverState{s.name, addr, up, s.count()})
	}
	for _, g := range o.gateways {
		v := g.view()
		v.Server = byURL[v.URL]
		r.Gateways = append(r.Gateways, v)
	}
	return r
}

// show sends the pages what has changed.
func (o *office) show() {
	now := string(encode(o.state()))
	o.mu.Lock()
	defer o.mu.Unlock()
	for s := range o.desks.Sessions() {
		// A page that is slow or away gets the next picture when it has had the last.
		if n := s.Stats(); !s.Connected() || n.Acknowledged < n.Sent || o.shown[s] == now {
			continue
		}
		if s.Send("state", []byte(now)) == nil {
			o.shown[s] = now
		}
	}
}
