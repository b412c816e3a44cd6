package flate

import "math/bits"

// The longest codes we make. A literal or length of 14 bits lets four literals go at once into a word that has 7 bits.
const (
	maxLitBits  = 14
	maxDistBits = maxCodeLen
)

// A code is what is written for a symbol: its bits, the first lowest, and their number << 16.
type code uint32

func (c code) len() uint { return uint(c >> 16) }

// A weight is a frequency << 9 and a symbol.
type weight uint32

// A forest is room for building a code; it holds nothing between uses.
type forest struct {
	leaves, spare [maxLitLen + 1]weight
	nodes         [maxLitLen]uint32 // weights of inner nodes, and then their depths
	leafParent    [maxLitLen]uint16
	nodeParent    [maxLitLen]uint16
}

// build makes codes of at most limit bits after the frequencies. It appends the lengths to lens, the symbols being
// counted from first, and returns how many bits everything takes. There are always two codes at least, so that the code
// is complete and every decoder takes it.
func (f *forest) build(codes []code, freq []uint32, limit int, lens []codeLen, first int) (_ []codeLen, bits int) {
	from := len(lens)
	used, most := 0, uint32(1)
	for s, w := range freq {
		f.leaves[used] = weight(w<<9 | uint32(s))
		most = max(most, w)
		if w > 0 {
			used++
		}
	}
	for s := 0; used < 2; s++ {
		if freq[s] == 0 {
			f.leaves[used] = weight(1<<9 | s)
			used++
		}
	}
	for _, l := range f.leaves[:used] {
		lens = append(lens, codeLen(l&511)<<4)
	}
	if used == 2 && lens[from] > lens[from+1] {
		lens[from], lens[from+1] = lens[from+1], lens[from]
	}
	leaves := f.sort(f.leaves[:used], most)
	var count [maxCodeLen + 1]int
	f.depths(leaves, &count, limit)
	clear(codes)
	i := 0
	for n := limit; n > 0; n-- {
		for range count[n] {
			s := leaves[i] & 511
			bits += n * int(freq[s])
			codes[s] = code(n << 16)
			i++
		}
	}
	for i, l := range lens[from:] {
		lens[from+i] |= codeLen(codes[l.symbol()].len())
	}
	number(codes, lens[from:])
	for i := range lens[from:] {
		lens[from+i] += codeLen(first << 4)
	}
	return lens, bits
}

// number gives the codes for lens their bits, RFC 1951, 3.2.2.
func number(codes []code, lens []codeLen) {
	var count, next [maxCodeLen + 1]uint16
	for _, l := range lens {
		count[l&15]++
	}
	for n := 1; n < maxCodeLen; n++ {
		next[n+1] = (next[n] + count[n]) << 1
	}
	for _, l := range lens {
		n := l & 15
		codes[l.symbol()] = code(n)<<16 | code(bits.Reverse16(next[n]<<(16-n)))
		next[n]++
	}
}

// sort sorts leaves, none of which is heavier than most, the lightest first.
func (f *forest) sort(leaves []weight, most uint32) []weight {
	from, to := leaves, f.spare[:len(leaves)]
	for shift := 9; most > 0; shift, most = shift+8, most>>8 {
		var at [256]uint16
		for _, w := range from {
			at[w>>shift&255]++
		}
		sum := uint16(0)
		for i, n := range at[:min(most, 255)+1] {
			at[i] = sum
			sum += n
		}
		for _, w := range from {
			d := w >> shift & 255
			to[at[d]] = w
			at[d]++
		}
		from, to = to, from
	}
	return from
}

// depths counts how many leaves Huffman's tree has at each depth, and then limits the depth. Inner nodes come into being
// in the order of their weights, so that the lightest two are always at the head of one of two queues.
func (f *forest) depths(leaves []weight, count *[maxCodeLen + 1]int, limit int) {
	leaf, node := 0, 0
	root := len(leaves) - 2
	for made := 0; made <= root; made++ {
		sum := uint32(0)
		for range 2 {
			if leaf < len(leaves) && (node == made || uint32(leaves[leaf]>>9) <= f.nodes[node]) {
				sum += uint32(leaves[leaf] >> 9)
				f.leafParent[leaf] = uint16(made)
				leaf++
			} else {
				sum += f.nodes[node]
				f.nodeParent[node] = uint16(made)
				node++
			}
		}
		f.nodes[made] = sum
	}
	f.nodes[root] = 0
	for i := root - 1; i >= 0; i-- {
		f.nodes[i] = f.nodes[f.nodeParent[i]] + 1
	}
	used := 0 // of 1<<limit
	for i := range leaves {
		n := min(int(f.nodes[f.leafParent[i]])+1, limit)
		count[n]++
		used += 1 << (limit - n)
	}
	// There may be too many now that the deepest are at the limit. For each, one more goes down, the deepest that can.
	for ; used > 1<<limit; used-- {
		n := limit - 1
		for count[n] == 0 {
			n--
		}
		count[n]--
		count[n+1] += 2
		count[limit]--
	}
}
