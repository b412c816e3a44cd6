package engine

import "sync"

// kqueue.go owns what is to be known about a kqueue besides its system calls: which
// connection its events are for, and what they mean. It is the same on all systems
// that have one, and tested on those that have none.

// A ledger is the connections that a kqueue watches, by their descriptors.
type ledger struct {
	mu      sync.Mutex
	watched map[int]watched
	waits   uint64 // begun so far
}

type watched struct {
	token
	since uint64 // the wait during which it came
}

func (l *ledger) add(fd int, t token) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.watched == nil {
		l.watched = make(map[int]watched)
	}
	l.watched[fd] = watched{t, l.waits}
}

func (l *ledger) remove(fd int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.watched, fd)
}

// begin begins a wait.
func (l *ledger) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waits++
}

// A change is what a kqueue says of a descriptor: one for its input (EVFILT_READ)
// and one for its output (EVFILT_WRITE).
type change struct {
	fd    int
	input bool
	end   bool // EV_EOF: of the input the peer's, of the output our own, or both are broken
	err   bool // and there is an error of the socket
}

// events translates what a wait that has ended brought. Changes of descriptors
// that nobody watches any more are left out.
func (l *ledger) events(changes []change, into []event) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range changes {
		w, ok := l.watched[c.fd]
		if !ok {
			continue
		}
		bits := writable
		if c.input {
			bits = readable
		}
		if c.end && c.input || c.err {
			bits |= readable | halfClosed
		}
		if c.err && w.since != l.waits { // else it may have been of the connection that had the descriptor before
			bits |= dead
		}
		into[n] = event{w.token, bits}
		n++
	}
	return n
}
