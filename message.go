package websocket

import (
	"bytes"
	"sync"
)

// message.go owns what applications send and receive: whole messages.

// A MessageType tells text from binary (RFC 6455 section 5.6).
type MessageType byte

// The two types of messages.
const (
	MessageText   MessageType = 1 // UTF-8
	MessageBinary MessageType = 2 // any bytes
)

// String returns "text" or "binary".
func (t MessageType) String() string {
	switch t {
	case MessageText:
		return "text"
	case MessageBinary:
		return "binary"
	}
	return "invalid message type"
}

// A Message is a whole message. Its Data is the caller's when sending, and
// whose it is when receiving depends on the call: see [Conn.Read] and
// [Conn.Next].
type Message struct {
	Type MessageType
	Data []byte
	// Plain sends the message uncompressed whatever was agreed on: see
	// [Compression] for when that matters.
	Plain bool

	prepared *prepared
}

// Prepared is what the copies of a prepared message share.
type prepared struct {
	frame  []byte // as a server sends it
	packed [maxBits - minBits + 1]struct {
		once sync.Once
		data []byte // compressed on its own, for windows of that size; nil if that is no gain
	}
}

// Text returns a text message holding s.
func Text(s string) Message { return Message{Type: MessageText, Data: []byte(s)} }

// Binary returns a binary message holding p, which it does not copy.
func Binary(p []byte) Message { return Message{Type: MessageBinary, Data: p} }

// Prepare returns a copy of m for sending over many connections: whatever can
// be shared between them is encoded and checked at most once. The result must
// not be changed, and may be used by any number of goroutines at the same time.
//
// If m cannot be sent, neither can the result, with the same error.
func Prepare(m Message) Message {
	if m.check() != nil {
		return m.Clone()
	}
	h := Header{Fin: true, Opcode: Opcode(m.Type), Len: int64(len(m.Data))}
	f := AppendHeader(make([]byte, 0, MaxHeaderSize+len(m.Data)), h)
	n := len(f)
	f = append(f, m.Data...)
	return Message{Type: m.Type, Data: f[n:len(f):len(f)], Plain: m.Plain, prepared: &prepared{frame: f}}
}

// Clone returns a copy of m whose memory is its own: what [Conn.Next], a
// [Handler] or a loop over [Conn.Messages] lent is kept by cloning it.
func (m Message) Clone() Message {
	return Message{Type: m.Type, Data: bytes.Clone(m.Data), Plain: m.Plain}
}

// check refuses what no peer would accept (RFC 6455 sections 5.6 and 8.1).
func (m *Message) check() error {
	switch {
	case m.prepared != nil:
		return nil
	case m.Type == MessageBinary:
		return nil
	case m.Type != MessageText:
		return errType
	case !validText(m.Data):
		return errText
	}
	return nil
}

// validText tells whether p is UTF-8 as a whole.
func validText(p []byte) bool {
	var u utf8Check
	return u.add(p) && u.complete()
}
