package autobahn

// What sections 12 and 13 send: stand-ins for upstream's files, with the same sizes and about the same
// compressibility. They are made, not stored, and always come out the same.

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// A corpus is one file that is sent over and over.
type corpus struct {
	name  string
	text  bool
	data  []byte  // the file, and its beginning again: every slice lies in one piece
	size  int     // of the file: octets, or code points of text
	at    []int32 // octet index of every code point of data; nil if they are the same
	ratio float64 // about how far it compresses, for choosing what to keep
}

const maxSlice = 131072 // the largest message of sections 12 and 13

func newCorpus(name string, isText bool, file []byte, ratio float64) *corpus {
	c := &corpus{name: name, text: isText, size: len(file), ratio: ratio}
	c.data = append(file, file[:min(len(file), maxSlice+64)]...)
	if isText && utf8.RuneCount(file) != len(file) {
		c.size = utf8.RuneCount(file)
		for i := range string(c.data) {
			c.at = append(c.at, int32(i))
		}
	}
	return c
}

// slice is message k when messages of size octets (code points) are cut off one after the other.
func (c *corpus) slice(k, size int) []byte {
	from := k * size % c.size
	if c.at == nil {
		return c.data[from : from+size]
	}
	return c.data[c.at[from]:c.at[from+size]]
}

var (
	corpusJSON   = sync.OnceValue(func() *corpus { return newCorpus("JSON", true, makeJSON(194056), 0.05) })
	corpusBitmap = sync.OnceValue(func() *corpus { return newCorpus("gray bitmap", false, makeBitmap(), 0.9) })
	corpusVerse  = sync.OnceValue(func() *corpus { return newCorpus("verse", false, makeVerse(222218), 0.45) })
	corpusHTML   = sync.OnceValue(func() *corpus { return newCorpus("HTML", true, makeHTML(263620), 0.06) })
	corpusPDF    = sync.OnceValue(func() *corpus { return newCorpus("PDF", false, makePDF(1042328), 0.8) })
)

func seeded(n byte) *rand.Rand {
	return rand.New(rand.NewChaCha8([32]byte{'c', 'o', 'r', 'p', 'u', 's', n}))
}

// makeJSON lists measurements that differ in few places.
func makeJSON(size int) []byte {
	rng := seeded(1)
	b := []byte("[\n")
	for i := 0; len(b) < size; i++ {
		b = fmt.Appendf(b, `  {"sensor": {"name": "station-north", "unit": "degrees", "calibrated": true, "group": null},`+
			"\n"+`   "reading": {"sequence": %d, "value": %d.5, "quality": "good", "alarms": []},`+
			"\n"+`   "position": {"hall": "A", "rack": "first", "slot": 12, "comment": "mounted upright"}}`, 1000+i, 20+rng.IntN(4))
		if rng.IntN(5) < 3 {
			b = fmt.Appendf(b, ",\n  {\"event\": \"%06x\", \"at\": %d}", rng.Uint32()&0xffffff, rng.Uint32())
		}
		b = append(b, ",\n"...)
	}
	return fill(b[:size-2], size, "]\n")
}

// fill makes b exactly size octets long, ending in end.
func fill(b []byte, size int, end string) []byte {
	for len(b) < size-len(end) {
		b = append(b, ' ')
	}
	return append(b[:size-len(end)], end...)
}

// makeBitmap draws soft hills under a film of grain: 512 by 512 octets after header and palette.
func makeBitmap() []byte {
	rng := seeded(2)
	b := make([]byte, 54, 263222)
	copy(b, "BM")
	for i := range 256 {
		b = append(b, byte(i), byte(i), byte(i), 0)
	}
	for i := range 512 * 512 {
		x, y := float64(i%512), float64(i/512)
		v := 128 + 60*math.Sin(x/41)*math.Cos(y/57) + 30*math.Sin((x+y)/23) + grain*rng.NormFloat64()
		b = append(b, byte(min(max(v, 0), 255)))
	}
	return b
}

const grain = 10

var (
	verseSmall   = strings.Fields("der die das und ich du er es ein eine zu in nicht mit von auf so den dem sich ist wie wir noch nun aus mein dein bei doch was wenn nur hier dort an um")
	verseOnset   = strings.Fields("b br d dr f fl fr g gl gr h k kl kn kr l m n p pf r s sch schl schw st str t tr w z")
	verseNucleus = strings.Fields("a e i o u ei au ie ä ö ü eu")
	verseCoda    = strings.Fields("l n r t s ch cht nd ng rt st mm ll ck tz rm ld ft nk")
	verseEnding  = []string{"", "", "e", "en", "er", "t", "te", "ung", "lich", "es"}
)

// makeVerse writes lines of invented words that sound German, in rhyme of a kind, one octet a letter (ISO 8859-1).
func makeVerse(size int) []byte {
	rng := seeded(3)
	words := make([]string, 2600)
	pick := func(from []string) string { return from[rng.IntN(len(from))] }
	for i := range words {
		words[i] = pick(verseOnset) + pick(verseNucleus) + pick(verseCoda)
		if rng.IntN(3) == 0 {
			words[i] += pick(verseNucleus[:4]) + pick(verseCoda)
		}
		words[i] += pick(verseEnding)
	}
	often := rand.NewZipf(rng, 1.12, 14, uint64(len(words)-1))
	var s strings.Builder
	for line := 0; s.Len() < size+size/20; line++ {
		for n := range 4 + rng.IntN(4) {
			w := words[often.Uint64()]
			switch {
			case rng.IntN(5) < 2:
				w = pick(verseSmall)
			case rng.IntN(4) == 0 || n == 0:
				first, n := utf8.DecodeRuneInString(w)
				w = strings.ToUpper(string(first)) + w[n:]
			}
			if n > 0 {
				s.WriteByte(' ')
			}
			s.WriteString(w)
		}
		s.WriteString([]string{",\r\n", ".\r\n", "\r\n", "!\r\n\r\n"}[line&3])
	}
	return latin1(s.String())[:size]
}

func latin1(s string) []byte {
	var b []byte
	for _, r := range s {
		b = append(b, byte(r))
	}
	return b
}

// makeHTML is a long table, size code points, of which 26 are not ASCII: 25 of two octets, one of three (U+1F79).
func makeHTML(size int) []byte {
	rng := seeded(4)
	var s strings.Builder
	s.WriteString("<!DOCTYPE html>\n<html>\n<head><title>Stock</title></head>\n<body>\n<table class=\"wide\">\n")
	special := append(slices.Repeat([]rune{'é', 'ß', 'ø', 'ñ', 'ü'}, 5), '\u1f79')
	foot := "</table>\n</body>\n</html>\n"
	n := s.Len()
	for i := 0; n < size; i++ {
		row := fmt.Sprintf("  <tr class=\"row\">\n    <td class=\"number\"><a href=\"/stock/item?id=%d\">%d</a></td>\n"+
			"    <td class=\"name\">part of the usual kind</td>\n    <td class=\"price\">%d.00</td>\n  </tr>\n", 4000+i, 4000+i, rng.IntN(90))
		if rng.IntN(3) == 0 {
			row += fmt.Sprintf("  <!-- %08x -->\n", rng.Uint32())
		}
		if i%50 == 7 && len(special) > 0 {
			row = strings.Replace(row, "usual", "us"+string(special[0])+"al", 1)
			special = special[1:]
		}
		s.WriteString(row)
		n += utf8.RuneCountInString(row)
	}
	b := []byte(s.String())
	return fill(b[:len(b)-(n-size)-len(foot)], size+27, foot) // the last rows are ASCII
}

// makePDF alternates streams that were compressed already with the plain objects of a document.
func makePDF(size int) []byte {
	rng := seeded(5)
	b := []byte("%PDF-1.4\n")
	for i := 1; len(b) < size; i++ {
		n := 3000 + rng.IntN(6000)
		b = fmt.Appendf(b, "%d 0 obj\n<< /Length %d /Filter /FlateDecode >>\nstream\n", i, n)
		for range n {
			b = append(b, byte(rng.Uint32()))
		}
		b = append(b, "\nendstream\nendobj\n"...)
		for j := range 16 + rng.IntN(24) {
			b = fmt.Appendf(b, "%d 0 obj\n<< /Type /Annot /Subtype /Link /Border [0 0 0] /Rect [%d %d %d %d] >>\nendobj\n",
				10000*i+j, rng.IntN(600), rng.IntN(800), rng.IntN(600), rng.IntN(800))
		}
	}
	return fill(b, size, "\n%%EOF\n")
}
