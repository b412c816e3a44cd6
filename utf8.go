package websocket

// utf8.go owns the validation of text that comes in parts, which fails at the
// first byte that makes the text impossible (RFC 6455 section 8.1).

import (
	"encoding/binary"
	"unicode/utf8"
)

// A utf8Check validates text that comes in parts. The zero value awaits the
// first byte, or the first of the next text. After a false from add it is
// spent.
type utf8Check struct {
	need   uint8 // continuation bytes still to come of the code point begun
	lo, hi uint8 // what the next of them may be, if need > 0
}

// complete reports whether the text so far ends with a whole code point.
func (u *utf8Check) complete() bool { return u.need == 0 }

// add takes the next part and reports whether text may still begin like this.
func (u *utf8Check) add(p []byte) bool {
	for ; u.need > 0 && len(p) > 0; p = p[1:] {
		if !u.step(p[0]) {
			return false
		}
	}
	i := unfinished(p)
	if whole := p[:i]; i >= bulkMin {
		if !validBulk(whole) {
			return false
		}
	} else if !ascii(whole) && !utf8.Valid(whole) {
		return false
	}
	for _, c := range p[i:] { // three bytes at most
		if !u.step(c) {
			return false
		}
	}
	return true
}

// step takes one byte. The ranges are those of RFC 3629 section 4.
func (u *utf8Check) step(c byte) bool {
	if u.need > 0 {
		ok := u.lo <= c && c <= u.hi
		u.need, u.lo, u.hi = u.need-1, 0x80, 0xbf
		return ok
	}
	u.lo, u.hi = 0x80, 0xbf
	switch {
	case c < 0x80:
		return true
	case c < 0xc2: // a continuation byte; an overlong two
		return false
	case c < 0xe0:
		u.need = 1
		return true
	case c == 0xe0: // else overlong
		u.lo = 0xa0
	case c == 0xed: // else a surrogate
		u.hi = 0x9f
	case c == 0xf0: // else overlong
		u.lo = 0x90
	case c == 0xf4: // else beyond U+10FFFF
		u.hi = 0x8f
	case c > 0xf4:
		return false
	}
	u.need = 2 + c>>4&1 // three for 0xf_, two for 0xe_
	return true
}

// unfinished returns where the code point begins that p's end leaves unfinished,
// else len(p).
func unfinished(p []byte) int {
	n := len(p)
	switch {
	case n >= 1 && p[n-1] >= 0xc0: // any lead byte
		return n - 1
	case n >= 2 && p[n-2] >= 0xe0: // one of three or four
		return n - 2
	case n >= 3 && p[n-3] >= 0xf0: // one of four
		return n - 3
	}
	return n
}

// ascii reports whether p is ASCII. It looks only if p has a whole word.
func ascii(p []byte) bool {
	if len(p) < 8 || p[0] >= 0x80 {
		return false
	}
	all := binary.LittleEndian.Uint64(p[len(p)-8:]) // overlaps what the loop sees
	for ; len(p) > 8; p = p[8:] {
		all |= binary.LittleEndian.Uint64(p)
	}
	return all&0x8080808080808080 == 0
}
