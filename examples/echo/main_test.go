package main

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket"
)

func TestEcho(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	running, interrupt := context.WithCancel(ctx)
	defer interrupt()
	served := make(chan error, 1)
	go func() { served <- serve(running, l) }()

	c, err := websocket.Dial(ctx, "ws://"+l.Addr().String()+"/echo", nil)
	require.NoError(t, err)
	defer c.CloseNow()
	for _, m := range []websocket.Message{websocket.Text("Grüße, 世界 👋🏽"), websocket.Binary([]byte{0, 255}), websocket.Text("")} {
		require.NoError(t, c.Write(ctx, m))
		got, err := c.Read(ctx)
		require.NoError(t, err)
		require.Equal(t, m, got)
	}

	interrupt() // as Ctrl-C does
	_, err = c.Read(ctx)
	require.Equal(t, &websocket.CloseError{Code: websocket.CloseGoingAway}, err)
	require.NoError(t, <-served)
	_, err = websocket.Dial(ctx, "ws://"+l.Addr().String()+"/echo", nil)
	require.Error(t, err)
}
