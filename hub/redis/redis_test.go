package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/hub"
	"github.com/seed-07372d5a/websocket/internal/redisserver"
	"github.com/seed-07372d5a/websocket/wstest"
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

// A node is a machine: a hub with its connection to Redis.
type node struct {
	*hub.Hub
	mu     sync.Mutex
	states []hub.Kind
}

func (n *node) state() hub.Kind {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.states) == 0 {
		return 0
	}
	return n.states[len(n.states)-1]
}

var room = hub.Room{Namespace: "chat", Name: "lobby"}

func (s *server) node(o *Options) *node {
	client := redis.NewClient(&redis.Options{Addr: s.Addr})
	n := &node{}
	n.Hub = &hub.Hub{
		Authorize: func(context.Context, *hub.Member, hub.Room) error { return nil },
		Options:   func(hub.Room) hub.Options { return hub.Options{Presence: true} },
		Broker:    New(client, o),
		Encode: func(e hub.Event) (websocket.Message, bool) {
			return websocket.Text(e.Kind.String() + " " + e.User + " " + string(e.Message.Data)), true
		},
		OnEvent: func(e hub.Event) {
			if e.Kind == hub.Degraded || e.Kind == hub.Recovered {
				n.mu.Lock()
				defer n.mu.Unlock()
				n.states = append(n.states, e.Kind)
			}
		},
	}
	s.T.Cleanup(func() { n.Close(); client.Close() })
	return n
}

// A client writes down what it gets.
type client struct {
	*hub.Member
	mu  sync.Mutex
	got []string
}

func (n *node) client(t *testing.T, user string) *client {
	c, s := wstest.Pipe()
	go s.Serve(bg, nil)
	m, err := n.Add(s, user)
	require.NoError(t, err)
	x := &client{Member: m}
	t.Cleanup(func() { c.CloseNow(); s.CloseNow() })
	go func() {
		for m, err := range c.Messages(bg) {
			if err == nil {
				x.mu.Lock()
				x.got = append(x.got, string(m.Data))
				x.mu.Unlock()
			}
		}
	}()
	require.NoError(t, m.Join(bg, room))
	return x
}

func (c *client) history() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.got...)
}

// until waits for something to have come.
func (c *client) until(t *testing.T, line string) {
	t.Helper()
	require.Eventually(t, func() bool {
		for _, got := range c.history() {
			if got == line {
				return true
			}
		}
		return false
	}, patience, 5*time.Millisecond, "%s: %v", c.User(), line)
}

// check reads a history: what a publisher has sent comes in order, once, and
// what is missing is followed by a gap.
func check(c *client, last map[string]int) error {
	seen, gap, silent := map[string]int{}, map[string]bool{}, map[string]bool{}
	for _, line := range c.history() {
		kind, rest, _ := strings.Cut(line, " ")
		if kind == "gap" {
			for from := range last {
				gap[from], silent[from] = true, false
			}
		}
		from, number, ok := strings.Cut(rest[strings.LastIndex(rest, " ")+1:], ":")
		if kind != "sent" || !ok {
			continue
		}
		k, err := strconv.Atoi(number)
		if err != nil || k <= seen[from] {
			return fmt.Errorf("%s: %q after %d", c.User(), line, seen[from])
		}
		if k != seen[from]+1 && !gap[from] {
			silent[from] = true
		}
		seen[from], gap[from] = k, false
	}
	for from, k := range last {
		if seen[from] != k || silent[from] {
			return fmt.Errorf("%s: from %s came %d of %d, in silence: %v", c.User(), from, seen[from], k, silent[from])
		}
	}
	return nil
}

// A109, A110, A113, A114: clients 1 and 2 are on one machine, 3 on another, and
// Redis has its accidents.
func TestAccidents(t *testing.T) {
	for name, o := range map[string]*Options{"plain": nil, "sharded": {Prefix: "other:", Shards: 3}} {
		t.Run(name, func(t *testing.T) { accidents(t, o) })
	}
}

func accidents(t *testing.T, o *Options) {
	s := newServer(t)
	nodes := []*node{s.node(o), s.node(o), s.node(o)}
	clients := []*client{nodes[0].client(t, "c1"), nodes[0].client(t, "c2"), nodes[2].client(t, "c3")}
	for _, c := range clients {
		for _, user := range []string{"c1", "c2", "c3"} {
			require.Eventually(t, func() bool { return len(nodes[0].Users(room)) == 3 && len(nodes[2].Users(room)) == 3 },
				patience, 5*time.Millisecond, "%s sees %s", c.User(), user)
		}
	}
	last := map[string]int{}
	send := func(n int) {
		for range n {
			for i, node := range nodes {
				from := fmt.Sprint("n", i)
				last[from]++
				require.NoError(t, node.Send(room, websocket.Text(fmt.Sprint(from, ":", last[from]))))
			}
		}
	}
	everywhere := func() {
		t.Helper()
		for i := range nodes {
			from := fmt.Sprint("n", i)
			for _, c := range clients {
				c.until(t, fmt.Sprint("sent  ", from, ":", last[from]))
			}
		}
	}
	send(100)
	everywhere()
	require.NoError(t, nodes[2].SendUser("c1", websocket.Text("for c1")))
	require.NoError(t, nodes[2].SendNamespace("chat", websocket.Text("for all")))
	clients[0].until(t, "sent  for c1")
	for _, c := range clients {
		c.until(t, "sent  for all")
	}
	require.NotContains(t, strings.Join(clients[1].history(), "|"), "for c1")
	require.NotContains(t, strings.Join(clients[0].history(), "|"), "gap")

	gaps := func() (n int) {
		for _, c := range []*client{clients[0], clients[2]} {
			n += min(1, strings.Count(strings.Join(c.history(), "|"), "gap"))
		}
		return n
	}
	// settle sends until messages arrive everywhere again.
	settle := func() {
		t.Helper()
		require.Eventually(t, func() bool {
			send(1)
			time.Sleep(50 * time.Millisecond)
			for _, c := range clients {
				for from, n := range last {
					if !strings.Contains(strings.Join(c.history(), "|")+"|", fmt.Sprint(from, ":", n, "|")) {
						return false
					}
				}
			}
			return true
		}, patience, 5*time.Millisecond)
	}
	// Redis is killed: this machine's members go on.
	s.Kill()
	require.Eventually(t, func() bool { return nodes[0].state() == hub.Degraded }, patience, 5*time.Millisecond)
	send(50)
	for _, c := range clients[:2] {
		c.until(t, fmt.Sprint("sent  n0:", last["n0"]))
	}
	s.Start()
	for _, n := range nodes {
		require.Eventually(t, func() bool { return n.state() == hub.Recovered }, patience, 5*time.Millisecond)
	}
	require.Eventually(t, func() bool { return gaps() == 2 }, patience, 5*time.Millisecond, "every room has a gap")
	settle()
	send(10)
	everywhere()

	// Subscribers are cut off, again and again.
	for range 3 {
		before := nodes[0].Stats().Gaps
		require.NoError(t, s.Do(bg, "CLIENT", "KILL", "TYPE", "pubsub").Err())
		send(20)
		require.Eventually(t, func() bool { return nodes[0].Stats().Gaps > before }, patience, 5*time.Millisecond)
		settle()
		send(20)
		everywhere()
	}

	// FLUSHALL takes nothing away.
	require.NoError(t, s.FlushAll(bg).Err())
	send(5)
	everywhere()

	// What is in the way of a slow subscriber is thrown away by Redis, not unnoticed.
	require.NoError(t, s.ConfigSet(bg, "client-output-buffer-limit", "pubsub 16384 0 0").Err())
	before := nodes[0].Stats().Gaps
	require.NoError(t, nodes[1].Send(room, websocket.Text("big "+strings.Repeat("x", 900_000))))
	require.Eventually(t, func() bool {
		return nodes[0].Stats().Gaps > before || strings.Contains(strings.Join(clients[0].history(), ""), "big x")
	}, patience, 5*time.Millisecond)
	require.NoError(t, s.ConfigSet(bg, "client-output-buffer-limit", "pubsub 33554432 8388608 60").Err())
	settle()

	for _, c := range clients {
		require.NoError(t, check(c, last))
	}
	require.Equal(t, []string{"c1", "c2", "c3"}, nodes[2].Users(room))

	// Rooms are subscribed while they have members.
	channels := func() int {
		var names []string
		if o == nil {
			names = s.PubSubChannels(bg, "*r/chat*").Val()
		} else {
			names = s.PubSubShardChannels(bg, "*r/chat*").Val()
		}
		return len(names)
	}
	require.Equal(t, 1, channels())
	for _, c := range clients {
		require.NoError(t, c.Leave(room))
	}
	require.Eventually(t, func() bool { return channels() == 0 }, patience, 5*time.Millisecond)
}

// A115: what others write to Redis hurts nobody.
func TestHostile(t *testing.T) {
	s := newServer(t)
	n := s.node(nil)
	c := n.client(t, "ann")
	for _, b := range []string{"", "x", strings.Repeat("\x01", 300), strings.Repeat("\xff", 1<<20)} {
		require.NoError(t, s.Publish(bg, "hub:r/chat/lobby", b).Err())
	}
	require.Eventually(t, func() bool { return n.Stats().Invalid == 4 }, patience, 5*time.Millisecond)
	require.NoError(t, n.Send(room, websocket.Text("still here")))
	c.until(t, "sent  still here")
}

// A Redis that was never there is no reason to wait.
func TestNoRedis(t *testing.T) {
	refused := func(ctx context.Context, network, addr string) (net.Conn, error) { return nil, errors.New("refused") }
	r := redis.NewClient(&redis.Options{Dialer: refused})
	t.Cleanup(func() { r.Close() })
	s := &server{Server: &redisserver.Server{T: t}}
	n := s.node(nil)
	n.Hub.Close()
	degraded := make(chan struct{})
	n.Hub = &hub.Hub{
		Authorize: n.Authorize, Broker: New(r, nil), Encode: n.Encode,
		OnEvent: func(e hub.Event) {
			if e.Kind == hub.Degraded {
				close(degraded)
			}
		},
	}
	t.Cleanup(func() { n.Close() })
	n.Count(room) // it begins
	<-degraded
	c := n.client(t, "ann")
	require.NoError(t, n.Send(room, websocket.Text("here")))
	c.until(t, "sent  here")
}
