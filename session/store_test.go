package session

import (
	"context"
	"errors"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/reconnect"
	"github.com/seed-07372d5a/websocket/wstest"
)

// What a Memory does, as every Store should.
func TestMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		m := new(Memory)
		save := func(u Update) error {
			updates := []Update{u}
			require.NoError(t, m.Save(ctx, updates))
			return updates[0].Err
		}
		_, _, err := m.Claim(ctx, "k", time.Minute)
		require.Equal(t, ErrUnknown, err)
		require.Equal(t, ErrUnknown, save(Update{Key: "k", Fence: 1, Number: 1, Keep: time.Minute}))
		require.NoError(t, m.Create(ctx, "k", time.Minute))
		set := func(s string) map[string][]byte { return map[string][]byte{"a": []byte(s), s: nil} }
		require.NoError(t, save(Update{Key: "k", Fence: 1, Number: 2, Keep: time.Minute, Set: set("x")}))
		require.NoError(t, save(Update{Key: "k", Fence: 1, Number: 1, Keep: time.Minute, Set: set("late")}))
		fence, fields, err := m.Claim(ctx, "k", time.Minute)
		require.NoError(t, err)
		require.EqualValues(t, 2, fence)
		require.Equal(t, map[string][]byte{"a": []byte("x"), "x": nil}, fields)
		require.Equal(t, ErrMoved, save(Update{Key: "k", Fence: 1, Number: 3, Keep: time.Minute, Set: set("y")}))
		require.Equal(t, ErrMoved, save(Update{Key: "k", Fence: 1, Number: 4}), "it is not the loser's to remove")
		require.NoError(t, save(Update{Key: "k", Fence: 2, Number: 1, Keep: time.Hour, Delete: []string{"x", "none"}}))
		time.Sleep(time.Hour - 1)
		_, fields, err = m.Claim(ctx, "k", time.Second)
		require.NoError(t, err)
		require.Equal(t, map[string][]byte{"a": []byte("x")}, fields)
		require.NoError(t, save(Update{Key: "k", Fence: 3, Number: 1}))
		_, _, err = m.Claim(ctx, "k", time.Minute)
		require.Equal(t, ErrUnknown, err, "removed")
		require.NoError(t, m.Create(ctx, "k", time.Minute))
		time.Sleep(time.Minute + 1)
		_, _, err = m.Claim(ctx, "k", time.Minute)
		require.Equal(t, ErrUnknown, err, "over")
		require.NoError(t, m.Create(ctx, "other", time.Minute))
		require.Len(t, m.sessions, 1, "what is over is swept")
	})
}

// What is in a store may be anything (R22): it is a session, or none.
func TestRestore(t *testing.T) {
	m := func(e Envelope) []byte { return JSON.Append(nil, &e) }
	for _, x := range []struct {
		name   string
		fields map[string][]byte
		buf    int // -1: none
	}{
		{"nothing yet", nil, 0},
		{"fields of others", map[string][]byte{"": nil, "m": nil, "c": nil, "x1": nil, "m-1": nil, "s": []byte("1 2 3")}, 0},
		{"messages", map[string][]byte{"s": []byte("0 3 0"), "m2": m(Envelope{Type: typeMessage, ID: 2, Name: "n"}), "m3": m(Envelope{Type: typeReply, ID: 3, Re: 1})}, 2},
		{"a hole", map[string][]byte{"s": []byte("0 3 0"), "m1": m(Envelope{Type: typeMessage, ID: 1, Name: "n"}), "m3": m(Envelope{Type: typeReply, ID: 3, Re: 1})}, 1},
		{"beyond the last", map[string][]byte{"s": []byte("0 3 0"), "m4": m(Envelope{Type: typeMessage, ID: 4, Name: "n"})}, 0},
		{"no state", map[string][]byte{"s": []byte("1 x 3")}, -1},
		{"empty state", map[string][]byte{"s": {}}, -1},
		{"negative", map[string][]byte{"s": []byte("-1 1 0")}, -1},
		{"large", map[string][]byte{"s": []byte("1 18446744073709551615 3")}, -1},
		{"no envelope", map[string][]byte{"s": []byte("0 1 0"), "m1": []byte("{")}, -1},
		{"another number", map[string][]byte{"s": []byte("0 1 0"), "m1": m(Envelope{Type: typeMessage, ID: 2, Name: "n"})}, -1},
		{"another type", map[string][]byte{"s": []byte("0 1 0"), "m1": m(Envelope{Type: typeWelcome, ID: 1})}, -1},
	} {
		s, err := restore(new(Config), "t", new(vault), x.fields)
		if x.buf < 0 {
			require.Equal(t, ErrUnknown, err, x.name)
			continue
		}
		require.NoError(t, err, x.name)
		require.Equal(t, x.buf, s.buf.len(), x.name)
	}
}

// A slowStore saves when it is let.
type slowStore struct {
	Store
	mu   sync.Mutex
	hold chan struct{}
	err  error
}

func (s *slowStore) Save(ctx context.Context, updates []Update) error {
	s.mu.Lock()
	hold, err := s.hold, s.err
	s.mu.Unlock()
	if hold != nil {
		<-hold
	}
	if err != nil {
		return err
	}
	return s.Store.Save(ctx, updates)
}

// Nothing is seen by anybody before the store has it.
func TestStoreFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &slowStore{Store: new(Memory)}
		var at, back log
		w := start(t, func(w *world) {
			w.server.Store = store
			w.server.Config.Message, w.client.Config.Message = at.message, back.message
			w.server.Config.Methods = map[string]Method{"add": func(context.Context, *Session, []byte) ([]byte, error) {
				at.add("called")
				return nil, nil
			}}
		})
		hold := make(chan struct{})
		store.mu.Lock()
		store.hold = hold
		store.mu.Unlock()
		require.NoError(t, w.client.Session().Send("n", number(1)))
		require.NoError(t, w.peer().Send("m", number(2)))
		done := make(chan error)
		go func() {
			_, err := w.client.Session().Call(t.Context(), "add", nil)
			done <- err
		}()
		time.Sleep(time.Second)
		synctest.Wait()
		require.Empty(t, at.all())
		require.Empty(t, back.all())
		require.Zero(t, w.client.Session().Stats().Acknowledged)
		close(hold)
		require.NoError(t, <-done)
		synctest.Wait()
		require.ElementsMatch(t, []string{"n 1", "called"}, at.all())
		require.Equal(t, []string{"m 2"}, back.all())
		require.EqualValues(t, 2, w.client.Session().Stats().Acknowledged)
		w.end()
	})
}

// A store that is not reached: what there is waits, who comes is sent away for a
// while, and everything arrives when it is back.
func TestStoreOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &slowStore{Store: new(Memory)}
		var at log
		w := start(t, func(w *world) {
			w.server.Store, w.server.Config.Message = store, at.message
		})
		fail := func(err error) {
			store.mu.Lock()
			defer store.mu.Unlock()
			store.err = err
		}
		fail(errors.New("no store"))
		for i := range 5 {
			require.NoError(t, w.client.Session().Send("n", number(i)))
		}
		w.n.Cut("a:80")
		time.Sleep(20 * time.Second)
		require.Empty(t, at.all())
		require.False(t, w.client.Session().Connected())
		fail(nil)
		time.Sleep(time.Minute)
		require.Equal(t, []string{"n 0", "n 1", "n 2", "n 3", "n 4"}, at.all())
		require.Len(t, w.opened, 1)
		w.end()
	})
}

// Two servers with one store: the client's connection to the first is half open,
// and it goes on at the second. The first learns of it, tells its application and
// closes its connection; its client cannot do anything any more. Calls that the
// first was asked are answered with ErrLost.
func TestMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(wstest.Network)
		var at, back log
		release := make(chan struct{})
		store := new(Memory)
		server := func(host string) *Server {
			v := &Server{
				Store: store,
				Open:  func(s *Session) { at.add("%s opens", host) },
				Resume: func(s *Session) {
					at.add("%s resumes", host)
					require.NoError(t, s.Send("from", []byte(`"`+host+`"`)))
				},
				Close: func(s *Session) { at.add("%s closes: %v", host, s.Err()) },
				Config: Config{
					Message: func(_ *Session, name string, data []byte) {
						at.add("%s: %s %s", host, name, data)
						if string(data) == "3" {
							<-release
						}
					},
					Gap: func(_ *Session, g Gap) { at.add("%s: %d in doubt", host, g.Doubtful) },
					Methods: map[string]Method{"wait": func(ctx context.Context, _ *Session, _ []byte) ([]byte, error) {
						<-ctx.Done()
						at.add("%s: nobody waits", host)
						return nil, ctx.Err()
					}},
				},
			}
			stop := n.Serve(host+":80", &websocket.Server{Handler: func(ctx context.Context, c *websocket.Conn) { v.Serve(ctx, c) }})
			t.Cleanup(func() { stop(); v.Shutdown() })
			return v
		}
		a, b := server("a"), server("b")
		client := &Client{
			Reconnect: reconnect.Client{URLs: []string{"ws://a", "ws://b"}, Options: websocket.DialOptions{Client: n.Client()}},
			Config:    Config{Message: back.message, Gap: back.gap},
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- client.Run(ctx) }()
		synctest.Wait()
		for i := 1; i <= 4; i++ {
			require.NoError(t, client.Session().Send("n", number(i)))
		}
		lost := make(chan error)
		go func() {
			_, err := client.Session().Call(t.Context(), "wait", nil)
			lost <- err
		}()
		synctest.Wait()
		require.Equal(t, []string{"a opens", "a: n 1", "a: n 2", "a: n 3"}, at.all())
		at.lines = nil

		// Another connection with the token, as the client's next is.
		c, err := websocket.Dial(t.Context(), "ws://b", &websocket.DialOptions{Client: n.Client()})
		require.NoError(t, err)
		require.NoError(t, exchange(t.Context(), c, JSON, &Envelope{Type: typeHello, Token: client.Session().token}))
		got := []string{}
		read := func() {
			m, err := c.Read(t.Context())
			require.NoError(t, err)
			var e Envelope
			require.NoError(t, JSON.Decode(m.Data, &e))
			got = append(got, e.Type)
		}
		read()
		read()
		read()
		require.Equal(t, []string{"welcome", "message", "reply"}, got)
		synctest.Wait()
		require.Equal(t, []string{"b resumes", "b: 2 in doubt"}, at.all(), "the handler of 3 has not returned, 4 waits")
		at.lines = nil
		require.NoError(t, client.Session().Send("n", number(5)), "the first has it, and finds out")
		require.Equal(t, CloseReplaced, websocket.CodeOf(<-done))
		synctest.Wait()
		require.Equal(t, []string{"a closes: " + ErrMoved.Error(), "a: nobody waits"}, at.all())
		close(release)
		for range a.Sessions() {
			t.Fatal("a has none")
		}
		go func() { done <- client.Run(ctx) }() // comes to a, which claims it again
		require.Equal(t, ErrLost, <-lost)
		time.Sleep(time.Minute)
		require.Contains(t, at.all(), "a: n 5")
		require.NotContains(t, at.all(), "a: n 4", "in doubt for ever")
		require.Equal(t, []string{`from "b"`, `from "a"`}, back.all())
		for range b.Sessions() {
			t.Fatal("b has none: it has heard of it within 15 s")
		}
		c.CloseNow()
		cancel()
		<-done
	})
}

// A store that has gone back to what it was, as a replica that was behind: the
// session is lost, and both sides know.
func TestStoreBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := new(Memory)
		var back log
		w := start(t, func(w *world) {
			w.server.Store, w.client.Config.Gap = store, back.gap
		})
		w.client.Session().Send("n", number(1))
		time.Sleep(time.Minute)
		old := map[string]memory{}
		store.mu.Lock()
		for key, x := range store.sessions {
			old[key] = *x
			old[key] = memory{fence: x.fence, fields: maps.Clone(x.fields), until: x.until.Add(time.Hour)}
		}
		store.mu.Unlock()
		w.client.Session().Send("n", number(2))
		time.Sleep(time.Minute)
		require.EqualValues(t, 2, w.client.Session().Stats().Acknowledged)
		w.stop()
		w.server.Shutdown()
		store.mu.Lock()
		for key, x := range old {
			store.sessions[key] = &x
		}
		store.mu.Unlock()
		w.server = &Server{Store: store, Open: w.server.Open}
		w.serve()
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, []string{"gap {Messages:0 Lost:true Unacknowledged:0}"}, back.all())
		require.Len(t, w.opened, 2)
		require.True(t, w.client.Session().Connected())
		w.end()
	})
}

// A server that is shut down leaves nothing in doubt, and the next goes on.
func TestRestartWithStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := new(Memory)
		var at, back log
		w := start(t, func(w *world) {
			w.server.Store = store
			w.server.Config.Message = func(s *Session, name string, data []byte) {
				time.Sleep(time.Second)
				at.message(s, name, data)
			}
			w.server.Config.Gap, w.client.Config.Gap, w.client.Config.Message = at.gap, back.gap, back.message
		})
		for i := range 3 {
			require.NoError(t, w.client.Session().Send("n", number(i)))
		}
		synctest.Wait()
		require.NoError(t, w.peer().Send("m", nil))
		w.stop()
		old, first := w.server, w.peer()
		old.Shutdown()
		require.Equal(t, []string{"n 0", "n 1", "n 2"}, at.all(), "Shutdown waits for handlers")
		require.Equal(t, ErrMoved, first.Err())
		require.Equal(t, ErrMoved, first.Send("m", nil))
		require.NoError(t, w.client.Session().Send("n", number(3)))
		w.server = &Server{Store: store, Config: old.Config, Resume: func(s *Session) { s.Send("again", nil) }}
		w.serve()
		time.Sleep(time.Minute)
		require.Equal(t, []string{"n 0", "n 1", "n 2", "n 3"}, at.all())
		require.Equal(t, []string{"m ", "again "}, back.all())
		st := w.client.Session().Stats()
		require.Equal(t, st.Sent, st.Acknowledged)
		w.end()
	})
}
