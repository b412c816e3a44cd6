package session

import (
	"context"
	"crypto/rand"
	"errors"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/seed-07372d5a/websocket"
)

// server.go owns the end that accepts, and the sessions whose clients are away.

// A Server is the end of many sessions. The zero value is ready; the fields must
// not be changed once it is used.
type Server struct {
	// Config is that of every session.
	Config Config
	// Store, if it is not nil, keeps the sessions so that other servers with the
	// same Store, and the next process of this one, can go on with them. Whichever
	// a client comes to claims its session; the Session of the one before ends with
	// ErrMoved. What is sent and received waits until the store has it, a round
	// trip at a time for all that has come together. While the store is not
	// reached, messages wait, and clients that come are told to come again.
	Store Store
	// Open, if it is not nil, is called with every new session, before anything
	// is received.
	Open func(s *Session)
	// Resume, if it is not nil, is called with a session that began on another
	// server, or on this one before it was restarted, before anything is received.
	// Its Stats begin again, and calls of the last server are given up.
	Resume func(s *Session)
	// Close, if it is not nil, is called when a session that Open or Resume was
	// called with has ended here: Session.Err says why.
	Close func(s *Session)
	// Expire is how long a session waits for its client. 0: 2 minutes; negative:
	// not at all.
	Expire time.Duration
	// MaxAway is how many sessions may wait for their clients; those beyond it
	// end at once. 0: 10,000; negative: no limit.
	MaxAway int

	mu       sync.Mutex
	sessions map[string]*held
	away     int
	keeper   *keeper
	touch    *time.Timer // not nil: while there are sessions that are in the store
}

// held is a session that the server knows by its token.
type held struct {
	*Session
	expiry *time.Timer // not nil: the client is away
}

var (
	errNoHello  = errors.New("session: the client does not speak the protocol")
	errReplaced = errors.New("session: goes on over another connection")
)

// Serve goes on with the session that the client of c has, or begins another, and
// serves it until c ends, whose error it returns. It is what a handler of
// [websocket.Server] calls. Whoever knows a session's token may go on with it: who
// may connect at all is for a handler around the server to decide.
func (v *Server) Serve(ctx context.Context, c *websocket.Conn) error {
	s, ack, err := v.begin(ctx, c)
	if err != nil {
		return err
	}
	old, err := s.welcome(c, ack)
	defer v.leave(s, c)
	if old != nil {
		go old.Close(CloseReplaced, "session: goes on over another connection")
	}
	if err != nil {
		c.Close(websocket.CloseGoingAway, "session: has ended")
		return err
	}
	return s.serve(ctx, c)
}

// begin hears which session the client has, and finds it or begins another, which
// the application is told. It returns what the client has handled of it.
func (v *Server) begin(ctx context.Context, c *websocket.Conn) (s *Session, ack uint64, err error) {
	codec := v.Config.Codec
	if codec == nil {
		codec = JSON
	}
	// Apart from ctx, which would remember it: the connection's end ends it too.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeToHello)
	defer cancel()
	hello, err := v.hello(ctx, c, codec)
	if err != nil {
		return nil, 0, err
	}
	var isNew bool
	if v.Store == nil {
		s, isNew = v.find(&hello)
	} else if s, isNew, err = v.claim(ctx, &hello); err != nil {
		if err == errReplaced {
			c.Close(CloseReplaced, "session: goes on over another connection")
		} else {
			c.Close(websocket.CloseTryAgainLater, "session: the store is not reached")
		}
		return nil, 0, err
	}
	if isNew && v.Open != nil && v.Store == nil {
		v.Open(s)
	}
	return s, hello.Ack, nil
}

// welcome goes on over c, and returns the connection that it replaces.
func (s *Session) welcome(c *websocket.Conn, ack uint64) (old *websocket.Conn, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	old, s.conn = s.conn, c
	if err = s.post(&Envelope{Type: typeWelcome, Token: s.token, Ack: s.handled()}); err == nil {
		s.attach(c, ack)
	}
	return old, err
}

// find returns the session that a client asks for, or a new one.
func (v *Server) find(hello *Envelope) (s *Session, isNew bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if h := v.sessions[hello.Token]; h != nil && h.knows(hello.Ack) {
		v.back(h)
		return h.Session, false
	}
	hello.Ack = 0
	s = newSession(&v.Config, rand.Text()) // 130 bits
	v.insert(&held{Session: s})
	return s, true
}

func (v *Server) insert(h *held) {
	if v.sessions == nil {
		v.sessions = make(map[string]*held)
	}
	v.sessions[h.token] = h
}

// knows tells whether the other side may have taken what is up to ack.
func (s *Session) knows(ack uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return ack <= s.highest
}

// claim is find with a store.
func (v *Server) claim(ctx context.Context, hello *Envelope) (s *Session, isNew bool, err error) {
	v.mu.Lock()
	if v.keeper == nil {
		v.keeper = &keeper{store: v.Store, after: v.kept, lose: v.lose, turn: make(chan struct{}, 1)}
	}
	k := v.keeper
	v.mu.Unlock()
	if hello.Token != "" {
		if s, err = v.reclaim(ctx, k, hello); s != nil || err != nil {
			return s, false, err
		}
	}
	hello.Ack = 0
	s = newSession(&v.Config, rand.Text()) // 130 bits
	s.vault = &vault{keeper: k, key: keyOf(s.token), fence: 1}
	if err = k.store.Create(ctx, s.vault.key, k.after()); err != nil {
		return nil, false, err
	}
	if v.Open != nil {
		v.Open(s)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.insert(&held{Session: s})
	v.keepTouching()
	return s, true, nil
}

// reclaim makes the session that a client asks for this server's, or returns nil
// if it is lost.
func (v *Server) reclaim(ctx context.Context, k *keeper, hello *Envelope) (*Session, error) {
	v.mu.Lock()
	h := v.sessions[hello.Token]
	v.mu.Unlock()
	if h != nil {
		// Whoever has claimed it meanwhile knows more: the store is asked.
		if err := k.save(ctx, []*Session{h.Session}); err != nil {
			return nil, err
		}
		v.mu.Lock()
		if v.sessions[hello.Token] == h && h.knows(hello.Ack) {
			v.back(h)
			v.mu.Unlock()
			return h.Session, nil
		}
		v.mu.Unlock()
	}
	vault := &vault{keeper: k, key: keyOf(hello.Token)}
	fence, fields, err := k.store.Claim(ctx, vault.key, k.after())
	if errors.Is(err, ErrUnknown) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	vault.fence = fence
	s, err := restore(&v.Config, hello.Token, vault, fields)
	if err != nil || !s.knows(hello.Ack) { // a store that has forgotten part of it
		k.forget(vault)
		if h != nil {
			v.lose(h.Session, ErrLost)
		}
		return nil, nil
	}
	return v.adopt(s)
}

// adopt tells the application of a session that was claimed, and then makes it
// known, unless a later claim of this same server has come first.
func (v *Server) adopt(s *Session) (*Session, error) {
	if v.Resume != nil {
		v.Resume(s)
	}
	s.inherit()
	v.mu.Lock()
	old := v.sessions[s.token]
	if old != nil && old.vault.fence > s.vault.fence {
		v.mu.Unlock()
		v.over(s, ErrMoved)
		return nil, errReplaced
	}
	if old != nil {
		v.back(old)
	}
	v.insert(&held{Session: s})
	v.keepTouching()
	v.mu.Unlock()
	if old != nil {
		v.lose(old.Session, ErrMoved)
	}
	return s, nil
}

// kept is how long the store keeps a session of which it does not hear.
func (v *Server) kept() time.Duration { return v.expire() + 2*touchEvery }

func (v *Server) expire() time.Duration {
	if v.Expire == 0 {
		return 2 * time.Minute
	}
	return max(v.Expire, 0)
}

// keepTouching has the store hear of all sessions, and this server of those that
// have moved.
func (v *Server) keepTouching() {
	if v.touch != nil {
		return
	}
	var t *time.Timer
	t = time.AfterFunc(touchEvery, func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.touch != t {
			return
		}
		v.touch = nil
		if len(v.sessions) == 0 {
			return
		}
		for _, h := range v.sessions {
			h.mu.Lock()
			h.keep()
			h.mu.Unlock()
		}
		v.keepTouching()
	})
	v.touch = t
}

// back notes that a client is not away any more.
func (v *Server) back(h *held) {
	if h.expiry != nil {
		h.expiry.Stop()
		h.expiry = nil
		v.away--
	}
}

// leave notes that c has ended, and ends the session if the client does not come
// back.
func (v *Server) leave(s *Session, c *websocket.Conn) {
	v.mu.Lock()
	defer v.mu.Unlock()
	h := v.sessions[s.token]
	if !s.detach(c) || h == nil || h.Session != s || h.expiry != nil {
		return
	}
	d, most := v.expire(), v.MaxAway
	if most == 0 {
		most = 10_000
	}
	if most > 0 && v.away >= most {
		d = 0
	}
	v.away++
	var t *time.Timer
	t = time.AfterFunc(d, func() {
		v.mu.Lock()
		gone := h.expiry == t
		if gone {
			v.back(h)
			gone = !s.Connected() // it came back while its last connection was let go of
		}
		if gone {
			delete(v.sessions, s.token)
		}
		v.mu.Unlock()
		if gone {
			v.over(s, ErrEnded)
			if s.vault != nil {
				s.vault.keeper.forget(s.vault)
			}
		}
	})
	h.expiry = t
}

// over ends a session that this server does not know any more.
func (v *Server) over(s *Session, reason error) {
	c, first := s.end(reason)
	switch {
	case c == nil || reason == ErrEnded: // connections are closed by whoever has opened them
	case reason == ErrMoved:
		go c.Close(CloseReplaced, "session: goes on at another server")
	default:
		go c.Close(websocket.CloseGoingAway, "session: is lost")
	}
	if first && v.Close != nil {
		v.Close(s)
	}
}

// lose ends a session that another server has, or the store has not.
func (v *Server) lose(s *Session, reason error) {
	v.mu.Lock()
	if h := v.sessions[s.token]; h != nil && h.Session == s {
		v.back(h)
		delete(v.sessions, s.token)
	}
	v.mu.Unlock()
	v.over(s, reason)
}

// Shutdown ends all sessions. Without a Store their clients find that they are
// lost when they come again; with one they go on where they come to, for what has
// come is handled and what is not saved is saved first, for which Shutdown waits
// 5 s at most. It does not close connections: shut down the websocket.Server
// first.
func (v *Server) Shutdown() {
	v.mu.Lock()
	all := v.sessions
	v.sessions = nil
	for _, h := range all {
		v.back(h)
	}
	if v.touch != nil {
		v.touch.Stop()
		v.touch = nil
	}
	k := v.keeper
	v.mu.Unlock()
	reason := ErrEnded
	if k != nil {
		var some []*Session
		for _, h := range all {
			some = append(some, h.Session)
		}
		ctx, cancel := context.WithTimeout(context.Background(), saveTimeout)
		k.saveAll(ctx, some)
		for _, s := range some {
			s.rest(ctx)
		}
		k.saveAll(ctx, some) // what was handled meanwhile
		cancel()
		reason = ErrMoved
	}
	for _, h := range all {
		v.over(h.Session, reason)
	}
}

// Sessions returns the sessions that there are now, of clients that are away too.
func (v *Server) Sessions() iter.Seq[*Session] {
	v.mu.Lock()
	defer v.mu.Unlock()
	all := make([]*Session, 0, len(v.sessions))
	for _, h := range v.sessions {
		all = append(all, h.Session)
	}
	return slices.Values(all)
}

// hello waits for the client's first envelope.
func (v *Server) hello(ctx context.Context, c *websocket.Conn, codec Codec) (e Envelope, err error) {
	m, err := c.Next(ctx)
	if err != nil {
		return e, err
	}
	if m.Type != codec.Type() || codec.Decode(m.Data, &e) != nil || e.Type != typeHello {
		c.Close(websocket.ClosePolicyViolation, "session: hello is missing")
		return e, errNoHello
	}
	return e, nil
}
