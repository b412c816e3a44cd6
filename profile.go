package websocket

import (
	"math"
	"sync"
	"time"
)

// profile.go owns what connections have in common: nearly all of a program's were
// made in one of a few ways.

// A profile is a Config, resolved, and what else the connections of one server
// share. It is comparable and never changes.
type profile struct {
	readLimit  int64
	queueLimit int

	writeTimeout, progressTimeout, closeTimeout, keepAlive, keepAliveTimeout time.Duration

	client      bool
	subprotocol string
}

// Hooks are those of a Config.
type hooks struct{ ping, pong func(c *Conn, p []byte) }

// profile returns those of a connection, with the defaults for what was left zero.
func (p *Params) profile() *profile {
	or := func(d, def time.Duration) time.Duration {
		if d == 0 {
			return def
		}
		return d
	}
	c := &p.Config
	t := profile{
		c.ReadLimit, c.QueueLimit,
		or(c.WriteTimeout, 10*time.Second), or(c.ProgressTimeout, 30*time.Second), or(c.CloseTimeout, 5*time.Second),
		or(c.KeepAlive, 25*time.Second), or(c.KeepAliveTimeout, 20*time.Second),
		p.Client, p.Subprotocol,
	}
	if t.readLimit == 0 {
		t.readLimit = 1 << 20
	}
	if t.readLimit < 0 {
		t.readLimit = math.MaxInt64
	}
	if t.queueLimit == 0 {
		t.queueLimit = 1 << 20
	}
	return t.shared()
}

// lately has the profiles of the last connections that were made.
var lately struct {
	sync.Mutex
	profiles [16]*profile
	next     int
}

// shared returns t, or its equal of another connection.
func (t profile) shared() *profile {
	lately.Lock()
	defer lately.Unlock()
	for _, u := range lately.profiles {
		if u != nil && *u == t {
			return u
		}
	}
	u := new(profile)
	*u = t
	lately.profiles[lately.next%len(lately.profiles)] = u
	lately.next++
	return u
}
