package hub_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/hub"
)

// A group chat with an online count and private messages: text goes to all, and
// "@ann Hi" to Ann and back to its sender.
func ExampleEndpoint() {
	lobby := hub.Room{Namespace: "chat", Name: "lobby"}
	h := &hub.Hub{
		Authorize: func(ctx context.Context, m *hub.Member, r hub.Room) error {
			if r != lobby || m.User() == "" {
				return hub.ErrRefused
			}
			return nil
		},
		Options: func(r hub.Room) hub.Options { return hub.Options{Presence: true, MaxMembers: 1000} },
		Encode: func(e hub.Event) (websocket.Message, bool) {
			b, err := json.Marshal(map[string]any{
				"kind": e.Kind.String(), "user": e.User, "online": e.Users, "text": string(e.Message.Data),
			})
			return websocket.Message{Type: websocket.MessageText, Data: b}, err == nil
		},
	}
	http.Handle("/chat", &hub.Endpoint{
		Hub:  h,
		User: func(r *http.Request) (string, error) { return r.URL.Query().Get("name"), nil }, // ask your session
		Open: func(ctx context.Context, m *hub.Member) error { return m.Join(ctx, lobby) },
		Message: func(ctx context.Context, m *hub.Member, msg websocket.Message) error {
			text := string(msg.Data)
			if to, private, ok := strings.Cut(text, " "); ok && strings.HasPrefix(to, "@") {
				msg = websocket.Text(m.User() + " whispers: " + private)
				return errors.Join(h.SendUser(to[1:], msg), m.Send(msg))
			}
			return h.Send(lobby, websocket.Text(m.User()+": "+text))
		},
		Error: func(m *hub.Member, err error) { fmt.Fprintln(os.Stderr, m.User(), err) },
	})
}

// Quotes: whoever is too slow for all of them gets the latest of each.
func ExampleHub_SendKey() {
	h := &hub.Hub{
		Authorize: func(ctx context.Context, m *hub.Member, r hub.Room) error {
			if r.Namespace != "quotes" {
				return hub.ErrRefused
			}
			return nil // these are for everybody
		},
		Options: func(r hub.Room) hub.Options { return hub.Options{Policy: hub.KeepLatest} },
	}
	market := hub.Room{Namespace: "quotes", Name: "nyse"}
	http.Handle("/quotes", &hub.Endpoint{
		Hub: h,
		// The less may wait in the connection, the fresher is what a slow one gets.
		Options: websocket.AcceptOptions{Config: websocket.Config{QueueLimit: 4 << 10}},
		Open:    func(ctx context.Context, m *hub.Member) error { return m.Join(ctx, market) },
	})
	h.SendKey(market, "ACME", websocket.Text(`{"ACME": 17.25}`))
}

// Programs in other languages send over HTTP:
//
//	curl -H "Authorization: Bearer $PUSH_TOKEN" -d 'It is here.' 'https://example.com/push?user=ann'
func ExamplePublisher() {
	h := &hub.Hub{} // nobody can join a room, but users can be sent to
	http.Handle("/orders", &hub.Endpoint{
		Hub: h,
		User: func(r *http.Request) (string, error) {
			user, _, ok := r.BasicAuth() // checked by a handler around this one
			if !ok {
				return "", errors.New("who are you?")
			}
			return user, nil
		},
	})
	http.Handle("/push", &hub.Publisher{Hub: h, Token: os.Getenv("PUSH_TOKEN")})
}

// A chat whose clients miss nothing when their connection breaks: a client keeps
// the "offset" of the last event, and whenever it connects begins with "since " and
// that; the first time it has none. On a "gap" it loads the page again.
func ExampleMember_Resume() {
	lobby := hub.Room{Namespace: "chat", Name: "lobby"}
	h := &hub.Hub{
		Authorize: func(ctx context.Context, m *hub.Member, r hub.Room) error { return nil }, // for everybody
		Options: func(r hub.Room) hub.Options {
			return hub.Options{History: 1000, HistoryAge: 10 * time.Minute}
		},
		Encode: func(e hub.Event) (websocket.Message, bool) {
			b, err := json.Marshal(map[string]any{
				"kind": e.Kind.String(), "offset": e.Offset, "text": string(e.Message.Data),
			})
			return websocket.Message{Type: websocket.MessageText, Data: b}, err == nil
		},
	}
	http.Handle("/lobby", &hub.Endpoint{
		Hub: h,
		Message: func(ctx context.Context, m *hub.Member, msg websocket.Message) error {
			if offset, ok := strings.CutPrefix(string(msg.Data), "since "); ok {
				return m.Resume(ctx, lobby, offset)
			}
			return h.Send(lobby, msg)
		},
	})
}
