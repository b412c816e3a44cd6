package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/hub"
	"github.com/seed-07372d5a/websocket/hub/redis"
)

// server.go owns a server: a hub that Redis connects with those of the others,
// and the one room that they share.

var lobby = hub.Room{Namespace: "cluster", Name: "lobby"}

const (
	maxText = 500 // characters
	maxID   = 40  // bytes
	ready   = "listening"
)

// A server is one of the cluster. It would be a machine elsewhere.
type server struct {
	number   int
	hub      *hub.Hub
	endpoint *hub.Endpoint

	mu      sync.Mutex
	members map[*hub.Member]struct{}
	alone   bool // Redis cannot be reached
}

// A request is what a page sends: something to be said in the room.
type request struct {
	ID   string // by which the page knows it when it comes back
	Text string
}

// An event is what a page is sent.
type event struct {
	Type   string   `json:"type"`             // "message", "welcome", "joined", "left", "gap", "degraded" or "recovered"
	User   string   `json:"user,omitempty"`   // message, joined, left: who
	Users  []string `json:"users,omitempty"`  // welcome: who is there, on all servers
	Server int      `json:"server,omitempty"` // message: where it was sent
	ID     string   `json:"id,omitempty"`
	Text   string   `json:"text,omitempty"`
	Time   int64    `json:"time,omitempty"` // message: when it was sent, in milliseconds since 1970
}

func (e event) encode() websocket.Message {
	b, err := json.Marshal(e)
	if err != nil {
		panic(err) // strings and numbers can be encoded
	}
	return websocket.Message{Type: websocket.MessageText, Data: b}
}

// serve is the life of a server, which ends in good order when ctx does.
func serve(ctx context.Context, number int, listen, redisAddr string, page int, out io.Writer) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	logging.Disable() // of each attempt while Redis is gone: the page says it once
	client := goredis.NewClient(&goredis.Options{Addr: redisAddr})
	defer client.Close()
	s := newServer(number, redis.New(client, nil), page)
	defer s.hub.Close()
	web := &http.Server{Handler: s.endpoint, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}
	defer web.Close()
	failed := make(chan error, 1)
	go func() { failed <- web.Serve(l) }()
	fmt.Fprintln(out, ready)
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	bye, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	s.endpoint.Shutdown(bye) // or it cuts
	return nil
}

func newServer(number int, broker hub.Broker, page int) *server {
	s := &server{number: number, members: make(map[*hub.Member]struct{})}
	s.hub = &hub.Hub{
		Broker:    broker,
		Authorize: authorize,
		Options:   func(hub.Room) hub.Options { return hub.Options{Presence: true} },
		Encode:    encode,
		OnEvent:   s.notice,
	}
	s.endpoint = &hub.Endpoint{
		Hub: s.hub,
		Options: websocket.AcceptOptions{
			// The page is from another port than the servers.
			Origins: []string{fmt.Sprint("http://localhost:", page), fmt.Sprint("http://127.0.0.1:", page)},
			Config:  websocket.Config{ReadLimit: 8 << 10},
		},
		User:    user,
		Open:    s.open,
		Message: s.message,
		Close:   s.close,
	}
	return s
}

// authorize lets everybody into the lobby, and nobody anywhere else.
func authorize(_ context.Context, _ *hub.Member, r hub.Room) error {
	if r != lobby {
		return hub.ErrRefused
	}
	return nil
}

// user believes what the page says. Elsewhere this would look into the session.
func user(r *http.Request) (string, error) {
	name := r.URL.Query().Get("user")
	if name == "" {
		return "", errors.New("a name is needed")
	}
	return name, nil
}

// encode makes what pages are sent for an event of the room. What was sent is
// encoded already.
func encode(e hub.Event) (websocket.Message, bool) {
	if e.Kind == hub.Sent {
		return e.Message, true
	}
	return event{Type: e.Kind.String(), User: e.User, Users: e.Users}.encode(), true
}

// open tells a new connection how things are, and takes it into the room.
func (s *server) open(ctx context.Context, m *hub.Member) error {
	s.mu.Lock()
	s.members[m] = struct{}{}
	if s.alone {
		m.Send(event{Type: hub.Degraded.String()}.encode())
	}
	s.mu.Unlock()
	return m.Join(ctx, lobby)
}

func (s *server) close(m *hub.Member, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.members, m)
}

// notice tells all connections here whether Redis can be reached: that is no
// event of any room.
func (s *server) notice(e hub.Event) {
	if e.Kind != hub.Degraded && e.Kind != hub.Recovered {
		return
	}
	s.mu.Lock() // sending does not wait
	defer s.mu.Unlock()
	s.alone = e.Kind == hub.Degraded
	for m := range s.members {
		m.Send(event{Type: e.Kind.String()}.encode())
	}
}

// message passes on what was said, to all servers.
func (s *server) message(_ context.Context, m *hub.Member, msg websocket.Message) error {
	var q request
	if err := json.Unmarshal(msg.Data, &q); err != nil {
		return err
	}
	q.Text = strings.TrimSpace(q.Text)
	if q.Text == "" || utf8.RuneCountInString(q.Text) > maxText || len(q.ID) > maxID {
		return errors.New("a message has 1 to 500 characters")
	}
	return s.hub.Send(lobby, event{
		Type: "message", User: m.User(), Server: s.number, ID: q.ID, Text: q.Text, Time: time.Now().UnixMilli(),
	}.encode())
}
