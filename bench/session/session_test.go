package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/reconnect"
	"github.com/seed-07372d5a/websocket/session"
)

var order = []byte(`{"item":7,"amount":3,"note":"` + strings.Repeat("x", 60) + `"}`)

// pair returns the two ends of a session over TCP.
func pair(tb testing.TB, config session.Config, store session.Store) (client, server *session.Session) {
	opened := make(chan *session.Session, 1)
	v := &session.Server{Config: config, Store: store, Open: func(s *session.Session) { opened <- s }}
	ws := &websocket.Server{Handler: func(ctx context.Context, c *websocket.Conn) { v.Serve(ctx, c) }}
	h := httptest.NewServer(ws)
	c := &session.Client{Reconnect: reconnect.Client{URLs: []string{h.URL}}, Config: session.Config{Buffer: 64 << 20}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Run(ctx)
	}()
	tb.Cleanup(func() {
		cancel()
		<-done
		h.Close()
		v.Shutdown()
	})
	return c.Session(), <-opened
}

// BenchmarkSend is a message from Send to the other side's handler, many under
// way.
func BenchmarkSend(b *testing.B) { send(b, nil) }

// BenchmarkSendStore is that with a server that keeps its sessions in a store,
// which is in memory.
func BenchmarkSendStore(b *testing.B) { send(b, new(session.Memory)) }

func send(b *testing.B, store session.Store) {
	var got atomic.Int64
	want := make(chan struct{})
	client, _ := pair(b, session.Config{Message: func(*session.Session, string, []byte) {
		if got.Add(1) == int64(b.N) {
			close(want)
		}
	}}, store)
	b.ReportAllocs()
	got.Store(0)
	want = make(chan struct{})
	b.ResetTimer()
	for range b.N {
		for client.Send("order", order) == session.ErrFull {
			runtime.Gosched()
		}
	}
	<-want
}

// BenchmarkConn is the same over the connection alone, whose receiver keeps a copy
// of each message: what a session's overhead is measured against.
func BenchmarkConn(b *testing.B) {
	var kept []byte
	bare(b, func(data []byte) { kept = append([]byte(nil), data...) })
	_ = kept
}

// BenchmarkConnJSON is with a receiver that decodes it, as a program without a
// session would.
func BenchmarkConnJSON(b *testing.B) {
	var e struct {
		Name string
		Data json.RawMessage
	}
	bare(b, func(data []byte) { json.Unmarshal(data, &e) })
}

func bare(b *testing.B, take func(data []byte)) {
	want := make(chan struct{})
	n := b.N
	ws := &websocket.Server{Handler: func(ctx context.Context, c *websocket.Conn) {
		got := 0
		c.Serve(ctx, &websocket.Handler{Message: func(_ *websocket.Conn, m websocket.Message) {
			take(m.Data)
			if got++; got == n {
				close(want)
			}
		}})
	}}
	h := httptest.NewServer(ws)
	defer h.Close()
	c, err := websocket.Dial(context.Background(), h.URL, nil)
	require.NoError(b, err)
	defer c.CloseNow()
	m := websocket.Message{Type: websocket.MessageText, Data: []byte(`{"name":"order","data":` + string(order) + `}`)}
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		for c.Post(m) == websocket.ErrQueueFull {
			runtime.Gosched()
		}
	}
	<-want
}

// BenchmarkCalls has 1,000 calls under way.
func BenchmarkCalls(b *testing.B) {
	client, _ := pair(b, session.Config{Concurrency: 1000, Methods: map[string]session.Method{
		"echo": func(_ context.Context, _ *session.Session, data []byte) ([]byte, error) { return data, nil },
	}}, nil)
	b.ReportAllocs()
	b.ResetTimer()
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	for range 1000 {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if _, err := client.Call(context.Background(), "echo", order); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
}

// BenchmarkIdle is the memory of an idle session that has received a message:
// beyond the connection that it has, and of one whose client is away.
func BenchmarkIdle(b *testing.B) {
	const sessions = 1000
	ctx := context.Background()
	memory := func() uint64 {
		for range 4 { // what finalizers and pools hold goes late
			runtime.GC()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	// idle is the memory of a server's connections, and of the clients, each of
	// which says what is to be said.
	idle := func(ws http.Handler, say ...string) uint64 {
		goroutines := runtime.NumGoroutine()
		before := memory()
		h := httptest.NewServer(ws)
		conns := make([]*websocket.Conn, sessions)
		for i := range conns {
			c, err := websocket.Dial(ctx, h.URL, nil)
			require.NoError(b, err)
			for _, s := range say {
				require.NoError(b, c.Write(ctx, websocket.Text(s)))
				_, err = c.Read(ctx)
				require.NoError(b, err)
			}
			conns[i] = c
		}
		with := memory()
		for _, c := range conns {
			c.CloseNow()
		}
		h.Close()
		http.DefaultClient.CloseIdleConnections()
		for runtime.NumGoroutine() > goroutines {
			runtime.Gosched()
		}
		return with - before
	}
	message := `{"type":"message","id":1,"name":"n"}`
	echo := &websocket.Server{Handler: func(ctx context.Context, c *websocket.Conn) {
		for m, err := range c.Messages(ctx) {
			if err != nil {
				return
			}
			c.Write(ctx, m)
		}
	}}
	for range b.N {
		idle(echo, message) // pays for what stays
		bare := idle(echo, message)
		v := &session.Server{MaxAway: -1}
		with := idle(&websocket.Server{Handler: func(ctx context.Context, c *websocket.Conn) { v.Serve(ctx, c) }}, `{"type":"hello"}`, message)
		b.ReportMetric((float64(with)-float64(bare))/sessions, "B/session-beyond-conn")
		away := memory()
		v.Shutdown()
		b.ReportMetric((float64(away)-float64(memory()))/sessions, "B/session-away")
	}
}

// A moment of what the command does for long.
func TestFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	*duration, *phase, *clients, *mostBytes = 6*time.Second, 3*time.Second, 30, 40<<10
	if !run() {
		t.Fatal("see above")
	}
}

// What the benchmarks measure works.
func TestPair(t *testing.T) {
	client, server := pair(t, session.Config{Methods: map[string]session.Method{
		"echo": func(_ context.Context, _ *session.Session, data []byte) ([]byte, error) { return data, nil },
	}}, nil)
	data, err := client.Call(context.Background(), "echo", order)
	require.NoError(t, err)
	require.JSONEq(t, string(order), string(data))
	require.True(t, server.Connected())
}
