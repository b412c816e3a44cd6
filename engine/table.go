package engine

import (
	"sync"
	"sync/atomic"
)

// table.go owns the places that connections have in their loop, and when each was
// heard last.

const chunkSize = 1024

// A chunk is a part of a table, and never moves.
type chunk struct {
	conns [chunkSize]atomic.Pointer[conn]
	gens  [chunkSize]uint32 // how many have had the place; under mu
	heard [chunkSize]atomicTime
}

// An atomicTime is a time by the engine's clock; the lowest bit says that a ping
// was sent since.
type atomicTime = atomic.Uint32

const asked = 1

// A table is where a loop finds its connections.
type table struct {
	chunks atomic.Pointer[[]*chunk] // replaced when there is one more

	mu   sync.Mutex
	free []uint32 // places
}

func (t *table) at(slot uint32) (*chunk, uint32) {
	return (*t.chunks.Load())[slot/chunkSize], slot % chunkSize
}

// add gives c, which was heard now, a place.
func (t *table) add(c *conn, now uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.free) == 0 {
		var chunks []*chunk
		if p := t.chunks.Load(); p != nil {
			chunks = *p
		}
		base := uint32(len(chunks)) * chunkSize
		chunks = append(chunks[:len(chunks):len(chunks)], new(chunk))
		t.chunks.Store(&chunks)
		for i := uint32(chunkSize); i > 0; i-- {
			t.free = append(t.free, base+i-1)
		}
	}
	slot := t.free[len(t.free)-1]
	t.free = t.free[:len(t.free)-1]
	k, i := t.at(slot)
	k.gens[i]++
	c.token = token{slot, k.gens[i]}
	k.heard[i].Store(now &^ asked)
	k.conns[i].Store(c)
}

// remove takes away c's place.
func (t *table) remove(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k, i := t.at(c.slot)
	k.conns[i].Store(nil)
	t.free = append(t.free, c.slot)
}

// find returns the connection that an event is for; nil if it has gone, and its
// descriptor may be another's.
func (t *table) find(k token) *conn {
	chunk, i := t.at(k.slot)
	if c := chunk.conns[i].Load(); c != nil && c.gen == k.gen {
		return c
	}
	return nil
}

// each calls f for every connection.
func (t *table) each(f func(*conn)) {
	p := t.chunks.Load()
	if p == nil {
		return
	}
	for _, k := range *p {
		for i := range k.conns {
			if c := k.conns[i].Load(); c != nil {
				f(c)
			}
		}
	}
}
