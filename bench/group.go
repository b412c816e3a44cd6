//go:build linux

package main

import (
	"io"
	"sync"
)

// A group is the members of a broadcast, for libraries that have none.
type group[T comparable] struct {
	mu      sync.Mutex
	members map[T]struct{}
}

func (g *group[T]) add(m T) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.members == nil {
		g.members = map[T]struct{}{}
	}
	g.members[m] = struct{}{}
}

func (g *group[T]) remove(m T) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.members, m)
}

func (g *group[T]) each(f func(T)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for m := range g.members {
		f(m)
	}
}

// readInto reads all of r into the memory of buf, as far as it goes.
func readInto(buf []byte, r io.Reader) ([]byte, error) {
	buf = buf[:0]
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err == io.EOF {
			return buf, nil
		}
		if err != nil {
			return buf, err
		}
	}
}
