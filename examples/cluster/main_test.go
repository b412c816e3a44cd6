package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/internal/leak"
)

const patience = 30 * time.Second // for one thing to happen

// The tests' binary is the program too, which starts itself as the servers.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "-server" {
		main()
		return
	}
	os.Exit(leak.Run(m))
}

// everyRedis runs a test with each kind of Redis that there is.
func everyRedis(t *testing.T, test func(t *testing.T, redis *unit)) {
	t.Parallel()
	path, err := exec.LookPath("redis-server")
	if err != nil && os.Getenv("CI") != "" {
		t.Fatal("no redis-server: apt-get install redis-server")
	}
	for _, path := range []string{path, ""} {
		redis, err := ownRedis(path)
		require.NoError(t, err)
		t.Run(redis.Kind, func(t *testing.T) {
			t.Parallel()
			test(t, redis)
		})
		if path == "" {
			return
		}
	}
}

// A cluster is a run of the program, with a page's connection for the buttons.
type cluster struct {
	t     *testing.T
	url   string
	panel *websocket.Conn

	mu    sync.Mutex
	units []*unit
}

func start(t *testing.T, redis *unit) *cluster {
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := run(ctx, 0, redis, w)
		w.CloseWithError(err)
		ended <- err
	}()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	line := make([]byte, 200)
	n, err := r.Read(line)
	require.NoError(t, err)
	c := &cluster{t: t, url: regexp.MustCompile(`http://localhost:\d+`).FindString(string(line[:n]))}
	require.Contains(t, string(line[:n]), redis.Kind)

	c.panel, err = websocket.Dial(t.Context(), c.url+"/control", nil)
	require.NoError(t, err)
	t.Cleanup(func() { c.panel.CloseNow() })
	go func() {
		for m, err := range c.panel.Messages(context.Background()) {
			if err != nil {
				return
			}
			var units []*unit
			if json.Unmarshal(m.Data, &units) == nil {
				c.mu.Lock()
				c.units = units
				c.mu.Unlock()
			}
		}
	}()
	c.until("everything runs", func(u []*unit) bool { return len(u) == 4 && u[0].Up && u[1].Up && u[2].Up && u[3].Up })
	return c
}

// until waits for the panel to show something.
func (c *cluster) until(what string, ok func([]*unit) bool) {
	c.t.Helper()
	require.Eventually(c.t, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return ok(c.units)
	}, patience, 5*time.Millisecond, what)
}

func (c *cluster) unit(i int) *unit {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.units[i]
}

// press presses the button of a unit, and waits for what it is to do.
func (c *cluster) press(do string, i int) {
	c.t.Helper()
	name := c.unit(i).Name
	b, err := json.Marshal(command{do, name})
	require.NoError(c.t, err)
	require.NoError(c.t, c.panel.Write(c.t.Context(), websocket.Text(string(b))))
	c.until(do+" "+name, func(u []*unit) bool { return u[i].Up == (do == "start") && u[i].Trouble == "" })
}

// A visitor writes down what a server sends.
type visitor struct {
	t    *testing.T
	conn *websocket.Conn
	done chan struct{} // closed when the connection has ended

	mu  sync.Mutex
	got []event
	err error
}

// visit connects to a server, and waits until it has been let in.
func (c *cluster) visit(i int, user string) *visitor {
	c.t.Helper()
	conn, err := websocket.Dial(c.t.Context(), "ws://"+c.unit(i).Addr+"/?user="+user, &websocket.DialOptions{
		Header: http.Header{"Origin": {c.url}}, // as the page does
	})
	require.NoError(c.t, err)
	v := &visitor{t: c.t, conn: conn, done: make(chan struct{})}
	c.t.Cleanup(func() { conn.CloseNow(); <-v.done })
	go func() {
		defer close(v.done)
		for m, err := range conn.Messages(context.Background()) {
			var e event
			if err == nil {
				err = json.Unmarshal(m.Data, &e)
			}
			v.mu.Lock()
			if err != nil {
				v.err = err
			} else {
				v.got = append(v.got, e)
			}
			v.mu.Unlock()
		}
	}()
	v.until(event{Type: "welcome"})
	return v
}

func (v *visitor) say(text string) {
	v.t.Helper()
	b, err := json.Marshal(request{ID: "id of " + text, Text: text})
	require.NoError(v.t, err)
	require.NoError(v.t, v.conn.Write(v.t.Context(), websocket.Text(string(b))))
}

// count is how many events look like this one, in what it says.
func (v *visitor) count(want event) (n int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, e := range v.got {
		if e.Type == want.Type && (want.User == "" || e.User == want.User) && (want.Text == "" || e.Text == want.Text) &&
			(want.Server == 0 || e.Server == want.Server) {
			n++
		}
	}
	return n
}

func (v *visitor) until(want event) {
	v.t.Helper()
	v.more(0, want)
}

// more waits for more than n events.
func (v *visitor) more(n int, want event) {
	v.t.Helper()
	require.Eventually(v.t, func() bool { return v.count(want) > n }, patience, 5*time.Millisecond, "%+v", want)
}

// online is who the visitor has been told is there.
func (v *visitor) online() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	there := map[string]bool{}
	for _, e := range v.got {
		switch e.Type {
		case "welcome":
			clear(there)
			for _, who := range e.Users {
				there[who] = true
			}
		case "joined":
			there[e.User] = true
		case "left":
			delete(there, e.User)
		}
	}
	var names []string
	for _, who := range []string{"Ada", "Ben", "Cleo"} {
		if there[who] {
			names = append(names, who)
		}
	}
	return strings.Join(names, " ")
}

func (v *visitor) untilOnline(want string) {
	v.t.Helper()
	require.Eventually(v.t, func() bool { return v.online() == want }, patience, 5*time.Millisecond, want)
}

// flows says something at each of them until all get what the others say: the
// first words may be lost where a gap was announced.
func flows(t *testing.T, vs ...*visitor) {
	t.Helper()
	round := 0
	require.Eventually(t, func() bool {
		round++
		for i, v := range vs {
			v.say(fmt.Sprint("round ", round, " of ", i))
		}
		for range 20 {
			all := true
			for i := range vs {
				for _, v := range vs {
					all = all && v.count(event{Type: "message", Text: fmt.Sprint("round ", round, " of ", i)}) == 1
				}
			}
			if all {
				return true
			}
			time.Sleep(10 * time.Millisecond)
		}
		return false
	}, patience, time.Millisecond, "messages flow")
}

func TestMessagesReachAllServers(t *testing.T) {
	everyRedis(t, func(t *testing.T, redis *unit) {
		c := start(t, redis)
		ada, ben, cleo := c.visit(0, "Ada"), c.visit(1, "Ben"), c.visit(2, "Cleo")
		for _, v := range []*visitor{ada, ben, cleo} {
			v.untilOnline("Ada Ben Cleo")
		}
		ada.say("Grüße, 世界")
		for _, v := range []*visitor{ada, ben, cleo} {
			v.until(event{Type: "message", User: "Ada", Server: 1, Text: "Grüße, 世界"})
		}
		require.NoError(t, ben.conn.Close(websocket.CloseNormalClosure, ""))
		ada.untilOnline("Ada Cleo")
		require.Zero(t, ada.count(event{Type: "gap"}))
	})
}

// A server is killed and started again; Redis is killed and started again.
func TestRecovery(t *testing.T) {
	everyRedis(t, func(t *testing.T, redis *unit) {
		c := start(t, redis)
		ada, ben, cleo := c.visit(0, "Ada"), c.visit(1, "Ben"), c.visit(2, "Cleo")
		cleo.untilOnline("Ada Ben Cleo")

		pid := c.unit(1).Pid
		c.press("kill", 1)
		<-ben.done
		_, err := net.Dial("tcp", c.unit(1).Addr)
		require.Error(t, err, "nobody listens")
		require.Equal(t, "Ada Ben Cleo", cleo.online(), "it has said no goodbye")
		flows(t, ada, cleo)
		c.press("start", 1)
		require.NotEqual(t, pid, c.unit(1).Pid)
		ben = c.visit(1, "Ben")
		ben.untilOnline("Ada Ben Cleo")
		flows(t, ada, ben, cleo)

		all := []*visitor{ada, ben, cleo}
		gaps := make([]int, 3)
		for i, v := range all {
			gaps[i] = v.count(event{Type: "gap"})
		}
		c.press("kill", servers)
		for i, v := range all {
			v.more(0, event{Type: "degraded"})
			v.say(fmt.Sprint("alone ", i))
			v.until(event{Type: "message", Text: fmt.Sprint("alone ", i)})
		}
		late := c.visit(0, "Ada")
		late.until(event{Type: "degraded"})
		require.Zero(t, ada.count(event{Type: "message", Text: "alone 1"}))
		c.press("start", servers)
		for i, v := range all {
			v.more(0, event{Type: "recovered"})
			v.more(gaps[i], event{Type: "gap"})
		}
		late.until(event{Type: "gap"})
		flows(t, ada, ben, cleo, late)
		for _, v := range all {
			v.untilOnline("Ada Ben Cleo")
		}
	})
}

// The users of a server that was killed leave when it has been silent for long.
func TestPresenceHeals(t *testing.T) {
	t.Parallel()
	redis, err := newRedis("")
	require.NoError(t, err)
	c := start(t, redis)
	ada, ben := c.visit(0, "Ada"), c.visit(1, "Ben")
	ada.untilOnline("Ada Ben")
	ben.untilOnline("Ada Ben")
	c.press("kill", 1)
	require.Equal(t, "Ada Ben", ada.online())
	ada.untilOnline("Ada")
}

// A process that ends by itself, here by somebody else's kill, is seen to have.
func TestKilledFromOutside(t *testing.T) {
	t.Parallel()
	c := start(t, noRedis(t))
	p, err := os.FindProcess(c.unit(2).Pid)
	require.NoError(t, err)
	require.NoError(t, p.Kill())
	c.until("it is seen", func(u []*unit) bool { return !u[2].Up })

	l, err := net.Listen("tcp", c.unit(2).Addr) // and somebody takes its place
	require.NoError(t, err)
	b, err := json.Marshal(command{"start", "3"})
	require.NoError(t, err)
	require.NoError(t, c.panel.Write(t.Context(), websocket.Text(string(b))))
	c.until("it is said", func(u []*unit) bool { return u[2].Trouble != "" && !u[2].Up })
	require.Contains(t, c.unit(2).Trouble, "server 3: it did not start")
	require.NoError(t, l.Close())
	c.press("start", 2)
	require.True(t, c.unit(servers).Up, "a Redis that is not ours is left alone")
}

func TestStrangersAreRefused(t *testing.T) {
	t.Parallel()
	c := start(t, noRedis(t))
	server := "ws://" + c.unit(0).Addr
	for name, where := range map[string]struct{ url, origin string }{
		"another page, to a server":    {server + "/?user=Ada", "http://example.com"},
		"another page, to the buttons": {c.url + "/control", "http://example.com"},
		"without a name":               {server + "/", c.url},
		"a name that is none":          {server + "/?user=%00", c.url},
	} {
		_, err := websocket.Dial(t.Context(), where.url, &websocket.DialOptions{Header: http.Header{"Origin": {where.origin}}})
		var refused *websocket.HandshakeError
		require.ErrorAs(t, err, &refused, name)
		require.Equal(t, http.StatusForbidden, refused.Status, name)
	}
	for name, text := range map[string]string{
		"no JSON": "hello", "nothing": `{"text":" "}`, "too much": `{"text":"` + strings.Repeat("a", maxText+1) + `"}`,
		"an endless id": `{"text":"a","id":"` + strings.Repeat("a", maxID+1) + `"}`,
	} {
		v := c.visit(0, "Mal")
		require.NoError(t, v.conn.Write(t.Context(), websocket.Text(text)))
		<-v.done
		require.Equal(t, websocket.ClosePolicyViolation, websocket.CodeOf(v.err), name)
	}
}

func TestPageIsGuarded(t *testing.T) {
	t.Parallel()
	c := start(t, noRedis(t))
	elsewhere := regexp.MustCompile(`(src|href)="(https?:)?//|style="|\son[a-z]+="|<script>|innerHTML|insertAdjacent|document\.write|url\(`)
	for path, kind := range map[string]string{
		"/": "text/html", "/cluster.js": "text/javascript", "/cluster.css": "text/css", "/icon.svg": "image/svg+xml",
	} {
		resp, err := http.Get(c.url + path)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, resp.StatusCode, path)
		require.True(t, strings.HasPrefix(resp.Header.Get("Content-Type"), kind), path)
		policy := resp.Header.Get("Content-Security-Policy")
		require.Contains(t, policy, "default-src 'none'; script-src 'self';")
		require.Contains(t, policy, " ws://"+c.unit(2).Addr+";")
		require.Empty(t, elsewhere.FindString(string(body)), path)
	}
}

func TestPortIsTaken(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "localhost:0")
	require.NoError(t, err)
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	require.EqualError(t, run(t.Context(), port, noRedis(t), io.Discard),
		fmt.Sprintf("port %d is taken by another program; choose another one with -port", port))
}

// noRedis is one that is elsewhere, and cannot be reached.
func noRedis(t *testing.T) *unit {
	u, err := newRedis("127.0.0.1:1")
	require.NoError(t, err)
	return u
}
