//go:build !windows

package engine

import "syscall"

var reset error = syscall.ECONNRESET
