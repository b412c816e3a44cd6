package session

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/reconnect"
	"github.com/seed-07372d5a/websocket/wstest"
)

// The simulation: a client, a server, and a network on which, by a script that a
// seed chooses, connections are cut at any byte, fall silent, are slow; on which
// others come with the same token; and servers are restarted and forget.
// SESSION_SEEDS says how many seeds, SESSION_SEED which one alone.
func TestSimulation(t *testing.T) {
	var sum simulated
	seeds := eachSeed(t, func(t *testing.T, seed uint64) { simulate(t, seed, &sum) })
	t.Logf("%+v", sum)
	if seeds >= 50 { // or the script is of no use
		require.Greater(t, sum.connections, 3*seeds)
		require.Greater(t, sum.sessions, seeds+seeds/4)
		require.Greater(t, sum.lostSessions, seeds/4)
		require.Greater(t, sum.arrived, 50*seeds)
		require.Greater(t, sum.missing, 0)
		require.Greater(t, sum.answered, 10*seeds)
	}
}

// eachSeed runs f in a bubble for every seed, and returns how many there were.
func eachSeed(t *testing.T, f func(t *testing.T, seed uint64)) (seeds int) {
	seeds, first := 200, 1
	if raceEnabled {
		seeds = 30
	}
	if n, err := strconv.Atoi(os.Getenv("SESSION_SEEDS")); err == nil {
		seeds = n
	}
	if n, err := strconv.Atoi(os.Getenv("SESSION_SEED")); err == nil {
		seeds, first = 1, n
	}
	for seed := first; seed < first+seeds; seed++ {
		ok := t.Run(strconv.Itoa(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(t, uint64(seed)) })
		})
		if !ok {
			t.Fatalf("SESSION_SEED=%d shows it", seed)
		}
	}
	return seeds
}

// What all runs came to.
type simulated struct {
	connections, sessions, lostSessions, arrived, missing, answered, unanswered int
}

// A fault is what becomes of one connection.
type fault struct {
	net.Conn
	left   atomic.Int64  // bytes to pass before it breaks; in both directions together
	silent bool          // breaking is falling silent
	delay  time.Duration // of every write
}

func (f *fault) pass(n int) (broken bool) { return f.left.Add(-int64(n)) < 0 }

func (f *fault) Write(p []byte) (int, error) {
	if f.delay > 0 {
		time.Sleep(f.delay)
	}
	if f.pass(len(p)) {
		if f.silent {
			return len(p), nil // nobody will ever see it
		}
		n := max(int(f.left.Load())+len(p), 0)
		if n = min(n, len(p)); n > 0 {
			f.Conn.Write(p[:n])
		}
		f.Conn.Close()
		return n, syscall.ECONNRESET
	}
	return f.Conn.Write(p)
}

// A witness remembers what one end was told, and finds what must not be.
type witness struct {
	mu       sync.Mutex
	last     int // number of the last message
	excused  bool
	arrived  int
	missing  int
	problems []string
	holes    []hole
	opens    []int // what was last when another session began
}

// A hole is what is missing without a gap that was told to this end.
type hole struct{ from, to int }

// message has the number that the other side's application gave it.
func (w *witness) message(_ *Session, _ string, data []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, _ := strconv.Atoi(string(data))
	switch {
	case n <= w.last:
		w.problems = append(w.problems, fmt.Sprintf("%d after %d", n, w.last))
	case n > w.last+1 && !w.excused:
		w.holes = append(w.holes, hole{w.last + 1, n - 1})
	}
	w.missing += n - w.last - 1
	w.last, w.excused = n, false
	w.arrived++
}

func (w *witness) opened() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.opens = append(w.opens, w.last)
}

// unexcused returns the holes that are not where another session began, or that
// are of later than what the other end, which had sent told when it heard that
// the session was lost, was told of. When a session ends, one message may be in
// the hands of its handler.
func (w *witness) unexcused(told int) (bad []hole) {
	for _, h := range w.holes {
		ok := false
		for _, last := range w.opens {
			ok = ok || h.to <= told && (h.from-1 == last || h.from-2 == last)
		}
		if !ok {
			bad = append(bad, h)
		}
	}
	return bad
}

func (w *witness) excuse() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.excused = true
}

func simulate(t *testing.T, seed uint64, sum *simulated) {
	r := rand.New(rand.NewPCG(seed, 1))
	var mu sync.Mutex
	chance := func(p float64) bool { mu.Lock(); defer mu.Unlock(); return r.Float64() < p }
	upTo := func(n int) int { mu.Lock(); defer mu.Unlock(); return r.IntN(n) }
	calm := false // the end: nothing goes wrong any more
	n := &wstest.Network{Latency: time.Duration(upTo(50)) * time.Millisecond}
	n.Wrap = func(client, server net.Conn) (net.Conn, net.Conn) {
		mu.Lock()
		sum.connections++
		quiet := calm
		mu.Unlock()
		if quiet {
			return client, server
		}
		wrap := func(nc net.Conn) net.Conn {
			f := &fault{Conn: nc, silent: chance(0.3)}
			f.left.Store(int64(1 + upTo(6000)))
			if chance(0.2) {
				f.left.Store(1 << 40)
			}
			if chance(0.3) {
				f.delay = time.Duration(upTo(2000)) * time.Millisecond
			}
			return f
		}
		return wrap(client), wrap(server)
	}
	n.Dial = func(context.Context, string) error {
		mu.Lock()
		quiet := calm
		mu.Unlock()
		if !quiet && chance(0.2) {
			return errors.New("not now")
		}
		return nil
	}

	var up, down witness // what the server's and the client's applications saw
	const bufferUp, bufferDown = 40 << 10, 20 << 10
	methods := map[string]Method{"echo": func(ctx context.Context, _ *Session, data []byte) ([]byte, error) {
		time.Sleep(time.Duration(upTo(3000)) * time.Millisecond)
		return data, nil
	}}
	var client *Client
	var cur *Session // the server's end
	var server *Server
	var stop func()
	keep := websocket.Config{KeepAlive: 5 * time.Second, KeepAliveTimeout: 5 * time.Second, CloseTimeout: time.Second}
	serve := func() {
		v := new(Server)
		*v = Server{
			Config: Config{
				Message: func(s *Session, name string, data []byte) {
					mu.Lock()
					killed := server != v
					mu.Unlock()
					if !killed { // else its process would not be there any more
						up.message(s, name, data)
					}
					if chance(0.05) {
						time.Sleep(time.Duration(upTo(2000)) * time.Millisecond)
					}
				},
				Gap:     func(*Session, Gap) { up.excuse() },
				Methods: methods, Buffer: bufferDown, DropOldest: true, MaxAge: 20 * time.Second,
			},
			Expire: 40 * time.Second,
			Close: func(s *Session) {
				mu.Lock()
				defer mu.Unlock()
				if s == cur && s.Stats().Acknowledged == 0 {
					down.excuse() // a hello that came late, of a client that has gone on with another: this is what tells
				}
			},
			Open: func(s *Session) {
				up.opened()
				mu.Lock()
				if cur != nil && !client.Session().known() {
					down.excuse() // the welcome of the last one was lost: its Close will tell
				}
				cur = s
				sum.sessions++
				mu.Unlock()
			},
		}
		mu.Lock()
		server = v
		mu.Unlock()
		stop = n.Serve("a:80", &websocket.Server{
			Options: websocket.AcceptOptions{Config: keep},
			Handler: func(ctx context.Context, c *websocket.Conn) { v.Serve(ctx, c) },
		})
	}
	sentUp, sentDown, told := 0, 0, 0
	lostHere := 0 // sessions that were lost, as the client was told
	client = &Client{
		Reconnect: reconnect.Client{
			URLs: []string{"ws://a"}, Options: websocket.DialOptions{Client: n.Client(), Config: keep},
			Backoff: reconnect.Exponential{Max: 5 * time.Second},
		},
		Config: Config{
			Message: down.message, Buffer: bufferUp, MaxAge: 20 * time.Second, Methods: methods,
			Gap: func(_ *Session, g Gap) {
				down.excuse()
				if g.Lost {
					mu.Lock()
					told = sentUp // it is this side that is told of what it had sent
					lostHere++
					mu.Unlock()
				}
			},
		},
	}
	serve()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil { // Run ends when a stranger has taken the session
			client.Run(ctx)
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		}
	}()

	var calls sync.WaitGroup
	call := func(s *Session, k int) {
		calls.Go(func() {
			data, err := s.Call(t.Context(), "echo", number(k))
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				require.Equal(t, strconv.Itoa(k), string(data), "an answer to another question")
				sum.answered++
			} else {
				sum.unanswered++
			}
		})
	}
	for step := range 150 {
		time.Sleep(time.Duration(upTo(1000)) * time.Millisecond)
		mu.Lock()
		s := cur
		mu.Unlock()
		for range upTo(4) {
			if client.Session().Send("n", number(sentUp+1)) == nil {
				mu.Lock()
				sentUp++
				mu.Unlock()
			}
			if s != nil {
				if s.Send("m", number(sentDown+1)) == nil {
					sentDown++
				} else {
					down.excuse() // it was for a session that has ended, and Send has said so
				}
			}
		}
		if chance(0.3) {
			call(client.Session(), step)
			if s != nil {
				call(s, step)
			}
		}
		switch {
		case chance(0.02):
			n.Cut("a:80")
		case chance(0.01): // a restart, which forgets
			stop()
			old := server
			mu.Lock()
			server = nil
			mu.Unlock()
			old.Shutdown()
			if chance(0.5) {
				time.Sleep(time.Duration(upTo(30)) * time.Second)
			}
			serve()
		case chance(0.005): // the store is lost
			server.Shutdown()
			n.Cut("a:80")
		case chance(0.01): // another connection with the same token
			calls.Go(func() { stranger(t, n, client.Session()) })
		}
		bounded(t, client.Session(), bufferUp)
		if s != nil {
			bounded(t, s, bufferDown)
		}
	}
	mu.Lock()
	calm = true
	mu.Unlock()
	time.Sleep(3 * time.Minute) // everything has been found out
	calls.Wait()
	synctest.Wait()

	mu.Lock()
	s := cur
	mu.Unlock()
	for _, x := range []*Session{client.Session(), s} {
		st := x.Stats()
		require.Equal(t, st.Sent, st.Acknowledged+st.Lost, "all is settled")
		require.Zero(t, x.bytes)
		require.Empty(t, x.calls)
		require.Empty(t, x.served.jobs)
		require.Zero(t, x.served.running)
	}
	require.Empty(t, up.problems, "client to server")
	require.Empty(t, down.problems, "server to client")
	require.Empty(t, up.unexcused(told), "client to server: missing without a gap")
	require.Empty(t, down.holes, "server to client: missing without a gap")
	if !up.excused && told < sentUp {
		require.Equal(t, sentUp, up.last, "the end of it is missing")
	}
	if !down.excused {
		require.Equal(t, sentDown, down.last, "the end of it is missing")
	}
	mu.Lock()
	sum.arrived += up.arrived + down.arrived
	sum.missing += up.missing + down.missing
	sum.lostSessions += lostHere
	mu.Unlock()

	cancel()
	<-done
	stop()
	synctest.Wait()
	server.Shutdown()
	time.Sleep(time.Minute) // what is slow has ended too
}

// known tells whether the client has ever heard of a session.
func (s *Session) known() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.token != ""
}

// stranger goes on with the session over another connection for a moment, as a
// proxy that repeats things would: it reads, and knows nothing.
func stranger(t *testing.T, n *wstest.Network, s *Session) {
	c, err := websocket.Dial(t.Context(), "ws://a", &websocket.DialOptions{Client: n.Client()})
	if err != nil {
		return
	}
	defer c.CloseNow()
	s.mu.Lock()
	hello := Envelope{Type: typeHello, Token: s.token, Ack: s.handled()}
	s.mu.Unlock()
	if exchange(t.Context(), c, JSON, &hello) != nil {
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	c.Serve(ctx, nil)
}
