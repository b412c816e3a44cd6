// Package reference inflates slowly and obviously, bit by bit, with tables of its own. It is what the codec, and the
// model of a connection, are judged by where compress/flate does not say enough: how far a distance reaches, what may
// follow a final block, and at which bit a message is past saving.
package reference

// A Verdict says how a message stands when its bits so far have been read.
type Verdict int

const (
	Whole       Verdict = iota // it may end here (RFC 7692, 7.2.2)
	Unfinished                 // something has begun that has not ended
	Corrupt                    // whatever follows
	TooBig                     // the next literal, match or stored block does not fit into the limit
	TooMuchWork                // more than 64 KiB and 8 bytes for each one of output have been read
)

// Inflate reads a message, or the beginning of one, whose matches may reach back that many bytes, also into history, and
// which says at most limit bytes. It returns what it says up to the verdict, and its largest distance.
func Inflate(src, history []byte, reach, limit int) (out []byte, farthest int, v Verdict) {
	r := &inflater{src: src, out: append([]byte(nil), history...), reach: reach, limit: len(history) + limit}
	defer func() {
		if e := recover(); e != nil {
			var ok bool
			if v, ok = e.(Verdict); !ok {
				panic(e)
			}
		}
		out, farthest = r.out[len(history):], r.farthest
	}()
	for {
		used, said := (r.at+7)/8, len(r.out)-len(history)
		r.check(used <= 64<<10 || (used-64<<10)/8 <= said, TooMuchWork)
		if r.at == 8*len(src) || r.block() {
			return nil, 0, Whole
		}
	}
}

// An inflater leaves with a panic of a Verdict.
type inflater struct {
	src          []byte
	at           int    // bits read
	out          []byte // history, and then the message
	farthest     int
	reach, limit int
}

func (r *inflater) check(ok bool, otherwise Verdict) {
	if !ok {
		panic(otherwise)
	}
}

func (r *inflater) bits(n int) (v int) {
	for i := range n {
		r.check(r.at < 8*len(r.src), Unfinished)
		v |= int(r.src[r.at/8]>>(r.at%8)&1) << i
		r.at++
	}
	return v
}

func (r *inflater) align() { r.at = (r.at + 7) / 8 * 8 }

// block reads one, RFC 1951, 3.2.3, and reports whether it is the empty stored one of which nothing but the header is
// sent (RFC 7692, 7.2.1).
func (r *inflater) block() bool {
	final := r.bits(1) == 1
	switch r.bits(2) {
	case 0:
		r.align()
		if r.at == 8*len(r.src) {
			return true
		}
		n, complement := r.bits(16), r.bits(16)
		r.check(n^complement == 0xffff, Corrupt)
		r.check(len(r.out)+n <= r.limit, TooBig)
		for range n {
			r.out = append(r.out, byte(r.bits(8)))
		}
	case 1:
		r.fixed()
	case 2:
		r.dynamic()
	default:
		r.check(false, Corrupt)
	}
	if final {
		r.align()
	}
	return false
}

// fixed reads a block with the codes of RFC 1951, 3.2.6.
func (r *inflater) fixed() {
	lit, dist := make([]byte, 288), make([]byte, 32)
	for s := range lit {
		switch {
		case s <= 143:
			lit[s] = 8
		case s <= 255:
			lit[s] = 9
		case s <= 279:
			lit[s] = 7
		default:
			lit[s] = 8
		}
	}
	for s := range dist {
		dist[s] = 5
	}
	r.symbols(r.code(lit), r.code(dist))
}

// dynamic reads the codes of a block, RFC 1951, 3.2.7, and then the block.
func (r *inflater) dynamic() {
	nlit, ndist, npre := r.bits(5)+257, r.bits(5)+1, r.bits(4)+4
	r.check(nlit <= 286 && ndist <= 30, Corrupt)
	preLens := make([]byte, 19)
	for _, s := range []int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}[:npre] {
		preLens[s] = byte(r.bits(3))
	}
	pre := r.code(preLens)
	var lens []byte
	repeat := func(n int, v byte) {
		r.check(len(lens)+n <= nlit+ndist, Corrupt)
		for range n {
			lens = append(lens, v)
		}
	}
	for len(lens) < nlit+ndist {
		switch s := r.symbol(pre); s {
		case 16:
			n := 3 + r.bits(2)
			r.check(len(lens) > 0, Corrupt)
			repeat(n, lens[len(lens)-1])
		case 17:
			repeat(3+r.bits(3), 0)
		case 18:
			repeat(11+r.bits(7), 0)
		default:
			repeat(1, byte(s))
		}
	}
	r.check(lens[256] > 0, Corrupt)
	r.symbols(r.code(lens[:nlit]), r.code(lens[nlit:]))
}

// A code has its symbols in the order of their codes: by length, and then by value.
type code struct {
	count   [16]int
	symbols []int
}

// code makes one, which must be complete, or of one code of one bit, or empty.
func (r *inflater) code(lens []byte) *code {
	c := new(code)
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
	r.check(space == 1<<15 || used == 0 || used == 1 && space == 1<<14, Corrupt)
	return c
}

// symbol reads one: bit after bit, while there are codes that are longer.
func (r *inflater) symbol(c *code) int {
	value, first, before := 0, 0, 0 // first is the first code of this length
	for n := 1; before < len(c.symbols); n++ {
		value = value<<1 | r.bits(1)
		first <<= 1
		if value-first < c.count[n] {
			return c.symbols[before+value-first]
		}
		first += c.count[n]
		before += c.count[n]
	}
	panic(Corrupt)
}

// What the symbols from 257 mean, and those of distances, RFC 1951, 3.2.5: a base and the number of extra bits.
var (
	lengths = [][2]int{{3, 0}, {4, 0}, {5, 0}, {6, 0}, {7, 0}, {8, 0}, {9, 0}, {10, 0}, {11, 1}, {13, 1}, {15, 1}, {17, 1},
		{19, 2}, {23, 2}, {27, 2}, {31, 2}, {35, 3}, {43, 3}, {51, 3}, {59, 3}, {67, 4}, {83, 4}, {99, 4}, {115, 4},
		{131, 5}, {163, 5}, {195, 5}, {227, 5}, {258, 0}}
	distances = [][2]int{{1, 0}, {2, 0}, {3, 0}, {4, 0}, {5, 1}, {7, 1}, {9, 2}, {13, 2}, {17, 3}, {25, 3}, {33, 4}, {49, 4},
		{65, 5}, {97, 5}, {129, 6}, {193, 6}, {257, 7}, {385, 7}, {513, 8}, {769, 8}, {1025, 9}, {1537, 9}, {2049, 10},
		{3073, 10}, {4097, 11}, {6145, 11}, {8193, 12}, {12289, 12}, {16385, 13}, {24577, 13}}
)

// symbols reads literals and matches up to the end of the block.
func (r *inflater) symbols(lit, dist *code) {
	for {
		s := r.symbol(lit)
		switch {
		case s < 256:
			r.check(len(r.out) < r.limit, TooBig)
			r.out = append(r.out, byte(s))
			continue
		case s == 256:
			return
		}
		r.check(s < 286, Corrupt)
		length := lengths[s-257][0] + r.bits(lengths[s-257][1])
		s = r.symbol(dist)
		r.check(s < 30, Corrupt)
		d := distances[s][0] + r.bits(distances[s][1])
		r.check(d <= r.reach && d <= len(r.out), Corrupt)
		r.check(len(r.out)+length <= r.limit, TooBig)
		r.farthest = max(r.farthest, d)
		for range length {
			r.out = append(r.out, r.out[len(r.out)-d])
		}
	}
}
