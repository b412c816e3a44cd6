package autobahn

// The log of one connection, in the rows that upstream's reports hold (catalogue 2).

import (
	"encoding/hex"
	"unicode/utf8"
)

const (
	cutAbove = 60 // payloads longer than this
	cutTo    = 64 // are shown so far
	maxRows  = 20_000
)

// A row is its kind and what belongs to it.
type row []any

type wirelog struct {
	on   bool
	rows []row
}

func (l *wirelog) add(kind string, more ...any) {
	if l.on && len(l.rows) < maxRows {
		l.rows = append(l.rows, append(row{kind}, more...))
	}
}

// cut shortens a payload for people: text if it is, else hex.
func cut(s string) string {
	short, dots := s, ""
	if len(s) > cutAbove {
		short, dots = s[:min(len(s), cutTo)], " ..."
	}
	if utf8.ValidString(short) {
		return short + dots
	}
	return "0x" + hex.EncodeToString([]byte(short)) + dots
}

func cutHex(b []byte) string {
	if len(b) > cutAbove {
		return hex.EncodeToString(b[:min(len(b), cutTo)]) + " ..."
	}
	return hex.EncodeToString(b)
}

// reasonText keeps a close reason as it is, or as hex.
func reasonText(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	return "0x" + hex.EncodeToString(b)
}

func (l *wirelog) read(b []byte) {
	if l.on {
		l.add("RO", []any{len(b), cutHex(b)})
	}
}

func (l *wirelog) wrote(j job) {
	if !l.on {
		return
	}
	step := j.chop
	if step == 0 {
		step = len(j.data)
	}
	for b := j.data; len(b) > 0; {
		n := min(step, len(b))
		l.add("TO", []any{n, cutHex(b[:n])}, j.chop > 0)
		b = b[n:]
	}
}

func (l *wirelog) received(h header, payload []byte) {
	if !l.on {
		return
	}
	var key any
	if h.masked {
		key = hex.EncodeToString([]byte{byte(h.key >> 24), byte(h.key >> 16), byte(h.key >> 8), byte(h.key)})
	}
	l.add("RF", []any{h.length, cut(string(payload))}, h.op, h.fin, h.rsv, h.masked, key)
}

// sent logs a frame; encoded tells the key that was drawn for it.
func (l *wirelog) sent(r *run, f frame, m mode, encoded []byte) {
	if !l.on {
		return
	}
	var key, chop any
	if masked := r.client != f.unlike; masked {
		n := f.headLen(true)
		key = hex.EncodeToString(encoded[n-4 : n])
	}
	if m > one {
		chop = int(m)
	}
	l.add("TF", []any{len(f.payload), cut(string(f.payload[:min(len(f.payload), peekSize)]))},
		f.op, !f.more, f.rsv, key, nil, chop, m != one)
}
