//go:build linux

package main

import (
	"net"

	"github.com/fasthttp/websocket"
	"github.com/valyala/fasthttp"
)

func init() {
	register(&library{
		name: "fasthttp", module: "github.com/fasthttp/websocket", server: fasthttpServer, deflate: true,
		note: "fasthttp/websocket on valyala/fasthttp, otherwise as gorilla",
	})
}

func fasthttpServer(l net.Listener, c Cell) error {
	u := websocket.FastHTTPUpgrader{EnableCompression: c.Deflate != ""}
	var members group[*websocket.Conn]
	s := fasthttp.Server{Logger: silent{}}
	s.Handler = func(ctx *fasthttp.RequestCtx) {
		u.Upgrade(ctx, func(conn *websocket.Conn) {
			if c.Kind != "broadcast" {
				gorillaEcho(conn, conn.WriteMessage)
				return
			}
			members.add(conn)
			defer members.remove(conn)
			gorillaEcho(conn, func(kind int, p []byte) error {
				m, err := websocket.NewPreparedMessage(kind, p)
				members.each(func(conn *websocket.Conn) { conn.WritePreparedMessage(m) })
				return err
			})
		})
	}
	return s.Serve(l)
}

type silent struct{}

func (silent) Printf(string, ...any) {}
