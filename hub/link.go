package hub

import (
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/seed-07372d5a/websocket"
)

// link.go owns the hub's side of a broker: what is to be published and
// subscribed, what has come in which order, and which machines are alive.

const (
	maxUnsent   = 8 << 20 // bytes that wait for the broker
	maxBatch    = 1 << 20 // bytes of one Publish, about
	maxNumbers  = 1 << 17 // topics whose numbers are remembered
	maxCursors  = 1024    // machines whose numbers are remembered for a topic
	maxRetired  = 4096    // topics whose cursors are remembered when they have died
	retireFor   = 5 * time.Minute
	maxWait     = 2 * time.Second
	lastPackets = time.Second // for what waits when the hub is closed
	maxPublish  = 5 * time.Second
	firstRetry  = 50 * time.Millisecond
	lastRetry   = 2 * time.Second
	minAbsence  = 500 * time.Millisecond // of other machines, when the broker is back: to connect and subscribe
	maxAbsence  = 4 * time.Second        // and with the pauses between their attempts

	beatEvery = 5 * time.Second // how often a machine says that it is alive
	beatLimit = 3 * beatEvery   // after which it is taken for dead
	beatTopic = "h/"
)

// A link connects a hub with its broker. Two goroutines belong to it: one
// publishes, and one subscribes and keeps time.
type link struct {
	hub       *Hub
	broker    Broker
	historian Historian // the broker, if it is one
	node      uint64
	ctx       context.Context
	cancel    context.CancelFunc
	done      sync.WaitGroup
	toSend    chan struct{} // there is something to publish
	toDo      chan struct{} // there is something to subscribe or to answer
	toRead    chan struct{} // there are histories to read

	mu       sync.Mutex
	topics   map[string]*want
	changed  []string            // topics to look at
	answers  map[string]struct{} // rooms in which somebody asked who is here
	unsent   []Packet
	bytes    int
	epoch    uint64
	numbers  map[string]uint64   // of the last packet, by topic
	appended map[string]uint64   // like numbers, of what is kept
	reads    map[string]struct{} // topics whose histories are to be read
	lost     map[string]struct{} // topics some packets of which did not fit
	retired  map[string]retired  // topics that have died, whose packets may come again
	alive    map[uint64]time.Time
	buried   map[uint64]bool // machines that were taken for dead
	down     bool            // the broker cannot be reached, and the application was told so
	went     time.Time       // when it was lost; zero if what has waited since is sent, or nothing has
	back     time.Time       // when it could last be reached again
	closing  bool
	hurry    chan struct{} // closed when closing
	empty    chan struct{} // closed when closing and nothing is unsent
}

// Retired are the cursors of a topic that has died.
type retired struct {
	cursors
	at time.Time
}

// A want is what is known of a subscription.
type want struct {
	refs    int
	asked   bool // the broker knows
	active  bool
	late    bool // somebody went on without waiting for it
	ready   chan struct{}
	listed  bool
	cursors // of a namespace: other topics have their own
}

// Cursors are how far the packets of other machines have come in a topic.
type cursors struct{ nodes map[uint64]cursor }

type cursor struct {
	epoch, number uint64
	loose         bool // some may have been lost, and members know
}

// loosen notes that members know of a gap. The lock is held.
func (f *cursors) loosen() {
	for node, c := range f.nodes {
		c.loose = true
		f.nodes[node] = c
	}
}

func newLink(h *Hub, b Broker) *link {
	var id [8]byte
	crand.Read(id[:])
	ctx, cancel := context.WithCancel(context.Background())
	l := &link{
		hub: h, broker: b, node: binary.BigEndian.Uint64(id[:]), ctx: ctx, cancel: cancel,
		toSend: make(chan struct{}, 1), toDo: make(chan struct{}, 1),
		topics: make(map[string]*want), answers: make(map[string]struct{}),
		toRead: make(chan struct{}, 1), reads: make(map[string]struct{}), appended: make(map[string]uint64),
		epoch: uint64(time.Now().UnixNano()), numbers: make(map[string]uint64), lost: make(map[string]struct{}),
		retired: make(map[string]retired), buried: make(map[uint64]bool), alive: make(map[uint64]time.Time), empty: make(chan struct{}),
		hurry: make(chan struct{}),
	}
	l.historian, _ = b.(Historian)
	return l
}

// start is newLink's second half, once the hub knows the link.
func (l *link) start() {
	l.ref(beatTopic, 1)
	l.done.Go(func() {
		if l.broker.Start(l) != nil {
			l.Connected(false)
		}
		l.done.Go(l.send)
		if l.historian != nil {
			l.done.Go(l.readAll)
		}
		l.keep()
	})
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// publish numbers a packet and puts it into the queue, or counts it as lost.
func (l *link) publish(topic string, p packet) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue(topic, p)
}

func (l *link) queue(topic string, p packet) {
	b := l.number(topic, &p, l.numbers)
	if !l.fits(b) {
		if len(l.lost) < maxNumbers {
			l.lost[topic] = struct{}{}
		}
		return
	}
	l.enqueue(Packet{Topic: topic, Data: b})
}

// number encodes a packet with the next number of its topic. The lock is held.
func (l *link) number(topic string, p *packet, numbers map[string]uint64) []byte {
	if len(numbers) >= maxNumbers {
		l.epoch++
		clear(l.numbers)
		clear(l.appended)
	}
	numbers[topic]++
	p.node, p.epoch, p.number, p.topic = l.node, l.epoch, numbers[topic], topic
	return appendPacket(make([]byte, 0, packHead+6+len(topic)+len(p.user)+len(p.key)+len(p.message.Data)), p)
}

// fits tells whether a packet may wait, or counts it as lost.
func (l *link) fits(b []byte) bool {
	if l.bytes+len(b) > maxUnsent || len(b) > maxPacket || l.closing {
		l.hub.stats.unpublished.Add(1)
		return false
	}
	return true
}

func (l *link) enqueue(p Packet) {
	l.unsent = append(l.unsent, p)
	l.bytes += len(p.Data)
	wake(l.toSend)
}

// batch returns what is to be published next.
func (l *link) batch() []Packet {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bytes < maxUnsent/2 && !l.closing { // tell others what they have missed
		for topic := range l.lost {
			delete(l.lost, topic)
			l.queue(topic, packet{kind: packLost})
			if l.bytes >= maxUnsent/2 {
				break
			}
		}
	}
	n, size := 0, 0
	for n < len(l.unsent) && size < maxBatch {
		size += len(l.unsent[n].Data)
		n++
	}
	return l.unsent[:n:n]
}

// sent removes what was published.
func (l *link) sent(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.unsent[:n] {
		l.bytes -= len(p.Data)
	}
	l.unsent = slices.Delete(l.unsent, 0, n)
	l.hub.stats.published.Add(int64(n))
	if l.closing && len(l.unsent) == 0 {
		select {
		case <-l.empty:
		default:
			close(l.empty)
		}
	}
}

// send publishes, and tries again until it can: others drop what they have had.
func (l *link) send() {
	beat := []Packet{{Topic: beatTopic, Data: appendPacket(nil, &packet{kind: packBeat, node: l.node, topic: beatTopic})}}
	wait := firstRetry
	for {
		batch := l.batch()
		if len(batch) == 0 {
			select {
			case <-l.toSend:
				continue
			case <-l.ctx.Done():
				return
			}
		}
		if l.outage().IsZero() && l.try(batch) {
			wait = firstRetry
			l.sent(len(batch))
			continue
		}
		// Whether it works again is tried with what nobody would miss.
		for again := true; again; again = !l.try(beat) {
			if !l.pause(wait/2+rand.N(wait), nil) {
				return
			}
			wait = min(2*wait, lastRetry)
		}
		if went := l.outage(); !went.IsZero() {
			if !l.pause(l.absence(), l.hurry) {
				return
			}
			l.settle(went)
		}
	}
}

// try publishes, and tells whether it could.
func (l *link) try(packets []Packet) bool {
	ctx, cancel := context.WithTimeout(l.ctx, maxPublish)
	defer cancel()
	return l.broker.Publish(ctx, packets) == nil
}

// pause waits, unless it is cut short. It is false when the link has ended.
func (l *link) pause(d time.Duration, short <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-short:
	case <-l.ctx.Done():
	}
	return l.ctx.Err() == nil
}

// outage returns when the broker was lost, if others may not have found it again.
func (l *link) outage() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.went
}

// absence is for how long others may yet be without the broker: what is sent
// before they have subscribed again is lost to them. When it was gone for d, the
// pauses between their attempts have grown to 3*d at most, and the attempt that
// succeeds takes a moment.
func (l *link) absence() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	found := time.Now()
	if !l.down {
		found = l.back
	}
	return min(3*found.Sub(l.went)+minAbsence, maxAbsence) - time.Since(found)
}

// settle ends an outage, unless there has been another one.
func (l *link) settle(went time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.went.Equal(went) {
		l.went = time.Time{}
	}
}

// hold counts a topic that has got members.
func (l *link) hold(t *topic) {
	t.mu.Lock()
	ok := !t.held && !t.dead
	t.held = t.held || ok
	t.mu.Unlock()
	if ok {
		l.count(t, 1)
	}
}

// inherit returns the cursors of the last topic of that name.
func (l *link) inherit(name string) cursors {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.recall(name)
}

// bequeath is called when a topic dies, with its lock held: the next one of its
// name finds its cursors. It tells whether the topic was held.
func (l *link) bequeath(t *topic) bool {
	held, old := t.held, t.cursors
	t.held, t.cursors = false, cursors{}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.retire(t.name, old)
	return held
}

// retire remembers cursors: what is published again, since it was not known
// whether it had arrived, may come when somebody has left a room and joined it
// again.
func (l *link) retire(topic string, c cursors) {
	if len(c.nodes) == 0 {
		return
	}
	if len(l.retired) >= maxRetired {
		clear(l.retired)
	}
	c.loosen()
	l.retired[topic] = retired{c, time.Now()}
}

func (l *link) recall(topic string) cursors {
	c := l.retired[topic].cursors
	delete(l.retired, topic)
	return c
}

func (l *link) count(t *topic, n int) {
	l.ref(t.name, n)
	if t.room.Namespace != "" {
		l.ref(spaceTopic(t.room.Namespace), n)
	}
}

// ref changes how many need a topic.
func (l *link) ref(topic string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.topics[topic]
	if w == nil {
		w = &want{ready: make(chan struct{}), cursors: l.recall(topic)}
		l.topics[topic] = w
	}
	w.refs += n
	if !w.listed {
		w.listed = true
		l.changed = append(l.changed, topic)
		wake(l.toDo)
	}
}

// await returns when packets of a topic arrive and a newcomer knows where it
// stands in the history, or when it has waited enough.
func (l *link) await(ctx context.Context, t *topic, n *newcomer) {
	t.mu.Lock()
	ready := n.ready
	t.mu.Unlock()
	l.mu.Lock()
	w := l.topics[t.name]
	active, down := w == nil || w.active, l.down
	l.mu.Unlock()
	if active && ready == nil {
		return
	}
	if !down {
		ctx, cancel := context.WithTimeout(ctx, maxWait)
		defer cancel()
		if !active {
			select {
			case <-w.ready:
			case <-ctx.Done():
			}
		}
		if ready != nil {
			select {
			case <-ready:
			case <-ctx.Done():
			}
		}
	}
	t.mu.Lock()
	n.late = n.ready != nil
	t.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if w != nil && !w.active {
		w.late = true
	}
}

// keep subscribes, answers and keeps time.
func (l *link) keep() {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-l.toDo:
			l.subscribe()
			l.answer()
		case now := <-tick.C:
			if now.Sub(last) > beatLimit { // others have taken this machine for dead
				l.answerAll()
			}
			last = now
			l.publish(beatTopic, packet{kind: packBeat})
			l.bury(now)
		case <-l.ctx.Done():
			return
		}
	}
}

// subscribe tells the broker what has changed.
func (l *link) subscribe() {
	l.mu.Lock()
	changed := l.changed
	l.changed = nil
	l.mu.Unlock()
	for _, topic := range changed {
		l.mu.Lock()
		w := l.topics[topic]
		w.listed = false
		subscribe, unsubscribe := w.refs > 0 && !w.asked, w.refs == 0 && w.asked
		w.asked = w.refs > 0
		if w.refs == 0 {
			delete(l.topics, topic)
			l.retire(topic, w.cursors)
		}
		l.mu.Unlock()
		if subscribe {
			l.broker.Subscribe(topic)
		}
		if unsubscribe {
			l.broker.Unsubscribe(topic)
		}
	}
}

// Subscribed is of Receiver.
func (l *link) Subscribed(topic string) {
	l.mu.Lock()
	w := l.topics[topic]
	if w == nil {
		l.mu.Unlock()
		return
	}
	lost := w.active || w.late
	if !w.active {
		w.active = true
		close(w.ready)
	}
	w.late = false
	l.mu.Unlock()
	if lost {
		l.Lost(topic)
	} else if t := l.hub.find(topic); t != nil {
		if t.options.Presence {
			l.publish(topic, packet{kind: packAsk})
		}
		if t.history != nil && t.history.shared != nil {
			l.read(topic)
		}
	}
}

// Lost is of Receiver.
func (l *link) Lost(topic string) {
	switch {
	case topic == "":
		for t := range l.hub.all() {
			l.gap(t)
		}
	case topic[0] == 'n':
		l.mu.Lock()
		if w := l.topics[topic]; w != nil {
			w.loosen()
		}
		l.mu.Unlock()
		l.hub.stats.gaps.Add(1)
		e := Event{Kind: Gap, Room: Room{Namespace: topic[2:]}}
		l.hub.deliverSpace(e)
		if l.hub.OnEvent != nil {
			l.hub.OnEvent(e)
		}
	default:
		if t := l.hub.find(topic); t != nil {
			l.gap(t)
		}
	}
}

// gap tells the members of a topic that they may have missed something, and
// compares with other machines who is there.
func (l *link) gap(t *topic) {
	t.mu.Lock()
	shared := t.history != nil && t.history.shared != nil
	switch {
	case shared: // what is missing is read
	case t.history != nil:
		t.restart()
	default:
		t.gap = true
	}
	t.loosen()
	t.mu.Unlock()
	if shared {
		l.read(t.name)
	} else {
		l.hub.stats.gaps.Add(1)
		t.tell()
	}
	if t.options.Presence {
		l.publish(t.name, packet{kind: packAsk})
		l.asked(t.name)
	}
}

// Connected is of Receiver.
func (l *link) Connected(yes bool) {
	l.mu.Lock()
	if l.closing { // it is the hub that leaves
		l.mu.Unlock()
		return
	}
	was := l.down
	l.down = !yes
	switch {
	case was && yes:
		l.back = time.Now()
	case !was && !yes:
		l.went = time.Now()
	}
	l.mu.Unlock()
	if was == !yes || l.hub.OnEvent == nil {
		return
	}
	if yes {
		l.hub.OnEvent(Event{Kind: Recovered})
	} else {
		l.hub.OnEvent(Event{Kind: Degraded})
	}
}

// Receive is of Receiver.
func (l *link) Receive(topic string, data []byte) {
	s := &l.hub.stats
	p, err := parsePacket(topic, data)
	if err != nil {
		s.invalid.Add(1)
		return
	}
	if p.node == l.node {
		return // our own
	}
	s.received.Add(1)
	switch p.kind {
	case packBeat:
		l.heard(p.node)
	case packBye:
		l.mu.Lock()
		delete(l.alive, p.node)
		l.mu.Unlock()
		l.drop(p.node)
	default:
		l.accept(&p)
	}
}

// accept takes what is for the members of a topic.
func (l *link) accept(p *packet) {
	if p.topic[0] == 'n' {
		l.acceptSpace(p)
		return
	}
	t := l.hub.find(p.topic)
	if t == nil {
		return
	}
	t.mu.Lock()
	if t.dead { // its cursors are the next one's
		t.mu.Unlock()
		return
	}
	fresh, missed := t.follow(p)
	t.mu.Unlock()
	if !fresh {
		l.hub.stats.repeated.Add(1)
		return
	}
	if missed || p.kind == packLost {
		l.gap(t)
	}
	switch p.kind {
	case packMessage:
		if t.history != nil && t.history.shared != nil {
			l.hub.stats.invalid.Add(1) // such come by Appended
			return
		}
		l.hub.deliver(p.topic, Event{Kind: Sent, Room: t.room, User: p.user, Key: p.key, Message: p.message}, nil)
	case packAsk:
		l.asked(p.topic)
	case packState, packHere:
		if t.options.Presence && t.room != (Room{}) {
			l.heard(p.node)
			t.merge(p)
			t.tell()
		}
	}
}

// acceptSpace is accept for a namespace, which has no topic of its own here.
func (l *link) acceptSpace(p *packet) {
	l.mu.Lock()
	w := l.topics[p.topic]
	fresh, missed := false, false
	if w != nil {
		fresh, missed = w.follow(p)
	}
	l.mu.Unlock()
	switch {
	case w == nil:
		return
	case !fresh:
		l.hub.stats.repeated.Add(1)
		return
	case missed || p.kind == packLost:
		l.Lost(p.topic)
	}
	if p.kind == packMessage {
		l.hub.deliver(p.topic, Event{Kind: Sent, Room: Room{Namespace: p.topic[2:]}, Message: p.message}, nil)
	}
}

// follow notes a packet's number, and tells whether it is new and whether some
// before it are missing. The lock is held.
func (f *cursors) follow(p *packet) (fresh, missed bool) {
	c, known := f.nodes[p.node]
	switch {
	case p.epoch < c.epoch, p.epoch == c.epoch && p.number <= c.number:
		return false, false
	case known && !c.loose:
		missed = p.number != c.number+1
		if p.epoch != c.epoch {
			missed = p.number != 1
		}
	}
	if f.nodes == nil {
		f.nodes = make(map[uint64]cursor)
	}
	if !known && len(f.nodes) >= maxCursors {
		clear(f.nodes)
		missed = true
	}
	f.nodes[p.node] = cursor{epoch: p.epoch, number: p.number}
	return true, missed
}

// merge takes over what another machine says of its users.
func (t *topic) merge(p *packet) {
	states, _ := parseStates(p.message.Data)
	t.mu.Lock()
	defer t.mu.Unlock()
	if p.kind == packHere {
		here := make(map[string]bool, len(states))
		for _, s := range states {
			here[s.user] = true
		}
		for user, u := range t.users {
			if slices.Contains(u.remote, p.node) && !here[user] {
				t.set(user, u, p.node, false)
			}
		}
	}
	for _, s := range states {
		if s.online || t.users[s.user] != nil {
			t.set(s.user, t.user(s.user), p.node, s.online)
		}
	}
}

// set notes that a user is on another machine, or is not.
func (t *topic) set(user string, u *presence, node uint64, online bool) {
	i := slices.Index(u.remote, node)
	switch {
	case online && i < 0:
		u.remote = append(u.remote, node)
	case !online && i >= 0:
		u.remote = slices.Delete(u.remote, i, i+1)
	default:
		return
	}
	t.note(user, u)
}

// heard notes that a machine is alive. One that was taken for dead is asked who
// is there: it may not know that it was.
func (l *link) heard(node uint64) {
	l.mu.Lock()
	if _, known := l.alive[node]; known || len(l.alive) < maxCursors {
		l.alive[node] = time.Now()
	}
	back := l.buried[node]
	delete(l.buried, node)
	l.mu.Unlock()
	if !back {
		return
	}
	for t := range l.hub.all() {
		if t.options.Presence {
			l.publish(t.name, packet{kind: packAsk})
		}
	}
}

// bury takes machines that have been silent for dead.
func (l *link) bury(now time.Time) {
	var dead []uint64
	l.mu.Lock()
	for node, at := range l.alive {
		if now.Sub(at) > beatLimit {
			delete(l.alive, node)
			if len(l.buried) >= maxCursors {
				clear(l.buried)
			}
			l.buried[node] = true
			dead = append(dead, node)
		}
	}
	for topic, c := range l.retired {
		if now.Sub(c.at) > retireFor {
			delete(l.retired, topic)
		}
	}
	l.mu.Unlock()
	for _, node := range dead {
		l.drop(node)
	}
}

// drop forgets the users of a machine, unless it is heard from meanwhile: what it
// says is heard before its users are noted.
func (l *link) drop(node uint64) {
	for t := range l.hub.all() {
		t.mu.Lock()
		l.mu.Lock()
		_, alive := l.alive[node]
		l.mu.Unlock()
		if alive {
			t.mu.Unlock()
			return
		}
		for user, u := range t.users {
			t.set(user, u, node, false)
		}
		t.mu.Unlock()
		t.tell()
	}
}

// spread tells other machines of users that have come and gone here.
func (l *link) spread(topic string, states []spreading) {
	var b []byte
	for _, s := range states {
		b = appendState(b, s)
	}
	l.publish(topic, packet{kind: packState, message: websocket.Binary(b)})
}

// asked notes that somebody wants to know who is here.
func (l *link) asked(topic string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answers[topic] = struct{}{}
	wake(l.toDo)
}

// answer tells those who have asked.
func (l *link) answer() {
	l.mu.Lock()
	answers := l.answers
	l.answers = make(map[string]struct{})
	l.mu.Unlock()
	for topic := range answers {
		if t := l.hub.find(topic); t != nil && t.options.Presence {
			l.here(t)
		}
	}
}

func (l *link) answerAll() {
	for t := range l.hub.all() {
		if t.options.Presence {
			l.here(t)
		}
	}
}

// here tells other machines all that were spread.
func (l *link) here(t *topic) {
	var b []byte
	t.mu.Lock()
	for user, u := range t.users {
		if u.spread {
			b = appendState(b, spreading{user, true})
		}
	}
	l.publish(t.name, packet{kind: packHere, message: websocket.Binary(b)}) // before another change is
	t.mu.Unlock()
}

// close says goodbye, waits a moment for what is unsent, and ends the link.
func (l *link) close() error {
	l.mu.Lock()
	if l.closing {
		l.mu.Unlock()
		l.done.Wait()
		return nil
	}
	l.queue(beatTopic, packet{kind: packBye})
	l.closing = true
	close(l.hurry)
	if len(l.unsent) == 0 {
		close(l.empty)
	}
	l.mu.Unlock()
	timer := time.NewTimer(lastPackets)
	defer timer.Stop()
	select {
	case <-l.empty:
	case <-timer.C:
	}
	l.cancel()
	l.done.Wait()
	return l.broker.Close()
}
