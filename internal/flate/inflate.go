package flate

import (
	"math"
	"sync"
)

// A message may make us read freeInput bytes and inputPerOutput for each byte that it yields, RFC 7692, 8 in spirit:
// blocks without content cost time as others cost memory.
const (
	freeInput      = 64 << 10
	inputPerOutput = 8
)

// A phase is what an Inflater expects next. Everything in one phase is either taken as a whole or left in the input.
type phase uint8

const (
	atHeader  phase = iota // of a block, or the end of the message
	atStored               // the length of a stored block
	inStored               // its bytes
	atCounts               // a dynamic block: how many code lengths
	inPreLens              // the lengths of the code that they are written in
	inLens                 // they
	inCodes                // literals and matches
)

// An Inflater decodes one compressed message, RFC 7692, 7.2.2, that may come in parts. Borrow one with NewInflater and
// give it back with Free.
type Inflater struct {
	src  []byte // the input not looked at; nil between calls
	bits uint64 // the next nb bits of input, the first lowest; above them anything that is also in src, or 0
	nb   uint
	out  []byte // what Append returns; nil between calls
	full bool   // it has no room for what comes next

	phase  phase
	final  bool // the block is marked as the last, which need not be so
	err    error
	stored int // bytes of the stored block to come

	window *Window
	own    Window // for a message that has none and is longer than its buffer
	reach  int    // the largest distance allowed
	have   int    // bytes at the end of out that are history
	total  int64  // bytes of the message
	limit  int64  // for total
	fed    int64  // bytes of input, src included

	lit, dist, pre, done int // code lengths: how many of each code, and how many are read
	preLens              [numPre]uint8
	preTable             [1 << maxPreLen]uint32
	last                 codeLen   // the length that repeatLast repeats
	codeLens             []codeLen // those that are not 0
	codes                *tables   // these or the fixed ones
	tables               tables
}

var inflaters = sync.Pool{New: func() any {
	return &Inflater{codeLens: make([]codeLen, 0, maxLitLen+maxDist)}
}}

// NewInflater borrows an Inflater for one message whose distances reach back at most 1<<bits bytes, also into w, which
// may be nil, and whose plain form has at most limit bytes; a negative limit is none. It keeps w until Free.
func NewInflater(w *Window, bits int, limit int64) *Inflater {
	z := inflaters.Get().(*Inflater)
	if limit < 0 {
		limit = math.MaxInt64
	}
	z.window, z.reach, z.limit = w, 1<<bits, limit
	z.bits, z.nb, z.phase, z.final, z.err = 0, 0, atHeader, false, nil
	z.have, z.total, z.fed = 0, 0, 0
	return z
}

// Free gives z back. It must not be used any more.
func (z *Inflater) Free() {
	z.window = nil
	inflaters.Put(z)
}

// Append decodes src, the next part of the message, cut anywhere, and appends to dst, within its capacity, what it says. It
// returns how much of src it used: all, or with ErrFull what fitted; then Append goes on with the rest of src and more
// room, 258 bytes at least. The history is in dst: it must end with all that was appended since the last Slide. Spare room
// may be written to. With an error comes what was decoded before.
func (z *Inflater) Append(dst, src []byte) (out []byte, n int, err error) {
	if z.err != nil {
		return dst, 0, z.err
	}
	z.src, z.out, z.full = src, dst, false
	z.fed += int64(len(src))
	for z.err == nil && z.step() {
	}
	z.bits &= 1<<z.nb - 1
	z.fed -= int64(len(z.src))
	out, n, err = z.out, len(src)-len(z.src), z.err
	if err == nil && z.full {
		err = ErrFull
	}
	z.src, z.out = nil, nil
	return out, n, err
}

// Close ends the message. Its sender cut off 00 00 ff ff (RFC 7692, 7.2.1), so that it has to end behind the header of
// a stored block. Between two blocks will do, for those who did not cut, or marked a block as final and stopped there;
// this makes the message of no bytes an empty one.
func (z *Inflater) Close() error {
	if z.err == nil && (z.nb > 0 || z.phase != atStored && z.phase != atHeader) {
		z.err = ErrCorrupt
	}
	return z.err
}

// Slide adds to the window what was appended to dst since the last Slide; if there is none, to one that lasts as long as
// the message. The next Append may begin with another dst. Call it when dst is to be used for something else, and before
// Free if the window is to know this message.
func (z *Inflater) Slide(dst []byte) {
	if z.window == nil {
		z.own.reset(z.reach)
		z.window = &z.own
	}
	z.window.Add(dst[len(dst)-z.have:])
	z.have = 0
}

// step does what the phase is about. It reports whether it could: if not, more input is needed, or there is an error.
func (z *Inflater) step() bool {
	switch z.phase {
	case atHeader:
		return z.header()
	case atStored:
		return z.storedHeader()
	case inStored:
		return z.storedBytes()
	case atCounts:
		return z.counts()
	case inPreLens:
		return z.readPreLens()
	case inLens:
		return z.readLens()
	default:
		if len(z.src) >= 8 {
			z.fast()
		}
		return z.slow()
	}
}

// fail is the way out of a step for an error.
func (z *Inflater) fail(err error) bool {
	z.err = err
	return false
}

// refill takes input until there are 56 bits or no more input.
func refill(b uint64, nb uint, src []byte) (uint64, uint, []byte) {
	if len(src) >= 8 {
		b |= load64(src, 0) << (nb & 63)
		return b, nb | 56, src[(63-nb)>>3:]
	}
	for nb < 56 && len(src) > 0 {
		b |= uint64(src[0]) << (nb & 63)
		src = src[1:]
		nb += 8
	}
	return b, nb, src
}

func (z *Inflater) refill() { z.bits, z.nb, z.src = refill(z.bits, z.nb, z.src) }

// need reports whether there are n bits, n <= 56.
func (z *Inflater) need(n uint) bool {
	if z.nb < n {
		z.refill()
	}
	return z.nb >= n
}

// take takes n bits, which must be there.
func (z *Inflater) take(n uint) int {
	v := z.bits & (1<<n - 1)
	z.bits >>= n
	z.nb -= n
	return int(v)
}

// header is RFC 1951, 3.2.3.
func (z *Inflater) header() bool {
	used := z.fed - int64(len(z.src)) - int64(z.nb>>3)
	if used > freeInput && (used-freeInput)/inputPerOutput > z.total {
		return z.fail(ErrTooMuchWork)
	}
	if !z.need(3) {
		return false
	}
	z.final = z.take(1) == 1
	switch z.take(2) {
	case storedBlock:
		z.take(z.nb & 7)
		z.phase = atStored
	case fixedBlock:
		z.codes = fixedTables()
		z.phase = inCodes
	case dynamicBlock:
		z.phase = atCounts
	default:
		return z.fail(ErrCorrupt)
	}
	return true
}

// endBlock is between two blocks. RFC 7692, 7.2.1: after one that is marked as final and padded there may be more.
func (z *Inflater) endBlock() bool {
	if z.final {
		z.take(z.nb & 7)
	}
	z.phase = atHeader
	return true
}

// storedHeader is RFC 1951, 3.2.4.
func (z *Inflater) storedHeader() bool {
	if !z.need(32) {
		return false
	}
	n, check := z.take(16), z.take(16)
	if n != check^0xffff {
		return z.fail(ErrCorrupt)
	}
	if int64(n) > z.limit-z.total {
		return z.fail(ErrTooBig)
	}
	z.stored = n
	z.phase = inStored
	return true
}

// storedBytes copies, first what the bit buffer has already taken.
func (z *Inflater) storedBytes() bool {
	for z.stored > 0 && z.nb > 0 {
		if !z.fits(1) {
			return false
		}
		z.out = append(z.out, byte(z.take(8)))
		z.wrote(1)
		z.stored--
	}
	if z.nb == 0 {
		z.bits = 0 // src moves on without it
		n := min(z.stored, len(z.src), cap(z.out)-len(z.out))
		z.out = append(z.out, z.src[:n]...)
		z.src = z.src[n:]
		z.wrote(n)
		z.stored -= n
		if z.stored > 0 && len(z.src) > 0 {
			return z.fits(1)
		}
	}
	return z.stored == 0 && z.endBlock()
}

// wrote counts n bytes of output.
func (z *Inflater) wrote(n int) {
	z.have += n
	z.total += int64(n)
}

// counts is HLIT, HDIST and HCLEN, RFC 1951, 3.2.7.
func (z *Inflater) counts() bool {
	if !z.need(14) {
		return false
	}
	z.lit, z.dist, z.pre = z.take(5)+257, z.take(5)+1, z.take(4)+4
	if z.lit > maxLitLen || z.dist > maxDist {
		return z.fail(ErrCorrupt)
	}
	z.done = 0
	z.phase = inPreLens
	return true
}

// readPreLens reads the code length code, 3 bits for each length.
func (z *Inflater) readPreLens() bool {
	for ; z.done < z.pre; z.done++ {
		if !z.need(3) {
			return false
		}
		z.preLens[preOrder[z.done]] = uint8(z.take(3))
	}
	for _, s := range preOrder[z.pre:] {
		z.preLens[s] = 0
	}
	z.codeLens = appendCodeLens(z.codeLens[:0], z.preLens[:])
	if !buildTable(z.preTable[:], maxPreLen, z.codeLens, preEntries[:]) {
		return z.fail(ErrCorrupt)
	}
	z.done, z.last, z.codeLens = 0, noLast, z.codeLens[:0]
	z.phase = inLens
	return true
}

// readLens reads the lengths of both codes, which are one sequence, RFC 1951, 3.2.7. A length is not taken before all of
// its bits, and how often it occurs, are there.
func (z *Inflater) readLens() bool {
	b, nb, src := z.bits, z.nb, z.src
	all, short, last, lens := z.lit+z.dist, false, z.last, z.codeLens
	for z.done < all {
		if nb < maxPreLen+7 {
			b, nb, src = refill(b, nb, src)
		}
		e := z.preTable[b&(1<<maxPreLen-1)]
		n := uint(e & 0x3f)
		if short = n > nb; short {
			break
		}
		times := int(e>>24) + int(b&(1<<n-1)>>(e>>8&15))
		b >>= n
		nb -= n
		if value := codeLen(e >> 16 & 0xff); value != repeatLast {
			last = value
		}
		if e&isInvalid != 0 || last == noLast || times > all-z.done {
			break
		}
		if last != 0 {
			for s := z.done; s < z.done+times; s++ {
				lens = append(lens, codeLen(s)<<4|last)
			}
		}
		z.done += times
	}
	z.bits, z.nb, z.src = b, nb, src
	z.last, z.codeLens = last, lens
	if short {
		return false
	}
	return z.done == all && z.buildCodes() || z.fail(ErrCorrupt)
}

// buildCodes makes the tables of a dynamic block. A block ends with a code, so that there must be one for that.
func (z *Inflater) buildCodes() bool {
	i, ends := 0, false
	for ; i < len(z.codeLens) && z.codeLens[i].symbol() < z.lit; i++ {
		ends = ends || z.codeLens[i].symbol() == endOfBlock
	}
	dist := z.codeLens[i:]
	for i := range dist {
		dist[i] -= codeLen(z.lit) << 4
	}
	z.codes = &z.tables
	z.phase = inCodes
	return ends && buildTable(z.tables.lit[:], litRoot, z.codeLens[:i], litEntries[:]) &&
		buildTable(z.tables.dist[:], distRoot, dist, distEntries[:])
}

// lookup finds the entry for the next bits, b, and how many bits of the code come before those that it counts.
func lookup(table []uint32, rootBits uint, b uint64) (entry uint32, before uint) {
	e := table[b&(1<<rootBits-1)]
	if e&isPointer == 0 || e&isSpecial == 0 {
		return e, 0
	}
	return table[uint64(e>>16)&0xfff+b>>rootBits&(1<<(e>>8&15)-1)], rootBits
}

// value is the base and the extra bits of a length or distance, which entry e says of the bits b.
func value(e uint32, b uint64) int {
	return int(e>>16) + int(b&(1<<(e&0x3f)-1)>>(e>>8&15))
}

// slow decodes one literal, match or end of block where input or room is short.
func (z *Inflater) slow() bool {
	z.refill()
	e, n := lookup(z.codes.lit[:], litRoot, z.bits)
	b := z.bits >> n
	n += uint(e & 0x3f)
	switch {
	case n > z.nb:
		return false
	case e&isLiteral != 0:
		if z.total == z.limit {
			return z.fail(ErrTooBig)
		}
		if !z.fits(1) {
			return false
		}
		z.take(n)
		z.out = append(z.out, byte(e>>16))
		z.wrote(1)
		return true
	case e&isSpecial != 0:
		z.take(n)
		if e&isInvalid != 0 {
			return z.fail(ErrCorrupt)
		}
		return z.endBlock()
	}
	length := value(e, b)
	b = z.bits >> n
	e, before := lookup(z.codes.dist[:], distRoot, b)
	b >>= before
	n += before + uint(e&0x3f)
	if n > z.nb {
		return false
	}
	return z.match(length, value(e, b), e, n)
}

// match appends length bytes that occurred distance bytes before, and takes the bits that said so.
func (z *Inflater) match(length, distance int, e uint32, bits uint) bool {
	if e&isInvalid != 0 || distance > z.reach || distance > z.have+z.window.Len() {
		return z.fail(ErrCorrupt)
	}
	if int64(length) > z.limit-z.total {
		return z.fail(ErrTooBig)
	}
	if !z.fits(length) {
		return false
	}
	z.take(bits)
	n := len(z.out)
	z.out = z.out[:n+length]
	if distance > z.have {
		n += z.window.copyAt(z.out[n:], distance-z.have)
	}
	for ; n < len(z.out); n++ {
		z.out[n] = z.out[n-distance]
	}
	z.wrote(length)
	return true
}

// fits tells whether there is room for n more bytes of output. If not, the step is to be done again.
func (z *Inflater) fits(n int) bool {
	z.full = cap(z.out)-len(z.out) < n
	return !z.full
}
