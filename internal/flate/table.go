package flate

import (
	"math/bits"
	"sync"
)

// A decoding table is looked up with the next bits of input: rootBits of them in the root, and where a code is longer,
// the root's entry points at a subtable for the rest. An entry is
//
//	bits 0-7    how many bits it stands for: the code's (in a subtable, what is left of it) and the extra ones
//	bits 8-11   the code's alone, so that the extra ones can be found; of a pointer: the subtable's index bits
//	bits 16-    literal, base length, base distance; of a pointer: where the subtable begins
//
// and the flags below.
const (
	isLiteral = 1 << 31 // literal/length table; so that a test of the sign finds the most frequent kind
	isSpecial = 1 << 15 // pointer, end of block or invalid
	isPointer = 1 << 14 // with isSpecial
	isInvalid = 1 << 13 // with isSpecial

	litRoot  = 11
	distRoot = 8
	// The most entries that complete codes can need; TestTableSize computes them.
	litTableSize  = 2340
	distTableSize = 400
)

// tables decode the blocks of one pair of codes.
type tables struct {
	lit  [litTableSize]uint32
	dist [distTableSize]uint32
}

// litEntries and distEntries are what the symbols mean, without the code's length.
var litEntries, distEntries = func() (lit [288]uint32, dist [32]uint32) {
	for i := range lit {
		switch {
		case i < endOfBlock:
			lit[i] = isLiteral | uint32(i)<<16
		case i == endOfBlock:
			lit[i] = isSpecial
		case i < maxLitLen:
			lit[i] = uint32(lengthBase[i-257])<<16 | uint32(lengthExtra[i-257])
		default:
			lit[i] = isSpecial | isInvalid
		}
	}
	for i := range dist {
		if i < maxDist {
			dist[i] = uint32(distBase[i])<<16 | uint32(distExtra[i])
		} else {
			dist[i] = isSpecial | isInvalid
		}
	}
	return lit, dist
}()

// repeatLast is the symbol of a code length that repeats the one before.
const repeatLast = 16

// preEntries are what the symbols of the code length code mean: bits 16 to 23 the length, bits 24 to 31 how often at
// least, and as everywhere the number of extra bits, RFC 1951, 3.2.7.
var preEntries = func() (pre [numPre]uint32) {
	for i := range pre {
		pre[i] = uint32(i)<<16 | 1<<24
	}
	pre[repeatLast] = repeatLast<<16 | 3<<24 | 2
	pre[17] = 3<<24 | 3
	pre[18] = 11<<24 | 7
	return pre
}()

// fixedTables are those of fixed blocks.
var fixedTables = sync.OnceValue(func() *tables {
	t := new(tables)
	lit, dist := fixedLens()
	buildTable(t.lit[:], litRoot, appendCodeLens(nil, lit[:]), litEntries[:])
	buildTable(t.dist[:], distRoot, appendCodeLens(nil, dist[:]), distEntries[:])
	return t
})

// A codeLen is a symbol and the length of its code, which is not 0: symbol<<4 | length.
type codeLen uint16

func (c codeLen) symbol() int { return int(c >> 4) }

// noLast is a length that is none.
const noLast = 0xff

// appendCodeLens appends those of lens that are not 0.
func appendCodeLens(dst []codeLen, lens []uint8) []codeLen {
	for s, n := range lens {
		if n > 0 {
			dst = append(dst, codeLen(s<<4)|codeLen(n))
		}
	}
	return dst
}

// buildTable fills table for the code whose lengths are lens, in the order of symbols, RFC 1951, 3.2.2. It reports
// whether there is such a code: neither more codes than fit, nor fewer, save that there may be one code of one bit, or
// none (RFC 1951, 3.2.7).
func buildTable(table []uint32, rootBits int, lens []codeLen, entries []uint32) bool {
	var b tableBuilder
	for _, c := range lens {
		b.count[c&15]++
	}
	space := 0
	var at [maxCodeLen + 1]int // where the symbols of a length begin
	for n := 1; n <= maxCodeLen; n++ {
		space = space<<1 + b.count[n]
		if n < maxCodeLen {
			at[n+1] = at[n] + b.count[n]
		}
	}
	if space != 1<<maxCodeLen {
		if len(lens) > 1 || len(lens) != b.count[1] {
			return false
		}
		for i := range table[:1<<rootBits] {
			table[i] = isSpecial | isInvalid
		}
	}
	var sorted [288]uint16
	for _, c := range lens {
		sorted[at[c&15]] = uint16(c.symbol())
		at[c&15]++
	}
	b.symbols, b.entries = sorted[:len(lens)], entries
	b.root(table, rootBits)
	b.subtables(table, rootBits)
	return true
}

// A tableBuilder lays out a table in the order of the codes.
type tableBuilder struct {
	count   [maxCodeLen + 1]int // codes of each length
	symbols []uint16            // those that have no code yet, by length and value
	entries []uint32            // by symbol
	code    int                 // the next code, its first bit lowest, as it comes in the input
}

// take returns the next code and the entry for it, n being the code's length and bits what is looked up of it.
func (b *tableBuilder) take(n, bits int) (code int, entry uint32) {
	code, entry = b.code, b.entries[b.symbols[0]]+uint32(bits)*0x101
	b.symbols = b.symbols[1:]
	b.code = nextCode(code, n)
	return code, entry
}

// nextCode adds one to a code of n bits that is written backwards; after the last comes 0.
func nextCode(code, n int) int {
	zeros := ^code & (1<<n - 1)
	if zeros == 0 {
		return 0
	}
	carry := 1 << (bits.Len(uint(zeros)) - 1)
	return code&(carry-1) | carry
}

// root enters the codes of at most rootBits. For each further bit of length what is there is repeated: a table for n
// bits, twice, is the table for n+1.
func (b *tableBuilder) root(table []uint32, rootBits int) {
	size := 1
	for n := 1; n <= rootBits; n++ {
		copy(table[size:2*size], table[:size])
		size *= 2
		for range b.count[n] {
			code, e := b.take(n, n)
			table[code] = e
		}
	}
}

// subtables enters the longer codes. Those that agree in the first rootBits bits share a subtable.
func (b *tableBuilder) subtables(table []uint32, rootBits int) {
	begin, end := 0, 1<<rootBits
	prefix, subBits := -1, 0
	for n := rootBits + 1; n <= maxCodeLen; n++ {
		for left := b.count[n]; left > 0; left-- {
			code, e := b.take(n, n-rootBits)
			if p := code & (1<<rootBits - 1); p != prefix {
				prefix = p
				subBits = n - rootBits
				for codes := left; codes < 1<<subBits; codes = codes<<1 + b.count[rootBits+subBits] {
					subBits++
				}
				begin, end = end, end+1<<subBits
				table[prefix] = isSpecial | isPointer | uint32(begin<<16|subBits<<8|rootBits)
			}
			for i := code >> rootBits; i < 1<<subBits; i += 1 << (n - rootBits) {
				table[begin+i] = e
			}
		}
	}
}
