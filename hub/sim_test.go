package hub

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/wstest"
	"github.com/stretchr/testify/require"
)

// An exchange is a broker in memory. Its faults are called by a script.
type exchange struct {
	rand  func(n int) int // seeded
	mu    sync.Mutex
	down  bool
	ports []*port
	hold  bool // subscribes nobody
	reads int  // calls of History
	calm  bool // loses no kept packet in silence
	logs  map[string]*memory
	texts map[string]int      // how often a text was kept
	said  map[Position]string // what was ever kept where: the messages' text
}

// A memory is what an exchange keeps of a topic.
type memory struct {
	last    Position
	packets []remembered
	writers map[string]uint64
}

type remembered struct {
	data []byte
	at   time.Time
}

// A keeper is a port that is a Historian.
type keeper struct{ *port }

// A port is one hub's connection to an exchange.
type port struct {
	x     *exchange
	r     Receiver
	ready chan struct{}
	done  sync.WaitGroup

	// Under the exchange's lock.
	on      bool
	closed  bool
	wanted  map[string]bool
	active  map[string]bool
	waiting []func() // what is under way to the hub, in order
	gen     int      // of the connection
	mute    bool     // it hears, and cannot publish
}

var errDown = errors.New("the exchange is down")

func (x *exchange) port() *port {
	p := &port{x: x, wanted: map[string]bool{}, active: map[string]bool{}, ready: make(chan struct{}, 1)}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.ports = append(x.ports, p)
	return p
}

func (p *port) Start(r Receiver) error {
	p.r = r
	p.done.Go(func() {
		for range p.ready {
			for {
				p.x.mu.Lock()
				if len(p.waiting) == 0 {
					p.x.mu.Unlock()
					break
				}
				f := p.waiting[0]
				p.waiting = p.waiting[1:]
				p.x.mu.Unlock()
				f()
			}
		}
	})
	p.connect()
	return nil
}

// later calls f on the hub's goroutine. The lock is held.
func (p *port) later(f func()) {
	if p.closed {
		return
	}
	p.waiting = append(p.waiting, f)
	wake(p.ready)
}

func (p *port) connect() {
	p.x.mu.Lock()
	defer p.x.mu.Unlock()
	if p.x.down || p.on || p.closed {
		return
	}
	p.on = true
	p.later(func() { p.r.Connected(true) })
	for topic := range p.wanted {
		p.subscribe(topic)
	}
}

// cut loses what is under way. The lock is held.
func (p *port) cut() {
	if p.on && !p.closed {
		p.on = false
		p.gen++
		clear(p.active)
		p.waiting = nil
		p.later(func() { p.r.Connected(false) })
	}
}

func (p *port) subscribe(topic string) {
	if p.on && !p.x.hold {
		p.active[topic] = true
		p.later(func() { p.r.Subscribed(topic) })
	}
}

func (p *port) Subscribe(topic string) {
	p.x.mu.Lock()
	defer p.x.mu.Unlock()
	p.wanted[topic] = true
	p.subscribe(topic)
}

func (p *port) Unsubscribe(topic string) {
	p.x.mu.Lock()
	defer p.x.mu.Unlock()
	delete(p.wanted, topic)
	delete(p.active, topic)
}

func (p *port) Close() error {
	p.x.mu.Lock()
	p.closed = true
	p.waiting = nil
	close(p.ready)
	p.x.mu.Unlock()
	p.done.Wait()
	return nil
}

func (p *port) Publish(ctx context.Context, packets []Packet) error {
	x := p.x
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, packet := range packets {
		if !p.on || p.mute || x.down {
			return errDown
		}
		data := slices.Clone(packet.Data)
		if packet.Keep != nil {
			x.keep(packet, data)
			if x.rand(30) == 0 {
				return errDown // and yet it has arrived
			}
			continue
		}
		for range 1 + (x.rand(20)+1)/20 { // now and then twice
			for _, q := range x.ports {
				if q.active[packet.Topic] {
					q.later(func() { q.r.Receive(packet.Topic, data) })
				}
			}
		}
		if x.rand(30) == 0 {
			return errDown // and yet it has arrived
		}
	}
	return nil
}

// memory returns what is kept of a topic. The lock is held.
func (x *exchange) memory(topic string) *memory {
	if x.logs == nil {
		x.logs, x.said, x.texts = make(map[string]*memory), make(map[Position]string), make(map[string]int)
	}
	m := x.logs[topic]
	if m == nil {
		m = &memory{last: Position{Epoch: newEpoch()}, writers: map[string]uint64{}}
		x.logs[topic] = m
	}
	return m
}

func (m *memory) forget(most int, age time.Duration) {
	for len(m.packets) > most || len(m.packets) > 0 && time.Since(m.packets[0].at) > age {
		m.packets = m.packets[1:]
	}
}

func (x *exchange) keep(packet Packet, data []byte) {
	m, k := x.memory(packet.Topic), packet.Keep
	if m.writers[k.Writer] >= k.Number {
		return
	}
	m.writers[k.Writer] = k.Number
	m.last.Offset++
	m.packets = append(m.packets, remembered{data, time.Now()})
	m.forget(k.Messages, k.Age)
	p, _ := parsePacket(packet.Topic, data)
	x.said[m.last] = string(p.message.Data)
	x.texts[x.said[m.last]]++
	at := m.last
	for _, q := range x.ports {
		if q.active[packet.Topic] && (x.calm || x.rand(40) > 0) { // now and then one is lost
			for range 1 + (x.rand(20)+1)/20 {
				q.later(func() { q.r.Appended(packet.Topic, at, data) })
			}
		}
	}
}

func (k keeper) History(ctx context.Context, queries []Query) (pages []Page, err error) {
	x := k.port.x
	x.mu.Lock()
	x.reads++
	pause := time.Duration(x.rand(50)) * time.Millisecond
	x.mu.Unlock()
	time.Sleep(pause)
	defer time.Sleep(pause) // the answer takes its time, too
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, q := range queries {
		if !k.port.on || x.down || x.rand(20) == 0 {
			return nil, errDown
		}
		m := x.memory(q.Topic)
		m.forget(maxHistory, q.Age)
		page := Page{Last: m.last}
		n := len(m.packets)
		if q.After < m.last.Offset {
			n -= int(min(uint64(n), m.last.Offset-q.After))
		}
		for _, p := range m.packets[n:] {
			page.Packets = append(page.Packets, Kept{p.data, time.Since(p.at)})
		}
		pages = append(pages, page)
	}
	return pages, nil
}

// A simulation is a few hubs with clients that check what they get.
func simulate(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 8))
	n := func(n int) int { return rnd.IntN(n) } // of the script
	faults := rand.New(rand.NewPCG(seed, 9))
	x := &exchange{rand: func(n int) int { return faults.IntN(n) }} // under its lock
	const nodes = 3
	var hubs []*Hub
	for range nodes {
		hubs = append(hubs, &Hub{
			Authorize: anybody,
			Broker:    x.port(),
			Options:   func(r Room) Options { return Options{Presence: r.Name == "a"} },
			Encode: func(e Event) (websocket.Message, bool) {
				return websocket.Text(e.Kind.String() + " " + e.User + " " + strings.Join(e.Users, "+") + string(e.Message.Data)), true
			},
		})
	}
	rooms := []Room{{"sim", "a"}, {"sim", "b"}}
	var clients []*person
	for i := range 6 {
		quiet := websocket.Config{KeepAlive: -1}
		p := enterBy(t, hubs[i%nodes], wstest.Link{Client: quiet, Server: quiet}, fmt.Sprint("u", i), rooms...).read()
		clients = append(clients, p)
	}
	synctest.Wait()
	sent := map[string]int{} // by publisher and room
	publish := func(i int, r Room) {
		from := fmt.Sprintf("%d%s", i, r.Name)
		sent[from]++
		text := websocket.Text(fmt.Sprintf("%s:%d", from, sent[from]))
		if i%2 == 0 {
			require.NoError(t, hubs[i%nodes].Send(r, text))
		} else {
			require.NoError(t, clients[i%nodes].SendOthers(r, text))
		}
	}
	for range 60 {
		switch n(14) {
		case 0: // a node is cut off, and comes back
			x.mu.Lock()
			x.ports[n(nodes)].cut()
			x.mu.Unlock()
		case 1: // the exchange restarts
			x.mu.Lock()
			x.down = true
			for _, p := range x.ports {
				p.cut()
			}
			x.mu.Unlock()
		case 2:
			x.mu.Lock()
			x.down = false
			x.mu.Unlock()
			for _, p := range x.ports {
				p.connect()
			}
		case 3:
			x.ports[n(nodes)].connect()
		case 4: // somebody tampers
			x.mu.Lock()
			p, b := x.ports[n(nodes)], make([]byte, n(60))
			for i := range b {
				b[i] = byte(n(256))
			}
			p.later(func() { p.r.Receive(roomTopic(rooms[0]), b) })
			x.mu.Unlock()
		case 5:
			time.Sleep(time.Duration(n(20)) * time.Second)
		case 6:
			time.Sleep(time.Duration(n(200)) * time.Millisecond)
		case 7:
			synctest.Wait()
		case 8: // the last of a node's members leaves, and comes back
			i := n(nodes)
			for _, j := range []int{i, i + nodes} {
				require.NoError(t, clients[j].Leave(rooms[1]))
			}
			for _, j := range []int{i, i + nodes} {
				clients[j].mu.Lock()
				clients[j].got = append(clients[j].got, "rejoins b", "") // it is no member meanwhile
				clients[j].mu.Unlock()
				require.NoError(t, clients[j].Join(bg, rooms[1]))
			}
		default:
			for range 1 + n(4) {
				publish(n(nodes), rooms[n(2)])
			}
		}
	}
	x.mu.Lock()
	x.down = false
	x.mu.Unlock()
	for _, p := range x.ports {
		p.connect()
	}
	time.Sleep(3 * beatLimit) // everything has healed
	for i := range nodes {
		for _, r := range rooms {
			publish(i, r)
		}
	}
	time.Sleep(time.Minute)
	for _, h := range hubs {
		require.Equal(t, []string{"u0", "u1", "u2", "u3", "u4", "u5"}, h.Users(rooms[0]))
	}
	for i, p := range clients {
		check(t, i, strings.Split(p.heard(), "|"), sent, nodes)
	}
	for _, p := range clients {
		p.client.CloseNow()
	}
	synctest.Wait()
	for _, h := range hubs {
		require.NoError(t, h.Close())
		empty(t, h)
	}
}

// check reads a client's history: for each publisher and room the numbers grow,
// and where one is missing there is a gap after the last that came before. To one
// that has left and joins again what it has had may come once more.
func check(t *testing.T, client int, history []string, sent map[string]int, nodes int) {
	last, gapped := map[string]int{}, map[string]bool{}
	present := map[string]bool{}
	for from := range sent {
		if from[0]-'0' == byte(client) && client%2 == 1 {
			continue // its own
		}
		last[from] = 0
	}
	missing := map[string]bool{}
	for _, line := range history {
		fields := strings.Split(line, " ")
		switch fields[0] {
		case "gap":
			for from := range last {
				gapped[from] = true
				missing[from] = false
			}
		case "rejoins":
			for from := range last {
				if strings.HasSuffix(from, fields[1]) {
					last[from], gapped[from], missing[from] = 0, true, false
				}
			}
		case "joined":
			require.False(t, present[fields[1]], "twice: %v", line)
			present[fields[1]] = true
		case "left":
			present[fields[1]] = false
		case "welcome":
			for _, user := range strings.Split(fields[2], "+") {
				present[user] = true
			}
		case "sent":
			from, number, _ := strings.Cut(fields[len(fields)-1], ":")
			k, err := strconv.Atoi(number)
			require.NoError(t, err)
			require.Greater(t, k, last[from], "order, or twice: %v", line)
			if k > last[from]+1 && !gapped[from] {
				missing[from] = true // it must come
			}
			last[from], gapped[from] = k, false
		}
	}
	for from, k := range last {
		require.Equal(t, sent[from], k, "client %d: the last of %s", client, from)
		require.False(t, missing[from], "client %d: silence about what %s sent: %v", client, from, history)
	}
	require.Len(t, present, 6)
	for user, yes := range present {
		require.True(t, yes, "client %d: %s", client, user)
	}
}

// A109 to A114, A118: whatever the broker does, messages come in order, once,
// and not without a word if they do not. HUB_SCHEDULES sets how many schedules
// are tried, HUB_SEED the first.
func TestSchedules(t *testing.T) {
	schedules, first := 200, 0
	if s := os.Getenv("HUB_SCHEDULES"); s != "" {
		schedules, _ = strconv.Atoi(s)
	}
	if s := os.Getenv("HUB_SEED"); s != "" {
		first, _ = strconv.Atoi(s)
	}
	for seed := range schedules {
		ok := t.Run(fmt.Sprint(first+seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { simulate(t, uint64(first+seed)) })
			synctest.Test(t, func(t *testing.T) { simulateHistory(t, uint64(first+seed)) })
		})
		if !ok {
			t.FailNow()
		}
	}
}

// A114: the users of a machine that has died are gone soon, and those of one
// that says goodbye at once.
func TestDeadMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := &exchange{rand: func(int) int { return 1 }}
		machine := func(user string) (*Hub, *port) {
			p := x.port()
			h := &Hub{Authorize: anybody, Broker: p, Options: func(Room) Options { return Options{Presence: true} }}
			enter(t, h, user, lobby()).read()
			return h, p
		}
		a, _ := machine("ann")
		b, port := machine("ben")
		c, _ := machine("zoe")
		time.Sleep(beatEvery + time.Second)
		require.Equal(t, []string{"ann", "ben", "zoe"}, a.Users(lobby()))
		x.mu.Lock()
		port.cut()
		x.mu.Unlock()
		time.Sleep(beatLimit - beatEvery)
		require.Equal(t, []string{"ann", "ben", "zoe"}, a.Users(lobby()), "a short pause is none")
		time.Sleep(2*beatEvery + time.Second)
		require.Equal(t, []string{"ann", "zoe"}, a.Users(lobby()))
		require.Equal(t, []string{"ben"}, b.Users(lobby()), "nor does it see others")
		port.connect()
		time.Sleep(2 * beatEvery)
		for _, h := range []*Hub{a, b, c} {
			require.Equal(t, []string{"ann", "ben", "zoe"}, h.Users(lobby()), "it is back")
		}
		// One that could not be heard, and does not know it, is asked.
		x.mu.Lock()
		port.mute = true
		x.mu.Unlock()
		time.Sleep(beatLimit + beatEvery)
		require.Equal(t, []string{"ann", "zoe"}, a.Users(lobby()))
		x.mu.Lock()
		port.mute = false
		x.mu.Unlock()
		time.Sleep(2 * beatEvery)
		require.Equal(t, []string{"ann", "ben", "zoe"}, a.Users(lobby()))
		// One that speaks up while it is being taken for dead stays.
		a.link.heard(b.link.node)
		a.link.drop(b.link.node)
		require.Equal(t, []string{"ann", "ben", "zoe"}, a.Users(lobby()))

		require.NoError(t, c.Close())
		synctest.Wait()
		require.Equal(t, []string{"ann", "ben"}, a.Users(lobby()))
		require.NoError(t, a.Close())
		require.NoError(t, b.Close())
	})
}

// What other machines send to a user arrives from the moment that Add has
// returned, or there is a gap.
func TestFirstMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := &exchange{rand: func(int) int { return 1 }, hold: true}
		pa := x.port()
		a, b := &Hub{Broker: pa, Encode: tell}, &Hub{Broker: x.port(), Encode: tell}
		defer a.Close()
		defer b.Close()
		release := func() {
			x.mu.Lock()
			defer x.mu.Unlock()
			x.hold = false
			for topic := range pa.wanted {
				pa.subscribe(topic)
			}
		}
		time.AfterFunc(time.Second, release)
		begin := time.Now()
		ann := enter(t, a, "ann").read()
		require.Equal(t, time.Second, time.Since(begin))
		require.NoError(t, b.SendUser("ann", websocket.Text("first")))
		require.Equal(t, "sent@:first", ann.heard())
		ann2 := enter(t, a, "ann").read()
		require.Equal(t, time.Second, time.Since(begin), "it is subscribed")

		x.hold = true
		ben := enter(t, a, "ben").read()
		require.Equal(t, time.Second+maxWait, time.Since(begin))
		require.NoError(t, b.SendUser("ben", websocket.Text("lost")))
		require.Empty(t, ben.heard())
		release()
		require.Equal(t, "gap@:", ben.heard())
		ann2.heard()
	})
}

// A hub that is closed leaves its broker: that is no trouble to be told of.
func TestCloseIsNotDegraded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events []Kind
		x := &exchange{rand: func(int) int { return 1 }}
		h := &Hub{Broker: leaving{x.port()}, OnEvent: func(e Event) { events = append(events, e.Kind) }}
		h.Count(lobby()) // it begins
		synctest.Wait()
		require.NoError(t, h.Close())
		require.Empty(t, events)
	})
}

// A leaving broker tells its receiver that it has left.
type leaving struct{ *port }

func (l leaving) Close() error {
	l.r.Connected(false)
	return l.port.Close()
}

// What does not fit into the queue to the broker is not lost in silence.
func TestOverflow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := &exchange{rand: func(int) int { return 1 }}
		encode := func(e Event) (websocket.Message, bool) {
			return websocket.Text(e.Kind.String() + fmt.Sprint(len(e.Message.Data))), e.Kind != Welcome
		}
		pa, pb := x.port(), x.port()
		a, b := &Hub{Authorize: anybody, Broker: pa, Encode: encode}, &Hub{Authorize: anybody, Broker: pb, Encode: encode}
		ann, ben := enter(t, a, "ann", lobby()).read(), enter(t, b, "ben", lobby()).read()
		x.mu.Lock()
		pa.cut()
		x.mu.Unlock()
		require.NoError(t, a.Send(lobby(), websocket.Text("")))
		for range 11 {
			require.NoError(t, a.Send(lobby(), websocket.Binary(make([]byte, 1<<20))))
		}
		require.Equal(t, int64(4), a.Stats().Unpublished)
		require.Equal(t, 12, len(strings.Split(ann.heard(), "|")))
		pa.connect()
		time.Sleep(beatEvery)
		heard := ben.heard()
		require.Regexp(t, `^sent0(\|sent1048576){7}\|gap0$`, heard)
		x.mu.Lock()
		pb.cut()
		x.mu.Unlock()
		pb.connect()
		require.Contains(t, ben.heard(), "gap0", "though nothing else comes")
		require.NoError(t, a.Close())
		require.NoError(t, b.Close())
	})
}

// A109: what has waited while the broker was gone is sent when the other machines
// had time to find it again, and not before.
func TestWaitsForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fail := false
		x := &exchange{rand: func(n int) int {
			if fail && n == 30 {
				fail = false
				return 0 // this Publish fails, and yet has arrived
			}
			return 1
		}}
		encode := func(e Event) (websocket.Message, bool) {
			return e.Message, e.Kind == Sent
		}
		pa, pb := x.port(), x.port()
		a, b := &Hub{Authorize: anybody, Broker: pa, Encode: encode}, &Hub{Authorize: anybody, Broker: pb, Encode: encode}
		enter(t, a, "ann", lobby()).read()
		ben := enter(t, b, "ben", lobby()).read()
		lose := func() {
			x.mu.Lock()
			defer x.mu.Unlock()
			x.down = true
			pa.cut()
			pb.cut()
		}
		find := func() {
			x.mu.Lock()
			x.down = false
			x.mu.Unlock()
		}

		lose()
		require.NoError(t, a.Send(lobby(), websocket.Text("1")))
		time.Sleep(time.Minute)
		require.NoError(t, a.Send(lobby(), websocket.Text("2")))
		find()
		pa.connect()
		time.Sleep(maxAbsence - time.Millisecond)
		require.NoError(t, a.Send(lobby(), websocket.Text("3")))
		pb.connect()
		synctest.Wait()
		require.Empty(t, ben.heard())
		time.Sleep(2 * maxAbsence)
		require.Equal(t, "1|2|3", ben.heard())

		x.mu.Lock()
		fail = true
		x.mu.Unlock()
		require.NoError(t, a.Send(lobby(), websocket.Text("4")))
		require.NoError(t, a.Send(lobby(), websocket.Text("5")))
		time.Sleep(2 * firstRetry) // the broker was not gone: nobody has to find it
		require.Equal(t, "4|5", ben.heard())

		lose()
		time.Sleep(10 * firstRetry)
		find()
		pa.connect()
		require.NoError(t, a.Send(lobby(), websocket.Text("alone")))
		time.Sleep(10 * firstRetry)
		pb.connect()
		time.Sleep(30 * firstRetry)
		require.Equal(t, "alone", ben.heard())

		lose()
		require.NoError(t, a.Send(lobby(), websocket.Text("6")))
		time.Sleep(10 * firstRetry)
		find()
		pb.connect()
		pa.connect()
		time.Sleep(24 * firstRetry) // it has found it, and waits for others until 30
		require.Empty(t, ben.heard())
		start := time.Now()
		require.NoError(t, a.Close())
		require.Zero(t, time.Since(start), "it waits no longer")
		require.Equal(t, "6", ben.heard())
		require.NoError(t, b.Close())
	})
}

// A115: what comes from a broker is taken apart with care.
func FuzzPacket(f *testing.F) {
	p := packet{kind: packMessage, node: 1, epoch: 2, number: 3, topic: "r/chat/a", user: "ann", key: "k", message: websocket.Text("hi")}
	f.Add("r/chat/a", appendPacket(nil, &p))
	p.kind, p.message = packHere, websocket.Binary(appendState(nil, spreading{"ben", true}))
	f.Add("r/chat/a", appendPacket(nil, &p))
	f.Fuzz(func(t *testing.T, topic string, b []byte) {
		p, err := parsePacket(topic, b)
		if err != nil {
			shares(t, topic, b, false)
			return
		}
		require.Equal(t, b, appendPacket(nil, &p))
		h := &Hub{Authorize: anybody, Options: func(Room) Options { return Options{Presence: true} }}
		h.init()
		h.link = newLink(h, nil)
		m := &Member{hub: h, home: &h.shards[0], user: "ann"}
		if strings.HasPrefix(topic, "r/") {
			h.obtain(topic, Room{"chat", "a"}).add(m, new(newcomer))
		}
		h.OnEvent = func(Event) {}
		h.Encode = func(Event) (websocket.Message, bool) { return websocket.Message{}, false }
		h.link.Receive(topic, b)
		h.link.Receive(topic, b)
		require.Zero(t, h.Stats().Invalid)
		shares(t, topic, b, p.kind == packMessage)
	})
}

// shares gives a packet to a hub as one that was kept: it has a place in the
// history, whatever it is.
func shares(t *testing.T, topic string, b []byte, good bool) {
	h := &Hub{Authorize: anybody, Options: func(Room) Options { return Options{History: 10} }}
	h.init()
	h.link = newLink(h, keeper{})
	if !strings.HasPrefix(topic, "r/") {
		return
	}
	h.Encode = func(Event) (websocket.Message, bool) { return websocket.Message{}, false }
	x := h.obtain(topic, Room{"chat", "a"})
	x.add(&Member{hub: h, home: &h.shards[0]}, new(newcomer))
	x.splice(h.link, &reading{topic: x, after: 0}, &Page{Last: Position{7, 1}, Packets: []Kept{{Data: b}, {Data: b}}})
	h.link.Appended(topic, Position{7, 2}, b)
	h.link.Appended(topic, Position{7, 2}, b)
	h.link.Appended(topic, Position{8, 9}, b)
	require.Equal(t, Position{7, 2}, x.history.last)
	require.Len(t, x.history.entries, 2)
	require.Equal(t, good, h.Stats().Invalid == 0)
	x.splice(h.link, &reading{topic: x, after: 2}, &Page{Last: Position{8, 9}})
	require.Equal(t, Position{8, 9}, x.history.last)
}
