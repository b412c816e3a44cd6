//go:build linux

package main

import (
	"net"
	"net/http"

	"golang.org/x/net/websocket"
)

func init() {
	register(&library{
		name: "x/net", module: "golang.org/x/net", server: xnetServer,
		note: "Codec.Receive and Send, with the message's type",
	})
}

type xnetMessage struct {
	kind byte
	data []byte
}

var xnetCodec = websocket.Codec{
	Marshal: func(v any) ([]byte, byte, error) {
		m := v.(*xnetMessage)
		return m.data, m.kind, nil
	},
	Unmarshal: func(data []byte, kind byte, v any) error {
		*v.(*xnetMessage) = xnetMessage{kind, data}
		return nil
	},
}

func xnetServer(l net.Listener, c Cell) error {
	var members group[*websocket.Conn]
	return http.Serve(l, websocket.Server{Handler: func(conn *websocket.Conn) {
		if c.Kind == "broadcast" {
			members.add(conn)
			defer members.remove(conn)
		}
		for m := new(xnetMessage); ; {
			switch err := xnetCodec.Receive(conn, m); {
			case err != nil:
				return
			case c.Kind == "broadcast":
				members.each(func(conn *websocket.Conn) { xnetCodec.Send(conn, m) })
			case xnetCodec.Send(conn, m) != nil:
				return
			}
		}
	}})
}
