package session

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/reconnect"
	"github.com/seed-07372d5a/websocket/wstest"
)

// The simulation with three servers and a store: besides what happens to
// connections, servers are killed and shut down, the store is slow, is not
// reached, does what it says it has not done, and is lost. SESSION_SEEDS and
// SESSION_SEED are as for TestSimulation.
func TestSimulationServers(t *testing.T) {
	var sum moved
	seeds := eachSeed(t, func(t *testing.T, seed uint64) { simulateServers(t, seed, &sum) })
	t.Logf("%+v", sum)
	if seeds >= 50 { // or the script is of no use
		require.Greater(t, sum.Resumed, 2*seeds)
		require.Greater(t, sum.Arrived, 50*seeds)
		require.Greater(t, sum.Killed, seeds/2)
		require.Greater(t, sum.Moved, seeds/2)
		require.Greater(t, sum.Lost, seeds/10)
		require.Greater(t, sum.Doubtful, seeds/20)
		require.Greater(t, sum.Answered, 10*seeds)
	}
}

// What all runs came to: sessions opened and resumed, ended because they have
// moved or were lost; messages that arrived, that did not, and in doubt.
type moved struct {
	Opened, Resumed, Moved, Lost, Killed, Arrived, Missing, Doubtful, Answered, Unanswered int
}

// A weakStore fails now and then.
type weakStore struct {
	Store
	fails func(save bool) (before, after error) // and takes its time
}

func (w *weakStore) Create(ctx context.Context, key string, keep time.Duration) error {
	before, after := w.fails(false)
	if before == nil {
		before = errors.Join(w.Store.Create(ctx, key, keep), after)
	}
	return before
}

func (w *weakStore) Claim(ctx context.Context, key string, keep time.Duration) (fence uint64, fields map[string][]byte, err error) {
	before, after := w.fails(false)
	if before != nil {
		return 0, nil, before
	}
	fence, fields, err = w.Store.Claim(ctx, key, keep)
	if err == nil && after != nil {
		return 0, nil, after
	}
	return fence, fields, err
}

func (w *weakStore) Save(ctx context.Context, updates []Update) error {
	before, after := w.fails(true)
	if before == nil {
		before = errors.Join(w.Store.Save(ctx, updates), after)
	}
	return before
}

// An actor is a session at a server, as the application there sees it.
type actor struct {
	server int
	sent   []int // numbers that it was given
	last   int   // of the messages that it got
	over   bool  // the application was told that it has ended here
	unsure bool  // and that what it has sent may be lost
}

func simulateServers(t *testing.T, seed uint64, sum *moved) {
	r := rand.New(rand.NewPCG(seed, 2))
	var mu sync.Mutex
	chance := func(p float64) bool { mu.Lock(); defer mu.Unlock(); return r.Float64() < p }
	upTo := func(n int) int { mu.Lock(); defer mu.Unlock(); return r.IntN(n) }
	calm := false
	quiet := func() bool { mu.Lock(); defer mu.Unlock(); return calm }
	n := &wstest.Network{Latency: time.Duration(upTo(50)) * time.Millisecond}
	n.Wrap = func(client, server net.Conn) (net.Conn, net.Conn) {
		if quiet() {
			return client, server
		}
		wrap := func(nc net.Conn) net.Conn {
			f := &fault{Conn: nc, silent: chance(0.3)}
			f.left.Store(int64(1 + upTo(9000)))
			if chance(0.3) {
				f.left.Store(1 << 40)
			}
			if chance(0.2) {
				f.delay = time.Duration(upTo(1000)) * time.Millisecond
			}
			return f
		}
		return wrap(client), wrap(server)
	}
	n.Dial = func(context.Context, string) error {
		if !quiet() && chance(0.2) {
			return errors.New("not now")
		}
		return nil
	}

	var (
		store    Memory
		outage   bool
		problems []string
		seen     = map[int]bool{} // that any server's application has got
		excuse   bool             // a gap was told since the last message
		lost     []int            // of the client's, when another session began
		excused  = map[int]bool{} // of the client's, that a gap has told of
		actors   = map[*Session]*actor{}
		heirs    = map[string]*Session{} // the last of each token
		cur      *Session                // the last that an application was told of
		dead     = make([]bool, 3)
		servers  = make([]*Server, 3)
		stops    = make([]func(), 3)
		top      int // the highest number that any has got
		begun    bool
		sentUp   int
		sentDown int
		told     int // what the client had sent when it was told that a session was lost
	)
	problem := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	const bufferUp, bufferDown = 40 << 10, 20 << 10
	methods := map[string]Method{"echo": func(ctx context.Context, _ *Session, data []byte) ([]byte, error) {
		time.Sleep(time.Duration(upTo(3000)) * time.Millisecond)
		return data, nil
	}}
	keep := websocket.Config{KeepAlive: 5 * time.Second, KeepAliveTimeout: 5 * time.Second, CloseTimeout: time.Second}
	serve := func(i int) {
		host := string(rune('a' + i))
		v := new(Server)
		killed := func() bool { return servers[i] != v || dead[i] } // its process is not there any more; mu is held
		*v = Server{
			Store: &weakStore{&store, func(save bool) (before, after error) {
				time.Sleep(time.Duration(upTo(20)) * time.Millisecond)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case killed():
					return errors.New("dead"), nil
				case outage && !calm:
					return errors.New("no store"), nil
				case !calm && r.Float64() < 0.02:
					return nil, errors.New("what has become of it?")
				}
				return nil, nil
			}},
			Config: Config{
				Message: func(s *Session, _ string, data []byte) {
					k, _ := strconv.Atoi(string(data))
					mu.Lock()
					a := actors[s]
					switch {
					case a == nil:
						problem("%d before the application knows the session", k)
					case killed():
					case seen[k]:
						problem("%d twice", k)
					case k <= a.last:
						problem("%d after %d", k, a.last)
					default:
						seen[k] = true
						a.last = k
						sum.Arrived++
						if k < top && (s == cur || !excused[k]) {
							problem("%d late, after %d, at %s", k, top, host)
						}
						for h := top + 1; h < k; h++ {
							switch {
							case excuse:
								excused[h] = true
							case begun: // another session: the client is told
								lost = append(lost, h)
							default:
								problem("client to server: %d is missing without a gap, at %s", h, host)
							}
						}
						top = max(top, k)
						if s == cur {
							excuse, begun = false, false
						}
					}
					mu.Unlock()
					if chance(0.05) {
						time.Sleep(time.Duration(upTo(2000)) * time.Millisecond)
					}
				},
				Gap: func(s *Session, g Gap) {
					mu.Lock()
					defer mu.Unlock()
					if !killed() {
						excuse = true
						sum.Doubtful += int(min(g.Doubtful, 1))
					}
				},
				Methods: methods, Buffer: bufferDown, DropOldest: true, MaxAge: 20 * time.Second,
			},
			Expire: 40 * time.Second,
			Close: func(s *Session) {
				mu.Lock()
				defer mu.Unlock()
				a := actors[s]
				if a.over {
					problem("closed twice")
				}
				a.over, a.unsure = true, a.unsure || s.Err() != ErrMoved || s.Stats().Lost > 0
				switch s.Err() {
				case ErrMoved:
					sum.Moved++
				case ErrLost:
					sum.Lost++
				}
			},
			Open: func(s *Session) {
				mu.Lock()
				defer mu.Unlock()
				sum.Opened++
				actors[s], heirs[s.token], cur, begun = &actor{server: i}, s, s, true
			},
			Resume: func(s *Session) {
				mu.Lock()
				defer mu.Unlock()
				sum.Resumed++
				actors[s], heirs[s.token], cur = &actor{server: i}, s, s
			},
		}
		mu.Lock()
		servers[i], dead[i] = v, false
		mu.Unlock()
		stops[i] = n.Serve(host+":80", &websocket.Server{
			Options: websocket.AcceptOptions{Config: keep},
			Handler: func(ctx context.Context, c *websocket.Conn) { v.Serve(ctx, c) },
		})
	}
	gapped, last := false, 0
	missed := map[int]bool{} // that the client has not got, and was not told of
	client := &Client{
		Reconnect: reconnect.Client{
			URLs: []string{"ws://a", "ws://b", "ws://c"}, Options: websocket.DialOptions{Client: n.Client(), Config: keep},
			Backoff: reconnect.Exponential{Max: 5 * time.Second},
		},
		Config: Config{
			Buffer: bufferUp, MaxAge: 20 * time.Second, Methods: methods,
			Message: func(_ *Session, _ string, data []byte) {
				k, _ := strconv.Atoi(string(data))
				mu.Lock()
				defer mu.Unlock()
				if k <= last {
					problem("the client got %d after %d", k, last)
				}
				for h := last + 1; h < k && !gapped; h++ {
					missed[h] = true
				}
				sum.Missing += k - last - 1
				last, gapped = k, false
				sum.Arrived++
			},
			Gap: func(_ *Session, g Gap) {
				mu.Lock()
				defer mu.Unlock()
				gapped = true
				if g.Lost {
					told = sentUp
				}
			},
		},
	}
	for i := range servers {
		serve(i)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil { // Run ends when a hello that came late has taken the session
			client.Run(ctx)
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		}
	}()
	var background sync.WaitGroup
	call := func(s *Session, k int) {
		background.Go(func() {
			data, err := s.Call(t.Context(), "echo", number(k))
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				if string(data) != strconv.Itoa(k) {
					problem("an answer to another question")
				}
				sum.Answered++
			} else {
				sum.Unanswered++
			}
		})
	}
	stop := func(i int, kill bool) {
		v := servers[i]
		mu.Lock()
		if kill {
			dead[i] = true
			sum.Killed++
			for _, a := range actors { // who was told what has died with it
				a.unsure = a.unsure || a.server == i && !a.over
			}
		}
		mu.Unlock()
		stops[i]()
		v.Shutdown()
		time.Sleep(time.Duration(upTo(10_000)) * time.Millisecond)
		serve(i)
	}
	for step := range 150 {
		time.Sleep(time.Duration(upTo(1000)) * time.Millisecond)
		mu.Lock()
		s := cur
		mu.Unlock()
		for range upTo(4) {
			mu.Lock()
			sentUp++
			k := sentUp
			mu.Unlock()
			require.NoError(t, client.Session().Send("n", number(k)))
			if s == nil {
				continue
			}
			mu.Lock()
			a := actors[s]
			a.sent = append(a.sent, sentDown+1)
			mu.Unlock()
			if err := s.Send("m", number(sentDown+1)); err == nil {
				mu.Lock()
				sentDown++
				mu.Unlock()
			} else {
				require.Contains(t, []error{ErrMoved, ErrEnded, ErrLost}, err)
				mu.Lock()
				a.sent = a.sent[:len(a.sent)-1]
				mu.Unlock()
			}
		}
		if chance(0.3) {
			call(client.Session(), step)
			if s != nil {
				call(s, step)
			}
		}
		switch i := upTo(3); {
		case chance(0.03):
			n.Cut(string(rune('a'+i)) + ":80")
		case chance(0.02):
			stop(i, true)
		case chance(0.01):
			stop(i, false)
		case chance(0.005):
			store.Forget()
		case chance(0.02):
			mu.Lock()
			outage = !outage
			mu.Unlock()
		case chance(0.01):
			background.Go(func() { stranger(t, n, client.Session()) })
		}
		if s != nil {
			bounded(t, s, bufferDown)
		}
		bounded(t, client.Session(), bufferUp)
	}
	mu.Lock()
	calm = true
	mu.Unlock()
	time.Sleep(4 * time.Minute) // everything has been found out
	background.Wait()
	synctest.Wait()

	mu.Lock()
	defer mu.Unlock()
	require.Empty(t, problems)
	st := client.Session().Stats()
	require.Equal(t, st.Sent, st.Acknowledged+st.Lost, "all is settled")
	require.Zero(t, client.Session().bytes)
	owners := 0
	var owner *Session // not cur, if a hello that came late has begun another since
	for _, v := range servers {
		for s := range v.Sessions() {
			require.Equal(t, client.Session().token, s.token, "others have ended")
			owner = s
			owners++
		}
	}
	require.Equal(t, 1, owners, "exactly one")
	// The last server that knows a session may leave it to a client that never
	// comes: one that has not got the welcome.
	for _, s := range heirs {
		actors[s].unsure = actors[s].unsure || s != owner
	}
	unsure := map[int]bool{}
	for s, a := range actors {
		require.True(t, a.over || s == owner, "whoever has sent something is told that it is over")
		for _, k := range a.sent {
			unsure[k] = unsure[k] || a.unsure
		}
	}
	for k := range missed {
		require.True(t, unsure[k], "server to client: %d is missing without a gap", k)
	}
	for _, k := range lost {
		require.LessOrEqual(t, k, told, "client to server: missing, another session has begun, and the client does not know")
	}
	tail := true // of what the server has sent, is expected
	for k := last + 1; k <= sentDown; k++ {
		tail = tail && !unsure[k]
	}
	if tail && !gapped {
		require.Equal(t, sentDown, last, "the end of it is missing")
	}
	if !excuse && !begun {
		require.Equal(t, sentUp, top, "the end of it is missing")
	}
	mu.Unlock()
	cancel()
	<-done
	for i := range servers {
		stops[i]()
	}
	synctest.Wait()
	for _, v := range servers {
		v.Shutdown()
	}
	time.Sleep(time.Minute)
	mu.Lock()
}

// bounded is the memory that a session may hold.
func bounded(t *testing.T, s *Session, limit int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	size, waiting := 0, 0
	for i := range s.buf.len() {
		size += s.buf.at(i).size()
	}
	for i := range s.queue.len() {
		waiting += s.queue.at(i).size()
	}
	if s.vault != nil {
		for i := range s.vault.arrived.len() {
			e := s.vault.arrived.at(i)
			waiting += len(e.Name) + len(e.Data) + overhead
		}
	}
	require.Equal(t, size, s.bytes)
	if s.err == nil {
		require.Equal(t, waiting, s.queued)
	}
	require.LessOrEqual(t, size, 2*limit)
	require.LessOrEqual(t, waiting, maxInput)
	require.GreaterOrEqual(t, s.flight, 0)
}
