package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// meter.go owns the counting: what each visitor's connections carry, for each
// kind. All bytes count that TCP is given, of requests, answers and frames.

// A meter counts one kind of one visitor.
type meter struct {
	requests, in, out atomic.Int64
}

// MarshalJSON writes the figures of now.
func (m *meter) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]int64{"requests": m.requests.Load(), "in": m.in.Load(), "out": m.out.Load()})
}

// A visitor is a page, by the name that it has made up for itself.
type visitor struct {
	since int64 // what its meters have counted from, in microseconds since 1970
	seen  time.Time
	kinds map[string]*meter // by path
}

// Limits on what visitors make the meters remember.
const (
	maxVisitors = 1000
	maxName     = 40
)

// meters has the visitors. nil counts nothing.
type meters struct {
	mu       sync.Mutex
	visitors map[string]*visitor
}

// visitor finds somebody. Who has not been seen for longest is forgotten when
// they are too many.
func (m *meters) visitor(r *http.Request) *visitor {
	name := r.URL.Query().Get("page")
	if name == "" || len(name) > maxName {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.visitors == nil {
		m.visitors = make(map[string]*visitor)
	}
	v := m.visitors[name]
	if v == nil {
		if len(m.visitors) >= maxVisitors {
			oldest := ""
			for n, v := range m.visitors {
				if oldest == "" || v.seen.Before(m.visitors[oldest].seen) {
					oldest = n
				}
			}
			delete(m.visitors, oldest)
		}
		v = &visitor{since: time.Now().UnixMicro(), kinds: map[string]*meter{"/poll": {}, "/long": {}, "/events": {}, "/ws": {}}}
		m.visitors[name] = v
	}
	v.seen = time.Now()
	return v
}

// stats tells a visitor what it has cost, and what time it is here.
func (m *meters) stats(w http.ResponseWriter, r *http.Request) {
	now := time.Now().UnixMicro()
	if m == nil {
		http.NotFound(w, r)
		return
	}
	v := m.visitor(r)
	if v == nil {
		http.Error(w, "which page?", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	json.NewEncoder(w).Encode(map[string]any{"now": now, "since": v.since, "kinds": v.kinds})
}

// A counted connection knows on whose account its bytes go. What is read belongs
// to the request that it turns out to be, or after an upgrade to that one; what
// is written, to the last request.
type counted struct {
	net.Conn
	account  atomic.Pointer[meter]
	unread   atomic.Int64 // bytes read that are on no account yet
	upgraded atomic.Bool
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if m := c.account.Load(); m != nil && c.upgraded.Load() {
		m.in.Add(int64(n))
	} else {
		c.unread.Add(int64(n))
	}
	return n, err
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if m := c.account.Load(); m != nil {
		m.out.Add(int64(n))
	}
	return n, err
}

// charge opens the account of a request; nil is nobody's.
func (c *counted) charge(m *meter) {
	n := c.unread.Swap(0)
	if m != nil {
		m.requests.Add(1)
		m.in.Add(n)
	}
	c.account.Store(m)
}

type countedListener struct{ net.Listener }

func (l countedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &counted{Conn: c}, nil
}

// listener has connections that count.
func (m *meters) listener(l net.Listener) net.Listener {
	if m == nil {
		return l
	}
	return countedListener{l}
}

type connKey struct{}

// install lets a server, which has to have m's listener, count.
func (m *meters) install(s *http.Server) {
	if m == nil {
		return
	}
	s.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, c)
	}
	s.ConnState = func(c net.Conn, state http.ConnState) {
		if c, ok := c.(*counted); ok && state == http.StateHijacked {
			c.upgraded.Store(true)
		}
	}
	next := s.Handler
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(connKey{}).(*counted); ok {
			var account *meter
			if v := m.visitor(r); v != nil {
				account = v.kinds[r.URL.Path]
			}
			c.charge(account)
		}
		next.ServeHTTP(w, r)
	})
}
