package flate

import (
	"math/bits"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// largestTable computes how many entries a complete code of at most symbols symbols can need. The root's slots that
// short codes cover take one symbol for each power of two; the p others have subtables. Codes get longer from one
// subtable to the next, so that one of 2^k entries, the codes of which have at least a bits there, has at least 2^a-1 of
// those and a path of one each down to k, where there are two; and the next begins with k bits.
func largestTable(symbols, rootBits int) int {
	deepest := maxCodeLen - rootBits
	// best[a][s] is the most entries in p subtables with s symbols; none is the lot of impossible ones.
	const none = -1 << 20
	best := make([][]int, deepest+1)
	for a := range best {
		best[a] = make([]int, symbols+1)
	}
	largest := 1 << rootBits
	for p := 1; p <= 1<<rootBits; p++ {
		next := make([][]int, deepest+1)
		for a := range next {
			next[a] = slices.Repeat([]int{none}, symbols+1)
			for s := range next[a] {
				for first := max(a, 1); first <= deepest; first++ {
					for k := first; k <= deepest; k++ {
						if cost := 1<<first + k - first; cost <= s && best[k][s-cost] > none {
							next[a][s] = max(next[a][s], 1<<k+best[k][s-cost])
						}
					}
				}
			}
		}
		best = next
		if left := symbols - bits.OnesCount(uint(1<<rootBits-p)); left >= 0 {
			largest = max(largest, 1<<rootBits+best[0][left])
		}
		if best[0][symbols] == none {
			break
		}
	}
	return largest
}

func TestTableSize(t *testing.T) {
	require.Equal(t, largestTable(maxLitLen, litRoot), litTableSize)
	require.Equal(t, largestTable(maxDist, distRoot), distTableSize)
}
