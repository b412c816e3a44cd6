package main

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/seed-07372d5a/websocket"
)

// Limits: whatever a page sends, the room stays small and quick.
const (
	maxPeople = 200
	maxName   = 24   // characters
	maxText   = 2000 // characters
	joinTime  = 10 * time.Second
	burst     = 10                     // messages that somebody may send at once,
	interval  = 250 * time.Millisecond // and the pace after that
)

var options = websocket.AcceptOptions{Config: websocket.Config{
	ReadLimit:    32 << 10,  // maxText, even if JSON escapes all of it
	QueueLimit:   256 << 10, // whoever is further behind is too slow
	CloseTimeout: 2 * time.Second,
}}

// Close codes of this application (RFC 6455 section 7.4.2). To the page, they
// say not to come back by itself.
const (
	closeReplaced websocket.CloseCode = 4000 // the same page came back on another connection
	closeRefused  websocket.CloseCode = 4001 // the name cannot be had
)

// A request is what a page sends: first a join, then says. Each say is answered
// to its sender, in order, with a message or an error.
type request struct {
	Type string // "join" or "say"
	Name string // join: as whom
	Key  string // join: a secret by which the page is known when it comes back
	Text string // say
	To   string // say: to one person; to all if empty
}

// An event is what a page is sent.
type event struct {
	Type   string   `json:"type"` // "welcome", "joined", "left", "message" or "error"
	Name   string   `json:"name,omitempty"`
	People []string `json:"people,omitempty"` // welcome: who is here
	From   string   `json:"from,omitempty"`
	To     string   `json:"to,omitempty"` // message: the one who gets it besides its sender; all if empty
	Text   string   `json:"text,omitempty"`
	Time   int64    `json:"time,omitempty"` // message: milliseconds since 1970
}

// encode makes the event ready for any number of connections.
func (e event) encode() websocket.Message {
	b, err := json.Marshal(e)
	if err != nil {
		panic(err) // strings and numbers can be encoded
	}
	return websocket.Prepare(websocket.Message{Type: websocket.MessageText, Data: b})
}

// A farewell is why the server ends a connection.
type farewell struct {
	code   websocket.CloseCode
	reason string
}

// A room is where people meet. The lock also keeps events in the same order for
// everybody; it is never held for long, since posting does not wait.
type room struct {
	mu     sync.Mutex
	people map[string]*person // by fold(name)
}

// A person is somebody who has joined.
type person struct {
	name, key string
	conn      *websocket.Conn
}

// serve is the life of one connection.
func (r *room) serve(ctx context.Context, c *websocket.Conn) {
	if f := r.host(ctx, c); f != nil {
		c.Close(f.code, f.reason)
	}
}

// host lets somebody in and passes on what they say, until the connection ends
// or is to be ended.
func (r *room) host(ctx context.Context, c *websocket.Conn) *farewell {
	p, f := greet(ctx, c)
	if f != nil {
		return f
	}
	if f := r.join(p); f != nil {
		return f
	}
	defer r.leave(p)

	var pace pace
	for m, err := range c.Messages(ctx) {
		if err != nil {
			return nil // the connection has ended
		}
		q, f := parse(m, "say")
		if f != nil {
			return f
		}
		// Whoever is too fast is not read from: they wait, and only they.
		if !pause(ctx, pace.next(time.Now())) {
			return nil
		}
		if err := r.say(p, q.To, q.Text, time.Now()); err != nil {
			p.post(event{Type: "error", Text: err.Error()}.encode())
		}
	}
	return nil
}

// greet waits for somebody to say who they are.
func greet(ctx context.Context, c *websocket.Conn) (*person, *farewell) {
	ctx, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	m, err := c.Read(ctx)
	if err != nil {
		return nil, &farewell{websocket.ClosePolicyViolation, "nobody joined"}
	}
	q, f := parse(m, "join")
	if f != nil {
		return nil, f
	}
	name, err := cleanName(q.Name)
	if err != nil {
		return nil, &farewell{closeRefused, err.Error()}
	}
	return &person{name, q.Key, c}, nil
}

// parse reads a request of the type that is expected now.
func parse(m websocket.Message, expected string) (q request, f *farewell) {
	switch {
	case m.Type != websocket.MessageText:
		return q, &farewell{websocket.CloseUnsupportedData, "only text is understood"}
	case json.Unmarshal(m.Data, &q) != nil:
		return q, &farewell{websocket.ClosePolicyViolation, "that is no JSON of this chat"}
	case q.Type != expected:
		return q, &farewell{websocket.ClosePolicyViolation, "a " + expected + " was expected"}
	}
	return q, nil
}

// join makes p one of the people, unless somebody else has the name.
func (r *room) join(p *person) *farewell {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.people[fold(p.name)]
	switch {
	case old != nil && !old.is(p):
		return &farewell{closeRefused, "somebody here has that name already"}
	case old != nil: // a page came back before its lost connection was missed
		p.name = old.name
		go old.conn.Close(closeReplaced, "you are here on another connection")
	case len(r.people) >= maxPeople:
		return &farewell{websocket.CloseTryAgainLater, "the room is full"}
	default:
		r.tell(event{Type: "joined", Name: p.name})
	}
	if r.people == nil {
		r.people = make(map[string]*person)
	}
	r.people[fold(p.name)] = p
	p.post(event{Type: "welcome", Name: p.name, People: r.names()}.encode())
	return nil
}

// leave takes p out, unless they have come back on another connection.
func (r *room) leave(p *person) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.people[fold(p.name)] == p {
		delete(r.people, fold(p.name))
		r.tell(event{Type: "left", Name: p.name})
	}
}

// say passes a text on, to all or to one and its sender, or says why not.
func (r *room) say(from *person, to, text string, now time.Time) error {
	text, err := cleanText(text)
	if err != nil {
		return err
	}
	e := event{Type: "message", From: from.name, Text: text, Time: now.UnixMilli()}
	r.mu.Lock()
	defer r.mu.Unlock()
	if to == "" {
		r.tell(e)
		return nil
	}
	p := r.people[fold(to)]
	switch {
	case p == nil:
		return errors.New("nobody here has that name")
	case p.name == from.name:
		return errors.New("that is you")
	}
	e.To = p.name
	m := e.encode()
	p.post(m)
	from.post(m)
	return nil
}

// tell sends an event to everybody. The lock is held.
func (r *room) tell(e event) {
	m := e.encode()
	for _, p := range r.people {
		p.post(m)
	}
}

// names lists the people. The lock is held.
func (r *room) names() []string {
	names := make([]string, 0, len(r.people))
	for _, p := range r.people {
		names = append(names, p.name)
	}
	slices.Sort(names)
	return names
}

// post sends without waiting, so that nobody is held up by a slow connection:
// one that is too far behind is closed. Any other error ends its reader, too.
func (p *person) post(m websocket.Message) {
	if errors.Is(p.conn.Post(m), websocket.ErrQueueFull) {
		go p.conn.Close(websocket.ClosePolicyViolation, "too slow") // which waits for an answer
	}
}

// is tells whether p and q are the same page.
func (p *person) is(q *person) bool {
	return p.key != "" && subtle.ConstantTimeCompare([]byte(p.key), []byte(q.key)) == 1
}

// A pace is how fast somebody may talk: it holds the time at which the last
// message was due, which is a burst ago if they have been silent.
type pace struct{ due time.Time }

// next counts a message, and returns how long it has to wait.
func (p *pace) next(now time.Time) time.Duration {
	if silent := now.Add(-burst * interval); p.due.Before(silent) {
		p.due = silent
	}
	p.due = p.due.Add(interval)
	return p.due.Sub(now)
}

// pause waits, and tells whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// cleanName leaves what can be seen: a name that looks like another one is
// another one, as far as one can tell without comparing pictures of letters.
func cleanName(s string) (string, error) {
	seen := false
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r), unicode.In(r, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point):
			return -1
		}
		seen = seen || !unicode.IsMark(r)
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	switch {
	case !seen:
		return "", errors.New("a name is needed")
	case utf8.RuneCountInString(s) > maxName:
		return "", fmt.Errorf("a name has at most %d characters", maxName)
	}
	return s, nil
}

// cleanText leaves out control characters. HTML is text like any other: it is
// the page that must not take it for more.
func cleanText(s string) (string, error) {
	s = strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return -1
		}
		return r
	}, s))
	switch {
	case s == "":
		return "", errors.New("there is nothing in that message")
	case utf8.RuneCountInString(s) > maxText:
		return "", fmt.Errorf("a message has at most %d characters", maxText)
	}
	return s, nil
}

// fold makes names alike that differ in upper and lower case only.
func fold(name string) string { return strings.ToLower(strings.ToUpper(name)) }
