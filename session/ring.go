package session

import "sync"

// ring.go owns queues whose memory is borrowed, so that an idle session has none.

// A ring is a queue. A nil ring is empty.
type ring[T any] struct {
	a       []T // as many as a power of two
	head, n int
}

const (
	smallRing = 16
	largeRing = 4096 // larger ones are not lent again
)

func (r *ring[T]) len() int {
	if r == nil {
		return 0
	}
	return r.n
}

// at returns the one with i others before it.
func (r *ring[T]) at(i int) *T { return &r.a[(r.head+i)&(len(r.a)-1)] }

// push appends v; an empty ring is taken from the pool.
func (r *ring[T]) push(v T, pool *sync.Pool) *ring[T] {
	if r == nil {
		if r, _ = pool.Get().(*ring[T]); r == nil {
			r = &ring[T]{a: make([]T, smallRing)}
		}
	}
	if r.n == len(r.a) {
		a := make([]T, 2*r.n)
		copy(a[copy(a, r.a[r.head:]):], r.a[:r.head])
		r.a, r.head = a, 0
	}
	r.n++
	*r.at(r.n - 1) = v
	return r
}

// shift removes the first; an empty ring goes back to the pool.
func (r *ring[T]) shift(pool *sync.Pool) *ring[T] {
	var zero T
	*r.at(0) = zero
	r.head = (r.head + 1) & (len(r.a) - 1)
	if r.n--; r.n > 0 {
		return r
	}
	if r.head = 0; len(r.a) <= largeRing {
		pool.Put(r)
	}
	return nil
}
