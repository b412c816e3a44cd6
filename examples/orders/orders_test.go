package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/internal/leak"
	"github.com/seed-07372d5a/websocket/reconnect"
	"github.com/seed-07372d5a/websocket/session"
)

func TestMain(m *testing.M) { os.Exit(leak.Run(m)) }

// A place is the program without its pages: a dispatcher, and a proxy before it.
type place struct {
	*dispatcher
	web    *httptest.Server
	direct string // the shops' URL past the proxy
	shops  string // and by it
}

func open(t *testing.T) *place {
	p := &proxy{life: 200 * time.Millisecond, stallTime: 50 * time.Millisecond, fault: calm}
	d := newDispatcher(p)
	shops := &websocket.Server{Options: websocket.AcceptOptions{Config: config}, Handler: d.serveShop}
	desks := &websocket.Server{Options: websocket.AcceptOptions{Config: config}, Handler: d.serveDesk}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	web := httptest.NewUnstartedServer(nil)
	web.Config.Handler = routes(shops, desks, port(web.Listener.Addr()), port(l.Addr()))
	web.Start()
	p.to = web.Listener.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { p.serve(l) })
	wg.Go(func() { d.work(ctx) })
	t.Cleanup(func() {
		cancel()
		l.Close()
		wg.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		require.NoError(t, shops.Shutdown(ctx))
		require.NoError(t, desks.Shutdown(ctx))
		d.end()
		web.Close()
	})
	return &place{d, web, web.URL + "/session/shop", "http://" + l.Addr().String() + "/session/shop"}
}

// A page is what a shop's page is, in Go.
type page struct {
	client *session.Client
	stop   func()

	mu       sync.Mutex
	memory   join
	open     []*order // after the welcome
	received []int    // the orders' numbers
	ids      map[int]int
	moved    bool
	closed   bool
	gaps     []session.Gap
}

// visit opens a shop's page that remembers what another one had.
func visit(t *testing.T, url string, memory join) *page {
	p := &page{memory: memory, ids: make(map[int]int)}
	p.client = &session.Client{
		Reconnect: reconnect.Client{
			URLs: []string{url}, Backoff: reconnect.Exponential{Base: 5 * time.Millisecond, Max: 20 * time.Millisecond}, Good: -1,
		},
		Config: session.Config{Message: p.message, Gap: p.gap, MaxAge: -1},
	}
	p.say("join", p.memory)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { p.client.Run(ctx) })
	p.stop = func() { cancel(); wg.Wait() }
	t.Cleanup(p.stop)
	return p
}

func (p *page) say(name string, v any) {
	if err := p.client.Session().Send(name, encode(v)); err != nil {
		panic(err)
	}
}

func (p *page) gap(_ *session.Session, g session.Gap) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gaps = append(p.gaps, g)
	p.say("join", p.memory)
}

func (p *page) message(_ *session.Session, name string, data []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	switch name {
	case "welcome":
		var w welcome
		json.Unmarshal(data, &w)
		p.memory.Run, p.memory.Last = w.Run, w.Last
	case "open":
		var some []*order
		json.Unmarshal(data, &some)
		p.open = append(p.open, some...)
	case "order":
		var o order
		json.Unmarshal(data, &o)
		p.received = append(p.received, o.Number)
		p.ids[o.ID]++
		p.memory.Last = o.Number
	case "moved":
		p.moved = true
	}
}

func (p *page) remembers() join {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.memory
}

// eventually waits for what other goroutines do.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	require.Eventually(t, f, 30*time.Second, 2*time.Millisecond, what)
}

// now is what the dispatcher's page would show.
func (p *place) now() state {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, v := range p.known {
		v.check()
	}
	return p.state()
}

func upTo(n int) (all []int) {
	for i := 1; i <= n; i++ {
		all = append(all, i)
	}
	return all
}

// Whatever the network does, the count ends at all, once each, in order.
func TestOrdersArriveOnce(t *testing.T) {
	for _, f := range faults[1:] {
		t.Run(string(f), func(t *testing.T) {
			o := open(t)
			v := visit(t, o.shops, join{Shop: "Main Street"})
			eventually(t, "the shop is known", func() bool { return len(o.now().Shops) == 1 })
			o.proxy.set(f)
			for range 4 {
				require.NoError(t, o.send(250))
			}
			eventually(t, "all have arrived, over more than one connection", func() bool {
				s := o.now()
				if s.Arrived == 1000 && s.Reconnects < 2 {
					o.proxy.now()
				}
				return s.Arrived == 1000 && s.Reconnects >= 2
			})
			o.proxy.set(calm)
			v.mu.Lock()
			defer v.mu.Unlock()
			require.Equal(t, upTo(1000), v.received)
			require.Len(t, v.ids, 1000)
			require.Empty(t, v.gaps)
			s := o.now()
			require.Equal(t, 1000, s.Sent)
			require.Positive(t, s.Proxy.Harmed)
			require.Positive(t, s.Mean)
			require.GreaterOrEqual(t, s.P99, s.Mean/2)
		})
	}
}

// A page that is loaded again, in the middle, has another session: its memory
// says where to go on.
func TestPageIsLoadedAgain(t *testing.T) {
	o := open(t)
	o.proxy.set(cut)
	memory := join{Shop: "Main Street"}
	var all []int
	for range 8 {
		require.NoError(t, o.send(100))
		v := visit(t, o.shops, memory)
		had := memory.Last
		eventually(t, "some more have come", func() bool { return v.remembers().Last > had+20 })
		v.stop()
		v.mu.Lock()
		v.closed = true // whatever had come and was not handled is lost with it
		memory = v.memory
		all = append(all, v.received...)
		v.mu.Unlock()
	}
	v := visit(t, o.shops, memory)
	eventually(t, "all have arrived", func() bool { return o.now().Arrived == 800 })
	v.mu.Lock()
	defer v.mu.Unlock()
	require.Equal(t, upTo(800), append(all, v.received...))
	require.Zero(t, o.now().Confirmed)
	require.Len(t, o.now().Shops, 1)
}

// A shop confirms, again if it has not heard the answer, and a page that is
// loaded again is told what is left to confirm.
func TestConfirm(t *testing.T) {
	o := open(t)
	require.NoError(t, o.send(3)) // before there is a shop: they wait for it
	require.Equal(t, "the first shop", o.now().Latest[0].Shop)
	v := visit(t, o.direct, join{Shop: "Main Street"})
	eventually(t, "the orders are there", func() bool { return v.remembers().Last == 3 })
	confirm := func(n int) error {
		_, err := v.client.Session().Call(t.Context(), "confirm", encode(number{n}))
		return err
	}
	for range 2 {
		require.NoError(t, confirm(2))
		require.Equal(t, 1, o.now().Confirmed)
	}
	for _, n := range []int{-1, 0, 4} {
		var e *session.Error
		require.ErrorAs(t, confirm(n), &e)
		require.Equal(t, "unknown", e.Code)
	}
	require.Equal(t, []string{arrived, confirmed, arrived}, []string{o.now().Latest[0].State, o.now().Latest[1].State, o.now().Latest[2].State})

	again := visit(t, o.direct, v.remembers())
	eventually(t, "the other page takes over", func() bool { v.mu.Lock(); defer v.mu.Unlock(); return v.moved })
	eventually(t, "and is welcomed", func() bool { again.mu.Lock(); defer again.mu.Unlock(); return len(again.open) == 2 })
	require.Equal(t, []int{1, 3}, []int{again.open[0].Number, again.open[1].Number})
	require.Empty(t, again.received)
	var e *session.Error
	require.ErrorAs(t, confirm(1), &e, "the first page is not the shop's any more")
}

// Two shops share the orders; one that has forgotten everything gets what it
// has not acknowledged.
func TestShopsShareOrders(t *testing.T) {
	o := open(t)
	a := visit(t, o.direct, join{Shop: "A"})
	b := visit(t, o.direct, join{Shop: " B\t"})
	eventually(t, "both are known", func() bool { return len(o.now().Shops) == 2 })
	require.NoError(t, o.send(100))
	eventually(t, "all have arrived", func() bool { return o.now().Arrived == 100 })
	require.Equal(t, upTo(50), a.received)
	require.Equal(t, upTo(50), b.received)
	for id := range b.ids {
		require.NotContains(t, a.ids, id)
	}
	b.say("report", report{Received: 50, Twice: 2, Missing: 1})
	eventually(t, "what the shop has counted is shown", func() bool { s := o.now(); return s.Twice == 2 && s.Missing == 1 })
	require.NotContains(t, string(encode(o.now().Shops)), `" B`)

	a.stop()
	require.NoError(t, o.send(10))
	a = visit(t, o.direct, join{Shop: "A", Run: "another run of the program", Last: 1000})
	eventually(t, "the rest has arrived", func() bool { return o.now().Arrived == 110 })
	require.Equal(t, []int{51, 52, 53, 54, 55}, a.received)
}

// A desk asks for orders by calls and is shown what becomes of them.
func TestDesk(t *testing.T) {
	o := open(t)
	states := make(chan state, 1000)
	c := &session.Client{
		Reconnect: reconnect.Client{URLs: []string{o.web.URL + "/session/dispatcher"}},
		Config: session.Config{Message: func(_ *session.Session, name string, data []byte) {
			var s state
			if name == "state" && json.Unmarshal(data, &s) == nil {
				states <- s
			}
		}},
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { c.Run(ctx) })
	defer wg.Wait()
	defer cancel()
	visit(t, o.shops, join{Shop: "Main Street"})
	call := func(method, data string) error {
		_, err := c.Session().Call(ctx, method, []byte(data))
		return err
	}
	require.NoError(t, call("send", `{"count":7}`))
	require.NoError(t, call("fault", `{"fault":"stall"}`))
	require.NoError(t, call("harm", ``))
	for s := range states {
		if s.Sent == 7 && s.Arrived == 7 && s.Proxy.Fault == stall {
			require.Len(t, s.Latest, 7)
			break
		}
	}
	for method, data := range map[string]string{"send": `{"count":1001}`, "fault": `{"fault":"fire"}`} {
		var e *session.Error
		require.ErrorAs(t, call(method, data), &e)
		require.Equal(t, "nonsense", e.Code)
	}
	o.proxy.set(stall)
	require.NoError(t, call("send", `{"count":1000}`))
	var e *session.Error
	o.dispatcher.mu.Lock()
	o.known = nil // nobody takes any
	o.dispatcher.mu.Unlock()
	for err := error(nil); ; err = call("send", `{"count":1000}`) {
		if err != nil {
			require.ErrorAs(t, err, &e)
			require.Equal(t, "too_many", e.Code)
			break
		}
	}
	o.dispatcher.mu.Lock()
	defer o.dispatcher.mu.Unlock()
	require.LessOrEqual(t, len(o.unmade), maxOrders)
}

// To a browser the proxy is another origin: the shop's page may use it, others
// may not.
func TestOrigins(t *testing.T) {
	o := open(t)
	for _, c := range []struct {
		url, origin string
		ok          bool
	}{
		{o.shops, o.web.URL, true},
		{o.direct, o.web.URL, true},
		{o.shops, "http://example.com", false},
		{o.direct, "http://example.com", false},
		{o.direct, strings.TrimSuffix(o.shops, "/session/shop"), false},
	} {
		conn, err := websocket.Dial(t.Context(), c.url, &websocket.DialOptions{Header: http.Header{"Origin": {c.origin}}})
		if c.ok {
			require.NoError(t, err)
			conn.CloseNow()
			continue
		}
		var refused *websocket.HandshakeError
		require.ErrorAs(t, err, &refused, "%v", c)
		require.Equal(t, http.StatusForbidden, refused.Status)
	}
}

func TestPagesAreGuarded(t *testing.T) {
	o := open(t)
	elsewhere := regexp.MustCompile(`(src|href)="(https?:)?//|style="|\son[a-z]+="|<script>|innerHTML|insertAdjacent|document\.write`)
	for path, kind := range map[string]string{
		"/": "text/html", "/dispatcher": "text/html", "/shop": "text/html", "/orders.css": "text/css", "/icon.svg": "image/svg+xml",
		"/dispatcher.js": "text/javascript", "/shop.js": "text/javascript", "/common.js": "text/javascript", "/session.js": "text/javascript",
		"/proxy": "text/plain",
	} {
		resp, err := o.web.Client().Get(o.web.URL + path)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, resp.StatusCode, path)
		require.True(t, strings.HasPrefix(resp.Header.Get("Content-Type"), kind), path)
		require.Contains(t, resp.Header.Get("Content-Security-Policy"), "default-src 'none'; script-src 'self';")
		require.Equal(t, "nosniff", resp.Header.Get("X-Content-Type-Options"))
		require.Empty(t, elsewhere.FindString(string(body)), path)
	}
}

func TestRun(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, "localhost:0", "localhost:0", w) }()
	lines := make([]byte, 500)
	n, err := r.Read(lines)
	require.NoError(t, err)
	go io.Copy(io.Discard, r)
	defer w.Close()
	url := regexp.MustCompile(`http://localhost:\d+`).FindString(string(lines[:n]))
	require.NotEmpty(t, url, "%s", lines[:n])
	require.ErrorContains(t, run(ctx, strings.TrimPrefix(url, "http://"), "localhost:0", io.Discard), "choose another port with -addr")

	v := visit(t, url+"/session/shop", join{Shop: "Main Street"})
	eventually(t, "the shop is welcomed", func() bool { return v.remembers().Run != "" })
	interrupt()
	require.NoError(t, <-ended)
}
