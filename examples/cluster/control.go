package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/seed-07372d5a/websocket"
)

// control.go owns what the page's buttons do: three servers and a Redis, each of
// which can be killed and started.

const servers = 3

// A runner is what is killed and started.
type runner interface {
	start(ended func()) error // returns when it can be reached; ended is called should it end by itself
	kill()                    // at once, without a goodbye
	stop()                    // in good order
	state() (up bool, pid int)
}

// A unit is a server or Redis, as the page sees it.
type unit struct {
	Name    string `json:"name"` // "1", "2", "3" or "redis"
	Kind    string `json:"kind"`
	Addr    string `json:"addr"`
	Fixed   bool   `json:"fixed"` // it is not ours to kill
	Up      bool   `json:"up"`
	Pid     int    `json:"pid"`     // 0: within this program, or elsewhere
	Trouble string `json:"trouble"` // why it did not start

	runner runner
	busy   sync.Mutex // held while it is started or killed
}

// A command is what a button sends.
type command struct {
	Do   string // "kill" or "start"
	Name string
}

// A control has the units, and tells all pages how they are.
type control struct {
	units []*unit // the servers, and then Redis
	pages websocket.Server

	mu sync.Mutex // keeps what pages are told in order, and covers what is in units
}

func newControl(redis *unit, port int) (*control, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := new(control)
	c.pages.Handler = c.serve
	for n := range servers {
		addr, err := freeAddr("localhost")
		if err != nil {
			return nil, err
		}
		c.units = append(c.units, &unit{Name: fmt.Sprint(n + 1), Kind: "server", Addr: addr, runner: &process{
			ready: ready,
			ours:  true,
			args: []string{
				self, "-server", fmt.Sprint(n + 1), "-listen", addr, "-redis", redis.Addr, "-port", fmt.Sprint(port),
			},
		}})
	}
	c.units = append(c.units, redis)
	return c, nil
}

// start starts all: the servers would do without Redis, but it comes first.
func (c *control) start() error {
	for i := range c.units {
		if err := c.do("start", c.units[len(c.units)-1-i]); err != nil {
			return err
		}
	}
	return nil
}

// stop ends all, in the other order.
func (c *control) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c.pages.Shutdown(ctx) // or it cuts
	var ended sync.WaitGroup
	for _, u := range c.units[:servers] {
		ended.Go(u.runner.stop)
	}
	ended.Wait()
	c.units[servers].runner.stop()
}

// serve is the life of one page's connection.
func (c *control) serve(ctx context.Context, conn *websocket.Conn) {
	c.tell()
	for m, err := range conn.Messages(ctx) {
		var q command
		if err != nil || json.Unmarshal(m.Data, &q) != nil {
			return
		}
		for _, u := range c.units {
			if u.Name == q.Name && !u.Fixed {
				c.do(q.Do, u)
			}
		}
	}
}

// do kills or starts a unit, and tells the pages.
func (c *control) do(what string, u *unit) error {
	u.busy.Lock()
	defer u.busy.Unlock()
	var err error
	up, _ := u.runner.state()
	switch {
	case what == "kill" && up:
		u.runner.kill()
	case what == "start" && !up:
		err = u.runner.start(c.tell)
	}
	c.mu.Lock()
	u.Trouble = ""
	if err != nil {
		err = fmt.Errorf("%s %s: %w", u.Kind, u.Name, err)
		u.Trouble = err.Error()
	}
	c.mu.Unlock()
	c.tell()
	return err
}

// tell sends all pages how the units are.
func (c *control) tell() {
	c.mu.Lock() // posting does not wait
	defer c.mu.Unlock()
	for _, u := range c.units {
		u.Up, u.Pid = u.runner.state()
	}
	b, err := json.Marshal(c.units)
	if err != nil {
		panic(err) // strings and numbers can be encoded
	}
	m := websocket.Prepare(websocket.Message{Type: websocket.MessageText, Data: b})
	for conn := range c.pages.Conns() {
		if errors.Is(conn.Post(m), websocket.ErrQueueFull) {
			conn.CloseNow() // it comes back and is told then
		}
	}
}
