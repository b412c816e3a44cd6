package autobahn

// A connection under test: one goroutine reads it, one writes it, so that neither direction can hold up the other
// or the case that runs.

import (
	"net"
	"runtime"
	"sync"
	"time"
)

// A job is one thing to write: data whole, or cut into pieces of chop octets with a pause between them.
type job struct {
	data []byte
	chop int
	gap  time.Duration // 0 with chop: a turn of the scheduler
	end  bool          // nothing follows: half-close when written
	cut  bool          // nothing follows: reset
}

// A wire owns a network connection.
type wire struct {
	conn net.Conn
	in   chan []byte   // what was read, in buffers of the wire's; closed when reading ended
	done chan struct{} // closed by drop

	once sync.Once
	mu   sync.Mutex
	jobs []job
	free [][]byte
	wake chan struct{}

	readErr error // valid once in is closed
	hold    chan struct{}
}

const readSize = 64 << 10

func newWire(c net.Conn) *wire {
	return &wire{conn: c, in: make(chan []byte, 4), done: make(chan struct{}), wake: make(chan struct{}, 1)}
}

// start begins to read and write. early is what came with the handshake; hold, if not nil, delays reading.
func (w *wire) start(early []byte, hold chan struct{}) {
	w.hold = hold
	go w.read(early)
	go w.write()
}

func (w *wire) read(early []byte) {
	defer close(w.in)
	if len(early) > 0 && !w.deliver(early) {
		return
	}
	if w.hold != nil {
		select {
		case <-w.hold:
		case <-w.done:
			return
		}
	}
	for {
		b := w.buffer(readSize)[:readSize]
		n, err := w.conn.Read(b)
		if n > 0 && !w.deliver(b[:n]) {
			return
		}
		if err != nil {
			w.readErr = err
			return
		}
	}
}

func (w *wire) deliver(b []byte) bool {
	select {
	case w.in <- b:
		return true
	case <-w.done:
		return false
	}
}

// buffer lends an empty buffer of some capacity; give returns it.
func (w *wire) buffer(size int) []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := len(w.free) - 1; i >= 0; i-- {
		if b := w.free[i]; cap(b) >= size {
			w.free[i] = w.free[len(w.free)-1]
			w.free = w.free[:len(w.free)-1]
			return b[:0]
		}
	}
	return make([]byte, 0, size)
}

func (w *wire) give(b []byte) {
	w.mu.Lock()
	if len(w.free) < 8 {
		w.free = append(w.free, b)
	}
	w.mu.Unlock()
}

// queue hands a job to the writer, which gives its buffer back. It never waits.
func (w *wire) queue(j job) {
	w.mu.Lock()
	w.jobs = append(w.jobs, j)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *wire) write() {
	for {
		j, ok := w.next()
		if !ok {
			select {
			case <-w.wake:
				continue
			case <-w.done:
				return
			}
		}
		if !w.writeJob(j) {
			return
		}
		if j.data != nil {
			w.give(j.data[:0])
		}
	}
}

func (w *wire) next() (job, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.jobs) == 0 {
		return job{}, false
	}
	j := w.jobs[0]
	w.jobs = append(w.jobs[:0], w.jobs[1:]...)
	return j, true
}

func (w *wire) writeJob(j job) bool {
	if j.end {
		w.halfClose()
		return false
	}
	if j.cut {
		w.drop(true)
		return false
	}
	step := j.chop
	if step == 0 {
		step = len(j.data)
	}
	for b := j.data; len(b) > 0; {
		n := min(step, len(b))
		if _, err := w.conn.Write(b[:n]); err != nil {
			return false // the reader learns of it too
		}
		if b = b[n:]; j.chop > 0 && !w.pause(j.gap) {
			return false
		}
	}
	return true
}

func (w *wire) pause(d time.Duration) bool {
	if d == 0 {
		runtime.Gosched()
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-w.done:
		return false
	}
}

func (w *wire) halfClose() {
	if c, ok := w.conn.(interface{ CloseWrite() error }); ok {
		c.CloseWrite()
	}
}

// drop ends the connection; abort does it with a reset. Only the first call counts.
func (w *wire) drop(abort bool) {
	w.once.Do(func() {
		close(w.done)
		raw := w.conn
		if t, ok := raw.(interface{ NetConn() net.Conn }); ok { // TLS: no close_notify that could block
			raw = t.NetConn()
		}
		if t, ok := raw.(*net.TCPConn); ok && abort {
			t.SetLinger(0)
		}
		raw.Close()
	})
}
