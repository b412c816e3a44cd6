package websocket

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket/internal/memnet"
)

// Every exported method against every other, on 2 to 16 goroutines (A90). The
// tables have an entry for every method there is: TestMatrixComplete.

// A ledger makes messages that carry a checksum, and checks those that come.
type ledger struct {
	blind bool // what was lent may be another's already
	mu    sync.Mutex
	last  map[int]int // the last message of each goroutine
	came  int
	wrong []string
}

// A hand writes the messages of one goroutine.
type hand struct {
	id, n int
	acked *atomic.Int64 // messages that were taken
}

func (h *hand) message() Message {
	h.n++
	size := rand.IntN(200)
	if rand.IntN(8) == 0 {
		size = rand.IntN(10_000)
	}
	body := seq(size)
	s := fmt.Sprintf("%d %d %d %08x %s", h.id, h.n, size, crc32.ChecksumIEEE(body), body)
	if h.n%2 == 0 {
		return Binary([]byte(s))
	}
	return Text(s)
}

// ack counts a message that was taken.
func (h *hand) ack(err error) error {
	if err == nil {
		h.acked.Add(1)
	}
	return err
}

// check enters a message into the ledger.
func (l *ledger) check(p []byte) {
	if l.blind {
		return
	}
	var id, n, size int
	var sum uint32
	_, err := fmt.Sscanf(string(p[:min(len(p), 60)]), "%d %d %d %x", &id, &n, &size, &sum)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.came++
	switch {
	case err != nil || size > len(p) || crc32.ChecksumIEEE(p[len(p)-size:]) != sum:
		l.wrong = append(l.wrong, fmt.Sprintf("not a message: %.60q", p))
	case n <= l.last[id]:
		l.wrong = append(l.wrong, fmt.Sprintf("%d of %d after %d", n, id, l.last[id]))
	}
	l.last[id] = n
}

func newLedger() *ledger { return &ledger{last: map[int]int{}} }

// readers are the ways to read; each reads until the connection ends.
var readers = map[string]func(ctx context.Context, c *Conn, l *ledger) error{
	"Read": func(ctx context.Context, c *Conn, l *ledger) error {
		for {
			m, err := c.Read(ctx)
			if err != nil {
				return err
			}
			l.check(m.Data)
		}
	},
	"Next": func(ctx context.Context, c *Conn, l *ledger) error {
		for {
			m, err := c.Next(ctx)
			if err != nil {
				return err
			}
			l.check(m.Data)
		}
	},
	"Messages": func(ctx context.Context, c *Conn, l *ledger) (end error) {
		for m, err := range c.Messages(ctx) {
			if err != nil {
				return err
			}
			l.check(m.Data)
		}
		return nil
	},
	"Reader": func(ctx context.Context, c *Conn, l *ledger) error {
		for {
			_, r, err := c.Reader(ctx)
			if err != nil {
				return err
			}
			b, err := io.ReadAll(r)
			if err != nil {
				return err
			}
			l.check(b)
		}
	},
	"Buffered": func(ctx context.Context, c *Conn, l *ledger) error {
		for {
			m, err := c.Next(ctx)
			if err != nil {
				return err
			}
			l.check(m.Data)
			if !c.Buffered() {
				c.Flush(ctx)
			}
		}
	},
	"Serve": func(ctx context.Context, c *Conn, l *ledger) error {
		return c.Serve(ctx, &Handler{Message: func(_ *Conn, m Message) { l.check(m.Data) }})
	},
	"Feed": func(_ context.Context, c *Conn, l *ledger) error {
		h := &Handler{Message: func(_ *Conn, m Message) { l.check(m.Data) }}
		err := c.Feed(nil, h)
		for p := make([]byte, 3000); err == nil; {
			n, _ := c.NetConn().Read(p)
			err = c.Feed(p[:n], h)
		}
		return err
	},
}

// callers call the other methods once.
var callers = map[string]func(ctx context.Context, c *Conn, h *hand) error{
	"Write":    func(ctx context.Context, c *Conn, h *hand) error { return h.ack(c.Write(ctx, h.message())) },
	"Queue":    func(_ context.Context, c *Conn, h *hand) error { return h.ack(c.Queue(h.message())) },
	"Post":     func(_ context.Context, c *Conn, h *hand) error { return h.ack(c.Post(Prepare(h.message()))) },
	"Flush":    func(ctx context.Context, c *Conn, _ *hand) error { return c.Flush(ctx) },
	"Ping":     func(ctx context.Context, c *Conn, _ *hand) error { return c.Ping(ctx) },
	"Close":    func(_ context.Context, c *Conn, _ *hand) error { return c.Close(4000, "") },
	"CloseNow": func(_ context.Context, c *Conn, _ *hand) error { return c.CloseNow() },
	"Context":  func(_ context.Context, c *Conn, _ *hand) error { return context.Cause(c.Context()) },
	"Subprotocol": func(_ context.Context, c *Conn, _ *hand) error {
		if c.Subprotocol() != "sub" {
			return errors.New("another subprotocol")
		}
		return nil
	},
	"NetConn": func(_ context.Context, c *Conn, _ *hand) error {
		if c.NetConn().RemoteAddr().Network() != "mem" {
			return errors.New("another network")
		}
		return nil
	},
	"Writer": func(ctx context.Context, c *Conn, h *hand) error {
		w, err := c.Writer(ctx, MessageBinary)
		if err != nil {
			return err
		}
		p := h.message().Data
		for _, part := range [][]byte{p[:len(p)/3], p[len(p)/3:]} {
			if _, err := w.Write(part); err != nil {
				return err
			}
		}
		return h.ack(w.Close())
	},
}

// others are the methods that are not Conn's, and what covers them.
var others = map[string]string{
	"(c CloseCode) String": "pure", "(e *CloseError) Error": "pure", "(e *HandshakeError) Error": "pure",
	"(e *ProtocolError) Error": "pure", "(m Message) Clone": "pure", "(t MessageType) String": "pure",
	"(s *Server) Conns": "TestMatrixServer", "(s *Server) ServeHTTP": "TestMatrixServer", "(s *Server) Shutdown": "TestMatrixServer",
}

// A method that is added has to be added to the matrix.
func TestMatrixComplete(t *testing.T) {
	conn := reflect.TypeFor[*Conn]()
	for i := range conn.NumMethod() {
		name := conn.Method(i).Name
		require.True(t, callers[name] != nil || readers[name] != nil, "Conn.%s is in no table", name)
	}
	require.Equal(t, conn.NumMethod(), len(callers)+len(readers), "a table has a method that is gone")
	api, err := os.ReadFile("api.txt")
	require.NoError(t, err)
	for _, m := range regexp.MustCompile(`(?m)^func (\(\w+ (\*?\w+)\) \w+)`).FindAllStringSubmatch(string(api), -1) {
		if m[2] != "*Conn" {
			require.Contains(t, others, m[1])
		}
	}
}

// expected are the errors that a call may return because of what others do.
func expected(err error) bool {
	var bye *CloseError
	switch {
	case err == nil, err == errReaders, err == ErrQueueFull,
		errors.Is(err, net.ErrClosed), errors.Is(err, context.Canceled), errors.Is(err, syscall.EPIPE),
		errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &bye) && (bye.Code == 4000 || bye.Code == CloseInternalError): // for a Writer that was given up
		return true
	}
	return false
}

// TestMatrix calls two methods at the same time, one on the first goroutine and
// the other on all others; a third reads if neither does. What arrives is whole,
// in order and, if nothing cut the connection, complete.
func TestMatrix(t *testing.T) {
	names := slices.Sorted(maps.Keys(callers))
	for _, zip := range []*Compression{nil, {Takeover: true, Threshold: 1, WindowBits: 9}} {
		for _, client := range []bool{false, true} {
			t.Run(fmt.Sprint("client=", client, " compressed=", zip != nil), func(t *testing.T) {
				n := 0
				for _, a := range names {
					for _, b := range names {
						n++
						runPair(t, "Next", a, b, 2+n%15, client, zip)
					}
					for _, r := range slices.Sorted(maps.Keys(readers)) {
						n++
						runPair(t, r, a, a, 2+n%15, client, zip)
					}
				}
			})
		}
	}
}

func runPair(t *testing.T, reader, a, b string, goroutines int, client bool, zip *Compression) {
	synctest.Test(t, func(t *testing.T) {
		x, y := memnet.Pipe(2000)
		cfg := Config{KeepAlive: -1, Compression: zip}
		p := Params{Client: client, Subprotocol: "sub", Config: cfg}
		q := Params{Client: !client, Config: cfg}
		if zip != nil {
			p.Extensions = "permessage-deflate; server_max_window_bits=9; client_max_window_bits=9"
			q.Extensions = p.Extensions
		}
		c, peer := NewConn(x, p), NewConn(y, q)
		mine, theirs := newLedger(), newLedger()
		var sent, acked atomic.Int64
		var wg, readWG sync.WaitGroup
		call := func(who, what string, err error) {
			if !expected(err) {
				t.Errorf("%s: %s: %v", who, what, err)
			}
		}
		readWG.Go(func() { call("conn", reader, readers[reader](bg, c, mine)) })
		readWG.Go(func() { call("peer", "Read", readers["Read"](bg, peer, theirs)) })
		h := &hand{id: 1, acked: &sent}
		wg.Go(func() {
			for range 4 {
				call("peer", "Write", callers["Write"](bg, peer, h))
			}
		})
		for i := range goroutines {
			name := a
			if i > 0 {
				name = b
			}
			ctx, cancel := context.WithCancel(bg)
			defer cancel()
			h := &hand{id: i + 1, acked: &acked}
			wg.Go(func() {
				for range 3 {
					call("conn", name, callers[name](ctx, c, h))
				}
			})
		}
		wg.Wait()
		c.Flush(bg)
		synctest.Wait() // until all has come
		call("conn", "Close", c.Close(4000, ""))
		readWG.Wait()
		c.CloseNow()
		peer.CloseNow()

		what := fmt.Sprintf("%s and %s×%d, read by %s", a, b, goroutines-1, reader)
		for _, l := range []*ledger{mine, theirs} {
			if len(l.wrong) > 0 {
				t.Errorf("%s: %s", what, l.wrong)
			}
		}
		ends := func(name string) bool { return name == "Close" || name == "CloseNow" }
		if !ends(a) && !ends(b) && (theirs.came != int(acked.Load()) || mine.came != int(sent.Load())) {
			t.Errorf("%s: %d of %d messages came, and %d of %d", what, theirs.came, acked.Load(), mine.came, sent.Load())
		}
		if reader != "Feed" && since() != 0 { // who is fed closes after lingering
			t.Errorf("%s: it took %v", what, since())
		}
		if t.Failed() {
			t.Log(what)
		}
	})
}

// TestMatrixMisuse has two goroutines and more read at the same time: they get
// an error, and nothing breaks.
func TestMatrixMisuse(t *testing.T) {
	n := 0
	for a, readA := range readers {
		for b, readB := range readers {
			if a == "Buffered" || b == "Buffered" { // has no error to return
				continue
			}
			n++
			synctest.Test(t, func(t *testing.T) {
				x, y := memnet.Pipe(2000)
				c, peer := NewConn(x, Params{Config: quiet}), NewConn(y, Params{Client: true, Config: quiet})
				var wg sync.WaitGroup
				wg.Go(func() { peer.Serve(bg, nil) })
				wg.Go(func() {
					var acked atomic.Int64
					h := &hand{id: 1, acked: &acked}
					for range 4 {
						callers["Write"](bg, peer, h)
					}
				})
				for i := range 2 + n%15 {
					read, l := readA, &ledger{blind: true}
					if i > 0 {
						read = readB
					}
					wg.Go(func() {
						if err := read(bg, c, l); err == nil {
							t.Errorf("%s against %s: no error", a, b)
						}
					})
				}
				synctest.Wait()
				c.CloseNow()
				peer.CloseNow()
				wg.Wait()
			})
		}
	}
}

// TestMatrixAll has 16 goroutines call everything, in any order, and contexts
// that end meanwhile.
func TestMatrixAll(t *testing.T) {
	names := slices.Sorted(maps.Keys(callers))
	for round := range 40 {
		synctest.Test(t, func(t *testing.T) {
			x, y := memnet.Pipe(500 << (round % 8))
			client := round%2 == 0
			c, peer := NewConn(x, Params{Client: client, Subprotocol: "sub"}), NewConn(y, Params{Client: !client})
			mine, theirs := newLedger(), newLedger()
			var wg sync.WaitGroup
			for _, r := range []struct {
				c *Conn
				l *ledger
			}{{c, mine}, {peer, theirs}} {
				wg.Go(func() { readers["Read"](bg, r.c, r.l) })
				var acked atomic.Int64
				for id := range 8 {
					h := &hand{id: id, acked: &acked}
					wg.Go(func() {
						for range 20 {
							name := names[rand.IntN(len(names))]
							if name == "Subprotocol" || name == "NetConn" || strings.HasPrefix(name, "Close") && rand.IntN(30) > 0 {
								continue
							}
							ctx, cancel := context.WithCancel(bg)
							if rand.IntN(20) == 0 {
								go cancel()
							}
							if err := callers[name](ctx, r.c, h); !expected(err) {
								t.Errorf("%s: %v", name, err)
							}
							cancel()
						}
					})
				}
			}
			done := make(chan struct{})
			go func() {
				pass(time.Minute)
				c.CloseNow()
				close(done)
			}()
			wg.Wait()
			<-done
			if wrong := append(mine.wrong, theirs.wrong...); len(wrong) > 0 {
				t.Error(wrong)
			}
		})
	}
}

// TestMatrixServer does to a Server all that can be done to it at the same time.
func TestMatrixServer(t *testing.T) {
	type do func(ctx context.Context, s *Server, client *http.Client) error
	calls := map[string]do{
		"ServeHTTP": func(ctx context.Context, _ *Server, client *http.Client) error {
			c, err := Dial(ctx, "ws://mem/", &DialOptions{Client: client})
			var refused *HandshakeError
			if errors.As(err, &refused) && refused.Status == http.StatusServiceUnavailable {
				return nil
			}
			if err != nil {
				return err
			}
			defer c.Close(1000, "")
			if err := c.Write(ctx, Text("x")); err != nil {
				return nil // it is being shut down
			}
			c.Read(ctx)
			return nil
		},
		"Shutdown": func(ctx context.Context, s *Server, _ *http.Client) error { return s.Shutdown(ctx) },
		"Conns": func(ctx context.Context, s *Server, _ *http.Client) error {
			for c := range s.Conns() {
				c.Post(Text("to all"))
			}
			return nil
		},
	}
	server := reflect.TypeFor[*Server]()
	for i := range server.NumMethod() {
		require.Contains(t, calls, server.Method(i).Name)
	}
	n := 0
	for a := range calls {
		for b := range calls {
			for range 3 {
				n++
				synctest.Test(t, func(t *testing.T) {
					l := newMemListener()
					s := &Server{Handler: echo}
					hs := &http.Server{Handler: s}
					go hs.Serve(l)
					tr := &http.Transport{DialContext: l.dialContext}
					client := &http.Client{Transport: tr}
					var wg sync.WaitGroup
					for i := range 2 + n%15 {
						name := a
						if i > 0 {
							name = b
						}
						for _, name := range []string{name, "ServeHTTP"} {
							wg.Go(func() {
								if err := calls[name](bg, s, client); err != nil {
									t.Errorf("%s against %s: %s: %v", a, b, name, err)
								}
							})
						}
					}
					wg.Wait()
					if err := s.Shutdown(bg); err != nil {
						t.Error(err)
					}
					hs.Close()
					tr.CloseIdleConnections()
					if since() > 4*time.Second {
						t.Errorf("it took %v", since())
					}
				})
			}
		}
	}
}

// Misuse is an error and never a panic (A91): readers and writers after their
// time, nil where a value is meant, zero values.
func TestMisuse(t *testing.T) {
	var none []byte
	live := func(f func(c, peer *Conn) error) func() error {
		return func() error {
			c, peer := pipe(quiet, quiet)
			defer c.CloseNow()
			defer peer.CloseNow()
			return f(c, peer)
		}
	}
	closedConn := func(f func(*Conn) error) func() error {
		return live(func(c, _ *Conn) error { c.CloseNow(); return f(c) })
	}
	reader := func(after func(c *Conn, r io.Reader)) func() error {
		return live(func(c, peer *Conn) error {
			peer.Post(Text("one"))
			peer.Post(Text("two"))
			_, r, err := c.Reader(bg)
			if err != nil {
				return nil
			}
			after(c, r)
			_, err = r.Read(make([]byte, 10))
			return err
		})
	}
	writer := func(after func(c *Conn, w io.WriteCloser), then func(io.WriteCloser) error) func() error {
		return live(func(c, peer *Conn) error {
			w, err := c.Writer(bg, MessageText)
			if err != nil {
				return nil
			}
			after(c, w)
			return then(w)
		})
	}
	write := func(w io.WriteCloser) error { _, err := w.Write([]byte("x")); return err }
	for name, c := range map[string]struct {
		do   func() error
		want error // nil: none
	}{
		"Reader after its end": {reader(func(c *Conn, r io.Reader) { io.ReadAll(r) }), io.EOF},
		"Reader twice after its end": {reader(func(c *Conn, r io.Reader) {
			io.ReadAll(r)
			r.Read(none)
		}), io.EOF},
		"Reader after the next message":       {reader(func(c *Conn, r io.Reader) { c.Reader(bg) }), errStale},
		"Reader after the next message, Read": {reader(func(c *Conn, r io.Reader) { c.Read(bg) }), errStale},
		"Reader after CloseNow":               {reader(func(c *Conn, r io.Reader) { c.CloseNow() }), net.ErrClosed},
		"Writer after its Close":              {writer(func(_ *Conn, w io.WriteCloser) { w.Close() }, write), errWriterClosed},
		"Writer closed twice":                 {writer(func(_ *Conn, w io.WriteCloser) { w.Close() }, io.WriteCloser.Close), nil},
		"Writer after CloseNow":               {writer(func(c *Conn, w io.WriteCloser) { c.CloseNow() }, io.WriteCloser.Close), net.ErrClosed},
		"Writer after bad text": {writer(func(c *Conn, w io.WriteCloser) {
			w.Write([]byte("\xff"))
		}, io.WriteCloser.Close), errText},
		"Writer after the next message": {writer(func(c *Conn, w io.WriteCloser) {
			w.Close()
			c.Write(bg, Text("next"))
		}, write), errWriterClosed},
		"Writer of nothing":         {live(func(c, _ *Conn) error { _, err := c.Writer(bg, 0); return err }), errType},
		"Writer of type 3":          {live(func(c, _ *Conn) error { _, err := c.Writer(bg, 3); return err }), errType},
		"Write of a zero Message":   {live(func(c, _ *Conn) error { return c.Write(bg, Message{}) }), errType},
		"Post of a zero Message":    {live(func(c, _ *Conn) error { return c.Post(Message{}) }), errType},
		"Queue of Prepare(zero)":    {live(func(c, _ *Conn) error { return c.Queue(Prepare(Message{})) }), errType},
		"Write of no data":          {live(func(c, _ *Conn) error { return c.Write(bg, Binary(nil)) }), nil},
		"Feed of nothing, nil h":    {live(func(c, _ *Conn) error { return c.Feed(nil, nil) }), nil},
		"Feed after CloseNow":       {closedConn(func(c *Conn) error { return c.Feed([]byte{1}, nil) }), net.ErrClosed},
		"Feed twice after CloseNow": {closedConn(func(c *Conn) error { c.Feed(nil, nil); return c.Feed(nil, nil) }), net.ErrClosed},
		"Serve twice":               {closedConn(func(c *Conn) error { c.Serve(bg, nil); return c.Serve(bg, new(Handler)) }), net.ErrClosed},
		"Close twice, CloseNow":     {live(func(c, _ *Conn) error { c.CloseNow(); c.Close(1000, ""); return c.Close(0, "") }), nil},
		"Ping after CloseNow":       {closedConn(func(c *Conn) error { return c.Ping(bg) }), net.ErrClosed},
		"Flush after CloseNow":      {closedConn(func(c *Conn) error { return c.Flush(bg) }), nil},
		"Buffered after CloseNow":   {closedConn(func(c *Conn) error { c.Buffered(); return nil }), nil},
		"Context after CloseNow":    {closedConn(func(c *Conn) error { return context.Cause(c.Context()) }), net.ErrClosed},
		"zero Config and Params":    {func() error { a, _ := memnet.Pipe(1); return NewConn(a, Params{}).CloseNow() }, nil},
		"Accept, nil options":       {func() error { _, err := Accept(&bareWriter{}, new(http.Request), nil); return err }, new(HandshakeError)},
		"Upgrade, a zero request":   {func() error { _, _, err := Upgrade(&bareWriter{}, &http.Request{}, nil); return err }, new(HandshakeError)},
		"Dial of nothing":           {func() error { _, err := Dial(bg, "", nil); return err }, errAny},
		"Dial of a NUL":             {func() error { _, err := Dial(bg, "ws://\x00", &DialOptions{}); return err }, errAny},
		"ParseHeader, nil":          {func() error { ParseHeader(nil); return nil }, nil},
		"AppendHeader, zero":        {func() error { AppendHeader(nil, Header{}); return nil }, nil},
		"AppendHeader, negative":    {func() error { AppendHeader(nil, Header{Len: -1}); return nil }, nil},
		"Mask, nil":                 {func() error { Mask(nil, 1); return nil }, nil},
		"CodeOf, nil and zero":      {func() error { CodeOf(nil); CodeOf(&CloseError{}); return nil }, nil},
		"texts of zero values": {func() error {
			_ = fmt.Sprint(&CloseError{}, &ProtocolError{}, &HandshakeError{}, CloseCode(0))
			return nil
		}, nil},
		"AcceptKey of nothing":       {func() error { AcceptKey(""); return nil }, nil},
		"Clone of a zero Message":    {func() error { Message{}.Clone(); return nil }, nil},
		"ServeHTTP of a zero Server": {func() error { new(Server).ServeHTTP(&bareWriter{}, &http.Request{}); return nil }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			switch err := c.do(); want := c.want.(type) {
			case nil:
				if !(name == "Close twice, CloseNow") {
					require.NoError(t, err)
				}
			case *HandshakeError:
				require.ErrorAs(t, err, &want)
			default:
				if want == errAny {
					require.Error(t, err)
				} else {
					require.ErrorIs(t, err, want)
				}
			}
		})
	}
}

var errAny = errors.New("any")

// A bareWriter is a ResponseWriter that can do nothing else.
type bareWriter struct{ h http.Header }

func (w *bareWriter) Header() http.Header {
	if w.h == nil {
		w.h = http.Header{}
	}
	return w.h
}
func (*bareWriter) Write(p []byte) (int, error) { return len(p), nil }
func (*bareWriter) WriteHeader(int)             {}
