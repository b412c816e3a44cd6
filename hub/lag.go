package hub

import (
	"sync"

	"github.com/seed-07372d5a/websocket"
)

// lag.go owns what waits in the hub for members that are slow.

// A Policy says what is done when a member's queue is full: when
// Config.QueueLimit bytes wait for its connection.
type Policy byte

// The policies.
const (
	// CloseSlow closes the connection with ClosePolicyViolation (1008). Its
	// client comes back and knows that it has missed something.
	CloseSlow Policy = iota
	// DropNewest drops the message.
	DropNewest
	// DropOldest keeps the message in the hub, and drops the oldest of those
	// that are kept for this member when they exceed Hub.Backlog.
	DropOldest
	// KeepLatest is DropOldest, but a message also takes the place of one with
	// the same key in the same room; messages without a key have the key "".
	KeepLatest
)

// overhead is what a message that waits costs besides its bytes, about.
const overhead = 64

// A lag is the queue of one slow member. It exists while there is something in
// it, and so does the goroutine that works it off.
type lag struct {
	member *Member
	limit  int

	mu     sync.Mutex
	queue  []waiting
	first  uint64               // the number of queue[0]
	latest map[latestKey]uint64 // where in the queue, by number
	bytes  int
	over   bool // nothing is added any more
}

type waiting struct {
	message websocket.Message
	key     latestKey // its topic is nil if the message has no successors
}

type latestKey struct {
	topic *topic
	key   string
}

func newLag(m *Member) *lag { return &lag{member: m, limit: m.hub.Backlog} }

// add keeps a message, and tells whether it could.
func (l *lag) add(msg websocket.Message, key string, t *topic, policy Policy, s *counters) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return false
	}
	k := latestKey{}
	if policy == KeepLatest && t != nil {
		k = latestKey{t, key}
		if n, ok := l.latest[k]; ok {
			w := &l.queue[n-l.first]
			l.bytes += len(msg.Data) - len(w.message.Data)
			w.message = msg
			s.replaced.Add(1)
			l.trim(s)
			return true
		}
		if l.latest == nil {
			l.latest = make(map[latestKey]uint64)
		}
		l.latest[k] = l.first + uint64(len(l.queue))
	}
	l.queue = append(l.queue, waiting{msg, k})
	l.bytes += len(msg.Data) + overhead
	l.trim(s)
	return true
}

// trim drops the oldest until the rest fits; the newest stays.
func (l *lag) trim(s *counters) {
	for l.limit >= 0 && l.bytes > l.limit && len(l.queue) > 1 {
		l.take()
		s.droppedOldest.Add(1)
	}
}

// take removes the oldest.
func (l *lag) take() websocket.Message {
	w := l.queue[0]
	l.queue[0] = waiting{}
	l.queue = l.queue[1:]
	l.first++
	l.bytes -= len(w.message.Data) + overhead
	if w.key.topic != nil {
		delete(l.latest, w.key)
	}
	return w.message
}

// next takes the oldest, or ends the lag.
func (l *lag) next() (websocket.Message, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) == 0 {
		l.over = true
		l.member.lag.Store(nil)
		return websocket.Message{}, false
	}
	return l.take(), true
}

// work writes what waits at the pace of the network, and ends with the
// connection: Config.WriteTimeout holds for each.
func (l *lag) work() {
	ctx := l.member.conn.Context()
	for {
		m, ok := l.next()
		if !ok {
			return
		}
		if l.member.conn.Write(ctx, m) != nil {
			l.abandon()
			return
		}
		l.member.hub.stats.sent.Add(1)
	}
}

// abandon lets go of what waits, for a connection that has ended.
func (l *lag) abandon() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue, l.latest, l.bytes, l.over = nil, nil, 0, true
	l.member.lag.Store(nil)
}
