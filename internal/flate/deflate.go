package flate

import "sync"

// maxBlock is how many bytes of input make a block: as many as it can store.
const maxBlock = maxStored

// A compressor is what compressing a message takes: some 250 KB, which are borrowed.
type compressor struct {
	bitWriter
	finder
	coder
	joined [2 * maxDistance]byte // history, and behind it the beginning of the message
}

var compressors = sync.Pool{New: func() any { return new(compressor) }}

// Compress appends to dst the compressed form of src, RFC 7692, 7.2.1: DEFLATE blocks and the first byte of an empty
// stored one. What it refers to is in src, or in w, at most 1<<bits bytes back, 8 <= bits <= 15. w may be nil, and is not
// changed: who sends the result then calls w.Add(src), and who sends src as it is, because that is shorter, does not.
// Nothing is allocated if dst has room for the result and 16 bytes; spare room may be written to.
func Compress(dst, src []byte, w *Window, bits int) []byte {
	c := compressors.Get().(*compressor)
	c.dst = dst
	c.message(src, w, 1<<bits)
	dst = c.dst
	c.dst = nil
	compressors.Put(c)
	return dst
}

// message cuts src into blocks. If there is history, the first of them is compressed behind a copy of it; that is enough
// of src for the others to find in it all that they may refer to.
func (c *compressor) message(src []byte, w *Window, window int) {
	c.begin(window)
	at := 0
	if h := min(w.Len(), window); h > 0 {
		w.copyAt(c.joined[:h], h)
		at = copy(c.joined[h:], src)
		c.prime(c.joined[:h+at], h, len(src))
		c.block(c.joined[:h+at], h)
		c.base += uint32(h)
	}
	for at < len(src) {
		from := at
		at = min(from+maxBlock, len(src))
		c.block(src[:at], from)
	}
	c.end(len(src))
	c.room(3)
	c.put(storedBlock<<1, 3) // its other bytes are 00 00 ff ff
	c.align()
}

// block compresses buf[from:]. What is before may be referred to.
func (c *compressor) block(buf []byte, from int) {
	c.find(buf, from)
	c.write(&c.bitWriter, &c.finder, buf[from:])
}
