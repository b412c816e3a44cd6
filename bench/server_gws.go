//go:build linux

package main

import (
	"net"

	"github.com/lxzan/gws"
)

func init() {
	register(&library{
		name: "gws", module: "github.com/lxzan/gws", server: gwsServer, client: gwsClient, deflate: true, takeover: true,
		note: "its own Server and event handler, not parallel, CheckUtf8Enabled; broadcast by Broadcaster",
	})
}

type gwsHandler struct {
	gws.BuiltinEventHandler
	members *group[*gws.Conn] // of a broadcast
}

func (h *gwsHandler) OnOpen(c *gws.Conn) {
	if h.members != nil {
		h.members.add(c)
	}
}

func (h *gwsHandler) OnClose(c *gws.Conn, err error) {
	if h.members != nil {
		h.members.remove(c)
	}
}

func (h *gwsHandler) OnPing(c *gws.Conn, p []byte) { c.WritePong(p) }

func (h *gwsHandler) OnMessage(c *gws.Conn, m *gws.Message) {
	defer m.Close()
	if h.members == nil {
		c.WriteMessage(m.Opcode, m.Bytes())
		return
	}
	b := gws.NewBroadcaster(m.Opcode, m.Bytes())
	h.members.each(func(c *gws.Conn) { b.Broadcast(c) })
	b.Close()
}

func gwsDeflate(c Cell) gws.PermessageDeflate {
	keep := c.Deflate == "takeover"
	return gws.PermessageDeflate{Enabled: c.Deflate != "", ServerContextTakeover: keep, ClientContextTakeover: keep,
		ServerMaxWindowBits: 15, ClientMaxWindowBits: 15} // as the others
}

func gwsServer(l net.Listener, c Cell) error {
	h := &gwsHandler{}
	if c.Kind == "broadcast" {
		h.members = new(group[*gws.Conn])
	}
	s := gws.NewServer(h, &gws.ServerOption{CheckUtf8Enabled: true, PermessageDeflate: gwsDeflate(c)})
	s.OnError = func(net.Conn, error) {}
	return s.RunListener(l)
}

func gwsClient(addr string, c Cell) error {
	return dialAll(c, func() (func(), error) {
		conn, _, err := gws.NewClient(&gwsHandler{}, &gws.ClientOption{Addr: "ws://" + addr, CheckUtf8Enabled: true})
		return func() { conn.ReadLoop() }, err
	})
}
