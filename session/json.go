package session

import (
	"encoding/json"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// json.go owns the scanner for the default codec: one pass that checks as strictly
// as encoding/json does, and takes no memory but for what is kept.

// maxDepth is how deep objects and arrays may lie in each other, the envelope
// included; so deep goes encoding/json.
const maxDepth = 10_000

// A scanner walks over JSON. Its methods return false for what is none.
type scanner struct {
	b []byte
	i int
}

func (s *scanner) space() {
	for s.i < len(s.b) && s.b[s.i] <= ' ' {
		switch s.b[s.i] {
		case ' ', '\t', '\r', '\n':
			s.i++
		default:
			return
		}
	}
}

// next skips c, and space before it; false if there is something else.
func (s *scanner) next(c byte) bool {
	s.space()
	if s.i < len(s.b) && s.b[s.i] == c {
		s.i++
		return true
	}
	return false
}

// plain has the bytes that are nothing special in a string.
var plain = func() (t [256]bool) {
	for c := range t {
		t[c] = c >= ' ' && c != '"' && c != '\\'
	}
	return t
}()

// str skips a string, whose opening quote is behind it, and tells whether there
// are escapes in it.
func (s *scanner) str() (escaped, ok bool) {
	for b := s.b; ; {
		i := s.i
		for i < len(b) && plain[b[i]] {
			i++
		}
		s.i = i + 1
		switch {
		case i >= len(b) || b[i] < ' ':
			return false, false
		case b[i] == '"':
			return escaped, true
		case i+1 >= len(b):
			return false, false
		}
		escaped = true
		s.i++
		switch b[i+1] {
		case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		case 'u':
			if _, ok := hex4(b[s.i:]); !ok {
				return false, false
			}
			s.i += 4
		default:
			return false, false
		}
	}
}

func hex4(b []byte) (r rune, ok bool) {
	if len(b) < 4 {
		return 0, false
	}
	for _, c := range b[:4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

func (s *scanner) digits() bool {
	from := s.i
	for s.i < len(s.b) && '0' <= s.b[s.i] && s.b[s.i] <= '9' {
		s.i++
	}
	return s.i > from
}

func (s *scanner) at(c, or byte) bool {
	if s.i < len(s.b) && (s.b[s.i] == c || s.b[s.i] == or) {
		s.i++
		return true
	}
	return false
}

// number skips a number (RFC 8259 section 6).
func (s *scanner) number() bool {
	s.at('-', '-')
	if !s.at('0', '0') && !s.digits() {
		return false
	}
	if s.at('.', '.') && !s.digits() {
		return false
	}
	if s.at('e', 'E') {
		s.at('+', '-')
		return s.digits()
	}
	return true
}

func (s *scanner) word(w string) bool {
	if len(s.b)-s.i < len(w) || string(s.b[s.i:s.i+len(w)]) != w {
		return false
	}
	s.i += len(w)
	return true
}

// value skips a value, and space before it, in what lies depth deep already. It
// does not recurse: what is open is a bit each.
func (s *scanner) value(depth int) bool {
	var few [4]uint64
	open := few[:] // objects are ones
	for level := 0; ; {
		s.space()
		if s.i >= len(s.b) {
			return false
		}
		ok := true
		switch c := s.b[s.i]; c {
		case '{', '[':
			s.i++
			if level++; level+depth > maxDepth {
				return false
			}
			if level/64 >= len(open) {
				open = append(open, 0)
			}
			open[level/64] &^= 1 << (level % 64)
			if c == '[' {
				if !s.next(']') {
					continue
				}
				level--
			} else if s.next('}') {
				level--
			} else {
				open[level/64] |= 1 << (level % 64)
				if !s.key() {
					return false
				}
				continue
			}
		case '"':
			s.i++
			_, ok = s.str()
		case 't':
			ok = s.word("true")
		case 'f':
			ok = s.word("false")
		case 'n':
			ok = s.word("null")
		default:
			ok = s.number()
		}
		if !ok {
			return false
		}
		for { // a value has ended
			if level == 0 {
				return true
			}
			object := open[level/64]>>(level%64)&1 == 1
			if s.next(',') {
				if object && !s.key() {
					return false
				}
				break
			}
			if object && !s.next('}') || !object && !s.next(']') {
				return false
			}
			level--
		}
	}
}

// key skips the name of a field and the colon.
func (s *scanner) key() bool {
	if !s.next('"') {
		return false
	}
	_, ok := s.str()
	return ok && s.next(':')
}

// valid tells whether b is a value that can lie depth deep.
func valid(b []byte, depth int) bool {
	s := scanner{b: b}
	if !s.value(depth) {
		return false
	}
	s.space()
	return s.i == len(b)
}

// raw returns the next value, and space before it is skipped.
func (s *scanner) raw(depth int) (v []byte, ok bool) {
	s.space()
	from := s.i
	if !s.value(depth) {
		return nil, false
	}
	return s.b[from:s.i], true
}

// text returns the string that v is; ok is false if it is none. known has what
// need not be allocated, and learns.
func text(v []byte, known *names) (t string, ok bool) {
	if len(v) < 2 || v[0] != '"' {
		return "", false
	}
	v = v[1 : len(v)-1]
	for _, c := range v {
		if c == '\\' || c >= utf8.RuneSelf {
			return unquote(v), true
		}
	}
	return known.get(v), true
}

// unquote takes escapes, and what is no UTF-8, as encoding/json does.
func unquote(v []byte) string {
	out := make([]byte, 0, len(v))
	for i := 0; i < len(v); {
		if v[i] != '\\' {
			r, n := utf8.DecodeRune(v[i:])
			out = utf8.AppendRune(out, r)
			i += n
			continue
		}
		c := v[i+1]
		i += 2
		switch c {
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'u':
			r, _ := hex4(v[i:])
			i += 4
			if utf16.IsSurrogate(r) {
				pair := rune(utf8.RuneError)
				if i+1 < len(v) && v[i] == '\\' && v[i+1] == 'u' {
					low, _ := hex4(v[i+2:])
					pair = utf16.DecodeRune(r, low)
				}
				if r = pair; r != utf8.RuneError {
					i += 6
				}
			}
			out = utf8.AppendRune(out, r)
			continue
		}
		out = append(out, c)
	}
	return string(out)
}

// names are strings that came before: most messages have one of a few names.
type names [4]string

func (n *names) get(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if n == nil || len(b) > maxName {
		return string(b)
	}
	at := &n[(len(b)+int(b[len(b)-1]))%len(n)]
	if *at != string(b) {
		*at = string(b)
	}
	return *at
}

// known are the types of envelopes, which are constants.
func knownType(v []byte) (string, bool) {
	switch string(v) {
	case `"message"`:
		return typeMessage, true
	case `"ack"`:
		return typeAck, true
	case `"call"`:
		return typeCall, true
	case `"reply"`:
		return typeReply, true
	}
	return text(v, nil)
}

// decode is json.Unmarshal to an Envelope that is zero, but that names of fields
// are as they are written, and that a wrong type is found before what follows it.
func (e *Envelope) decode(b []byte, known *names) bool {
	s := scanner{b: b}
	if !s.next('{') {
		return false
	}
	for more := !s.next('}'); more; {
		s.space()
		from := s.i
		if !s.key() {
			return false
		}
		name := s.b[from:s.i]
		v, ok := s.raw(1)
		if !ok || !e.field(fieldName(name), v, known) {
			return false
		}
		if more = s.next(','); !more && !s.next('}') {
			return false
		}
	}
	s.space()
	return s.i == len(b)
}

// fieldName returns the name in what key has skipped, as it is written.
func fieldName(k []byte) []byte {
	k = k[1:]
	for i, c := range k {
		switch c {
		case '"':
			return k[:i]
		case '\\':
			rest := scanner{b: k}
			rest.str()
			return []byte(unquote(k[:rest.i-1]))
		}
	}
	return k
}

func (e *Envelope) field(name, v []byte, known *names) (ok bool) {
	null := v[0] == 'n'
	var err error
	switch string(name) {
	case "data":
		e.Data = append(json.RawMessage(nil), v...)
	case "error":
		return e.failure(v, null)
	case "type", "token", "name", "id", "re", "ack", "timestamp":
		if null {
			return true
		}
		switch string(name) {
		case "type":
			e.Type, ok = knownType(v)
		case "token":
			e.Token, ok = text(v, nil)
		case "name":
			e.Name, ok = text(v, known)
		case "id":
			return natural(v, &e.ID)
		case "re":
			return natural(v, &e.Re)
		case "ack":
			return natural(v, &e.Ack)
		case "timestamp":
			e.Timestamp, err = strconv.ParseInt(string(v), 10, 64)
			ok = err == nil
		}
		return ok
	}
	return true
}

// failure is field for the error of a reply.
func (e *Envelope) failure(v []byte, null bool) bool {
	if null {
		e.Error = nil
		return true
	}
	if e.Error == nil {
		e.Error = new(Error)
	}
	s := scanner{b: v}
	if !s.next('{') {
		return false
	}
	for more := !s.next('}'); more; more = s.next(',') {
		s.space()
		from := s.i
		s.key() // it is valid
		name := fieldName(s.b[from:s.i])
		v, _ := s.raw(2)
		var to *string
		switch string(name) {
		case "code":
			to = &e.Error.Code
		case "message":
			to = &e.Error.Message
		}
		if to == nil || v[0] == 'n' {
			continue
		}
		var ok bool
		if *to, ok = text(v, nil); !ok {
			return false
		}
	}
	return true
}

// natural takes digits only: no sign, fraction or exponent.
func natural(v []byte, to *uint64) bool {
	var n uint64
	for _, c := range v {
		if c < '0' || c > '9' || n > (1<<64-1)/10 || n*10 > 1<<64-1-uint64(c-'0') {
			return false
		}
		n = n*10 + uint64(c-'0')
	}
	*to = n
	return true
}
