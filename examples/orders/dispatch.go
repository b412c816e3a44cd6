package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"maps"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/session"
)

// Limits: whatever pages send, the dispatcher stays small.
const (
	maxShops   = 100
	maxName    = 32     // characters
	maxAtOnce  = 1000   // orders
	maxOrders  = 20_000 // that are not confirmed
	perMessage = 200    // unconfirmed orders that a page is told of when it comes
	keepLatest = 12
	tick       = 100 * time.Millisecond
)

// A shop whose side of a connection has gone without a word is found out soon.
var config = websocket.Config{
	CloseTimeout: 2 * time.Second, KeepAlive: 3 * time.Second, KeepAliveTimeout: 3 * time.Second,
}

// An order goes to a shop.
type order struct {
	ID     int    `json:"id"`     // the dispatcher's, from 1
	Number int    `json:"number"` // the shop's, from 1 without holes
	Item   string `json:"item"`
	For    string `json:"for"`
	Time   int64  `json:"time"` // when it was sent, in ms since 1970

	shop  string
	state string
	mark  uint64 // the page's session has sent this many when the order was; 0: it has not got it
}

// The states of an order.
const (
	waiting   = "waiting"   // sent, but nobody knows yet whether it is there
	arrived   = "arrived"   // the shop's page has it
	confirmed = "confirmed" // and somebody in the shop said so
)

// A shop is known by its name, from whatever page it is looked after. Its orders
// arrive in order, so one number says which have.
type shop struct {
	name    string
	page    *session.Session // where it is looked after
	given   int              // the last number
	arrived int              // the last that has
	waiting []*order         // the others
	open    map[int]*order   // have arrived, and are not confirmed
	done    int              // are
	report  report
}

// A report is what a shop's page has counted on its own.
type report struct {
	Received int `json:"received"`
	Twice    int `json:"twice"`
	Missing  int `json:"missing"`
}

// A dispatcher gives orders to shops, and keeps what has not arrived.
type dispatcher struct {
	id    string // of this run of the program: numbers begin again with it
	proxy *proxy
	shops session.Server // for the shops' pages
	desks session.Server // for the dispatcher's own

	mu     sync.Mutex
	known  []*shop // in the order in which they came
	pages  map[*session.Session]*shop
	unmade []*order // of nobody, as long as there is no shop
	last   int      // ID
	turn   int      // whose the next order is
	latest []*order // newest first
	opened int      // sessions of shops
	conns  int      // of them
	shown  map[*session.Session]string
}

func newDispatcher(p *proxy) *dispatcher {
	d := &dispatcher{id: rand.Text(), proxy: p, pages: make(map[*session.Session]*shop), shown: make(map[*session.Session]string)}
	d.shops = session.Server{
		Config: session.Config{
			Message: d.message,
			Methods: map[string]session.Method{"confirm": d.confirm},
			MaxAge:  -1,      // an order does not spoil: it is kept until the shop has it
			Buffer:  8 << 20, // maxOrders, all in one shop
		},
		Open:  func(*session.Session) { d.count(&d.opened, 1) },
		Close: d.gone,
	}
	d.desks = session.Server{
		Config: session.Config{Methods: map[string]session.Method{"send": d.order, "fault": d.fault, "harm": d.harm}},
		Close: func(s *session.Session) {
			d.mu.Lock()
			defer d.mu.Unlock()
			delete(d.shown, s)
		},
	}
	return d
}

func (d *dispatcher) count(n *int, by int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	*n += by
}

// serveShop and serveDesk are the life of one connection.
func (d *dispatcher) serveShop(ctx context.Context, c *websocket.Conn) {
	d.count(&d.conns, 1)
	d.shops.Serve(ctx, c)
}

func (d *dispatcher) serveDesk(ctx context.Context, c *websocket.Conn) { d.desks.Serve(ctx, c) }

// end forgets all sessions.
func (d *dispatcher) end() {
	d.shops.Shutdown()
	d.desks.Shutdown()
}

// message is what a shop's page says.
func (d *dispatcher) message(s *session.Session, name string, data []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch name {
	case "join":
		var q join
		if json.Unmarshal(data, &q) == nil {
			d.join(s, q)
		}
	case "report":
		if v := d.pages[s]; v != nil {
			json.Unmarshal(data, &v.report)
		}
	}
}

// A join is what a page says first in a session: a page that is loaded again has
// another one, and knows from its own memory what it has had.
type join struct {
	Shop string `json:"shop"`
	Run  string `json:"run"`  // of the dispatcher it has its orders from
	Last int    `json:"last"` // the highest number it has had
}

// A welcome is the answer, before any order. What has arrived already and is not
// confirmed comes after it.
type welcome struct {
	Run  string `json:"run"`
	Last int    `json:"last"` // orders follow from the next number on
}

// join goes on with a shop where its page says that it is, so that nothing comes
// twice and nothing is left out, whatever became of the session before.
func (d *dispatcher) join(s *session.Session, q join) {
	v := d.shop(cleanName(q.Shop))
	if v == nil {
		return
	}
	if v.page != nil && v.page != s {
		v.page.Send("moved", nil) // to another page, if there is still somebody to hear it
		delete(d.pages, v.page)
	}
	v.page, d.pages[s] = s, v
	if q.Run == d.id {
		v.settle(min(q.Last, v.given))
	}
	s.Send("welcome", encode(welcome{Run: d.id, Last: v.arrived}))
	open := slices.SortedFunc(maps.Values(v.open), func(a, b *order) int { return cmp.Compare(a.Number, b.Number) })
	for some := range slices.Chunk(open, perMessage) {
		s.Send("open", encode(some))
	}
	for _, o := range v.waiting {
		o.mark = 0
	}
	for _, o := range d.unmade {
		v.give(o)
	}
	d.unmade = nil
	v.push()
}

// shop finds or makes one.
func (d *dispatcher) shop(name string) *shop {
	for _, v := range d.known {
		if v.name == name {
			return v
		}
	}
	if name == "" || len(d.known) >= maxShops {
		return nil
	}
	v := &shop{name: name, open: make(map[int]*order)}
	d.known = append(d.known, v)
	return v
}

// gone forgets a page that stayed away. Its orders wait for the next.
func (d *dispatcher) gone(s *session.Session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if v := d.pages[s]; v != nil && v.page == s {
		v.page = nil
	}
	delete(d.pages, s)
}

// give makes o an order of v's.
func (v *shop) give(o *order) {
	v.given++
	o.Number, o.shop = v.given, v.name
	v.waiting = append(v.waiting, o)
}

// push gives the page's session what it has not got, as far as there is room.
func (v *shop) push() {
	if v.page == nil {
		return
	}
	for _, o := range v.waiting {
		if o.mark > 0 {
			continue
		}
		if v.page.Send("order", encode(o)) != nil {
			return
		}
		// Replies go the same way and may be counted in between: then the order
		// is taken to have arrived a moment later than it has.
		o.mark = v.page.Stats().Sent
	}
}

// check finds out what has arrived. What was sent is acknowledged in order, and
// nothing is dropped on the way, for the session keeps it for ever.
func (v *shop) check() {
	if v.page == nil {
		return
	}
	n, acknowledged := v.arrived, v.page.Stats().Acknowledged
	for _, o := range v.waiting {
		if o.mark == 0 || o.mark > acknowledged {
			break
		}
		n = o.Number
	}
	v.settle(n)
}

// settle notes that all orders up to n have arrived.
func (v *shop) settle(n int) {
	for len(v.waiting) > 0 && v.waiting[0].Number <= n {
		o := v.waiting[0]
		v.waiting[0] = nil
		v.waiting = v.waiting[1:]
		v.arrived = o.Number
		o.state = arrived
		v.open[o.Number] = o
	}
}

// number is what shops confirm.
type number struct {
	Number int `json:"number"`
}

// confirm is called by a shop's page, and again if it does not know whether it
// was heard.
func (d *dispatcher) confirm(_ context.Context, s *session.Session, data []byte) ([]byte, error) {
	var q number
	if json.Unmarshal(data, &q) != nil {
		return nil, &session.Error{Code: "nonsense"}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.pages[s]
	if v == nil || q.Number < 1 || q.Number > v.given {
		return nil, &session.Error{Code: "unknown", Message: "there is no such order of this shop"}
	}
	v.settle(q.Number) // it cannot confirm what it has not got
	if o := v.open[q.Number]; o != nil {
		delete(v.open, q.Number)
		o.state = confirmed
		v.done++
	}
	return nil, nil
}

// order is called by the dispatcher's page.
func (d *dispatcher) order(_ context.Context, _ *session.Session, data []byte) ([]byte, error) {
	var q struct {
		Count int `json:"count"`
	}
	if json.Unmarshal(data, &q) != nil || q.Count < 1 || q.Count > maxAtOnce {
		return nil, &session.Error{Code: "nonsense"}
	}
	return nil, d.send(q.Count)
}

// send makes orders, for one shop after the other.
func (d *dispatcher) send(count int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	pending := len(d.unmade)
	for _, v := range d.known {
		pending += len(v.waiting) + len(v.open)
	}
	if pending+count > maxOrders {
		return &session.Error{Code: "too_many", Message: "so many orders are not confirmed that there is no room for more"}
	}
	for range count {
		d.last++
		o := &order{
			ID: d.last, Item: pick(items), For: pick(people), Time: time.Now().UnixMilli(),
			shop: "the first shop", state: waiting,
		}
		d.latest = append([]*order{o}, d.latest[:min(len(d.latest), keepLatest-1)]...)
		if len(d.known) == 0 {
			d.unmade = append(d.unmade, o)
			continue
		}
		d.turn++
		d.known[d.turn%len(d.known)].give(o)
	}
	for _, v := range d.known {
		v.push()
	}
	return nil
}

// fault is called by the dispatcher's page: how bad shall the network be?
func (d *dispatcher) fault(_ context.Context, _ *session.Session, data []byte) ([]byte, error) {
	var q struct {
		Fault fault `json:"fault"`
	}
	if json.Unmarshal(data, &q) != nil || !slices.Contains(faults, q.Fault) {
		return nil, &session.Error{Code: "nonsense"}
	}
	d.proxy.set(q.Fault)
	return nil, nil
}

// harm is called by the dispatcher's page: break all connections now.
func (d *dispatcher) harm(context.Context, *session.Session, []byte) ([]byte, error) {
	d.proxy.now()
	return nil, nil
}

// work goes on until ctx ends.
func (d *dispatcher) work(ctx context.Context) {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		d.step()
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// step finds out what has arrived, sends what there is room for, and shows it.
func (d *dispatcher) step() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, v := range d.known {
		v.check()
		v.push()
	}
	now := encode(d.state())
	for s := range d.desks.Sessions() {
		// A page that is slow or away gets the next picture when it has had the last.
		if n := s.Stats(); !s.Connected() || n.Acknowledged < n.Sent || d.shown[s] == string(now) {
			continue
		}
		if s.Send("state", slices.Clone(now)) == nil {
			d.shown[s] = string(now)
		}
	}
}

// A state is what the dispatcher's page shows.
type state struct {
	Sent       int         `json:"sent"`
	Arrived    int         `json:"arrived"`
	Confirmed  int         `json:"confirmed"`
	Twice      int         `json:"twice"`   // as the shops count
	Missing    int         `json:"missing"` // too
	Reconnects int         `json:"reconnects"`
	Mean       float64     `json:"mean"` // to the acknowledgement, in ms
	P99        float64     `json:"p99"`
	Proxy      traffic     `json:"proxy"`
	Shops      []shopState `json:"shops"`
	Latest     []seen      `json:"latest"`
}

type shopState struct {
	Name      string `json:"name"`
	Connected bool   `json:"connected"`
	Sent      int    `json:"sent"`
	Arrived   int    `json:"arrived"`
	Confirmed int    `json:"confirmed"`
}

type seen struct {
	ID    int    `json:"id"`
	Item  string `json:"item"`
	For   string `json:"for"`
	Shop  string `json:"shop"`
	State string `json:"state"`
}

// state adds up. The times are those of the sessions that there are now.
func (d *dispatcher) state() state {
	r := state{
		Sent: d.last, Reconnects: max(d.conns-d.opened, 0), Proxy: d.proxy.traffic(),
		Shops: []shopState{}, Latest: []seen{},
	}
	var sum time.Duration
	var n uint64
	for _, v := range d.known {
		r.Arrived += v.arrived
		r.Confirmed += v.done
		r.Twice += v.report.Twice
		r.Missing += v.report.Missing
		one := shopState{Name: v.name, Sent: v.given, Arrived: v.arrived, Confirmed: v.done}
		if v.page != nil {
			s := v.page.Stats()
			sum += s.Mean * time.Duration(s.Acknowledged)
			n += s.Acknowledged
			r.P99 = max(r.P99, ms(s.P99))
			one.Connected = v.page.Connected()
		}
		r.Shops = append(r.Shops, one)
	}
	if n > 0 {
		r.Mean = ms(sum / time.Duration(n))
	}
	for _, o := range d.latest {
		r.Latest = append(r.Latest, seen{o.ID, o.Item, o.For, o.shop, o.state})
	}
	return r
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // what this program sends can be encoded
	}
	return b
}

// cleanName leaves printable text of a bounded length.
func cleanName(s string) string {
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "")), " ")
	if utf8.RuneCountInString(s) > maxName {
		s = string([]rune(s)[:maxName])
	}
	return s
}

var (
	items = []string{
		"2 × Margherita", "Penne all'arrabbiata", "Ramen, extra egg", "3 × falafel wrap", "Green curry, mild", "Fish & chips",
		"Caesar salad", "6 × pierogi", "Burger, no onions", "Bibimbap", "Lentil soup", "4 × spring rolls", "Käsespätzle", "Tacos al pastor",
	}
	people = []string{
		"Amara", "Ben", "Chiyo", "Dmitri", "Elif", "Farah", "Grégoire", "Hana", "Ibrahim", "Jonas", "Katarzyna", "Lucía", "Mateo", "Noor",
	}
)

func pick(from []string) string { return from[mathrand.IntN(len(from))] }
