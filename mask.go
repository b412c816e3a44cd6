package websocket

// mask.go owns the masking of RFC 6455 section 5.3: XOR with a key of four
// bytes that turns, in place and while copying.

import (
	"encoding/binary"
	"math/bits"
)

// bulkMin is the length from which assembly is faster than Go, in spite of the
// call. The assembly relies on it: utf8AVX2 needs 35 bytes.
const bulkMin = 36

// Mask masks or unmasks b in place (RFC 6455 section 5.3). It keeps nothing of
// b and allocates nothing; goroutines may mask different bytes at once.
//
// Byte i of b is XORed with byte i mod 4 of key, counted from the low end: key
// is what [binary.LittleEndian] reads from the wire. Mask returns the key for
// the byte after b, so that a payload may come in parts: hand each part the
// key that the one before it returned.
func Mask(b []byte, key uint32) uint32 {
	return maskCopy(b, b, key)
}

// maskCopy writes src, masked, to dst, and returns the key for the byte after.
// dst is no shorter than src, and either begins with it or does not overlap it.
func maskCopy(dst, src []byte, key uint32) uint32 {
	n := len(src)
	dst = dst[:n]
	next := bits.RotateLeft32(key, -8*n) // RotateLeft32 counts mod 32, so the key by n mod 4

	// All but the shortest end with a whole word, or vector, that overlaps the
	// one before it: no loop over the bytes left. At n-4, n-8 and so on the key
	// has turned as far as at n. That last word is loaded before anything is
	// stored: in place, no byte may be masked twice.
	switch {
	case n >= bulkMin:
		maskBulk(dst, src, key, next)
	case n > 16:
		maskWords(dst, src, key)
	case n >= 8:
		k := uint64(key)<<32 | uint64(key)
		head := binary.LittleEndian.Uint64(src) ^ k
		tail := binary.LittleEndian.Uint64(src[n-8:]) ^ bits.RotateLeft64(k, -8*n)
		binary.LittleEndian.PutUint64(dst, head)
		binary.LittleEndian.PutUint64(dst[n-8:], tail)
	case n >= 4:
		head := binary.LittleEndian.Uint32(src) ^ key
		tail := binary.LittleEndian.Uint32(src[n-4:]) ^ next
		binary.LittleEndian.PutUint32(dst, head)
		binary.LittleEndian.PutUint32(dst[n-4:], tail)
	default:
		for i, c := range src {
			dst[i] = c ^ byte(key>>(8*i))
		}
	}
	return next
}

// maskWords is the portable masking of 8 bytes and more.
func maskWords(dst, src []byte, key uint32) {
	n := len(src)
	k := uint64(key)<<32 | uint64(key)
	tail := binary.LittleEndian.Uint64(src[n-8:]) ^ bits.RotateLeft64(k, -8*n)
	last := dst[n-8:]
	for len(src) > 32 {
		d, s := dst[:32], src[:32]
		binary.LittleEndian.PutUint64(d[0:], binary.LittleEndian.Uint64(s[0:])^k)
		binary.LittleEndian.PutUint64(d[8:], binary.LittleEndian.Uint64(s[8:])^k)
		binary.LittleEndian.PutUint64(d[16:], binary.LittleEndian.Uint64(s[16:])^k)
		binary.LittleEndian.PutUint64(d[24:], binary.LittleEndian.Uint64(s[24:])^k)
		dst, src = dst[32:], src[32:]
	}
	for len(src) > 8 && len(dst) > 8 { // the second spares bounds checks
		binary.LittleEndian.PutUint64(dst, binary.LittleEndian.Uint64(src)^k)
		dst, src = dst[8:], src[8:]
	}
	binary.LittleEndian.PutUint64(last, tail)
}
