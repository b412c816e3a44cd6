package main

import (
	"fmt"
	"hash/crc32"
	"math/rand/v2"

	"github.com/seed-07372d5a/websocket"
)

const words = "the quick brown fox jumps over the lazy dog; größer als zuvor, 汉字也一样. "

// message makes the n-th message of a connection: text, that compresses, or
// random bytes.
func message(r *rand.Rand, id, n uint64) websocket.Message {
	size := r.IntN(300)
	switch r.IntN(40) {
	case 0:
		size = r.IntN(200_000)
	case 1, 2, 3:
		size = r.IntN(8000)
	}
	body := make([]byte, 0, size+len(words))
	typ := websocket.MessageText
	if r.IntN(2) == 0 {
		typ = websocket.MessageBinary
		for len(body) < size {
			body = append(body, byte(r.Uint32()), byte(n))
		}
	}
	for len(body) < size {
		body = append(body, words...)
	}
	return sealed(typ, id, n, body)
}

// sealed puts a number and a checksum before body.
func sealed(t websocket.MessageType, id, n uint64, body []byte) websocket.Message {
	p := fmt.Appendf(make([]byte, 0, len(body)+64), "%d %d %d %d ", id, n, len(body), crc32.ChecksumIEEE(body))
	return websocket.Message{Type: t, Data: append(p, body...)}
}

// open checks a message and returns its number.
func open(p []byte, id uint64) (n uint64, err error) {
	var from, size uint64
	var sum uint32
	if _, err := fmt.Sscanf(string(p[:min(len(p), 80)]), "%d %d %d %d", &from, &n, &size, &sum); err != nil {
		return 0, fmt.Errorf("no message of ours: %.60q", p)
	}
	switch {
	case from != id:
		return n, fmt.Errorf("a message of %d, not of %d", from, id)
	case size > uint64(len(p)) || crc32.ChecksumIEEE(p[uint64(len(p))-size:]) != sum:
		return n, fmt.Errorf("message %d of %d was changed", n, id)
	}
	return n, nil
}
