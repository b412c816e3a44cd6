package websocket

import (
	"math/bits"
	"sync"
)

// pool.go owns the buffers that are borrowed. A connection that waits holds
// none.

const (
	minBuffer = 9  // 512 bytes
	maxBuffer = 20 // 1 MiB; larger ones are left to the garbage collector
)

// A buffer is borrowed for as long as there is something in it.
type buffer struct {
	b     []byte
	batch // if it is an outbox's
}

var pools [maxBuffer - minBuffer + 1]sync.Pool

// borrow returns an empty buffer with room for at least n bytes.
func borrow(n int) *buffer {
	class := max(bits.Len(uint(max(n, 1)-1)), minBuffer)
	if class > maxBuffer {
		return &buffer{b: make([]byte, 0, n)}
	}
	if b, ok := pools[class-minBuffer].Get().(*buffer); ok {
		return b
	}
	return &buffer{b: make([]byte, 0, 1<<class)}
}

// release gives b back. Nothing may refer to its memory any more. A nil b is
// allowed.
func (b *buffer) release() {
	if b == nil {
		return
	}
	poison(b.b)
	class := bits.Len(uint(cap(b.b))) - 1
	if class < minBuffer || class > maxBuffer || cap(b.b) != 1<<class {
		return
	}
	b.b, b.batch = b.b[:0], batch{}
	pools[class-minBuffer].Put(b)
}

// size is how many bytes are in b, which may be nil.
func (b *buffer) size() int {
	if b == nil {
		return 0
	}
	return len(b.b)
}

// grow makes room for n more bytes in b, which may be nil, and returns the
// buffer to use from now on.
func (b *buffer) grow(n int) *buffer {
	if b != nil && cap(b.b)-len(b.b) >= n {
		return b
	}
	return b.larger(n)
}

func (b *buffer) larger(n int) *buffer {
	if b == nil {
		return borrow(n)
	}
	g := borrow(max(2*cap(b.b), len(b.b)+n))
	g.b, g.batch = append(g.b, b.b...), b.batch
	b.release()
	return g
}
