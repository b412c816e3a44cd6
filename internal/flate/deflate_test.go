package flate

import (
	"bytes"
	std "compress/flate"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket/internal/flate/corpus"
)

// stdInflate is what compress/flate makes of one message after history.
func stdInflate(c, history []byte) ([]byte, error) {
	tail := []byte{0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff}
	return io.ReadAll(std.NewReaderDict(io.MultiReader(bytes.NewReader(c), bytes.NewReader(tail)), history))
}

func TestCompressSmall(t *testing.T) {
	for in, want := range map[string]string{
		"":      "00",
		"a":     "4a0400",
		"Hello": "f248cdc9c90700", // RFC 7692, 7.2.3.1
	} {
		require.Equal(t, unhex(want), Compress(nil, []byte(in), nil, 15), in)
	}
	require.Equal(t, "xx"+string(unhex("4a0400")), string(Compress([]byte("xx"), []byte("a"), nil, 15)), "appended")
}

// Conformance case 20.6.7: the tail is not sent.
func TestCompressTail(t *testing.T) {
	for _, k := range corpus.Kinds() {
		for n := range 200 {
			c := Compress(nil, k.Make(n), nil, 15)
			require.False(t, bytes.HasSuffix(c, []byte{0, 0, 0xff, 0xff}), "%s of %d", k.Name, n)
		}
	}
}

// sizes are where something changes: the smallest match, a word, a block, a window, and a block behind a full window.
var sizes = []int{0, 1, 2, 3, 4, 5, 7, 8, 9, 16, 60, 257, 258, 259, 1000, 4097, 32767, 32769, 65534, 65535, 65536, 200_000}

// Every kind, size and window, alone and with context, is what it was to us, to the reference and to compress/flate, and
// no distance is larger than the window: conformance cases 20.6.1 to 20.6.5.
func TestCompressRoundTrip(t *testing.T) {
	for _, k := range corpus.Kinds() {
		t.Run(k.Name, func(t *testing.T) {
			t.Parallel()
			for bits := minBits; bits <= maxBits; bits++ {
				for _, takeover := range []bool{false, true} {
					roundTrips(t, k.Make(200_000), bits, takeover)
				}
			}
		})
	}
}

func roundTrips(t *testing.T, data []byte, bits int, takeover bool) {
	var out, in *Window
	if takeover {
		out, in = NewWindow(bits), NewWindow(bits)
	}
	var history []byte
	for i, n := range sizes {
		from := min(i*100, len(data)-n) // so that messages resemble those before
		p := data[from : from+n]
		what := fmt.Sprintf("%d bytes, %d bits, takeover %v", n, bits, takeover)
		c := Compress(nil, p, out, bits)
		require.LessOrEqual(t, len(c), n+5*(n/maxDistance+2)+1, what)
		got, err := inflate(c, len(c), in, bits, int64(n))
		require.NoError(t, err, what)
		require.True(t, bytes.Equal(p, got), what)
		if bits == 15 || n < 5000 {
			got, farthest, err := inflateReference(c, history, 1<<bits)
			require.NoError(t, err, what)
			require.True(t, bytes.Equal(p, got), what)
			require.LessOrEqual(t, farthest, 1<<bits, what)
		}
		got, err = stdInflate(c, history)
		require.NoError(t, err, what)
		require.True(t, bytes.Equal(p, got), what)
		if takeover {
			out.Add(p)
			history = append(history, p...)
			history = history[max(0, len(history)-1<<bits):]
			require.Equal(t, len(history), out.Len())
		}
	}
}

// Every split of a small message's compressed form.
func TestCompressSplits(t *testing.T) {
	for _, k := range corpus.Kinds() {
		history, p := k.Make(3000)[:2500], k.Make(3000)[2500:]
		for bits := minBits; bits <= maxBits; bits++ {
			w := NewWindow(bits)
			w.Add(history)
			c := Compress(nil, p, w, bits)
			for i := range c {
				z := NewInflater(w, bits, int64(len(p)))
				out, err := appendAll(z, nil, c[:i])
				require.NoError(t, err)
				out, err = appendAll(z, out, c[i:])
				require.NoError(t, err)
				require.NoError(t, z.Close())
				require.True(t, bytes.Equal(p, out))
				z.Free()
			}
		}
	}
}

// The largest distance that is allowed is made use of, and one more is not: 20.6.3 and 20.6.4 ask for that.
func TestCompressReach(t *testing.T) {
	for bits := minBits; bits <= maxBits; bits++ {
		for _, far := range []int{0, 1} {
			distance := 1<<bits + far
			p := corpus.Random(distance)
			p = append(p, p[:min(distance, 2000)]...)
			for _, from := range []int{0, 100, distance} { // where history ends and the message begins
				w := NewWindow(bits)
				w.Add(p[:from])
				c := Compress(nil, p[from:], w, bits)
				_, farthest, err := inflateReference(c, p[max(0, from-1<<bits):from], 1<<bits)
				require.NoError(t, err)
				if far == 0 {
					require.Equal(t, distance, farthest)
				} else {
					require.Zero(t, farthest)
				}
			}
		}
	}
}

// A message of many megabytes, and positions that would not fit if they were not counted anew now and then.
func TestCompressLong(t *testing.T) {
	long(t)
	p := corpus.JSON(5 << 20)
	w := NewWindow(15)
	w.Add(corpus.JSON(100_000))
	for _, base := range []uint32{0, maxBase - 1, maxBase, maxBase + 1, maxBase + firstBase} {
		c := new(compressor)
		c.base = base
		for range 2 {
			c.dst = c.dst[:0]
			c.message(p, w, 1<<15)
			got, err := inflate(c.dst, 1<<20, cloneWindow(w), 15, int64(len(p)))
			require.NoError(t, err)
			require.True(t, bytes.Equal(p, got))
		}
	}
}

func cloneWindow(w *Window) *Window {
	c := *w
	c.buf = bytes.Clone(w.buf)
	return &c
}

// What an earlier message left in the tables is not taken for history: attack row 54.
func TestCompressForgets(t *testing.T) {
	p := corpus.Random(1000)
	c := new(compressor)
	for range 100 {
		c.dst = c.dst[:0]
		c.message(p, nil, 1<<15)
		_, farthest, err := inflateReference(c.dst, nil, 1<<15)
		require.NoError(t, err)
		require.Zero(t, farthest)
	}
}

func TestCompressAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("sync.Pool drops things under the race detector")
	}
	for _, n := range []int{0, 256, 16 << 10, 200_000} {
		p := corpus.JSON(n)
		dst := make([]byte, 0, n+1000)
		w := NewWindow(15)
		w.Add(corpus.JSON(50_000))
		for _, w := range []*Window{nil, w} {
			require.Zero(t, testing.AllocsPerRun(100, func() {
				if len(Compress(dst, p, w, 15)) == 0 {
					panic("nothing")
				}
				if w != nil {
					w.Add(p)
				}
			}))
		}
	}
}

// The sizes on the corpus, against compress/flate at level 1: no more than 5 % larger.
func TestCompressSize(t *testing.T) {
	long(t)
	for _, k := range corpus.Kinds() {
		for _, n := range []int{256, 1024, 16 << 10} {
			data, ours, theirs := k.Make(64<<10), 0, 0
			for len(data) >= n {
				ours += len(Compress(nil, data[:n], nil, 15))
				theirs += len(stdDeflate(t, data[:n], 1))
				data = data[n:]
			}
			require.LessOrEqual(t, float64(ours), 1.05*float64(theirs)+100, "%s of %d", k.Name, n)
		}
	}
}
