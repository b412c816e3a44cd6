package engine

import "syscall"

var reset error = syscall.WSAECONNRESET
