// Package corpus makes the data that the codec is tested and measured with: the same bytes on every machine, in any
// length, and close enough to what people send that sizes and speeds mean something.
package corpus

import (
	"encoding/binary"
	"math"
	"strconv"
	"strings"
)

// A Kind is one sort of data.
type Kind struct {
	Name string
	Make func(n int) []byte // n bytes of it; a shorter one is a prefix of a longer one
}

// Kinds lists every sort.
func Kinds() []Kind {
	return []Kind{
		{"json", JSON}, {"english", English}, {"chinese", Chinese}, {"cyrillic", Cyrillic}, {"arabic", Arabic},
		{"emoji", Emoji}, {"html", HTML}, {"protobuf", Protobuf}, {"random", Random}, {"zeros", Zeros},
		{"period3", Period3},
	}
}

// random is splitmix64: small, and fixed for ever, which math/rand/v2 does not promise for its helpers.
type random uint64

func (r *random) next() uint64 {
	*r += 0x9e3779b97f4a7c15
	z := uint64(*r)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func (r *random) intn(n int) int { return int(r.next() >> 33 % uint64(n)) }

// zipf favours the first words of a list as languages do.
func (r *random) zipf(n int) int {
	u := float64(r.next()>>11) / (1 << 53)
	return min(int(math.Pow(float64(n), u))-1, n-1)
}

// grow repeats more until n bytes are there.
func grow(n int, more func(b []byte) []byte) []byte {
	b := make([]byte, 0, n+1024)
	for len(b) < n {
		b = more(b)
	}
	return b[:n:n]
}

// A language is a list of words, the frequent first, and what stands between them.
type language struct {
	words []string
	space string
	ends  []string
}

// newLanguage makes n words of lo to hi syllables.
func newLanguage(seed random, n, lo, hi int, syllables []string, space string, ends ...string) *language {
	l := &language{space: space, ends: ends}
	for len(l.words) < n {
		var w strings.Builder
		for range lo + seed.intn(hi-lo+1) {
			w.WriteString(syllables[seed.zipf(len(syllables))])
		}
		l.words = append(l.words, w.String())
	}
	return l
}

func (l *language) word(r *random) string { return l.words[r.zipf(len(l.words))] }

func (l *language) sentence(b []byte, r *random) []byte {
	for i := range 4 + r.intn(14) {
		if i > 0 {
			b = append(b, l.space...)
		}
		b = append(b, l.word(r)...)
	}
	return append(b, l.ends[r.zipf(len(l.ends))]...)
}

func (l *language) text(n int, seed random) []byte {
	return grow(n, func(b []byte) []byte { return l.sentence(b, &seed) })
}

const (
	latin = "e t a o i n s h r d l u th he in er an re on at en nd ti es or te of ed is it al ar st to nt ng se ha as " +
		"ou io le ve co me de hi ri ro ic ne ea ra ce li ch ll be ma si om ur c m f p g w y b v k x j q z"
	han = "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事成方多经么去法学如" +
		"都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者意无力它与长把机十民第公此已工使情明性知全三又关点正业外将" +
		"两高间由问很最重并物手应战向头文体政美相见被利什二等产或新己制身果加西斯月话合回特代内信表化老给世位次度门任常先海通教儿原东声提立" +
		"及比员解水名真论处走义各入几口认条平系气题活尔更别打女变四神总何电数安少报才结反受目太量再感建务做接必场件计管期市直德资命山金指克"
	cyrillic = "о е а и н т с р в л к м д п у я ы ь г з б ч й х ж ш ю ц щ э ф ъ ст но то на ен ов ни ра во ко"
	arabic   = "ا ل ي م و ن ر ت ب ع د س ه ف ك ق أ ح ج ة ش ص ى خ إ ز ط ض غ ذ ئ ث ؤ ء ظ ال من في لا ما"
	emoji    = "😀 😂 ❤️ 👍 🔥 🎉 😭 🙏 😊 🚀 💯 🤔 👀 😎 ✨ 🥳 😅 💪 👏 🙌 ok no lol yes hmm the"
)

var (
	english = newLanguage(1, 2500, 1, 4, strings.Fields(latin), " ", ". ", ", ", "? ", "\n")
	chinese = newLanguage(2, 2500, 1, 3, strings.Split(han, ""), "", "，", "。", "、", "！", "？\n")
	russian = newLanguage(3, 2500, 1, 5, strings.Fields(cyrillic), " ", ". ", ", ", " — ", "\n")
	arab    = newLanguage(4, 2500, 1, 5, strings.Fields(arabic), " ", ". ", "، ", "؟ ", "\n")
	smiley  = newLanguage(5, 300, 1, 3, strings.Fields(emoji), " ", " ", "! ", "\n")
)

func English(n int) []byte  { return english.text(n, 11) }
func Chinese(n int) []byte  { return chinese.text(n, 12) }
func Cyrillic(n int) []byte { return russian.text(n, 13) }
func Arabic(n int) []byte   { return arab.text(n, 14) }
func Emoji(n int) []byte    { return smiley.text(n, 15) }

// JSON is a feed of chat events: fixed keys, ids, times, numbers and some prose.
func JSON(n int) []byte {
	r := random(16)
	at := int64(1_700_000_000_000)
	return grow(n, func(b []byte) []byte {
		at += int64(r.intn(5000))
		b = append(b, `{"type":"message","id":"`...)
		b = strconv.AppendUint(b, r.next(), 16)
		b = append(b, `","channel":"`...)
		b = append(b, english.words[20+r.zipf(30)]...)
		b = append(b, `","seq":`...)
		b = strconv.AppendInt(b, int64(len(b)), 10)
		b = append(b, `,"ts":`...)
		b = strconv.AppendInt(b, at, 10)
		b = append(b, `,"user":{"id":`...)
		b = strconv.AppendInt(b, int64(1000+r.zipf(4000)), 10)
		b = append(b, `,"name":"`...)
		b = append(b, english.words[100+r.zipf(200)]...)
		b = append(b, `","online":`...)
		b = strconv.AppendBool(b, r.intn(3) > 0)
		b = append(b, `},"text":"`...)
		b = append(b, strings.TrimSpace(string(english.sentence(nil, &r)))...)
		b = append(b, `","score":`...)
		b = strconv.AppendFloat(b, float64(r.intn(100000))/1000, 'f', -1, 64)
		b = append(b, `,"tags":[`...)
		for i := range r.intn(4) {
			if i > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendQuote(b, english.word(&r))
		}
		return append(b, "]}\n"...)
	})
}

// HTML is a list of articles.
func HTML(n int) []byte {
	r := random(17)
	return grow(n, func(b []byte) []byte {
		b = append(b, `<article class="post"><h2><a href="/p/`...)
		b = strconv.AppendInt(b, int64(r.intn(100000)), 10)
		b = append(b, `">`...)
		b = append(b, english.word(&r)...)
		b = append(b, "</a></h2>\n"...)
		for range 1 + r.intn(3) {
			b = append(b, `  <p class="`...)
			b = append(b, english.words[r.zipf(20)]...)
			b = append(b, `">`...)
			b = english.sentence(b, &r)
			b = append(b, "</p>\n"...)
		}
		return append(b, "</article>\n"...)
	})
}

// Protobuf has the look of the wire format: tags, varints, lengths, fixed64 and short strings.
func Protobuf(n int) []byte {
	r := random(18)
	return grow(n, func(b []byte) []byte {
		b = append(b, 0x08)
		b = binary.AppendUvarint(b, r.next()>>(20+r.intn(40)))
		b = append(b, 0x11)
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(float64(r.intn(1000000))/100))
		b = append(b, 0x18, byte(r.intn(4)), 0x22)
		name := english.word(&r)
		b = append(b, byte(len(name)))
		b = append(b, name...)
		b = append(b, 0x2d)
		return binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(r.intn(360))))
	})
}

// Random cannot be compressed.
func Random(n int) []byte {
	r := random(19)
	return grow(n, func(b []byte) []byte { return binary.LittleEndian.AppendUint64(b, r.next()) })
}

// Zeros is what bombs are made of.
func Zeros(n int) []byte { return make([]byte, n) }

// Period3 repeats at a distance shorter than a word of memory.
func Period3(n int) []byte {
	return grow(n, func(b []byte) []byte { return append(b, "abc"...) })
}
