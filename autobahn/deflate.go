package autobahn

// The fuzzer's own compressor: LZ77 over hash chains, then the cheapest of a stored, fixed or dynamic block.
// compress/flate cannot limit its window, and sections 12 and 13 must (RFC 7692 7.1.2).

import (
	"encoding/binary"
	"math/bits"
)

const (
	minMatch   = 4 // shorter matches are legal, and hardly ever pay
	maxMatch   = 258
	hashBits   = 15
	maxWindow  = 1 << 15
	chainDepth = 8
	goodMatch  = 32 // long enough to look hardly further
	maxSkip    = 8
	blockSize  = 1 << 14
)

// A token is a literal (its octet), or a match: length-3 in bits 16 to 23, distance in the low 16, and matchBit.
const matchBit = 1 << 31

func match(length, dist int) uint32 { return matchBit | uint32(length-3)<<16 | uint32(dist-1) }

// A deflater makes the payloads of one direction of one connection.
type deflater struct {
	window   int  // largest distance: 1 << window bits
	takeover bool // later messages may refer to earlier ones

	buf    []byte // up to maxWindow octets of earlier messages, then the message under way
	base   int    // position of buf[0] in the stream
	floor  int    // nothing before this position may be referred to
	head   [1 << hashBits]int32
	prev   [maxWindow]int32
	tokens []uint32
	block  blockWriter
}

func newDeflater(windowBits int, takeover bool) *deflater {
	// Positions begin at 1 << 16, so that the zeros of an empty head lie out of reach of every window.
	return &deflater{window: 1 << windowBits, takeover: takeover, base: 1 << 16, floor: 1 << 16}
}

// compress appends the payload of one message: a sync flush without its last four octets (RFC 7692 7.2.1).
func (d *deflater) compress(dst, msg []byte) []byte {
	d.admit(msg)
	d.block.out = dst
	start := len(d.buf) - len(msg)
	for at := start; at < len(d.buf); {
		from := at
		d.tokens = d.tokens[:0]
		at = d.scan(at)
		d.block.write(d.tokens, d.buf[from:at])
	}
	d.block.sync()
	dst, d.block.out = d.block.out, nil
	return dst
}

// admit puts msg behind as much of the past as matches can reach.
func (d *deflater) admit(msg []byte) {
	if d.base > 1<<30 { // the positions in head and prev are 32 bits wide
		clear(d.head[:])
		d.buf, d.base, d.floor = d.buf[:0], 1<<16, 1<<16
	}
	if old := len(d.buf) - maxWindow; old > 0 {
		copy(d.buf, d.buf[old:])
		d.buf = d.buf[:maxWindow]
		d.base += old
	}
	if !d.takeover {
		d.floor = d.base + len(d.buf)
	}
	d.buf = append(d.buf, msg...)
}

// scan turns d.buf[at:] into tokens until the block is full, and returns how far it came. Where nothing matches it
// looks less and less often.
func (d *deflater) scan(at int) int {
	missed := 0
	for at < len(d.buf) && len(d.tokens) < blockSize {
		length, dist := d.find(at)
		if length > 0 {
			d.tokens = append(d.tokens, match(length, dist))
			for i := at; i < at+length; i++ {
				d.insert(i)
			}
			at += length
			missed = 0
			continue
		}
		d.insert(at)
		missed++
		for n := min(1+missed>>5, maxSkip, len(d.buf)-at); n > 0; n-- {
			d.tokens = append(d.tokens, uint32(d.buf[at]))
			at++
		}
	}
	return at
}

func (d *deflater) hash(at int) uint32 {
	return binary.LittleEndian.Uint32(d.buf[at:]) * 0x9e3779b1 >> (32 - hashBits)
}

func (d *deflater) insert(at int) {
	if at+minMatch > len(d.buf) {
		return
	}
	h := d.hash(at)
	pos := d.base + at
	d.prev[pos&(maxWindow-1)] = d.head[h]
	d.head[h] = int32(pos)
}

// find returns the longest match for d.buf[at:] that the window and the floor allow.
func (d *deflater) find(at int) (length, dist int) {
	if at+minMatch > len(d.buf) {
		return 0, 0
	}
	pos := d.base + at
	least := max(d.floor, pos-d.window)
	most := min(maxMatch, len(d.buf)-at)
	length = minMatch - 1
	cand := int(d.head[d.hash(at)])
	for n := chainDepth; n > 0 && cand >= least && cand >= d.base; n-- {
		from := cand - d.base
		if d.buf[from+length] == d.buf[at+length] {
			if l := common(d.buf[from:from+most], d.buf[at:at+most]); l > length {
				length, dist = l, pos-cand
				if l == most {
					break
				}
				if l >= goodMatch {
					n = min(n, 2)
				}
			}
		}
		next := int(d.prev[cand&(maxWindow-1)])
		if next >= cand {
			break // an old entry that a newer position has overwritten
		}
		cand = next
	}
	if dist == 0 {
		return 0, 0
	}
	return length, dist
}

// common is the number of leading octets that a and b, of equal length, share.
func common(a, b []byte) int {
	n := 0
	for len(a)-n >= 8 {
		x := binary.LittleEndian.Uint64(a[n:]) ^ binary.LittleEndian.Uint64(b[n:])
		if x != 0 {
			return n + bits.TrailingZeros64(x)/8
		}
		n += 8
	}
	for n < len(a) && a[n] == b[n] {
		n++
	}
	return n
}
