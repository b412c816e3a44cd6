package websocket

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// watch.go owns how the end of a context interrupts the network: it becomes a
// deadline in the past.

// A watch is one direction's deadline. Contexts are paid for once, not per
// call: the watch stays armed while calls come with the same one. A nil watch
// does nothing: it is that of a transport without deadlines.
type watch struct {
	on *transport

	mu    sync.Mutex
	done  <-chan struct{} // of the context it is armed for
	stop  func() bool     // disarms it
	due   time.Duration   // the deadline, since epoch; 0 if there is none
	round uint32          // counts armings: a late end of an earlier context is ignored
	write bool            // the direction
	past  bool            // the context has ended: the deadline is in the past
}

// A transport is what both directions of a connection share.
type transport struct {
	nc      net.Conn
	raw     *socket // nil if nc is not a bare one, for which one waits without a buffer, and which takes several at once
	profile *profile
	life    atomic.Pointer[lifetime] // nil until somebody asks for it
}

// A lifetime is the connection's context, whose end closes the transport anyway.
type lifetime struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
}

// newLifetime makes one that has the values of base.
func newLifetime(base context.Context) *lifetime {
	l := new(lifetime)
	l.ctx, l.cancel = context.WithCancelCause(base)
	return l
}

// own tells whether ctx is the connection's.
func (t *transport) own(ctx context.Context) bool {
	l := t.life.Load()
	return l != nil && l.ctx == ctx
}

// watches are those of the two directions; nil if the transport has no deadlines,
// as one that does not block.
func (t *transport) watches() (in, out *watch) {
	if errors.Is(t.nc.SetWriteDeadline(time.Time{}), os.ErrNoDeadline) {
		return nil, nil
	}
	return &watch{on: t}, &watch{on: t, write: true}
}

// epoch is what times are counted from.
var epoch = time.Now()

func sinceEpoch() time.Duration { return time.Since(epoch) }

// aLongTimeAgo is a deadline that interrupts at once.
var aLongTimeAgo = time.Unix(1, 0)

// slack is by how much a deadline may be early: it saves setting one per call.
const slack = 100 * time.Millisecond

// arm is called on the way to block: from now on the end of ctx, or d if it is
// positive, interrupts the network. Calls must not overlap.
func (w *watch) arm(ctx context.Context, d time.Duration) {
	if w == nil {
		return
	}
	var done <-chan struct{}
	if !w.on.own(ctx) {
		done = ctx.Done()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	stale := w.past
	if done != w.done || stale {
		w.release()
		if w.done = done; done != nil {
			round := w.round
			w.stop = context.AfterFunc(ctx, func() { w.expire(round) })
		}
	}
	switch {
	case d > 0:
		due := sinceEpoch() + d
		if early := due - w.due; stale || w.due == 0 || early < 0 || early > min(slack, d/4) {
			w.due = due
			w.move(time.Now().Add(d))
		}
	case stale || w.due != 0:
		w.due = 0
		w.move(time.Time{})
	}
}

// overdue tells whether the deadline has passed.
func (w *watch) overdue() bool {
	if w == nil {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.due != 0 && sinceEpoch() >= w.due
}

// again makes the next arm set the deadline anew, whatever it was.
func (w *watch) again() {
	if w == nil {
		return
	}
	w.mu.Lock()
	w.past = true
	w.mu.Unlock()
}

// disarm lets go of the context.
func (w *watch) disarm() {
	if w == nil {
		return
	}
	w.mu.Lock()
	w.release()
	w.mu.Unlock()
}

func (w *watch) release() {
	if w.stop != nil {
		w.stop()
	}
	w.round++
	w.done, w.stop, w.past = nil, nil, false
}

func (w *watch) expire(round uint32) {
	w.mu.Lock()
	if round == w.round {
		w.past = true
		w.move(aLongTimeAgo)
	}
	w.mu.Unlock()
}

// move leaves errors to the read or write that follows.
func (w *watch) move(t time.Time) {
	if w.write {
		w.on.nc.SetWriteDeadline(t)
	} else {
		w.on.nc.SetReadDeadline(t)
	}
}
