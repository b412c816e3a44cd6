package redis

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
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

// A machine is a hub whose rooms have history.
type machine struct {
	*hub.Hub
	client redis.UniversalClient
}

func (s *server) machine(addr string, o *Options, rooms hub.Options) *machine {
	client := redis.NewClient(&redis.Options{Addr: addr, ReadTimeout: 500 * time.Millisecond, MaxRetries: -1})
	m := &machine{client: client}
	m.Hub = &hub.Hub{
		Authorize: func(context.Context, *hub.Member, hub.Room) error { return nil },
		Options:   func(hub.Room) hub.Options { return rooms },
		Broker:    New(client, o),
		Encode: func(e hub.Event) (websocket.Message, bool) {
			return websocket.Text(e.Kind.String() + "@" + e.Offset + ":" + string(e.Message.Data)), e.Kind < hub.Joined || e.Kind > hub.Left
		},
	}
	s.T.Cleanup(func() { m.Close(); client.Close() })
	return m
}

// A follower is a client that comes and goes, and checks what it hears: message
// after message, or a gap.
type follower struct {
	t    *testing.T
	name string
	all  *ledger

	mu     sync.Mutex
	conn   *websocket.Conn
	done   chan struct{}
	at     hub.Position // of the last event with an offset
	offset string
	texts  []string // that it has heard, and "gap"
	fault  error
}

// A ledger is what all have heard: that which is in one place is the same.
type ledger struct {
	mu    sync.Mutex
	texts map[string]string // by offset
}

func (l *ledger) follower(t *testing.T, name string) *follower {
	return &follower{t: t, name: name, all: l}
}

// come resumes on a machine. With "" it hears all that is kept.
func (f *follower) come(m *machine) {
	f.t.Helper()
	roomy := websocket.Config{QueueLimit: 8 << 20}
	c, s := wstest.Link{Client: roomy, Server: roomy}.Pipe()
	go s.Serve(bg, nil)
	member, err := m.Add(s, f.name)
	require.NoError(f.t, err)
	f.t.Cleanup(func() { c.CloseNow(); s.CloseNow() })
	f.conn, f.done = c, make(chan struct{})
	go func() {
		defer close(f.done)
		for m, err := range c.Messages(bg) {
			if err == nil {
				f.hear(string(m.Data))
			}
		}
	}()
	require.NoError(f.t, member.Resume(bg, room, f.offset))
}

func (f *follower) leave() {
	f.conn.CloseNow()
	<-f.done
}

func (f *follower) hear(line string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	kind, rest, _ := strings.Cut(line, "@")
	offset, text, _ := strings.Cut(rest, ":")
	if offset == "" {
		return // of the namespace
	}
	epoch, number, _ := strings.Cut(offset, "-")
	at := hub.Position{}
	at.Epoch, _ = strconv.ParseUint(epoch, 16, 64)
	at.Offset, _ = strconv.ParseUint(number, 10, 64)
	f.all.mu.Lock()
	if kind == "sent" && f.all.texts[offset] == "" {
		f.all.texts[offset] = text
	}
	same := kind != "sent" || f.all.texts[offset] == text
	f.all.mu.Unlock()
	next := hub.Position{Epoch: f.at.Epoch, Offset: f.at.Offset + 1}
	switch {
	case kind == "gap":
		f.texts = append(f.texts, "gap")
	case kind == "sent":
		f.texts = append(f.texts, text)
		if !same || f.offset != "" && at != next {
			f.fault = fmt.Errorf("%s: %s after %s", f.name, line, f.offset)
		}
	case f.offset != "" && at != f.at:
		f.fault = fmt.Errorf("%s: %s after %s", f.name, line, f.offset)
	}
	f.at, f.offset = at, offset
}

func (f *follower) heard() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	require.NoError(f.t, f.fault)
	return strings.Join(f.texts, " ")
}

func (f *follower) until(want string) {
	f.t.Helper()
	require.Eventually(f.t, func() bool { return strings.HasSuffix(f.heard(), want) }, patience, 5*time.Millisecond, "%s wants %s", f.name, want)
}

func say(t *testing.T, m *machine, texts ...string) {
	t.Helper()
	for _, text := range texts {
		require.NoError(t, m.Send(room, websocket.Text(text)))
	}
}

// A112, A113: who comes back on another machine gets what it has missed, or a gap
// when that was trimmed, is too old, or Redis has lost it.
func TestHistory(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]*Options{"plain": nil, "sharded": {Prefix: "other:", Shards: 3}} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			l := &ledger{texts: map[string]string{}}
			keep := hub.Options{History: 5, HistoryAge: time.Minute}
			a, b, c := s.machine(s.Addr, o, keep), s.machine(s.Addr, o, keep), s.machine(s.Addr, o, keep)
			ann, ben := l.follower(t, "ann"), l.follower(t, "ben")
			ann.come(a)
			ben.come(b)
			say(t, a, "1", "2")
			ben.until("1 2")
			say(t, b, "3")
			ann.until("1 2 3")
			ben.until("1 2 3")
			ben.leave()
			say(t, a, "4", "5")
			ann.until("4 5")
			say(t, c, "6") // nobody is there
			ann.until("5 6")
			ben.come(c)
			ben.until("1 2 3 4 5 6")
			say(t, b, "7")
			ann.until("5 6 7")
			ben.until("1 2 3 4 5 6 7")
			require.Equal(t, "1 2 3 4 5 6 7", ann.heard())
			new := l.follower(t, "new")
			new.come(b)
			new.until("3 4 5 6 7") // all that is kept
			ben.leave()
			say(t, a, "8", "9", "10", "11", "12")
			ben.come(b)
			ben.until("7 8 9 10 11 12")
			ben.leave()
			ann.until("12")
			new.until("12")
			new.leave()
			say(t, a, "13", "14", "15", "16", "17", "18")
			ann.until("18")
			logs := s.Keys(bg, "*:log").Val()
			require.Len(t, logs, 1)
			require.Equal(t, int64(5), s.XLen(bg, logs[0]).Val())
			ben.come(b)
			ben.until("12 gap")
			say(t, a, "19")
			ben.until("12 gap 19")

			// FLUSHALL: who is there is told when the next message comes, and who comes
			// back then.
			require.NoError(t, s.FlushAll(bg).Err())
			new.come(a) // what it has missed is still here
			new.until("gap")
			new.leave()
			ben.leave()
			say(t, b, "20")
			ann.until("19 gap 20")
			ben.come(c)
			ben.until("19 gap")
			say(t, c, "21")
			ann.until("19 gap 20 21")
			ben.until("19 gap 21")

			var keys []string
			require.Eventually(t, func() bool { keys = s.Keys(bg, "*:log").Val(); return len(keys) == 1 }, patience, 5*time.Millisecond)
			require.Equal(t, int64(2), s.XLen(bg, keys[0]).Val())
			require.Positive(t, s.PTTL(bg, keys[0]).Val())
			require.Greater(t, s.PTTL(bg, strings.TrimSuffix(keys[0], "log")+"history").Val(), 24*time.Hour)
		})
	}
}

// A112: what is older than HistoryAge is gone.
func TestHistoryAge(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	l := &ledger{texts: map[string]string{}}
	keep := hub.Options{History: 100, HistoryAge: 400 * time.Millisecond}
	a, b := s.machine(s.Addr, nil, keep), s.machine(s.Addr, nil, keep)
	ann, ben := l.follower(t, "ann"), l.follower(t, "ben")
	ann.come(a)
	say(t, a, "1")
	ann.until("1")
	ann.leave()
	log := "hub:{r/chat/lobby}:log"
	say(t, b, "2")
	require.Eventually(t, func() bool { return s.Exists(bg, log).Val() == 0 }, patience, 5*time.Millisecond, "a quiet room takes no room")
	ann.come(b)
	ann.until("1 gap")
	ann.leave()
	say(t, b, "3")
	ben.come(a)
	ben.until("3")
	ben.leave()
	ann.come(a)
	ann.until("gap 3")
	ann.leave()
	require.Eventually(t, func() bool { return s.Exists(bg, log).Val() == 0 }, patience, 5*time.Millisecond)
	ann.come(b)
	say(t, b, "4")
	ann.until("gap 3 4") // it has missed nothing
}

// A109, A113: Redis is killed and comes back with nothing. What was sent meanwhile
// comes then, after a gap, in order and once.
func TestHistoryRestart(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	l := &ledger{texts: map[string]string{}}
	keep := hub.Options{History: 1000}
	machines := []*machine{s.machine(s.Addr, nil, keep), s.machine(s.Addr, nil, keep), s.machine(s.Addr, nil, keep)}
	followers := []*follower{l.follower(t, "c1"), l.follower(t, "c2"), l.follower(t, "c3")}
	followers[0].come(machines[0])
	followers[1].come(machines[0])
	followers[2].come(machines[2])
	n := 0
	for round := range 3 {
		for range 20 {
			n++
			say(t, machines[1], fmt.Sprint(n))
		}
		if round%2 == 0 {
			for _, f := range followers {
				f.until(fmt.Sprint(n))
			}
		}
		s.Kill()
		for range 5 {
			n++
			say(t, machines[1], fmt.Sprint(n)) // it waits
		}
		s.Start()
		n++
		say(t, machines[1], fmt.Sprint(n))
		for _, f := range followers {
			require.Eventually(t, func() bool { // the last may be what a gap stands for
				n++
				say(t, machines[1], fmt.Sprint(n))
				time.Sleep(20 * time.Millisecond)
				return strings.HasSuffix(f.heard(), fmt.Sprint(n))
			}, patience, 20*time.Millisecond)
		}
	}
	for _, f := range followers {
		f.until(fmt.Sprint(n))
		require.Contains(t, f.heard(), "gap")
		last, gap := 0, false
		for _, text := range strings.Fields(f.heard()) {
			k, err := strconv.Atoi(text)
			if err != nil {
				gap = true
				continue
			}
			require.Greater(t, k, last, "order, or twice")
			require.True(t, k == last+1 || gap, "%d after %d", k, last)
			last, gap = k, false
		}
		require.Equal(t, n, last)
	}
}

// A proxy is between a machine and Redis, and has faults.
type proxy struct {
	net.Listener
	to string

	mu    sync.Mutex
	conns map[net.Conn]*wire
	done  sync.WaitGroup
	shut  bool
}

// A wire is one connection's way through the proxy.
type wire struct {
	mu      sync.Mutex
	delay   time.Duration
	swallow bool
	deaf    bool // only what Redis says is swallowed
	cut     int  // after that many bytes; 0: not
}

func newProxy(t *testing.T, to string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{Listener: l, to: to, conns: map[net.Conn]*wire{}}
	p.done.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.done.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		p.mu.Lock()
		p.shut = true
		for c := range p.conns {
			c.Close()
		}
		p.mu.Unlock()
		l.Close()
		p.done.Wait()
	})
	return p
}

func (p *proxy) serve(c net.Conn) {
	defer c.Close()
	r, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer r.Close()
	w := &wire{}
	p.mu.Lock()
	if p.shut {
		p.mu.Unlock()
		return
	}
	p.conns[c] = w
	p.mu.Unlock()
	both := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{c, r}, {r, c}} {
		go func() {
			defer func() { both <- struct{}{} }()
			b := make([]byte, 4096)
			for {
				n, err := way[0].Read(b)
				if err != nil {
					return
				}
				w.mu.Lock()
				delay, swallow := w.delay, w.swallow || w.deaf && way[0] == r
				cut := w.cut > 0 && w.cut <= n
				if cut {
					n = w.cut - 1
				} else if w.cut > 0 {
					w.cut -= n
				}
				w.mu.Unlock()
				time.Sleep(delay)
				if !swallow {
					if _, err := way[1].Write(b[:n]); err != nil {
						return
					}
				}
				if cut {
					return
				}
			}
		}()
	}
	<-both
	c.Close()
	r.Close()
	<-both
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
}

// fault does something to all connections that are open.
func (p *proxy) fault(f func(w *wire, c net.Conn)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c, w := range p.conns {
		w.mu.Lock()
		f(w, c)
		w.mu.Unlock()
	}
}

// A111, A112, A118: what is between the machines and Redis delays, cuts in the
// middle of a frame, and swallows; clients come and go. As Redis loses nothing,
// everybody hears everything, once and in one order.
func TestHistoryFaults(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	const seed = 8
	rnd := rand.New(rand.NewPCG(seed, 0))
	l := &ledger{texts: map[string]string{}}
	keep := hub.Options{History: 50_000, HistoryAge: time.Hour}
	var machines []*machine
	var proxies []*proxy
	for range 3 {
		p := newProxy(t, s.Addr)
		proxies = append(proxies, p)
		machines = append(machines, s.machine(p.Addr().String(), nil, keep))
	}
	var followers []*follower
	for i := range 6 {
		f := l.follower(t, fmt.Sprint("c", i))
		f.come(machines[i%3])
		followers = append(followers, f)
	}
	sent := make([]int, 3)
	for range 60 {
		for range rnd.IntN(30) {
			i := rnd.IntN(3)
			sent[i]++
			say(t, machines[i], fmt.Sprint(i, ":", sent[i], ":", strings.Repeat("x", rnd.IntN(2000))))
		}
		p := proxies[rnd.IntN(3)]
		switch rnd.IntN(6) {
		case 0:
			p.fault(func(w *wire, c net.Conn) { w.delay = time.Duration(rnd.IntN(20)) * time.Millisecond })
		case 1:
			p.fault(func(w *wire, c net.Conn) { w.cut = 1 + rnd.IntN(5000) })
		case 2:
			p.fault(func(w *wire, c net.Conn) { w.swallow = rnd.IntN(2) == 0 })
		case 3:
			p.fault(func(w *wire, c net.Conn) {
				if rnd.IntN(2) == 0 {
					c.Close()
				}
			})
		case 4:
			f := followers[rnd.IntN(len(followers))]
			f.leave()
			f.come(machines[rnd.IntN(3)])
		}
		time.Sleep(time.Duration(rnd.IntN(40)) * time.Millisecond) // faults take place while there is traffic
	}
	for _, p := range proxies { // what swallows is cut off, and the next connections are good
		p.fault(func(w *wire, c net.Conn) { c.Close() })
	}
	for i := range machines {
		sent[i]++
		say(t, machines[i], fmt.Sprint(i, ":", sent[i], ":"))
	}
	total := sent[0] + sent[1] + sent[2]
	for _, f := range followers {
		require.Eventually(t, func() bool { return strings.Count(f.heard(), ":") == 2*total }, patience, 10*time.Millisecond,
			"%s: %v", f.name, sent)
		require.Equal(t, followers[0].heard(), f.heard())
		require.NotContains(t, f.heard(), "gap")
	}
	seen := map[string]int{}
	for _, text := range strings.Fields(followers[0].heard()) {
		from, rest, _ := strings.Cut(text, ":")
		number, _, _ := strings.Cut(rest, ":")
		seen[from]++
		require.Equal(t, fmt.Sprint(seen[from]), number)
	}
}

// A111: a message whose answer is lost is tried again, and kept once.
func TestHistoryOnce(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	l := &ledger{texts: map[string]string{}}
	p := newProxy(t, s.Addr)
	keep := hub.Options{History: 100}
	a, b := s.machine(p.Addr().String(), nil, keep), s.machine(s.Addr, nil, keep)
	ann, ben := l.follower(t, "ann"), l.follower(t, "ben")
	ann.come(a)
	ben.come(b)
	say(t, a, "1")
	ann.until("1")
	ben.until("1")
	p.fault(func(w *wire, c net.Conn) { w.deaf = true })
	say(t, a, "2")
	ben.until("1 2")
	p.fault(func(w *wire, c net.Conn) { c.Close() })
	say(t, a, "3")
	ben.until("1 2 3")
	ann.until("1 2 3")
	require.Equal(t, "1 2 3", ben.heard())
	require.Equal(t, "1 2 3", ann.heard())
	require.Equal(t, int64(3), s.XLen(bg, "hub:{r/chat/lobby}:log").Val())
}

// A113: a Redis that comes back with its data may lack the last of it: histories
// begin anew.
func TestHistoryReloaded(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.Kill()
	s.Dir = t.TempDir()
	s.Start()
	l := &ledger{texts: map[string]string{}}
	keep := hub.Options{History: 100}
	a, b := s.machine(s.Addr, nil, keep), s.machine(s.Addr, nil, keep)
	ann, ben := l.follower(t, "ann"), l.follower(t, "ben")
	ann.come(a)
	ben.come(a)
	say(t, a, "1", "2")
	ann.until("1 2")
	ben.until("1 2")
	ben.leave()
	s.Kill()
	s.Start()
	ann.until("1 2 gap") // without another message: the machine has looked
	ben.come(b)
	ben.until("1 2 gap")
	say(t, b, "3")
	ann.until("1 2 gap 3")
	ben.until("1 2 gap 3")
}

// A114: a machine that is killed leaves no ghosts, and what it has sent before was
// kept. The test runs itself as that machine.
func TestKilledMachine(t *testing.T) {
	keep := hub.Options{History: 1000, Presence: true}
	if addr := os.Getenv("HUB_TEST_REDIS"); addr != "" {
		s := &server{Server: &redisserver.Server{T: t}}
		m := s.machine(addr, nil, keep)
		f := (&ledger{texts: map[string]string{}}).follower(t, "victim")
		f.come(m)
		for i := 0; ; i++ {
			say(t, m, fmt.Sprint(i))
			f.until(fmt.Sprint(i))
			fmt.Println("HEARD", i)
		}
	}
	t.Parallel()
	s := newServer(t)
	a, b := s.machine(s.Addr, nil, keep), s.machine(s.Addr, nil, keep)
	l := &ledger{texts: map[string]string{}}
	ann, ben := l.follower(t, "ann"), l.follower(t, "ben")
	ann.come(a)
	ben.come(b)
	cmd := exec.Command(os.Args[0], "-test.run", "^TestKilledMachine$", "-test.timeout", "1m")
	cmd.Env = append(os.Environ(), "HUB_TEST_REDIS="+s.Addr)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	last := ""
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if n, ok := strings.CutPrefix(lines.Text(), "HEARD "); ok {
			if last = n; n == "20" {
				break
			}
		}
	}
	require.Equal(t, "20", last)
	all := []string{"ann", "ben", "victim"}
	eventually := func(want []string) {
		t.Helper()
		require.Eventually(t, func() bool {
			return fmt.Sprint(a.Users(room)) == fmt.Sprint(want) && fmt.Sprint(b.Users(room)) == fmt.Sprint(want)
		}, 40*time.Second, 10*time.Millisecond)
	}
	eventually(all)
	require.NoError(t, cmd.Process.Kill())
	io.Copy(io.Discard, out)
	cmd.Wait()
	say(t, a, "after")
	for _, f := range []*follower{ann, ben} {
		f.until("after")
		require.Contains(t, f.heard(), " 19 20 ")
		require.NotContains(t, f.heard(), "gap")
	}
	eventually([]string{"ann", "ben"})
}

// A115: what others write to the stream or the channel hurts nobody.
func TestHistoryHostile(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	keep := hub.Options{History: 100}
	a, b := s.machine(s.Addr, nil, keep), s.machine(s.Addr, nil, keep)
	l := &ledger{texts: map[string]string{}}
	ann, ben := l.follower(t, "ann"), l.follower(t, "ben")
	ann.come(a)
	ben.come(b)
	say(t, a, "1")
	ann.until("1")
	ben.until("1")
	ben.leave()
	for _, payload := range []string{
		"L", "L" + strings.Repeat("f", 32), "L" + strings.Repeat("0", 32) + "x", "L" + strings.Repeat("g", 40), strings.Repeat("L", 1<<20),
	} {
		require.NoError(t, s.Publish(bg, "hub:r/chat/lobby", payload).Err())
	}
	say(t, a, "2")
	ann.until("1 2")
	// An entry that is no packet has a place, and is passed over.
	log, now := "hub:{r/chat/lobby}:log", fmt.Sprint(time.Now().Add(time.Second).UnixMilli())
	require.NoError(t, s.XAdd(bg, &redis.XAddArgs{Stream: log, ID: now + "-3", Values: []string{"d", "junk"}}).Err())
	require.NoError(t, s.HSet(bg, "hub:{r/chat/lobby}:history", "offset", "3", "time", now).Err())
	say(t, a, "3")
	require.Eventually(t, func() bool { return strings.HasSuffix(ann.heardLoose(), "2 3") }, patience, 5*time.Millisecond)
	ben.come(b)
	require.Eventually(t, func() bool { return strings.HasSuffix(ben.heardLoose(), "1 2 3") }, patience, 5*time.Millisecond)
	require.Positive(t, a.Stats().Invalid)

	// Nonsense instead of a stream takes history away, not the hub.
	require.NoError(t, s.Del(bg, log).Err())
	require.NoError(t, s.Set(bg, log, "no stream", 0).Err())
	require.NoError(t, a.SendUser("ann", websocket.Text("still here")))
	require.NoError(t, a.SendNamespace("chat", websocket.Text("still here")))
}

// heardLoose is heard, whatever is missing.
func (f *follower) heardLoose() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.texts, " ")
}
