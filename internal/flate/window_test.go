package flate

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket/internal/flate/corpus"
)

func TestWindow(t *testing.T) {
	for bits := minBits; bits <= maxBits; bits++ {
		size := 1 << bits
		for _, step := range []int{1, 7, 100, size - 1, size, size + 1, 3*size + 5} {
			w := NewWindow(bits)
			p := corpus.Random(4*size + 17)
			for from := 0; from < len(p); {
				to := min(from+step, len(p))
				w.Add(p[from:to])
				from = to
				want := p[max(0, to-size):to]
				require.Equal(t, len(want), w.Len())
				require.LessOrEqual(t, cap(w.buf), size)
				if step == 1 && to%97 != 0 {
					continue
				}
				got := make([]byte, len(want))
				for _, back := range []int{1, len(want)/2 + 1, len(want)} {
					n := w.copyAt(got, back)
					require.Equal(t, back, n)
					require.True(t, bytes.Equal(want[len(want)-back:], got[:n]))
				}
			}
		}
	}
}

func TestWindowNil(t *testing.T) {
	var w *Window
	require.Zero(t, w.Len())
}

// What a connection keeps is the window, and of that only what it needs.
func TestWindowMemory(t *testing.T) {
	w := NewWindow(15)
	require.Zero(t, cap(w.buf))
	w.Add(make([]byte, 100))
	require.Equal(t, 512, cap(w.buf))
	w.Add(make([]byte, 1<<20))
	require.Equal(t, 1<<15, cap(w.buf))
	require.Zero(t, testing.AllocsPerRun(10, func() { w.Add(make([]byte, 0, 100)[:100]) }))
}
