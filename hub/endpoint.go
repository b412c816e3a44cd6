package hub

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"

	"github.com/seed-07372d5a/websocket"
)

// endpoint.go owns the style of JSR-356: callbacks for what happens to a
// connection, with the hub at hand.

// An Endpoint is an http.Handler that accepts connections, makes them members of
// a hub and calls back, in the order Open, Message, Close for each connection,
// one at a time. Members leave their rooms before Close is called. The fields
// must not be changed once it serves.
type Endpoint struct {
	Hub *Hub // required

	// Options are what requests are accepted with.
	Options websocket.AcceptOptions

	// User says whose connection a request asks for, as Hub.Add takes it. An
	// error refuses the request with 403 Forbidden. nil: nobody's.
	User func(r *http.Request) (string, error)

	// Open is called first. With an error the connection is closed with
	// ClosePolicyViolation, once Error has been called.
	Open func(ctx context.Context, m *Member) error

	// Message is called for each message, which is lent until it returns. An error
	// is given to Error, and the connection goes on; without Error it is closed
	// with ClosePolicyViolation. ctx ends with the connection.
	Message func(ctx context.Context, m *Member, msg websocket.Message) error

	// Error is called with what Open and Message return, and, before Close, with
	// what has ended the connection if that was no goodbye of either side.
	Error func(m *Member, err error)

	// Close is called last: websocket.CodeOf(err) is the close code.
	Close func(m *Member, err error)

	once   sync.Once
	server *websocket.Server
}

type userKey struct{}

func (e *Endpoint) init() *websocket.Server {
	e.once.Do(func() { e.server = &websocket.Server{Options: e.Options, Handler: e.serve} })
	return e.server
}

// ServeHTTP accepts a connection, or answers with an error status, and returns.
func (e *Endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user := ""
	if e.User != nil {
		var err error
		if user, err = e.User(r); err == nil && user != "" {
			err = checkUser(user)
		}
		if err != nil {
			http.Error(w, "forbidden", http.StatusForbidden)
			return
		}
	}
	e.init().ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), userKey{}, user)))
}

// Shutdown ends it as websocket.Server.Shutdown does.
func (e *Endpoint) Shutdown(ctx context.Context) error { return e.init().Shutdown(ctx) }

// serve is the life of one connection.
func (e *Endpoint) serve(ctx context.Context, c *websocket.Conn) {
	user, _ := ctx.Value(userKey{}).(string)
	m, err := e.Hub.Add(c, user)
	if err != nil {
		c.Close(websocket.ClosePolicyViolation, "")
		return
	}
	c.Serve(ctx, &websocket.Handler{
		Open: func(c *websocket.Conn) {
			if e.Open == nil {
				return
			}
			if err := e.Open(ctx, m); err != nil {
				e.fail(m, err)
				c.Close(websocket.ClosePolicyViolation, "")
			}
		},
		Message: func(c *websocket.Conn, msg websocket.Message) {
			if e.Message == nil {
				return
			}
			if err := e.Message(ctx, m, msg); err != nil && !e.fail(m, err) {
				c.Close(websocket.ClosePolicyViolation, "")
			}
		},
		Close: func(c *websocket.Conn, err error) {
			m.Remove()
			if peer := (*websocket.CloseError)(nil); !errors.As(err, &peer) && !errors.Is(err, net.ErrClosed) {
				e.fail(m, err)
			}
			if e.Close != nil {
				e.Close(m, err)
			}
		},
	})
}

// fail tells Error, if it is there.
func (e *Endpoint) fail(m *Member, err error) bool {
	if e.Error != nil {
		e.Error(m, err)
	}
	return e.Error != nil
}
