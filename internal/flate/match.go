package flate

import (
	"encoding/binary"
	"math/bits"
)

const (
	tableBits = 14
	hashBytes = 5    // what a match has at least, nearly always: shorter ones save little, and each costs time
	noMatch   = 0xff // for the slot of a distance

	firstBase = maxDistance + 1 // so that what was never entered, at 0, is too far away
	maxBase   = 1 << 30         // from which positions begin anew
)

// A sequence is some literals and then a match, or at the end of a block none.
type sequence struct {
	literals uint16
	distance uint16 // less 1
	length   uint8  // less minMatch
	slot     uint8  // the distance's symbol, or noMatch
}

// A finder cuts blocks into sequences. Every byte has a position, which is counted on from message to message: what the
// table says of an earlier message is too far away to be believed, so that the table need not be cleared.
type finder struct {
	window uint32                 // the largest distance
	base   uint32                 // the position of the first byte of what find is given
	table  [1 << tableBits]uint32 // by hash, the last position where it occurred

	sequences []sequence // of the block; in space
	space     [maxBlock/4 + 2]sequence
	litFreq   [maxLitLen]uint32 // how often they have each symbol
	distFreq  [32]uint32
}

// begin begins a message.
func (f *finder) begin(window int) {
	f.window = uint32(window)
	if f.base == 0 || f.base > maxBase {
		clear(f.table[:])
		f.base = firstBase
	}
}

// end ends a message of n bytes.
func (f *finder) end(n int) {
	f.base = uint32(min(int64(f.base)+int64(n), maxBase)) + firstBase
}

// prime enters buf[:from], the history of a message of n bytes. That costs time for all the window, however short the
// message is, so that only the last of it is entered byte by byte, and of the rest every fifth: the search looks up every
// second, so that the two meet where a match is long enough. (Three would do as well, but not where every character
// takes three bytes.)
func (f *finder) prime(buf []byte, from, n int) {
	i, recent := 0, from-max(2048, 2*n)
	for ; i < recent; i += 5 {
		f.table[hash(load64(buf, i))] = f.base + uint32(i)
	}
	for ; i < min(from, len(buf)-7); i++ {
		f.table[hash(load64(buf, i))] = f.base + uint32(i)
	}
}

// find finds the sequences of buf[from:]; what is before may be referred to.
func (f *finder) find(buf []byte, from int) {
	clear(f.litFreq[:])
	clear(f.distFreq[:])
	anchor, n := from, 0 // what follows the last match, and the number of sequences
	i, d := f.search(buf, anchor)
	for d != 0 {
		j := i - int(d)
		e := oneBefore(buf, i, j, anchor)
		f.litFreq[buf[i-e]] -= uint32(e)
		if e > 0 {
			e = f.moreBefore(buf, i, j, anchor)
		}
		length := min(4+e+matchLen(buf, i+4, j+4), maxMatch)
		i -= e
		slot := distSlot(d - 1)
		f.distFreq[slot&31]++
		f.litFreq[257+int(lengthSlot[uint8(length-minMatch)])]++
		f.space[n] = sequence{uint16(i - anchor), uint16(d - 1), uint8(length - minMatch), slot}
		n++
		anchor = i + length
		if length == maxMatch && anchor+4 <= len(buf) && load32(buf, anchor) == load32(buf, anchor-int(d)) {
			i = anchor // it goes on
			continue
		}
		if anchor+8 <= len(buf) {
			v := load64(buf, anchor-2)
			f.table[hash(v)] = f.base + uint32(anchor-2)
			f.table[hash(v>>8)] = f.base + uint32(anchor-1)
		}
		i, d = f.search(buf, anchor)
	}
	f.litFreq[endOfBlock] = 1
	f.space[n] = sequence{literals: uint16(len(buf) - anchor), slot: noMatch}
	f.sequences = f.space[:n+1]
}

// search looks for the first match from i on. Every second position is looked up, but all are entered; where nothing
// has been found for long, some are left out. It counts the literals that it passes.
func (f *finder) search(buf []byte, i int) (at int, d uint32) {
	base, window := f.base, f.window
	far := i + 64
	for len(buf)-i >= 8 {
		v := load64(buf, i) // enough for four positions
		pos := base + uint32(i)
		h := hash(v)
		d = pos - f.table[h]
		f.table[h] = pos
		if d-1 < window && load32(buf, i-int(d)) == uint32(v) {
			return i, d
		}
		f.litFreq[byte(v)]++
		f.litFreq[byte(v>>8)]++
		f.table[hash(v>>8)] = pos + 1
		pos += 2
		h = hash(v >> 16)
		d = pos - f.table[h]
		f.table[h] = pos
		if d-1 < window && load32(buf, i+2-int(d)) == uint32(v>>16) {
			return i + 2, d
		}
		f.litFreq[byte(v>>16)]++
		f.litFreq[byte(v>>24)]++
		f.table[hash(v>>24)] = pos + 1
		i += 4
		if i > far {
			skip := min((i-far)>>6, 24+i&7, len(buf)-i) // never the same for long: that might miss for ever
			f.literals(buf[i : i+skip])
			i += skip
		}
	}
	f.literals(buf[i:])
	return len(buf), 0
}

// literals counts p.
func (f *finder) literals(p []byte) {
	for _, b := range p {
		f.litFreq[b]++
	}
}

// oneBefore returns 1 if the literal before i belongs to the match with j. That is as likely as not: so there is no branch.
func oneBefore(buf []byte, i, j, anchor int) int {
	var equal, literal, inside int
	if buf[i-1] == buf[max(j-1, 0)] {
		equal = 1
	}
	if i != anchor {
		literal = 1
	}
	if j != 0 {
		inside = 1
	}
	return equal & literal & inside
}

// moreBefore goes on from one byte to how many the match begins earlier, where not every position was entered, and takes
// those literals back.
func (f *finder) moreBefore(buf []byte, i, j, anchor int) int {
	e := 1
	for i-e > anchor && j > e && buf[i-e-1] == buf[j-e-1] {
		e++
		f.litFreq[buf[i-e]]--
	}
	return e
}

func load32(b []byte, i int) uint32 { return binary.LittleEndian.Uint32(b[i : i+4 : i+4]) }

func load64(b []byte, i int) uint64 { return binary.LittleEndian.Uint64(b[i : i+8 : i+8]) }

// hash is one of the first hashBytes of v.
func hash(v uint64) uint64 {
	return v << (64 - 8*hashBytes) * 0x9e3779b97f4a7c15 >> (64 - tableBits)
}

// matchLen returns how many bytes from i and from j < i on are equal, up to maxMatch. Up to 16 there is but one branch.
func matchLen(b []byte, i, j int) int {
	if len(b)-i < 16 {
		return matchBytes(b, i, j, 0)
	}
	x, y := load64(b, i)^load64(b, j), load64(b, i+8)^load64(b, j+8)
	n := bits.TrailingZeros64(x) >> 3
	m := 8 + bits.TrailingZeros64(y)>>3
	if x == 0 {
		n = m
	}
	if n < 16 {
		return n
	}
	return matchLong(b[:min(len(b), i+maxMatch)], i, j)
}

// matchLong goes on behind 16 bytes.
func matchLong(b []byte, i, j int) int {
	n := 16
	for ; len(b)-i-n >= 8; n += 8 {
		if x := load64(b, i+n) ^ load64(b, j+n); x != 0 {
			return n + bits.TrailingZeros64(x)>>3
		}
	}
	return matchBytes(b, i, j, n)
}

// matchBytes goes on behind n bytes.
func matchBytes(b []byte, i, j, n int) int {
	for i+n < len(b) && b[i+n] == b[j+n] {
		n++
	}
	return n
}

// lengthSlot is the symbol, less 257, of a length less minMatch.
var lengthSlot = func() (slots [256]uint8) {
	for n := range slots {
		s := len(lengthBase) - 1
		for int(lengthBase[s]) > n+minMatch {
			s--
		}
		slots[n] = uint8(s)
	}
	return slots
}()

// distSlot is the symbol of a distance less 1. Its bits are the length of that and the one behind the first, RFC 1951,
// 3.2.5.
func distSlot(d uint32) uint8 {
	if d < 4 {
		return uint8(d)
	}
	n := uint(bits.Len32(d)) - 2
	return uint8(uint32(2*n) + d>>(n&31))
}
