package reconnect

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"unicode/utf8"

	"github.com/seed-07372d5a/websocket"
)

// outbox.go owns what waits to be sent.

// overhead is what a message counts for besides its data, in bytes.
const overhead = 64

// ErrOutboxFull says that Client.OutboxLimit bytes wait to be sent, and that a
// message was not taken.
var ErrOutboxFull = errors.New("reconnect: outbox is full")

var (
	errType = errors.New("reconnect: a message is MessageText or MessageBinary")
	errText = errors.New("reconnect: a text message must be valid UTF-8")
)

// An outbox is a queue. A message stays in it until it was sent.
type outbox struct {
	mu    sync.Mutex
	queue []websocket.Message
	bytes int
	more  chan struct{} // closed by the next push; made only if somebody waits
	room  chan struct{} // closed by the next pop; the same

	refused bool // the head failed with CloseMessageTooBig
}

// push adds m if there is room, or returns what is closed when there is more.
func (o *outbox) push(m websocket.Message, limit int) (full <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	size := len(m.Data) + overhead
	if limit > 0 && len(o.queue) > 0 && size > limit-o.bytes {
		if o.room == nil {
			o.room = make(chan struct{})
		}
		return o.room
	}
	o.queue = append(o.queue, m)
	o.bytes += size
	if o.more != nil {
		close(o.more)
		o.more = nil
	}
	return nil
}

// head returns the message whose turn it is, or what is closed when there is one.
func (o *outbox) head() (m websocket.Message, empty <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.queue) > 0 {
		return o.queue[0], nil
	}
	if o.more == nil {
		o.more = make(chan struct{})
	}
	return m, o.more
}

// pop removes the message that head returned.
func (o *outbox) pop() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.bytes -= len(o.queue[0].Data) + overhead
	o.refused = false
	o.queue[0] = websocket.Message{}
	if o.queue = o.queue[1:]; len(o.queue) == 0 {
		o.queue = nil
	}
	if o.room != nil {
		close(o.room)
		o.room = nil
	}
}

// tooBig tells whether err, which kept the head from being sent, says that no
// connection will take it. The first time it may be about a message before it.
func (o *outbox) tooBig(err error) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	again := o.refused
	o.refused = websocket.CodeOf(err) == websocket.CloseMessageTooBig
	return again && o.refused
}

// Send puts a copy of m into the outbox, from which it leaves by itself, in
// order, over the connection that is open or the next one. It does not wait for
// that. Before Run and after it Send fills the outbox all the same.
//
// When the outbox is full, Send returns ErrOutboxFull, and so does Run, after it
// has closed the connection with CloseGoingAway; what waits stays, and another
// Run sends it. With Client.Block, Send waits for room instead, until ctx ends.
//
// Send may be called from any goroutine.
func (c *Client) Send(ctx context.Context, m websocket.Message) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case m.Type != websocket.MessageText && m.Type != websocket.MessageBinary:
		return errType
	case m.Type == websocket.MessageText && !utf8.Valid(m.Data):
		return errText
	}
	m = m.Clone()
	limit := c.OutboxLimit
	if limit == 0 {
		limit = 16 << 20
	}
	for {
		full := c.outbox.push(m, limit)
		if full == nil {
			return nil
		}
		if !c.Block {
			c.overrun()
			return ErrOutboxFull
		}
		select {
		case <-full:
		case <-ctx.Done():
			return fmt.Errorf("reconnect: no room in the outbox: %w", context.Cause(ctx))
		}
	}
}

// deliver sends what is in the outbox and comes to it, until c ends, or, once
// done is closed, until there is no more.
func (o *outbox) deliver(c *websocket.Conn, done <-chan struct{}) {
	for {
		m, empty := o.head()
		if empty == nil {
			// No context: its end would break the connection in the middle of a
			// frame. Config.WriteTimeout is the bound.
			err := c.Write(context.Background(), m)
			if err == nil || o.tooBig(err) {
				o.pop()
			}
			if err != nil {
				return
			}
			continue
		}
		select {
		case <-empty:
		case <-done:
			return
		case <-c.Context().Done():
			return
		}
	}
}
