//go:build !unix

package websocket

import (
	"context"
	"net"
)

// A socket exists on Unix only.
type socket struct{}

func newSocket(net.Conn) *socket { return nil }

func (*socket) serve(context.Context, *Handler) {}

func (*socket) served() {}

func (*socket) hangUp() bool { panic("unreachable") }

func (*socket) read(*Conn, []byte) (int, error) { panic("unreachable") }

func (*socket) tryWrite([]byte, bool) int { panic("unreachable") }
