package engine

import (
	"crypto/rand"
	"encoding/binary"
	"time"

	"github.com/seed-07372d5a/websocket"
)

// keepalive.go owns the search for peers that are silent (RFC 6455 section
// 5.5.2): one goroutine looks at when each was heard, and no connection has a
// timer.

// A clock counts the milliseconds that the engine has listened: time that passes
// while the process is stopped is not counted.
type clock struct {
	now           atomicTime
	period        time.Duration // between two looks; 0 without keepalive
	silence, wait uint32        // before a ping, and after it; 0: for ever
	stop          chan struct{}
}

func (k *clock) set(cfg websocket.Config) {
	def := func(d, v time.Duration) time.Duration {
		if d == 0 {
			return v
		}
		return min(max(d, 0), 7*24*time.Hour)
	}
	silence, wait := def(cfg.KeepAlive, 25*time.Second), def(cfg.KeepAliveTimeout, 20*time.Second)
	if silence == 0 {
		return
	}
	k.silence, k.wait = uint32(silence.Milliseconds()), uint32(wait.Milliseconds())
	k.period = silence
	if wait > 0 {
		k.period = min(k.period, wait)
	}
	k.period = min(max(k.period/16, 10*time.Millisecond), time.Second)
}

// keepAlive looks for silence until the engine ends.
func (e *Engine) keepAlive() {
	k := &e.clock
	t := time.NewTicker(k.period)
	defer t.Stop()
	for last := time.Now(); ; {
		select {
		case <-k.stop:
			return
		case <-t.C:
		}
		passed := time.Since(last)
		last = last.Add(passed)
		now := k.now.Add(uint32(min(passed, 2*k.period).Milliseconds()))
		for _, l := range e.loops {
			l.table.sweep(now, k)
		}
	}
}

// sweep pings the peers that are silent, and gives up those that have not
// answered.
func (t *table) sweep(now uint32, k *clock) {
	p := t.chunks.Load()
	if p == nil {
		return
	}
	for n, chunk := range *p {
		for i := range chunk.heard {
			if now-chunk.heard[i].Load()&^asked < k.silence/2 {
				continue
			}
			if c := chunk.conns[i].Load(); c != nil {
				c.isSilent(&chunk.heard[i], now, k.silence-jitter(uint32(n*chunkSize+i), k.silence/2), k.wait)
			}
		}
	}
}

// jitter is a number below n, so that peers that fell silent together are not
// pinged together.
func jitter(slot, n uint32) uint32 {
	h := slot * 0x9e3779b1
	h = (h ^ h>>15) * 0x85ebca6b
	return uint32(uint64(h^h>>16) * uint64(n) >> 32)
}

// isSilent decides what c's silence means: a ping after limit, and the end when
// wait has passed after it.
func (c *conn) isSilent(heard *atomicTime, now, limit, wait uint32) {
	was := heard.Load()
	quiet := now - was&^asked
	switch {
	case quiet < limit:
	case c.state.Load() != idle: // what it has said may be unread
		heard.CompareAndSwap(was, now&^asked)
	case was&asked != 0 && wait > 0:
		if quiet-limit >= wait {
			c.tell(silent)
		}
	case was&asked != 0 && quiet < 2*limit:
	case c.ping():
		heard.CompareAndSwap(was, (now-limit)&^asked|asked)
	default: // what waits to be sent has a timeout of its own
		heard.CompareAndSwap(was, now&^asked)
	}
}

// ping sends one, unless something waits to be sent, or was the last to be.
func (c *conn) ping() bool {
	h := websocket.Header{Fin: true, Opcode: websocket.OpPing}
	if c.common.Value().client {
		var key [4]byte
		rand.Read(key[:])
		h.Masked, h.Key = true, binary.LittleEndian.Uint32(key[:])
	}
	frame := websocket.AppendHeader(nil, h)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 || c.bye || c.extra != nil || c.blocked.Load() {
		return false
	}
	if c.tls != nil {
		return c.tls.put(frame) == nil
	}
	n, err := c.writeFD(frame)
	switch {
	case err == nil:
		return true
	case n == 0:
		c.blocked.Store(false) // nothing waits
		return false
	}
	c.extra = &extra{ping: frame[n:]}
	return true
}

// payPing writes the rest of a ping.
func (c *conn) payPing() error {
	if c.extra == nil || len(c.extra.ping) == 0 {
		return nil
	}
	n, err := c.writeFD(c.extra.ping)
	if c.extra.ping = c.extra.ping[n:]; err == nil {
		c.tidy()
	}
	return err
}
