package autobahn

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
)

func samples() map[string][]byte {
	rng := rand.New(rand.NewChaCha8([32]byte{1}))
	noise := make([]byte, 200_000)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	some := make([]byte, 150_000)
	for i := range some {
		some[i] = "aaaabbcdefgh"[rng.IntN(12)]
	}
	return map[string][]byte{
		"empty": {}, "one": {7}, "hello": []byte("Hello"), "zeros": make([]byte, 300_000),
		"noise": noise, "skewed": some, "twice": append(noise[:20_000:20_000], noise[:20_000]...),
		"bitmap": corpusBitmap().slice(0, 60_000), "verse": corpusVerse().slice(0, 60_000),
	}
}

// What the fuzzer compresses, compress/flate must be able to read, message by message.
func TestDeflateReadByFlate(t *testing.T) {
	for name, plain := range samples() {
		for _, takeover := range []bool{false, true} {
			t.Run(fmt.Sprint(name, takeover), func(t *testing.T) {
				d := newDeflater(15, takeover)
				all := d.compress(nil, nil)
				all = append(all, 0, 0, 0xff, 0xff)
				for part := range pieces(plain) {
					p := d.compress(nil, part)
					if !takeover {
						same(t, readFlate(t, p), part)
					}
					all = append(append(all, p...), 0, 0, 0xff, 0xff)
				}
				same(t, readFlate(t, all[:len(all)-4]), plain)
			})
		}
	}
}

func pieces(plain []byte) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for n := 1; len(plain) > 0; n = n*3 + 1 {
			n = min(n, len(plain))
			if !yield(plain[:n]) {
				return
			}
			plain = plain[n:]
		}
	}
}

func readFlate(t *testing.T, p []byte) []byte {
	tail := []byte{0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff}
	got, err := io.ReadAll(flate.NewReader(io.MultiReader(bytes.NewReader(p), bytes.NewReader(tail))))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func same(t *testing.T, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Fatalf("%d octets are not the %d that went in", len(got), len(want))
	}
}

// What compress/flate writes, the fuzzer must be able to read, at every level.
func TestInflateFlate(t *testing.T) {
	for name, plain := range samples() {
		for level := flate.HuffmanOnly; level <= 9; level++ {
			var buf bytes.Buffer
			w, _ := flate.NewWriter(&buf, level)
			z := newInflater(15, true)
			for part := range pieces(plain) {
				buf.Reset()
				w.Write(part)
				w.Flush()
				got, err := z.inflate(buf.Bytes()[: buf.Len()-4 : buf.Len()-4])
				if err != nil {
					t.Fatal(name, level, err)
				}
				same(t, got, part)
			}
		}
	}
}

// RFC 7692 7.1.2: no distance may be larger than the window that was agreed.
func TestDeflateWindow(t *testing.T) {
	for bits := 8; bits <= 15; bits++ {
		for name, plain := range samples() {
			d, z := newDeflater(bits, true), newInflater(bits, true)
			z.strict = true
			for part := range pieces(plain) {
				got, err := z.inflate(d.compress(nil, part))
				if err != nil {
					t.Fatal(name, bits, err)
				}
				same(t, got, part)
			}
			if name == "zeros" && z.farthest == 0 {
				t.Fatal("zeros were not compressed at all")
			}
		}
	}
}

func TestInflateRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, hex string
		window    int
		strict    bool
		want      error
	}{
		{"type 3", "ffffff", 15, false, errDeflateType},
		{"before the beginning", "f200110000", 15, false, errDeflateDistance},
		{"stored length", "000500000048656c6c6f00", 15, false, errDeflateStored},
		{"cut", "f248cd", 15, false, errDeflateEnd},
		{"cut in a head", "ed", 15, false, errDeflateCode},
		{"good", "f248cdc9c90700", 15, true, nil},
		{"final", "f348cdc9c9070000", 15, true, nil},
		{"two blocks", "f24805000000ffffcac9c90700", 15, true, nil},
		{"tail left on", "f248cdc9c907000000ffff", 15, true, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			z := newInflater(tt.window, false)
			z.strict = tt.strict
			got, err := z.inflate(unhex(tt.hex))
			if err != tt.want {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if err == nil && string(got) != "Hello" {
				t.Fatalf("got %q", got)
			}
		})
	}
}

// No input may make the decompressor panic or run on.
func FuzzInflate(f *testing.F) {
	for _, plain := range samples() {
		f.Add(newDeflater(12, true).compress(nil, plain[:min(len(plain), 1000)]))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) > 1<<16 {
			return
		}
		want, wantErr := io.ReadAll(flate.NewReader(io.MultiReader(bytes.NewReader(p), bytes.NewReader([]byte{0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff}))))
		got, err := newInflater(15, false).inflate(bytes.Clone(p))
		if wantErr == nil && err == nil && !bytes.HasPrefix(got, want) { // flate ends at a final block
			t.Fatalf("%x: got %x, compress/flate %x", p, got, want)
		}
	})
}

func BenchmarkDeflate(b *testing.B) {
	for name, plain := range samples() {
		b.Run(name, func(b *testing.B) {
			d := newDeflater(15, true)
			var out []byte
			b.SetBytes(int64(len(plain)))
			for b.Loop() {
				out = d.compress(out[:0], plain)
			}
		})
	}
}

func BenchmarkInflate(b *testing.B) {
	for name, plain := range samples() {
		b.Run(name, func(b *testing.B) {
			p := newDeflater(15, false).compress(nil, plain)
			z := newInflater(15, false)
			b.SetBytes(int64(len(plain)))
			for b.Loop() {
				z.inflate(p)
			}
		})
	}
}
