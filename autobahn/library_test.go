package autobahn_test

// The library itself, as server and as client, in every way of driving a connection.

import (
	"context"
	"crypto/tls"

	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/autobahn"
	"github.com/seed-07372d5a/websocket/engine"
)

// A driver echoes on a connection until it ends.
type driver func(ctx context.Context, c *websocket.Conn)

func echoNext(ctx context.Context, c *websocket.Conn) {
	defer c.CloseNow()
	for {
		m, err := c.Next(ctx)
		if err != nil {
			return
		}
		if err := c.Write(ctx, m); err != nil {
			return
		}
	}
}

// echoStream reads and writes piece by piece.
func echoStream(ctx context.Context, c *websocket.Conn) {
	defer c.CloseNow()
	buf := make([]byte, 4096)
	for {
		kind, r, err := c.Reader(ctx)
		if err != nil {
			return
		}
		w, err := c.Writer(ctx, kind)
		if err != nil {
			return
		}
		for err == nil {
			var n int
			n, err = r.Read(buf)
			w.Write(buf[:n])
		}
		if err != io.EOF {
			return
		}
		w.Close()
	}
}

var echoHandler = &websocket.Handler{Message: func(c *websocket.Conn, m websocket.Message) { c.Queue(m) }}

func echoServe(ctx context.Context, c *websocket.Conn) { c.Serve(ctx, echoHandler) }

// echoFeed is an event loop of one connection.
func echoFeed(ctx context.Context, c *websocket.Conn) {
	defer c.CloseNow()
	buf := make([]byte, 16<<10)
	err := c.Feed(nil, echoHandler)
	for err == nil {
		n, readErr := c.NetConn().Read(buf)
		if n > 0 {
			err = c.Feed(buf[:n], echoHandler)
		}
		if readErr != nil && err == nil {
			err = c.Feed(nil, echoHandler)
		}
	}
}

// A setup is one way to use the library.
type setup struct {
	name     string
	drive    driver // nil: an engine's loops, as a server only
	tls      bool
	compress *websocket.Compression
	messages int // in each case of 9.7, 9.8, 12 and 13: the full 1000 once; at most 50 as a client
}

var (
	takeover = &websocket.Compression{Takeover: true, Threshold: 1}
	afresh   = &websocket.Compression{WindowBits: 9, Threshold: 1}
)

var setups = []setup{
	{"on, takeover, Next", echoNext, false, takeover, 1000},
	{"on, afresh, 9 bits, TLS, Next", echoNext, true, afresh, 5},
	{"on, takeover, Reader", echoStream, false, takeover, 5},
	{"on, takeover, Serve", echoServe, false, takeover, 10},
	{"on, takeover, Feed", echoFeed, false, takeover, 10},
	{"off, Next", echoNext, false, nil, 50},
	{"off, TLS, Serve", echoServe, true, nil, 20},
	{"off, TLS, Feed", echoFeed, true, nil, 20},
	{"on, takeover, engine", nil, false, takeover, 10},
	{"on, afresh, 9 bits, engine", nil, false, afresh, 5},
	{"off, engine", nil, false, nil, 50},
	{"off, TLS, engine", nil, true, nil, 20},
	{"on, takeover, TLS, engine", nil, true, takeover, 5},
}

const limit = 16 << 20

func (s setup) config() websocket.Config {
	return websocket.Config{ReadLimit: limit, QueueLimit: 256 << 20, Compression: s.compress}
}

func (s setup) suite() autobahn.Config {
	cfg := autobahn.Config{Agent: "library", Parallel: 4, Messages: s.messages, Limit: limit, Patience: 10, NoWirelog: true}
	if testing.Short() || racing {
		cfg.Messages = min(cfg.Messages, 5)
	}
	return cfg
}

func TestLibraryServer(t *testing.T) {
	for _, s := range setups {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			compare(t, "server, "+s.name, func(run []string) []*autobahn.Result { return s.asServer(t, run) })
		})
	}
}

func TestLibraryClient(t *testing.T) {
	for _, s := range setups {
		if s.drive == nil {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			compare(t, "client, "+s.name, func(run []string) []*autobahn.Result { return s.asClient(t, run) })
		})
	}
}

// handler is what a server of the setup serves with.
func (s setup) handler(t *testing.T) http.Handler {
	o := websocket.AcceptOptions{Config: s.config()}
	if s.drive == nil {
		e := &engine.Engine{Handler: *echoHandler, Options: o}
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			require.NoError(t, e.Shutdown(ctx))
		})
		return e
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &o)
		if err == nil {
			s.drive(context.Background(), c)
		}
	})
}

func (s setup) asServer(t *testing.T, run []string) []*autobahn.Result {
	t.Helper()
	h := s.handler(t)
	srv := httptest.NewUnstartedServer(h)
	if e, ok := h.(*engine.Engine); ok {
		srv.Listener = e.Listener(srv.Listener)
	}
	cfg := s.suite()
	cfg.Run = run
	if s.tls {
		srv.StartTLS()
		cfg.TLS = srv.Client().Transport.(*http.Transport).TLSClientConfig
	} else {
		srv.Start()
	}
	defer srv.Close()
	cfg.URL = "ws" + strings.TrimPrefix(srv.URL, "http")
	report, err := autobahn.RunServer(t.Context(), cfg)
	require.NoError(t, err)
	return report.Results("library")
}

func (s setup) asClient(t *testing.T, run []string) []*autobahn.Result {
	t.Helper()
	cfg := s.suite()
	cfg.Run, cfg.Messages = run, min(cfg.Messages, 50)
	suite, err := autobahn.NewServer(cfg)
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	base, client := "ws://"+l.Addr().String(), http.DefaultClient
	if s.tls {
		srv := httptest.NewTLSServer(nil) // for its certificate
		client = srv.Client()
		base = "wss://" + l.Addr().String()
		l = tls.NewListener(l, srv.TLS)
		srv.Close()
	}
	go suite.Serve(l)
	defer func() {
		suite.Close()
		<-suite.Done()
	}()
	runClient(t, s, base, client)
	return suite.Report().Results("library")
}

// runClient is what any testee client does: count, run, update.
func runClient(t *testing.T, s setup, base string, client *http.Client) {
	ctx := t.Context()
	c, err := websocket.Dial(ctx, base+"/getCaseCount", &websocket.DialOptions{Client: client})
	require.NoError(t, err)
	m, err := c.Read(ctx)
	require.NoError(t, err)
	var count int
	_, err = fmt.Sscan(string(m.Data), &count)
	require.NoError(t, err)
	c.CloseNow()
	turn := make(chan int)
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			for n := range turn {
				url := fmt.Sprintf("%s/runCase?case=%d&agent=library", base, n)
				dialing, cancel := context.WithTimeout(ctx, 8*time.Second)
				c, err := websocket.Dial(dialing, url, &websocket.DialOptions{Client: client, Config: s.config()})
				cancel()
				if err == nil {
					s.drive(ctx, c)
				}
			}
		})
	}
	for n := range count {
		turn <- n + 1
	}
	close(turn)
	workers.Wait()
	c, err = websocket.Dial(ctx, base+"/updateReports?agent=library", &websocket.DialOptions{Client: client})
	require.NoError(t, err)
	_, err = c.Read(ctx)
	var closed *websocket.CloseError
	require.True(t, errors.As(err, &closed), "%v", err)
}

// compare holds results against the expectations: whatever is not OK must be listed, and what is listed must happen.
// Cases have deadlines, and a machine that is busy with other things may miss them; so what differs is run again by
// itself, and counts if it differs three times.
func compare(t *testing.T, setup string, run func(ids []string) []*autobahn.Result) {
	t.Helper()
	f, err := os.Open("testdata/library.txt")
	require.NoError(t, err)
	defer f.Close()
	all, err := autobahn.ReadExpectations(f)
	require.NoError(t, err)
	list := all.For(setup)
	doubtful := list.Deviations(run(nil))
	for round := 0; len(doubtful) > 0 && round < 2; round++ {
		for _, res := range doubtful {
			t.Logf("%s: run again: %s", setup, res.Line())
		}
		doubtful = list.Deviations(run(ids(doubtful)))
	}
	for _, res := range doubtful {
		t.Errorf("%s: %s", setup, res.Line())
	}
	for _, e := range list.Unmet() {
		t.Errorf("%s: no case %s was %s", setup, e.IDs, e.Verdicts)
	}
}

func ids(results []*autobahn.Result) []string {
	var all []string
	for _, res := range results {
		all = append(all, res.ID)
	}
	return all
}

// The cases about limits, at the size that the library has by itself.
func TestLibraryLimit(t *testing.T) {
	const small = 1 << 20
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Config: websocket.Config{Compression: takeover}})
		if err == nil {
			echoNext(context.Background(), c)
		}
	}))
	defer srv.Close()
	report, err := autobahn.RunServer(t.Context(), autobahn.Config{
		URL: "ws" + strings.TrimPrefix(srv.URL, "http"), Agent: "library", Limit: small,
		Run: []string{"20.5.10", "20.14.2", "20.14.3", "20.14.4"}, Patience: 3,
	})
	require.NoError(t, err)
	results := report.Results("library")
	require.Len(t, results, 4)
	for _, res := range results {
		require.Equal(t, "OK/OK", string(res.Behavior)+"/"+string(res.BehaviorClose), res.Line())
	}
}
