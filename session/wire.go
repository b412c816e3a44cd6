package session

import (
	"encoding/json"
	"errors"
	"strconv"
	"unicode/utf8"

	"github.com/seed-07372d5a/websocket"
)

// wire.go owns what is sent: envelopes, and their encoding.

// The types of envelopes.
const (
	typeHello   = "hello"   // client, first: Token of the session that it has, Ack
	typeWelcome = "welcome" // server, the answer: Token of the session that it is, Ack
	typeMessage = "message" // ID, Name, Data
	typeCall    = "call"    // ID, Name, Data
	typeReply   = "reply"   // ID, Re, and Data or Error
	typeCancel  = "cancel"  // ID, Re
	typeAck     = "ack"     // Ack
	typeGap     = "gap"     // ID: what has a smaller one and did not arrive will not
	typePing    = "ping"    // for those who cannot send protocol pings
	typePong    = "pong"    // the answer
)

// An Envelope is one message on the wire.
type Envelope struct {
	Type      string          `json:"type"`
	ID        uint64          `json:"id,omitempty"`        // the number in the sender's sequence, from 1
	Re        uint64          `json:"re,omitempty"`        // the ID of the call that is answered or cancelled
	Ack       uint64          `json:"ack,omitempty"`       // all of the other side's up to this one have been handled
	Token     string          `json:"token,omitempty"`     // of the session
	Name      string          `json:"name,omitempty"`      // of a message, or the method of a call
	Timestamp int64           `json:"timestamp,omitempty"` // when it was sent first, in ms since 1970
	Data      json.RawMessage `json:"data,omitempty"`      // the payload
	Error     *Error          `json:"error,omitempty"`     // of a reply
}

// An Error is what a call was answered with. Codes of this package are in the
// Code constants; applications choose others.
type Error struct {
	Code    string `json:"code"`
	Message string `json:"message,omitempty"`
}

func (e *Error) Error() string {
	if e.Message == "" {
		return "session: call failed: " + strconv.Quote(e.Code)
	}
	return "session: call failed: " + strconv.Quote(e.Code) + ": " + strconv.Quote(e.Message)
}

// Codes of errors that calls are answered with by this package.
const (
	CodeNoMethod = "no_method" // Config.Methods has none of that name
	CodeBusy     = "busy"      // too many calls wait
	CodeCanceled = "canceled"  // the caller did not wait for it
	CodeLost     = "lost"      // the server that was asked has gone, who knows when; Call returns ErrLost
	CodeInternal = "internal"  // the handler returned another error, which is not shown, or panicked
)

// A Codec turns envelopes into messages. Its methods are called from any
// goroutine.
type Codec interface {
	// Type is that of all messages.
	Type() websocket.MessageType
	// Append appends the encoding of e, whose Data Check has let through, to dst.
	Append(dst []byte, e *Envelope) []byte
	// Decode decodes b to e, which is zero. b is lent; e must not refer to it.
	Decode(b []byte, e *Envelope) error
	// Check tells whether data can be a payload.
	Check(data []byte) error
}

// JSON is the default Codec: an Envelope as encoding/json writes it. Payloads
// are JSON values.
var JSON Codec = jsonCodec{}

type jsonCodec struct{}

var (
	errEnvelope = errors.New("session: no envelope in JSON")
	errWindow   = errors.New("session: more than the window")
	errPayload  = errors.New("session: the payload is no JSON")
	errName     = errors.New("session: a name is 1 to 255 bytes of UTF-8")
)

func (jsonCodec) Type() websocket.MessageType { return websocket.MessageText }

func (jsonCodec) Check(data []byte) error {
	if len(data) > 0 && !(utf8.Valid(data) && valid(data, 1)) {
		return errPayload
	}
	return nil
}

func (jsonCodec) Append(b []byte, e *Envelope) []byte {
	b = append(b, `{"type":"`...)
	b = append(b, e.Type...)
	b = append(b, '"')
	b = appendNumber(b, `,"id":`, e.ID)
	b = appendNumber(b, `,"re":`, e.Re)
	b = appendNumber(b, `,"ack":`, e.Ack)
	b = appendString(b, `,"token":`, e.Token)
	b = appendString(b, `,"name":`, e.Name)
	b = appendNumber(b, `,"timestamp":`, uint64(e.Timestamp))
	if len(e.Data) > 0 {
		b = append(b, `,"data":`...)
		b = append(b, e.Data...)
	}
	if e.Error != nil {
		code := e.Error.Code
		if code == "" {
			code = CodeInternal
		}
		b = appendString(append(b, `,"error":{`...), `"code":`, code)
		b = append(appendString(b, `,"message":`, e.Error.Message), '}')
	}
	return append(b, '}')
}

func appendNumber(b []byte, field string, n uint64) []byte {
	if n == 0 {
		return b
	}
	return strconv.AppendUint(append(b, field...), n, 10)
}

// appendString appends a field; most strings need no escapes.
func appendString(b []byte, field, s string) []byte {
	if s == "" {
		return b
	}
	b = append(b, field...)
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			q, _ := json.Marshal(s) // strings can be encoded
			return append(b, q...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// Decode is encoding/json's, but that names of fields are as they are written.
func (jsonCodec) Decode(b []byte, e *Envelope) error {
	if !e.decode(b, nil) {
		return errEnvelope
	}
	return nil
}
