package redis

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/internal/redisserver"
	"github.com/seed-07372d5a/websocket/reconnect"
	"github.com/seed-07372d5a/websocket/session"
	"github.com/stretchr/testify/require"
)

var bg = context.Background()

const patience = 20 * time.Second

// A server is a real redis-server, with a client of it.
type server struct {
	*redisserver.Server
	*redis.Client
}

func newServer(t *testing.T) *server {
	r := redisserver.New(t)
	c := redis.NewClient(&redis.Options{Addr: r.Addr, MaxRetries: -1})
	t.Cleanup(func() { c.Close() })
	return &server{r, c}
}

// What a store has to do, as session.Memory does it.
func TestStore(t *testing.T) {
	r := newServer(t)
	for name, s := range map[string]session.Store{"redis": New(r.Client, nil), "memory": new(session.Memory)} {
		t.Run(name, func(t *testing.T) {
			save := func(u session.Update) error {
				updates := []session.Update{{Key: "none", Fence: 1, Number: 1, Keep: time.Minute}, u}
				require.NoError(t, s.Save(bg, updates))
				require.Equal(t, session.ErrUnknown, updates[0].Err)
				return updates[1].Err
			}
			_, _, err := s.Claim(bg, "k", time.Minute)
			require.Equal(t, session.ErrUnknown, err)
			require.NoError(t, s.Create(bg, "k", time.Minute))
			set := func(s string) map[string][]byte { return map[string][]byte{"a": []byte(s), s: nil} }
			require.NoError(t, save(session.Update{Key: "k", Fence: 1, Number: 10, Keep: time.Minute, Set: set("\x00\xff\r\n")}))
			require.NoError(t, save(session.Update{Key: "k", Fence: 1, Number: 9, Keep: time.Minute, Set: set("late")}))
			fence, fields, err := s.Claim(bg, "k", time.Minute)
			require.NoError(t, err)
			require.EqualValues(t, 2, fence)
			require.Len(t, fields, 2)
			require.Equal(t, "\x00\xff\r\n", string(fields["a"]))
			require.Contains(t, fields, "\x00\xff\r\n")
			require.Equal(t, session.ErrMoved, save(session.Update{Key: "k", Fence: 1, Number: 11, Keep: time.Minute, Set: set("y")}))
			require.Equal(t, session.ErrMoved, save(session.Update{Key: "k", Fence: 1, Number: 12}), "it is not the loser's to remove")
			require.NoError(t, save(session.Update{Key: "k", Fence: 2, Number: 1, Keep: time.Minute, Delete: []string{"a", "none"}}))
			fence, fields, err = s.Claim(bg, "k", time.Minute)
			require.NoError(t, err)
			require.EqualValues(t, 3, fence)
			require.Len(t, fields, 1)
			require.NoError(t, save(session.Update{Key: "k", Fence: 3, Number: 1}))
			_, _, err = s.Claim(bg, "k", time.Minute)
			require.Equal(t, session.ErrUnknown, err, "removed")
			require.NoError(t, s.Create(bg, "k", time.Millisecond))
			require.Eventually(t, func() bool {
				_, _, err := s.Claim(bg, "k", time.Millisecond)
				return errors.Is(err, session.ErrUnknown)
			}, patience, 20*time.Millisecond, "over")
		})
	}
}

// A node is a machine with a session server.
type node struct {
	session.Server
	ws  *websocket.Server
	url string

	mu  sync.Mutex
	got []string
	all []*session.Session
}

func (n *node) note(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.got = append(n.got, fmt.Sprintf(format, args...))
}

func (n *node) notes() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.got)
}

func (s *server) node(t *testing.T) *node {
	client := redis.NewClient(&redis.Options{Addr: s.Addr})
	n := &node{}
	know := func(what string) func(s *session.Session) {
		return func(s *session.Session) {
			n.note("%s", what)
			n.mu.Lock()
			defer n.mu.Unlock()
			n.all = append(n.all, s)
		}
	}
	n.Server = session.Server{
		Store: New(client, nil), Open: know("open"), Resume: know("resume"),
		Close: func(s *session.Session) { n.note("close: %v", s.Err()) },
		Config: session.Config{
			Message: func(_ *session.Session, name string, data []byte) { n.note("%s %s", name, data) },
			Gap:     func(_ *session.Session, g session.Gap) { n.note("gap %+v", g) },
		},
	}
	n.ws = &websocket.Server{Handler: func(ctx context.Context, c *websocket.Conn) { n.Serve(ctx, c) }}
	h := httptest.NewServer(n.ws)
	n.url = h.URL
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(bg, time.Second)
		defer cancel()
		n.ws.Shutdown(ctx)
		h.Close()
		n.Shutdown()
		client.Close()
	})
	return n
}

func (n *node) session() *session.Session {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.all[len(n.all)-1]
}

// A client goes from server to server, and everything arrives once; when Redis is
// gone everything waits; when it has forgotten everything, all are told.
func TestServers(t *testing.T) {
	r := newServer(t)
	a, b := r.node(t), r.node(t)
	var mu sync.Mutex
	var got []string
	note := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, fmt.Sprintf(format, args...))
	}
	where := make(chan string, 10)
	client := &session.Client{
		Reconnect: reconnect.Client{
			URLs: []string{a.url, b.url}, Backoff: reconnect.Exponential{Base: 10 * time.Millisecond, Max: 100 * time.Millisecond},
			Good: -1,
			OnState: func(s reconnect.State) {
				if s.Phase == reconnect.Open {
					where <- s.URL
				}
			},
		},
		Config: session.Config{
			Message: func(_ *session.Session, name string, data []byte) { note("%s %s", name, data) },
			Gap:     func(_ *session.Session, g session.Gap) { note("gap %v", g.Lost) },
		},
	}
	ctx, cancel := context.WithCancel(bg)
	done := make(chan struct{})
	go func() {
		defer close(done)
		client.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	eventually := func(what func() bool) { t.Helper(); require.Eventually(t, what, patience, 5*time.Millisecond) }
	all := func() []string { mu.Lock(); defer mu.Unlock(); return slices.Clone(got) }
	send := func(n int) { require.NoError(t, client.Session().Send("n", fmt.Append(nil, n))) }

	send(1)
	eventually(func() bool { return len(append(a.notes(), b.notes()...)) == 2 })
	home, other := a, b
	if len(b.notes()) > 0 {
		home, other = b, a
	}
	require.Equal(t, []string{"open", "n 1"}, home.notes())
	first := home.session()
	require.NoError(t, first.Send("m", []byte("1")))
	eventually(func() bool { return len(all()) == 1 })

	// The server goes, with a message that the client has not got.
	stop, end := context.WithTimeout(bg, time.Second)
	defer end()
	home.ws.Shutdown(stop)
	require.NoError(t, first.Send("m", []byte("2")))
	home.Server.Shutdown()
	require.Equal(t, session.ErrMoved, first.Err())
	send(2)
	eventually(func() bool { return len(other.notes()) == 2 && len(all()) == 2 })
	require.Equal(t, []string{"resume", "n 2"}, other.notes())
	require.Equal(t, []string{"m 1", "m 2"}, all())

	// Redis forgets everything, while it is away.
	r.Kill()
	send(3)
	r.Start()
	eventually(func() bool { return slices.Contains(all(), "gap true") })
	eventually(func() bool { return slices.Contains(other.notes(), "close: session: session was lost") })
	require.NotContains(t, other.notes(), "n 3", "Redis did not have it")
	send(4)
	eventually(func() bool { return slices.Contains(other.notes(), "n 4") })
	st := client.Session().Stats()
	require.LessOrEqual(t, st.Lost, uint64(1), "3, perhaps")
}
