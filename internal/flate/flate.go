// Package flate is DEFLATE (RFC 1951) for messages, as permessage-deflate (RFC 7692) wants it: from []byte to []byte,
// one message at a time, with a window of 256 bytes to 32 KiB that is real.
//
// Compress appends a message's compressed form. An Inflater appends what a compressed message, whole or in parts, says.
// A Window is all that a connection keeps between messages, and only if it agreed on context takeover. Everything else
// is borrowed from pools for the length of a call or a message.
package flate

import "errors"

// What is wrong with a compressed message. An Inflater that has returned one of these returns it for the rest of it.
var (
	ErrCorrupt     = errors.New("flate: corrupt input")
	ErrTooBig      = errors.New("flate: message exceeds the limit")
	ErrTooMuchWork = errors.New("flate: input yields too little output")
)

// ErrFull is no error of the message: Append needs more room.
var ErrFull = errors.New("flate: no room for what comes next")

// RFC 1951, 3.2.5 to 3.2.7.
const (
	maxCodeLen  = 15  // of a literal, length or distance
	maxLitLen   = 286 // symbols of the first alphabet that may occur
	maxDist     = 30  // and of the second
	maxPreLen   = 7   // code length of a code length
	numPre      = 19  // code length alphabet
	endOfBlock  = 256
	minMatch    = 3
	maxMatch    = 258
	maxStored   = 1<<16 - 1 // bytes in a stored block
	minBits     = 8         // RFC 7692, 7.1.2.1
	maxBits     = 15
	maxDistance = 1 << maxBits
)

// Block types, RFC 1951, 3.2.3.
const (
	storedBlock = iota
	fixedBlock
	dynamicBlock
)

// lengthBase and lengthExtra say what the symbols from 257 mean, RFC 1951, 3.2.5.
var (
	lengthBase = [...]uint16{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115,
		131, 163, 195, 227, 258}
	lengthExtra = [...]uint8{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
	distBase    = [...]uint16{1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537,
		2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577}
	distExtra = [...]uint8{0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12,
		13, 13}
)

// preOrder is the order in which a dynamic block gives the lengths of the code length code, RFC 1951, 3.2.7.
var preOrder = [numPre]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// fixedLens are the code lengths of fixed blocks, RFC 1951, 3.2.6: all of them, also those that must not occur.
func fixedLens() (lit [288]uint8, dist [32]uint8) {
	for i := range lit {
		switch {
		case i < 144:
			lit[i] = 8
		case i < 256:
			lit[i] = 9
		case i < 280:
			lit[i] = 7
		default:
			lit[i] = 8
		}
	}
	for i := range dist {
		dist[i] = 5
	}
	return lit, dist
}
