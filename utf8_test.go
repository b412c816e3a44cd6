package websocket

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket/internal/budget"
)

// openings has every string that a code point begins with and is not a whole one.
var openings = sync.OnceValue(func() map[string]bool {
	m := map[string]bool{}
	for r := rune(0x80); r <= utf8.MaxRune; r++ {
		if utf8.ValidRune(r) {
			for s := string(r); len(s) > 1; {
				s = s[:len(s)-1]
				m[s] = true
			}
		}
	}
	return m
})

// firstBad returns the place of the first byte after which nothing can make p
// text again, or len(p), and whether p ends with a whole code point.
func firstBad(p string) (bad int, whole bool) {
	from := 0
	for i := range len(p) {
		switch s := p[from : i+1]; {
		case utf8.ValidString(s):
			from = i + 1
		case !openings()[s]:
			return i, false
		}
	}
	return len(p), from == len(p)
}

// checkUTF8 hands p to a utf8Check in parts that end at cuts and at the end.
func checkUTF8(t *testing.T, p string, bad int, whole bool, cuts ...int) {
	t.Helper()
	var u utf8Check
	from := 0
	for _, to := range append(cuts, len(p)) {
		ok := u.add([]byte(p[from:to]))
		if ok != (bad >= to) {
			require.Failf(t, "add", "%v for bytes %d to %d of %q, bad at %d", ok, from, to, p, bad)
		}
		if !ok {
			return
		}
		from = to
	}
	if u.complete() != whole {
		require.Failf(t, "complete", "%v for %q cut at %v", u.complete(), p, cuts)
	}
}

// The hard cases; bad is the place of the first bad byte, or the length.
var hardUTF8 = []struct {
	name string
	text string
	bad  int
}{
	{"empty", "", 0},
	{"one byte", "\x00", 1},
	{"first of two bytes", "\xc2\x80", 2},
	{"last of two bytes", "\xdf\xbf", 2},
	{"first of three bytes", "\xe0\xa0\x80", 3},
	{"before the surrogates", "\xed\x9f\xbf", 3},
	{"after the surrogates", "\xee\x80\x80", 3},
	{"last of three bytes", "\xef\xbf\xbf", 3},
	{"first of four bytes", "\xf0\x90\x80\x80", 4},
	{"last of all", "\xf4\x8f\xbf\xbf", 4},
	{"begun, two bytes", "\xc2", 1},
	{"begun, three bytes", "\xe0\xa0", 2},
	{"begun, four bytes", "\xf0\x90\x80", 3},
	{"begun twice", "\xe4\xe4", 1},
	{"begun, then ASCII", "\xe4\xbd!", 2},
	{"begun, then whole", "\xf0\x9f\x98é", 3},
	{"lone continuation, first", "\x80", 0},
	{"lone continuation, last", "\xbf", 0},
	{"one continuation too many, two bytes", "\xc3\xa9\xa9", 2},
	{"one continuation too many, three bytes", "\xe4\xbd\xa0\xa0", 3},
	{"one continuation too many, four bytes", "\xf0\x9f\x98\x80\x80", 4},
	{"overlong two, c0", "\xc0\x80", 0},
	{"overlong two, c1", "\xc1\xbf", 0},
	{"overlong three, first", "\xe0\x80\x80", 1},
	{"overlong three, last", "\xe0\x9f\xbf", 1},
	{"overlong four, first", "\xf0\x80\x80\x80", 1},
	{"overlong four, last", "\xf0\x8f\xbf\xbf", 1},
	{"surrogate, first", "\xed\xa0\x80", 1},
	{"surrogate, last", "\xed\xbf\xbf", 1},
	{"surrogate pair", "\xed\xa0\xbd\xed\xb8\x80", 1},
	{"beyond the last, f4", "\xf4\x90\x80\x80", 1},
	{"beyond the last, f5", "\xf5\x80\x80\x80", 0},
	{"five bytes", "\xf8\x88\x80\x80\x80", 0},
	{"six bytes", "\xfc\x84\x80\x80\x80\x80", 0},
	{"fe", "\xfe", 0},
	{"ff", "\xff", 0},
}

// filler is n bytes of text of either kind.
func filler(n int, ascii bool) string {
	if ascii {
		return strings.Repeat("x", n)
	}
	return strings.Repeat("x", n%3) + strings.Repeat("語", n/3)
}

// TestUTF8_8_1 puts each hard case at every offset modulo 64, alone or before
// more text, and hands it over whole and cut in two at every place.
func TestUTF8_8_1(t *testing.T) {
	for _, c := range hardUTF8 {
		bad, whole := firstBad(c.text)
		require.Equal(t, c.bad, bad, c.name)
		require.Equal(t, utf8.ValidString(c.text), whole, c.name)
	}
	for name := range eachSIMD {
		t.Run(name, func(t *testing.T) {
			for _, c := range hardUTF8 {
				for i := range 64 * 4 {
					ascii := i%2 == 0
					p := filler(i/4, ascii) + c.text
					if i/2%2 == 0 {
						p += filler(70, ascii)
					}
					bad, whole := firstBad(p)
					require.Equal(t, utf8.ValidString(p), whole)
					for cut := range len(p) + 1 {
						checkUTF8(t, p, bad, whole, cut)
					}
				}
			}
		})
	}
}

// TestUTF8Long puts each hard case anywhere in texts longer than several
// vectors, so that each loop meets it.
func TestUTF8Long(t *testing.T) {
	for name := range eachSIMD {
		t.Run(name, func(t *testing.T) {
			for _, c := range hardUTF8 {
				for i := range 320 * 2 {
					ascii := i%2 == 0
					p := filler(i/2, ascii) + c.text + filler(320-i/2, ascii)
					bad, whole := firstBad(p)
					checkUTF8(t, p, bad, whole)
				}
			}
		})
	}
}

// TestUTF8Dense compares all pairs of bytes, with any kind of byte after them,
// with utf8.Valid.
func TestUTF8Dense(t *testing.T) {
	kinds := []byte{'x', 0x80, 0xbf, 0xc3}
	for name := range eachSIMD {
		t.Run(name, func(t *testing.T) {
			p := []byte(filler(90, true))
			for i := 0x7f00; i <= 0xffff; i++ {
				for j := range 16 {
					p[40], p[41], p[42], p[43] = byte(i>>8), byte(i), kinds[j/4], kinds[j%4]
					var u utf8Check
					if u.add(p) != utf8.Valid(p) {
						require.Failf(t, "add", "%x", p[40:44])
					}
				}
			}
		})
	}
}

func TestUTF8AllCodePoints(t *testing.T) {
	var all []byte
	for r := range rune(utf8.MaxRune + 1) {
		if utf8.ValidRune(r) {
			all = utf8.AppendRune(all, r)
		}
	}
	for name := range eachSIMD {
		t.Run(name, func(t *testing.T) {
			for _, size := range []int{1, 7, 64, 1001, len(all)} {
				var u utf8Check
				for p := all; len(p) > 0; p = p[min(size, len(p)):] {
					if !u.add(p[:min(size, len(p))]) {
						require.Failf(t, "add", "parts of %d: %d bytes from the end", size, len(p))
					}
				}
				require.True(t, u.complete())
			}
		})
	}
}

func TestUTF8AllocatesNothing(t *testing.T) {
	require.Zero(t, testing.AllocsPerRun(100, func() {
		var p [200]byte
		var u utf8Check
		p[0], p[1], p[199] = 0xc3, 0xa9, 0xe4
		u.add(p[:])
	}))
}

func FuzzUTF8(f *testing.F) {
	for _, c := range hardUTF8 {
		f.Add(c.text, uint(1), uint(2))
		f.Add(filler(100, false)+c.text+filler(100, true), uint(101), uint(102))
	}
	f.Fuzz(func(t *testing.T, p string, to, from uint) {
		j := int(to % uint(len(p)+1))
		i := int(from % uint(j+1))
		bad, whole := firstBad(p)
		require.Equal(t, utf8.ValidString(p), whole)
		b := []byte(p)
		budget.Check(t, len(b), 0, func() { require.Equal(t, whole, validText(b)) })
		for range eachSIMD {
			checkUTF8(t, p, bad, whole)
			checkUTF8(t, p, bad, whole, i, j)
		}
	})
}

func BenchmarkUTF8(b *testing.B) {
	texts := []struct{ name, text string }{
		{"ASCII", "The quick brown fox jumps over the lazy dog. "},
		{"Chinese", "床前明月光疑是地上霜"},
	}
	for _, text := range texts {
		for _, n := range []int{9, 30, 64, 1024, 65536} {
			p := []byte(strings.Repeat(text.text, n/len(text.text)+1))[:n]
			p = p[:unfinished(p)]
			run := func(name string, f func() bool) {
				b.Run(fmt.Sprintf("func=%s/text=%s/size=%d", name, text.name, n), func(b *testing.B) {
					b.SetBytes(int64(len(p)))
					for b.Loop() {
						f()
					}
				})
			}
			run("add", func() bool { var u utf8Check; return u.add(p) })
			run("Valid", func() bool { return utf8.Valid(p) })
		}
	}
}
