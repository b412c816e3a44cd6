// Session runs sessions over a TCP proxy that does them harm, for as long as one
// likes: connections end at any byte, fall silent in one direction or both, and
// dawdle. Half of the clients have two servers, which share a store. Every message
// has a number. It fails if one comes twice or out of order, or is missing without
// a gap, if a call gets another's answer, and if more memory is taken than the
// bounds allow, or left behind.
//
//	cd bench && go run ./session -for 10m
//
// The benchmarks in this directory measure what a session costs:
//
//	cd bench && go test -run '^$' -bench . ./session
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/reconnect"
	"github.com/seed-07372d5a/websocket/session"
)

var (
	duration  = flag.Duration("for", 10*time.Minute, "how long")
	clients   = flag.Int("clients", 60, "at the same time")
	mostBytes = flag.Int64("bytes", 200<<10, "that a connection carries before something happens to it, at most, in both directions together")
	phase     = flag.Duration("phase", 30*time.Second, "after how long everything must have arrived, and new clients come")
)

const (
	small    = 8 << 10 // Buffer of every second pair of servers' sessions: it is exceeded now and then, which is a gap
	patience = time.Minute
)

// Totals of the run.
var (
	connections, sent, arrived, missing, answered, unanswered, gaps, doubtful, moves atomic.Int64
	problems                                                                         failures
)

func main() {
	flag.Parse()
	if !run() {
		os.Exit(1)
	}
}

// run does all of it, and tells whether all was well.
func run() bool {
	fmt.Printf("session: %v, %d clients, %s\n", *duration, *clients, runtime.Version())
	begin := time.Now()
	var first, last uint64 // live heap after a phase
	goroutines := runtime.NumGoroutine()
	for n := 0; time.Since(begin) < *duration && problems.none(); n++ {
		newWorld().run(min(*phase, max(*duration-time.Since(begin), time.Second)))
		last = live()
		if n == 1 {
			first = last
		}
		left := goroutines
		for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			if left = runtime.NumGoroutine(); left <= goroutines {
				break
			}
		}
		if left > goroutines {
			b := make([]byte, 1<<20)
			problems.add("left behind: %d goroutines, at first %d\n%s", left, goroutines, b[:min(runtime.Stack(b, true), 10_000)])
		}
		fmt.Printf("%6v  %v; after: %d KB live, %d goroutines\n", time.Since(begin).Round(time.Second), totals(), last>>10, left)
	}
	if first > 0 && last > first+first/4+1<<20 {
		problems.add("memory drifts: %d KB became %d KB", first>>10, last>>10)
	}
	if arrived.Load() == 0 || answered.Load() == 0 {
		problems.add("nothing was carried")
	}
	if problems.none() {
		fmt.Printf("PASS: %v: %v\n", time.Since(begin).Round(time.Second), totals())
		return true
	}
	fmt.Print(problems.String())
	return false
}

func totals() string {
	var f []string
	for i := range faults {
		f = append(f, fmt.Sprintf("%d %s", faults[i].Load(), kindNames[i]))
	}
	return fmt.Sprintf("%d connections (%s); %d messages arrived of %d, %d gaps told of %d; %d moves between servers, %d in doubt; %d calls answered, %d not",
		connections.Load(), strings.Join(f, ", "), arrived.Load(), sent.Load(), gaps.Load(), missing.Load(),
		moves.Load(), doubtful.Load(), answered.Load(), unanswered.Load())
}

func live() uint64 {
	var m runtime.MemStats
	for range 3 { // pools are emptied by the second
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// A stream is what goes one way in one session.
type stream struct {
	name  string
	exact bool // no gap is allowed

	mu       sync.Mutex
	sent     int          // 1 to sent were sent
	last     int          // the highest that has come
	gap      bool         // and a gap after it
	holes    int          // messages that are missing without a gap before the next
	lost     int          // messages that a server has told its application of, when the session moved
	doubtful int          // messages that a server was told of that another may still handle, out of turn
	late     map[int]bool // those may be among these
}

// next sends the next number by send, which says whether it was taken.
func (s *stream) next(send func(data []byte) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := send(payload(s.sent + 1))
	if err == nil {
		s.sent++
		sent.Add(1)
	}
	return err
}

// payload is a number, and up to 500 bytes behind it.
func payload(n int) []byte {
	return fmt.Appendf(nil, `[%d,"%s"]`, n, strings.Repeat("x", rand.IntN(500)))
}

func numberIn(data []byte) int {
	n, _, _ := strings.Cut(strings.TrimPrefix(string(data), "["), ",")
	i, err := strconv.Atoi(n)
	if err != nil {
		problems.add("a message was changed: %.40q", data)
	}
	return i
}

func (s *stream) came(data []byte) {
	if rand.IntN(20) == 0 {
		time.Sleep(rand.N(300 * time.Millisecond)) // what waits for the handler comes again if the connection ends
	}
	n := numberIn(data)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.late[n]:
		delete(s.late, n)
		missing.Add(-1)
	case n <= s.last:
		problems.add("%s: %d after %d", s.name, n, s.last)
	case n > s.sent+1: // the one that is being sent is not counted yet
		problems.add("%s: %d was never sent", s.name, n)
	default:
		if !s.gap {
			s.holes += n - s.last - 1
		}
		for k := s.last + 1; k < n; k++ {
			missing.Add(1)
			if s.doubtful > 0 {
				if s.late == nil {
					s.late = make(map[int]bool)
				}
				s.late[k] = true
			}
		}
		s.last, s.gap = n, false
	}
	arrived.Add(1)
}

func (s *stream) told(g session.Gap) {
	if s.exact {
		problems.add("%s: a gap: %+v", s.name, g)
	}
	if g.Lost {
		problems.add("%s: the session was lost", s.name)
	}
	gaps.Add(1)
	doubtful.Add(int64(g.Doubtful))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gap = true
	s.doubtful += int(g.Doubtful)
}

// gave notes what a server that has lost the session had not stored: of that its
// application is told, perhaps when the next server's messages have come.
func (s *stream) gave(lost uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost += int(lost)
}

// complete tells whether everything has come.
func (s *stream) complete() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.holes <= s.lost+s.doubtful && (s.last >= s.sent-s.lost || s.gap)
}

// A life is a client, its servers, and what goes both ways.
type life struct {
	up, down stream
	exact    bool // one server, whose buffer is large enough: nothing is missing, and every call is answered
	client   *session.Client

	mu   sync.Mutex
	peer *session.Session // the server's end, wherever it is
}

func (l *life) server() *session.Session {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.peer
}

func (l *life) isAt(s *session.Session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.peer = s
}

var (
	echo = map[string]session.Method{"echo": func(_ context.Context, _ *session.Session, data []byte) ([]byte, error) {
		time.Sleep(rand.N(20 * time.Millisecond))
		return data, nil
	}}
	config = websocket.Config{
		KeepAlive: time.Second, KeepAliveTimeout: time.Second, CloseTimeout: time.Second, WriteTimeout: 3 * time.Second,
	}
)

// patience is how long calls wait: where messages are dropped, answers are too.
func (l *life) patience() time.Duration {
	if l.exact {
		return 30 * time.Second
	}
	return 5 * time.Second
}

// host is what a life's server is like.
func (l *life) host(store session.Store, buffer int) *session.Server {
	return &session.Server{
		Store: store,
		Config: session.Config{
			Buffer: buffer, DropOldest: true, Methods: echo, CallTimeout: l.patience(),
			Message: func(_ *session.Session, _ string, data []byte) { l.up.came(data) },
			Gap:     func(_ *session.Session, g session.Gap) { l.up.told(g) },
		},
		Open: l.isAt,
		Resume: func(s *session.Session) {
			moves.Add(1)
			l.isAt(s)
		},
		Close: func(s *session.Session) {
			// What one server has taken to send, and has not stored when it lost the
			// session, it tells its application of: that is not silence either.
			l.down.gave(s.Stats().Lost)
			if s.Err() == session.ErrLost {
				problems.add("%s: the store has forgotten it", l.up.name)
			}
		},
	}
}

// A world is servers, proxies and clients for a while.
type world struct {
	calm    atomic.Bool // the proxies do no harm any more
	muxes   [2]*http.ServeMux
	urls    [2]string // through the proxies
	lives   []*life
	stops   []func()
	running sync.WaitGroup // clients
	working sync.WaitGroup // who has them send and call
}

// newWorld starts two servers, each behind a proxy.
func newWorld() *world {
	w := new(world)
	for i := range w.muxes {
		w.muxes[i] = http.NewServeMux()
		h := httptest.NewServer(w.muxes[i])
		p, err := newProxy(h.Listener.Addr().String(), &w.calm)
		if err != nil {
			panic(err)
		}
		w.urls[i] = p.url()
		w.stops = append(w.stops, h.Close, p.close)
	}
	return w
}

// run has clients at work for d, and waits until all has arrived.
func (w *world) run(d time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	for i := range *clients {
		l := w.live(i)
		w.running.Go(func() {
			for ctx.Err() == nil { // a connection that comes late may take the session from a newer one
				l.client.Run(ctx)
			}
		})
		w.working.Go(func() { l.work(time.Now().Add(d)) })
		w.lives = append(w.lives, l)
	}
	half, end := time.AfterFunc(d/2, inBounds), time.AfterFunc(d, func() { w.calm.Store(true) })
	w.working.Wait()
	half.Stop()
	end.Stop()
	w.calm.Store(true)
	w.settle()
	cancel()
	w.running.Wait()
	for i := len(w.stops) - 1; i >= 0; i-- {
		w.stops[i]()
	}
}

// live makes the client with number i, and its side of the servers: every second
// client knows two, which share a store.
func (w *world) live(i int) *life {
	path := fmt.Sprintf("/%d", i)
	l := &life{exact: i%4 == 0}
	l.up.name, l.down.name = fmt.Sprintf("client %d to server", i), fmt.Sprintf("server to client %d", i)
	l.up.exact, l.down.exact = l.exact, l.exact
	var store session.Store
	servers := 1
	if i%2 == 1 {
		store, servers = new(session.Memory), 2
	}
	l.client = &session.Client{Config: session.Config{
		Methods: echo, CallTimeout: l.patience(),
		Message: func(_ *session.Session, _ string, data []byte) { l.down.came(data) },
		Gap:     func(_ *session.Session, g session.Gap) { l.down.told(g) },
	}}
	c := &l.client.Reconnect
	*c = reconnect.Client{
		Options: websocket.DialOptions{Config: config, Client: &http.Client{Timeout: 3 * time.Second}},
		Backoff: reconnect.Exponential{Base: 20 * time.Millisecond, Max: 200 * time.Millisecond},
		Good:    time.Hour, // so that the next is another server
	}
	for k := range servers {
		v := l.host(store, i/2%2*small)
		ws := &websocket.Server{
			Options: websocket.AcceptOptions{Config: config},
			Handler: func(ctx context.Context, c *websocket.Conn) {
				connections.Add(1)
				v.Serve(ctx, c)
			},
		}
		w.muxes[k].Handle(path, ws)
		c.URLs = append(c.URLs, w.urls[k]+path)
		w.stops = append(w.stops, v.Shutdown, func() {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			ws.Shutdown(ctx)
		})
	}
	return l
}

// settle waits until every client has got everything, within reason.
func (w *world) settle() {
	waiting := func() (left []*life) {
		for _, l := range w.lives {
			if !l.done() {
				left = append(left, l)
			}
		}
		return left
	}
	left := waiting()
	for end := time.Now().Add(patience); len(left) > 0 && time.Now().Before(end); left = waiting() {
		time.Sleep(50 * time.Millisecond)
	}
	if len(left) == 0 {
		return
	}
	problems.add("%d clients have not got everything after %v of calm", len(left), patience)
	for _, l := range left {
		problems.add("%v %v, client %+v, server %+v", &l.up, &l.down, l.client.Session().Stats(), l.server().Stats())
	}
}

func (s *stream) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprintf("%s: %d of %d, %d missing without a gap, %d told of, %d in doubt", s.name, s.last, s.sent, s.holes, s.lost, s.doubtful)
}

// done tells whether all is where it should be.
func (l *life) done() bool {
	s, c := l.server(), l.client.Session().Stats()
	return s != nil && l.up.complete() && l.down.complete() && c.Acknowledged+c.Lost == c.Sent
}

// work sends and calls, both ways, until then.
func (l *life) work(end time.Time) {
	var calls sync.WaitGroup
	defer calls.Wait()
	slots := make(chan struct{}, 20)
	call := func(s *session.Session, n int) {
		select {
		case slots <- struct{}{}:
		default:
			return
		}
		calls.Go(func() {
			defer func() { <-slots }()
			data, err := s.Call(context.Background(), "echo", payload(n))
			switch {
			case err != nil:
				unanswered.Add(1)
				if l.exact {
					problems.add("%s: call %d: %v", l.up.name, n, err)
				}
			case numberIn(data) != n:
				problems.add("the answer to another question: %d for %d", numberIn(data), n)
			default:
				answered.Add(1)
			}
		})
	}
	for n := 0; time.Now().Before(end) && problems.none(); n++ {
		time.Sleep(rand.N(40 * time.Millisecond))
		s, c := l.server(), l.client.Session()
		l.up.next(func(data []byte) error { return c.Send("n", data) })
		if s != nil {
			l.down.next(func(data []byte) error { return s.Send("m", data) })
		}
		if n%10 == 0 {
			call(c, n)
			if s != nil {
				call(s, n)
			}
		}
	}
}

// inBounds compares what is live with what sessions may hold: at each end its
// buffer twice, as much in rings, and a connection's own.
func inBounds() {
	if is, limit := live(), uint64(*clients)*(1<<20+2*small+512<<10)+32<<20; is > limit {
		problems.add("%d MB live, more than %d", is>>20, limit>>20)
	}
}

// failures are what must not be.
type failures struct {
	mu    sync.Mutex
	n     int
	texts []string
}

func (f *failures) add(format string, a ...any) {
	text := fmt.Sprintf(format, a...)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n++; len(f.texts) < 20 {
		f.texts = append(f.texts, text)
	}
}

func (f *failures) none() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.n == 0 }

func (f *failures) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return fmt.Sprintf("FAIL: %d problems\n%s\n", f.n, strings.Join(f.texts, "\n"))
}
