package session

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/seed-07372d5a/websocket"
)

// vault.go owns sessions that are in a store. Nothing is seen by anybody before
// the store has it: what is sent waits for that, and what has come is neither
// handed to the application nor acknowledged. So whoever claims the session knows
// all that its client may know, and all that the last server may have done.

const (
	saveTimeout = 5 * time.Second
	firstRetry  = 50 * time.Millisecond
	lastRetry   = 2 * time.Second
	touchEvery  = 15 * time.Second // within which a server learns that a session has moved
	batch       = 256              // sessions that are saved together
)

// A vault is a session's part in the store; under the session's mutex.
type vault struct {
	keeper *keeper
	key    string
	fence  uint64
	number uint64 // of the last update; under the keeper's turn too
	marked bool   // it is among the keeper's dirty ones, once

	stored  uint64 // what is sent is in the store up to here
	tried   uint64 // and perhaps up to here
	gone    uint64 // and not in it any more up to here
	taken   uint64 // what has come has had its effect up to here
	arrived *ring[Envelope]

	began, done []uint64 // calls of the client, that were received and answered since

	// What a session that was restored begins with: see inherit.
	doubtful        uint64
	cancel, unasked []uint64
}

var arrivals sync.Pool

// keyOf makes a key of a token, which is not to be read in a store.
func keyOf(token string) string {
	sum := sha256.Sum256([]byte(token))
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:20])
}

// Names of fields: "s" is what the session has come to, "m" and a number a
// message that is not acknowledged, "c" and a number a call that is not answered.
func field(kind byte, id uint64) string {
	return string(strconv.AppendUint([]byte{kind}, id, 10))
}

// A saved is what the session will have in the store when an update is made.
type saved struct{ recv, last, gone uint64 }

// update is what the store does not know.
func (s *Session) update(keep time.Duration) (Update, saved) {
	v := s.vault
	v.number++
	now := saved{s.recv, s.last, s.first() - 1}
	u := Update{Key: v.key, Fence: v.fence, Number: v.number, Keep: keep, Set: make(map[string][]byte)}
	u.Set["s"] = fmt.Appendf(nil, "%d %d %d", now.recv, now.last, s.waiting())
	for id := max(v.stored, now.gone) + 1; id <= s.last; id++ {
		u.Set[field('m', id)] = s.codec().Append(nil, &s.buf.at(int(id-s.first())).Envelope)
	}
	for id := v.gone + 1; id <= min(now.gone, v.tried); id++ {
		u.Delete = append(u.Delete, field('m', id))
	}
	for _, id := range v.began {
		u.Set[field('c', id)] = nil
	}
	for _, id := range v.done {
		u.Delete = append(u.Delete, field('c', id))
	}
	v.tried = s.last
	return u, now
}

// waiting is how many messages are taken that may be handled or not if this
// server dies.
func (s *Session) waiting() (n uint64) {
	n = s.vault.doubtful
	for i := range s.queue.len() {
		switch q := s.queue.at(i); {
		case q.gap != nil:
			n += q.gap.Messages + q.gap.Doubtful
		default:
			n++
		}
	}
	for i := range s.vault.arrived.len() {
		switch e := s.vault.arrived.at(i); e.Type {
		case typeMessage:
			n++
		case typeGap:
			n += e.Re
		}
	}
	return n
}

// hold keeps e until the store knows that it has come.
func (s *Session) hold(e *Envelope) error {
	v := s.vault
	size := len(e.Name) + len(e.Data) + overhead
	if s.queued > 0 && s.queued+size > maxInput {
		return errWindow
	}
	s.queued += size
	v.arrived = v.arrived.push(*e, &arrivals)
	if e.Type == typeCall {
		v.began = append(v.began, e.ID)
	}
	v.keeper.mark(s)
	return nil
}

// keep notes that something is to be saved.
func (s *Session) keep() {
	if s.vault != nil && s.err == nil {
		s.vault.keeper.mark(s)
	}
}

// confirmed does what has waited for the store.
func (s *Session) confirmed(u *Update, now saved, began, done int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.vault
	if s.err != nil {
		return
	}
	v.stored, v.gone = now.last, now.gone
	v.began, v.done = slices.Delete(v.began, 0, began), slices.Delete(v.done, 0, done)
	for v.arrived.len() > 0 && v.arrived.at(0).ID <= now.recv {
		e := *v.arrived.at(0)
		s.queued -= len(e.Name) + len(e.Data) + overhead
		v.arrived = v.arrived.shift(&arrivals)
		v.taken = e.ID
		if s.take(&e) != nil && s.conn != nil {
			go s.conn.Close(websocket.ClosePolicyViolation, "session: what is that?")
		}
	}
	s.pump()
	s.sendAck()
}

// restore makes a session of what is in the store, or ErrUnknown of what is none.
func restore(c *Config, token string, v *vault, fields map[string][]byte) (*Session, error) {
	s := newSession(c, token)
	s.vault = v
	if state := fields["s"]; state != nil { // else nothing has happened
		if n, _ := fmt.Sscanf(string(state), "%d %d %d", &s.recv, &s.last, &v.doubtful); n != 3 || max(s.recv, s.last) > maxID {
			return nil, ErrUnknown
		}
	}
	kept := make(map[uint64]Envelope)
	for name, value := range fields {
		id, err := strconv.ParseUint(name[min(1, len(name)):], 10, 64)
		if err != nil {
			continue
		}
		switch name[0] {
		case 'c':
			v.unasked = append(v.unasked, id)
		case 'm':
			var e Envelope
			if s.codec().Decode(value, &e) != nil || e.ID != id || !e.numbered() {
				return nil, ErrUnknown
			}
			kept[id] = e
		}
	}
	first := s.last + 1
	for first > 1 {
		if _, ok := kept[first-1]; !ok {
			break
		}
		first--
	}
	for id := first; id <= s.last; id++ {
		n := entry{Envelope: kept[id], at: time.UnixMilli(kept[id].Timestamp)}
		s.buf = s.buf.push(n, &entries)
		s.bytes += n.size()
		if n.Type == typeCall {
			v.cancel = append(v.cancel, id)
		}
	}
	s.highest = s.last // nobody knows better
	s.next = s.last + 1
	v.stored, v.tried, v.gone, v.taken = s.last, s.last, first-1, s.recv
	slices.Sort(v.unasked)
	return s, nil
}

// numbered tells whether e is of a type that has a number.
func (e *Envelope) numbered() bool {
	return e.Type == typeMessage || e.Type == typeCall || e.Type == typeReply || e.Type == typeCancel
}

// inherit tells both sides what the last server has left undone: nobody waits any
// more for what it has called, and nobody answers what it was asked.
func (s *Session) inherit() {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.vault
	for _, id := range v.cancel {
		s.push(Envelope{Type: typeCancel, Re: id}, true)
	}
	for _, id := range v.unasked {
		v.done = append(v.done, id)
		s.push(Envelope{Type: typeReply, Re: id, Error: &Error{Code: CodeLost}}, true)
	}
	if v.doubtful > 0 {
		s.enqueue(item{gap: &Gap{Doubtful: v.doubtful}})
	}
	v.doubtful, v.cancel, v.unasked = 0, nil, nil
}

// A keeper saves the sessions of a server, many at a time.
type keeper struct {
	store Store
	after func() time.Duration           // how long a session is kept
	lose  func(s *Session, reason error) // called without locks

	turn chan struct{} // has room for one: whoever saves a batch, so that they come one after the other

	mu    sync.Mutex
	dirty []*Session
	busy  bool
}

// mark is called with the session's mutex.
func (k *keeper) mark(s *Session) {
	if s.vault.marked {
		return
	}
	s.vault.marked = true
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dirty = append(k.dirty, s)
	if !k.busy {
		k.busy = true
		go k.run()
	}
}

// run saves while there is something to save.
func (k *keeper) run() {
	wait := firstRetry
	for {
		k.mu.Lock()
		n := min(len(k.dirty), batch)
		some := slices.Clone(k.dirty[:n])
		if k.dirty = slices.Delete(k.dirty, 0, n); n == 0 {
			k.dirty, k.busy = nil, false
			k.mu.Unlock()
			return
		}
		k.mu.Unlock()
		for _, s := range some {
			s.mu.Lock()
			s.vault.marked = false
			s.mu.Unlock()
		}
		ctx, cancel := context.WithTimeout(context.Background(), saveTimeout)
		err := k.save(ctx, some)
		cancel()
		if err == nil {
			wait = firstRetry
			continue
		}
		for _, s := range some {
			s.mu.Lock()
			s.keep()
			s.mu.Unlock()
		}
		time.Sleep(wait/2 + rand.N(wait))
		wait = min(2*wait, lastRetry)
	}
}

// save saves sessions, and does what has waited for that.
func (k *keeper) save(ctx context.Context, some []*Session) error {
	select {
	case k.turn <- struct{}{}:
		defer func() { <-k.turn }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	type under struct {
		*Session
		now         saved
		began, done int
	}
	var all []under
	var updates []Update
	for _, s := range some {
		s.mu.Lock()
		if s.err == nil {
			u, now := s.update(k.after())
			all = append(all, under{s, now, len(s.vault.began), len(s.vault.done)})
			updates = append(updates, u)
		}
		s.mu.Unlock()
	}
	if len(updates) == 0 {
		return nil
	}
	if err := k.store.Save(ctx, updates); err != nil {
		return err
	}
	for i, s := range all {
		switch u := &updates[i]; {
		case u.Err == nil:
			s.confirmed(u, s.now, s.began, s.done)
		case errors.Is(u.Err, ErrUnknown):
			k.lose(s.Session, ErrLost)
		default:
			k.lose(s.Session, ErrMoved)
		}
	}
	return nil
}

// saveAll saves sessions as long as that works.
func (k *keeper) saveAll(ctx context.Context, some []*Session) {
	for part := range slices.Chunk(some, batch) {
		if k.save(ctx, part) != nil {
			return
		}
	}
}

// rest returns when the handlers have done what there is, or ctx has ended.
func (s *Session) rest(ctx context.Context) {
	s.mu.Lock()
	if s.delivering && s.idle == nil {
		s.idle = make(chan struct{})
	}
	idle := s.idle
	s.mu.Unlock()
	if idle != nil {
		select {
		case <-idle:
		case <-ctx.Done():
		}
	}
}

// forget removes a session that has ended.
func (k *keeper) forget(v *vault) {
	ctx, cancel := context.WithTimeout(context.Background(), saveTimeout)
	defer cancel()
	k.turn <- struct{}{}
	defer func() { <-k.turn }()
	v.number++
	k.store.Save(ctx, []Update{{Key: v.key, Fence: v.fence, Number: v.number}}) // if that fails, it is kept for its time
}
