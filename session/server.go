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
	// Open, if it is not nil, is called with every new session, before anything
	// is received.
	Open func(s *Session)
	// Close, if it is not nil, is called when a session has ended because its
	// client stayed away.
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
}

// held is a session that the server knows by its token.
type held struct {
	*Session
	expiry *time.Timer // not nil: the client is away
}

var errNoHello = errors.New("session: the client does not speak the protocol")

// Serve goes on with the session that the client of c has, or begins another, and
// serves it until c ends, whose error it returns. It is what a handler of
// [websocket.Server] calls. Whoever knows a session's token may go on with it: who
// may connect at all is for a handler around the server to decide.
func (v *Server) Serve(ctx context.Context, c *websocket.Conn) error {
	codec := v.Config.Codec
	if codec == nil {
		codec = JSON
	}
	hello, err := v.hello(ctx, c, codec)
	if err != nil {
		return err
	}
	s, isNew := v.find(&hello)
	if isNew && v.Open != nil {
		v.Open(s)
	}
	old, err := s.welcome(c, hello.Ack)
	defer v.leave(s, c)
	if old != nil {
		go old.Close(CloseReplaced, "session: goes on over another connection")
	}
	if err != nil {
		return err
	}
	return s.serve(ctx, c)
}

// welcome goes on over c, and returns the connection that it replaces.
func (s *Session) welcome(c *websocket.Conn, ack uint64) (old *websocket.Conn, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
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
	if v.sessions == nil {
		v.sessions = make(map[string]*held)
	}
	v.sessions[s.token] = &held{Session: s}
	return s, true
}

// knows tells whether the other side may have taken what is up to ack.
func (s *Session) knows(ack uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return ack <= s.highest
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
	if !s.detach(c) || h == nil || h.expiry != nil {
		return
	}
	d, most := v.Expire, v.MaxAway
	if d == 0 {
		d = 2 * time.Minute
	}
	if most == 0 {
		most = 10_000
	}
	if most > 0 && v.away >= most {
		d = 0
	}
	v.away++
	var t *time.Timer
	t = time.AfterFunc(max(d, 0), func() {
		v.mu.Lock()
		gone := h.expiry == t
		if gone {
			v.back(h)
			delete(v.sessions, s.token)
		}
		v.mu.Unlock()
		if gone {
			v.over(s)
		}
	})
	h.expiry = t
}

// over ends a session that nobody can ask for any more.
func (v *Server) over(s *Session) {
	s.end(ErrEnded)
	if v.Close != nil {
		v.Close(s)
	}
}

// Shutdown ends all sessions, whose clients find that they are lost when they
// come again. It does not close connections: shut down the websocket.Server
// first.
func (v *Server) Shutdown() {
	v.mu.Lock()
	all := v.sessions
	v.sessions = nil
	for _, h := range all {
		v.back(h)
	}
	v.mu.Unlock()
	for _, h := range all {
		v.over(h.Session)
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
	ctx, cancel := context.WithTimeout(ctx, timeToHello)
	defer cancel()
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
