package hub

import (
	"slices"
	"sync"

	"github.com/seed-07372d5a/websocket"
)

// topic.go owns what is sent to: the members of a room or of a user, and who of
// them was announced.

// A topic is a room, or a user's connections. It dies when the last member has
// left, and another one of the same name may follow.
type topic struct {
	hub     *Hub
	name    string
	room    Room // zero for a user's connections
	options Options

	mu      sync.Mutex
	members []*membership // in no order
	dead    bool          // nobody gets in any more

	history  *history  // nil: nothing is kept
	arrivals []arrival // what its members are to be told
	newborn  []*newcomer
	gap      bool // a Gap is to be announced; without history
	telling  bool // somebody announces: others leave it to him

	// With presence only. What is to be announced is compared with what was, so
	// that however often somebody comes and goes, no more waits than there are
	// users.
	users   map[string]*presence
	online  int      // users of whom members know
	changed []string // users whose presence may differ from what was told

	held    bool // the link knows of it
	cursors      // of other machines
}

// A membership is a member's place in a topic.
type membership struct {
	member *Member
	topic  *topic
	index  int // in topic.members

	waiting bool // it is to be told first what it has missed
	left    bool
}

// maxRoster is for how many users a Welcome lists them: each that joins costs as
// much as there are.
const maxRoster = 1000

// A presence is a user in a room.
type presence struct {
	local  int32    // connections on this machine
	listed bool     // in changed
	told   bool     // members know
	spread bool     // other machines know of those on this one
	remote []uint64 // other machines that have connections
}

func (p *presence) online() bool { return p.local > 0 || len(p.remote) > 0 }

// snapshots are borrowed by those who send.
var snapshots = sync.Pool{New: func() any { return new([]*membership) }}

// send posts m to all members but one. The lock is not held meanwhile.
func (t *topic) send(m websocket.Message, key string, policy Policy, except *Member) {
	s := snapshots.Get().(*[]*membership)
	t.mu.Lock()
	*s = (*s)[:0]
	if t.history == nil {
		*s = append(*s, t.members...)
	} else {
		for _, p := range t.members {
			if !p.waiting {
				*s = append(*s, p)
			}
		}
	}
	t.mu.Unlock()
	for _, p := range *s {
		if p.member != except {
			p.member.post(m, key, t, policy)
		}
	}
	clear(*s)
	if cap(*s) <= 1<<20 {
		snapshots.Put(s)
	}
}

// list returns the members.
func (t *topic) list() []*Member {
	t.mu.Lock()
	defer t.mu.Unlock()
	members := make([]*Member, len(t.members))
	for i, p := range t.members {
		members[i] = p.member
	}
	return members
}

// add lets m in. It fails with errDead if the topic is no more.
func (t *topic) add(m *Member, n *newcomer) (*membership, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.dead:
		return nil, errDead
	case t.options.MaxMembers > 0 && len(t.members) >= t.options.MaxMembers:
		return nil, ErrFull
	}
	p := &membership{member: m, topic: t, index: len(t.members)}
	t.members = append(t.members, p)
	p.waiting = t.history != nil
	if p.waiting && t.history.shared != nil {
		n.ready = make(chan struct{})
	}
	if p.waiting || t.options.Presence || n.want > sinceStart {
		n.membership = p
		t.newborn = append(t.newborn, n)
	}
	if t.options.Presence {
		t.count(m.user, 1)
	}
	return p, nil
}

// remove takes a member out.
func (t *topic) remove(p *membership) {
	t.mu.Lock()
	last := len(t.members) - 1
	t.members[p.index] = t.members[last]
	t.members[p.index].index = p.index
	t.members[last] = nil
	t.members = t.members[:last]
	if cap(t.members) > 64 && last < cap(t.members)/4 {
		t.members = append(make([]*membership, 0, cap(t.members)/2), t.members...)
	}
	p.left = true
	departed := func(n *newcomer) bool { return n.membership == p }
	t.newborn = slices.DeleteFunc(t.newborn, departed)
	if t.history != nil && t.history.shared != nil {
		t.history.shared.pending = slices.DeleteFunc(t.history.shared.pending, departed)
	}
	if t.options.Presence {
		t.count(p.member.user, -1)
	}
	t.mu.Unlock()
}

// count notes that one more or less of a user's connections is here.
func (t *topic) count(user string, n int32) {
	if user == "" {
		return
	}
	u := t.user(user)
	u.local += n
	t.note(user, u)
}

func (t *topic) user(user string) *presence {
	u := t.users[user]
	if u == nil {
		if t.users == nil {
			t.users = make(map[string]*presence)
		}
		u = new(presence)
		t.users[user] = u
	}
	return u
}

// note puts a user on the list of those that are looked at.
func (t *topic) note(user string, u *presence) {
	if !u.listed {
		u.listed = true
		t.changed = append(t.changed, user)
	}
}

// present lists who is here, sorted. The lock is held.
func (t *topic) present() []string {
	users := make([]string, 0, len(t.users))
	for user, u := range t.users {
		if u.online() {
			users = append(users, user)
		}
	}
	slices.Sort(users)
	return users
}

// tell announces what has changed, in one order for all members, and lets the
// topic die if it is empty. It is called after every change, without a lock.
func (t *topic) tell() {
	t.mu.Lock()
	if t.telling || t.dead {
		t.mu.Unlock()
		return
	}
	t.telling = true
	for len(t.changed) > 0 || len(t.newborn) > 0 || len(t.arrivals) > 0 || t.gap {
		n := t.take()
		t.mu.Unlock()
		t.pass(n)
		t.mu.Lock()
	}
	t.telling = false
	t.dead = len(t.members) == 0
	dead, held := t.dead, false
	if dead && t.hub.link != nil {
		held = t.hub.link.bequeath(t)
	}
	t.mu.Unlock()
	if dead {
		t.hub.forget(t)
	}
	if held {
		t.hub.link.count(t, -1)
	}
}

// News are what is to be told, in that order.
type news struct {
	arrivals []arrival
	newborn  []*newcomer
	events   []Event
	welcome  Event
	spread   []spreading
	read     bool // somebody is to be told what has to be read first
}

// take takes what is to be told. The lock is held.
func (t *topic) take() *news {
	n := &news{arrivals: t.arrivals}
	for _, c := range t.newborn {
		if t.replay(c) {
			n.newborn = append(n.newborn, c)
		} else {
			t.history.shared.pending = append(t.history.shared.pending, c)
			n.read = true
		}
	}
	t.arrivals, t.newborn = nil, nil
	n.events, n.spread = t.changes()
	n.welcome = Event{Kind: Welcome, Room: t.room, Online: t.online}
	if t.history != nil {
		n.welcome.Offset = t.history.last.String()
	}
	if len(n.newborn) > 0 && t.options.Presence && t.hub.Encode != nil && t.online <= maxRoster {
		n.welcome.Users = t.present()
	}
	return n
}

// pass tells it.
func (t *topic) pass(n *news) {
	for _, a := range n.arrivals {
		if a.entry == nil {
			t.announce(Event{Kind: Gap, Room: t.room, Offset: a.offset})
		} else if m, ok := a.entry.encoded(t.hub); ok {
			t.send(m, a.entry.key, t.options.Policy, a.except)
		}
	}
	t.admit(n.newborn, n.welcome.Offset)
	for _, e := range n.events {
		t.announce(e)
	}
	if len(n.newborn) > 0 && (t.options.Presence || t.history != nil) {
		if m, ok := t.hub.encode(n.welcome); ok {
			for _, c := range n.newborn {
				if !c.behind {
					c.membership.member.post(m, "", t, t.eventPolicy())
				}
			}
		}
	}
	if len(n.spread) > 0 && t.hub.link != nil {
		t.hub.link.spread(t.name, n.spread)
	}
	if n.read {
		t.hub.link.read(t.name)
	}
}

// A spreading is what other machines are to be told of a user on this one.
type spreading struct {
	user   string
	online bool
}

// changes takes what is to be announced. The lock is held.
func (t *topic) changes() (events []Event, spread []spreading) {
	if t.gap {
		t.gap = false
		events = append(events, Event{Kind: Gap, Room: t.room})
	}
	for _, user := range t.changed {
		u := t.users[user]
		u.listed = false
		if now := u.online(); now != u.told {
			u.told = now
			kind := Left
			t.online--
			if now {
				kind = Joined
				t.online += 2
			}
			events = append(events, Event{Kind: kind, Room: t.room, User: user, Online: t.online})
		}
		if here := u.local > 0; here != u.spread {
			u.spread = here
			spread = append(spread, spreading{user, here})
		}
		if !u.online() {
			delete(t.users, user)
		}
	}
	t.changed = nil
	return events, spread
}

// eventPolicy is the policy for what the hub says itself: nothing takes its
// place.
func (t *topic) eventPolicy() Policy {
	if t.options.Policy == KeepLatest {
		return DropOldest
	}
	return t.options.Policy
}

// announce tells the members and the application.
func (t *topic) announce(e Event) {
	if m, ok := t.hub.encode(e); ok {
		t.send(m, "", t.eventPolicy(), nil)
	}
	if t.hub.OnEvent != nil {
		t.hub.OnEvent(e)
	}
}
