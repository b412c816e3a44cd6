package websocket_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/engine"
)

func init() {
	websocket.EngineLoops = func(t testing.TB, h websocket.Handler, config *tls.Config) func(websocket.Params) net.Conn {
		e := &engine.Engine{Handler: h, Loops: 1}
		e.Options.Config.KeepAlive = -1
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		loops := e.Listener(l)
		t.Cleanup(func() {
			l.Close()
			require.NoError(t, e.Shutdown(bg))
		})
		return func(p websocket.Params) net.Conn {
			peer, err := net.Dial("tcp", l.Addr().String())
			require.NoError(t, err)
			nc, err := loops.Accept()
			require.NoError(t, err)
			if config != nil {
				client, server := tls.Client(peer, &tls.Config{InsecureSkipVerify: true}), tls.Server(nc, config)
				done := make(chan error, 1)
				go func() { done <- client.Handshake() }()
				require.NoError(t, server.Handshake())
				require.NoError(t, <-done)
				peer, nc = client, server
			}
			c, err := e.Adopt(nc, p)
			require.NoError(t, err)
			require.Equal(t, "*engine.conn", fmt.Sprintf("%T", c.NetConn()), "a loop's")
			return peer
		}
	}
}
