package redis

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"github.com/seed-07372d5a/websocket/hub"
	"github.com/stretchr/testify/require"
)

// A fake is a Redis within a bubble, which knows what a subscriber needs.
type fake struct {
	mu    sync.Mutex
	conns []*fakeConn
	hangs bool // new connections are cut when they have subscribed
}

type fakeConn struct {
	net.Conn
	writing chan struct{} // has room for who writes; waiting for it lets the time go on

	mu       sync.Mutex
	commands []string
}

func (f *fake) client() *redis.Client {
	return redis.NewClient(&redis.Options{
		Protocol: 2, DisableIdentity: true, MaxRetries: -1,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		Dialer: func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			c := &fakeConn{Conn: theirs, writing: make(chan struct{}, 1)}
			f.mu.Lock()
			f.conns = append(f.conns, c)
			f.mu.Unlock()
			go f.serve(c)
			return ours, nil
		},
	})
}

func (f *fake) serve(c *fakeConn) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		var n int
		if _, err := fmt.Fscanf(r, "*%d\r\n", &n); err != nil {
			return
		}
		args := make([]string, n)
		for i := range args {
			var size int
			fmt.Fscanf(r, "$%d\r\n", &size)
			b := make([]byte, size+2)
			if _, err := io.ReadFull(r, b); err != nil {
				return
			}
			args[i] = string(b[:size])
		}
		c.mu.Lock()
		c.commands = append(c.commands, strings.Join(args, " "))
		c.mu.Unlock()
		switch cmd := strings.ToLower(args[0]); cmd {
		case "subscribe", "unsubscribe":
			for i, channel := range args[1:] {
				c.reply(fmt.Sprintf("*3\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n:%d\r\n", len(cmd), cmd, len(channel), channel, i+1))
			}
			f.mu.Lock()
			hangs := f.hangs
			f.mu.Unlock()
			if hangs {
				return
			}
		case "ping":
			c.reply("*2\r\n$4\r\npong\r\n$0\r\n\r\n")
		case "publish":
			c.reply(":0\r\n")
		default:
			c.reply("-ERR unknown command\r\n")
		}
	}
}

// reply writes in parts, with a pause between them.
func (c *fakeConn) reply(parts ...string) {
	c.writing <- struct{}{}
	defer func() { <-c.writing }()
	for i, s := range parts {
		if i > 0 {
			time.Sleep(silence + time.Second)
		}
		io.WriteString(c, s)
	}
}

// subscriber returns the connection that was the last to subscribe.
func (f *fake) subscriber() (last *fakeConn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.conns {
		c.mu.Lock()
		if strings.Contains(strings.Join(c.commands, "\n"), "subscribe ") {
			last = c
		}
		c.mu.Unlock()
	}
	return last
}

// A listener is the hub's side of a broker.
type listener struct {
	hub.Receiver // nil: nothing else is called

	mu  sync.Mutex
	got []string
}

func (l *listener) add(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.got = append(l.got, s)
}

func (l *listener) Receive(topic string, data []byte) {
	l.add(fmt.Sprintf("%s: %.9s %d", topic, data, len(data)))
}
func (l *listener) Subscribed(topic string) { l.add("subscribed " + topic) }
func (l *listener) Lost(topic string)       { l.add("lost " + topic) }
func (l *listener) Connected(yes bool)      { l.add(fmt.Sprint("connected ", yes)) }

// heard returns what has come since the last call.
func (l *listener) heard() string {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	s := strings.Join(l.got, "|")
	l.got = nil
	return s
}

// inBubble runs a test with a broker that is connected to a fake, and subscribed
// to the topics a and b.
func inBubble(t *testing.T, test func(t *testing.T, f *fake, b hub.Broker, l *listener)) {
	synctest.Test(t, func(t *testing.T) {
		f, l := new(fake), new(listener)
		client := f.client()
		b := New(client, nil)
		b.Subscribe("a")
		require.NoError(t, b.Start(l))
		require.Equal(t, "connected true|subscribed a", l.heard())
		b.Subscribe("b")
		require.Equal(t, "subscribed b", l.heard())
		test(t, f, b, l)
		require.NoError(t, b.Close())
		require.NoError(t, client.Close())
		synctest.Wait()
	})
}

func message(channel, data string) string {
	return fmt.Sprintf("*3\r\n$7\r\nmessage\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", len(channel), channel, len(data), data)
}

// A115: a network that is slow cuts no message in two, whose second half would be
// taken for what Redis says.
func TestSlowNetwork(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fake, b hub.Broker, l *listener) {
		data := strings.Repeat("x", 100) + "\r\n" + message("hub:b", "forged") + message("hub:b", "forged")
		whole := message("hub:a", data)
		half := strings.Index(whole, "*3\r\n$7\r\nmessage\r\n$5\r\nhub:b")
		f.subscriber().reply(whole[:half], whole[half:])
		require.Equal(t, fmt.Sprint("a: xxxxxxxxx ", len(data)), l.heard())
	})
}

// A109: a Redis that is silent is asked, and left if it does not answer.
func TestSilence(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fake, b hub.Broker, l *listener) {
		c := f.subscriber()
		time.Sleep(time.Hour)
		require.Empty(t, l.heard(), "it answers")
		c.writing <- struct{}{} // and now it does not
		time.Sleep(3*silence + lastRetry)
		require.Equal(t, "connected false|connected true|subscribed a|subscribed b", sorted(l.heard()))
		require.NotSame(t, c, f.subscriber())
		<-c.writing
	})
}

// sorted puts what a new connection has subscribed in order.
func sorted(heard string) string {
	parts := strings.Split(heard, "|")
	slices.SortStableFunc(parts, func(a, b string) int {
		if strings.HasPrefix(a, "subscribed") && strings.HasPrefix(b, "subscribed") {
			return strings.Compare(a, b)
		}
		return 0
	})
	return strings.Join(parts, "|")
}

// A110: who is cut off again and again, each time that it has subscribed, does not
// come back as fast as it can.
func TestFlapping(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fake, b hub.Broker, l *listener) {
		time.Sleep(time.Minute)
		f.mu.Lock()
		f.hangs = true
		before := len(f.conns)
		f.mu.Unlock()
		f.subscriber().Close()
		time.Sleep(time.Minute)
		f.mu.Lock()
		tries := len(f.conns) - before
		f.hangs = false
		f.mu.Unlock()
		require.Greater(t, tries, 20)
		require.Less(t, tries, 140, "the client library tries twice each time")
		time.Sleep(5 * lastRetry)
		l.heard()
		f.subscriber().Close() // the first time after a good one
		time.Sleep(2 * firstRetry)
		require.Equal(t, "connected false|connected true|subscribed a|subscribed b", sorted(l.heard()))
	})
}

// A109: what the hub is told last is how things are.
func TestConnectedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &slowListener{begin: make(chan struct{})}
		b := New(nil, &Options{Shards: 2}).(*broker)
		b.r = l
		b.shards[0].connected(true)
		go b.shards[1].connected(true)
		synctest.Wait() // it is being told
		go b.shards[0].connected(false)
		synctest.Wait()
		close(l.begin)
		require.Equal(t, "connected true|connected false", l.heard())
		b.shards[0].connected(true)
		b.shards[0].connected(true)
		require.Equal(t, "connected true", l.heard())
	})
}

// A slowListener takes its time.
type slowListener struct {
	listener
	begin chan struct{}
}

func (l *slowListener) Connected(yes bool) {
	if yes {
		<-l.begin
	}
	l.listener.Connected(yes)
}
