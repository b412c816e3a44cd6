//go:build linux

package main

import (
	"context"
	"net"
	"net/http"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/engine"
)

func init() {
	register(&library{
		name: "websocket-serve", kind: "ours", server: websocketServer(websocketServe), client: websocketClient(websocketServe), deflate: true, takeover: true,
		note: "Server and Conn.Serve, answers by Queue; broadcast by Prepare and Post",
	})
	register(&library{
		name: "websocket-next", kind: "ours", server: websocketServer(websocketNext), client: websocketClient(websocketNext), deflate: true, takeover: true,
		note: "Server and Conn.Next, answers by Write, or by Queue while input is buffered; broadcast by Prepare and Post",
	})
	register(&library{
		name: "engine", kind: "ours", server: engineServer, deflate: true, takeover: true,
		note: "package engine with one loop, answers by Queue; broadcast by Prepare and Post",
	})
}

func websocketConfig(c Cell) (config websocket.Config) {
	if c.Deflate != "" {
		config.Compression = &websocket.Compression{Takeover: c.Deflate == "takeover"}
	}
	return config
}

type websocketLoop func(ctx context.Context, c *websocket.Conn, answer func(websocket.Message))

func websocketServer(loop websocketLoop) func(l net.Listener, c Cell) error {
	return func(l net.Listener, c Cell) error {
		var members group[*websocket.Conn]
		s := &websocket.Server{Options: websocket.AcceptOptions{Config: websocketConfig(c)}}
		s.Handler = func(ctx context.Context, conn *websocket.Conn) {
			if c.Kind != "broadcast" {
				loop(ctx, conn, nil)
				return
			}
			members.add(conn)
			defer members.remove(conn)
			loop(ctx, conn, func(m websocket.Message) {
				m = websocket.Prepare(m)
				members.each(func(conn *websocket.Conn) { conn.Post(m) })
			})
		}
		return http.Serve(l, s)
	}
}

func engineServer(l net.Listener, c Cell) error {
	e := &engine.Engine{Handler: *websocketEcho, Options: websocket.AcceptOptions{Config: websocketConfig(c)}, Loops: 1}
	if c.Kind == "broadcast" {
		var members group[*websocket.Conn]
		e.Handler = websocket.Handler{
			Open: members.add,
			Message: func(_ *websocket.Conn, m websocket.Message) {
				m = websocket.Prepare(m)
				members.each(func(conn *websocket.Conn) { conn.Post(m) })
			},
			Close: func(conn *websocket.Conn, _ error) { members.remove(conn) },
		}
	}
	return http.Serve(l, e)
}

func websocketClient(loop websocketLoop) func(addr string, c Cell) error {
	return func(addr string, c Cell) error {
		ctx := context.Background()
		return dialAll(c, func() (func(), error) {
			conn, err := websocket.Dial(ctx, "ws://"+addr, &websocket.DialOptions{Config: websocketConfig(c)})
			return func() { loop(ctx, conn, nil) }, err
		})
	}
}

var websocketEcho = &websocket.Handler{Message: func(c *websocket.Conn, m websocket.Message) { c.Queue(m) }}

func websocketServe(ctx context.Context, c *websocket.Conn, answer func(websocket.Message)) {
	h := websocketEcho
	if answer != nil {
		h = &websocket.Handler{Message: func(_ *websocket.Conn, m websocket.Message) { answer(m) }}
	}
	c.Serve(ctx, h)
}

func websocketNext(ctx context.Context, c *websocket.Conn, answer func(websocket.Message)) {
	for {
		m, err := c.Next(ctx)
		switch {
		case err != nil:
			return
		case answer != nil:
			answer(m)
		case c.Buffered():
			c.Queue(m)
		default:
			c.Write(ctx, m)
		}
	}
}
