package hub

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/wstest"
	"github.com/stretchr/testify/require"
)

// A reader is a client that comes and goes, and knows what it has heard last.
type reader struct {
	*person
	name    string
	at      string          // the last offset
	own     map[string]bool // texts that this connection has sent to others; true: when it was there for good
	texts   map[string]bool // that it has heard
	welcome bool
	gaps    int
}

// knows tells whether it need not hear a text: it has sent it, or it was kept
// twice, the first time before its history was lost.
func (c *reader) knows(x *exchange, text string) bool {
	_, ok := c.own[text]
	return ok || x.texts[text] > 1
}

// listen checks what has come since it last did: in the room it is what was kept,
// message by message, and otherwise there is a gap.
func (c *reader) listen(t *testing.T, x *exchange, forgetful bool) {
	t.Helper()
	heard := c.heard()
	if heard == "" {
		return
	}
	for _, line := range strings.Split(heard, "|") {
		kind, rest, _ := strings.Cut(line, "@")
		offset, text, _ := strings.Cut(rest, ":")
		if offset == "" {
			require.Contains(t, []string{"gap", "left", "joined", "sent"}, kind) // of the namespace, or of users
			continue
		}
		at, ok := parsePosition(offset)
		require.True(t, ok, line)
		last, _ := parsePosition(c.at)
		x.mu.Lock()
		said := x.said[at]
		next := Position{at.Epoch, last.Offset + 1}
		for kind != "gap" && last.Epoch == at.Epoch && next.Offset < at.Offset && c.knows(x, x.said[next]) {
			next.Offset++
		}
		for kind == "welcome" && next.Offset == at.Offset && c.knows(x, x.said[next]) {
			next.Offset++
		}
		x.mu.Unlock()
		switch {
		case kind == "gap":
			c.gaps++
		case c.at == "": // the beginning of what it hears
			require.Contains(t, []string{"sent", "welcome"}, kind)
			if !forgetful {
				require.LessOrEqual(t, at.Offset, uint64(1), "%s: %s is not the beginning", c.name, line)
			}
		case kind == "sent":
			require.Equal(t, next, at, "%s: %s after %s", c.name, line, c.at)
		case kind == "welcome":
			require.Equal(t, next, Position{at.Epoch, at.Offset + 1}, "%s: %s after %s", c.name, line, c.at)
			require.Equal(t, last.Epoch, at.Epoch)
		default:
			require.Fail(t, line)
		}
		c.welcome = c.welcome || kind == "welcome"
		if kind == "sent" {
			require.Equal(t, said, text, "%s: %s", c.name, line)
			require.False(t, c.texts[text], "%s: %s twice", c.name, line)
			c.texts[text] = true
			require.False(t, c.own[text], "%s: it has sent that to others", c.name)
		}
		c.at = offset
	}
}

// simulateHistory is clients that come and go between machines, with the offset
// of what they have heard last. In even schedules nothing is forgotten, and they
// miss nothing; in odd ones the exchange keeps little, and forgets everything now
// and then.
func simulateHistory(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 10))
	n := func(n int) int { return rnd.IntN(n) }
	faults := rand.New(rand.NewPCG(seed, 11))
	x := &exchange{rand: func(n int) int { return faults.IntN(n) }}
	o := Options{Presence: seed%3 == 0, History: 10_000, HistoryAge: time.Hour}
	forgetful := seed%2 == 1
	if forgetful {
		o.History, o.HistoryAge = 1+n(10), time.Duration(1+n(20))*time.Second
	}
	const nodes = 3
	var hubs []*Hub
	for range nodes {
		hubs = append(hubs, &Hub{
			Authorize: anybody, Broker: keeper{x.port()}, Options: func(Room) Options { return o },
			Encode: func(e Event) (websocket.Message, bool) {
				return websocket.Text(e.Kind.String() + "@" + e.Offset + ":" + string(e.Message.Data)), true
			},
		})
	}
	quiet := websocket.Config{KeepAlive: -1}
	come := func(c *reader) {
		c.person = enterBy(t, hubs[n(nodes)], wstest.Link{Client: quiet, Server: quiet}, c.name).read()
		c.own, c.texts, c.welcome = map[string]bool{}, map[string]bool{}, false
		require.NoError(t, c.Resume(bg, lobby(), c.at))
	}
	var clients []*reader
	for i := range 5 {
		c := &reader{name: fmt.Sprint("u", i)}
		come(c)
		clients = append(clients, c)
	}
	said := 0
	publish := func() {
		said++
		text := fmt.Sprint("m", said)
		if c := clients[n(len(clients))]; c.person != nil && n(2) == 0 {
			c.listen(t, x, forgetful)
			c.own[text] = c.welcome
			require.NoError(t, c.SendOthers(lobby(), websocket.Text(text)))
		} else {
			require.NoError(t, hubs[n(nodes)].Send(lobby(), websocket.Text(text)))
		}
	}
	for range 80 {
		switch n(16) {
		case 0:
			x.mu.Lock()
			x.ports[n(nodes)].cut()
			x.mu.Unlock()
		case 1:
			x.mu.Lock()
			x.down = true
			for _, p := range x.ports {
				p.cut()
			}
			x.mu.Unlock()
		case 2, 3:
			x.mu.Lock()
			x.down = false
			x.mu.Unlock()
			for _, p := range x.ports {
				p.connect()
			}
		case 4:
			x.ports[n(nodes)].connect()
		case 5:
			if forgetful { // FLUSHALL
				x.mu.Lock()
				clear(x.logs)
				x.mu.Unlock()
			}
		case 6:
			time.Sleep(time.Duration(n(20)) * time.Second)
		case 7:
			time.Sleep(time.Duration(n(100)) * time.Millisecond)
		case 8, 9: // somebody's connection breaks
			c := clients[n(len(clients))]
			if c.person != nil {
				c.client.CloseNow()
				<-c.done
				c.listen(t, x, forgetful)
				c.person = nil
			}
		case 10, 11, 12:
			c := clients[n(len(clients))]
			if c.person == nil {
				if n(5) == 0 {
					c.at = "" // somebody else, who wants to hear all
				}
				come(c)
			}
		default:
			for range 1 + n(4) {
				publish()
			}
		}
	}
	x.mu.Lock()
	x.down = false
	x.mu.Unlock()
	for _, p := range x.ports {
		p.connect()
	}
	for _, c := range clients {
		if c.person == nil {
			come(c)
		}
	}
	time.Sleep(time.Minute)
	x.mu.Lock()
	x.calm = true // what is lost shows when the next comes
	x.mu.Unlock()
	require.NoError(t, hubs[0].Send(lobby(), websocket.Text("end")))
	time.Sleep(time.Minute)
	x.mu.Lock()
	last := x.memory(roomTopic(lobby())).last
	x.mu.Unlock()
	for _, c := range clients {
		c.listen(t, x, forgetful)
		require.Equal(t, last.String(), c.at, c.name)
		if !forgetful {
			require.Zero(t, c.gaps, c.name)
		}
	}
	for _, c := range clients {
		c.client.CloseNow()
	}
	synctest.Wait()
	for _, h := range hubs {
		require.NoError(t, h.Close())
		empty(t, h)
	}
}
