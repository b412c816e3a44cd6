//go:build (amd64 || arm64) && !purego

package websocket

// utf8_simd.go owns the tables for validating UTF-8 a vector at a time, as in
// Keiser and Lemire, "Validating UTF-8 In Less Than One Instruction Per Byte"
// (2020). Every error but one shows in two neighbouring bytes, and there in
// three of their halves: the high and the low one of the first byte, and the
// high one of the second. Three tables of 16 hold a bit for each error that a
// half allows; the error is there if all three allow it. What remains is a
// continuation byte after another: the two bytes before them tell whether
// that is right.

import "unicode/utf8"

var utf8Class = makeUTF8Class()

func makeUTF8Class() (class [3][16]uint8) {
	// What each error takes, as sets: bit 0xc of high is for bytes 0xc0 to 0xcf.
	errors := [8]struct{ high, low, second uint16 }{
		{0xf000, 0xffff, 0xf0ff}, // a lead byte, then none of continuation
		{0x00ff, 0xffff, 0x0f00}, // ASCII, then a continuation byte
		{0x1000, 0x0003, 0x0f00}, // c0, c1: would be ASCII
		{0x4000, 0x0001, 0x0300}, // e0 80 to e0 9f: would fit in two bytes
		{0x4000, 0x2000, 0x0c00}, // ed a0 to ed bf: surrogates
		{0x8000, 0xffe1, 0x0100}, // f0 80 to f0 8f: would fit in three; f5 and above
		{0x8000, 0xfff0, 0x0e00}, // f4 90 and above: beyond U+10FFFF
		{0x0f00, 0xffff, 0x0f00}, // two continuation bytes: bit 7, which the assembly knows
	}
	for bit, e := range errors {
		for half := range 16 {
			class[0][half] |= uint8(e.high>>half&1) << bit
			class[1][half] |= uint8(e.low>>half&1) << bit
			class[2][half] |= uint8(e.second>>half&1) << bit
		}
	}
	return class
}

// validBulk is utf8.Valid for bulkMin bytes and more.
func validBulk(p []byte) bool {
	if simd < simdUTF8 {
		return utf8.Valid(p)
	}
	// The blocks find a code point that is too short at the byte after it, so
	// the end is looked at here.
	return unfinished(p) == len(p) && utf8Blocks(&p[0], len(p), &utf8Class)
}
