//go:build linux

package main

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
)

// corpus.go owns what is sent.

const (
	opText   = 1
	opBinary = 2
	opPing   = 9
	rsv1     = 0x40
	mask     = 0x80
)

// window is what a deflate stream may refer back to, in bytes.
const window = 32 << 10

// payload returns message i of a cell.
func (c Cell) payload(i int) []byte {
	r := rand.New(rand.NewPCG(uint64(i), 1))
	var b []byte
	switch c.Text {
	case "ascii":
		b = []byte(strings.Repeat("The quick brown fox jumps over the lazy dog. ", c.Size/45+1))[:c.Size]
	case "chinese": // three bytes a character; what is left is ASCII
		b = []byte(strings.Repeat("床前明月光疑是地上霜舉頭望明月低頭思故鄉", c.Size/60+1))[:c.Size/3*3]
		b = append(b, "..."[:c.Size-len(b)]...)
	case "json":
		b = []byte(`{"items":[`)
		for len(b) < c.Size {
			b = fmt.Appendf(b, `{"id":%d,"user":"user-%04x","active":%t,"score":%.3f,"tags":["%s","%s"],"at":"2025-%02d-%02dT%02d:%02d:%02dZ"},`,
				r.IntN(1e6), r.IntN(1<<16), r.IntN(2) == 0, r.Float64()*1000, word(r), word(r),
				1+r.IntN(12), 1+r.IntN(28), r.IntN(24), r.IntN(60), r.IntN(60))
		}
		b = b[:c.Size]
	default:
		b = make([]byte, c.Size)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
	}
	return b
}

var words = strings.Fields("alpha beta gamma delta urgent archive billing support internal public draft final")

func word(r *rand.Rand) string { return words[r.IntN(len(words))] }

func (c Cell) opcode() byte {
	if c.Text == "binary" {
		return opBinary
	}
	return opText
}

// appendFrame appends a frame, masked with key if it is not zero.
func appendFrame(b []byte, first byte, key uint32, payload []byte) []byte {
	m := byte(0)
	if key != 0 {
		m = mask
	}
	switch n := len(payload); {
	case n > 65535:
		b = binary.BigEndian.AppendUint64(append(b, first, 127|m), uint64(n))
	case n > 125:
		b = binary.BigEndian.AppendUint16(append(b, first, 126|m), uint16(n))
	default:
		b = append(b, first, byte(n)|m)
	}
	if key == 0 {
		return append(b, payload...)
	}
	b = binary.BigEndian.AppendUint32(b, key)
	n := len(b)
	b = append(b, payload...)
	for i := range payload {
		b[n+i] ^= byte(key >> (24 - i%4*8))
	}
	return b
}

// A script is what a connection sends: the batches of first, once, then those of
// cycle, over and over.
type script struct {
	first, cycle [][]byte
	payloads     [][]byte // what the messages of first say, in order, and then those of cycle
}

// script encodes a cell's messages; key is the mask of the client's frames, 0
// for those of a server.
func (c Cell) script(key uint32) *script {
	s := &script{}
	if c.Deflate == "" {
		p := c.payload(0)
		f := appendFrame(nil, 0x80|c.opcode(), key, p)
		s.cycle = [][]byte{bytes.Repeat(f, c.InFlight)}
		s.payloads = [][]byte{p}
		return s
	}
	// The messages repeat only when the window has forgotten them. With takeover
	// those of the second time round may refer to what came before, which is the
	// same in every later one, and so are they.
	n := 2*window/c.Size + 1
	var z deflater
	z.keep = c.Deflate == "takeover"
	times := 1
	if z.keep {
		times = 2
	}
	for t := range times {
		for i := range n {
			p := c.payload(i)
			f := appendFrame(nil, 0x80|rsv1|c.opcode(), key, z.message(p))
			s.payloads = append(s.payloads, p)
			if t == times-1 {
				s.cycle = append(s.cycle, f)
			} else {
				s.first = append(s.first, f)
			}
		}
	}
	return s
}

// at returns the i-th batch.
func (s *script) at(i int) []byte {
	if i < len(s.first) {
		return s.first[i]
	}
	if len(s.cycle) == 1 {
		return s.cycle[0]
	}
	return s.cycle[(i-len(s.first))%len(s.cycle)]
}

// says returns the payload of each message of the i-th batch.
func (s *script) says(i int) []byte {
	if i >= len(s.first) {
		i = len(s.first) + (i-len(s.first))%len(s.cycle)
	}
	return s.payloads[i]
}

// A deflater compresses messages as RFC 7692 section 7.2.1 has it, at the level
// that browsers and libraries use for little.
type deflater struct {
	keep bool // takeover
	b    bytes.Buffer
	w    *flate.Writer
}

func (z *deflater) message(p []byte) []byte {
	z.b.Reset()
	if z.w == nil {
		z.w, _ = flate.NewWriter(&z.b, 6)
	} else if !z.keep {
		z.w.Reset(&z.b)
	}
	z.w.Write(p)
	z.w.Flush()
	return bytes.Clone(bytes.TrimSuffix(z.b.Bytes(), []byte{0, 0, 0xff, 0xff}))
}
