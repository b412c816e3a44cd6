//go:build linux

package main

import (
	"context"
	"net"
	"net/http"

	"github.com/coder/websocket"
)

func init() {
	register(&library{
		name: "coder", module: "github.com/coder/websocket", server: coderServer, client: coderClient, deflate: true, takeover: true,
		note: "Reader into a buffer that is kept, Write",
	})
}

func coderMode(c Cell) websocket.CompressionMode {
	switch c.Deflate {
	case "alone":
		return websocket.CompressionNoContextTakeover
	case "takeover":
		return websocket.CompressionContextTakeover
	}
	return websocket.CompressionDisabled
}

func coderServer(l net.Listener, c Cell) error {
	var members group[*websocket.Conn]
	ctx := context.Background()
	return serveHTTP(l, func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: coderMode(c)})
		if err != nil {
			return
		}
		if c.Kind != "broadcast" {
			coderEcho(conn, func(kind websocket.MessageType, p []byte) error { return conn.Write(ctx, kind, p) })
			return
		}
		members.add(conn)
		defer members.remove(conn)
		coderEcho(conn, func(kind websocket.MessageType, p []byte) error {
			members.each(func(conn *websocket.Conn) { conn.Write(ctx, kind, p) })
			return nil
		})
	})
}

func coderClient(addr string, c Cell) error {
	ctx := context.Background()
	return dialAll(c, func() (func(), error) {
		conn, _, err := websocket.Dial(ctx, "ws://"+addr, nil)
		return func() {
			coderEcho(conn, func(kind websocket.MessageType, p []byte) error { return conn.Write(ctx, kind, p) })
		}, err
	})
}

func coderEcho(conn *websocket.Conn, answer func(websocket.MessageType, []byte) error) {
	defer conn.CloseNow()
	conn.SetReadLimit(-1)
	var buf []byte
	for {
		kind, r, err := conn.Reader(context.Background())
		if err != nil {
			return
		}
		if buf, err = readInto(buf, r); err != nil {
			return
		}
		if answer(kind, buf) != nil {
			return
		}
	}
}
