package hub

import (
	"context"
	"hash/maphash"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-07372d5a/websocket"
)

// hub.go owns the hub: its options, finding topics, and sending to them.

// A Hub has members and rooms. Its fields must not be changed once it is in use;
// its methods may be called from any goroutine. A Hub without a Broker holds no
// goroutine, and there is no need to close it.
type Hub struct {
	// Authorize says whether m may join r: nil is yes, and any error is no and
	// what Join returns. It may take its time; ctx is that of Join. If it is nil
	// nobody can join.
	Authorize func(ctx context.Context, m *Member, r Room) error

	// Options says how a room works; it is asked when the room comes into being,
	// and when something is sent to one that nobody is in. It must not call the hub. nil: the zero Options.
	Options func(r Room) Options

	// Policy is for messages to users, namespaces and single members.
	Policy Policy

	// Encode makes what members are sent for an event; false: nothing. It is
	// called once for an event, however many get it, and must not call the hub.
	// nil: a [Sent] is its Message as it is, and other events are not sent.
	Encode func(e Event) (websocket.Message, bool)

	// OnEvent is told of all events but Sent and Welcome. Those of one room come
	// one after the other. It should return soon: what follows in that room
	// waits. It may call the hub, but for Close.
	OnEvent func(e Event)

	// MaxRooms is how many rooms a member may be in. 0: 100.
	MaxRooms int

	// Backlog is how many bytes the hub keeps for one member that is slow, in
	// rooms with DropOldest or KeepLatest, on top of its connection's
	// Config.QueueLimit. The payloads are shared with other members. 0: 64 KiB.
	Backlog int

	// Broker connects this hub with those on other machines. nil: there are none.
	Broker Broker

	once   sync.Once
	seed   maphash.Seed
	shards [shards]shard
	added  atomic.Uint32 // members ever, to spread them over shards
	checks atomic.Uint64 // calls of Recheck
	stats  counters
	link   *link // nil without a broker

	sweeping atomic.Bool // a timer runs
}

// Options are how a room works. The zero value is a room that closes slow
// members, and has no events and no limit.
type Options struct {
	Policy     Policy // for members whose queue is full
	Presence   bool   // keep track of users: Joined, Left, Welcome, Hub.Users
	MaxMembers int    // connections on this machine; 0: no limit

	// History is how many messages the room keeps for those who come back with
	// Member.Resume: at most 65,536, and no older than HistoryAge. Who they are
	// told by is Hub.Encode, which has to send Event.Offset along. 0: none.
	History    int
	HistoryAge time.Duration // 0: 5 minutes
}

// An Event is something that happens in a room.
type Event struct {
	Kind Kind
	// Room is where; for a Sent or Gap of a user it is zero, and of a namespace
	// has that alone. For Degraded and Recovered it is zero.
	Room    Room
	User    string            // Joined and Left: who; Sent: who sent it with Member.SendOthers, else ""
	Online  int               // Joined, Left and Welcome: how many users are there now
	Users   []string          // Welcome: who they are, sorted; nil if they are more than 1,000
	Message websocket.Message // Sent
	Key     string            // Sent: as given to SendKey
	// Offset is for Member.Resume, in rooms with history: where in it a Sent is,
	// and where those stand who are sent a Welcome or a Gap. A client keeps the
	// last that it was sent.
	Offset string
}

// A Kind is what happened.
type Kind byte

// The kinds of events.
const (
	Sent      Kind = 1 + iota // a message was sent
	Joined                    // the first connection of a user has joined
	Left                      // the last connection of a user has left
	Welcome                   // to a new member, after its own Joined: who is there
	Gap                       // messages from other machines may have been lost here
	Degraded                  // the broker cannot be reached: messages stay on this machine
	Recovered                 // the broker can be reached again
)

var kinds = [...]string{"unknown", "sent", "joined", "left", "welcome", "gap", "degraded", "recovered"}

// String returns the kind in lower case.
func (k Kind) String() string {
	if int(k) < len(kinds) {
		return kinds[k]
	}
	return kinds[0]
}

const shards = 64

// A shard has the topics whose name hashes to it, and some of the members.
type shard struct {
	mu      sync.Mutex
	topics  map[string]*topic
	members map[*Member]struct{}
	shelf   map[string]*history // of rooms that nobody is in
	_       [32]byte            // keep the locks of neighbours apart
}

func (h *Hub) init() {
	h.once.Do(func() {
		h.seed = maphash.MakeSeed()
		if h.MaxRooms == 0 {
			h.MaxRooms = 100
		}
		if h.Backlog == 0 {
			h.Backlog = 64 << 10
		}
		if h.Broker != nil {
			h.link = newLink(h, h.Broker)
			h.link.start()
		}
	})
}

func (h *Hub) shard(name string) *shard {
	return &h.shards[maphash.String(h.seed, name)%shards]
}

// find returns a topic, or nil if there is none.
func (h *Hub) find(name string) *topic {
	h.init()
	s := h.shard(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.topics[name]
}

// obtain returns a topic, which it makes if need be.
func (h *Hub) obtain(name string, r Room) *topic {
	if t := h.find(name); t != nil {
		return t
	}
	made := &topic{hub: h, name: name, room: r}
	if r == (Room{}) {
		made.options.Policy = h.Policy
	} else if h.Options != nil {
		made.options = h.Options(r)
	}
	s := h.shard(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.topics[name]; t != nil {
		return t
	}
	if h.link != nil {
		made.cursors = h.link.inherit(name) // before anything comes
	}
	if made.options.History > 0 {
		if made.history = s.shelf[name]; made.history == nil {
			made.history = new(history)
			made.history.begin()
			if h.link != nil && h.link.historian != nil {
				made.history.shared = new(shared)
			}
		}
		delete(s.shelf, name)
		made.history.most, made.history.age = made.options.bounds()
	}
	if s.topics == nil {
		s.topics = make(map[string]*topic)
	}
	s.topics[name] = made
	if r != (Room{}) {
		h.stats.rooms.Add(1)
	}
	return made
}

// forget takes a topic that is dead out.
func (h *Hub) forget(t *topic) {
	s := h.shard(t.name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.topics[t.name] == t {
		delete(s.topics, t.name)
		h.shelve(s, t)
		if t.room != (Room{}) {
			h.stats.rooms.Add(-1)
		}
	}
}

// all returns the topics that are there now, a shard at a time.
func (h *Hub) all() iter.Seq[*topic] {
	h.init()
	return func(yield func(*topic) bool) {
		for i := range h.shards {
			s := &h.shards[i]
			s.mu.Lock()
			topics := make([]*topic, 0, len(s.topics))
			for _, t := range s.topics {
				topics = append(topics, t)
			}
			s.mu.Unlock()
			for _, t := range topics {
				if !yield(t) {
					return
				}
			}
		}
	}
}

// encode makes what is sent for an event, ready for any number of members.
func (h *Hub) encode(e Event) (websocket.Message, bool) {
	m, ok := e.Message, e.Kind == Sent
	if h.Encode != nil {
		m, ok = h.Encode(e)
	}
	if ok {
		m = websocket.Prepare(m)
	}
	return m, ok
}

// Send sends m to everybody in a room. It keeps nothing of m.Data, does not
// wait, and whether anybody is there is not an error. In rooms whose history is
// kept by a [Historian] it fails with ErrUnsent, and nobody gets m, when 8 MiB
// wait for the broker or the hub is closed.
func (h *Hub) Send(r Room, m websocket.Message) error { return h.SendKey(r, "", m) }

// SendKey is Send for rooms with [KeepLatest]: for a member that is slow, m takes
// the place of a message with the same key that still waits. The key is 128
// bytes at most.
func (h *Hub) SendKey(r Room, key string, m websocket.Message) error {
	if err := r.check(); err != nil {
		return err
	}
	if len(key) > maxName {
		return ErrName
	}
	return h.send(roomTopic(r), Event{Kind: Sent, Room: r, Key: key, Message: m}, nil)
}

// SendUser sends m to all connections of a user.
func (h *Hub) SendUser(user string, m websocket.Message) error {
	if err := checkUser(user); err != nil {
		return err
	}
	return h.send(userTopic(user), Event{Kind: Sent, Message: m}, nil)
}

// SendNamespace sends m to everybody who is in a room of the namespace, once.
func (h *Hub) SendNamespace(namespace string, m websocket.Message) error {
	if !plain(namespace, maxNamespace, "_-") {
		return ErrName
	}
	return h.send(spaceTopic(namespace), Event{Kind: Sent, Room: Room{Namespace: namespace}, Message: m}, nil)
}

// send delivers an event here, and then to the other machines.
func (h *Hub) send(topic string, e Event, except *Member) error {
	h.init()
	if err := checkMessage(e.Message); err != nil {
		return err
	}
	if h.link != nil && h.link.historian != nil && e.Room.Name != "" {
		t, o := h.find(topic), Options{}
		if t != nil {
			o = t.options
		} else if h.Options != nil {
			o = h.Options(e.Room)
		}
		if o.History > 0 {
			return h.link.append(t, topic, o, e, except)
		}
	}
	h.deliver(topic, e, except)
	if h.link != nil {
		h.link.publish(topic, packet{kind: packMessage, user: e.User, key: e.Key, message: e.Message})
	}
	return nil
}

// deliver sends an event to the members of a topic on this machine.
func (h *Hub) deliver(topic string, e Event, except *Member) {
	switch topic[0] {
	case 'n':
		h.deliverSpace(e)
	default:
		t := h.find(topic)
		switch {
		case t != nil && t.history != nil, t == nil && h.keeps(e.Room):
			h.deliverKept(topic, e, except)
		case t != nil:
			if m, ok := h.encode(e); ok {
				t.send(m, e.Key, t.options.Policy, except)
			}
		}
	}
}

// keeps tells whether what is sent to a room that nobody is in is kept.
func (h *Hub) keeps(r Room) bool {
	return r.Name != "" && h.Broker == nil && h.Options != nil && h.Options(r).History > 0
}

// deliverKept sends an event to a room with history.
func (h *Hub) deliverKept(topic string, e Event, except *Member) {
	for {
		t := h.obtain(topic, e.Room)
		if t.keep(e, except) {
			t.tell()
			return
		}
		h.forget(t)
	}
}

// deliverSpace sends an event to those who are in any room of a namespace.
func (h *Hub) deliverSpace(e Event) {
	m, ok := h.encode(e)
	if !ok {
		return
	}
	for i := range h.shards {
		s := &h.shards[i]
		s.mu.Lock()
		members := make([]*Member, 0, len(s.members))
		for member := range s.members {
			members = append(members, member)
		}
		s.mu.Unlock()
		for _, member := range members {
			if member.inside(e.Room.Namespace) {
				member.post(m, "", nil, h.Policy)
			}
		}
	}
}

// Count returns how many connections on this machine are in a room.
func (h *Hub) Count(r Room) int {
	t := h.find(roomTopic(r))
	if t == nil {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.members)
}

// Users returns who is in a room with presence, sorted, with those on other
// machines. If nobody on this machine is in the room it is empty.
func (h *Hub) Users(r Room) []string {
	t := h.find(roomTopic(r))
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.present()
}

// Online returns how many connections a user has on this machine.
func (h *Hub) Online(user string) int {
	t := h.find(userTopic(user))
	if t == nil {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.members)
}

// Rooms returns the rooms that have members on this machine.
func (h *Hub) Rooms() iter.Seq[Room] {
	return func(yield func(Room) bool) {
		for t := range h.all() {
			if t.room != (Room{}) && !yield(t.room) {
				return
			}
		}
	}
}

// Recheck asks Authorize again about all rooms that the connections of a user
// are in, and takes them out of those that it refuses. Call it when the user's
// rights have changed. It returns the number of memberships that have ended.
func (h *Hub) Recheck(ctx context.Context, user string) int {
	h.checks.Add(1)
	t := h.find(userTopic(user))
	if t == nil {
		return 0
	}
	n := 0
	for _, m := range t.list() {
		for _, r := range m.Rooms() {
			if h.Authorize(ctx, m, r) != nil && m.Leave(r) == nil {
				n++
			}
		}
	}
	return n
}

// Close takes the hub off its broker, for those that have one: what was sent
// before is given a second to leave. Members stay, and can be sent to on this
// machine, but for rooms whose history the broker keeps.
func (h *Hub) Close() error {
	h.init()
	if h.link == nil {
		return nil
	}
	return h.link.close()
}
