package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/internal/leak"
	"github.com/seed-07372d5a/websocket/reconnect"
	"github.com/seed-07372d5a/websocket/wstest"
)

func TestMain(m *testing.M) { os.Exit(leak.Run(m)) }

// A world is a server and a client on a network.
type world struct {
	n      *wstest.Network
	server *Server
	client *Client
	stop   func() // the server
	cancel func() // the client
	done   chan error

	away atomic.Bool // nobody is reached any more

	mu     sync.Mutex
	opened []*Session
}

// start makes a world; set may change it before anything runs.
func start(t *testing.T, set func(w *world)) *world {
	w := &world{n: new(wstest.Network), server: new(Server), client: new(Client), done: make(chan error, 1)}
	w.client.Reconnect = reconnect.Client{URLs: []string{"ws://a"}, Options: websocket.DialOptions{Client: w.n.Client()}}
	w.n.Dial = func(context.Context, string) error {
		if w.away.Load() {
			return errors.New("away")
		}
		return nil
	}
	if withStore {
		w.server.Store = new(Memory)
	}
	if set != nil {
		set(w)
	}
	open := w.server.Open
	w.server.Open = func(s *Session) {
		w.mu.Lock()
		w.opened = append(w.opened, s)
		w.mu.Unlock()
		if open != nil {
			open(s)
		}
	}
	w.serve()
	ctx, cancel := context.WithCancel(t.Context())
	w.cancel = cancel
	go func() { w.done <- w.client.Run(ctx) }()
	synctest.Wait()
	return w
}

func (w *world) serve() {
	server := w.server
	w.stop = w.n.Serve("a:80", &websocket.Server{Handler: func(ctx context.Context, c *websocket.Conn) { server.Serve(ctx, c) }})
}

// end lets everything go.
func (w *world) end() {
	w.cancel()
	<-w.done
	w.stop()
	synctest.Wait()
	w.server.Shutdown()
	synctest.Wait()
}

// peer is the server's end of the session.
func (w *world) peer() *Session {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.opened[len(w.opened)-1]
}

// withStore has worlds keep their sessions in a store.
var withStore bool

// All that a session does it does with a store too.
func TestWithStore(t *testing.T) {
	withStore = true
	defer func() { withStore = false }()
	for name, test := range map[string]func(*testing.T){
		"Messages": TestMessages, "Calls": TestCalls, "CallCancelled": TestCallCancelled, "Concurrency": TestConcurrency,
		"HandlersDoNotBlock": TestHandlersDoNotBlock, "MethodFails": TestMethodFails, "Expiry": TestExpiry, "Gaps": TestGaps,
		"Replaced": TestReplaced, "ServerRestarts": TestServerRestarts,
	} {
		t.Run(name, test)
	}
}

// A log is what the handlers of one end were called with.
type log struct {
	mu    sync.Mutex
	lines []string
}

func (l *log) add(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, fmt.Sprintf(format, args...))
}

func (l *log) message(_ *Session, name string, data []byte) { l.add("%s %s", name, data) }

func (l *log) gap(_ *Session, g Gap) {
	if g.Doubtful > 0 {
		l.add("doubtful %d", g.Doubtful)
		return
	}
	l.add("gap {Messages:%d Lost:%v Unacknowledged:%d}", g.Messages, g.Lost, g.Unacknowledged)
}

func (l *log) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.lines...)
}

func number(i int) []byte { return fmt.Append(nil, i) }

// Messages of both ends arrive in order, whenever they were sent, over however
// many connections, and are counted.
func TestMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at, back log
		w := start(t, func(w *world) {
			w.server.Config.Message = at.message
			w.server.Open = func(s *Session) { s.Send("hello", nil) }
			w.client.Config.Message = back.message
			w.client.Session().Send("n", number(0)) // before there is a connection
		})
		var wantAt, wantBack []string
		wantAt, wantBack = append(wantAt, "n 0"), append(wantBack, "hello ")
		for i := 1; i <= 50; i++ {
			require.NoError(t, w.client.Session().Send("n", number(i)))
			require.NoError(t, w.peer().Send("m", number(i)))
			wantAt, wantBack = append(wantAt, fmt.Sprint("n ", i)), append(wantBack, fmt.Sprint("m ", i))
			if i%10 == 0 {
				w.n.Cut("a:80")
			}
			if i%15 == 0 {
				time.Sleep(20 * time.Second)
			}
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		require.Equal(t, wantAt, at.all())
		require.Equal(t, wantBack, back.all())
		for _, s := range []*Session{w.client.Session(), w.peer()} {
			st := s.Stats()
			require.EqualValues(t, 51, st.Sent)
			require.EqualValues(t, 51, st.Acknowledged)
			require.Zero(t, st.Lost)
			require.Equal(t, 1.0, st.Share())
			require.Zero(t, s.bytes, "nothing is kept")
			require.Nil(t, s.buf)
		}
		require.Len(t, w.opened, 1, "it was one session")
		w.end()
	})
}

// Calls go both ways, thousands at a time, and answers find their question.
func TestCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		double := map[string]Method{"double": func(ctx context.Context, s *Session, data []byte) ([]byte, error) {
			var n int
			if err := json.Unmarshal(data, &n); err != nil {
				return nil, &Error{Code: "no_number", Message: "say one"}
			}
			time.Sleep(time.Duration(n%7) * time.Millisecond)
			return number(2 * n), nil
		}}
		w := start(t, func(w *world) {
			w.server.Config.Methods, w.client.Config.Methods = double, double
		})
		for _, s := range []*Session{w.client.Session(), w.peer()} {
			var wg sync.WaitGroup
			for i := range 2000 {
				wg.Go(func() {
					data, err := s.Call(t.Context(), "double", number(i))
					require.NoError(t, err)
					require.Equal(t, fmt.Sprint(2*i), string(data))
				})
			}
			time.Sleep(3 * time.Millisecond)
			w.n.Cut("a:80") // they survive it
			wg.Wait()
			_, err := s.Call(t.Context(), "double", []byte(`"two"`))
			require.Equal(t, &Error{"no_number", "say one"}, err)
			_, err = s.Call(t.Context(), "triple", nil)
			require.Equal(t, &Error{Code: CodeNoMethod}, err)
			require.Empty(t, s.calls)
		}
		synctest.Wait()
		require.Empty(t, w.peer().served.jobs)
		require.Zero(t, w.peer().served.running)
		w.end()
	})
}

// When a caller goes, the method's context ends.
func TestCallCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ends []string
		w := start(t, func(w *world) {
			w.client.Config.CallTimeout = 3 * time.Second
			w.server.Config.Methods = map[string]Method{"wait": func(ctx context.Context, s *Session, _ []byte) ([]byte, error) {
				began := time.Now()
				<-ctx.Done()
				ends = append(ends, time.Since(began).String())
				return nil, ctx.Err()
			}}
		})
		mine := errors.New("mine")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, mine)
		defer cancel()
		_, err := w.client.Session().Call(ctx, "wait", nil)
		require.Equal(t, mine, err)
		_, err = w.client.Session().Call(t.Context(), "wait", nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		_, err = w.client.Session().Call(ctx, "wait", nil)
		require.Equal(t, mine, err, "at once")
		synctest.Wait()
		require.Equal(t, []string{"1s", "3s"}, ends)
		w.end()
	})
}

// No more methods run than allowed, the others wait, and beyond 4 MiB of them
// callers are told. The reader is never held up.
func TestConcurrency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		running, most := 0, 0
		var at log
		w := start(t, func(w *world) {
			w.client.Config.Buffer = 16 << 20
			w.server.Config.Concurrency = 3
			w.server.Config.Message = at.message
			w.server.Config.Methods = map[string]Method{"work": func(ctx context.Context, s *Session, _ []byte) ([]byte, error) {
				mu.Lock()
				running++
				most = max(most, running)
				mu.Unlock()
				time.Sleep(time.Second)
				mu.Lock()
				running--
				mu.Unlock()
				return nil, nil
			}}
		})
		results := map[string]int{}
		var wg sync.WaitGroup
		big := []byte(`"` + strings.Repeat("x", 512<<10) + `"`)
		for range 20 {
			wg.Go(func() {
				_, err := w.client.Session().Call(t.Context(), "work", append([]byte(nil), big...))
				mu.Lock()
				results[fmt.Sprint(err)]++
				mu.Unlock()
			})
		}
		synctest.Wait()
		require.NoError(t, w.client.Session().Send("past", nil))
		synctest.Wait()
		require.Equal(t, []string{"past "}, at.all(), "while methods run")
		wg.Wait()
		require.Equal(t, map[string]int{"<nil>": 3 + 7, `session: call failed: "busy"`: 10}, results)
		require.Equal(t, 3, most)
		w.end()
	})
}

// A handler may call the other side and wait for the answer, and a slow one does
// not keep calls from being answered.
func TestHandlersDoNotBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at log
		ping := map[string]Method{"ping": func(context.Context, *Session, []byte) ([]byte, error) { return []byte(`"pong"`), nil }}
		w := start(t, func(w *world) {
			w.server.Config.Methods, w.client.Config.Methods = ping, ping
			w.server.Config.Message = func(s *Session, name string, _ []byte) {
				data, err := s.Call(t.Context(), "ping", nil)
				at.add("%s %s %v", name, data, err)
				time.Sleep(time.Hour)
			}
		})
		require.NoError(t, w.client.Session().Send("one", nil))
		data, err := w.client.Session().Call(t.Context(), "ping", nil)
		require.NoError(t, err)
		require.Equal(t, `"pong"`, string(data))
		synctest.Wait()
		require.Equal(t, []string{`one "pong" <nil>`}, at.all())
		require.Zero(t, w.client.Session().Stats().Acknowledged, "the handler has not returned")
		time.Sleep(2 * time.Hour)
		require.EqualValues(t, 3, w.client.Session().Stats().Acknowledged)
		w.end()
	})
}

// A method that panics, or answers with what cannot be sent, harms nobody.
func TestMethodFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, func(w *world) {
			w.server.Config.Methods = map[string]Method{
				"panic":  func(context.Context, *Session, []byte) ([]byte, error) { panic("secret") },
				"secret": func(context.Context, *Session, []byte) ([]byte, error) { return nil, errors.New("secret") },
				"broken": func(context.Context, *Session, []byte) ([]byte, error) { return []byte("{"), nil },
			}
		})
		for _, name := range []string{"panic", "secret", "broken"} {
			_, err := w.client.Session().Call(t.Context(), name, nil)
			require.Equal(t, &Error{Code: CodeInternal}, err)
		}
		w.end()
	})
}

// A server that has forgotten the session: both applications are told, nothing
// comes twice, and what was never sent goes into the new session.
func TestServerRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at, back log
		hold := true
		w := start(t, func(w *world) {
			w.server.Config.Message = func(s *Session, name string, data []byte) {
				at.message(s, name, data)
				if hold && string(data) == "2" {
					time.Sleep(time.Minute) // 2 is not acknowledged
				}
			}
			w.client.Config.Message, w.client.Config.Gap = back.message, back.gap
		})
		for i := 1; i <= 3; i++ {
			require.NoError(t, w.client.Session().Send("n", number(i)))
		}
		synctest.Wait()
		require.NoError(t, w.peer().Send("m", number(1)))
		synctest.Wait()
		called := make(chan error)
		go func() {
			_, err := w.client.Session().Call(t.Context(), "no such method", nil)
			called <- err
		}()
		w.stop()
		synctest.Wait()
		require.NoError(t, w.client.Session().Send("n", number(4))) // while nobody is there
		old := w.server
		hold = false
		w.server = &Server{Config: Config{Message: at.message}, Open: func(s *Session) {
			w.mu.Lock()
			w.opened = append(w.opened, s)
			w.mu.Unlock()
			s.Send("m", number(2))
		}}
		w.serve()
		err := <-called
		var e *Error
		require.True(t, errors.Is(err, ErrLost) || errors.As(err, &e), "%v", err)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		require.Equal(t, []string{"m 1", "gap {Messages:0 Lost:true Unacknowledged:" + fmt.Sprint(lostOf(w)) + "}", "m 2"}, back.all())
		time.Sleep(time.Minute)
		old.Shutdown()
		time.Sleep(time.Minute)
		got := at.all()
		require.Equal(t, []string{"n 1", "n 2"}, got[:2])
		require.Contains(t, got, "n 4")
		seen := map[string]bool{}
		for _, line := range got {
			require.False(t, seen[line], "%s came twice", line)
			seen[line] = true
		}
		st := w.client.Session().Stats()
		require.EqualValues(t, st.Sent, st.Acknowledged+st.Lost)
		w.end()
	})
}

func lostOf(w *world) uint64 { return w.client.Session().Stats().Lost }

// A client that stays away for too long finds another session; the server is
// told that the old one has ended.
func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var back log
		var closed atomic.Int32
		w := start(t, func(w *world) {
			w.server.Close = func(*Session) { closed.Add(1) }
			w.client.Config.Gap = back.gap
		})
		first := w.peer()
		w.away.Store(true)
		w.n.Cut("a:80")
		time.Sleep(time.Minute)
		require.NoError(t, first.Send("kept", nil))
		time.Sleep(59 * time.Second)
		require.Zero(t, closed.Load())
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.EqualValues(t, 1, closed.Load())
		require.Equal(t, ErrEnded, first.Send("late", nil))
		w.away.Store(false)
		time.Sleep(2 * time.Minute)
		require.Equal(t, []string{"gap {Messages:0 Lost:true Unacknowledged:0}"}, back.all())
		require.NotSame(t, first, w.peer())
		w.end()
	})
}

// What is dropped for its age or for room is reported in its place.
func TestGaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at log
		w := start(t, func(w *world) {
			w.client.Config.Buffer, w.client.Config.DropOldest = 10*(overhead+2), true
			w.client.Config.MaxAge = time.Minute
			w.server.Config.Message, w.server.Config.Gap = at.message, at.gap
			w.server.Expire = time.Hour
			w.client.Reconnect.Backoff = reconnect.Linear{Step: 100 * time.Second}
		})
		s := w.client.Session()
		require.NoError(t, s.Send("n", number(0)))
		synctest.Wait()
		w.away.Store(true)
		w.n.Cut("a:80")
		synctest.Wait()
		for i := range 15 { // five for their size
			require.NoError(t, s.Send("n", number(i%10)))
			if i == 9 {
				time.Sleep(70 * time.Second) // and five more for their age
			}
		}
		w.away.Store(false)
		time.Sleep(4 * time.Minute)
		require.Equal(t, []string{"n 0", "gap {Messages:10 Lost:false Unacknowledged:0}", "n 0", "n 1", "n 2", "n 3", "n 4"}, at.all())
		st := s.Stats()
		require.Equal(t, uint64(16), st.Sent)
		require.Equal(t, uint64(6), st.Acknowledged)
		require.Equal(t, uint64(10), st.Lost)
		require.InDelta(t, 0.375, st.Share(), 1e-9)
		w.end()
	})
}

// Without DropOldest a full buffer is the sender's to know.
func TestFull(t *testing.T) {
	s := newSession(&Config{Buffer: 1000}, "")
	require.NoError(t, s.Send("n", []byte(`"`+strings.Repeat("x", 5000)+`"`)), "an empty one takes anything")
	require.Equal(t, ErrFull, s.Send("n", nil))
	_, err := s.Call(t.Context(), "n", nil)
	require.Equal(t, ErrFull, err)
	require.Equal(t, uint64(1), s.Stats().Sent)
	require.Equal(t, errPayload, s.Send("n", []byte("{")))
	require.Equal(t, errPayload, s.Send("n", []byte("\"\xff\"")))
	for _, name := range []string{"", "\xff", strings.Repeat("x", 256)} {
		require.Equal(t, errName, s.Send(name, nil))
	}
}

// What a payload may be is what the other side takes: one that is nested too
// deeply would end every connection that it is sent over.
func TestDepth(t *testing.T) {
	deep := func(n int) []byte { return []byte(strings.Repeat("[", n) + strings.Repeat("]", n)) }
	for _, x := range []struct {
		n  int
		ok bool
	}{{1, true}, {300, true}, {9_999, true}, {10_000, false}} {
		err := JSON.Check(deep(x.n))
		require.Equal(t, x.ok, err == nil, x.n)
		b := JSON.Append(nil, &Envelope{Type: typeMessage, ID: 1, Name: "n", Data: deep(x.n)})
		require.Equal(t, x.ok, JSON.Decode(b, new(Envelope)) == nil, x.n)
		require.Equal(t, x.ok, json.Unmarshal(b, new(Envelope)) == nil, x.n)
	}
}

// A message costs no memory but for its payload: not to be sent, and not to be
// received.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	s := newSession(new(Config), "")
	data := []byte(`{"item":7,"note":"abc"}`)
	for range 100 { // the histogram, and rings
		s.Send("order", data)
	}
	s.next = s.last + 1
	s.settle(s.last)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		s.Send("order", data)
		s.next = s.last + 1
		s.settle(s.last)
	}))
	b := JSON.Append(nil, &Envelope{Type: typeMessage, ID: 1, Name: "order", Timestamp: 1763700000000, Data: data})
	var e Envelope
	known := new(names)
	require.EqualValues(t, 1, testing.AllocsPerRun(100, func() {
		e = Envelope{}
		if !e.decode(b, known) {
			t.Fatal()
		}
	}))
	require.Zero(t, testing.AllocsPerRun(100, func() { b = JSON.Append(b[:0], &e) }))
}

// The same token over another connection takes the session over.
func TestReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, nil)
		c, err := websocket.Dial(t.Context(), "ws://a", &websocket.DialOptions{Client: w.n.Client()})
		require.NoError(t, err)
		require.NoError(t, exchange(t.Context(), c, JSON, &Envelope{Type: typeHello, Token: w.client.Session().token}))
		m, err := c.Read(t.Context())
		require.NoError(t, err)
		require.JSONEq(t, `{"type":"welcome","token":"`+w.client.Session().token+`"}`, string(m.Data))
		require.Equal(t, CloseReplaced, websocket.CodeOf(<-w.done))
		w.done <- nil
		require.Len(t, w.opened, 1)
		c.CloseNow()
		w.end()
	})
}

// What a peer must not send ends the connection with 1008, and costs nothing.
func TestNonsense(t *testing.T) {
	hello := `{"type":"hello"}`
	for _, x := range []struct{ name, lines string }{
		{"no hello", `{"type":"message","id":1,"name":"n"}`},
		{"no JSON", `hello`},
		{"type", hello + "\n" + `{"type":"shout"}`},
		{"second hello", hello + "\n" + hello},
		{"no id", hello + "\n" + `{"type":"message","name":"n"}`},
		{"hole", hello + "\n" + `{"type":"message","id":2,"name":"n"}`},
		{"ack from the future", hello + "\n" + `{"type":"ack","ack":1}`},
		{"negative id", hello + "\n" + `{"type":"message","id":-1,"name":"n"}`},
		{"huge id", hello + "\n" + `{"type":"message","id":99999999999999999999,"name":"n"}`},
		{"large id", hello + "\n" + `{"type":"gap","id":9007199254740992}`},
		{"long name", hello + "\n" + `{"type":"message","id":1,"name":"` + strings.Repeat("n", 256) + `"}`},
	} {
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, conn := wstest.Pipe()
				v := new(Server)
				done := make(chan error)
				go func() { done <- v.Serve(t.Context(), conn) }()
				for line := range strings.Lines(x.lines) {
					require.NoError(t, client.Write(t.Context(), websocket.Text(strings.TrimSpace(line))))
				}
				err := client.Serve(t.Context(), nil)
				require.Equal(t, websocket.ClosePolicyViolation, websocket.CodeOf(err), "%v", err)
				require.ErrorContains(t, <-done, "session: ")
				v.Shutdown()
			})
		})
	}
	t.Run("silence", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			client, conn := wstest.Pipe()
			began := time.Now()
			require.ErrorIs(t, new(Server).Serve(t.Context(), conn), context.DeadlineExceeded)
			require.Equal(t, timeToHello, time.Since(began))
			client.CloseNow()
			conn.CloseNow()
		})
	})
}

// Duplicates, and messages of heartbeats, on the wire.
func TestWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at log
		client, conn := wstest.Pipe()
		v := &Server{Config: Config{Message: at.message, Gap: at.gap}}
		go v.Serve(t.Context(), conn)
		say := func(s string) { require.NoError(t, client.Write(t.Context(), websocket.Text(s))) }
		hear := func() string {
			m, err := client.Read(t.Context())
			require.NoError(t, err)
			return string(m.Data)
		}
		say(`{"type":"hello","token":"unknown","ack":7,"future":[1]}`)
		require.Regexp(t, `^{"type":"welcome","token":"[A-Z2-7]{26}"}$`, hear())
		say(`{"type":"message","id":1,"name":"n","data":{"a": 1}}`)
		require.Equal(t, `{"type":"ack","ack":1}`, hear())
		say(`{"type":"message","id":1,"name":"n","data":2}`)
		say(`{"type":"ping"}`)
		require.Equal(t, `{"type":"pong"}`, hear())
		say(`{"type":"gap","id":5}`)
		require.Equal(t, `{"type":"ack","ack":4}`, hear())
		say(`{"type":"call","id":5,"name":"none"}`)
		require.Regexp(t, `^{"type":"reply","id":1,"re":5,"timestamp":[0-9]+,"error":{"code":"no_method"}}$`, hear())
		require.Equal(t, `{"type":"ack","ack":5}`, hear())
		require.Equal(t, []string{`n {"a": 1}`, "gap {Messages:3 Lost:false Unacknowledged:0}"}, at.all())
		client.CloseNow()
		synctest.Wait()
		v.Shutdown()
	})
}

// A client that comes back while its last connection is let go of is not away.
func TestBackWhileLeaving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := new(Server)
		_, first := wstest.Pipe()
		s, isNew := v.find(&Envelope{Type: typeHello})
		require.True(t, isNew)
		_, err := s.welcome(first, 0)
		require.NoError(t, err)
		again, isNew := v.find(&Envelope{Type: typeHello, Token: s.token})
		require.False(t, isNew)
		v.leave(s, first)
		client, second := wstest.Pipe()
		_, err = again.welcome(second, 0)
		require.NoError(t, err)
		time.Sleep(time.Hour)
		require.NoError(t, s.Err())
		require.True(t, s.Connected())
		v.leave(s, second)
		time.Sleep(time.Hour)
		require.Equal(t, ErrEnded, s.Err(), "but now it was")
		for _, c := range []*websocket.Conn{client, first, second} {
			c.CloseNow()
		}
		v.Shutdown()
	})
}

// Clients that are away are bounded in number.
func TestMaxAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &Server{MaxAway: 3, Expire: time.Hour}
		for range 10 {
			client, conn := wstest.Pipe()
			go v.Serve(t.Context(), conn)
			require.NoError(t, exchange(t.Context(), client, JSON, &Envelope{Type: typeHello}))
			_, err := client.Read(t.Context())
			require.NoError(t, err)
			client.CloseNow()
			synctest.Wait()
		}
		n := 0
		for range v.Sessions() {
			n++
		}
		require.Equal(t, 3, n)
		v.Shutdown()
	})
}

func TestHistogram(t *testing.T) {
	var h *histogram
	require.Zero(t, h.mean())
	require.Zero(t, h.p99())
	h = new(histogram)
	for i := 1; i <= 1000; i++ {
		h.add(time.Duration(i) * time.Millisecond)
	}
	require.Equal(t, 500500*time.Microsecond, h.mean())
	require.GreaterOrEqual(t, h.p99(), 990*time.Millisecond)
	require.LessOrEqual(t, h.p99(), 990*time.Millisecond*5/4)
	for _, d := range []time.Duration{0, 1, time.Microsecond, 17 * time.Microsecond, time.Second, 19 * time.Hour} {
		b := bucket(d)
		require.GreaterOrEqual(t, top(b), d.Truncate(time.Microsecond))
		if b > 0 {
			require.LessOrEqual(t, top(b-1), d+time.Microsecond)
		}
	}
	require.Equal(t, 4*36-1, bucket(1<<62))
}

// No more than 512 KiB are under way, and acknowledgements come while there is
// more to do.
func TestWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, conn := wstest.Pipe()
		release := make(chan struct{})
		v := &Server{Config: Config{Buffer: 4 << 20, Message: func(_ *Session, _ string, data []byte) {
			if string(data) == "70" {
				<-release
			}
		}}}
		v.Open = func(s *Session) {
			for range 20 {
				require.NoError(t, s.Send("m", []byte(`"`+strings.Repeat("x", 64<<10)+`"`)))
			}
		}
		go v.Serve(t.Context(), conn)
		var got []Envelope
		go client.Serve(t.Context(), &websocket.Handler{Message: func(_ *websocket.Conn, m websocket.Message) {
			var e Envelope
			require.NoError(t, JSON.Decode(m.Data, &e))
			got = append(got, e)
		}})
		say := func(e Envelope) { require.NoError(t, exchange(t.Context(), client, JSON, &e)) }
		say(Envelope{Type: typeHello})
		synctest.Wait()
		require.Len(t, got, 1+7, "welcome, and what the window holds")
		say(Envelope{Type: typeAck, Ack: 3})
		synctest.Wait()
		require.Len(t, got, 1+7+3)
		for id := range uint64(80) {
			say(Envelope{Type: typeMessage, ID: id + 1, Name: "n", Data: number(int(id + 1))})
		}
		synctest.Wait()
		acked := func() (n uint64) {
			for _, e := range got {
				n = max(n, e.Ack)
			}
			return n
		}
		require.Less(t, acked(), uint64(70), "the 70th is being handled")
		require.GreaterOrEqual(t, acked(), uint64(69-ackEvery+1))
		close(release)
		synctest.Wait()
		require.EqualValues(t, 80, acked())
		client.CloseNow()
		synctest.Wait()
		v.Shutdown()
	})
}
