package interop

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/session"
)

// The module for browsers against the server in Go, in Node and in Chromium,
// while a proxy cuts the connections at any byte: everything arrives, once and in
// order, both ways, and calls are answered.
func TestSessionInNode(t *testing.T) {
	path, _ := node(t)
	installWS(t)
	testSession(t, func(_, url string, count int) []byte {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, path, "peers/session-node.js", url, fmt.Sprint(count))
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		require.NoError(t, err)
		return out
	})
}

func TestSessionInChromium(t *testing.T) {
	ctx := startChromium(t)
	testSession(t, func(page, url string, count int) []byte {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		require.NoError(t, chromedp.Do(ctx, chromedp.Navigate(page)))
		out, err := chromedp.Run(ctx, chromedp.Evaluate[string](fmt.Sprintf(`(async () => {
			const { Session } = await import("/session.js");
			const { scenario } = await import("/scenario.js");
			return JSON.stringify(await scenario(Session, %q, %d));
		})()`, url, count), chromedp.EvalAwaitPromise))
		require.NoError(t, err)
		return []byte(out)
	})
}

func testSession(t *testing.T, run func(page, url string, count int) []byte) {
	const count = 400
	var mu sync.Mutex
	var got []int
	var opened, ended atomic.Int32
	var peer atomic.Pointer[session.Session]
	var calm atomic.Bool
	there := make(chan struct{})    // the first session is
	finished := make(chan struct{}) // the server's application has
	sessions := &session.Server{
		Open: func(s *session.Session) {
			if peer.Store(s); opened.Add(1) == 1 {
				close(there)
			}
		},
		Config: session.Config{
			Message: func(_ *session.Session, _ string, data []byte) {
				var n int
				json.Unmarshal(data, &n)
				mu.Lock()
				got = append(got, n)
				mu.Unlock()
			},
			Methods: map[string]session.Method{
				"echo": func(_ context.Context, _ *session.Session, data []byte) ([]byte, error) { return data, nil },
				"wait": func(ctx context.Context, _ *session.Session, _ []byte) ([]byte, error) {
					<-ctx.Done()
					ended.Add(1)
					return nil, ctx.Err()
				},
				// The client closes when this is answered: the server's last calls must be, too.
				"done": func(ctx context.Context, _ *session.Session, _ []byte) ([]byte, error) {
					select {
					case <-finished:
					case <-ctx.Done():
					}
					return nil, nil
				},
			},
		},
	}
	defer sessions.Shutdown()
	ws := &websocket.Server{Options: websocket.AcceptOptions{Origins: []string{"*"}}, Handler: func(ctx context.Context, c *websocket.Conn) { sessions.Serve(ctx, c) }}
	mux := http.NewServeMux()
	mux.Handle("/session", ws)
	file := func(path, name string) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, name) })
	}
	file("/session.js", "../session/js/session.js")
	file("/scenario.js", "peers/session.js")
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, "<!DOCTYPE html><title>session</title>")
	})
	backend := httptest.NewServer(mux)
	defer backend.Close()
	addr, cuts := cuttingProxy(t, backend.Listener.Addr().String(), &calm)

	served := make(chan error, 1)
	go func() { // the server's application
		defer close(finished)
		<-there
		s := peer.Load()
		for n := 1; n <= count; n++ {
			if err := s.Send("m", fmt.Append(nil, n)); err != nil {
				served <- err
				return
			}
			if n%20 == 0 {
				data, err := s.Call(context.Background(), "double", fmt.Append(nil, n))
				if err != nil || string(data) != fmt.Sprint(2*n) {
					served <- fmt.Errorf("double: %s %w", data, err)
					return
				}
			}
		}
		_, err := s.Call(context.Background(), "fail", nil)
		if e, ok := err.(*session.Error); !ok || e.Code != session.CodeInternal || e.Message != "" {
			served <- fmt.Errorf("fail: %w", err)
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		_, err = s.Call(ctx, "wait", nil)
		calm.Store(true)
		if err != context.DeadlineExceeded {
			served <- err
			return
		}
		served <- nil
	}()

	var r struct {
		Got, Answers []int
		States       map[string]int
		Gaps         []any
		Codes        []string
		Errors       []string
		Stats        struct{ Sent, Acknowledged, Lost, Mean float64 }
	}
	require.NoError(t, json.Unmarshal(run(backend.URL, "ws://"+addr+"/session", count), &r))
	require.NoError(t, <-served)
	t.Logf("%d cuts, states %v, %+v; server %+v", cuts.Load(), r.States, r.Stats, peer.Load().Stats())
	var want []int
	for n := 1; n <= count; n++ {
		want = append(want, n)
	}
	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, want, got, "client to server")
	require.Equal(t, want, r.Got, "server to client")
	require.Len(t, r.Answers, count/10)
	slices.Sort(r.Answers)
	require.Len(t, slices.Compact(r.Answers), count/10)
	require.Equal(t, []string{"no_method", "timeout", "TimeoutError"}, r.Codes)
	require.EqualValues(t, 2, ended.Load(), "cancellation has reached the server")
	require.Empty(t, r.Gaps)
	require.Empty(t, r.Errors)
	require.Zero(t, r.Stats.Lost)
	require.EqualValues(t, 1, opened.Load(), "one session")
	require.Greater(t, int(cuts.Load()), 3, "or nothing was tested")
	require.Greater(t, r.States["open"], 3)
}

// cuttingProxy passes what comes to addr, and cuts connections after some bytes
// as long as it is not calm.
func cuttingProxy(t *testing.T, addr string, calm *atomic.Bool) (front string, cuts *atomic.Int32) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	cuts = new(atomic.Int32)
	var wg sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			a, err := l.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("tcp", addr)
			if err != nil {
				a.Close()
				continue
			}
			mu.Lock()
			open[a], open[b] = true, true
			mu.Unlock()
			var left atomic.Int64
			left.Store(rand.Int64N(1 << 15))
			pass := func(to, from net.Conn) {
				defer to.Close()
				defer from.Close()
				p := make([]byte, 1024)
				for {
					n, err := from.Read(p)
					if rest := left.Add(-int64(n)); rest < 0 && !calm.Load() {
						to.Write(p[:max(0, n+int(rest))])
						cuts.Add(1)
						return
					}
					if _, e := to.Write(p[:n]); e != nil || err != nil {
						return
					}
				}
			}
			wg.Go(func() { pass(a, b) })
			wg.Go(func() { pass(b, a) })
		}
	})
	return l.Addr().String(), cuts
}

// The module is small, and stands alone.
func TestSessionModule(t *testing.T) {
	b, err := os.ReadFile("../session/js/session.js")
	require.NoError(t, err)
	var z bytes.Buffer
	w, err := gzip.NewWriterLevel(&z, gzip.BestCompression)
	require.NoError(t, err)
	w.Write(b)
	w.Close()
	require.Less(t, z.Len(), 4096, "compressed")
	require.NotContains(t, string(b), "import")
}

// A browser cannot ping: the module asks a server that is silent for 25 s, gives
// it up 20 s later, and gives up after 10 s one that never says welcome. It comes
// back unless it is not wanted.
func TestSessionHeartbeat(t *testing.T) {
	path, _ := node(t)
	var r struct {
		Welcome, Silence, Pong []string
		Codes                  map[string]string
		Early, Stats           struct{ Sent, Acknowledged, Lost, Mean, P99 float64 }
		Forgotten              struct {
			Gaps []map[string]any
			Sent []map[string]any
		}
	}
	require.NoError(t, json.Unmarshal([]byte(output(t, path, "peers/session-heartbeat.js")), &r))
	require.Equal(t, []string{"0 connecting", "0 hello", "11 close", "11 waiting"}, r.Welcome[:4])
	require.Equal(t, []string{"0 connecting", "0 hello", "0 open", "26 ping", "46 close", "46 waiting", "47 connecting"}, r.Silence[:7])
	require.Equal(t, []string{"0 connecting", "0 hello", "0 open", "26 ping", "66 ping", "80 ended", "80 close"}, r.Pong)
	require.Equal(t, map[string]string{"1000": "waiting", "1001": "waiting", "1006": "waiting", "1008": "ended", "1011": "waiting",
		"1012": "waiting", "1013": "waiting", "4000": "waiting", "4001": "ended", "4002": "ended"}, r.Codes)
	require.InDelta(t, 2000.0/98, r.Early.Mean, 1e-6)
	require.GreaterOrEqual(t, r.Early.P99, 2000.0, "99 of 100 is all of 98")
	require.LessOrEqual(t, r.Early.P99, 2000*1.2)
	require.GreaterOrEqual(t, r.Stats.P99, 11_000.0)
	require.LessOrEqual(t, r.Stats.P99, 11_000*1.2)
	require.Equal(t, []map[string]any{{"lost": true, "unacknowledged": 0.0}}, r.Forgotten.Gaps)
	require.Equal(t, []map[string]any{
		{"type": "hello", "token": "t", "ack": 0.0},
		{"type": "hello", "ack": 0.0},
	}, r.Forgotten.Sent)
}

// The types are those of the module, and right for those who write TypeScript.
func TestSessionTypes(t *testing.T) {
	path, _ := node(t)
	installWS(t)
	out, err := exec.Command(path, "peers/node_modules/typescript/bin/tsc", "--noEmit", "--strict", "--skipLibCheck", "false",
		"--target", "es2022", "--module", "nodenext", "--lib", "es2023,dom", "peers/session-types.ts").CombinedOutput()
	require.NoError(t, err, "%s", out)
}
