package session

import (
	"context"
	"errors"
	"sync"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/reconnect"
)

// client.go owns the end that dials.

// A Client is the end of a session that dials, again and again. The fields must
// not be changed once it is used.
type Client struct {
	// Reconnect says where to, and what to do when that fails. Its Subscribe is
	// called before the session goes on; its outbox is not used.
	Reconnect reconnect.Client
	// Config is that of the session.
	Config Config

	once sync.Once
	s    *Session
}

// Session returns the session. It is there before Run, and keeps what is sent.
func (c *Client) Session() *Session {
	c.once.Do(func() { c.s = newSession(&c.Config, "") })
	return c.s
}

// Run connects, and connects again, as reconnect.Client's does, until one of its
// reasons ends it, which it returns. The session waits for another Run.
func (c *Client) Run(ctx context.Context) error {
	s := c.Session()
	return c.Reconnect.Run(ctx, func(ctx context.Context, conn *websocket.Conn) error {
		if err := s.hello(ctx, conn); err != nil {
			return err
		}
		defer s.detach(conn)
		err := s.serve(ctx, conn)
		if websocket.CodeOf(err) == CloseReplaced {
			return reconnect.Stop(err) // somebody else has the token; two would take it from each other for ever
		}
		return err
	})
}

var errForgotten = errors.New("session: the server has forgotten part of the session")

var errNoWelcome = errors.New("session: the server does not speak the protocol")

// hello asks the server to go on where the last connection ended.
func (s *Session) hello(ctx context.Context, c *websocket.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, timeToHello)
	defer cancel()
	s.mu.Lock()
	hello := Envelope{Type: typeHello, Token: s.token, Ack: s.handled()}
	s.mu.Unlock()
	if err := exchange(ctx, c, s.codec(), &hello); err != nil {
		return err
	}
	m, err := c.Read(ctx)
	if err != nil {
		return err
	}
	var e Envelope
	if m.Type != s.codec().Type() || s.codec().Decode(m.Data, &e) != nil || e.Type != typeWelcome || e.Token == "" {
		return errNoWelcome
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.Token == s.token && e.Ack < s.settled {
		// Its store has forgotten part of the session: who knows what else.
		s.replace("")
		return errForgotten
	}
	if e.Token != s.token || e.Ack > s.highest {
		s.replace(e.Token)
		e.Ack = 0
	}
	s.attach(c, e.Ack)
	return nil
}

// exchange sends an envelope that belongs to the connection.
func exchange(ctx context.Context, c *websocket.Conn, codec Codec, e *Envelope) error {
	return c.Write(ctx, websocket.Message{Type: codec.Type(), Data: codec.Append(nil, e)})
}
