//go:build !(linux || darwin || dragonfly || freebsd || netbsd || openbsd)

package engine

import "net"

// system_other.go says that this system has no event loops here: connections are
// served by goroutines.

var operatingSystem system

func take(net.Conn) (s socket, ok bool) { return s, false }
