//go:build !unix

package websocket

import "net"

// A rawReader exists on Unix only.
type rawReader struct{}

func newRawReader(net.Conn) *rawReader { return nil }

func (*rawReader) read(*Conn, []byte) (int, error) { panic("unreachable") }

func (*rawReader) tryWrite([]byte, bool) int { panic("unreachable") }
