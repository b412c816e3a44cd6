//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/hub"
	"github.com/seed-07372d5a/websocket/hub/redis"
)

// redis.go owns the way over Redis: from Send on one machine to a member on
// another, and what of it is not Redis: to a member on the same machine.

func (o *options) redis(w io.Writer, say func(string)) error {
	say("Redis")
	alone, err := newNode("")
	if err != nil {
		return err
	}
	defer alone.close()
	fmt.Fprintln(w, "\n| from Send to a member | p50, µs | p99, µs | messages/s, 100 in flight |")
	fmt.Fprintln(w, "|---|--:|--:|--:|")
	if err := o.reach(w, "of the same hub", alone, alone); err != nil {
		return err
	}
	exe, err := exec.LookPath("redis-server")
	if err != nil {
		fmt.Fprintln(w, "| of another hub: there is no redis-server | – | – | – |")
		return nil
	}
	addr, stop, err := startRedis(exe)
	if err != nil {
		return err
	}
	defer stop()
	near, err := newNode(addr)
	if err != nil {
		return err
	}
	defer near.close()
	far, err := newNode(addr)
	if err != nil {
		return err
	}
	defer far.close()
	return o.reach(w, "of another hub, by Redis", near, far)
}

// reach measures from one node to another.
func (o *options) reach(w io.Writer, name string, from, to *node) error {
	one, err := from.reach(to, 2*o.turn, 1)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	many, err := from.reach(to, 2*o.turn, 100)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	fmt.Fprintf(w, "| %s | %.0f | %.0f | %.0f |\n", name, one.P50*1e3, one.P99*1e3, many.Deliveries/many.Took)
	return nil
}

// startRedis starts a Redis that keeps nothing.
func startRedis(exe string) (addr string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	addr = l.Addr().String()
	l.Close()
	_, port, _ := net.SplitHostPort(addr)
	cmd := exec.Command(exe, "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		cmd.Process.Kill()
		cmd.Wait()
	}
	c := goredis.NewClient(&goredis.Options{Addr: addr})
	defer c.Close()
	for range 100 {
		if err = c.Ping(bg).Err(); err == nil {
			return addr, stop, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	stop()
	return "", nil, err
}

// A node is a hub with one member, whose other end is client.
type node struct {
	hub    *hub.Hub
	redis  *goredis.Client
	l      net.Listener
	client *websocket.Conn
}

// newNode returns one without a broker if addr is "".
func newNode(addr string) (n *node, err error) {
	n = &node{hub: &hub.Hub{Authorize: func(context.Context, *hub.Member, hub.Room) error { return nil }}}
	if addr != "" {
		n.redis = goredis.NewClient(&goredis.Options{Addr: addr})
		n.hub.Broker = redis.New(n.redis, nil)
	}
	if n.l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	go http.Serve(n.l, &websocket.Server{Handler: func(ctx context.Context, c *websocket.Conn) {
		m, err := n.hub.Add(c, "ann")
		if err != nil || m.Join(ctx, news) != nil {
			c.CloseNow()
			return
		}
		m.Send(in)
		c.Serve(ctx, nil)
	}})
	if n.client, err = websocket.Dial(bg, "ws://"+n.l.Addr().String(), nil); err == nil {
		_, err = n.client.Read(bg)
	}
	return n, err
}

func (n *node) close() {
	n.client.CloseNow()
	n.l.Close()
	n.hub.Close()
	if n.redis != nil {
		n.redis.Close()
	}
}

// reach sends to the room, and waits at the member of another node, or of n.
func (n *node) reach(to *node, length time.Duration, inFlight int) (t turn, err error) {
	ctx, cancel := context.WithTimeout(bg, length+20*time.Second)
	defer cancel()
	other := n // has the room too: what it gets is read as well
	if to == n {
		other = nil
	}
	payload := strings.Repeat("x", 120)
	number, got := 0, map[*node]int{}
	next := func(n *node) error {
		m, err := n.client.Next(ctx)
		if err == nil && string(m.Data) != fmt.Sprintf("%s%08d", payload, got[n]) {
			err = fmt.Errorf("message %d is %q", got[n], m.Data)
		}
		got[n]++
		return err
	}
	var took []time.Duration
	begun := time.Now()
	for time.Since(begun) < length {
		sent := time.Now()
		for range inFlight {
			if err := n.hub.Send(news, websocket.Text(fmt.Sprintf("%s%08d", payload, number))); err != nil {
				return t, err
			}
			number++
		}
		for range inFlight {
			if err := next(to); err != nil {
				return t, err
			}
		}
		took = append(took, time.Since(sent))
		for i := 0; other != nil && i < inFlight; i++ {
			if err := next(other); err != nil {
				return t, err
			}
		}
	}
	t.Took = time.Since(begun).Seconds()
	t.Deliveries = float64(len(took) * inFlight)
	slices.Sort(took)
	t.P50, t.P99 = took[len(took)/2].Seconds()*1e3, took[len(took)*99/100].Seconds()*1e3
	return t, nil
}
