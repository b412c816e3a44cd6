package autobahn

import (
	"math"
	"testing"
	"unicode/utf8"
)

// The stand-ins must weigh what upstream's files do (catalogue, table of test data).
func TestCorpus(t *testing.T) {
	for _, tt := range []struct {
		c      *corpus
		octets int
		ratio  map[int][2]float64 // by message size: with and without context takeover
	}{
		{corpusJSON(), 194056, map[int][2]float64{16: {.29, .99}, 256: {.07, .52}, 1024: {.06, .17}, 8192: {.045, .059}, 131072: {.043, .044}}},
		{corpusBitmap(), 263222, map[int][2]float64{16: {1.10, 1.17}, 256: {.97, 1.01}, 1024: {.91, .95}, 8192: {.85, .87}, 131072: {.85, .85}}},
		{corpusVerse(), 222218, map[int][2]float64{16: {.73, 1.12}, 256: {.48, .73}, 1024: {.42, .56}, 8192: {.39, .45}, 131072: {.39, .39}}},
		{corpusHTML(), 263647, map[int][2]float64{16: {.42, 1.05}, 256: {.08, .62}, 1024: {.07, .26}, 8192: {.056, .083}, 131072: {.055, .057}}},
		{corpusPDF(), 1042328, map[int][2]float64{16: {1.08, 1.18}, 256: {.97, 1.00}, 1024: {.79, .90}, 8192: {.77, .82}, 131072: {.76, .76}}},
	} {
		t.Run(tt.c.name, func(t *testing.T) {
			file := len(tt.c.data) - (maxSlice + 64)
			if file != tt.octets {
				t.Errorf("%d octets, want %d", file, tt.octets)
			}
			if tt.c.text && !utf8.Valid(tt.c.data[:file]) {
				t.Error("text is not UTF-8")
			}
			for size, want := range tt.ratio {
				for i, takeover := range []bool{true, false} {
					got := measure(tt.c, size, takeover)
					if math.Abs(got-want[i]) > .05+want[i]*.35 {
						t.Errorf("%d octets, takeover %v: ratio %.3f, want about %.3f", size, takeover, got, want[i])
					}
					t.Logf("%d octets, takeover %v: ratio %.3f, want about %.3f", size, takeover, got, want[i])
				}
			}
		})
	}
}

func measure(c *corpus, size int, takeover bool) float64 {
	d := newDeflater(15, takeover)
	in, out := 0, []byte(nil)
	total := 0
	for k := range min(1000, 1+4_000_000/size) {
		m := c.slice(k, size)
		out = d.compress(out[:0], m)
		in += len(m)
		total += len(out)
	}
	return float64(total) / float64(in)
}

// Slices follow one another without a gap, also over the end of the file, and never split a code point.
func TestCorpusSlices(t *testing.T) {
	for _, c := range []*corpus{corpusJSON(), corpusHTML(), corpusPDF()} {
		for _, size := range []int{16, 4096, maxSlice} {
			var all []byte
			for k := range 12 {
				m := c.slice(k, size)
				if c.text && (!utf8.Valid(m) || utf8.RuneCount(m) != size) {
					t.Fatalf("%s: message %d of %d is no %d code points", c.name, k, size, size)
				}
				all = append(all, m...)
			}
			file := c.data[:len(c.data)-(maxSlice+64)]
			for i, b := range all {
				if b != file[i%len(file)] {
					t.Fatalf("%s: octet %d of messages of %d differs", c.name, i, size)
				}
			}
		}
	}
}
