package hub

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// shared.go owns histories that the broker keeps for all machines: a hub follows
// them packet by packet, and reads what it has missed.

const (
	maxEarly      = 1024 // packets that wait for one before them
	maxEarlyBytes = 1 << 20
	maxReads      = 64 // queries at once
)

// A shared is how far this machine has followed the broker's history of a room.
// What was followed is kept here, too, so that the broker is asked only for what
// was before. The topic's lock protects it.
type shared struct {
	known   bool        // where the history is
	whole   bool        // all that the broker has is here
	again   bool        // something came that did not fit: it is to be read again
	pending []*newcomer // who wait for it to be read
	early   []early     // what came before that which precedes it
	bytes   int         // of early
	excepts []except
	heard   cursors // of all machines: a history that begins anew may repeat a packet that was tried again
}

// An early is a packet that cannot be delivered yet.
type early struct {
	at   Position
	data []byte
}

// An except is a packet of this machine, by its numbers, that is under way and
// not for its sender.
type except struct {
	epoch, number uint64
	sender        *Member
}

// append gives a message to the broker, to be kept and to come back. With that,
// all machines see it at the same place.
func (l *link) append(t *topic, name string, o Options, e Event, sender *Member) error {
	k := new(Keep)
	k.Messages, k.Age = o.bounds()
	if t != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	p := packet{kind: packMessage, user: e.User, key: e.Key, message: e.Message}
	b := l.number(name, &p, l.appended)
	if !l.fits(b) {
		return ErrUnsent
	}
	k.Writer, k.Number = fmt.Sprintf("%016x%016x", p.node, p.epoch), p.number
	l.enqueue(Packet{Topic: name, Data: b, Keep: k})
	if sender != nil && t != nil {
		s := t.history.shared
		s.excepts = append(s.excepts, except{p.epoch, p.number, sender})
	}
	return nil
}

// Appended is of Receiver.
func (l *link) Appended(topic string, at Position, data []byte) {
	t := l.hub.find(topic)
	if t == nil || t.history == nil || t.history.shared == nil {
		return
	}
	l.hub.stats.received.Add(1)
	t.mu.Lock()
	s, last := t.history.shared, t.history.last
	read := false
	switch {
	case t.dead:
	case s.known && at.Epoch == last.Epoch && at.Offset <= last.Offset:
		l.hub.stats.repeated.Add(1)
	case s.known && at.Epoch == last.Epoch && at.Offset == last.Offset+1:
		t.advance(l, data, time.Now())
	default:
		read = !s.again
		s.wait(at, data)
	}
	t.mu.Unlock()
	t.tell()
	if read {
		l.read(topic)
	}
}

// wait keeps a packet until those before it are read, if it follows the last one
// that waits.
func (s *shared) wait(at Position, data []byte) {
	s.again = true
	if n := len(s.early); n > 0 {
		last := s.early[n-1].at
		if at.Epoch == last.Epoch && at.Offset <= last.Offset {
			return
		}
		if at.Epoch != last.Epoch || at.Offset != last.Offset+1 || n == maxEarly || s.bytes+len(data) > maxEarlyBytes {
			s.early, s.bytes = nil, 0
		}
	}
	s.early = append(s.early, early{at, bytes.Clone(data)})
	s.bytes += len(data)
}

// event takes a kept packet apart. What is not understood has its place in the
// history, and nobody is told of it.
func (l *link) event(t *topic, data []byte) (e Event, p packet) {
	p, err := parsePacket(t.name, data)
	if err != nil || p.kind != packMessage {
		l.hub.stats.invalid.Add(1)
		return Event{}, packet{}
	}
	return Event{Kind: Sent, Room: t.room, User: p.user, Key: p.key, Message: p.message}, p
}

// advance puts the next packet at the end. The lock is held.
func (t *topic) advance(l *link, data []byte, when time.Time) {
	e, p := l.event(t, data)
	a := arrival{entry: t.history.add(e, when)}
	if s := t.history.shared; p.node == l.node {
		for len(s.excepts) > 0 {
			x := s.excepts[0]
			if x.epoch > p.epoch || x.epoch == p.epoch && x.number > p.number {
				break
			}
			if x.epoch == p.epoch && x.number == p.number {
				a.except = x.sender
			}
			s.excepts = s.excepts[1:]
		}
	}
	if fresh, _ := t.history.shared.heard.follow(&p); fresh || p.kind == 0 {
		t.arrivals = append(t.arrivals, a)
	} else {
		l.hub.stats.repeated.Add(1)
	}
}

// read notes that a topic's history is to be read.
func (l *link) read(topic string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads[topic] = struct{}{}
	wake(l.toRead)
}

// A reading is a query that is under way.
type reading struct {
	topic *topic
	after uint64
	asked []*newcomer
}

// readings returns what is to be read next.
func (l *link) readings() (readings []reading, queries []Query) {
	l.mu.Lock()
	var names []string
	for name := range l.reads {
		if len(names) == maxReads {
			break
		}
		names = append(names, name)
		delete(l.reads, name)
	}
	l.mu.Unlock()
	for _, name := range names {
		t := l.hub.find(name)
		if t == nil || t.history == nil || t.history.shared == nil {
			continue
		}
		t.mu.Lock()
		s := t.history.shared
		s.again = false
		r := reading{topic: t, after: math.MaxUint64, asked: append([]*newcomer(nil), s.pending...)}
		if s.known {
			r.after = t.history.last.Offset
		}
		for _, n := range r.asked {
			switch {
			case n.want == sinceStart:
				r.after = 0
			case n.want == sincePosition && (!s.known || n.since.Epoch == t.history.last.Epoch):
				r.after = min(r.after, n.since.Offset)
			}
		}
		readings = append(readings, r)
		queries = append(queries, Query{Topic: name, Age: t.history.age, After: r.after})
		t.mu.Unlock()
	}
	return readings, queries
}

// readAll reads what is asked for, until it can.
func (l *link) readAll() {
	wait := firstRetry
	for {
		readings, queries := l.readings()
		if len(queries) == 0 {
			select {
			case <-l.toRead:
				continue
			case <-l.ctx.Done():
				return
			}
		}
		ctx, cancel := context.WithTimeout(l.ctx, maxPublish)
		pages, err := l.historian.History(ctx, queries)
		cancel()
		if err == nil && len(pages) == len(queries) {
			wait = firstRetry
			for i := range readings {
				if readings[i].topic.splice(l, &readings[i], &pages[i]) {
					l.read(readings[i].topic.name)
				}
				readings[i].topic.tell()
			}
			continue
		}
		for _, r := range readings {
			l.read(r.topic.name)
		}
		select {
		case <-time.After(wait/2 + rand.N(wait)):
			wait = min(2*wait, lastRetry)
		case <-l.ctx.Done():
			return
		}
	}
}

// splice takes over what was read, and tells whether more has come that does not
// fit.
func (t *topic) splice(l *link, r *reading, page *Page) bool {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.dead {
		return false
	}
	h, s := t.history, t.history.shared
	packets := page.Packets
	packets = packets[len(packets)-int(min(uint64(len(packets)), page.Last.Offset)):]
	first := page.Last.Offset - uint64(len(packets)) + 1 // the offset of packets[0]
	if s.known && page.Last.Epoch == h.last.Epoch && first <= h.last.Offset+1 {
		for i := range packets {
			if first+uint64(i) > h.last.Offset {
				t.advance(l, packets[i].Data, now.Add(-packets[i].Age))
			}
		}
	} else if !s.known || page.Last.Epoch != h.last.Epoch || page.Last.Offset > h.last.Offset {
		if s.known { // what is between is lost, or all of it
			l.hub.stats.gaps.Add(1)
			t.arrivals = append(t.arrivals, arrival{offset: page.Last.String()})
		}
		s.known, s.whole = true, false
		h.last, h.entries = page.Last, nil
	}
	// What is before the first entry here comes before it.
	if before := h.last.Offset - uint64(len(h.entries)); page.Last.Epoch == h.last.Epoch && page.Last.Offset >= before {
		n := before - min(before, first-1)
		older := make([]*entry, 0, int(n)+len(h.entries))
		for i, p := range packets[:n] {
			e, from := l.event(t, p.Data)
			s.heard.follow(&from)
			older = append(older, newEntry(e, Position{h.last.Epoch, first + uint64(i)}, now.Add(-p.Age)))
		}
		h.entries = append(older, h.entries...)
		s.whole = s.whole || first-1 > r.after || r.after == 0
	}
	h.trim(now)

	early := s.early
	s.early, s.bytes, s.again = nil, 0, false
	for _, e := range early {
		switch {
		case e.at.Epoch == h.last.Epoch && e.at.Offset <= h.last.Offset:
		case e.at.Epoch == h.last.Epoch && e.at.Offset == h.last.Offset+1:
			t.advance(l, e.data, now)
		default: // what is before it came during the reading, or it is a lie
			s.again = true
		}
	}
	for _, n := range r.asked {
		n.asked = true
	}
	t.newborn = append(t.newborn, s.pending...)
	s.pending = nil
	return s.again
}
