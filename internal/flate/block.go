package flate

import (
	"encoding/binary"
	"sync"
)

// tinySize is a size in bits, in the fixed code, at which a dynamic block cannot pay for its header.
const tinySize = 60 * 8

// A coder writes the sequences of a block.
type coder struct {
	codes  codes
	forest forest

	lens     []codeLen // of codes, the distances behind the literals; in lensRoom
	lensRoom [maxLitLen + maxDist]codeLen
	nlit     int // how many code lengths are sent of each
	ndist    int

	pre     [numPre]code // the code length code
	npre    int
	preFreq [32]uint32
	symbols []uint16 // the code lengths in that code: the symbol, and << 5 the extra bits; in symRoom
	symRoom [maxLitLen + maxDist]uint16
}

// codes are those of one block.
type codes struct {
	lit     [maxLitLen]code
	dist    [32]code
	lengths [32]field // by lengthSlot
	dists   [32]field // by distSlot
}

// A field is how a length or distance is written: bits 0 to 15 are the code, 16 to 23 its length, 24 to 31 how many
// extra bits follow, 32 to 47 what they are counted from.
type field uint64

// setFields makes the fields from the codes.
func (c *codes) setFields() {
	for s, base := range lengthBase {
		c.lengths[s] = field(c.lit[endOfBlock+1+s]) | field(lengthExtra[s])<<24 | field(base)<<32
	}
	for s, base := range distBase {
		c.dists[s] = field(c.dist[s]) | field(distExtra[s])<<24 | field(base)<<32
	}
}

// fixedCodes are those of fixed blocks.
var fixedCodes = sync.OnceValue(func() *codes {
	c := new(codes)
	lit, dist := fixedLens()
	all := make([]code, len(lit)) // two more than can be used have a code
	number(all, appendCodeLens(nil, lit[:]))
	copy(c.lit[:], all)
	number(c.dist[:], appendCodeLens(nil, dist[:]))
	c.setFields()
	return c
})

// write writes a block, the plain form of which is src, in the shortest of the three forms.
func (c *coder) write(w *bitWriter, f *finder, src []byte) {
	extra, dists := 0, 0
	for s, n := range lengthExtra {
		extra += int(n) * int(f.litFreq[endOfBlock+1+s])
	}
	for s, n := range distExtra {
		extra += int(n) * int(f.distFreq[s])
		dists += int(f.distFreq[s])
	}
	fixed := fixedCodes()
	fixedSize := 3 + extra + 5*dists
	for s, n := range f.litFreq {
		fixedSize += int(n) * int(fixed.lit[s].len())
	}
	dynamicSize := fixedSize
	if fixedSize > tinySize {
		dynamicSize = c.plan(f) + extra
	}
	storedSize := 3 + 7 + 32 + 8*len(src)
	w.room(min(storedSize, fixedSize, dynamicSize))
	switch {
	case storedSize < min(fixedSize, dynamicSize):
		w.stored(src)
	case fixedSize <= dynamicSize:
		w.put(fixedBlock<<1, 3)
		w.body(f.sequences, src, fixed)
	default:
		c.header(w)
		c.codes.setFields()
		w.body(f.sequences, src, &c.codes)
	}
}

// stored writes a stored block, RFC 1951, 3.2.4.
func (w *bitWriter) stored(src []byte) {
	w.put(storedBlock<<1, 3)
	w.align()
	w.dst = binary.LittleEndian.AppendUint16(w.dst, uint16(len(src)))
	w.dst = binary.LittleEndian.AppendUint16(w.dst, ^uint16(len(src)))
	w.dst = append(w.dst, src...)
}

// plan makes the codes for a dynamic block, and returns how many bits it takes without the extra ones.
func (c *coder) plan(f *finder) int {
	lens, litSize := c.forest.build(c.codes.lit[:], f.litFreq[:], maxLitBits, c.lensRoom[:0], 0)
	c.nlit = lens[len(lens)-1].symbol() + 1
	lens, distSize := c.forest.build(c.codes.dist[:maxDist], f.distFreq[:maxDist], maxDistBits, lens, c.nlit)
	c.ndist = lens[len(lens)-1].symbol() + 1 - c.nlit
	c.lens = lens
	c.planLens()
	var room [numPre]codeLen
	_, preSize := c.forest.build(c.pre[:], c.preFreq[:numPre], maxPreLen, room[:0], 0)
	c.npre = numPre
	for c.npre > 4 && c.pre[preOrder[c.npre-1]] == 0 {
		c.npre--
	}
	for s, n := range preExtra {
		preSize += int(n) * int(c.preFreq[s])
	}
	return 3 + 5 + 5 + 4 + 3*c.npre + preSize + litSize + distSize
}

// planLens writes the code lengths in the alphabet of RFC 1951, 3.2.7, and counts its symbols.
func (c *coder) planLens() {
	clear(c.preFreq[:])
	c.symbols = c.symRoom[:0]
	at := 0
	for lens := c.lens; len(lens) > 0; {
		first, n := lens[0], 1
		for n < len(lens) && lens[n] == first+codeLen(n<<4) {
			n++
		}
		lens = lens[n:]
		c.zeros(first.symbol() - at)
		c.symbols = append(c.symbols, uint16(first&15))
		c.repeat(uint16(first&15), n-1, repeatLast, 3, 6)
		at = first.symbol() + n
	}
	for _, s := range c.symbols {
		c.preFreq[s&31]++
	}
}

// zeros writes n lengths of 0.
func (c *coder) zeros(n int) {
	for ; n >= 11; n -= min(n, 138) {
		c.symbols = append(c.symbols, 18|uint16(min(n, 138)-11)<<5)
	}
	c.repeat(0, n, 17, 3, 10)
}

// repeat writes a length n times, with the symbol that stands for least to most times, or on its own.
func (c *coder) repeat(length uint16, n int, symbol uint16, least, most int) {
	for ; n >= least; n -= min(n, most) {
		c.symbols = append(c.symbols, symbol|uint16(min(n, most)-least)<<5)
	}
	for ; n > 0; n-- {
		c.symbols = append(c.symbols, length)
	}
}

// header writes what comes before the body of a dynamic block, RFC 1951, 3.2.7.
func (c *coder) header(w *bitWriter) {
	w.put(dynamicBlock<<1, 3)
	w.put(uint32(c.nlit-257), 5)
	w.put(uint32(c.ndist-1), 5)
	w.put(uint32(c.npre-4), 4)
	for _, s := range preOrder[:c.npre] {
		w.put(uint32(c.pre[s].len()), 3)
	}
	for _, p := range c.symbols {
		s := p & 31
		w.code(c.pre[s])
		w.put(uint32(p>>5), uint(preExtra[s]))
	}
}

// preExtra is the number of extra bits of the symbols of the code length code.
var preExtra = [numPre]uint8{repeatLast: 2, 17: 3, 18: 7}

// body writes sequences, the plain form of which is src, and the end of the block. The bits are collected in a word
// as elsewhere in bitWriter; flushed, it has 7 at most, so that there is room for four literals or a match.
func (w *bitWriter) body(all []sequence, src []byte, c *codes) {
	w.flush()
	dst, n, acc, nb := w.dst[:cap(w.dst)], len(w.dst), w.acc, w.nb
	var last [4]byte
	for i := range all {
		s := &all[i]
		for run := int(s.literals); ; run -= 4 {
			p := src
			if len(p) < 4 {
				copy(last[:], p)
				p = last[:]
			}
			// Four at a time, those that are too many with no bits: how many there are is not to be predicted.
			mask := &literalMasks[min(run, 4)]
			x := c.lit[p[0]] & mask[0]
			acc |= uint64(x&0xffff) << (nb & 63)
			nb += uint(x >> 16)
			x = c.lit[p[1]] & mask[1]
			acc |= uint64(x&0xffff) << (nb & 63)
			nb += uint(x >> 16)
			x = c.lit[p[2]] & mask[2]
			acc |= uint64(x&0xffff) << (nb & 63)
			nb += uint(x >> 16)
			x = c.lit[p[3]] & mask[3]
			acc |= uint64(x&0xffff) << (nb & 63)
			nb += uint(x >> 16)
			binary.LittleEndian.PutUint64(dst[n:n+8:n+8], acc)
			n += int(nb >> 3)
			acc >>= nb & 56
			nb &= 7
			if run <= 4 {
				src = src[run:]
				break
			}
			src = src[4:]
		}
		if s.slot == noMatch {
			break
		}
		src = src[int(s.length)+minMatch:]
		f := uint64(c.lengths[lengthSlot[s.length]&31])
		acc |= (f&0xffff | (uint64(s.length)+minMatch-f>>32)<<(f>>16&63)) << (nb & 63)
		nb += uint(f>>16&0xff + f>>24&0xff)
		f = uint64(c.dists[s.slot&31])
		acc |= (f&0xffff | (uint64(s.distance)+1-f>>32)<<(f>>16&63)) << (nb & 63)
		nb += uint(f>>16&0xff + f>>24&0xff)
		binary.LittleEndian.PutUint64(dst[n:n+8:n+8], acc)
		n += int(nb >> 3)
		acc >>= nb & 56
		nb &= 7
	}
	w.dst, w.acc, w.nb = dst[:n], acc, nb
	w.code(c.lit[endOfBlock])
}

// literalMasks[n] keeps the first n codes of four.
var literalMasks = [5][4]code{1: {^code(0)}, 2: {^code(0), ^code(0)}, 3: {^code(0), ^code(0), ^code(0)},
	4: {^code(0), ^code(0), ^code(0), ^code(0)}}
