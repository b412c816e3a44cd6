package hub

import "sync/atomic"

// Stats are numbers of a hub on this machine. Those that count things are since
// it was made.
type Stats struct {
	Members     int64 // connections now
	Rooms       int64 // now
	Memberships int64 // of connections in rooms, now

	Sent          int64 // messages given to connections
	Closed        int64 // connections closed for being slow
	DroppedNewest int64 // messages dropped by DropNewest
	DroppedOldest int64 // messages dropped by DropOldest and KeepLatest
	Replaced      int64 // messages that a newer one with the same key took the place of
	Refused       int64 // attempts to join that failed
	Replayed      int64 // messages that those who came back had missed, and were given

	Published   int64 // packets given to the broker
	Unpublished int64 // packets that found the queue to the broker full, and are lost to other machines
	Received    int64 // packets from other machines
	Invalid     int64 // packets that were not understood
	Repeated    int64 // packets that had come before
	Gaps        int64 // Gap events
}

type counters struct {
	members, rooms, memberships                                   atomic.Int64
	sent, closed, droppedNewest, droppedOldest, replaced, refused atomic.Int64
	replayed                                                      atomic.Int64
	published, unpublished, received, invalid, repeated, gaps     atomic.Int64
}

// Stats returns the numbers of now.
func (h *Hub) Stats() Stats {
	s := &h.stats
	return Stats{
		Members: s.members.Load(), Rooms: s.rooms.Load(), Memberships: s.memberships.Load(),
		Sent: s.sent.Load(), Closed: s.closed.Load(), DroppedNewest: s.droppedNewest.Load(),
		DroppedOldest: s.droppedOldest.Load(), Replaced: s.replaced.Load(), Refused: s.refused.Load(), Replayed: s.replayed.Load(),
		Published: s.published.Load(), Unpublished: s.unpublished.Load(), Received: s.received.Load(),
		Invalid: s.invalid.Load(), Repeated: s.repeated.Load(), Gaps: s.gaps.Load(),
	}
}
