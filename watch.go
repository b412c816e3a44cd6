package websocket

import (
	"context"
	"net"
	"sync"
	"time"
)

// watch.go owns how the end of a context interrupts the network: it becomes a
// deadline in the past.

// A watch is one direction's deadline. Contexts are paid for once, not per
// call: the watch stays armed while calls come with the same one.
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
	nc  net.Conn
	own context.Context // the connection's, if it was born with one: its end closes nc anyway
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
	var done <-chan struct{}
	if ctx != w.on.own {
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
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.due != 0 && sinceEpoch() >= w.due
}

// again makes the next arm set the deadline anew, whatever it was.
func (w *watch) again() {
	w.mu.Lock()
	w.past = true
	w.mu.Unlock()
}

// disarm lets go of the context.
func (w *watch) disarm() {
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
