//go:build !linux

// Command bench compares this library with others, on Linux.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "The bench needs epoll, /proc and sched_setaffinity: it runs on Linux.")
	os.Exit(1)
}
