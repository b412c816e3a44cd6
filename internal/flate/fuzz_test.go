package flate

import (
	"bytes"
	std "compress/flate"
	"errors"
	"io"
	"math"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket/internal/budget"
	"github.com/seed-07372d5a/websocket/internal/flate/corpus"
	"github.com/seed-07372d5a/websocket/internal/flate/reference"
)

// stdMessage inflates a message with compress/flate, as far as that can: a final block begins a new stream, which has
// the output so far as its history. Where the message is to end, a final block is put: there, or behind the tail that its
// sender cut off.
func stdMessage(src, history []byte) ([]byte, error) {
	plain, _ := stdBlocks(src, history)
	err := error(nil)
	for _, end := range [][]byte{{1, 0, 0, 0xff, 0xff}, {0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff}} {
		var out []byte
		if out, err = stdBlocks(append(bytes.Clone(src), end...), history); err == nil && len(out) == len(plain) {
			return out, nil // and nothing of what was put there was taken for data
		}
	}
	return nil, errors.Join(err, errors.New("no end"))
}

var stdReaders = sync.Pool{New: func() any { return std.NewReader(nil) }}

func stdBlocks(src, history []byte) ([]byte, error) {
	all := bytes.Clone(history)
	in := bytes.NewReader(src)
	r := stdReaders.Get()
	defer stdReaders.Put(r)
	for in.Len() > 0 {
		if err := r.(std.Resetter).Reset(in, all[max(0, len(all)-1<<15):]); err != nil {
			return nil, err
		}
		out, err := io.ReadAll(r.(io.Reader))
		all = append(all, out...)
		if err != nil {
			return all[len(history):], err
		}
	}
	return all[len(history):], nil
}

// verdictErrors are how an Inflater says what the reference says.
var verdictErrors = map[reference.Verdict]error{
	reference.Whole:       nil,
	reference.Unfinished:  ErrCorrupt,
	reference.Corrupt:     ErrCorrupt,
	reference.TooBig:      ErrTooBig,
	reference.TooMuchWork: ErrTooMuchWork,
}

// inflaterSize is what an Inflater weighs, with its pool's share, in bytes.
const inflaterSize = 64 << 10

// inflateReference is the reference without a limit.
func inflateReference(src, history []byte, reach int) (out []byte, farthest int, err error) {
	out, farthest, v := reference.Inflate(src, history, reach, math.MaxInt/2)
	return out, farthest, verdictErrors[v]
}

// FuzzInflate compares with the reference and with compress/flate: the same bytes and the same verdict; however the input
// is cut, whatever room there is, and wherever the output goes.
func FuzzInflate(f *testing.F) {
	for _, c := range legal {
		f.Add(unhex(c.in), []byte(c.history), uint8(15), uint16(3), uint16(100))
	}
	for _, c := range illegal {
		f.Add(unhex(c.in), []byte(nil), uint8(15), uint16(1), uint16(100))
	}
	for i, k := range corpus.Kinds() {
		for _, level := range []int{-2, 1, 6} {
			f.Add(stdDeflate(f, k.Make(700), level), []byte("history"), uint8(15-i%8), uint16(i), uint16(700))
		}
		w := NewWindow(9)
		w.Add(k.Make(600))
		f.Add(Compress(nil, k.Make(900), w, 9), k.Make(600), uint8(9), uint16(i), uint16(800+i*30))
	}
	f.Fuzz(func(t *testing.T, src, history []byte, bits uint8, cut, limit uint16) {
		bits = 8 + bits%8
		history = history[max(0, len(history)-1<<bits):]
		want, _, verdict := reference.Inflate(src, history, 1<<bits, int(limit))
		w := NewWindow(int(bits))
		w.Add(history)
		var out []byte
		var err error
		budget.Check(t, len(src), 2*int(limit)+inflaterSize, func() {
			out, err = inflate(src, len(src), w, int(bits), int64(limit))
		})
		require.Equal(t, verdictErrors[verdict], err)
		require.True(t, bytes.Equal(want, out))
		if verdict == reference.Whole {
			got, err := stdMessage(src, history)
			require.NoError(t, err)
			require.True(t, bytes.Equal(want, got))
		}
		if (verdict == reference.Unfinished || verdict == reference.Corrupt) && bits == 15 && len(history) < 1<<15 {
			_, err := stdMessage(src, history)
			require.Error(t, err)
		}
		require.LessOrEqual(t, len(out), int(limit))
		w = NewWindow(int(bits))
		w.Add(history)
		cutOut, cutErr := inflateCut(src, int(cut), w, int(bits), int64(limit))
		require.Equal(t, err, cutErr)
		require.True(t, bytes.Equal(out, cutOut))
	})
}

// inflateCut cuts src as cut says: into parts of its low bits' length, with the next ones' room, and if the highest is
// set, into a new buffer each time.
func inflateCut(src []byte, cut int, w *Window, bits int, limit int64) (all []byte, err error) {
	z := NewInflater(w, bits, limit)
	defer z.Free()
	step, room, slide := 1+cut&31, maxMatch+cut>>5&1023, cut>>15 > 0
	buf := make([]byte, 0, room)
	for len(src) > 0 && err == nil {
		part := src[:min(step, len(src))]
		src = src[len(part):]
		for err = ErrFull; err == ErrFull; {
			n := 0
			buf, n, err = z.Append(buf, part)
			part = part[n:]
			if slide {
				all = append(all, buf...)
				z.Slide(buf)
				clear(buf)
				buf = buf[:0]
			} else if err == ErrFull {
				buf = slices.Grow(buf, room)
			}
		}
	}
	if err == nil {
		err = z.Close()
	}
	if !slide {
		all = buf
	}
	return all, err
}

// compressorSize is what compressing weighs, with its pool's share, in bytes.
const compressorSize = 1 << 20

// FuzzDeflate compresses with any window and history, and has the reference, compress/flate and the Inflater read it.
func FuzzDeflate(f *testing.F) {
	for i, k := range corpus.Kinds() {
		f.Add(k.Make(10), []byte(nil), uint8(i), uint8(0))
		f.Add(k.Make(700), k.Make(500), uint8(i), uint8(0))
		f.Add(k.Make(300), k.Make(300), uint8(i), uint8(7))
	}
	f.Fuzz(func(t *testing.T, p, history []byte, bits, again uint8) {
		bits = 8 + bits%8
		p = bytes.Repeat(p, 1+int(again&7))
		w := NewWindow(int(bits))
		w.Add(history)
		history = history[max(0, len(history)-1<<bits):]
		var c []byte
		budget.Check(t, len(p), compressorSize, func() { c = Compress(nil, p, w, int(bits)) })
		require.LessOrEqual(t, len(c), len(p)+len(p)/maxStored*5+6, "at worst stored blocks (RFC 1951, 3.2.4)")
		out, farthest, err := inflateReference(c, history, 1<<bits)
		require.NoError(t, err)
		require.True(t, bytes.Equal(p, out))
		require.LessOrEqual(t, farthest, 1<<bits)
		out, err = stdMessage(c, history)
		require.NoError(t, err)
		require.True(t, bytes.Equal(p, out))
		out, err = inflate(c, len(c), w, int(bits), int64(len(p)))
		require.NoError(t, err)
		require.True(t, bytes.Equal(p, out))
	})
}
