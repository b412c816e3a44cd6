package reconnect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/internal/leak"
	"github.com/seed-07372d5a/websocket/wstest"
)

func TestMain(m *testing.M) { os.Exit(leak.Run(m)) }

const second = time.Second

// A diary writes down the states of a client, with the seconds since it began.
type diary struct {
	began time.Time
	lines []string
}

func (d *diary) write(s State) {
	line := fmt.Sprintf("%v %v %s", time.Since(d.began).Seconds(), s.Phase, strings.TrimPrefix(s.URL, "ws://"))
	if s.Phase == Waiting {
		line += fmt.Sprintf(" until %v", s.Until.Sub(d.began).Seconds())
	}
	d.lines = append(d.lines, line)
}

// client returns a client in a network, and what it will have gone through.
func client(n *wstest.Network, hosts ...string) (*Client, *diary) {
	d := &diary{began: time.Now()}
	c := &Client{Options: websocket.DialOptions{Client: n.Client()}, OnState: d.write}
	for _, host := range hosts {
		c.URLs = append(c.URLs, "ws://"+host)
	}
	return c, d
}

// fixed waits for as many seconds as there were failures.
type fixed struct{}

func (fixed) Wait(n int) time.Duration { return time.Duration(n) * second }

// idle serves a connection until it ends.
func idle(ctx context.Context, c *websocket.Conn) error { return c.Serve(ctx, nil) }

func server(h func(ctx context.Context, c *websocket.Conn)) *websocket.Server {
	return &websocket.Server{Handler: h}
}

func stays(ctx context.Context, c *websocket.Conn) { c.Serve(ctx, nil) }

// closes returns a server's handler that closes each connection after d.
func closes(d time.Duration, code websocket.CloseCode) *websocket.Server {
	return server(func(ctx context.Context, c *websocket.Conn) {
		time.AfterFunc(d, func() { c.Close(code, "") })
		c.Serve(ctx, nil)
	})
}

// The timetable of the linear policy, whole: the first retry at once, then steps
// of 10 s up to 120 s, for ever (A108).
func TestLinearSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(wstest.Network)
		c, d := client(n, "a")
		c.Backoff = Linear{}
		ctx, cancel := context.WithTimeout(t.Context(), 1100*second)
		defer cancel()
		require.ErrorIs(t, c.Run(ctx, idle), context.DeadlineExceeded)
		var at []string
		for _, line := range d.lines {
			if s, ok := strings.CutSuffix(line, " connecting a"); ok {
				at = append(at, s)
			}
		}
		require.Equal(t, "0 0 10 30 60 100 150 210 280 360 450 550 660 780 900 1020", strings.Join(at, " "))
		require.Equal(t, "1100 ended a", d.lines[len(d.lines)-1])
	})
}

// Every state of a client whose server comes, goes, and comes back.
func TestStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(wstest.Network)
		c, d := client(n, "a:80")
		c.Backoff = fixed{}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx, idle) }()

		time.Sleep(2 * second) // attempts at 0, 1, 3
		stop := n.Serve("a:80", server(stays))
		time.Sleep(18 * second)
		stop() // at 20: it was good
		stop = n.Serve("a:80", server(stays))
		time.Sleep(6 * second)
		stop() // at 26: it was not
		time.Sleep(1 * second)
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
		require.Equal(t, []string{
			"0 connecting a:80", "0 waiting a:80 until 1",
			"1 connecting a:80", "1 waiting a:80 until 3",
			"3 connecting a:80", "3 open a:80",
			"20 waiting a:80 until 21",
			"21 connecting a:80", "21 open a:80",
			"26 waiting a:80 until 28",
			"27 ended a:80",
		}, d.lines)
	})
}

// Where there are several URLs the next one is tried, after a good connection the
// same again.
func TestFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(wstest.Network)
		stop := n.Serve("b:80", server(stays))
		c, d := client(n, "a:80", "b:80", "c:80")
		c.Backoff = fixed{}
		over := make(chan struct{})
		go func() {
			defer close(over)
			time.Sleep(31 * second)
			stop()
			stop = n.Serve("c:80", server(stays))
			time.Sleep(29 * second)
			n.Cut("c:80")
			time.Sleep(30 * second)
			stop()
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 80*second)
		defer cancel()
		require.Error(t, c.Run(ctx, idle))
		<-over
		require.Equal(t, []string{
			"0 connecting a:80", "0 waiting b:80 until 1",
			"1 connecting b:80", "1 open b:80",
			"31 waiting b:80 until 32",
			"32 connecting b:80", "32 waiting c:80 until 34",
			"34 connecting c:80", "34 open c:80",
			"60 waiting c:80 until 61",
			"61 connecting c:80", "61 open c:80",
			"80 ended c:80",
		}, d.lines)
	})
}

// What ends Run, and what does not (A85: the error's type says whose answer it
// was).
func TestFinal(t *testing.T) {
	answer := func(status int) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(status) })
	}
	for _, x := range []struct {
		name  string
		h     http.Handler
		final bool
	}{
		{"400", answer(400), true}, {"401", answer(401), true}, {"403", answer(403), true}, {"404", answer(404), true},
		{"426", answer(426), true}, {"499", answer(499), true},
		{"200", answer(200), false}, {"408", answer(408), false}, {"425", answer(425), false}, {"429", answer(429), false},
		{"500", answer(500), false}, {"502", answer(502), false}, {"503", answer(503), false}, {"504", answer(504), false},
		{"close 1000", closes(0, 1000), false}, {"close 1001", closes(0, 1001), false}, {"close 1006", server(func(_ context.Context, c *websocket.Conn) { c.CloseNow() }), false},
		{"close 1008", closes(0, 1008), true}, {"close 1011", closes(0, 1011), false}, {"close 1012", closes(0, 1012), false},
		{"close 1013", closes(0, 1013), false}, {"close 4000", closes(0, 4000), false}, {"close 4001", closes(0, 4001), true},
	} {
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := new(wstest.Network)
				defer n.Serve("a:80", x.h)()
				c, _ := client(n, "a:80")
				c.StopCodes = []websocket.CloseCode{4001}
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
				defer cancel()
				err := c.Run(ctx, idle)
				require.Equal(t, x.final, ctx.Err() == nil, "%v", err)
				var refusal *websocket.HandshakeError
				var goodbye *websocket.CloseError
				switch {
				case !x.final:
					require.ErrorIs(t, err, context.DeadlineExceeded)
				case strings.HasPrefix(x.name, "close"):
					require.ErrorAs(t, err, &goodbye)
					require.Equal(t, x.name, fmt.Sprintf("close %d", goodbye.Code))
				default:
					require.ErrorAs(t, err, &refusal)
					require.Equal(t, x.name, fmt.Sprint(refusal.Status))
				}
			})
		})
	}
}

// Session, Subscribe and Header can end Run, well or with an error of their own.
func TestStop(t *testing.T) {
	mine := errors.New("mine")
	for _, x := range []struct {
		name string
		set  func(c *Client)
		err  error
		want error
		code websocket.CloseCode
	}{
		{"session is done", func(c *Client) {}, nil, nil, websocket.CloseNormalClosure},
		{"session stops", func(c *Client) {}, Stop(mine), mine, websocket.CloseGoingAway},
		{"wrapped", func(c *Client) {}, fmt.Errorf("session: %w", Stop(mine)), mine, websocket.CloseGoingAway},
		{"subscribe stops", func(c *Client) {
			c.Subscribe = func(context.Context, *websocket.Conn) error { return Stop(mine) }
		}, nil, mine, websocket.CloseGoingAway},
		{"header stops", func(c *Client) {
			c.Header = func(context.Context) (http.Header, error) { return nil, Stop(mine) }
		}, nil, mine, 0},
	} {
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := new(wstest.Network)
				var code websocket.CloseCode
				defer n.Serve("a:80", server(func(ctx context.Context, c *websocket.Conn) {
					code = websocket.CodeOf(c.Serve(ctx, nil))
				}))()
				c, d := client(n, "a:80")
				x.set(c)
				require.Equal(t, x.want, c.Run(t.Context(), func(context.Context, *websocket.Conn) error { return x.err }))
				synctest.Wait()
				require.Equal(t, x.code, code)
				require.Equal(t, "0 ended a:80", d.lines[len(d.lines)-1])
			})
		})
	}
	require.NoError(t, Stop(nil))
}

// An error of the session's own is no reason to stay away, nor is one of the
// hooks.
func TestSessionFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(wstest.Network)
		defer n.Serve("a:80", server(stays))()
		c, _ := client(n, "a:80")
		c.Backoff = fixed{}
		var calls []string
		c.Header = func(context.Context) (http.Header, error) {
			calls = append(calls, "header")
			if len(calls) == 1 {
				return nil, errors.New("no token")
			}
			return nil, nil
		}
		c.Subscribe = func(context.Context, *websocket.Conn) error {
			calls = append(calls, "subscribe")
			if len(calls) == 3 {
				return errors.New("not subscribed")
			}
			return nil
		}
		require.NoError(t, c.Run(t.Context(), func(context.Context, *websocket.Conn) error {
			calls = append(calls, "session")
			if len(calls) == 6 {
				return errors.New("nonsense received")
			}
			return nil
		}))
		require.Equal(t, "header header subscribe header subscribe session header subscribe session", strings.Join(calls, " "))
	})
}

// What cannot be right is said at once.
func TestMisuse(t *testing.T) {
	for _, urls := range [][]string{nil, {"ws://a", "ftp://b"}, {"/feed"}, {"ws://"}, {"ws://a\n"}} {
		c := &Client{URLs: urls}
		require.ErrorContains(t, c.Run(t.Context(), nil), "URL", "%q", urls)
	}
	synctest.Test(t, func(t *testing.T) {
		c, _ := client(new(wstest.Network), "a")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx, nil) }()
		synctest.Wait()
		require.Equal(t, errRunning, c.Run(ctx, nil))
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
		require.ErrorIs(t, c.Run(ctx, nil), context.Canceled, "after the end it may run again")
	})
}

// A server that asks to be left alone is, even if somebody nudges; others may be
// tried meanwhile.
func TestRetryAfter(t *testing.T) {
	for _, x := range []struct {
		name   string
		header func() string
		want   []string
	}{
		{"seconds", func() string { return "90" }, []string{"0 connecting a:80", "0 waiting a:80 until 90", "90 connecting a:80"}},
		{"date", func() string { return time.Now().Add(120 * second).UTC().Format(http.TimeFormat) },
			[]string{"0 connecting a:80", "0 waiting a:80 until 120", "120 connecting a:80"}},
		{"past", func() string { return time.Now().Add(-120 * second).UTC().Format(http.TimeFormat) },
			[]string{"0 connecting a:80", "0 waiting a:80 until 1", "1 connecting a:80"}},
		{"nonsense", func() string { return "-5" }, []string{"0 connecting a:80", "0 waiting a:80 until 1", "1 connecting a:80"}},
		{"for ever", func() string { return "99999999999999999999999" },
			[]string{"0 connecting a:80", "0 waiting a:80 until 3600", "3600 connecting a:80"}},
		{"overflowing", func() string { return "10000000000" },
			[]string{"0 connecting a:80", "0 waiting a:80 until 3600", "3600 connecting a:80"}},
	} {
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := new(wstest.Network)
				defer n.Serve("a:80", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Retry-After", x.header())
					w.WriteHeader(503)
				}))()
				c, d := client(n, "a:80")
				c.Backoff = fixed{}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				c.OnState = func(s State) {
					if d.write(s); len(d.lines) == 3 {
						cancel()
					}
				}
				if x.name == "seconds" {
					time.AfterFunc(3*second, c.Nudge)
				}
				require.Error(t, c.Run(ctx, idle))
				require.Equal(t, x.want, d.lines[:3])
			})
		})
	}
	t.Run("others meanwhile", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := new(wstest.Network)
			for _, host := range []string{"a:80", "b:80"} {
				defer n.Serve(host, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Retry-After", "20")
					w.WriteHeader(503)
				}))()
			}
			c, d := client(n, "a:80", "b:80", "c:80")
			c.Backoff = fixed{}
			ctx, cancel := context.WithTimeout(t.Context(), 25*second)
			defer cancel()
			require.Error(t, c.Run(ctx, idle))
			require.Equal(t, []string{
				"0 connecting a:80", "0 waiting b:80 until 1",
				"1 connecting b:80", "1 waiting c:80 until 3",
				"3 connecting c:80", "3 waiting c:80 until 6", // a until 20, b until 21
				"6 connecting c:80", "6 waiting c:80 until 10",
				"10 connecting c:80", "10 waiting c:80 until 15",
				"15 connecting c:80", "15 waiting c:80 until 21",
				"21 connecting c:80", "21 waiting a:80 until 28",
				"25 ended a:80",
			}, d.lines)
		})
	})
}

// After 1012 and 1013 the server has between 5 and 30 s for itself.
func TestServerAsksToWait(t *testing.T) {
	for _, code := range []websocket.CloseCode{websocket.CloseServiceRestart, websocket.CloseTryAgainLater} {
		least, most := time.Hour, time.Duration(0)
		for range 200 {
			d := asked(&websocket.CloseError{Code: code}, time.Now())
			least, most = min(least, d), max(most, d)
		}
		require.GreaterOrEqual(t, least, 5*second)
		require.Less(t, most, 30*second)
		require.Greater(t, most-least, 20*second, "it is random")
		synctest.Test(t, func(t *testing.T) {
			n := new(wstest.Network)
			defer n.Serve("a:80", closes(20*second, code))()
			c, _ := client(n, "a:80")
			var waited time.Duration
			ctx, cancel := context.WithCancel(t.Context())
			c.OnState = func(s State) {
				if s.Phase == Waiting {
					waited = time.Until(s.Until)
					cancel()
				}
			}
			require.ErrorIs(t, c.Run(ctx, idle), context.Canceled)
			require.GreaterOrEqual(t, waited, 5*second)
		})
	}
}

// A Nudge ends a wait, or the one that would follow the attempt under way, and no
// other.
func TestNudge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(wstest.Network)
		n.Dial = func(ctx context.Context, addr string) error {
			time.Sleep(2 * second)
			return nil
		}
		c, d := client(n, "a:80")
		c.Backoff = Linear{Step: time.Hour, Max: 100 * time.Hour}
		c.Nudge() // before Run: forgotten
		for _, at := range []time.Duration{30, 61, 62} {
			time.AfterFunc(at*second, c.Nudge) // 30 and 61 end waits, 62 is while connecting
		}
		time.AfterFunc(31*second, c.Nudge) // while connecting
		ctx, cancel := context.WithTimeout(t.Context(), 100*second)
		defer cancel()
		require.Error(t, c.Run(ctx, idle))
		require.Equal(t, []string{
			"0 connecting a:80", "2 waiting a:80 until 2",
			"2 connecting a:80", "4 waiting a:80 until 3604",
			"30 connecting a:80", "32 waiting a:80 until 7232",
			"32 connecting a:80", "34 waiting a:80 until 10834",
			"61 connecting a:80", "63 waiting a:80 until 14463",
			"63 connecting a:80", "65 waiting a:80 until 18065",
			"100 ended a:80",
		}, d.lines)
	})
}

// A nudge while a connection is open is forgotten with it: else all clients that
// ever changed networks would storm a server that restarts.
func TestNudgeWhileOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(wstest.Network)
		stop := n.Serve("a:80", server(stays))
		c, d := client(n, "a:80")
		c.Backoff = fixed{}
		time.AfterFunc(5*second, c.Nudge)
		time.AfterFunc(20*second, func() { stop() })
		ctx, cancel := context.WithTimeout(t.Context(), 22*second)
		defer cancel()
		require.Error(t, c.Run(ctx, idle))
		require.Equal(t, []string{"0 connecting a:80", "0 open a:80", "20 waiting a:80 until 21",
			"21 connecting a:80", "21 waiting a:80 until 23", "22 ended a:80"}, d.lines)
	})
}

// Every attempt has fresh headers, which replace those that stay.
func TestHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(wstest.Network)
		var got []string
		defer n.Serve("a:80", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			got = append(got, r.Header.Get("Authorization")+" "+r.Header.Get("X-App"))
			if len(got) < 3 {
				w.WriteHeader(502)
				return
			}
			server(stays).ServeHTTP(w, r)
		}))()
		c, _ := client(n, "a:80")
		c.Options.Header = http.Header{"Authorization": {"old"}, "X-App": {"shop"}}
		tokens := 0
		c.Header = func(context.Context) (http.Header, error) {
			tokens++
			return http.Header{"authorization": {fmt.Sprint("token", tokens)}}, nil
		}
		require.NoError(t, c.Run(t.Context(), func(context.Context, *websocket.Conn) error { return nil }))
		require.Equal(t, []string{"token1 shop", "token2 shop", "token3 shop"}, got)
		require.Equal(t, http.Header{"Authorization": {"old"}, "X-App": {"shop"}}, c.Options.Header)
	})
}

// The hook comes before the outbox, on every connection.
func TestSubscribeFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(wstest.Network)
		var got []string
		defer n.Serve("a:80", server(func(ctx context.Context, c *websocket.Conn) {
			m, err := c.Read(ctx)
			if err != nil {
				return
			}
			got = append(got, string(m.Data))
			c.Write(ctx, websocket.Text("subscribed"))
			if m, err = c.Read(ctx); err == nil {
				got = append(got, string(m.Data))
			}
			c.CloseNow()
		}))()
		c, _ := client(n, "a:80")
		c.Subscribe = func(ctx context.Context, conn *websocket.Conn) error {
			time.Sleep(second) // the outbox has time enough to be wrong
			if err := conn.Write(ctx, websocket.Text("subscribe")); err != nil {
				return err
			}
			_, err := conn.Read(ctx)
			return err
		}
		require.NoError(t, c.Send(t.Context(), websocket.Text("one")))
		ctx, cancel := context.WithCancel(t.Context())
		times := 0
		require.ErrorIs(t, c.Run(ctx, func(ctx context.Context, conn *websocket.Conn) error {
			err := conn.Serve(ctx, nil)
			if times++; times == 2 {
				cancel()
			}
			require.NoError(t, c.Send(t.Context(), websocket.Text("two")))
			return err
		}), context.Canceled)
		require.Equal(t, []string{"subscribe", "one", "subscribe", "two"}, got)
	})
}

// What was sent while there was no connection arrives over the next, in order,
// and when the session is done everything leaves before the goodbye.
func TestOutbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(wstest.Network)
		c, _ := client(n, "a:80")
		ctx := t.Context()
		var want, got []string
		send := func(k int) {
			for range k {
				want = append(want, fmt.Sprint("message ", len(want)))
				require.NoError(t, c.Send(ctx, websocket.Text(want[len(want)-1])))
			}
		}
		var end error
		var mu sync.Mutex // of end and got
		handler := server(func(ctx context.Context, c *websocket.Conn) {
			err := c.Serve(ctx, &websocket.Handler{Message: func(_ *websocket.Conn, m websocket.Message) {
				mu.Lock()
				got = append(got, string(m.Data))
				mu.Unlock()
			}})
			mu.Lock()
			end = err
			mu.Unlock()
		})
		send(10)
		done := make(chan error)
		finish := make(chan struct{})
		go func() {
			done <- c.Run(ctx, func(ctx context.Context, conn *websocket.Conn) error {
				served := make(chan error, 1)
				go func() { served <- conn.Serve(ctx, nil) }()
				select {
				case <-finish:
					send(1000)
					return nil
				case err := <-served:
					return err
				}
			})
		}()
		time.Sleep(100 * second)
		send(10)
		stop := n.Serve("a:80", handler)
		time.Sleep(100 * second)
		send(10)
		synctest.Wait()
		require.Equal(t, want, got)
		stop()
		synctest.Wait()
		send(10)
		stop = n.Serve("a:80", handler)
		time.Sleep(100 * second)
		synctest.Wait()
		require.Equal(t, want, got)
		close(finish)
		require.NoError(t, <-done)
		synctest.Wait()
		require.Equal(t, want, got)
		require.Equal(t, &websocket.CloseError{Code: websocket.CloseNormalClosure}, end)
		stop()
	})
}

// The outbox has a limit, 16 MiB by default: beyond it Send says so, the client
// says goodbye with 1001, and what waits stays for another Run.
func TestOutboxFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(wstest.Network)
		var sent atomic.Int64
		var slow atomic.Bool
		slow.Store(true)
		var end error
		defer n.Serve("a:80", server(func(ctx context.Context, c *websocket.Conn) {
			for slow.Load() && sent.Load() == 0 {
				time.Sleep(second)
			}
			end = c.Serve(ctx, &websocket.Handler{Message: func(_ *websocket.Conn, m websocket.Message) {
				sent.Add(1)
			}})
		}))()
		c, d := client(n, "a:80")
		m := websocket.Binary(make([]byte, 64<<10-overhead))
		var err error
		taken := 0
		done := make(chan error)
		go func() {
			done <- c.Run(t.Context(), func(ctx context.Context, c *websocket.Conn) error {
				c.Serve(ctx, nil)
				return nil // that is no reason to call it a success
			})
		}()
		time.Sleep(time.Millisecond)
		for err == nil {
			if err = c.Send(t.Context(), m); err == nil {
				taken++
			}
		}
		require.Equal(t, ErrOutboxFull, err)
		require.GreaterOrEqual(t, taken, 256)
		require.LessOrEqual(t, taken, 258, "16 MiB, and what the network holds")
		slow.Store(false)
		require.Equal(t, ErrOutboxFull, <-done)
		require.Equal(t, "ended a:80", strings.SplitN(d.lines[len(d.lines)-1], " ", 2)[1])
		synctest.Wait()
		require.Equal(t, websocket.CloseGoingAway, websocket.CodeOf(end))
		before := sent.Load()
		require.Less(t, before, int64(taken), "some wait still")
		require.NoError(t, c.Run(t.Context(), func(context.Context, *websocket.Conn) error { return nil }))
		synctest.Wait()
		require.GreaterOrEqual(t, sent.Load(), int64(taken), "one may come twice")
		require.LessOrEqual(t, sent.Load(), int64(taken)+1)
	})
}

func TestOutboxLimit(t *testing.T) {
	c := new(Client)
	for range 256 {
		require.NoError(t, c.Send(t.Context(), websocket.Binary(make([]byte, 64<<10-overhead))))
	}
	require.Equal(t, ErrOutboxFull, c.Send(t.Context(), websocket.Text("")))
	c.OutboxLimit = -1
	require.NoError(t, c.Send(t.Context(), websocket.Text("")))
}

// With Block, Send waits for room, as long as its context lets it.
func TestOutboxBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(wstest.Network)
		got := 0
		c, _ := client(n, "a:80")
		c.Block, c.OutboxLimit = true, 1000
		require.NoError(t, c.Send(t.Context(), websocket.Binary(make([]byte, 2000))), "an empty outbox takes anything")
		ctx, cancel := context.WithTimeout(t.Context(), 5*second)
		require.ErrorIs(t, c.Send(ctx, websocket.Text("")), context.DeadlineExceeded)
		require.ErrorIs(t, c.Send(ctx, websocket.Text("")), context.DeadlineExceeded)
		cancel()
		stop := n.Serve("a:80", server(func(ctx context.Context, c *websocket.Conn) {
			c.Serve(ctx, &websocket.Handler{Message: func(*websocket.Conn, websocket.Message) { got++ }})
		}))
		ctx, cancel = context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx, idle) }()
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				for range 10 {
					require.NoError(t, c.Send(ctx, websocket.Binary(make([]byte, 300))))
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		require.Equal(t, 101, got)
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
		stop()
	})
}

// What no server could take is refused, and what this server does not take is
// dropped: neither keeps others from leaving.
func TestOutboxPoison(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(wstest.Network)
		var got []string
		n.Wrap = func(client, server net.Conn) (net.Conn, net.Conn) { // no server's patience: its 1009, and gone
			return struct{ net.Conn }{client}, struct{ net.Conn }{server}
		}
		defer n.Serve("a:80", &websocket.Server{
			Options: websocket.AcceptOptions{Config: websocket.Config{ReadLimit: 100}},
			Handler: func(ctx context.Context, c *websocket.Conn) {
				c.Serve(ctx, &websocket.Handler{Message: func(_ *websocket.Conn, m websocket.Message) {
					got = append(got, string(m.Data))
				}})
			},
		})()
		c, _ := client(n, "a:80")
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		require.Equal(t, errText, c.Send(ctx, websocket.Message{Type: websocket.MessageText, Data: []byte{0xff}}))
		require.Equal(t, errType, c.Send(ctx, websocket.Message{}))
		data := []byte("a")
		require.NoError(t, c.Send(ctx, websocket.Binary(data)))
		data[0] = 'x' // it was copied
		require.NoError(t, c.Send(ctx, websocket.Binary(make([]byte, 1<<20))))
		require.NoError(t, c.Send(ctx, websocket.Text("b")))
		require.Error(t, c.Run(ctx, idle))
		require.Equal(t, []string{"a", "b"}, got)
	})
}

// Row 85: whatever a proxy does, the client comes back when it stops, and the
// error says what it was.
func TestProxies(t *testing.T) {
	status := func(code int) func(http.Handler) http.Handler {
		return func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Error(w, "proxy says no", code) })
		}
	}
	cutAfter := func(bytes int) func(client, server net.Conn) (net.Conn, net.Conn) {
		return func(client, server net.Conn) (net.Conn, net.Conn) { return client, &cutting{Conn: server, left: bytes} }
	}
	for _, x := range []struct {
		name  string
		front func(http.Handler) http.Handler
		wrap  func(client, server net.Conn) (net.Conn, net.Conn)
		is    func(error) bool
	}{
		{"502", status(502), nil, func(err error) bool {
			var e *websocket.HandshakeError
			return errors.As(err, &e) && e.Status == 502
		}},
		{"504", status(504), nil, func(err error) bool {
			var e *websocket.HandshakeError
			return errors.As(err, &e) && e.Status == 504
		}},
		{"cuts in the handshake", nil, cutAfter(20), func(err error) bool {
			var e *websocket.HandshakeError
			return !errors.As(err, &e) && (errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET))
		}},
		{"cuts in a frame", nil, cutAfter(200), func(err error) bool {
			return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
		}},
		{"buffers for ever", nil, func(client, server net.Conn) (net.Conn, net.Conn) {
			return client, (&wstest.Faults{At: []wstest.Fault{{Call: wstest.Write, N: 1, Do: wstest.Stall, Forever: true}}}).Wrap(server)
		}, func(err error) bool { return errors.Is(err, context.DeadlineExceeded) }},
	} {
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sound := server(func(ctx context.Context, c *websocket.Conn) {
					c.Write(ctx, websocket.Binary(make([]byte, 1000)))
					c.Serve(ctx, nil)
				})
				var broken atomic.Bool
				broken.Store(true)
				front := http.Handler(sound)
				if x.front != nil {
					proxy := x.front(sound)
					front = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if broken.Load() {
							proxy.ServeHTTP(w, r)
						} else {
							sound.ServeHTTP(w, r)
						}
					})
				}
				n := &wstest.Network{Wrap: func(client, server net.Conn) (net.Conn, net.Conn) {
					if x.wrap != nil && broken.Load() {
						return x.wrap(client, server)
					}
					return client, server
				}}
				defer n.Serve("a:80", front)()
				c, _ := client(n, "a:80")
				failed := 0
				c.OnState = func(s State) {
					if s.Phase != Waiting {
						return
					}
					require.True(t, x.is(s.Err), "%v (%T)", s.Err, s.Err)
					if failed++; failed == 5 {
						broken.Store(false)
					}
				}
				require.NoError(t, c.Run(t.Context(), func(ctx context.Context, c *websocket.Conn) error {
					_, err := c.Read(ctx)
					return err
				}))
				require.Equal(t, 5, failed)
			})
		})
	}
}

// cutting is a connection that is cut after some bytes were written.
type cutting struct {
	net.Conn
	mu   sync.Mutex
	left int
}

func (c *cutting) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := min(len(p), c.left)
	c.left -= n
	if n < len(p) {
		c.Conn.Write(p[:n])
		c.Conn.Close()
		return n, syscall.ECONNRESET
	}
	return c.Conn.Write(p)
}

// Row 85: a proxy that cuts what is idle for 60 s does not, thanks to pings.
func TestIdleProxy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &wstest.Network{Wrap: func(client, server net.Conn) (net.Conn, net.Conn) {
			return newIdle(client), server
		}}
		defer n.Serve("a:80", server(stays))()
		c, d := client(n, "a:80")
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		require.Error(t, c.Run(ctx, idle))
		require.Equal(t, []string{"0 connecting a:80", "0 open a:80", "3600 ended a:80"}, d.lines)
		c.Options.Config.KeepAlive = -1 // without them it does
		n2 := &wstest.Network{Wrap: n.Wrap}
		defer n2.Serve("a:80", &websocket.Server{Handler: stays, Options: websocket.AcceptOptions{Config: websocket.Config{KeepAlive: -1}}})()
		c.Options.Client = n2.Client()
		ctx, cancel = context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		d.lines = nil
		require.Error(t, c.Run(ctx, idle))
		require.Greater(t, len(d.lines), 50)
	})
}

// newIdle returns a connection that is closed when nothing was read or written
// for 60 s.
func newIdle(nc net.Conn) net.Conn {
	return &idling{nc, time.AfterFunc(60*second, func() { nc.Close() })}
}

type idling struct {
	net.Conn
	t *time.Timer
}

func (c *idling) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.t.Reset(60 * second)
	return n, err
}

func (c *idling) Write(p []byte) (int, error) {
	c.t.Reset(60 * second)
	return c.Conn.Write(p)
}

func (c *idling) Close() error {
	c.t.Stop()
	return c.Conn.Close()
}

// Row 108: 24 hours of refusals, of a server that drops everybody after a second,
// and of names that do not resolve: attempts keep to their rate, and nothing
// grows.
func TestADayDown(t *testing.T) {
	for _, x := range []struct {
		name string
		net  func() (*wstest.Network, func())
	}{
		{"refuses", func() (*wstest.Network, func()) { return new(wstest.Network), func() {} }},
		{"flaps", func() (*wstest.Network, func()) {
			n := new(wstest.Network)
			return n, n.Serve("a:80", closes(second, websocket.CloseGoingAway))
		}},
		{"does not resolve", func() (*wstest.Network, func()) {
			n := new(wstest.Network)
			n.Dial = func(context.Context, string) error {
				return &net.DNSError{Err: "no such host", Name: "a", IsNotFound: true}
			}
			return n, func() {}
		}},
	} {
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, stop := x.net()
				defer stop()
				c, _ := client(n, "a:80")
				attempts, most := 0, 0
				c.OnState = func(s State) {
					switch s.Phase {
					case Connecting:
						attempts++
					case Waiting:
						synctest.Wait() // what is on its way out is gone
						most = max(most, runtime.NumGoroutine())
						require.LessOrEqual(t, time.Until(s.Until), time.Minute)
					}
				}
				before := runtime.NumGoroutine()
				ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
				defer cancel()
				require.ErrorIs(t, c.Run(ctx, idle), context.DeadlineExceeded)
				require.InDelta(t, 2880, attempts, 300, "30 s apart on average")
				require.Less(t, most, before+10)
			})
		})
	}
}

// A name that comes to mean another host is resolved again.
func TestDNSChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(wstest.Network)
		var address atomic.Value
		address.Store("192.0.2.1:80")
		c, d := client(n, "a")
		c.Backoff = fixed{}
		c.Options.Client = &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				return n.DialContext(ctx, network, address.Load().(string)) // as a resolver would
			},
		}}
		stop := n.Serve("192.0.2.1:80", server(stays))
		moved := make(chan struct{})
		time.AfterFunc(20*second, func() {
			defer close(moved)
			stop()
			stop = n.Serve("192.0.2.2:80", server(stays))
			address.Store("192.0.2.2:80")
		})
		ctx, cancel := context.WithTimeout(t.Context(), 40*second)
		defer cancel()
		require.Error(t, c.Run(ctx, idle))
		require.Equal(t, []string{"0 connecting a", "0 open a", "20 waiting a until 21", "21 connecting a", "21 open a", "40 ended a"}, d.lines)
		<-moved
		stop()
	})
}

// The end of ctx ends Run from wherever it is.
func TestCancel(t *testing.T) {
	for _, phase := range []Phase{Connecting, Open, Waiting} {
		t.Run(phase.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := new(wstest.Network)
				n.Dial = func(ctx context.Context, addr string) error {
					if phase == Connecting {
						<-ctx.Done()
						return ctx.Err()
					}
					return nil
				}
				if phase == Open {
					defer n.Serve("a:80", server(stays))()
				}
				c, d := client(n, "a:80")
				c.Backoff = Linear{Step: time.Hour, Max: 100 * time.Hour}
				mine := errors.New("mine")
				ctx, cancel := context.WithTimeoutCause(t.Context(), 3*second, mine)
				defer cancel()
				require.Equal(t, mine, c.Run(ctx, idle))
				require.Equal(t, "3 ended a:80", d.lines[len(d.lines)-1])
				require.Contains(t, d.lines[len(d.lines)-2], phase.String())
			})
		})
	}
}

// A session that panics leaves nothing behind.
func TestSessionPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(wstest.Network)
		defer n.Serve("a:80", server(stays))()
		c, _ := client(n, "a:80")
		require.PanicsWithValue(t, "oops", func() {
			c.Run(t.Context(), func(context.Context, *websocket.Conn) error { panic("oops") })
		})
		require.NoError(t, c.Run(t.Context(), func(context.Context, *websocket.Conn) error { return nil }))
	})
}

func TestPhase(t *testing.T) {
	require.Equal(t, "connecting open waiting ended Phase(4) Phase(-1)",
		fmt.Sprint(Connecting, " ", Open, " ", Waiting, " ", Ended, " ", Phase(4), " ", Phase(-1)))
}
