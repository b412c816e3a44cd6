//go:build linux

package main

import (
	"io"
	"net"
	"net/http"
	"sync"

	"github.com/gorilla/websocket"
)

func init() {
	register(&library{
		name: "gorilla", module: "github.com/gorilla/websocket", server: gorillaServer, client: gorillaClient, deflate: true,
		note: "NextReader into a buffer that is kept, WriteMessage; broadcast by PreparedMessage; idle with a WriteBufferPool",
	})
}

func gorillaServer(l net.Listener, c Cell) error {
	u := websocket.Upgrader{EnableCompression: c.Deflate != ""}
	if c.Kind == "idle" {
		u.WriteBufferPool = new(sync.Pool)
	}
	var members group[*websocket.Conn]
	return serveHTTP(l, func(w http.ResponseWriter, r *http.Request) {
		conn, err := u.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
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

func gorillaClient(addr string, c Cell) error {
	return dialAll(c, func() (func(), error) {
		conn, _, err := websocket.DefaultDialer.Dial("ws://"+addr, nil)
		return func() { gorillaEcho(conn, conn.WriteMessage) }, err
	})
}

// gorillaEcho also drives fasthttp/websocket, which is a fork.
func gorillaEcho(conn interface {
	NextReader() (int, io.Reader, error)
}, answer func(int, []byte) error) {
	var buf []byte
	for {
		kind, r, err := conn.NextReader()
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
