package flate

import "errors"

// A reference inflates slowly and obviously, bit by bit, and remembers the largest distance. It is what the codec is
// judged by where compress/flate does not say enough.
type reference struct {
	src      []byte
	at       int    // bits read
	out      []byte // history, and then the message
	farthest int    // distance
}

var errReference = errors.New("reference: corrupt")

// inflateReference inflates a message that the decoder's contract allows; the panics of its helpers mean that it is not
// one.
func inflateReference(src, history []byte, reach int) (out []byte, farthest int, err error) {
	r := &reference{src: src, out: append([]byte(nil), history...)}
	defer func() {
		if e := recover(); e != nil {
			if e != errReference {
				panic(e)
			}
			err = errReference
		}
	}()
	for r.at < 8*len(r.src) && !r.block(reach) {
	}
	return r.out[len(history):], r.farthest, nil
}

func (r *reference) check(ok bool) {
	if !ok {
		panic(errReference)
	}
}

func (r *reference) bits(n int) (v int) {
	for i := range n {
		r.check(r.at < 8*len(r.src))
		v |= int(r.src[r.at/8]>>(r.at%8)&1) << i
		r.at++
	}
	return v
}

func (r *reference) align() { r.at = (r.at + 7) / 8 * 8 }

// block reads one, and reports whether it is the empty stored one of which nothing but the header is sent.
func (r *reference) block(reach int) bool {
	final := r.bits(1) == 1
	switch r.bits(2) {
	case 0:
		r.align()
		if r.at == 8*len(r.src) {
			return true
		}
		n, complement := r.bits(16), r.bits(16)
		r.check(n^complement == 0xffff)
		for range n {
			r.out = append(r.out, byte(r.bits(8)))
		}
	case 1:
		lit, dist := fixedLens()
		r.symbols(r.code(lit[:]), r.code(dist[:]), reach)
	case 2:
		r.dynamic(reach)
	default:
		r.check(false)
	}
	if final {
		r.align()
	}
	return false
}

// dynamic reads the codes of a dynamic block, and then the block.
func (r *reference) dynamic(reach int) {
	nlit, ndist, npre := r.bits(5)+257, r.bits(5)+1, r.bits(4)+4
	r.check(nlit <= 286 && ndist <= 30)
	preLens := make([]byte, 19)
	for _, s := range preOrder[:npre] {
		preLens[s] = byte(r.bits(3))
	}
	pre := r.code(preLens)
	var lens []byte
	repeat := func(n int, v byte) {
		for range n {
			lens = append(lens, v)
		}
	}
	for len(lens) < nlit+ndist {
		switch s := r.symbol(pre); s {
		case 16:
			r.check(len(lens) > 0)
			repeat(3+r.bits(2), lens[len(lens)-1])
		case 17:
			repeat(3+r.bits(3), 0)
		case 18:
			repeat(11+r.bits(7), 0)
		default:
			repeat(1, byte(s))
		}
	}
	r.check(len(lens) == nlit+ndist && lens[256] > 0)
	r.symbols(r.code(lens[:nlit]), r.code(lens[nlit:]), reach)
}

// A referenceCode has its symbols in the order of their codes: by length, and then by value.
type referenceCode struct {
	count   [16]int
	symbols []int
}

// code makes one, which must be complete, or of one code of one bit, or empty.
func (r *reference) code(lens []byte) *referenceCode {
	c := new(referenceCode)
	space := 0
	for n := 1; n <= 15; n++ {
		for s, l := range lens {
			if int(l) == n {
				c.count[n]++
				c.symbols = append(c.symbols, s)
				space += 1 << (15 - n)
			}
		}
	}
	used := len(c.symbols)
	r.check(space == 1<<15 || used == 0 || used == 1 && space == 1<<14)
	return c
}

// symbol reads one: bit after bit, until there is a code of that length and value.
func (r *reference) symbol(c *referenceCode) int {
	value, first, before := 0, 0, 0 // first is the first code of this length
	for n := 1; n <= 15; n++ {
		value = value<<1 | r.bits(1)
		first <<= 1
		if value-first < c.count[n] {
			return c.symbols[before+value-first]
		}
		first += c.count[n]
		before += c.count[n]
	}
	panic(errReference)
}

// symbols reads literals and matches up to the end of the block.
func (r *reference) symbols(lit, dist *referenceCode, reach int) {
	for {
		s := r.symbol(lit)
		switch {
		case s < 256:
			r.out = append(r.out, byte(s))
			continue
		case s == 256:
			return
		}
		r.check(s < 286)
		length := int(lengthBase[s-257]) + r.bits(int(lengthExtra[s-257]))
		s = r.symbol(dist)
		r.check(s < 30)
		d := int(distBase[s]) + r.bits(int(distExtra[s]))
		r.check(d <= reach && d <= len(r.out))
		r.farthest = max(r.farthest, d)
		for range length {
			r.out = append(r.out, r.out[len(r.out)-d])
		}
	}
}
