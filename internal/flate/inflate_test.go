package flate

import (
	"bytes"
	std "compress/flate"
	"encoding/hex"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket/internal/flate/corpus"
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// appendAll is z.Append with as much room as it takes.
func appendAll(z *Inflater, dst, src []byte) ([]byte, error) {
	for {
		out, n, err := z.Append(dst, src)
		if err != ErrFull {
			return out, err
		}
		dst, src = slices.Grow(out, max(maxMatch, len(out))), src[n:]
	}
}

// inflate decodes one message in parts of at most step bytes.
func inflate(src []byte, step int, w *Window, bits int, limit int64) ([]byte, error) {
	z := NewInflater(w, bits, limit)
	defer z.Free()
	var out []byte
	for len(src) > 0 {
		n := min(step, len(src))
		var err error
		if out, err = appendAll(z, out, src[:n]); err != nil {
			return out, err
		}
		src = src[n:]
	}
	if err := z.Close(); err != nil {
		return out, err
	}
	if w != nil {
		z.Slide(out)
	}
	return out, nil
}

// stdDeflate is a message as compress/flate makes it.
func stdDeflate(t testing.TB, p []byte, level int) []byte {
	var buf bytes.Buffer
	w, err := std.NewWriter(&buf, level)
	require.NoError(t, err)
	_, err = w.Write(p)
	require.NoError(t, err)
	require.NoError(t, w.Flush())
	return buf.Bytes()[:buf.Len()-4]
}

// Conformance cases 20.4: legal streams, RFC 7692, 7.2.3.
var legal = []struct{ name, history, in, out string }{
	{"fixed block (7.2.3.1)", "", "f248cdc9c90700", "Hello"},
	{"context taken over (7.2.3.2)", "Hello", "f200110000", "Hello"},
	{"stored block (7.2.3.3)", "", "000500faff48656c6c6f00", "Hello"},
	{"final block (7.2.3.4)", "", "f348cdc9c9070000", "Hello"},
	{"two blocks (7.2.3.5)", "", "f24805000000ffffcac9c90700", "Hello"},
	{"empty block (7.2.3.6)", "", "00", ""},
	{"no bytes at all", "", "", ""},
	{"tail left on", "", "f248cdc9c907000000ffff", "Hello"},
	{"final block and nothing", "", "f348cdc9c90700", "Hello"},
	{"final block and a whole empty one", "", "f348cdc9c9070000" + "0000ffff", "Hello"},
	{"two final blocks", "", "f348cdc9c90700f348cdc9c9070000", "HelloHello"},
	{"final stored block", "", "010500faff48656c6c6f00", "Hello"},
	{"final block, and a match before it", "", "f348cdc9c90700f200110000", "HelloHello"},
}

func TestLegal(t *testing.T) {
	for _, c := range legal {
		t.Run(c.name, func(t *testing.T) {
			for step := 1; step <= len(c.in)/2+1; step++ {
				w := NewWindow(15)
				w.Add([]byte(c.history))
				out, err := inflate(unhex(c.in), step, w, 15, int64(len(c.out)))
				require.NoError(t, err)
				require.Equal(t, c.out, string(out))
			}
		})
	}
}

// Conformance cases 20.5, attack rows 51 and 52, and whatever else cannot be.
var illegal = []struct{ name, in string }{
	{"block type 3", "ffffff"},
	{"distance before the beginning", "f200110000"},
	{"stored length", "000500000048656c6c6f00"},
	{"ends inside a fixed block", "f248cd"},
	{"ends inside a stored block", "000500faff4865"},
	{"ends inside a stored length", "000500"},
	{"ends inside a stored block, and the tail would fill it", "000900f6ff48656c6c6f"},
	{"ends inside a dynamic block's counts", "04"},
	{"ends with a part of a byte behind a block", "4a0400"[:4]},
	{"junk behind a final block", "f348cdc9c90700ff"},
	{"zeros behind a final block", "f348cdc9c907000000"},
	{"287 literal and length codes", "f4ff" + "00000000000000"},
	{"31 distance codes", "04fe" + "00000000000000"},
	{"too many code length codes", "0400" + "fe" + "ffffffffffffff"},
	{"no code length codes", "040000000000000000000000"},
}

func TestIllegal(t *testing.T) {
	for _, c := range illegal {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := inflateReference(unhex(c.in), nil, 1<<15)
			require.Error(t, err, "the reference")
			for step := 1; step <= len(c.in)/2; step++ {
				_, err := inflate(unhex(c.in), step, nil, 15, -1)
				require.ErrorIs(t, err, ErrCorrupt)
			}
		})
	}
}

// RFC 1951, 3.2.6: the fixed codes have symbols that must not occur.
func TestFixedCodes(t *testing.T) {
	for _, c := range []struct {
		name        string
		length, bit int // the code of a length and its number of bits
		dist        int
		ok          bool
	}{
		{"257 and 0", 0b0000001, 7, 0, true},
		{"285 and 0", 0b11000101, 8, 0, true},
		{"286", 0b11000110, 8, 0, false},
		{"287", 0b11000111, 8, 0, false},
		{"257 and 30", 0b0000001, 7, 30, false},
		{"257 and 31", 0b0000001, 7, 31, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s bitString
			s.put(fixedBlock<<1, 3)
			s.code(0x30+'a', 8)
			s.code(c.length, c.bit)
			s.code(c.dist, 5)
			s.put(0, 7+3)
			s.b = append(s.b, 0, 0, 0xff, 0xff)
			s.b = append(s.b, stdDeflate(t, make([]byte, 30), 0)...) // input enough for fast
			for _, step := range []int{1, len(s.b)} {
				out, err := inflate(s.b, step, nil, 15, -1)
				if c.ok {
					require.NoError(t, err)
					require.Equal(t, "aaaa", string(out[:4]))
				} else {
					require.ErrorIs(t, err, ErrCorrupt)
				}
			}
		})
	}
}

// bitString writes bits, the first lowest; codes are given as they are read.
type bitString struct {
	b []byte
	n int
}

func (s *bitString) bit(v int) {
	if s.n%8 == 0 {
		s.b = append(s.b, 0)
	}
	s.b[s.n/8] |= byte(v&1) << (s.n % 8)
	s.n++
}

// put writes n bits of v, the lowest first.
func (s *bitString) put(v, n int) {
	for i := range n {
		s.bit(v >> i)
	}
}

// code writes the n bits of a code, the highest first.
func (s *bitString) code(v, n int) {
	for i := n - 1; i >= 0; i-- {
		s.bit(v >> i)
	}
}

// dynamic writes the beginning of a dynamic block with the given code lengths, each in four bits: the code length
// code has 16 codes of that length, and none to repeat one.
func (s *bitString) dynamic(lit, dist []int) {
	s.put(dynamicBlock<<1, 3)
	s.put(len(lit)-257, 5)
	s.put(len(dist)-1, 5)
	s.put(15, 4)
	for _, symbol := range preOrder {
		if symbol < 16 {
			s.put(4, 3)
		} else {
			s.put(0, 3)
		}
	}
	for _, n := range append(lit[:len(lit):len(lit)], dist...) {
		s.code(n, 4)
	}
}

// lens is 257 lengths or more, of which those given are not 0.
func lens(n int, of map[int]int) []int {
	l := make([]int, n)
	for s, v := range of {
		l[s] = v
	}
	return l
}

func TestDynamicCodes(t *testing.T) {
	for _, c := range []struct {
		name      string
		lit, dist []int
		rest      int // bits, the first lowest, and how many
		n         int
		out       string
		ok        bool
	}{
		{"one code of one bit", lens(257, map[int]int{256: 1}), []int{0}, 0, 1, "", true},
		{"the other value of that bit", lens(257, map[int]int{256: 1}), []int{0}, 1, 1, "", false},
		{"one code of two bits", lens(257, map[int]int{256: 2}), []int{0}, 0, 2, "", false},
		{"a literal", lens(257, map[int]int{'x': 1, 256: 1}), []int{0}, 0b10, 2, "x", true},
		{"no end of block", lens(257, map[int]int{'x': 1, 'y': 1}), []int{0}, 0b10, 2, "", false},
		{"oversubscribed", lens(257, map[int]int{'x': 1, 'y': 1, 256: 1}), []int{0}, 0b10, 2, "", false},
		{"incomplete", lens(257, map[int]int{'x': 2, 'y': 2, 256: 2}), []int{0}, 0b0, 2, "", false},
		{"one distance code", lens(258, map[int]int{'x': 1, 256: 2, 257: 2}), []int{1}, 0b010110, 6, "xxxx", true},
		{"the other value of its bit", lens(258, map[int]int{'x': 1, 256: 2, 257: 2}), []int{1}, 0b011110, 6, "", false},
		{"no distance code", lens(258, map[int]int{'x': 1, 256: 2, 257: 2}), []int{0}, 0b010110, 6, "", false},
		{"oversubscribed distances", lens(257, map[int]int{'x': 1, 256: 1}), []int{1, 1, 1}, 0b10, 2, "", false},
		{"incomplete distances", lens(257, map[int]int{'x': 1, 256: 1}), []int{2, 2}, 0b10, 2, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s bitString
			s.dynamic(c.lit, c.dist)
			s.put(c.rest, c.n)
			s.put(storedBlock<<1, 3)
			want, _, err := inflateReference(s.b, nil, 1<<15)
			require.Equal(t, c.ok, err == nil, "the reference")
			for step := range s.b {
				out, err := inflate(s.b, step+1, nil, 15, -1)
				if !c.ok {
					require.ErrorIs(t, err, ErrCorrupt)
					continue
				}
				require.NoError(t, err)
				require.Equal(t, c.out, string(out))
				require.Equal(t, c.out, string(want))
			}
		})
	}
}

// A repeated code length needs one to repeat, and must not be repeated beyond the last.
func TestRepeatedLengths(t *testing.T) {
	for name, symbols := range map[string][][2]int{
		"none before":        {{16, 0}},
		"16 beyond the last": {{18, 127}, {18, 107}, {1, 0}, {0, 0}, {16, 0}},
		"17 beyond the last": {{18, 127}, {18, 107}, {1, 0}, {17, 0}},
		"18 beyond the last": {{18, 127}, {18, 107}, {1, 0}, {18, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			var s bitString
			s.put(dynamicBlock<<1, 3)
			s.put(0, 5+5)
			s.put(15, 4)
			pre := [numPre]uint8{0: 3, 1: 3, 16: 2, 17: 2, 18: 2}
			for _, symbol := range preOrder {
				s.put(int(pre[symbol]), 3)
			}
			for _, c := range symbols {
				switch c[0] { // the codes' bits as they are read
				case 0:
					s.put(0b011, 3)
				case 1:
					s.put(0b111, 3)
				case 16:
					s.put(0b00, 2)
					s.put(c[1], 2)
				case 17:
					s.put(0b10, 2)
					s.put(c[1], 3)
				case 18:
					s.put(0b01, 2)
					s.put(c[1], 7)
				}
			}
			s.put(0, 64)
			_, err := inflate(s.b, len(s.b), nil, 15, -1)
			require.ErrorIs(t, err, ErrCorrupt)
			_, _, err = inflateReference(s.b, nil, 1<<15)
			require.Error(t, err)
		})
	}
}

func TestInflateOthers(t *testing.T) {
	long(t)
	for _, k := range corpus.Kinds() {
		for _, n := range []int{0, 1, 2, 10, 100, 1000, 20_000, 200_000} {
			p := k.Make(n)
			for level := -2; level <= 9; level++ {
				c := stdDeflate(t, p, level)
				for _, step := range []int{len(c), 1, 7, 100} {
					out, err := inflate(c, step, nil, 15, int64(n))
					require.NoError(t, err, "%s of %d at level %d in steps of %d", k.Name, n, level, step)
					require.True(t, bytes.Equal(p, out), "%s of %d at level %d in steps of %d", k.Name, n, level, step)
				}
			}
		}
	}
}

// Any two cuts make no difference, nor does room that is full, exact or ample, nor a new buffer after each part.
func TestInflateCuts(t *testing.T) {
	long(t)
	for _, k := range corpus.Kinds() {
		p := k.Make(300)
		c := stdDeflate(t, p, 6)
		for i := range c {
			for j := i; j < len(c); j++ {
				z := NewInflater(nil, 15, 300)
				out := make([]byte, 0, j)
				var err error
				for _, part := range [][]byte{c[:i], c[i:j], c[j:]} {
					out, err = appendAll(z, out, part)
					require.NoError(t, err)
				}
				require.NoError(t, z.Close())
				require.True(t, bytes.Equal(p, out), "%s cut at %d and %d", k.Name, i, j)
				z.Free()
			}
		}
	}
}

// What is before the message in dst is left alone, and is no history.
func TestInflateAppends(t *testing.T) {
	z := NewInflater(nil, 15, -1)
	out, err := appendAll(z, []byte("Hello"), unhex("f248cdc9c90700"))
	require.NoError(t, err)
	require.NoError(t, z.Close())
	require.Equal(t, "HelloHello", string(out))
	z.Free()
	z = NewInflater(nil, 15, -1)
	out, err = appendAll(z, []byte("Hello"), unhex("f200110000"))
	require.ErrorIs(t, err, ErrCorrupt)
	require.Equal(t, "HelloH", string(out))
	_, err = appendAll(z, nil, unhex("f248cdc9c90700"))
	require.ErrorIs(t, err, ErrCorrupt, "for ever")
	require.ErrorIs(t, z.Close(), ErrCorrupt)
	z.Free()
}

// A message of any length is inflated in a constant room: what was appended goes to the window, the connection's or one
// of the message's own, and the room is used again.
func TestInflateStream(t *testing.T) {
	for _, bits := range []int{8, 15} {
		for _, k := range corpus.Kinds() {
			p := k.Make(100_000)
			c := Compress(nil, p, nil, bits)
			for _, w := range []*Window{nil, NewWindow(bits)} {
				for _, size := range []int{maxMatch, 5000, 64 << 10} {
					z := NewInflater(w, bits, -1)
					room := make([]byte, 0, size)
					at := 0
					for src, err := c, ErrFull; err == ErrFull; {
						var out []byte
						var n int
						out, n, err = z.Append(room, src)
						require.True(t, bytes.HasPrefix(p[at:], out), "%s from %d on", k.Name, at)
						require.Equal(t, cap(room), cap(out))
						z.Slide(out)
						clear(out)
						at += len(out)
						src = src[n:]
						require.NotEmpty(t, out)
					}
					require.NoError(t, z.Close())
					require.Equal(t, len(p), at)
					z.Free()
				}
			}
		}
	}
}

// Attack row 52: a distance is at most the window, if there is that much; one more is an error. A row of literals is
// followed by a match of three bytes.
func TestInflateDistance(t *testing.T) {
	for bits := minBits; bits <= maxBits; bits++ {
		size := 1 << bits
		for _, c := range []struct {
			name              string
			history, literals int
			distance          int
			ok                bool
		}{
			{"the first byte of the message", 0, size - 1, size - 1, true},
			{"before the message", 0, size - 1, size, false},
			{"the first byte of a full window", size, 0, size, true},
			{"before a full window", size + 10, 0, size + 1, false},
			{"the window's end and the message", size, 1, 1 + 1, true},
			{"the first byte of a window that is not full", size / 2, 10, size/2 + 10, true},
			{"before a window that is not full", size / 2, 10, size/2 + 11, false},
			{"a window back in the message", 0, size + 10, size, true},
			{"more than a window back in the message", 0, size + 10, size + 1, false},
		} {
			if c.distance > maxDistance {
				continue // cannot be said
			}
			t.Run(fmt.Sprint(bits, " bits, ", c.name), func(t *testing.T) {
				history, literals := corpus.Random(c.history), corpus.English(c.literals)
				all := append(bytes.Clone(history), literals...)
				w := NewWindow(bits)
				w.Add(history)
				slot := distSlot(uint32(c.distance - 1))
				var s bitString
				for len(literals) > 0 {
					n := min(len(literals), maxStored)
					s.put(0, 8)
					s.put(n|^n<<16, 32)
					for _, b := range literals[:n] {
						s.put(int(b), 8)
					}
					literals = literals[n:]
				}
				s.put(fixedBlock<<1, 3)
				s.put(0b1000000, 7) // length 3
				s.code(int(slot), 5)
				s.put(c.distance-int(distBase[slot]), int(distExtra[slot]))
				s.put(0, 7+3)
				out, err := inflate(s.b, len(s.b), w, bits, -1)
				if !c.ok {
					require.ErrorIs(t, err, ErrCorrupt)
					return
				}
				require.NoError(t, err)
				for range 3 {
					all = append(all, all[len(all)-c.distance])
				}
				require.True(t, bytes.Equal(all[c.history:], out))
			})
		}
	}
}

// Rule R3: exactly as many bytes as the limit says.
func TestInflateLimit(t *testing.T) {
	for _, k := range corpus.Kinds() {
		for _, n := range []int{1, 100, 5000} {
			for _, level := range []int{0, 1, 6, std.HuffmanOnly} {
				p := k.Make(n)
				c := stdDeflate(t, p, level)
				for _, step := range []int{1, len(c)} {
					out, err := inflate(c, step, nil, 15, int64(n))
					require.NoError(t, err)
					require.True(t, bytes.Equal(p, out))
					out, err = inflate(c, step, nil, 15, int64(n-1))
					require.ErrorIs(t, err, ErrTooBig)
					require.Less(t, len(out), n)
					require.True(t, bytes.HasPrefix(p, out))
				}
			}
		}
	}
}

// Attack row 49: 1 GiB of zeros behind a limit of 1 MiB. No more is asked for than the limit.
func TestInflateBomb(t *testing.T) {
	const limit = 1 << 20
	c := append(Compress(nil, corpus.Zeros(1<<20), nil, 15), 0, 0, 0xff, 0xff)
	bomb := bytes.Repeat(c, 1<<10)
	z := NewInflater(nil, 15, limit)
	defer z.Free()
	out, n, err := z.Append(make([]byte, 0, 2*limit), bomb)
	require.ErrorIs(t, err, ErrTooBig)
	require.LessOrEqual(t, len(out), limit)
	require.LessOrEqual(t, n, 2*len(c))
}

// Attack row 50: blocks without content. Half the input that is allowed for nothing passes, twice as much does not.
func TestInflateWork(t *testing.T) {
	var dynamic bitString
	for range 8 { // whole bytes
		dynamic.dynamic(lens(257, map[int]int{256: 1}), []int{0})
		dynamic.put(0, 1)
	}
	for name, block := range map[string][]byte{
		"stored":  unhex("000000ffff"),
		"fixed":   unhex("0208208000"), // four of ten bits
		"dynamic": dynamic.b,
		"final":   unhex("0300"),
	} {
		t.Run(name, func(t *testing.T) {
			for _, step := range []int{100, 1 << 20} {
				out, err := inflate(bytes.Repeat(block, freeInput/2/len(block)), step, nil, 15, -1)
				require.NoError(t, err)
				require.Empty(t, out)
				out, err = inflate(bytes.Repeat(block, 2*freeInput/len(block)), step, nil, 15, -1)
				require.ErrorIs(t, err, ErrTooMuchWork)
				require.Empty(t, out)
			}
		})
	}
}

// The whole window of the previous connection is in the pool's memory and out of reach: attack rows 53 and 54.
func TestInflateForgets(t *testing.T) {
	w := NewWindow(15)
	for range 10 {
		_, err := inflate(Compress(nil, corpus.JSON(50_000), nil, 15), 1000, w, 15, -1)
		require.NoError(t, err)
		_, err = inflate(unhex("f200110000"), 5, nil, 15, -1)
		require.ErrorIs(t, err, ErrCorrupt)
		_, err = inflate(unhex("f200110000"), 5, NewWindow(15), 15, -1)
		require.ErrorIs(t, err, ErrCorrupt)
	}
}

func TestInflateAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("sync.Pool drops things under the race detector")
	}
	p := corpus.JSON(16 << 10)
	c := stdDeflate(t, p, 6)
	dst := make([]byte, 0, len(p))
	w := NewWindow(12)
	w.Add(p)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		z := NewInflater(w, 15, int64(len(p)))
		out, _, err := z.Append(dst, c)
		if err != nil || z.Close() != nil || len(out) != len(p) {
			panic(err)
		}
		z.Slide(out)
		z.Free()
	}))
}
