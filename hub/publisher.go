package hub

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/seed-07372d5a/websocket"
)

// publisher.go owns publishing over HTTP.

// A Publisher is an http.Handler by which other programs send. What they POST is
// sent to whom the query names:
//
//	?namespace=sport&room=tennis   a room, with &key= for KeepLatest
//	?user=ann                      a user
//	?namespace=sport               all in a namespace
//
// The body is the message: binary if its Content-Type is
// application/octet-stream, otherwise text. If it is application/json and there
// is no query, it is an object that says it all, in UTF-8:
//
//	{"namespace": "sport", "room": "tennis", "key": "score", "text": "15:0"}
//	{"user": "ann", "json": {"order": 7}}
//
// with the message in "text", or as JSON in "json", or as base64 in "binary".
// The answer is 204 No Content: sent, which does not tell whether anybody was
// there. Otherwise it is 400, 401, 405 or 413, or 503 for ErrUnsent, and nothing
// was sent.
type Publisher struct {
	Hub *Hub // required

	// Token is what requests show as "Authorization: Bearer TOKEN". It should be
	// random. If it is empty, all are refused.
	Token string

	// Limit is the size of the largest body, in bytes. 0: 1 MiB.
	Limit int64
}

// A publication is what a JSON body says.
type publication struct {
	Namespace string
	Room      string
	User      string
	Key       string
	Text      *string
	JSON      json.RawMessage
	Binary    []byte
}

func (p *Publisher) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case !p.allowed(r):
		w.Header().Set("WWW-Authenticate", "Bearer")
		http.Error(w, "a token is needed", http.StatusUnauthorized)
		return
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "POST only", http.StatusMethodNotAllowed)
		return
	}
	limit := p.Limit
	if limit == 0 {
		limit = 1 << 20
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if large := (*http.MaxBytesError)(nil); errors.As(err, &large) {
		http.Error(w, "the message is too large", http.StatusRequestEntityTooLarge)
		return
	}
	if err == nil {
		err = p.publish(r, body)
	}
	switch {
	case errors.Is(err, ErrUnsent):
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// allowed compares in constant time, whatever the lengths.
func (p *Publisher) allowed(r *http.Request) bool {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	a, b := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(p.Token))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1 && strings.EqualFold(scheme, "Bearer") && p.Token != ""
}

var errPublication = errors.New("hub: a publication has one address, and one of text, json and binary")

// publish sends what a request asks for.
func (p *Publisher) publish(r *http.Request, body []byte) error {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	q := r.URL.Query()
	if kind == "application/json" && len(q) == 0 {
		return p.publishJSON(body)
	}
	m := websocket.Message{Type: websocket.MessageText, Data: body}
	if kind == "application/octet-stream" {
		m.Type = websocket.MessageBinary
	}
	return p.send(&publication{Namespace: q.Get("namespace"), Room: q.Get("room"), User: q.Get("user"), Key: q.Get("key")}, m)
}

func (p *Publisher) publishJSON(body []byte) error {
	var x publication
	if err := json.Unmarshal(body, &x); err != nil {
		return errors.New("hub: the body is not a publication in JSON")
	}
	var m websocket.Message
	n := 0
	if x.Text != nil {
		m, n = websocket.Text(*x.Text), n+1
	}
	if x.JSON != nil {
		m, n = websocket.Message{Type: websocket.MessageText, Data: x.JSON}, n+1
	}
	if x.Binary != nil {
		m, n = websocket.Binary(x.Binary), n+1
	}
	if n != 1 {
		return errPublication
	}
	return p.send(&x, m)
}

// send finds out who is meant.
func (p *Publisher) send(x *publication, m websocket.Message) error {
	switch {
	case x.User != "" && x.Namespace == "" && x.Room == "" && x.Key == "":
		return p.Hub.SendUser(x.User, m)
	case x.User != "":
		return errPublication
	case x.Room == "" && x.Key == "":
		return p.Hub.SendNamespace(x.Namespace, m)
	}
	return p.Hub.SendKey(Room{x.Namespace, x.Room}, x.Key, m)
}
