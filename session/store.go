package session

import (
	"context"
	"errors"
	"sync"
	"time"
)

// store.go owns what is asked of a store, and the one in memory.

// A Store keeps what servers know of their sessions, so that any of several
// servers can go on with one: see Server.Store. Its methods may be called from any
// goroutine, and return when ctx ends.
//
// A session is a set of fields, each a short name and a value, with a fence: the
// number of servers that have claimed it so far. It is gone when nobody has
// changed it for as long as its last Update said. What a store has confirmed it
// must not forget otherwise; if it forgets a session as a whole, its client is
// told that it is lost.
type Store interface {
	// Create makes a session without fields, whose fence is 1.
	Create(ctx context.Context, key string, keep time.Duration) error
	// Claim adds 1 to the fence of a session, and returns it with all fields,
	// which are the caller's. If there is none of that key, the error is
	// ErrUnknown.
	Claim(ctx context.Context, key string, keep time.Duration) (fence uint64, fields map[string][]byte, err error)
	// Save makes changes to sessions, each as a whole, and sets the Err of each. If
	// it returns an error, nobody knows which were made; it will be called again.
	Save(ctx context.Context, updates []Update) error
}

// An Update is a change to a session in a Store.
type Update struct {
	// Key is the session's. It is made from the token, which it does not tell.
	Key string
	// Fence is what Claim returned, or 1. If the session has another, it belongs
	// to another server: nothing is changed, and Err is ErrMoved.
	Fence uint64
	// Number counts the updates with this fence, from 1. One that comes when a
	// higher has been made is late: nothing is changed.
	Number uint64
	// Keep is for how long the session is kept from now on; 0: it is removed.
	Keep time.Duration
	// Set is changed or made, Delete removed.
	Set    map[string][]byte
	Delete []string
	// Err is set by Save: nil, ErrMoved, or ErrUnknown if there is no such
	// session.
	Err error
}

// ErrUnknown says that a Store does not know a session.
var ErrUnknown = errors.New("session: not in the store")

// A Memory is a Store for servers in one process: for tests of what several
// servers do. The zero value is ready.
type Memory struct {
	mu       sync.Mutex
	sessions map[string]*memory
	swept    time.Time
}

// memory is one session.
type memory struct {
	fence, number uint64
	fields        map[string][]byte
	until         time.Time
}

// find returns a session that is not over.
func (m *Memory) find(key string) *memory {
	if x := m.sessions[key]; x != nil && time.Now().Before(x.until) {
		return x
	}
	return nil
}

// Create is that of [Store].
func (m *Memory) Create(ctx context.Context, key string, keep time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if now.Sub(m.swept) > time.Minute {
		m.swept = now
		for key := range m.sessions {
			if m.find(key) == nil {
				delete(m.sessions, key)
			}
		}
	}
	if m.sessions == nil {
		m.sessions = make(map[string]*memory)
	}
	m.sessions[key] = &memory{fence: 1, fields: make(map[string][]byte), until: now.Add(keep)}
	return nil
}

// Claim is that of [Store].
func (m *Memory) Claim(ctx context.Context, key string, keep time.Duration) (fence uint64, fields map[string][]byte, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	x := m.find(key)
	if x == nil {
		return 0, nil, ErrUnknown
	}
	x.fence++
	x.number, x.until = 0, time.Now().Add(keep)
	fields = make(map[string][]byte, len(x.fields))
	for name, value := range x.fields {
		fields[name] = append([]byte(nil), value...)
	}
	return x.fence, fields, nil
}

// Save is that of [Store].
func (m *Memory) Save(ctx context.Context, updates []Update) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range updates {
		u := &updates[i]
		x := m.find(u.Key)
		switch u.Err = nil; {
		case x == nil:
			u.Err = ErrUnknown
		case x.fence != u.Fence:
			u.Err = ErrMoved
		case u.Number <= x.number: // late
		case u.Keep <= 0:
			delete(m.sessions, u.Key)
		default:
			x.number, x.until = u.Number, time.Now().Add(u.Keep)
			for name, value := range u.Set {
				x.fields[name] = append([]byte(nil), value...)
			}
			for _, name := range u.Delete {
				delete(x.fields, name)
			}
		}
	}
	return nil
}

// Forget forgets all sessions, as a store does that is lost: for tests.
func (m *Memory) Forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sessions = nil
}
