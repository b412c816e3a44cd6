// Package bench races internal/flate against compress/flate and klauspost/compress/flate: messages compressed and
// decompressed one at a time, each alone or with what came before as context.
package bench

import (
	"bytes"
	std "compress/flate"
	"fmt"
	"io"
	"testing"

	klauspost "github.com/klauspost/compress/flate"

	"github.com/seed-07372d5a/websocket/internal/flate"
	"github.com/seed-07372d5a/websocket/internal/flate/corpus"
)

// A set is messages of one kind and size.
type set struct {
	name     string
	size     int
	messages [][]byte
	alone    [][]byte // compressed one by one
	stream   [][]byte // compressed with context
}

func sets() []set {
	var all []set
	for _, k := range []corpus.Kind{{Name: "json", Make: corpus.JSON}, {Name: "chinese", Make: corpus.Chinese}} {
		for _, size := range []int{256, 1 << 10, 16 << 10, 1 << 20} {
			s := set{name: fmt.Sprintf("%s/%d", k.Name, size), size: size}
			data := k.Make(max(256<<10, 4*size))
			for len(data) >= size && len(s.messages) < 256 {
				s.messages = append(s.messages, data[:size])
				data = data[size:]
			}
			var buf bytes.Buffer
			fresh, _ := std.NewWriter(&buf, 6)
			for _, m := range s.messages {
				buf.Reset()
				fresh.Reset(&buf)
				s.alone = append(s.alone, flush(&buf, fresh, m))
			}
			fresh.Reset(&buf)
			for _, m := range s.messages {
				buf.Reset()
				s.stream = append(s.stream, flush(&buf, fresh, m))
			}
			all = append(all, s)
		}
	}
	return all
}

type writer interface {
	io.Writer
	Flush() error
	Reset(io.Writer)
}

// flush returns what m is compressed to, without the four bytes that permessage-deflate leaves out.
func flush(buf *bytes.Buffer, w writer, m []byte) []byte {
	w.Write(m)
	w.Flush()
	return bytes.Clone(buf.Bytes()[:buf.Len()-4])
}

// A codec decompresses or compresses the messages of one set, in turn. It returns the size of what it made.
type codec struct {
	name string
	next func(i int) int
}

var tail = []byte{0, 0, 0xff, 0xff}

// inflaters are for compressed messages; with context the first of them comes again after the last, as a new stream.
func inflaters(s *set, takeover bool) []codec {
	in := s.alone
	if takeover {
		in = s.stream
	}
	tailed := make([][]byte, len(in))
	for i := range in {
		tailed[i] = append(bytes.Clone(in[i]), tail...)
	}
	dst := make([]byte, s.size)
	var window *flate.Window
	var from [2]bytes.Buffer // what a reader leaves of a message's end it reads with the next
	stdReader, klauspostReader := std.NewReader(&from[0]), klauspost.NewReader(&from[1])
	ours := func(i int) int {
		if i == 0 && takeover {
			window = flate.NewWindow(15)
		}
		z := flate.NewInflater(window, 15, int64(s.size))
		out, _, err := z.Append(dst[:0], in[i])
		if err != nil || z.Close() != nil {
			panic("flate: cannot decompress")
		}
		if takeover {
			z.Slide(out)
		}
		z.Free()
		return len(out)
	}
	theirs := func(r io.Reader, from *bytes.Buffer, reset func()) func(i int) int {
		return func(i int) int {
			if i == 0 || !takeover {
				from.Reset()
				reset()
			}
			from.Write(tailed[i])
			n, err := io.ReadFull(r, dst)
			if err != nil {
				panic(err)
			}
			return n
		}
	}
	return []codec{
		{"ours", ours},
		{"std", theirs(stdReader, &from[0], func() { stdReader.(std.Resetter).Reset(&from[0], nil) })},
		{"klauspost", theirs(klauspostReader, &from[1], func() { klauspostReader.(klauspost.Resetter).Reset(&from[1], nil) })},
	}
}

// deflaters compress at the level that the others call 1.
func deflaters(s *set, takeover bool) []codec {
	dst := make([]byte, 0, 2*s.size+1024)
	var window *flate.Window
	ours := func(i int) int {
		if i == 0 && takeover {
			window = flate.NewWindow(15)
		}
		out := flate.Compress(dst, s.messages[i], window, 15)
		if takeover {
			window.Add(s.messages[i])
		}
		return len(out)
	}
	theirs := func(buf *bytes.Buffer, w writer) func(i int) int {
		return func(i int) int {
			buf.Reset()
			if i == 0 || !takeover {
				w.Reset(buf)
			}
			w.Write(s.messages[i])
			w.Flush()
			return buf.Len() - len(tail)
		}
	}
	var buf [2]bytes.Buffer
	stdWriter, _ := std.NewWriter(&buf[0], 1)
	klauspostWriter, _ := klauspost.NewWriter(&buf[1], 1)
	return []codec{{"ours", ours}, {"std", theirs(&buf[0], stdWriter)}, {"klauspost", theirs(&buf[1], klauspostWriter)}}
}

func run(b *testing.B, codecs func(*set, bool) []codec) {
	for _, s := range sets() {
		for _, takeover := range []bool{false, true} {
			for _, c := range codecs(&s, takeover) {
				b.Run(fmt.Sprintf("%s/takeover=%v/%s", s.name, takeover, c.name), func(b *testing.B) {
					b.SetBytes(int64(s.size))
					b.ReportAllocs()
					size := 0
					for i := 0; i < b.N; i++ {
						size += c.next(i % len(s.messages))
					}
					b.ReportMetric(float64(size)/float64(b.N)/float64(s.size), "size/plain")
				})
			}
		}
	}
}

func BenchmarkInflate(b *testing.B) { run(b, inflaters) }
func BenchmarkDeflate(b *testing.B) { run(b, deflaters) }
