package nats

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/hub"
	"github.com/seed-07372d5a/websocket/wstest"
	"github.com/stretchr/testify/require"
)

// A machine is a hub whose connections to NATS can be broken.
type machine struct {
	*hub.Hub
	t *testing.T

	mu    sync.Mutex
	conns []net.Conn
	dead  bool // it gets no more of them
}

// Dial is of nats.CustomDialer.
func (m *machine) Dial(network, addr string) (net.Conn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return nil, errors.New("dead")
	}
	c, err := net.Dial(network, addr)
	if err == nil {
		c = &breakable{Conn: c}
		m.conns = append(m.conns, c)
	}
	return c, err
}

// A breakable connection breaks in the middle of what is written.
type breakable struct {
	net.Conn
	mu   sync.Mutex
	left int // bytes; 0: no end
}

func (b *breakable) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left > 0 {
		if b.left <= len(p) {
			n, _ := b.Conn.Write(p[:b.left-1])
			b.Conn.Close()
			return n, net.ErrClosed
		}
		b.left -= len(p)
	}
	return b.Conn.Write(p)
}

// cut breaks its connection: at once, or after some bytes have been written.
func (m *machine) cut(after int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.conns {
		if after == 0 {
			c.Close()
			continue
		}
		b := c.(*breakable)
		b.mu.Lock()
		b.left = after
		b.mu.Unlock()
	}
	m.conns = nil
}

func newMachine(t *testing.T, s *server.Server, o hub.Options) *machine {
	m := &machine{t: t}
	m.Hub = &hub.Hub{
		Authorize: func(context.Context, *hub.Member, hub.Room) error { return nil },
		Options:   func(hub.Room) hub.Options { return o },
		Broker:    New(s.ClientURL(), "", nats.SetCustomDialer(m)),
		Encode: func(e hub.Event) (websocket.Message, bool) {
			return websocket.Text(e.Kind.String() + "@" + e.Offset + ":" + e.User + string(e.Message.Data)), true
		},
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// enter makes a client that writes down what it gets.
func (m *machine) enter(user, offset string) *client {
	c, s := wstest.Pipe()
	go s.Serve(bg, nil)
	m.t.Cleanup(func() { c.CloseNow(); s.CloseNow() })
	member, err := m.Add(s, user)
	require.NoError(m.t, err)
	x := &client{Hub: m.Hub, Member: member}
	go func() {
		for m, err := range c.Messages(bg) {
			if err == nil {
				x.mu.Lock()
				x.got = append(x.got, string(m.Data))
				x.mu.Unlock()
			}
		}
	}()
	if offset == "" {
		require.NoError(m.t, member.Join(bg, room))
	} else {
		require.NoError(m.t, member.Resume(bg, room, offset))
	}
	return x
}

func eventually(t *testing.T, f func() bool) {
	t.Helper()
	require.Eventually(t, f, patience, 5*time.Millisecond)
}

// check reads a history: what a machine has sent comes in order, once, and what
// is missing is followed by a gap.
func check(history string, last map[string]int) error {
	seen, gap, silent := map[string]int{}, map[string]bool{}, map[string]bool{}
	for _, line := range strings.Split(history, "|") {
		kind, rest, _ := strings.Cut(line, "@")
		_, text, _ := strings.Cut(rest, ":")
		if kind == "gap" {
			for from := range last {
				gap[from], silent[from] = true, false
			}
		}
		from, number, ok := strings.Cut(text, ":")
		if kind != "sent" || !ok {
			continue
		}
		k, err := strconv.Atoi(number)
		if err != nil || k <= seen[from] {
			return fmt.Errorf("%q after %d", line, seen[from])
		}
		silent[from] = silent[from] || k != seen[from]+1 && !gap[from]
		seen[from], gap[from] = k, false
	}
	for from, k := range last {
		if seen[from] != k || silent[from] {
			return fmt.Errorf("from %s came %d of %d, in silence: %v", from, seen[from], k, silent[from])
		}
	}
	return nil
}

// A109, A111, A118: connections break, in the middle of what is written, too; the
// server restarts. What is lost is followed by a gap, and the rest is in order.
func TestFaults(t *testing.T) {
	t.Parallel()
	s := start(t, -1)
	port := s.Addr().(*net.TCPAddr).Port
	rnd := rand.New(rand.NewPCG(8, 1))
	var machines []*machine
	var clients []*client
	for i := range 3 {
		m := newMachine(t, s, hub.Options{Presence: true})
		machines = append(machines, m)
		clients = append(clients, m.enter(fmt.Sprint("u", i), ""))
	}
	last := map[string]int{}
	send := func() {
		i := rnd.IntN(3)
		from := fmt.Sprint("n", i)
		last[from]++
		require.NoError(t, machines[i].Send(room, websocket.Text(fmt.Sprint(from, ":", last[from]))))
	}
	for round := range 20 {
		for range rnd.IntN(50) {
			send()
		}
		m := machines[rnd.IntN(3)]
		switch {
		case round == 10:
			s.Shutdown()
			s.WaitForShutdown()
			s = start(t, port)
		case round%2 == 0:
			m.cut(0)
		default:
			m.cut(1 + rnd.IntN(2000))
		}
		for range rnd.IntN(50) {
			send()
		}
		if round%3 == 0 {
			before := clients[0].history()
			eventually(t, func() bool { // until something has come
				send()
				time.Sleep(10 * time.Millisecond)
				return clients[0].history() != before
			})
		}
	}
	for _, m := range machines {
		m.cut(0) // those that were to be cut later
	}
	eventually(t, func() bool {
		for range 5 {
			send()
		}
		time.Sleep(50 * time.Millisecond)
		for _, c := range clients {
			for from, k := range last {
				if !strings.Contains(c.history(), fmt.Sprint(":", from, ":", k, "|")) {
					return false
				}
			}
		}
		return true
	})
	for _, c := range clients {
		require.NoError(t, check(c.history(), last))
		require.Contains(t, c.history(), "gap")
	}
	eventually(t, func() bool { return fmt.Sprint(machines[0].Users(room)) == "[u0 u1 u2]" })
}

// A114: whoever says goodbye is gone at once, a machine that has died soon.
func TestPresence(t *testing.T) {
	t.Parallel()
	s := start(t, -1)
	a, b, c := newMachine(t, s, hub.Options{Presence: true}), newMachine(t, s, hub.Options{Presence: true}), newMachine(t, s, hub.Options{Presence: true})
	ann := a.enter("ann", "")
	b.enter("ben", "")
	zoe := c.enter("zoe", "")
	eventually(t, func() bool {
		return fmt.Sprint(a.Users(room)) == "[ann ben zoe]" && fmt.Sprint(c.Users(room)) == "[ann ben zoe]"
	})
	require.NoError(t, zoe.Leave(room))
	eventually(t, func() bool { return fmt.Sprint(a.Users(room)) == "[ann ben]" })
	c.enter("eve", "")
	eventually(t, func() bool { return fmt.Sprint(a.Users(room)) == "[ann ben eve]" })
	require.NoError(t, c.Close())
	eventually(t, func() bool { return fmt.Sprint(a.Users(room)) == "[ann ben]" })
	b.mu.Lock()
	b.dead = true
	b.mu.Unlock()
	b.cut(0)
	require.Eventually(t, func() bool { return fmt.Sprint(a.Users(room)) == "[ann]" }, 40*time.Second, 10*time.Millisecond)
	require.Contains(t, ann.history(), "left@:zoe|")
	require.Contains(t, ann.history(), "left@:ben|")
}

// A112: NATS keeps nothing, so each machine keeps what it hears. Who comes back to
// the same one gets what it has missed; elsewhere, and when the machine itself may
// have missed something, there is a gap.
func TestHistory(t *testing.T) {
	t.Parallel()
	s := start(t, -1)
	keep := hub.Options{History: 100, HistoryAge: time.Hour}
	a, b := newMachine(t, s, keep), newMachine(t, s, keep)
	ann, ben := a.enter("ann", ""), b.enter("ben", "")
	say := func(m *machine, text string) { require.NoError(t, m.Send(room, websocket.Text(text))) }
	hears := func(c *client, text string) {
		t.Helper()
		eventually(t, func() bool { return strings.HasSuffix(c.history(), ":"+text+"|") })
	}
	offset := func(c *client) string {
		_, at, _ := strings.Cut(c.got[len(c.got)-1], "@")
		at, _, _ = strings.Cut(at, ":")
		return at
	}
	say(a, "1")
	hears(ben, "1")
	at := offset(ben)
	say(b, "2")
	hears(ann, "2")
	say(a, "3")
	hears(ben, "3")
	back := b.enter("ben", at)
	eventually(t, func() bool { return strings.Contains(back.history(), "welcome") })
	require.Regexp(t, `^sent@[^:]*:2\|sent@[^:]*:3\|welcome@[^:]*:\|$`, back.history())
	back = a.enter("ben", at)
	eventually(t, func() bool { return strings.Contains(back.history(), "welcome") })
	require.Regexp(t, `^gap@[^:]*:\|welcome@[^:]*:\|$`, back.history())
	b.cut(0)
	eventually(t, func() bool { return strings.Contains(ben.history(), "gap@") })
	back = b.enter("ben", at)
	eventually(t, func() bool { return strings.Contains(back.history(), "gap@") })
	require.NotContains(t, back.history(), "sent")
}

// A115: what others publish hurts nobody.
func TestHostile(t *testing.T) {
	t.Parallel()
	s := start(t, -1)
	a, b := newMachine(t, s, hub.Options{}), newMachine(t, s, hub.Options{})
	ann := a.enter("ann", "")
	nc, err := nats.Connect(s.ClientURL())
	require.NoError(t, err)
	defer nc.Close()
	subject := "hub." + base64.RawURLEncoding.EncodeToString([]byte("r/chat/lob.by"))
	for _, data := range []string{"", "x", strings.Repeat("\x01", 300), strings.Repeat("\xff", 900_000)} {
		require.NoError(t, nc.Publish(subject, []byte(data)))
	}
	require.NoError(t, nc.Flush())
	eventually(t, func() bool { return a.Stats().Invalid == 4 })
	require.NoError(t, b.Send(room, websocket.Text("still here")))
	eventually(t, func() bool { return strings.HasSuffix(ann.history(), ":still here|") })
}
