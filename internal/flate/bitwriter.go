package flate

import "encoding/binary"

// A bitWriter appends bits to dst, the first of a byte lowest, RFC 1951, 3.1.1. Room is made first, and not looked for
// at each bit.
type bitWriter struct {
	dst []byte
	acc uint64 // nb bits that are not in dst yet, and zeros
	nb  uint
}

// room makes room for n bits and for the word in which the last of them are written.
func (w *bitWriter) room(n int) {
	if n = n/8 + 16; cap(w.dst)-len(w.dst) < n {
		grown := make([]byte, len(w.dst), len(w.dst)+max(n, min(len(w.dst), 1<<20)))
		copy(grown, w.dst)
		w.dst = grown
	}
}

// put writes the n lowest bits of v, of which the others are 0, n <= 32.
func (w *bitWriter) put(v uint32, n uint) {
	w.acc |= uint64(v) << (w.nb & 63)
	w.nb += n
	if w.nb >= 32 {
		w.flush()
	}
}

// code writes c.
func (w *bitWriter) code(c code) { w.put(uint32(c&0xffff), c.len()) }

// flush moves whole bytes to dst.
func (w *bitWriter) flush() {
	n := len(w.dst)
	binary.LittleEndian.PutUint64(w.dst[n:n+8], w.acc)
	w.dst = w.dst[:n+int(w.nb>>3)]
	w.acc >>= w.nb & 56
	w.nb &= 7
}

// align fills the last byte with zeros.
func (w *bitWriter) align() {
	w.nb += -w.nb & 7
	w.flush()
}
