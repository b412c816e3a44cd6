package main

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/hub"
)

// kinds.go owns the four ways to the client. Whichever it comes by, it says with
// "after" what it has already, and gets the same quotes in the same order.

const (
	patience  = 25 * time.Second // without quotes, after which long polling and events say that they are there
	writeTime = 10 * time.Second // for the network to take something
)

// after reads up to when the client has quotes: a time as in a quote, 0 for none.
func after(w http.ResponseWriter, r *http.Request) (int64, bool) {
	s := r.URL.Query().Get("after")
	if id := r.Header.Get("Last-Event-ID"); id != "" { // an EventSource that comes back by itself
		s = id
	}
	if s == "" {
		return 0, true
	}
	t, err := strconv.ParseInt(s, 10, 64)
	if err != nil || t < 0 {
		http.Error(w, "after is the time of a quote", http.StatusBadRequest)
		return 0, false
	}
	return t, true
}

// poll answers at once.
func (f *feed) poll(w http.ResponseWriter, r *http.Request) {
	if t, ok := after(w, r); ok {
		quotes, _ := f.since(t)
		answer(w, quotes)
	}
}

// long answers when there is something to say.
func (f *feed) long(w http.ResponseWriter, r *http.Request) {
	t, ok := after(w, r)
	if !ok {
		return
	}
	quotes, changed := f.since(t)
	if len(quotes) == 0 {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		select {
		case <-changed:
			quotes, _ = f.since(t)
		case <-timer.C: // proxies do not wait for ever
		case <-r.Context().Done(): // the client has gone, or the server goes
			http.Error(w, "try again", http.StatusServiceUnavailable)
			return
		}
	}
	answer(w, quotes)
}

// answer sends an array of quotes.
func answer(w http.ResponseWriter, quotes []quote) {
	b := make([]byte, 0, 64*len(quotes)+2)
	b = append(b, '[')
	for i, q := range quotes {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, q.json...)
	}
	b = append(b, ']')
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTime))
	w.Write(b)
}

// events never ends its answer (HTML Standard, section 9.2).
func (f *feed) events(w http.ResponseWriter, r *http.Request) {
	t, ok := after(w, r)
	if !ok {
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	rc := http.NewResponseController(w)
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		rc.SetWriteDeadline(time.Now().Add(writeTime))
		quotes, changed := f.since(t)
		for _, q := range quotes {
			if _, err := w.Write(q.event); err != nil {
				return
			}
			t = q.time
		}
		if rc.Flush() != nil {
			return
		}
		timer.Reset(patience)
		select {
		case <-changed:
		case <-timer.C:
			if _, err := w.Write([]byte(":\n\n")); err != nil {
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}

// market is the room of those who come by WebSocket.
var market = hub.Room{Namespace: "quotes", Name: "market"}

type afterKey struct{}

// connect makes the hub. Its members that are slow get the latest quote of each
// symbol.
func (f *feed) connect() {
	f.hub = &hub.Hub{
		Authorize: func(ctx context.Context, m *hub.Member, r hub.Room) error { return nil }, // these are for everybody
		Options:   func(r hub.Room) hub.Options { return hub.Options{Policy: hub.KeepLatest} },
	}
	f.endpoint = &hub.Endpoint{
		Hub: f.hub,
		Options: websocket.AcceptOptions{Config: websocket.Config{
			ReadLimit:    1,        // nothing is expected
			QueueLimit:   32 << 10, // kept quotes and a few more
			WriteTimeout: writeTime,
		}},
		Open: f.welcome,
	}
}

// welcome sends what somebody has missed; all that follows comes by the hub.
func (f *feed) welcome(ctx context.Context, m *hub.Member) error {
	f.order.Lock()
	defer f.order.Unlock()
	quotes, _ := f.since(ctx.Value(afterKey{}).(int64))
	for _, q := range quotes {
		if err := m.Conn().Queue(websocket.Message{Type: websocket.MessageText, Data: q.json}); err != nil {
			return err
		}
	}
	return m.Join(ctx, market)
}

// socket passes on to the endpoint what the request asks for.
func (f *feed) socket() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if t, ok := after(w, r); ok {
			f.endpoint.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), afterKey{}, t)))
		}
	})
}
