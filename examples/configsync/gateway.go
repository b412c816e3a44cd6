package main

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/seed-07372d5a/websocket/reconnect"
	"github.com/seed-07372d5a/websocket/session"
)

// gateway.go owns the clients: programs somewhere that live by the configuration.

// A gateway keeps a copy of the configuration, and applies what changes.
type gateway struct {
	name   string
	client *session.Client
	apply  func(c change) // is where a real gateway would act; nil: nowhere

	mu       sync.Mutex
	version  uint64
	values   map[string]string
	phase    reconnect.State
	opened   int    // connections
	session  string // of this connection: "new" or "resumed", "" if that is not known yet
	answered bool   // ever
	applied  int    // changes
	repeated int    // changes that had been applied before, and were left out
	last     []edit
}

// An edit is a change that was applied.
type edit struct {
	Key     string `json:"key"`
	Old     string `json:"old"`
	New     string `json:"new"`
	Added   bool   `json:"added,omitempty"`
	Deleted bool   `json:"deleted,omitempty"`
}

// newGateway makes a gateway that tries these servers, beginning with the first.
func newGateway(name string, urls []string) *gateway {
	g := &gateway{name: name, values: make(map[string]string)}
	g.client = &session.Client{
		Reconnect: reconnect.Client{
			URLs:    urls,
			Backoff: reconnect.Exponential{Base: 300 * time.Millisecond, Max: 2 * time.Second},
			Good:    time.Second,
			OnState: g.state,
		},
		Config: session.Config{Message: g.message, Gap: g.gap},
	}
	return g
}

func (g *gateway) run(ctx context.Context) error { return g.client.Run(ctx) }

// state notes what the connection has come to. On every new one the gateway says
// which version it has: the message goes into whatever session the connection
// turns out to have, after what that session still brings.
func (g *gateway) state(s reconnect.State) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.phase = s
	if s.Phase == reconnect.Open {
		g.opened++
		g.session = ""
		g.greet()
	}
}

// gap: messages are missing. It does not matter which ones, the version says it
// all; and if it is the session that is lost, that has been said: the greeting of
// this connection goes into the session that follows.
func (g *gateway) gap(_ *session.Session, gap session.Gap) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if gap.Lost {
		g.session = "new"
		return
	}
	g.greet()
}

func (g *gateway) greet() {
	// An error says that the buffer is full of greetings: one is enough.
	g.client.Session().Send("version", encode(greeting{g.name, g.version}))
}

func (g *gateway) message(_ *session.Session, name string, data []byte) {
	var d difference
	if name != "changes" || json.Unmarshal(data, &d) != nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.session == "" { // there was no gap
		g.session = "resumed"
		if !g.answered {
			g.session = "new"
		}
	}
	g.answered = true
	switch {
	case d.All:
		g.merge(g.compare(d))
		g.version = d.Version
	case d.Since > g.version:
		g.greet() // something is missing in between
	default:
		g.merge(g.news(d))
		g.version = max(g.version, d.Version)
	}
}

// news leaves out what has been applied, which is everything up to the version.
// That makes it right to be told twice, which happens: what a session brings
// again after a cut is in the difference that was asked for, too.
func (g *gateway) news(d difference) (changes []change) {
	for _, c := range d.Changes {
		if c.Version <= g.version {
			g.repeated++
			continue
		}
		changes = append(changes, c)
	}
	return changes
}

// compare finds what is different here from all that there is.
func (g *gateway) compare(all difference) (changes []change) {
	there := make(map[string]bool)
	for _, c := range all.Changes {
		there[c.Key] = true
		if old, ok := g.values[c.Key]; !ok || old != c.Value {
			changes = append(changes, c)
		}
	}
	for key := range g.values {
		if !there[key] {
			changes = append(changes, change{Key: key, Deleted: true, Version: all.Version})
		}
	}
	return changes
}

// merge applies changes.
func (g *gateway) merge(changes []change) {
	var edits []edit
	for _, c := range changes {
		old, known := g.values[c.Key]
		if c.Deleted && !known {
			continue // it came and went while this gateway was away
		}
		edits = append(edits, edit{c.Key, old, c.Value, !known, c.Deleted})
		if g.values[c.Key] = c.Value; c.Deleted {
			delete(g.values, c.Key)
		}
		g.applied++
		if g.apply != nil {
			g.apply(c)
		}
	}
	if len(edits) > 0 {
		g.last = edits
	}
}

// A view is what the page shows of a gateway.
type view struct {
	Name     string `json:"name"`
	Version  uint64 `json:"version"`
	Keys     int    `json:"keys"`
	Phase    string `json:"phase"`
	URL      string `json:"-"`
	Server   string `json:"server"` // of the connection, or of the attempt
	Wait     int64  `json:"wait"`   // until the next attempt, in ms
	Session  string `json:"session"`
	Opened   int    `json:"opened"`
	Applied  int    `json:"applied"`
	Repeated int    `json:"repeated"`
	Last     []edit `json:"last"`
}

func (g *gateway) view() view {
	g.mu.Lock()
	defer g.mu.Unlock()
	v := view{
		Name: g.name, Version: g.version, Keys: len(g.values), Phase: g.phase.Phase.String(), URL: g.phase.URL,
		Session: g.session, Opened: g.opened, Applied: g.applied, Repeated: g.repeated, Last: g.last,
	}
	if g.phase.Phase == reconnect.Waiting {
		v.Wait = max(time.Until(g.phase.Until).Milliseconds(), 0)
	}
	return v
}
