package autobahn

// Message after message, each when the echo of the last is there: 9.7, 9.8, 12 and 13.

import (
	"bytes"
	"fmt"
	"sync"
)

// A talk is where such a case stands.
type talk struct {
	op         byte
	done       int
	want       func(k int) []byte // message k
	lengthOnly bool
	tape       *tape // nil: not compressed
	fragment   int   // size of fragments of the compressed payload; 0: none
}

// send writes the message whose turn it is.
func (t *talk) send(r *run) {
	m := t.want(t.done)
	if t.tape == nil {
		r.txMessage(len(m), len(m))
		r.send(one, frame{op: t.op, payload: m})
		return
	}
	p := t.tape.payload(t.done)
	r.txMessage(len(m), len(p))
	out := r.wire.buffer(len(p) + 64)
	for first := true; ; first = false {
		f := frame{op: opCont, payload: p}
		if first {
			f.op, f.rsv = t.op, rsv1
		}
		// An exact multiple ends in an empty fragment; what fits into one is not cut.
		if f.more = t.fragment > 0 && (len(p) > t.fragment || len(p) == t.fragment && !first); f.more {
			f.payload = p[:t.fragment]
		}
		p = p[len(f.payload):]
		out = r.encode(out, f)
		if !f.more {
			break
		}
	}
	r.write(job{data: out})
}

// nextOfTalk compares an echo and goes on.
func nextOfTalk(r *run, m message) {
	t := r.talk
	want := t.want(t.done)
	same := m.op == t.op && len(m.data) == len(want) && (t.lengthOnly || bytes.Equal(m.data, want))
	switch {
	case r.state != open:
		r.set(Failed, "a message came after the last one")
		return
	case !same:
		r.set(Failed, fmt.Sprintf("the echo of message %d differs: %s of %d octets for %s of %d",
			t.done+1, kindName(m.op), len(m.data), kindName(t.op), len(want)))
		r.close(1000, "")
		return
	}
	t.done++
	if t.done == r.cfg.messages() {
		r.set(OK, fmt.Sprintf("%d messages came back", t.done))
		r.close(1000, "")
		return
	}
	t.send(r)
}

// A tape holds the compressed payloads of one corpus, size, window and takeover: they come out the same on every
// connection, so connections share them, unless they would take too much memory.
type tape struct {
	corpus *corpus
	size   int
	keep   bool

	mu       sync.Mutex
	deflater *deflater
	made     [][]byte // payload k, if keep is set
	last     []byte
}

type tapeKey struct {
	corpus *corpus
	size   int
	codecTerms
}

var (
	tapesMu sync.Mutex
	tapes   = map[tapeKey]*tape{}
)

const tapeLimit = 8 << 20 // octets that one shared tape may be expected to hold

// newTape finds a shared tape, or makes one for this connection alone.
func newTape(c *corpus, size, count int, t codecTerms) *tape {
	fresh := func(keep bool) *tape {
		return &tape{corpus: c, size: size, keep: keep, deflater: newDeflater(t.bits, t.takeover)}
	}
	if float64(size*count)*c.ratio > tapeLimit {
		return fresh(false)
	}
	tapesMu.Lock()
	defer tapesMu.Unlock()
	key := tapeKey{c, size, t}
	if tapes[key] == nil {
		tapes[key] = fresh(true)
	}
	return tapes[key]
}

// payload returns compressed message k, lent. On a tape that is not kept, k counts up by one.
func (t *tape) payload(k int) []byte {
	if !t.keep {
		t.last = t.deflater.compress(t.last[:0], t.corpus.slice(k, t.size))
		return t.last
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.made) <= k {
		t.last = t.deflater.compress(t.last[:0], t.corpus.slice(len(t.made), t.size))
		t.made = append(t.made, bytes.Clone(t.last))
	}
	return t.made[k]
}
