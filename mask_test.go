package websocket

import (
	"bytes"
	"crypto/subtle"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket/internal/budget"
)

// maskSlowly is RFC 6455 section 5.3 to the letter.
func maskSlowly(b []byte, key uint32) {
	for i := range b {
		b[i] ^= byte(key >> (8 * (i % 4)))
	}
}

// keyFrom is the key whose first byte masks place from of the payload.
func keyFrom(key uint32, from int) (next uint32) {
	for i := range 4 {
		next |= key >> (8 * ((from + i) % 4)) & 0xff << (8 * i)
	}
	return next
}

// eachSIMD is an iterator that makes every variant of this CPU the chosen one
// in turn. Tests that range over it do not run in parallel with others.
func eachSIMD(yield func(name string) bool) {
	names := map[string][]string{
		"amd64": {"portable", "SSE2", "AVX2", "AVX-512"},
		"arm64": {"portable", "NEON"},
	}[runtime.GOARCH]
	best := simd
	defer func() { simd = best }()
	for simd = simdNone; simd <= best; simd++ {
		name := "portable"
		if simd > simdNone {
			name = names[simd]
		}
		if !yield(name) {
			return
		}
	}
}

// noise is the same n bytes every time.
func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{}).Read(b)
	return b
}

// maskLengths go up to where each variant has run each of its loops, and past
// each length at which another takes over.
func maskLengths() (lengths []int) {
	for n := range 301 {
		lengths = append(lengths, n)
	}
	for n := 505; n < 850; n++ {
		lengths = append(lengths, n)
	}
	return lengths
}

// TestMaskExample_5_7 is the RFC's own masked "Hello".
func TestMaskExample_5_7(t *testing.T) {
	b := []byte("Hello")
	require.Equal(t, uint32(0x373d21fa), Mask(b, 0x3d21fa37))
	require.Equal(t, []byte{0x7f, 0x9f, 0x4d, 0x51, 0x58}, b)
}

// framed is p at an offset from what is surely aligned, between guard bytes.
func framed(p []byte, offset int) (frame, inner []byte) {
	const guard = 64
	frame = bytes.Repeat([]byte{0xa5}, guard+offset+len(p)+guard)
	inner = frame[guard+offset:][:len(p)]
	copy(inner, p)
	return frame, inner
}

// TestMask_5_3 masks every length at every alignment, with a key turned all
// four ways, and looks at the bytes around as well.
func TestMask_5_3(t *testing.T) {
	for name := range eachSIMD {
		t.Run(name, func(t *testing.T) {
			for _, n := range maskLengths() {
				for phase := range 4 {
					key := keyFrom(0x9d4c2b17, phase)
					plain, masked := noise(n), noise(n)
					maskSlowly(masked, key)
					for offset := range 64 {
						want, _ := framed(masked, offset)

						frame, b := framed(plain, offset)
						next := Mask(b, key)
						require.True(t, bytes.Equal(want, frame), "Mask: %d bytes at %d", n, offset)
						require.True(t, next == keyFrom(key, n))

						frame, b = framed(make([]byte, n), offset)
						next = maskCopy(b, plain, key)
						require.True(t, bytes.Equal(want, frame), "maskCopy: %d bytes at %d", n, offset)
						require.True(t, next == keyFrom(key, n))
					}
				}
			}
		})
	}
}

// TestMaskCopySource holds that copying leaves the source as it was, wherever
// it lies, and the rest of a longer destination.
func TestMaskCopySource(t *testing.T) {
	const key = 0x9d4c2b17
	for name := range eachSIMD {
		t.Run(name, func(t *testing.T) {
			for _, n := range maskLengths() {
				plain, masked := noise(n), noise(n)
				maskSlowly(masked, key)
				want := append(masked, make([]byte, 8)...)
				for offset := range 64 {
					unchanged, _ := framed(plain, offset)
					frame, src := framed(plain, offset)
					dst := make([]byte, n+8)
					maskCopy(dst, src, key)
					require.True(t, bytes.Equal(want, dst), "%d bytes at %d", n, offset)
					require.True(t, bytes.Equal(unchanged, frame), "%d bytes at %d", n, offset)
				}
			}
		})
	}
}

// TestMaskParts_5_3: a payload in three parts is masked as if it were whole.
func TestMaskParts_5_3(t *testing.T) {
	const key = 0x9d4c2b17
	for name := range eachSIMD {
		t.Run(name, func(t *testing.T) {
			want := noise(260)
			maskSlowly(want, key)
			for i := 0; i <= len(want); i++ {
				for j := i; j <= len(want); j++ {
					b := noise(260)
					k := Mask(b[j:], Mask(b[i:j], Mask(b[:i], key)))
					require.True(t, bytes.Equal(want, b), "cut at %d and %d", i, j)
					require.Equal(t, uint32(key), k)
				}
			}
		})
	}
}

func TestMaskAllocatesNothing(t *testing.T) {
	require.Zero(t, testing.AllocsPerRun(100, func() {
		var b, c [600]byte
		maskCopy(c[:], b[:], Mask(b[:], 1))
	}))
}

func TestMaskCopyTooShort(t *testing.T) {
	require.Panics(t, func() { maskCopy(make([]byte, 99), make([]byte, 100), 1) })
}

func FuzzMask(f *testing.F) {
	f.Add([]byte("Hello"), uint32(0x3d21fa37), uint(3), uint(1))
	f.Add(noise(700), uint32(1), uint(600), uint(70))
	f.Fuzz(func(t *testing.T, p []byte, key uint32, cut, skip uint) {
		i := int(cut % uint(len(p)+1))
		j := int(skip % uint(i+1))
		want := bytes.Clone(p)
		maskSlowly(want[j:], key)
		for range eachSIMD {
			b := bytes.Clone(p)
			var next uint32
			budget.Check(t, len(p), 0, func() { next = Mask(b[j:i], key) })
			require.Equal(t, keyFrom(key, i-j), next)
			next = maskCopy(b[i:], p[i:], next)
			require.Equal(t, keyFrom(key, len(p)-j), next)
			require.Equal(t, want, b)
		}
	})
}

func BenchmarkMask(b *testing.B) {
	for _, n := range []int{16, 64, 128, 1024, 16384, 262144} {
		dst, src := make([]byte, n), noise(n)
		run := func(name string, f func()) {
			b.Run(fmt.Sprintf("func=%s/size=%d", name, n), func(b *testing.B) {
				b.SetBytes(int64(n))
				for b.Loop() {
					f()
				}
			})
		}
		run("Mask", func() { Mask(dst, 0x9d4c2b17) })
		run("maskCopy", func() { maskCopy(dst, src, 0x9d4c2b17) })
		run("XORBytes", func() { subtle.XORBytes(dst, dst, src) })
	}
}
