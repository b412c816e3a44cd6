package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
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

// values is the configuration as gateways should have it.
func (s *store) values() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string]string)
	for _, c := range s.keys {
		if !c.Deleted {
			all[c.Key] = c.Value
		}
	}
	return all
}

func (g *gateway) copy() map[string]string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return maps.Clone(g.values)
}

func TestDifference(t *testing.T) {
	var s store
	require.NoError(t, s.set("a", "1")) // 1
	require.NoError(t, s.set("b", "2")) // 2
	require.NoError(t, s.set("a", "3")) // 3
	require.NoError(t, s.set("a", "3")) // nothing
	s.delete("b")                       // 4
	s.delete("b")                       // nothing
	require.NoError(t, s.set("c", ""))  // 5
	a := change{Key: "a", Value: "3", Version: 3}
	b := change{Key: "b", Deleted: true, Version: 4}
	c := change{Key: "c", Version: 5}
	for since, want := range map[uint64]difference{
		0: {Version: 5, Changes: []change{a, c}}, // what is deleted is no news to who has nothing
		1: {Since: 1, Version: 5, Changes: []change{a, b, c}},
		3: {Since: 3, Version: 5, Changes: []change{b, c}},
		4: {Since: 4, Version: 5, Changes: []change{c}},
		5: {Since: 5, Version: 5, Changes: []change{}},
		6: {Version: 5, All: true, Changes: []change{a, c}}, // of another store
	} {
		require.Equal(t, want, s.since(since), since)
	}
	for _, key := range []string{"", "a b", "ä", strings.Repeat("k", 65)} {
		require.ErrorIs(t, s.set(key, ""), errKey)
	}
	require.ErrorIs(t, s.set("a", strings.Repeat("v", 257)), errValue)
	for i := 2; i < maxKeys; i++ {
		require.NoError(t, s.set(fmt.Sprint("k", i), ""))
	}
	require.ErrorIs(t, s.set("one-more", ""), errMany)
	require.NoError(t, s.set("a", "changed"))
}

// Whatever a gateway has missed, and however often it is told, the difference
// makes it the same as the store, and what is the same is not applied.
func TestDifferencesAddUp(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var s store
	g := newGateway("g", nil)
	old := difference{}
	all, some := 0, 0
	for range 20_000 {
		for range r.IntN(4) {
			key := fmt.Sprint("k", r.IntN(180))
			if r.IntN(8) > 0 {
				s.delete(key)
			} else {
				require.NoError(t, s.set(key, fmt.Sprint(r.IntN(3))))
			}
		}
		if r.IntN(500) > 0 {
			continue // it is away
		}
		before, version := g.copy(), g.version
		applied := map[string]bool{}
		g.apply = func(c change) { applied[c.Key] = true }
		d := s.since(version)
		if d.All {
			all++
		} else {
			some++
		}
		g.message(nil, "changes", encode(d))
		require.Equal(t, s.values(), g.copy())
		require.Equal(t, s.version, g.version)
		for key := range applied {
			if !d.All { // a key may be set back to what it was: it has changed nevertheless
				continue
			}
			was, had := before[key]
			is, has := g.copy()[key]
			require.False(t, had == has && was == is, "%s has not changed", key)
		}
		g.apply = func(c change) { require.Fail(t, "applied again", "%v", c) }
		g.message(nil, "changes", encode(d))
		if !old.All {
			g.message(nil, "changes", encode(old)) // from a session that goes on
		}
		require.Equal(t, s.values(), g.copy())
		old = d
	}
	require.Positive(t, all)
	require.Positive(t, some)
	for i := range maxDeleted + 1 { // more than is remembered
		require.NoError(t, s.set(fmt.Sprint("d", i), ""))
		s.delete(fmt.Sprint("d", i))
	}
	d := s.since(g.version)
	require.True(t, d.All)
	g.apply = nil
	g.message(nil, "changes", encode(d))
	require.Equal(t, s.values(), g.copy())
}

// A scene is the program without its page.
type scene struct {
	*office
	t *testing.T

	mu      sync.Mutex
	applied map[string][]string // by gateway: keys
}

func open(t *testing.T, count int) *scene {
	o, err := newOffice([]string{"127.0.0.1:0", "127.0.0.1:0"}, count)
	require.NoError(t, err)
	s := &scene{office: o, t: t, applied: make(map[string][]string)}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, g := range o.gateways {
		g.client.Reconnect.Backoff = reconnect.Exponential{Base: 10 * time.Millisecond, Max: 50 * time.Millisecond}
		g.client.Reconnect.Good = -1
		g.apply = func(c change) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.applied[g.name] = append(s.applied[g.name], c.Key)
		}
		wg.Go(func() { g.run(ctx) })
	}
	wg.Go(func() { o.work(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		o.end()
	})
	return s
}

// settle waits until all gateways that are up have everything, and returns what
// they have applied since the last time, which must be the same for all.
func (s *scene) settle() []string {
	s.t.Helper()
	require.Eventually(s.t, func() bool {
		for _, g := range s.state().Gateways {
			if g.Version != s.state().Version || g.Phase != "open" {
				return false
			}
		}
		return true
	}, 20*time.Second, 2*time.Millisecond)
	s.mu.Lock()
	defer s.mu.Unlock()
	var first []string
	for i, g := range s.gateways {
		require.Equal(s.t, s.store.values(), g.copy(), g.name)
		if keys := s.applied[g.name]; i == 0 {
			first = keys
		} else {
			require.Equal(s.t, first, keys, g.name)
		}
	}
	clear(s.applied)
	return first
}

// on waits until all gateways are on these servers.
func (s *scene) on(servers string) {
	s.t.Helper()
	require.Eventually(s.t, func() bool {
		on := ""
		for _, g := range s.state().Gateways {
			if g.Phase == "open" {
				on += g.Server
			}
		}
		return on == servers
	}, 20*time.Second, 2*time.Millisecond, servers)
}

// have waits until all gateways have such a session.
func (s *scene) have(session string) {
	s.t.Helper()
	require.Eventually(s.t, func() bool {
		for _, v := range s.state().Gateways {
			if v.Session != session {
				return false
			}
		}
		return true
	}, 20*time.Second, 2*time.Millisecond, session)
}

func (s *scene) set(key, value string) {
	s.t.Helper()
	require.NoError(s.t, s.store.set(key, value))
	s.push()
}

// Gateways whose server is killed go on with the other one, and apply what has
// changed, and that alone.
func TestServerIsKilled(t *testing.T) {
	s := open(t, 5)
	require.Len(t, s.settle(), len(seed))
	s.have("new")
	s.on("ABABA")
	s.set("rate.limit", "200/s")
	require.Equal(t, []string{"rate.limit"}, s.settle())

	s.servers[0].kill()
	s.on("BBBBB")
	require.Empty(t, s.settle(), "nothing has changed")
	s.set("log.level", "debug")
	require.Equal(t, []string{"log.level"}, s.settle())
	for _, g := range s.gateways {
		require.Equal(t, []edit{{Key: "log.level", Old: "info", New: "debug"}}, g.view().Last)
	}

	// Both are gone for a while, in which this and that happens.
	s.servers[1].kill()
	s.set("log.level", "error")
	s.set("log.level", "warn")
	s.set("pool.size", "64")
	s.set("new", "1")
	s.store.delete("new")
	s.store.delete("retry.max")
	require.Equal(t, uint64(len(seed)+2), s.gateways[0].view().Version)
	require.NoError(t, s.servers[0].start())
	require.Equal(t, []string{"log.level", "pool.size", "retry.max"}, s.settle())
	s.on("AAAAA")
	require.NoError(t, s.servers[1].start())
	require.NoError(t, s.servers[1].start(), "it runs already")
	s.servers[0].kill()
	s.servers[0].kill()
	s.on("BBBBB")
	require.Empty(t, s.settle())
	s.have("new") // no server knew the sessions
}

// Gateways that come back to the same server resume their sessions.
func TestConnectionsAreCut(t *testing.T) {
	s := open(t, 4)
	s.settle()
	s.on("ABAB")
	opened := func() (n int) {
		for _, g := range s.state().Gateways {
			n += g.Opened
		}
		return n
	}
	for i := range 20 {
		before := opened()
		s.servers[i%2].cut()
		s.set("rate.limit", fmt.Sprint(i))
		s.set("pool.size", fmt.Sprint(i))
		require.Eventually(t, func() bool { return opened() >= before+2 }, 20*time.Second, time.Millisecond)
		require.Equal(t, []string{"rate.limit", "pool.size"}, s.settle(), i)
	}
	s.on("ABAB")
	s.have("resumed")
}

// A gateway that another store has filled is told everything, and applies what
// is different.
func TestStrangeVersion(t *testing.T) {
	s := open(t, 1)
	s.settle()
	s.servers[0].kill()
	s.servers[1].kill()
	g := s.gateways[0]
	g.mu.Lock()
	g.version = 1000
	g.values["strange"] = "value"
	g.values["log.level"] = "strange"
	g.mu.Unlock()
	require.NoError(t, s.servers[1].start())
	require.ElementsMatch(t, []string{"log.level", "strange"}, s.settle())
}

// A page edits and kills by calls, and is shown what happens.
func TestDesk(t *testing.T) {
	s := open(t, 2)
	ws := &websocket.Server{Handler: s.serve}
	web := httptest.NewServer(routes(ws))
	defer web.Close()
	defer ws.Shutdown(context.Background())
	states := make(chan state, 1000)
	c := &session.Client{
		Reconnect: reconnect.Client{URLs: []string{web.URL + "/session"}},
		Config: session.Config{Message: func(_ *session.Session, name string, data []byte) {
			var v state
			if name == "state" && json.Unmarshal(data, &v) == nil {
				states <- v
			}
		}},
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { c.Run(ctx) })
	defer wg.Wait()
	defer cancel()
	call := func(method string, q order) error {
		_, err := c.Session().Call(ctx, method, encode(q))
		return err
	}
	shows := func(what func(state) bool) {
		t.Helper()
		for {
			select {
			case v := <-states:
				if what(v) {
					return
				}
			case <-time.After(20 * time.Second):
				require.FailNow(t, "it is not shown")
			}
		}
	}
	require.NoError(t, call("set", order{Key: "log.level", Value: "debug"}))
	require.NoError(t, call("delete", order{Key: "retry.max"}))
	shows(func(v state) bool {
		return len(v.Keys) == len(seed)-1 && v.Gateways[0].Version == v.Version && v.Servers[0].Gateways == 1
	})
	require.NoError(t, call("cut", order{Server: "A"}))
	require.NoError(t, call("kill", order{Server: "A"}))
	shows(func(v state) bool {
		return !v.Servers[0].Up && v.Servers[1].Gateways == 2 && v.Gateways[0].Server == "B"
	})
	require.NoError(t, call("start", order{Server: "A"}))
	shows(func(v state) bool { return v.Servers[0].Up })
	var e *session.Error
	require.ErrorAs(t, call("set", order{Key: "no key"}), &e)
	require.Equal(t, &session.Error{Code: "refused", Message: errKey.Error()}, e)
}

func TestPageIsGuarded(t *testing.T) {
	web := httptest.NewServer(routes(http.NotFoundHandler()))
	defer web.Close()
	elsewhere := regexp.MustCompile(`(src|href)="(https?:)?//|style="|\son[a-z]+="|<script>|innerHTML|insertAdjacent|document\.write`)
	for path, kind := range map[string]string{
		"/": "text/html", "/configsync.js": "text/javascript", "/session.js": "text/javascript", "/configsync.css": "text/css", "/icon.svg": "image/svg+xml",
	} {
		resp, err := web.Client().Get(web.URL + path)
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
	go func() { ended <- run(ctx, "localhost:0", []string{"localhost:0", "localhost:0"}, 3, w) }()
	lines := make([]byte, 500)
	n, err := r.Read(lines)
	require.NoError(t, err)
	go io.Copy(io.Discard, r)
	defer w.Close()
	url := regexp.MustCompile(`http://localhost:\d+`).FindString(string(lines[:n]))
	require.NotEmpty(t, url, "%s", lines[:n])
	err = run(ctx, strings.TrimPrefix(url, "http://"), nil, 0, io.Discard)
	require.ErrorContains(t, err, "is taken by another program; choose another port with -addr")
	c, err := websocket.Dial(ctx, url+"/session", nil)
	require.NoError(t, err)
	defer c.CloseNow()
	require.NoError(t, c.Write(ctx, websocket.Text(`{"type":"hello"}`)))
	_, err = c.Read(ctx)
	require.NoError(t, err)
	interrupt()
	for err == nil {
		_, err = c.Read(t.Context())
	}
	require.Equal(t, websocket.CloseServiceRestart, websocket.CodeOf(err))
	require.NoError(t, <-ended)
}
