package hub

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"unicode/utf8"

	"github.com/seed-07372d5a/websocket"
)

// member.go owns the members: joining, leaving, and what becomes of a message
// that a connection has no room for.

// A Member is a connection in the hub. Its methods may be called from any
// goroutine.
type Member struct {
	Value any // the caller's

	hub  *Hub
	conn *websocket.Conn
	user string
	home *shard // which has m among its members

	mu    sync.Mutex
	rooms []*membership
	self  *membership // among the user's connections
	gone  bool

	slow atomic.Bool         // it is being closed for it
	lag  atomic.Pointer[lag] // what waits in the hub; nil if the member keeps up
}

var errDead = errors.New("hub: the topic has died") // try again

// Add makes c a member until it ends. The user is whose connection it is: 1 to
// 128 bytes of printable UTF-8, which the application knows to be true; "" is
// nobody, who has no presence and cannot be sent to by name. With a broker Add
// waits, no longer than two seconds, for messages to the user from other machines
// to arrive; if they do not yet, the user's connections have a Gap as soon as they
// do.
func (h *Hub) Add(c *websocket.Conn, user string) (*Member, error) {
	if user != "" {
		if err := checkUser(user); err != nil {
			return nil, err
		}
	}
	h.init()
	s := &h.shards[h.added.Add(1)%shards]
	m := &Member{hub: h, conn: c, user: user, home: s}
	s.mu.Lock()
	if s.members == nil {
		s.members = make(map[*Member]struct{})
	}
	s.members[m] = struct{}{}
	s.mu.Unlock()
	h.stats.members.Add(1)
	if user != "" {
		p, t, err := h.enter(m, userTopic(user), Room{}, new(newcomer))
		if err != nil {
			return nil, err
		}
		m.mu.Lock()
		m.self = p
		m.mu.Unlock()
		t.tell()
		if h.link != nil {
			h.link.await(c.Context(), t, new(newcomer))
		}
	}
	context.AfterFunc(c.Context(), m.Remove)
	return m, nil
}

// enter adds m to a topic, which may have to be made.
func (h *Hub) enter(m *Member, name string, r Room, n *newcomer) (*membership, *topic, error) {
	for {
		t := h.obtain(name, r)
		p, err := t.add(m, n)
		if err == errDead {
			h.forget(t)
			continue
		}
		if err != nil {
			t.tell() // it may be empty
			return nil, nil, err
		}
		if h.link != nil {
			h.link.hold(t)
		}
		return p, t, nil
	}
}

// User returns whose connection it is.
func (m *Member) User() string { return m.user }

// Conn returns the connection.
func (m *Member) Conn() *websocket.Conn { return m.conn }

// Join makes m a member of a room, if Hub.Authorize agrees. To join a room that
// one is in is not an error. With a broker Join waits, until ctx ends but no
// longer than two seconds, for messages from other machines to arrive; if they do not yet, a Gap follows
// as soon as they do.
func (m *Member) Join(ctx context.Context, r Room) error { return m.join(ctx, r, new(newcomer)) }

// Resume is Join for a client that was in the room before, or wants to hear what
// was said: in rooms with Options.History. The offset is the last Event.Offset
// that the client was sent, in whatever event; the member is first sent all
// messages that came after that, in their order, and then goes on with those that
// follow, none missing and none twice. If they are not all kept any more, or the
// offset is not one of this room's, it is sent a Gap instead. With "" it is sent
// all messages that are kept. In a room that it is in already nothing happens.
//
// The messages that a client has sent itself with SendOthers are among those that
// it has missed, other than those it sends after its Welcome.
func (m *Member) Resume(ctx context.Context, r Room, offset string) error {
	return m.join(ctx, r, resuming(offset))
}

func (m *Member) join(ctx context.Context, r Room, n *newcomer) error {
	if err := r.check(); err != nil {
		return err
	}
	h := m.hub
	if h.Authorize == nil {
		h.stats.refused.Add(1)
		return ErrRefused
	}
	var t *topic
	for {
		checks := h.checks.Load()
		if err := h.Authorize(ctx, m, r); err != nil {
			h.stats.refused.Add(1)
			if t != nil {
				m.Leave(r)
			}
			return err
		}
		if t == nil {
			var err error
			if t, err = m.enter(r, n); err != nil || t == nil {
				return err
			}
		}
		if h.checks.Load() == checks {
			break // else a Recheck has missed m, or what it was asked for was not true any more
		}
	}
	t.tell()
	if h.link != nil {
		h.link.await(ctx, t, n)
	}
	return nil
}

// enter is Join without asking. It returns nil if m is in r already.
func (m *Member) enter(r Room, n *newcomer) (*topic, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.gone:
		return nil, ErrGone
	case m.find(r) >= 0:
		return nil, nil
	case len(m.rooms) >= m.hub.MaxRooms && m.hub.MaxRooms > 0:
		m.hub.stats.refused.Add(1)
		return nil, ErrLimit
	}
	p, t, err := m.hub.enter(m, roomTopic(r), r, n)
	if err != nil {
		m.hub.stats.refused.Add(1)
		return nil, err
	}
	m.rooms = append(m.rooms, p)
	m.hub.stats.memberships.Add(1)
	return t, nil
}

// find returns where r is among the rooms, or -1.
func (m *Member) find(r Room) int {
	for i, p := range m.rooms {
		if p.topic.room == r {
			return i
		}
	}
	return -1
}

// Leave takes m out of a room.
func (m *Member) Leave(r Room) error {
	m.mu.Lock()
	i := m.find(r)
	if i < 0 {
		m.mu.Unlock()
		return ErrNotMember
	}
	p, last := m.rooms[i], len(m.rooms)-1
	m.rooms[i], m.rooms[last] = m.rooms[last], nil
	m.rooms = m.rooms[:last]
	m.mu.Unlock()
	m.hub.leave(p)
	return nil
}

// leave ends a membership of a room.
func (h *Hub) leave(p *membership) {
	h.stats.memberships.Add(-1)
	p.topic.remove(p)
	p.topic.tell()
}

// Remove takes m out of all rooms and out of the hub. The connection stays as it
// is. When the connection ends this happens by itself.
func (m *Member) Remove() {
	m.mu.Lock()
	if m.gone {
		m.mu.Unlock()
		return
	}
	m.gone = true
	rooms, self := m.rooms, m.self
	m.rooms, m.self = nil, nil
	m.mu.Unlock()
	for _, p := range rooms {
		m.hub.leave(p)
	}
	if self != nil {
		self.topic.remove(self)
		self.topic.tell()
	}
	s := m.home
	s.mu.Lock()
	delete(s.members, m)
	s.mu.Unlock()
	m.hub.stats.members.Add(-1)
}

// In tells whether m is in a room.
func (m *Member) In(r Room) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.find(r) >= 0
}

// inside tells whether m is in any room of a namespace.
func (m *Member) inside(namespace string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.rooms {
		if p.topic.room.Namespace == namespace {
			return true
		}
	}
	return false
}

// Rooms returns the rooms that m is in.
func (m *Member) Rooms() []Room {
	m.mu.Lock()
	defer m.mu.Unlock()
	rooms := make([]Room, len(m.rooms))
	for i, p := range m.rooms {
		rooms[i] = p.topic.room
	}
	return rooms
}

// Send sends msg to this connection alone, by Hub.Policy and past Hub.Encode.
func (m *Member) Send(msg websocket.Message) error {
	if err := checkMessage(msg); err != nil {
		return err
	}
	if m.hub.Policy == DropOldest || m.hub.Policy == KeepLatest {
		msg = websocket.Prepare(msg) // it may be kept
	}
	m.post(msg, "", nil, m.hub.Policy)
	return nil
}

// SendOthers sends msg to everybody in a room but this connection, which has to
// be in it. Event.User is its user.
func (m *Member) SendOthers(r Room, msg websocket.Message) error {
	if !m.In(r) {
		return ErrNotMember
	}
	return m.hub.send(roomTopic(r), Event{Kind: Sent, Room: r, User: m.user, Message: msg}, m)
}

var errMessage = errors.New("hub: a message is text, which is UTF-8, or binary")

// checkMessage refuses what no connection would take.
func checkMessage(m websocket.Message) error {
	switch {
	case m.Type == websocket.MessageBinary, m.Type == websocket.MessageText && utf8.Valid(m.Data):
		return nil
	}
	return errMessage
}

// post sends to the connection, without waiting.
func (m *Member) post(msg websocket.Message, key string, t *topic, policy Policy) {
	s := &m.hub.stats
	for {
		if policy == DropOldest || policy == KeepLatest {
			if l := m.lag.Load(); l != nil {
				if l.add(msg, key, t, policy, s) {
					return
				}
				continue // it has just been worked off
			}
		}
		err := m.conn.Post(msg)
		switch {
		case err == nil:
			s.sent.Add(1)
			return
		case !errors.Is(err, websocket.ErrQueueFull):
			return // the connection has ended
		}
		switch policy {
		case DropNewest:
			s.droppedNewest.Add(1)
			return
		case DropOldest, KeepLatest:
			l := newLag(m)
			l.add(msg, key, t, policy, s)
			if m.lag.CompareAndSwap(nil, l) {
				go l.work()
				return
			}
		default:
			m.close()
			return
		}
	}
}

// close ends the connection because it is too slow.
func (m *Member) close() {
	if m.slow.CompareAndSwap(false, true) {
		m.hub.stats.closed.Add(1)
		go func() {
			m.Remove()
			m.conn.Close(websocket.ClosePolicyViolation, "too slow")
		}()
	}
}
