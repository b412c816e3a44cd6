//go:build linux

package main

import (
	"net"
	"net/http"

	"github.com/lesismal/nbio/logging"
	"github.com/lesismal/nbio/nbhttp"
	"github.com/lesismal/nbio/nbhttp/websocket"
)

func init() {
	register(&library{
		name: "nbio", module: "github.com/lesismal/nbio", server: nbioServer, deflate: true,
		note: "one poller with epoll that also calls the handlers; broadcast by WriteMessage",
	})
}

func nbioServer(l net.Listener, c Cell) error {
	logging.SetLevel(logging.LevelNone)
	var members group[*websocket.Conn]
	u := websocket.NewUpgrader()
	u.KeepaliveTime = 0
	u.EnableCompression(c.Deflate != "")
	u.SetCompressionLevel(1)
	u.OnMessage(func(conn *websocket.Conn, kind websocket.MessageType, p []byte) {
		if c.Kind != "broadcast" {
			conn.WriteMessage(kind, p)
			return
		}
		members.each(func(conn *websocket.Conn) { conn.WriteMessage(kind, p) })
	})
	if c.Kind == "broadcast" {
		u.OnOpen(func(conn *websocket.Conn) { members.add(conn) })
		u.OnClose(func(conn *websocket.Conn, err error) { members.remove(conn) })
	}
	e := nbhttp.NewEngine(nbhttp.Config{
		Network:                 "tcp",
		Addrs:                   []string{l.Addr().String()},
		Listen:                  func(string, string) (net.Listener, error) { return l, nil },
		NPoller:                 1,
		MaxLoad:                 100_000,
		ReleaseWebsocketPayload: true,
		ServerExecutor:          func(f func()) { f() },
		Handler:                 http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { u.Upgrade(w, r, nil) }),
	})
	u.Engine = e
	if err := e.Start(); err != nil {
		return err
	}
	select {}
}
