package flate

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket/internal/flate/corpus"
)

// Codes are complete, within the limit, shorter for what is more frequent, and near the entropy.
func TestBuild(t *testing.T) {
	fibonacci := []uint32{1, 1}
	for len(fibonacci) < 22 {
		n := len(fibonacci)
		fibonacci = append(fibonacci, fibonacci[n-1]+fibonacci[n-2])
	}
	one := make([]uint32, 30)
	one[7] = 5
	count := func(p []byte) []uint32 {
		freq := make([]uint32, maxLitLen)
		for _, b := range p {
			freq[b]++
		}
		return freq
	}
	for name, freq := range map[string][]uint32{
		"none":      make([]uint32, 30),
		"one":       one,
		"two":       {0, 3, 0, 60_000},
		"fibonacci": fibonacci,
		"json":      count(corpus.JSON(60_000)),
		"random":    count(corpus.Random(60_000)),
		"short":     count(corpus.English(300)),
	} {
		for _, limit := range []int{9, maxLitBits, maxDistBits} {
			t.Run(name, func(t *testing.T) {
				codes := make([]code, len(freq))
				var f forest
				lens, size := f.build(codes, freq, limit, nil, 1000)
				space, total, entropy, want := 0, 0, 0.0, 0
				for _, n := range freq {
					total += int(n)
				}
				for s, c := range codes {
					if c == 0 {
						require.Zero(t, freq[s])
						continue
					}
					require.LessOrEqual(t, int(c.len()), limit)
					require.Equal(t, codeLen((1000+s)<<4|int(c.len())), lens[0])
					lens = lens[1:]
					space += 1 << (maxCodeLen - c.len())
					want += int(freq[s]) * int(c.len())
					for s2, c2 := range codes {
						if c2 != 0 && freq[s2] > freq[s] {
							require.LessOrEqual(t, c2.len(), c.len())
						}
					}
					if freq[s] > 0 {
						entropy -= float64(freq[s]) * math.Log2(float64(freq[s])/float64(total))
					}
				}
				require.Empty(t, lens)
				require.Equal(t, 1<<maxCodeLen, space, "complete")
				require.Equal(t, want, size)
				require.LessOrEqual(t, float64(size), 1.1*entropy+float64(total)+2)
			})
		}
	}
}
