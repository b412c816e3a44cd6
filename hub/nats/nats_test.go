package nats

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/hub"
	"github.com/seed-07372d5a/websocket/wstest"
	"github.com/stretchr/testify/require"
)

const patience = 20 * time.Second

var bg = context.Background()

func start(t *testing.T, port int) *server.Server {
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, NoSigs: true, NoLog: true})
	require.NoError(t, err)
	s.Start()
	require.True(t, s.ReadyForConnections(patience))
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	return s
}

// A client writes down what it gets.
type client struct {
	*hub.Hub
	*hub.Member
	mu  sync.Mutex
	got []string
}

var room = hub.Room{Namespace: "chat", Name: "lob.by"}

func newClient(t *testing.T, url, user string) *client {
	x := &client{Hub: &hub.Hub{
		Authorize: func(context.Context, *hub.Member, hub.Room) error { return nil },
		Options:   func(hub.Room) hub.Options { return hub.Options{Presence: true} },
		Broker:    New(url, ""),
		Encode: func(e hub.Event) (websocket.Message, bool) {
			return websocket.Text(e.Kind.String() + " " + string(e.Message.Data)), true
		},
	}}
	t.Cleanup(func() { x.Hub.Close() })
	c, s := wstest.Pipe()
	go s.Serve(bg, nil)
	t.Cleanup(func() { c.CloseNow(); s.CloseNow() })
	var err error
	x.Member, err = x.Add(s, user)
	require.NoError(t, err)
	go func() {
		for m, err := range c.Messages(bg) {
			if err == nil {
				x.mu.Lock()
				x.got = append(x.got, string(m.Data))
				x.mu.Unlock()
			}
		}
	}()
	require.NoError(t, x.Join(bg, room))
	return x
}

func (c *client) history() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.got, "|") + "|"
}

// Messages reach other machines in order and once; a server that restarts leaves
// a gap.
func TestNATS(t *testing.T) {
	t.Parallel()
	port := 20000 + rand.IntN(10000)
	s := start(t, port)
	url := fmt.Sprint("nats://127.0.0.1:", port)
	ann, ben := newClient(t, url, "ann"), newClient(t, url, "ben")
	eventually := func(f func() bool) {
		t.Helper()
		require.Eventually(t, f, patience, 10*time.Millisecond)
	}
	eventually(func() bool { return len(ann.Users(room)) == 2 && len(ben.Users(room)) == 2 })
	want := ""
	for i := range 200 {
		text := fmt.Sprint("n", i)
		want += "sent " + text + "|"
		require.NoError(t, ann.Hub.Send(room, websocket.Text(text)))
	}
	eventually(func() bool { return strings.Contains(ben.history(), want) })
	require.Contains(t, ann.history(), want)
	require.NoError(t, ben.SendUser("ann", websocket.Text("private")))
	eventually(func() bool { return strings.Contains(ann.history(), "sent private|") })
	require.NotContains(t, ben.history(), "gap")

	s.Shutdown()
	s.WaitForShutdown()
	require.NoError(t, ann.Hub.Send(room, websocket.Text("alone")))
	eventually(func() bool { return strings.Contains(ann.history(), "sent alone|") })
	start(t, port)
	eventually(func() bool {
		return strings.Contains(ben.history(), "gap |") && strings.Contains(ann.history(), "gap |")
	})
	n := 0
	eventually(func() bool {
		n++
		require.NoError(t, ann.Hub.Send(room, websocket.Text(fmt.Sprint("again", n))))
		time.Sleep(20 * time.Millisecond)
		return strings.Contains(ben.history(), fmt.Sprint("sent again", n, "|"))
	})
	eventually(func() bool { return len(ben.Users(room)) == 2 })
}
