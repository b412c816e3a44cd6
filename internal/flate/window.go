package flate

// A Window is the end of everything that went one way, in compressed messages, on one connection: the history that the
// next message may refer to. It grows with what it is given, up to its size, and is a ring from then on, so that a short
// message costs its own length and not the window's.
type Window struct {
	buf  []byte // len(buf) <= size; it is a ring when it has grown to size
	end  int    // where the next byte goes
	size int
}

// NewWindow returns a window of 1<<bits bytes, 8 <= bits <= 15. It holds no memory until something is added.
func NewWindow(bits int) *Window { return &Window{size: 1 << bits} }

// reset makes w an empty window of size bytes.
func (w *Window) reset(size int) { *w = Window{buf: w.buf[:0], size: size} }

// Len returns how much history there is.
func (w *Window) Len() int {
	if w == nil {
		return 0
	}
	return len(w.buf)
}

// Add appends p, the plain form of what was sent or received compressed, and forgets what is too old.
func (w *Window) Add(p []byte) {
	if len(p) >= w.size {
		p = p[len(p)-w.size:]
		w.end = 0
		w.buf = w.buf[:0]
	}
	if len(w.buf) < w.size {
		p = p[w.fill(p):]
	}
	for len(p) > 0 {
		n := copy(w.buf[w.end:], p)
		p = p[n:]
		w.end = (w.end + n) & (w.size - 1)
	}
}

// fill appends as much of p as the window has yet room for, and returns how much that was. The room doubles, up to an
// eighth of what it can be.
func (w *Window) fill(p []byte) int {
	n := min(len(p), w.size-len(w.buf))
	if need := len(w.buf) + n; need > cap(w.buf) {
		room := min(max(cap(w.buf), 512), w.size)
		for room < need {
			room *= 2
		}
		if room > w.size/8 {
			room = w.size
		}
		w.buf = append(make([]byte, 0, room), w.buf...)
	}
	w.buf = append(w.buf, p[:n]...)
	w.end = len(w.buf) & (w.size - 1)
	return n
}

// copyAt copies to dst what begins back bytes before the end of the history, 0 < back <= Len(), and returns how much
// there was of it.
func (w *Window) copyAt(dst []byte, back int) int {
	dst = dst[:min(len(dst), back)]
	from := w.end - back
	if from < 0 {
		from += len(w.buf)
	}
	n := copy(dst, w.buf[from:])
	return n + copy(dst[n:], w.buf)
}

// ring returns the history, and where in it the oldest byte is, or, if it is not full, ends.
func (w *Window) ring() (buf []byte, end int) {
	if w == nil {
		return nil, 0
	}
	return w.buf, w.end
}
