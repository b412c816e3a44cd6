package autobahn

// Huffman codes of RFC 1951: lengths from counts, codes from lengths. Shared by deflate.go and inflate.go.

import (
	"math/bits"
	"slices"
)

const maxCodeLen = 15

// The base values and extra bits of RFC 1951 3.2.5.
var (
	lengthBase  = [29]uint16{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}
	lengthExtra = [29]uint8{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
	distBase    = [30]uint16{1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577}
	distExtra   = [30]uint8{0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13}

	// codeOrder is the order in which a dynamic block lists the lengths of its code length code (3.2.7).
	codeOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}
)

// fixedLengths are those of a block of type 1 (3.2.6), with the symbols that never occur.
func fixedLengths() (lit [288]uint8, dist [32]uint8) {
	for i := range lit {
		switch {
		case i < 144:
			lit[i] = 8
		case i < 256:
			lit[i] = 9
		case i < 280:
			lit[i] = 7
		default:
			lit[i] = 8
		}
	}
	for i := range dist {
		dist[i] = 5
	}
	return lit, dist
}

// codeLengths gives every counted symbol a length of at most limit bits. If the best code is deeper than that, the
// counts are flattened until it is not.
func codeLengths(lens []uint8, count []uint32, limit uint8) {
	flat := slices.Clone(count)
	for !tryLengths(lens, flat, limit) {
		for i, c := range flat {
			if c != 0 {
				flat[i] = c/2 + 1
			}
		}
	}
}

// A tree is built by the two-queue method: leaves in order of their count, inner nodes are born in that order too.
type node struct {
	count  uint32
	symbol int
	parent int
}

func tryLengths(lens []uint8, count []uint32, limit uint8) bool {
	clear(lens)
	var nodes []node
	for s, c := range count {
		if c != 0 {
			nodes = append(nodes, node{count: c, symbol: s})
		}
	}
	leaves := len(nodes)
	if leaves < 2 { // one bit, so that the code is not empty
		for _, n := range nodes {
			lens[n.symbol] = 1
		}
		return true
	}
	slices.SortStableFunc(nodes, func(a, b node) int { return int(a.count) - int(b.count) })
	leaf, inner := 0, leaves
	least := func() int {
		if inner == len(nodes) || leaf < leaves && nodes[leaf].count <= nodes[inner].count {
			leaf++
			return leaf - 1
		}
		inner++
		return inner - 1
	}
	for len(nodes) < 2*leaves-1 {
		a := least()
		b := least()
		nodes[a].parent, nodes[b].parent = len(nodes), len(nodes)
		nodes = append(nodes, node{count: nodes[a].count + nodes[b].count})
	}
	depth := make([]uint8, len(nodes))
	for i := len(nodes) - 2; i >= 0; i-- {
		depth[i] = depth[nodes[i].parent] + 1
		if i < leaves {
			lens[nodes[i].symbol] = depth[i]
			if depth[i] > limit {
				return false
			}
		}
	}
	return true
}

// codes assigns the canonical codes (3.2.2), turned round so that their first bit is the lowest.
func codes(dst []uint16, lens []uint8) {
	var count, next [maxCodeLen + 2]int
	for _, n := range lens {
		count[n]++
	}
	count[0] = 0
	for n := 1; n <= maxCodeLen; n++ {
		next[n+1] = (next[n] + count[n]) << 1
	}
	for s, n := range lens {
		if n != 0 {
			dst[s] = bits.Reverse16(uint16(next[n])) >> (16 - n)
			next[n]++
		}
	}
}
