package hub

import (
	crand "crypto/rand"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/seed-07372d5a/websocket"
)

// history.go owns what a room keeps for those who come back, and how they get it.

const (
	maxHistory   = 1 << 16 // messages
	defaultAge   = 5 * time.Minute
	rememberFor  = time.Hour   // how much longer than messages a room that nobody is in keeps its numbers
	sweepEvery   = time.Minute // how often what nobody needs is looked for
	replayAtOnce = 4 << 10     // bytes that are posted to one that comes back; more goes at the pace of its network
)

// A Position is a place in a room's history. Offsets number the messages of an
// epoch from 1; a history that is lost begins anew with another epoch.
type Position struct{ Epoch, Offset uint64 }

// String returns what Event.Offset has: 16 hexadecimal digits of the epoch, "-",
// and the offset in decimal.
func (p Position) String() string { return fmt.Sprintf("%016x-%d", p.Epoch, p.Offset) }

// parsePosition reads what a client says that it has heard.
func parsePosition(s string) (p Position, ok bool) {
	epoch, offset, ok := strings.Cut(s, "-")
	if !ok || len(epoch) != 16 || len(offset) > 20 {
		return Position{}, false
	}
	var err1, err2 error
	p.Epoch, err1 = strconv.ParseUint(epoch, 16, 64)
	p.Offset, err2 = strconv.ParseUint(offset, 10, 64)
	return p, err1 == nil && err2 == nil
}

func newEpoch() uint64 {
	var b [8]byte
	crand.Read(b[:])
	return binary.BigEndian.Uint64(b[:])
}

// A history is the newest messages of a room. Its topic's lock protects it.
type history struct {
	most    int
	age     time.Duration
	last    Position  // of the newest message that was ever there
	entries []*entry  // the one at the end is last, and none is missing before it
	used    time.Time // when something was last added

	shared *shared // how it follows the broker's; nil: it is this machine's own
}

// An entry is a message that is kept.
type entry struct {
	at    time.Time
	size  int
	key   string
	event Event // until it is encoded

	once    sync.Once
	message websocket.Message
	ok      bool
}

// encoded returns what members are sent, which is made when it is first needed.
func (e *entry) encoded(h *Hub) (websocket.Message, bool) {
	e.once.Do(func() {
		if e.event.Kind != 0 {
			e.message, e.ok = h.encode(e.event)
		}
		e.event = Event{}
	})
	return e.message, e.ok
}

// bounds returns how much a room keeps.
func (o *Options) bounds() (most int, age time.Duration) {
	if o.HistoryAge <= 0 {
		return min(o.History, maxHistory), defaultAge
	}
	return min(o.History, maxHistory), o.HistoryAge
}

// begin starts another epoch: no offset of the one before means anything.
func (h *history) begin() {
	h.last, h.entries, h.used = Position{Epoch: newEpoch()}, nil, time.Now()
}

// add puts an event at the end.
func (h *history) add(e Event, now time.Time) *entry {
	h.last.Offset++
	x := newEntry(e, h.last, now)
	h.entries, h.used = append(h.entries, x), now
	h.trim(now)
	return x
}

func newEntry(e Event, at Position, when time.Time) *entry {
	e.Offset = at.String()
	e.Message = e.Message.Clone()
	return &entry{at: when, size: len(e.Message.Data) + overhead, key: e.Key, event: e}
}

// trim forgets what is too much or too old.
func (h *history) trim(now time.Time) {
	n := max(0, len(h.entries)-h.most)
	for n < len(h.entries) && now.Sub(h.entries[n].at) > h.age {
		n++
	}
	clear(h.entries[:n])
	h.entries = h.entries[n:]
}

// since returns the entries after an offset, and whether they are all there were.
func (h *history) since(offset uint64) ([]*entry, bool) {
	n := h.last.Offset - offset
	if offset > h.last.Offset || n > uint64(len(h.entries)) {
		return nil, false
	}
	return h.entries[len(h.entries)-int(n):], true
}

// What somebody who joins wants to hear of the past.
const (
	sinceNow   byte = iota
	sinceStart      // all there is
	sincePosition
	sinceNonsense // what no hub has said: a gap
)

// A newcomer is a member that has joined a room and was not told anything yet.
type newcomer struct {
	membership *membership
	want       byte // sinceNow...
	since      Position

	missed []*entry
	upTo   Position // of the last of them
	gap    bool     // it cannot be told what it has missed
	behind bool     // a goroutine writes to it

	// With a Historian.
	asked bool          // it was read for this one
	late  bool          // Join has not waited for it
	ready chan struct{} // closed when it is known where it stands
}

// resuming returns a newcomer that asks for what came after an offset.
func resuming(offset string) *newcomer {
	if offset == "" {
		return &newcomer{want: sinceStart}
	}
	if p, ok := parsePosition(offset); ok {
		return &newcomer{want: sincePosition, since: p}
	}
	return &newcomer{want: sinceNonsense}
}

// An arrival is what the members of a room with history are to be told next: a
// message, or a gap.
type arrival struct {
	entry  *entry // nil: a gap
	offset string
	except *Member
}

// keep puts an event into the history, for tell to pass on. It fails if the
// topic has died.
func (t *topic) keep(e Event, except *Member) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.dead {
		return false
	}
	t.arrivals = append(t.arrivals, arrival{entry: t.history.add(e, time.Now()), except: except})
	return true
}

// restart is for a history that has lost something nobody can bring back. The
// lock is held.
func (t *topic) restart() {
	t.history.begin()
	t.arrivals = append(t.arrivals, arrival{offset: t.history.last.String()})
}

// replay finds out what a newcomer has missed, and tells whether that is known
// yet. The lock is held.
func (t *topic) replay(n *newcomer) bool {
	h := t.history
	if h == nil {
		n.gap = n.want > sinceStart
		return true
	}
	h.trim(time.Now())
	complete := true
	switch n.want {
	case sinceStart:
		n.missed, complete = h.entries, h.shared == nil || h.shared.whole
	case sincePosition:
		n.missed, complete = nil, n.since.Epoch == h.last.Epoch
		if complete {
			n.missed, complete = h.since(n.since.Offset)
		}
	}
	if h.shared != nil && (!h.shared.known || !complete && !n.asked) {
		return false
	}
	n.missed = slices.Clone(n.missed) // trim clears
	n.upTo = h.last
	n.gap = n.late && n.want == sinceNow || n.want == sincePosition && !complete || n.want == sinceNonsense
	return true
}

// admit tells newcomers what they have missed, after which they are members like
// others.
func (t *topic) admit(newborn []*newcomer, offset string) {
	for _, n := range newborn {
		n.behind = false
		switch m := n.membership.member; {
		case n.gap:
			m.hub.stats.gaps.Add(1)
			if msg, ok := m.hub.encode(Event{Kind: Gap, Room: t.room, Offset: offset}); ok {
				m.post(msg, "", t, t.eventPolicy())
			}
		case sizeOf(n.missed) > replayAtOnce:
			n.behind = true
			go t.catchUp(n, n.missed)
		default:
			for _, e := range n.missed {
				if msg, ok := e.encoded(m.hub); ok {
					m.post(msg, e.key, t, t.options.Policy)
				}
			}
			m.hub.stats.replayed.Add(int64(len(n.missed)))
		}
		n.missed = nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range newborn {
		n.membership.waiting = n.behind
		if n.ready != nil {
			close(n.ready)
			n.ready = nil
		}
	}
}

func sizeOf(entries []*entry) (n int) {
	for _, e := range entries {
		n += e.size
	}
	return n
}

// catchUp writes to a member that has missed much, at the pace of its network,
// and then looks at what has come meanwhile. It ends with the connection.
func (t *topic) catchUp(n *newcomer, missed []*entry) {
	m := n.membership.member
	for _, e := range missed {
		msg, ok := e.encoded(m.hub)
		if ok && m.conn.Write(m.conn.Context(), msg) != nil {
			return
		}
		m.hub.stats.replayed.Add(1)
	}
	t.mu.Lock()
	if !n.membership.left {
		n.want, n.since = sincePosition, n.upTo
		t.newborn = append(t.newborn, n)
	}
	t.mu.Unlock()
	t.tell()
}

// shelve keeps the history of a room that nobody is in. The shard's lock is held.
func (h *Hub) shelve(s *shard, t *topic) {
	if t.history == nil || h.Broker != nil {
		return // without members, what other machines send does not come
	}
	if s.shelf == nil {
		s.shelf = make(map[string]*history)
	}
	s.shelf[t.name] = t.history
	if h.sweeping.CompareAndSwap(false, true) {
		time.AfterFunc(sweepEvery, h.sweep)
	}
}

// sweep drops from the shelves what is too old, and comes back if some is left.
func (h *Hub) sweep() {
	h.sweeping.Store(false)
	left := false
	for i := range h.shards {
		s := &h.shards[i]
		s.mu.Lock()
		now := time.Now()
		for name, x := range s.shelf {
			if x.trim(now); len(x.entries) == 0 && now.Sub(x.used) > x.age+rememberFor {
				delete(s.shelf, name)
			}
		}
		left = left || len(s.shelf) > 0
		s.mu.Unlock()
	}
	if left && h.sweeping.CompareAndSwap(false, true) {
		time.AfterFunc(sweepEvery, h.sweep)
	}
}
