//go:build linux

package main

import (
	"context"
	"net"
	"net/http"

	"github.com/gorilla/websocket"
	"github.com/lesismal/nbio/logging"
	"github.com/lesismal/nbio/nbhttp"
	nbio "github.com/lesismal/nbio/nbhttp/websocket"
	"github.com/lxzan/gws"
	own "github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/engine"
)

// Every server echoes, in the way its library's documentation shows first.
func init() {
	servers = []server{
		{"engine", func(l net.Listener) error {
			return http.Serve(l, &engine.Engine{Handler: own.Handler{
				Message: func(c *own.Conn, m own.Message) { c.Queue(m) },
			}})
		}},
		{"Server", func(l net.Listener) error {
			return http.Serve(l, &own.Server{Handler: func(ctx context.Context, c *own.Conn) {
				for m, err := range c.Messages(ctx) {
					if err != nil {
						return
					}
					c.Write(ctx, m)
				}
			}})
		}},
		{"gorilla", func(l net.Listener) error {
			var u websocket.Upgrader
			return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				c, err := u.Upgrade(w, r, nil)
				if err != nil {
					return
				}
				defer c.Close()
				for {
					kind, p, err := c.ReadMessage()
					if err != nil || c.WriteMessage(kind, p) != nil {
						return
					}
				}
			}))
		}},
		{"gws", func(l net.Listener) error {
			u := gws.NewUpgrader(&echo{}, nil)
			return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if c, err := u.Upgrade(w, r); err == nil {
					go c.ReadLoop()
				}
			}))
		}},
		{"nbio", func(l net.Listener) error {
			logging.SetLevel(logging.LevelNone)
			u := nbio.NewUpgrader()
			u.OnMessage(func(c *nbio.Conn, kind nbio.MessageType, p []byte) { c.WriteMessage(kind, p) })
			e := nbhttp.NewEngine(nbhttp.Config{
				Network: "tcp",
				Addrs:   []string{l.Addr().String()},
				Listen:  func(string, string) (net.Listener, error) { return l, nil },
				MaxLoad: 1 << 20,
				Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { u.Upgrade(w, r, nil) }),
			})
			u.Engine = e
			if err := e.Start(); err != nil {
				return err
			}
			select {}
		}},
	}
}

type echo struct{ gws.BuiltinEventHandler }

func (*echo) OnPing(c *gws.Conn, p []byte) { c.WritePong(p) }

func (*echo) OnMessage(c *gws.Conn, m *gws.Message) {
	defer m.Close()
	c.WriteMessage(m.Opcode, m.Bytes())
}
