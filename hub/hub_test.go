package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/wstest"
	"github.com/stretchr/testify/require"
)

var bg = context.Background()

func anybody(context.Context, *Member, Room) error { return nil }

func lobby() Room { return Room{"chat", "lobby"} }

// A person is a client, and everything it has been sent.
type person struct {
	*Member
	client *websocket.Conn

	mu   sync.Mutex
	got  []string
	err  error
	done chan struct{}
}

// enter connects a client that reads everything; its connection is closed with
// the test.
func enter(t testing.TB, h *Hub, user string, rooms ...Room) *person {
	return enterBy(t, h, wstest.Link{}, user, rooms...)
}

func enterBy(t testing.TB, h *Hub, l wstest.Link, user string, rooms ...Room) *person {
	client, server := l.Pipe()
	go server.Serve(bg, nil)
	m, err := h.Add(server, user)
	require.NoError(t, err)
	p := &person{Member: m, client: client, done: make(chan struct{})}
	t.Cleanup(func() { client.CloseNow(); server.CloseNow() })
	for _, r := range rooms {
		require.NoError(t, m.Join(bg, r))
	}
	return p
}

// read takes down what comes.
func (p *person) read() *person {
	go func() {
		defer close(p.done)
		for m, err := range p.client.Messages(bg) {
			p.mu.Lock()
			if p.err = err; err == nil {
				p.got = append(p.got, string(m.Data))
			}
			p.mu.Unlock()
		}
	}()
	return p
}

// heard returns what has come since the last call.
func (p *person) heard() string {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	s := strings.Join(p.got, "|")
	p.got = nil
	return s
}

func TestSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &Hub{Authorize: anybody}
		a, b := Room{"chat", "a"}, Room{"chat", "b"}
		ann := enter(t, h, "ann", a, b).read()
		ann2 := enter(t, h, "ann").read()
		ben := enter(t, h, "ben", a).read()
		zoe := enter(t, h, "zoe", Room{"other", "a"}).read()
		hear := func(want ...string) {
			t.Helper()
			require.Equal(t, want, []string{ann.heard(), ann2.heard(), ben.heard(), zoe.heard()})
		}
		require.NoError(t, h.Send(a, websocket.Text("to a")))
		hear("to a", "", "to a", "")
		require.NoError(t, h.Send(Room{"other", "a"}, websocket.Binary([]byte("to other"))))
		hear("", "", "", "to other")
		require.NoError(t, h.SendUser("ann", websocket.Text("to ann")))
		hear("to ann", "to ann", "", "")
		require.NoError(t, h.SendNamespace("chat", websocket.Text("to all")))
		hear("to all", "", "to all", "")
		require.NoError(t, ben.SendOthers(a, websocket.Text("from ben")))
		hear("from ben", "", "", "")
		require.NoError(t, ann2.Send(websocket.Text("to one")))
		hear("", "to one", "", "")
		require.NoError(t, ann.Leave(a))
		require.NoError(t, ben.Join(bg, a)) // again
		require.NoError(t, h.Send(a, websocket.Text("less")))
		hear("", "", "less", "")

		require.NoError(t, h.Send(Room{"chat", "nobody"}, websocket.Text("x")))
		require.NoError(t, h.SendUser("nobody", websocket.Text("x")))
		require.NoError(t, h.SendNamespace("nobody", websocket.Text("x")))
		require.ErrorIs(t, zoe.SendOthers(a, websocket.Text("x")), ErrNotMember)
		require.ErrorIs(t, zoe.Leave(a), ErrNotMember)
		require.Error(t, h.Send(a, websocket.Text("\xff")))
		require.Error(t, zoe.Send(websocket.Message{}))
		hear("", "", "", "")

		require.Equal(t, []int{1, 1, 0}, []int{h.Count(a), h.Count(b), h.Count(Room{"chat", "nobody"})})
		require.Equal(t, []int{2, 1, 0}, []int{h.Online("ann"), h.Online("ben"), h.Online("nobody")})
		require.Equal(t, []Room{b}, ann.Rooms())
		s := h.Stats()
		require.Equal(t, []int64{4, 3, 3}, []int64{s.Members, s.Rooms, s.Memberships})

		// What ends a connection takes it out.
		ann.client.CloseNow()
		ben.client.Close(websocket.CloseNormalClosure, "")
		zoe.Remove()
		synctest.Wait()
		require.NoError(t, h.SendUser("zoe", websocket.Text("x")))
		require.ErrorIs(t, zoe.Join(bg, a), ErrGone)
		hear("", "", "", "")
		ann2.client.CloseNow()
		synctest.Wait()
		empty(t, h)
	})
}

// empty checks that a hub has forgotten everything.
func empty(t *testing.T, h *Hub) {
	t.Helper()
	s := h.Stats()
	require.Equal(t, []int64{0, 0, 0}, []int64{s.Members, s.Rooms, s.Memberships})
	for i := range h.shards {
		require.Empty(t, h.shards[i].topics)
		require.Empty(t, h.shards[i].members)
	}
}

// A116: names are bounded and mean nothing else to anybody.
func TestNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &Hub{Authorize: anybody, MaxRooms: 3}
		ann := enter(t, h, "ann")
		long := strings.Repeat("n", 1<<20)
		for _, r := range []Room{
			{}, {"chat", ""}, {"", "lobby"}, {"chat", "*"}, {"chat", "a\n"}, {"chat", "a\x00"}, {"chat", "a b"}, {"chat", long},
			{"chat", "a/b"}, {"chat/lobby", "b"}, {"chat", "{a}"}, {"chat", "[a]"}, {"chat", "a?"}, {"chat", "a>"}, {"chat", "ä"},
			{"chat", "a\\"}, {"ch.at", "a"}, {"chat:", "a"}, {long, "a"}, {long[:33], "a"}, {"chat", long[:129]}, {"chat", "\xff"},
		} {
			require.ErrorIs(t, ann.Join(bg, r), ErrName, "%.40q", r)
			require.ErrorIs(t, h.Send(r, websocket.Text("")), ErrName, "%.40q", r)
		}
		for _, u := range []string{"a\n", "\x00", "\xff", long, long[:129], "\u200b"} {
			_, err := h.Add(ann.Conn(), u)
			require.ErrorIs(t, err, ErrName, "%.40q", u)
			require.ErrorIs(t, h.SendUser(u, websocket.Text("")), ErrName)
		}
		require.ErrorIs(t, h.SendKey(lobby(), long, websocket.Text("")), ErrName)
		require.ErrorIs(t, h.SendNamespace("a/b", websocket.Text("")), ErrName)
		require.Equal(t, int64(0), h.Stats().Rooms)

		// One connection cannot fill the memory with rooms.
		for i := range 3 {
			require.NoError(t, ann.Join(bg, Room{long[:32], fmt.Sprint("A-z_0.9:@~", i)}))
		}
		require.ErrorIs(t, ann.Join(bg, lobby()), ErrLimit)
		require.Equal(t, int64(3), h.Stats().Rooms)
	})
}

// A117: nobody joins without being asked about.
func TestAuthorize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		require.ErrorIs(t, enter(t, &Hub{}, "ann").Join(bg, lobby()), ErrRefused)

		why := errors.New("not you")
		var mu sync.Mutex
		banned := map[string]bool{"ben": true}
		wait := make(chan struct{}, 1)
		h := &Hub{Authorize: func(ctx context.Context, m *Member, r Room) error {
			mu.Lock()
			bad := banned[m.User()]
			mu.Unlock()
			if r.Name == "slow" {
				wait <- struct{}{}
				wait <- struct{}{}
			}
			if bad {
				return why
			}
			return nil
		}}
		ann, ben := enter(t, h, "ann", lobby(), Room{"chat", "b"}), enter(t, h, "ben")
		require.ErrorIs(t, ben.Join(bg, lobby()), why)
		require.Equal(t, 1, h.Count(lobby()))
		require.Equal(t, int64(1), h.Stats().Refused)
		require.Equal(t, 0, h.Recheck(bg, "ann"))

		// Somebody is let in while their rights are taken away.
		joined := make(chan error)
		go func() { joined <- ann.Join(bg, Room{"chat", "slow"}) }()
		synctest.Wait() // the old rights were looked at
		mu.Lock()
		banned["ann"] = true
		mu.Unlock()
		require.Equal(t, 2, h.Recheck(bg, "ann"))
		<-wait
		<-wait
		synctest.Wait()
		<-wait
		<-wait
		require.ErrorIs(t, <-joined, why)
		require.Empty(t, ann.Rooms())
		require.Equal(t, 0, h.Recheck(bg, "nobody"))
		require.Equal(t, int64(0), h.Stats().Memberships)
	})
}

func TestPresence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		h := &Hub{
			Authorize: anybody,
			Options:   func(Room) Options { return Options{Presence: true, MaxMembers: 4} },
			Encode: func(e Event) (websocket.Message, bool) {
				return websocket.Text(e.Kind.String() + " " + e.User + strings.Join(e.Users, "+") + string(e.Message.Data)), true
			},
			OnEvent: func(e Event) { told = append(told, e.Kind.String()+" "+e.User) },
		}
		ann := enter(t, h, "ann", lobby()).read()
		require.Equal(t, "joined ann|welcome ann", ann.heard())
		ben := enter(t, h, "ben", lobby()).read()
		require.Equal(t, "joined ben|welcome ann+ben", ben.heard())
		require.Equal(t, "joined ben", ann.heard())
		ben2 := enter(t, h, "ben", lobby()).read()
		require.Equal(t, "welcome ann+ben", ben2.heard())
		require.Equal(t, "", ann.heard(), "a second connection is no event")
		guest := enter(t, h, "", lobby()).read()
		require.Equal(t, "welcome ann+ben", guest.heard())
		require.ErrorIs(t, enter(t, h, "zoe").Join(bg, lobby()), ErrFull)
		require.Equal(t, []string{"ann", "ben"}, h.Users(lobby()))
		require.Equal(t, 4, h.Count(lobby()))

		require.NoError(t, ben.Leave(lobby()))
		require.Equal(t, "", ann.heard())
		ben2.client.CloseNow()
		require.Equal(t, "left ben", ann.heard())
		ann.SendOthers(lobby(), websocket.Text("!"))
		require.Equal(t, "left ben|sent ann!", guest.heard())
		ann.client.CloseNow()
		guest.client.CloseNow()
		synctest.Wait()
		require.Equal(t, "joined ann|joined ben|left ben|left ann", strings.Join(told, "|"))
		require.Nil(t, h.Users(lobby()))
		require.Equal(t, int64(0), h.Stats().Rooms)
	})
}

// slow returns a connection whose peer reads nothing yet: 2,000 bytes fill it.
func slow() wstest.Link {
	return wstest.Link{Buffer: 1000, Server: websocket.Config{
		QueueLimit: 1000, WriteTimeout: time.Hour, KeepAlive: -1, CloseTimeout: 5 * time.Second,
	}}
}

// A119: what becomes of messages for a member that does not read, by policy; the
// others get everything at once.
func TestPolicies(t *testing.T) {
	number := func(i int) string { return fmt.Sprintf("%c%099d", 'a'+i%2, i) }
	for _, test := range []struct {
		policy  Policy
		backlog int
		check   func(t *testing.T, got []string, s Stats)
	}{
		{CloseSlow, 0, func(t *testing.T, got []string, s Stats) {
			require.Less(t, len(got), 40)
			require.Equal(t, int64(1), s.Closed)
			require.Equal(t, int64(1), s.Memberships)
		}},
		{DropNewest, 0, func(t *testing.T, got []string, s Stats) {
			require.Equal(t, int64(100-len(got)), s.DroppedNewest)
			require.Greater(t, s.DroppedNewest, int64(50))
			require.NotContains(t, got, number(99))
		}},
		{DropOldest, 1640, func(t *testing.T, got []string, s Stats) {
			require.Equal(t, int64(100-len(got)), s.DroppedOldest)
			for i := range 10 { // 164 bytes each
				require.Contains(t, got, number(90+i))
			}
			require.NotContains(t, got, number(80))
		}},
		{KeepLatest, 0, func(t *testing.T, got []string, s Stats) {
			require.Equal(t, int64(100-len(got)), s.Replaced)
			require.ElementsMatch(t, []string{number(98), number(99)}, got[len(got)-2:])
			require.NotContains(t, got, number(90))
		}},
	} {
		t.Run(fmt.Sprint(test.policy), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &Hub{
					Authorize: anybody, Backlog: test.backlog,
					Options: func(Room) Options { return Options{Policy: test.policy} },
				}
				dead, live := enterBy(t, h, slow(), "dead", lobby()), enter(t, h, "live", lobby()).read()
				for i := range 100 {
					text := number(i)
					require.NoError(t, h.SendKey(lobby(), text[:1], websocket.Text(text)))
					require.Equal(t, text, live.heard())
				}
				dead.read()
				time.Sleep(time.Minute)
				dead.heard()
				live.heard()
				require.NoError(t, h.Send(lobby(), websocket.Text("end")))
				require.Equal(t, "end", live.heard())
				if test.policy == CloseSlow {
					<-dead.done
					require.Equal(t, websocket.ClosePolicyViolation, websocket.CodeOf(context.Cause(dead.Conn().Context())))
				} else {
					require.Equal(t, "end", dead.heard(), "it has caught up")
					require.Nil(t, dead.lag.Load(), "and holds no queue")
				}
			})
			synctest.Test(t, func(t *testing.T) { // the same, looked at
				h := &Hub{
					Authorize: anybody, Backlog: test.backlog,
					Options: func(Room) Options { return Options{Policy: test.policy} },
				}
				dead := enterBy(t, h, slow(), "dead", lobby())
				enter(t, h, "live", lobby()).read()
				for i := range 100 {
					h.SendKey(lobby(), number(i)[:1], websocket.Text(number(i)))
					synctest.Wait()
				}
				dead.read()
				var got []string
				if heard := dead.heard(); heard != "" {
					got = strings.Split(heard, "|")
				}
				last := map[string]string{}
				for _, text := range got {
					key := text[:1]
					if test.policy != KeepLatest {
						key = ""
					}
					require.Less(t, last[key], text[1:], "in order")
					last[key] = text[1:]
				}
				test.check(t, got, h.Stats())
			})
		})
	}
}

// A119: a member that never reads is gone in seconds.
func TestDeadMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, policy := range []Policy{CloseSlow, DropOldest, KeepLatest} {
			h := &Hub{Authorize: anybody, Options: func(Room) Options { return Options{Policy: policy} }}
			l := slow()
			l.Server.WriteTimeout = 0
			dead := enterBy(t, h, l, "dead", lobby())
			for range 100 {
				h.Send(lobby(), websocket.Binary(make([]byte, 100)))
			}
			start := time.Now()
			<-dead.Conn().Context().Done()
			require.LessOrEqual(t, time.Since(start), 10*time.Second)
			synctest.Wait()
			empty(t, h)
		}
	})
}

// An Endpoint calls back in order, and lets go.
func TestEndpoint(t *testing.T) {
	var mu sync.Mutex
	var calls []string
	called := func(s string) {
		mu.Lock()
		defer mu.Unlock()
		calls = append(calls, s)
	}
	h := &Hub{Authorize: anybody}
	closed := make(chan struct{})
	e := &Endpoint{
		Hub: h,
		User: func(r *http.Request) (string, error) {
			if u := r.URL.Query().Get("user"); u != "bad" {
				return u, nil
			}
			return "", errors.New("secret")
		},
		Open: func(ctx context.Context, m *Member) error {
			called("open " + m.User())
			if m.User() == "late" {
				return errors.New("too late")
			}
			return m.Join(ctx, lobby())
		},
		Message: func(ctx context.Context, m *Member, msg websocket.Message) error {
			called("message " + string(msg.Data))
			if string(msg.Data) == "fail" {
				return errors.New("failed")
			}
			return h.Send(lobby(), msg)
		},
		Error: func(m *Member, err error) { called("error " + err.Error()) },
		Close: func(m *Member, err error) {
			called(fmt.Sprint("close ", websocket.CodeOf(err), " ", len(m.Rooms()), " ", h.Count(lobby())))
			closed <- struct{}{}
		},
	}
	s := httptest.NewServer(e)
	defer s.Close()
	dial := func(query string) *websocket.Conn {
		c, err := websocket.Dial(bg, s.URL+query, nil)
		require.NoError(t, err)
		return c
	}
	ann := dial("?user=ann")
	require.NoError(t, ann.Write(bg, websocket.Text("hi")))
	m, err := ann.Read(bg)
	require.NoError(t, err)
	require.Equal(t, "hi", string(m.Data))
	require.NoError(t, ann.Write(bg, websocket.Text("fail")))
	require.NoError(t, ann.Write(bg, websocket.Text("on")))
	m, err = ann.Read(bg)
	require.NoError(t, err)
	require.Equal(t, "on", string(m.Data))
	require.NoError(t, ann.Close(4000, ""))
	<-closed
	require.Equal(t, []string{"open ann", "message hi", "message fail", "error failed", "message on", "close 4000 0 0"}, calls)

	calls = nil
	late := dial("?user=late")
	_, err = late.Read(bg)
	require.Equal(t, websocket.ClosePolicyViolation, websocket.CodeOf(err))
	<-closed
	require.Equal(t, []string{"open late", "error too late", "close 1008 policy violation 0 0"}, calls)

	calls = nil
	dial("").CloseNow()
	<-closed
	require.Equal(t, []string{"open ", "error unexpected EOF", "close 1006 abnormal closure 0 0"}, calls)

	for _, query := range []string{"?user=bad", "?user=%00"} {
		_, err = websocket.Dial(bg, s.URL+query, nil)
		refused := (*websocket.HandshakeError)(nil)
		require.ErrorAs(t, err, &refused)
		require.Equal(t, http.StatusForbidden, refused.Status)
		body, _ := io.ReadAll(refused.Response.Body)
		require.NotContains(t, string(body), "secret")
	}
	require.NoError(t, e.Shutdown(bg))
}

func TestPublisher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &Hub{Authorize: anybody}
		ann := enter(t, h, "ann", lobby()).read()
		p := &Publisher{Hub: h, Token: "secret", Limit: 100}
		for _, test := range []struct {
			method, query, kind, token, body string
			status                           int
			heard                            string
		}{
			{"POST", "?namespace=chat&room=lobby", "", "Bearer secret", "raw", 204, "raw"},
			{"POST", "?namespace=chat&room=lobby&key=k", "application/octet-stream", "bearer secret", "\xff", 204, "\xff"},
			{"POST", "?namespace=chat", "text/plain; charset=utf-8", "Bearer secret", "all", 204, "all"},
			{"POST", "?user=ann", "application/json", "Bearer secret", `{"a":1}`, 204, `{"a":1}`},
			{"POST", "", "application/json", "Bearer secret", `{"user":"ann","text":"hi"}`, 204, "hi"},
			{"POST", "", "application/json", "Bearer secret", `{"user":"ann","json":{"x": 7}}`, 204, `{"x": 7}`},
			{"POST", "", "application/json", "Bearer secret", `{"namespace":"chat","room":"lobby","binary":"AAE="}`, 204, "\x00\x01"},
			{"POST", "?user=nobody", "", "Bearer secret", "x", 204, ""},
			{"POST", "?user=ann", "", "", "x", 401, ""},
			{"POST", "?user=ann", "", "Bearer ", "x", 401, ""},
			{"POST", "?user=ann", "", "Bearer secre", "x", 401, ""},
			{"POST", "?user=ann", "", "Bearer secret2", "x", 401, ""},
			{"POST", "?user=ann", "", "Basic secret", "x", 401, ""},
			{"GET", "?user=ann", "", "Bearer secret", "", 405, ""},
			{"POST", "?user=ann", "", "Bearer secret", strings.Repeat("x", 101), 413, ""},
			{"POST", "?user=ann", "", "Bearer secret", "\xff", 400, ""},
			{"POST", "", "", "Bearer secret", "x", 400, ""},
			{"POST", "?room=lobby", "", "Bearer secret", "x", 400, ""},
			{"POST", "?namespace=chat&key=k", "", "Bearer secret", "x", 400, ""},
			{"POST", "?namespace=chat&room=*", "", "Bearer secret", "x", 400, ""},
			{"POST", "?user=ann&room=lobby", "", "Bearer secret", "x", 400, ""},
			{"POST", "", "application/json", "Bearer secret", `{"user":"ann"}`, 400, ""},
			{"POST", "", "application/json", "Bearer secret", `{"user":"ann","text":"a","json":1}`, 400, ""},
			{"POST", "", "application/json", "Bearer secret", `{"user":`, 400, ""},
		} {
			r := httptest.NewRequest(test.method, "/push"+test.query, strings.NewReader(test.body))
			r.Header.Set("Content-Type", test.kind)
			r.Header.Set("Authorization", test.token)
			w := httptest.NewRecorder()
			p.ServeHTTP(w, r)
			require.Equal(t, test.status, w.Code, "%v", test)
			require.Equal(t, test.heard, ann.heard(), "%v", test)
		}
		r := httptest.NewRequest("POST", "/?user=ann", nil)
		r.Header.Set("Authorization", "Bearer ")
		w := httptest.NewRecorder()
		(&Publisher{Hub: h}).ServeHTTP(w, r)
		require.Equal(t, 401, w.Code, "no token is no password")
	})
}

// A120: joining, leaving, sending and closing all at once leaves nothing behind.
func TestStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &Hub{
			Authorize: anybody,
			Options:   func(r Room) Options { return Options{Presence: r.Name < "3", Policy: Policy(r.Name[0]-'0') % 4} },
			Encode: func(e Event) (websocket.Message, bool) {
				return websocket.Text(e.Kind.String() + " " + e.User), true
			},
		}
		room := func(i int) Room { return Room{"storm", fmt.Sprint(i % 7)} }
		var all sync.WaitGroup
		for i := range 50 {
			p := enter(t, h, fmt.Sprint("user", i%20)).read()
			all.Go(func() {
				for j := range 60 {
					p.Join(bg, room(i+j))
					h.Send(room(i*j), websocket.Text("storm"))
					if j%3 == 0 {
						p.Leave(room(i + j - 3))
					}
				}
				if i%2 == 0 {
					p.client.CloseNow()
				} else {
					p.client.Close(websocket.CloseNormalClosure, "")
				}
			})
		}
		all.Wait()
		synctest.Wait()
		empty(t, h)
	})
}

// Members agree with the hub on who is there, however people come and go.
func TestPresenceConverges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &Hub{
			Authorize: anybody,
			Options:   func(Room) Options { return Options{Presence: true} },
			Encode: func(e Event) (websocket.Message, bool) {
				return websocket.Text(e.Kind.String() + " " + e.User + strings.Join(e.Users, "+")), true
			},
		}
		watcher := enter(t, h, "watcher", lobby()).read()
		var all sync.WaitGroup
		for i := range 20 {
			p := enter(t, h, fmt.Sprint("user", i%10)).read()
			all.Go(func() {
				for range 50 {
					p.Join(bg, lobby())
					runtime.Gosched()
					p.Leave(lobby())
				}
				if i < 5 {
					p.Join(bg, lobby())
				}
			})
		}
		all.Wait()
		here := map[string]bool{}
		for _, line := range strings.Split(watcher.heard(), "|") {
			kind, user, _ := strings.Cut(line, " ")
			switch kind {
			case "joined":
				require.False(t, here[user], "twice: %s", user)
				here[user] = true
			case "left":
				require.True(t, here[user], "who? %s", user)
				delete(here, user)
			}
		}
		require.Len(t, here, 6)
		for _, user := range h.Users(lobby()) {
			require.True(t, here[user])
		}
	})
}

// 100,000 rooms and 100,000 members are normal, and a membership takes less
// than 200 bytes.
func TestMany(t *testing.T) {
	const n = 100_000
	h := &Hub{Authorize: anybody, Options: func(Room) Options { return Options{Presence: true} }}
	members := make([]*Member, n)
	for i := range members { // without a connection: that is for others to weigh
		members[i] = &Member{hub: h, home: &h.shards[i%shards], user: fmt.Sprint("user", i)}
	}
	h.init()
	weigh := func(name string, most uint64, f func()) {
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.GC()
		runtime.ReadMemStats(&after)
		per := (after.HeapAlloc - before.HeapAlloc) / n
		t.Logf("%s: %d bytes each", name, per)
		require.Less(t, per, most, name)
	}
	weigh("memberships of one room", 200, func() {
		for _, m := range members {
			r, err := m.enter(lobby(), new(newcomer))
			require.NoError(t, err)
			r.tell()
		}
	})
	weigh("rooms with a member", 700, func() {
		for i, m := range members {
			r, err := m.enter(Room{"many", fmt.Sprint("room", i)}, new(newcomer))
			require.NoError(t, err)
			r.tell()
		}
	})
	s := h.Stats()
	require.Equal(t, []int64{n + 1, 2 * n}, []int64{s.Rooms, s.Memberships})
	require.Equal(t, n, h.Count(lobby()))
	for _, m := range members {
		m.Remove()
	}
	s = h.Stats()
	require.Equal(t, []int64{0, 0}, []int64{s.Rooms, s.Memberships})
	runtime.KeepAlive(members)
}
