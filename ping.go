package websocket

import (
	"context"
	"encoding/binary"
	"sync"
	"time"
)

// ping.go owns pings: those that the caller sends, and those that keep the
// connection alive (RFC 6455 sections 5.5.2 and 5.5.3).

// A pinger knows who waits for which pong. A nil one knows nobody.
type pinger struct {
	mu      sync.Mutex
	last    uint64 // the number in the last ping
	waiting []waiter
	timer   *time.Timer   // of the keepalive
	asked   bool          // the keepalive has sent a ping
	doubted bool          // and has waited for the answer, nearly long enough
	when    time.Duration // and when
	stopped bool
}

type waiter struct {
	n    uint64
	done chan struct{}
}

// Ping sends a ping and waits for its pong, which another goroutine has to
// read. It returns nil, the cause of ctx's end, or what ended the connection.
// Any number of goroutines may ping.
func (c *Conn) Ping(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	p := c.pinger.Load()
	if p == nil {
		c.pinger.CompareAndSwap(nil, new(pinger))
		p = c.pinger.Load()
	}
	w := p.ping()
	defer p.forget(w)
	if err := c.settle(c.out.control(ctx, OpPing, binary.BigEndian.AppendUint64(nil, w.n))); err != nil {
		return err
	}
	ended := c.Context().Done()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-ended:
		return c.reason()
	}
}

func (p *pinger) ping() waiter {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last++
	w := waiter{p.last, make(chan struct{})}
	p.waiting = append(p.waiting, w)
	return w
}

func (p *pinger) forget(w waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.waiting {
		if p.waiting[i].n == w.n {
			p.waiting = append(p.waiting[:i], p.waiting[i+1:]...)
			return
		}
	}
}

// pong answers all pings up to the one it is for: a peer may answer only the
// last of several (section 5.5.3).
func (p *pinger) pong(payload []byte) {
	if p == nil || len(payload) != 8 {
		return
	}
	n := binary.BigEndian.Uint64(payload)
	p.mu.Lock()
	defer p.mu.Unlock()
	if n > p.last {
		return
	}
	for len(p.waiting) > 0 && p.waiting[0].n <= n {
		close(p.waiting[0].done)
		p.waiting = p.waiting[1:]
	}
}

func (p *pinger) stop() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	if p.timer != nil {
		p.timer.Stop()
	}
}

// pong answers a ping. The reader does not wait for the network to take it.
func (c *Conn) pong(payload []byte) {
	patience := pongWait
	if c.fed.Load() {
		patience = 0
	}
	c.out.answer(payload, patience)
	c.ponged = true
}

// startKeepAlive begins to listen for silence.
func (c *Conn) startKeepAlive() {
	c.heard.Store(int64(sinceEpoch()))
	if d := c.out.on.profile.keepAlive; d > 0 {
		p := new(pinger)
		c.pinger.Store(p)
		p.mu.Lock()
		p.timer = time.AfterFunc(d, c.keepAlive)
		p.mu.Unlock()
	}
}

// keepAlive runs when the peer may have been silent for too long.
func (c *Conn) keepAlive() {
	listening := (c.reading.Load() || c.fed.Load()) && !c.calling.Load()
	ping, dead := c.pinger.Load().tick(sinceEpoch(), time.Duration(c.heard.Load()), listening, c.out.on.profile)
	switch {
	case dead:
		c.end(ErrPeerTimeout)
	case ping && c.out.post(OpPing):
		c.kick()
	}
}

// tick decides what silence means, and sets the timer for the next look. Only a
// peer that somebody listens to can be found dead, and only if that was so a
// moment before: who has just begun to read may have the answer in front of him.
func (p *pinger) tick(now, heard time.Duration, listening bool, t *profile) (ping, dead bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	unanswered := p.asked && heard < p.when
	moment := min(t.keepAliveTimeout/16, time.Second)
	switch {
	case p.stopped:
		return false, false
	case unanswered && listening && t.keepAliveTimeout > 0:
		if p.doubted {
			return false, true
		}
		p.doubted = true
		p.timer.Reset(moment)
		return false, false
	case unanswered && !listening:
		heard = now // the answer may be here, unread
	}
	p.asked, p.doubted = false, false
	if silent := now - heard; silent < t.keepAlive {
		p.timer.Reset(t.keepAlive - silent)
		return false, false
	}
	p.asked, p.when = true, now
	if t.keepAliveTimeout > 0 {
		p.timer.Reset(t.keepAliveTimeout - moment)
	} else {
		p.timer.Reset(t.keepAlive)
	}
	return true, false
}
